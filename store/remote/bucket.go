package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	minPart    = 16 << 20 // bytes; a smaller object goes in one request
	maxParts   = 10_000   // of one object, as S3 has it
	partsAhead = 2        // parts on their way at a time, each in memory
	requests   = 4        // tries of one request, by the library
	metaCID    = "Cid"    // user metadata: the CID of the file
)

// bucketClient speaks S3 to one endpoint.
type bucketClient struct {
	minio.Core
	c         *Client
	anonymous bool
}

// bucket returns the S3 client, which is made when first needed.
func (c *Client) bucket() (*bucketClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.s3 != nil {
		return c.s3, nil
	}
	set, err := readAWS(c.cfg.LookupEnv)
	if err != nil {
		return nil, err
	}
	opts := &minio.Options{Creds: set.creds, Region: set.region, Secure: true, Transport: c.transport, MaxRetries: requests}
	if set.creds == nil {
		opts.Creds = credentials.NewStaticV4("", "", "")
	}
	host := "s3.amazonaws.com"
	if set.endpoint != nil {
		host, opts.Secure = set.endpoint.Host, set.endpoint.Scheme == "https"
		opts.BucketLookup = minio.BucketLookupPath
		if opts.Region == "" {
			opts.Region = "us-east-1" // or it would be asked for, which not all may
		}
	}
	core, err := minio.NewCore(host, opts)
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "S3 at %s: %w", host, err)
	}
	core.SetAppInfo("grid", grid.Version)
	c.s3 = &bucketClient{Core: *core, c: c, anonymous: set.creds == nil}
	return c.s3, nil
}

