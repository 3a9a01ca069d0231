//go:build unix

package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid/gridtest/fakes3"
)

// outside starts what scripts find outside the grid: an HTTP server, and S3 with an empty bucket named
// data. Of a path on the HTTP server the first part says how it behaves, and the whole path is the content:
//
//	/plain/…    as one would wish
//	/chunked/…  without telling the size
//	/broken/…   every other answer breaks off in the middle; ranges are understood
//	/big        5 MiB, likewise
//	/hang/…     promises more than it sends, and waits
//	/loop       redirects to itself
func outside(t *testing.T) (web, s3 string) {
	t.Helper()
	var asked atomic.Int32
	quit := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		how, _, _ := strings.Cut(r.URL.Path[1:], "/")
		content := r.URL.Path + "\n"
		w.Header().Set("ETag", `"v1"`)
		switch how {
		case "plain":
			fmt.Fprint(w, content)
		case "chunked":
			fmt.Fprint(w, content[:5])
			w.(http.Flusher).Flush()
			fmt.Fprint(w, content[5:])
		case "broken", "big":
			if how == "big" {
				content = strings.Repeat("0123456789abcde\n", 5<<16)
			}
			if asked.Add(1)%2 == 1 {
				w.Header().Set("Content-Length", fmt.Sprint(len(content)))
				fmt.Fprint(w, content[:len(content)/2])
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
		case "hang":
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, content)
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-quit:
			}
		case "loop":
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	bucket := httptest.NewServer(&fakes3.Server{Bucket: "data", PageSize: 10})
	t.Cleanup(func() {
		close(quit)
		server.Close()
		bucket.Close()
	})
	return server.URL, bucket.URL
}
