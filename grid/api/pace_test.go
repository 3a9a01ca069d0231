package api

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// deadlines is a connection that notes when a reader is given up.
type deadlines struct {
	*httptest.ResponseRecorder
	at time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error { d.at = t; return nil }

// A reader has a while for each piece, and must keep up on average.
func TestPace(t *testing.T) {
	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	write := func(since time.Duration, n int) time.Duration {
		t.Helper()
		w := &pacedWriter{statusWriter: statusWriter{ResponseWriter: d}, control: http.NewResponseController(d), start: time.Now().Add(-since)}
		before := time.Now()
		if _, err := w.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		return d.at.Sub(before)
	}
	const slack = time.Minute // of this test
	if left := write(0, 100); left < readerTime-time.Second || left > readerTime+slack {
		t.Errorf("at the start: %v", left)
	}
	if left := write(time.Hour, 100); left > readerTime-time.Hour+slack {
		t.Errorf("100 bytes in an hour: %v left", left)
	}
	if left := write(time.Hour, 3700*readerRate); left < readerTime-time.Second {
		t.Errorf("enough in an hour: %v left", left)
	}
	d.at = time.Time{}
	w := &pacedWriter{statusWriter: statusWriter{ResponseWriter: d}}
	if _, err := w.Write([]byte("x")); err != nil || !d.at.IsZero() {
		t.Errorf("one that is trusted has until %v, %v", d.at, err)
	}
}