// fail explains an error of the library.
func (b *bucketClient) fail(ctx context.Context, r Ref, doing string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var resp minio.ErrorResponse
	if !errors.As(err, &resp) {
		return b.c.doError(ctx, r, doing, false, err)
	}
	at := b.EndpointURL().Host
	said := strings.ToValidUTF8(resp.Message[:min(len(resp.Message), 200)], "")
	e := func(code grid.Code) *grid.Error {
		return grid.Errorf(code, "%s %s: %s answered %s: %q", doing, r, at, printable(resp.Code), said)
	}
	switch {
	case resp.Code == minio.NoSuchKey:
		return grid.Errorf(grid.NotFound, "%s %s: there is no such object at %s", doing, r, at).Hint("a slash at the end names a folder: all objects whose keys begin so")
	case resp.Code == minio.NoSuchBucket:
		return grid.Errorf(grid.NotFound, "%s %s: there is no such bucket at %s", doing, r, at).Hint("AWS_ENDPOINT_URL_S3 names another server")
	case resp.Code == minio.InvalidBucketName:
		return e(grid.Invalid)
	case resp.StatusCode == http.StatusPreconditionFailed:
		return e(grid.Conflict)
	case resp.StatusCode == http.StatusForbidden && b.anonymous:
		return e(grid.Denied).Hint("no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
	case resp.StatusCode == http.StatusForbidden, resp.StatusCode == http.StatusUnauthorized:
		return e(grid.Denied).Hint("the credentials are those of AWS_ACCESS_KEY_ID, else of the profile AWS_PROFILE")
	case resp.Region != "" && (resp.StatusCode == http.StatusMovedPermanently || resp.StatusCode == http.StatusBadRequest):
		return e(grid.Invalid).Hint("the bucket is in another region: set AWS_REGION=%s", printable(resp.Region))
	case resp.StatusCode == http.StatusNotFound:
		return e(grid.NotFound)
	case resp.StatusCode == http.StatusNotImplemented:
		return e(grid.Unsupported)
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500:
		return e(grid.Unavailable)
	}
	return e(grid.Invalid)
}

// objectSource is an object.
type objectSource struct {
	b   *bucketClient
	ref Ref
}

func (s objectSource) get(ctx context.Context, offset int64, version string) (*answer, error) {
	var opts minio.GetObjectOptions
	if offset > 0 && version != "" {
		if err := errors.Join(opts.SetRange(offset, 0), opts.SetMatchETag(version)); err != nil {
			return nil, grid.Errorf(grid.Internal, "read %s: %w", s.ref, err)
		}
	}
	opts.Set("Accept-Encoding", "identity")
	body, info, head, err := s.b.GetObject(ctx, s.ref.bucket, s.ref.key, opts)
	if err != nil {
		if resp := minio.ToErrorResponse(err); offset > 0 && (resp.StatusCode == http.StatusPreconditionFailed || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable) {
			return nil, grid.Errorf(grid.Conflict, "%s changed while it was read", s.ref).Hint("try again when nobody writes to it")
		}
		return nil, s.b.fail(ctx, s.ref, "read", err)
	}
	a := &answer{body: body, size: info.Size, version: info.ETag}
	if cr := head.Get("Content-Range"); cr != "" {
		from, size, ok := contentRange(cr)
		if !ok || from != offset {
			body.Close()
			return nil, grid.Errorf(grid.Unavailable, "read %s: the server was asked for what follows byte %d, and sent %q", s.ref, offset, cr)
		}
		a.offset, a.size = from, size
	}
	return a, nil
}

// Object is one of a listing.
type Object struct {
	Ref  Ref
	Name string // below the folder: a clean relative path
	Size int64
}

// List calls f for each object below the folder r, in order of keys. Keys that end in a slash stand for
// folders, and are left out. A key that is no path has no place in a folder and is an error.
func (c *Client) List(ctx context.Context, r Ref, f func(Object) error) error {
	if !r.Folder() {
		return grid.Errorf(grid.Invalid, "%s is not a folder of objects", r).Hint("a slash at the end names a folder: all objects whose keys begin so")
	}
	return c.list(ctx, r, r.key, func(name string) (bool, error) {
		if !validName(name) {
			return false, grid.Errorf(grid.Unsupported, "the object %s has a key that is no path below a folder", printableKey(r, name)).Hint("--each with a pattern leaves out what it does not match")
		}
		return true, nil
	}, f)
}

// Glob calls f for each object that matches a pattern, s3://BUCKET/PATTERN, in which ** matches folders
// within folders. A name is the path below the part of the pattern that has no wildcards.
func (c *Client) Glob(ctx context.Context, pattern string, f func(Object) error) error {
	r, err := Parse(pattern)
	if err != nil {
		return err
	}
	if r.Pinned() || !r.S3() {
		return grid.Errorf(grid.Invalid, "%s is not a pattern of objects", r)
	}
	if r.key == "" || !doublestar.ValidatePattern(r.key) {
		return grid.Errorf(grid.Invalid, "%s is not a pattern of objects", r).Hint("s3://BUCKET/** matches all of a bucket; a backslash before [ or { takes it literally")
	}
	base, rest := doublestar.SplitPattern(r.key)
	if base == "." {
		base = ""
	} else if base != "" {
		base += "/"
	}
	folder := Ref{bucket: r.bucket, key: base}
	literal := rest[:strings.IndexFunc(rest+"*", func(c rune) bool { return strings.ContainsRune(`*?[{\`, c) })]
	found := false
	err = c.list(ctx, folder, base+literal, func(name string) (bool, error) {
		ok, err := doublestar.Match(rest, name)
		if err != nil || !ok {
			return false, err
		}
		if !validName(name) {
			return false, grid.Errorf(grid.Unsupported, "the object %s has a key that is no path", printableKey(folder, name))
		}
		return true, nil
	}, func(o Object) error { found = true; return f(o) })
	if err == nil && !found {
		err = grid.Errorf(grid.NotFound, "%s matches nothing", r).Hint("quote the pattern; ** matches folders within folders")
	}
	return err
}

// list calls f for the objects whose keys begin with prefix and whose names below the folder are wanted.
func (c *Client) list(ctx context.Context, folder Ref, prefix string, wanted func(string) (bool, error), f func(Object) error) error {
	b, err := c.bucket()
	if err != nil {
		return grid.Errorf(grid.CodeOf(err), "%s: %w", folder, err)
	}
	ctx, cancel := context.WithCancel(ctx) // stops the library's goroutine
	defer cancel()
	for o := range b.ListObjectsIter(ctx, folder.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return b.fail(ctx, folder, "list", o.Err)
		}
		name, ok := strings.CutPrefix(o.Key, folder.key)
		if !ok || name == "" || strings.HasSuffix(name, "/") {
			continue
		}
		if ok, err := wanted(name); err != nil || !ok {
			if err != nil {
				return err
			}
			continue
		}
		if err := f(Object{Ref: Ref{bucket: folder.bucket, key: o.Key}, Name: name, Size: o.Size}); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

func printableKey(folder Ref, name string) string { return fmt.Sprintf("%q", folder.String()+name) }

// put writes an object: in one request if it fits, else in parts. The memory it takes is that of a few
// parts, and every request carries the hash of its bytes, which the server checks.
func (b *bucketClient) put(ctx context.Context, r Ref, what Content, replace bool) error {
	opts := minio.PutObjectOptions{DisableContentSha256: true} // it is given
	if what.CID.Defined() {
		opts.UserMetadata = map[string]string{metaCID: what.CID.String()}
	}
	once := opts
	if !replace {
		once.SetMatchETagExcept("*")
	}
	if !replace && (what.Size < 0 || what.Size > b.c.part) { // or it would be noticed when all parts are sent
		switch there, same, err := b.has(ctx, r, what); {
		case same:
			return nil
		case there:
			return occupied(r)
		case err != nil && grid.CodeOf(err) != grid.Denied: // who may write need not be allowed to look
			return err
		}
	}
	err := b.write(ctx, r, what, opts, once)
	resp := minio.ToErrorResponse(errors.Unwrap(err))
	if err == nil || replace || !errors.Is(err, errRefused) {
		return unrefused(err)
	}
	// Something is there, or the server does not understand the condition.
	there, same, err2 := b.has(ctx, r, what)
	switch {
	case same:
		return nil // put there before, perhaps by a try whose answer was lost
	case there, resp.StatusCode == http.StatusPreconditionFailed, resp.StatusCode == http.StatusConflict:
		return occupied(r)
	case err2 != nil:
		return err2
	}
	return unrefused(b.write(ctx, r, what, opts, opts))
}

func occupied(r Ref) error {
	return grid.Errorf(grid.Conflict, "write %s: an object is there already", r).Hint("--force replaces it; -o gives another place")
}

// has tells whether an object is there, and whether it was written by us with the same content.
func (b *bucketClient) has(ctx context.Context, r Ref, what Content) (there, same bool, err error) {
	info, err := b.StatObject(ctx, r.bucket, r.key, minio.StatObjectOptions{})
	if err != nil {
		if minio.ToErrorResponse(err).StatusCode == http.StatusNotFound {
			return false, false, nil
		}
		return false, false, b.fail(ctx, r, "look for", err)
	}
	return true, what.CID.Defined() && info.Size == what.Size && info.UserMetadata[metaCID] == what.CID.String(), nil
}

// Free returns a Conflict if an object is there that Put would not leave as it is or make anew.
func (c *Client) Free(ctx context.Context, r Ref, what Content) error {
	b, err := c.bucket()
	if err != nil {
		return grid.Errorf(grid.CodeOf(err), "%s: %w", r, err)
	}
	there, same, err := b.has(ctx, r, what)
	if err == nil && there && !same {
		err = occupied(r)
	}
	return err
}

// errRefused marks the error of a request with the condition that nothing is there.
var errRefused = errors.New("refused")

type refusal struct {
	resp minio.ErrorResponse
	err  error // for people
}

func (r *refusal) Error() string        { return r.err.Error() }
func (r *refusal) Unwrap() error        { return r.resp }
func (r *refusal) Is(target error) bool { return target == errRefused }

func unrefused(err error) error {
	if r := (*refusal)(nil); errors.As(err, &r) {
		return r.err
	}
	return err
}

// refused tells whether the last request of a write failed by its condition.
func (b *bucketClient) refused(ctx context.Context, r Ref, err error) error {
	if err == nil {
		return nil
	}
	said := b.fail(ctx, r, "write", err)
	switch resp := minio.ToErrorResponse(err); resp.StatusCode {
	case http.StatusPreconditionFailed, http.StatusConflict, http.StatusNotImplemented:
		return &refusal{resp, said}
	}
	return said
}

// write sends the content. opts are of a request that begins parts, last of the one that makes the object.
func (b *bucketClient) write(ctx context.Context, r Ref, what Content, opts, last minio.PutObjectOptions) error {
	src, err := what.Open(ctx)
	if err != nil {
		return err
	}
	defer src.Close()
	size := partSize(what.Size, b.c.part)
	room := size
	if what.Size >= 0 && what.Size < size {
		room = what.Size + 1 // one more, to see that it ends there
	}
	first, err := readPart(src, make([]byte, room))
	if err != nil {
		return err
	}
	if int64(len(first)) < size || what.Size == size {
		if what.Size >= 0 && int64(len(first)) != what.Size {
			return grid.Errorf(grid.Corrupt, "write %s: there are %d bytes, not %d", r, len(first), what.Size)
		}
		_, err := b.PutObject(ctx, r.bucket, r.key, bytes.NewReader(first), int64(len(first)), "", sumOf(first), last)
		return b.refused(ctx, r, err)
	}
	id, err := b.NewMultipartUpload(ctx, r.bucket, r.key, opts)
	if err != nil {
		return b.fail(ctx, r, "write", err)
	}
	err = b.parts(ctx, r, id, src, first, what.Size, last)
	if err == nil {
		return nil
	}
	// What is not completed is not seen, but it is kept and paid for. It is aborted even after an interrupt.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.c.cfg.StallTimeout)
	defer cancel()
	if aerr := b.AbortMultipartUpload(end, r.bucket, r.key, id); aerr != nil && minio.ToErrorResponse(aerr).StatusCode != http.StatusNotFound {
		return grid.Errorf(grid.CodeOf(err), "%w; its parts could not be taken back: %v", err, aerr)
	}
	return err
}

// parts sends all parts and completes the object.
func (b *bucketClient) parts(ctx context.Context, r Ref, id string, src io.Reader, first []byte, size int64, last minio.PutObjectOptions) error {
	free := make(chan []byte, partsAhead)
	for range partsAhead - 1 {
		free <- make([]byte, cap(first))
	}
	var mu sync.Mutex // guards done
	var done []minio.CompletePart
	g, gctx := errgroup.WithContext(ctx)
	send := func(n int, part []byte) error {
		opts := minio.PutObjectPartOptions{Sha256Hex: sumOf(part), DisableContentSha256: true}
		p, err := b.PutObjectPart(gctx, r.bucket, r.key, id, n, bytes.NewReader(part), int64(len(part)), opts)
		if err != nil {
			return b.fail(gctx, r, "write", err)
		}
		mu.Lock()
		done = append(done, minio.CompletePart{PartNumber: n, ETag: p.ETag})
		mu.Unlock()
		free <- part[:cap(part)]
		return nil
	}
	sent, next, err := int64(0), first, error(nil)
	for n := 1; len(next) > 0 && err == nil; n++ {
		if n > maxParts {
			err = grid.Errorf(grid.Limit, "write %s: more than %d parts of %d bytes", r, maxParts, cap(first))
			break
		}
		part := next
		sent += int64(len(part))
		g.Go(func() error { return send(n, part) })
		select {
		case buf := <-free:
			next, err = readPart(src, buf)
		case <-gctx.Done():
			next = nil
		}
	}
	if gerr := g.Wait(); gerr != nil {
		return gerr
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	if err == nil && size >= 0 && sent != size {
		err = grid.Errorf(grid.Corrupt, "write %s: there are %d bytes, not %d", r, sent, size)
	}
	if err != nil {
		return err
	}
	slices.SortFunc(done, func(a, b minio.CompletePart) int { return a.PartNumber - b.PartNumber })
	_, err = b.CompleteMultipartUpload(ctx, r.bucket, r.key, id, done, last)
	return b.refused(ctx, r, err)
}

// readPart fills buf as far as there is something to read.
func readPart(src io.Reader, buf []byte) ([]byte, error) {
	n, err := io.ReadFull(src, buf)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return buf[:n], err
}

// partSize is how large parts have to be for an object of the given size; -1: not known. They are not
// smaller than least.
func partSize(size, least int64) int64 {
	const step = 1 << 20
	need := (size + maxParts - 1) / maxParts
	return max(least, (need+step-1)/step*step)
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
