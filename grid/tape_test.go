package grid

import (
	"bytes"
	"testing"
	"time"
)

// TestTape: a tape gives back what was written, with times that do not decrease.
func TestTape(t *testing.T) {
	tp := new(tape)
	var want []byte
	for i := range 5000 {
		part := bytes.Repeat([]byte{byte(i)}, i%7)
		want = append(want, part...)
		tp.Write(part)
		if len(tp.marks) > maxMarks {
			t.Fatalf("%d marks", len(tp.marks))
		}
		if i%10 == 0 {
			tp.step = 0 // every write has one
		}
	}
	var got []byte
	last := time.Time{}
	for {
		data, at, rest := tp.read(len(got), 100)
		if len(data) == 0 {
			break
		}
		if got = append(got, data...); at.Before(last) || rest != len(want)-len(got) || len(data) > 100 {
			t.Fatalf("%d bytes at %v after %v, and %d behind them", len(data), at, last, rest)
		}
		last = at
	}
	if !bytes.Equal(got, want) || tp.size() != len(want) {
		t.Errorf("%d bytes came back of %d", len(got), len(want))
	}
}

// BenchmarkTape is what a guest's write costs that nobody reads.
func BenchmarkTape(b *testing.B) {
	line := []byte("a line of a guest that says something\n")
	b.Run("tape", func(b *testing.B) {
		t := new(tape)
		for b.Loop() {
			if t.Write(line); t.buf.Len() > 1<<20 {
				t.buf.Reset()
				t.marks = nil
			}
		}
	})
	b.Run("buffer", func(b *testing.B) {
		t := new(bytes.Buffer)
		for b.Loop() {
			if t.Write(line); t.Len() > 1<<20 {
				t.Reset()
			}
		}
	})
}

// TestTapeDropped: what a task prints is dropped once its parts are in its place, also while somebody reads it.
func TestTapeDropped(t *testing.T) {
	tp := new(tape)
	tp.Write(bytes.Repeat([]byte("x"), 1<<16))
	begun, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for at, had := 0, -1; at != had; {
			data, _, _ := tp.read(at, 16)
			if had, at = at, at+len(data); at == 16 {
				close(begun)
			}
		}
	}()
	<-begun
	tp.drop()
	<-done
	if data, _, rest := tp.read(8, 16); len(data)+rest+tp.size()+len(tp.whole()) != 0 {
		t.Errorf("%q is left, and %d bytes behind it", data, rest)
	}
}
