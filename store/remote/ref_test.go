package remote

import (
	"strings"
	"testing"
)

const emptyCID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"

func TestParse(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for _, tt := range []struct{ in, str, path, name string }{
		{"https://h/a/b.csv", "https://h/a/b.csv", "h/a/b.csv", "b.csv"},
		{"HTTP://h:81", "http://h:81", "h:81", "h:81"},
		{"https://u:secret@h/a%20b?X-Amz-Signature=s#sha256=" + sum, "https://h/a%20b?…", "h/a b", "a b"},
		{"https://h/../../etc/x/", "https://h/../../etc/x/", "h/etc/x", "x"},
		{"https://h/a%2F..%2Fb", "https://h/a%2F..%2Fb", "h/b", "b"},
		{"s3://b/k/x.csv#cid=" + emptyCID, "s3://b/k/x.csv", "b/k/x.csv", "x.csv"},
		{"s3://b/k#1?%20", "s3://b/k#1?%20", "b/k#1?%20", "k#1?%20"},
		{"s3://b/\x1b[2J", "s3://b/\ufffd[2J", "b/\x1b[2J", "\x1b[2J"},
		{"s3://b", "s3://b/", "b", "b"},
		{"s3://b/p/", "s3://b/p/", "b/p", "p"},
		{"https://h/x#sha256=" + sum + "&cid=" + emptyCID, "https://h/x", "h/x", "x"},
	} {
		r, err := Parse(tt.in)
		if err != nil || r.String() != tt.str || r.Path() != tt.path || r.Name() != tt.name {
			t.Errorf("%s: %s, %q, %q, %v", tt.in, r, r.Path(), r.Name(), err)
		}
		if r.Pinned() != strings.ContainsAny(tt.in, "=") {
			t.Errorf("%s: pinned: %v", tt.in, r.Pinned())
		}
	}
	for in, want := range map[string]string{
		"ftp://h/x":                      "no URL of the kinds",
		"https:///x":                     "no host",
		"https://u:secret@h:x/":          "not a URL",
		"https://h/x#sha265=" + sum:      "no checksum",
		"https://h/x#sha256=abc":         "64 hexadecimal digits",
		"https://h/x#cid=nonsense":       "not a CID",
		"s3://b/x#sha256=" + sum[:10]:    "64 hexadecimal digits",
		"s3:///x":                        "no bucket",
		"s3://b/p/#sha256=" + sum:        "this is a folder",
		"https://h/" + sum + long(20000): "at most",
	} {
		_, err := Parse(in)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.80s: %v", in, err)
		}
	}
	for s, want := range map[string]bool{"https://h": true, "S3://b": true, "a/b": false, "c:/x": false, "file:///x": false, "x": false} {
		if Is(s) != want {
			t.Errorf("%s: %v", s, !want)
		}
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func FuzzParse(f *testing.F) {
	f.Add("https://h/a#sha256=00")
	f.Add("s3://b/k#cid=x")
	f.Add("https://u:p@h/%2e%2e/?q")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		if p := r.Path(); p != "" && p != clean(p) {
			t.Errorf("%q: path %q", s, p)
		}
		_, _ = r.String(), r.Name()
		if r.S3() && !r.Pinned() {
			if again, err := Parse(r.Object()); err != nil || again.Object() != r.Object() || again.Folder() != r.Folder() {
				t.Errorf("%q: %q, %v", s, r.Object(), err)
			}
		}
	})
}
