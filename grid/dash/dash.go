// Package dash is the dashboard: a web page that shows a grid and works with it, by the API alone. What it can do, curl can.
//
// The page is plain HTML, CSS and ES modules, embedded as they are in the folder page: there is nothing to build. It is served
// below [Prefix] of whatever serves the API below /v1, and holds no secrets: who may read it may do nothing yet. The page sends
// a token with each request; see page/app.js for its frame and for what a view is.
//
// The browser is told to load and send nothing beyond that server, to run no script and apply no style that is not a file of the page, and to
// let no other page frame it. It makes no elements or scripts of text either, should the page ever try (trusted types).
package dash

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

// Prefix is where the page lies.
const Prefix = "/dash/"

//go:embed page
var page embed.FS

// kinds are the media types of the page's files; no other file is served, and no system's table of types is asked.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// policy is what the page may do in a browser.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// file is one file of the page.
type file struct {
	kind, tag string
	data      []byte
}

// Serves reports whether a path is the page's.
func Serves(p string) bool {
	return p == strings.TrimSuffix(Prefix, "/") || strings.HasPrefix(p, Prefix)
}

// Handler serves the page to anybody.
func Handler() http.Handler {
	files := make(map[string]file)
	err := fs.WalkDir(page, "page", func(p string, d fs.DirEntry, err error) error {
		kind := kinds[path.Ext(p)]
		if err != nil || kind == "" {
			return err
		}
		data, err := page.ReadFile(p)
		sum := sha256.Sum256(data)
		files[Prefix+strings.TrimPrefix(p, "page/")] = file{kind, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, data}
		return err
	})
	if err != nil {
		panic(err) // it is in the program
	}
	files[Prefix] = files[Prefix+"index.html"]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache") // the tag tells whether it has changed
		f, ok := files[r.URL.Path]
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "the dashboard can only be read", http.StatusMethodNotAllowed)
		case r.URL.Path+"/" == Prefix:
			http.Redirect(w, r, Prefix, http.StatusFound)
		case !ok:
			http.Error(w, "the dashboard has no such file", http.StatusNotFound)
		default:
			h.Set("Content-Type", f.kind)
			h.Set("ETag", f.tag)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.data))
		}
	})
}
