package remote

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
)

// BenchmarkRead reads 64 MiB from a server on this machine: with a plain client, and as the grid does.
func BenchmarkRead(b *testing.B) {
	data := content(64 << 20)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data)
	}))
	defer s.Close()
	buf := make([]byte, 256<<10)
	drain := func(b *testing.B, r io.ReadCloser, err error) {
		if err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buf)
			r.Close()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.Run("net/http", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			resp, err := http.Get(s.URL)
			drain(b, resp.Body, err)
		}
	})
	for name, pin := range map[string]string{"stream": "", "stream with cid": "#cid=" + cidOf(b, data)} {
		b.Run(name, func(b *testing.B) {
			c := New(Config{})
			defer c.Close()
			r, _ := Parse(s.URL + "/x" + pin)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				st, err := c.Open(b.Context(), r)
				drain(b, st, err)
			}
		})
	}
}

func cidOf(tb testing.TB, data []byte) string {
	c, err := fileCID(tb.Context(), bytes.NewReader(data))
	if err != nil {
		tb.Fatal(err)
	}
	return c.String()
}
