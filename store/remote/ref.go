package remote

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/url"
	"path"
	"strconv"
	"strings"
	"unicode"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Is reports whether s is written as the URL of something outside, rather than as a path.
func Is(s string) bool {
	scheme, _, ok := strings.Cut(s, "://")
	return ok && known(strings.ToLower(scheme))
}

func known(scheme string) bool { return scheme == "https" || scheme == "http" || scheme == "s3" }

// Ref names something outside, and what is known of its content.
type Ref struct {
	web    *url.URL // nil for s3
	bucket string
	key    string // of an object, or the prefix of a folder's
	sha256 []byte // nil when not pinned
	cid    cid.Cid
}

// Parse reads a URL:
//
//	https://HOST/PATH  http://HOST/PATH   one file
//	s3://BUCKET/KEY                       one object; the key is taken as it is, without escapes
//	s3://BUCKET  s3://BUCKET/PREFIX/      a folder: all objects whose keys begin so
//
// One file may be pinned by what follows a #: sha256=HEX, cid=CID, or both joined by &.
func Parse(s string) (Ref, error) {
	scheme, rest, _ := strings.Cut(s, "://")
	if scheme = strings.ToLower(scheme); !known(scheme) {
		return Ref{}, grid.Errorf(grid.Invalid, "%q is no URL of the kinds https://, http:// and s3://", s)
	}
	if len(s) > maxURL {
		return Ref{}, grid.Errorf(grid.Limit, "a URL has %d bytes, at most %d are allowed", len(s), maxURL)
	}
	var r Ref
	if scheme == "s3" {
		if i := strings.LastIndexByte(rest, '#'); i >= 0 && isPin(rest[i+1:]) {
			if err := r.pin(rest[i+1:]); err != nil {
				return Ref{}, grid.Errorf(grid.Invalid, "%s: %w", s, err)
			}
			rest = rest[:i]
		}
		r.bucket, r.key, _ = strings.Cut(rest, "/")
		switch {
		case r.bucket == "":
			return Ref{}, grid.Errorf(grid.Invalid, "%s names no bucket; want s3://BUCKET/KEY", s)
		case r.Folder() && r.Pinned():
			return Ref{}, grid.Errorf(grid.Invalid, "%s: a checksum is of one object, but this is a folder", s)
		}
		return r, nil
	}
	u, err := url.Parse(s)
	if err != nil { // it quotes the URL, password and all
		return Ref{}, grid.Errorf(grid.Invalid, "%s://… is not a URL", scheme).Hint("blanks and other special characters are written as %%20 and the like")
	}
	if u.Hostname() == "" {
		return Ref{}, grid.Errorf(grid.Invalid, "%s names no host", s)
	}
	r.web = u
	if u.Fragment != "" {
		if err := r.pin(u.Fragment); err != nil {
			return Ref{}, grid.Errorf(grid.Invalid, "%s: %w", r, err)
		}
		u.Fragment, u.RawFragment = "", ""
	}
	return r, nil
}

const maxURL = 16 << 10

func isPin(s string) bool {
	return strings.HasPrefix(s, "sha256=") || strings.HasPrefix(s, "cid=")
}

// pin reads what follows the #. What is not understood is an error, as a checksum with a typing error in
// its name would otherwise protect nobody.
func (r *Ref) pin(s string) error {
	for _, part := range strings.Split(s, "&") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "sha256":
			sum, err := hex.DecodeString(value)
			if err != nil || len(sum) != sha256.Size {
				return grid.Errorf(grid.Invalid, "sha256=%s: want 64 hexadecimal digits", value)
			}
			r.sha256 = sum
		case "cid":
			l, err := grid.ParseLink(value)
			if err == nil {
				err = grid.CheckCID(l.Cid)
			}
			if err != nil {
				return err
			}
			r.cid = l.Cid
		default:
			return grid.Errorf(grid.Invalid, "#%s is no checksum; want #sha256=HEX or #cid=CID", part)
		}
	}
	return nil
}

// Pinned reports whether the content is checked against a checksum.
func (r Ref) Pinned() bool { return r.sha256 != nil || r.cid.Defined() }

// CID is what the content is pinned to; undefined when it is not, or not this way.
func (r Ref) CID() cid.Cid { return r.cid }

// S3 reports whether r is an object, or a folder of objects, in a bucket.
func (r Ref) S3() bool { return r.web == nil }

// Folder reports whether r names a folder of objects.
func (r Ref) Folder() bool { return r.web == nil && (r.key == "" || strings.HasSuffix(r.key, "/")) }

// Below is the object with the given name, a clean relative path, in the folder that r names; a missing
// slash is put in.
func (r Ref) Below(name string) Ref {
	key := r.key
	if key != "" && !strings.HasSuffix(key, "/") {
		key += "/"
	}
	return Ref{bucket: r.bucket, key: key + name}
}

// AsFolder is r with the slash that makes it the name of a folder.
func (r Ref) AsFolder() Ref { return r.Below("") }

// Object is the URL that Parse reads as r, which is an object or a folder and not pinned.
func (r Ref) Object() string { return "s3://" + r.bucket + "/" + r.key }

// String is r for people. A password, a query (it may hold a signature) and checksums are left out, and
// characters that a terminal might obey are replaced.
func (r Ref) String() string {
	if r.web == nil {
		return printable(r.Object())
	}
	u := url.URL{Scheme: r.web.Scheme, Host: r.web.Host, Path: r.web.Path, RawPath: r.web.RawPath}
	if r.web.RawQuery != "" {
		return u.String() + "?…"
	}
	return u.String()
}

func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if !strconv.IsPrint(c) {
			return unicode.ReplacementChar
		}
		return c
	}, s)
}

// Path is where r lies, as a clean relative path: HOST/A/B or BUCKET/A/B.
func (r Ref) Path() string {
	if r.web == nil {
		return clean(r.bucket + "/" + clean(r.key))
	}
	return clean(r.web.Host + "/" + clean(r.web.Path))
}

// Name is the last part of Path.
func (r Ref) Name() string { return path.Base(r.Path()) }

// clean makes a path that fs.ValidPath accepts, if there is a way.
func clean(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

// validName reports whether a name from a listing has a place below a folder.
func validName(name string) bool {
	return fs.ValidPath(name) && name != "." && !strings.ContainsRune(name, 0)
}
