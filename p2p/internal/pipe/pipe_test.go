package pipe

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := New(nil, nil)
		data := make([]byte, 3*Size)
		for i := range data {
			data[i] = byte(i >> 8)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if n, err := a.Write(data); n != len(data) || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
			_ = a.CloseWrite()
		}()
		synctest.Wait()
		if got := b.in.size; got != Size {
			t.Errorf("%d bytes wait, want %d", got, Size)
		}
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
		<-done
	})
}

func TestEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(a *End)
		want error // of the far end's read, after what was written
		code grid.Code
	}{
		{"close", func(a *End) { _ = a.Close() }, nil, grid.Unavailable},
		{"half", func(a *End) { _ = a.CloseWrite() }, nil, 0},
		{"reset", func(a *End) { _ = a.Reset() }, grid.Unavailable, grid.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := New(nil, nil)
			_, _ = a.Write([]byte("x"))
			c.end(a)
			if _, err := io.ReadAll(b); !errors.Is(err, c.want) {
				t.Errorf("read: %v, want %v", err, c.want)
			}
			if _, err := b.Write([]byte("y")); (err != nil) != (c.code != 0) || err != nil && grid.CodeOf(err) != c.code {
				t.Errorf("write back: %v", err)
			}
			if _, err := a.Write([]byte("z")); grid.CodeOf(err) != grid.Unavailable {
				t.Errorf("write after the end: %v", err)
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := New(nil, nil)
		start := time.Now()
		_ = a.SetDeadline(start.Add(time.Minute))
		time.AfterFunc(time.Second, func() { _ = a.SetDeadline(start.Add(2 * time.Second)) })
		_, err := a.Read(make([]byte, 1))
		if grid.CodeOf(err) != grid.Deadline || time.Since(start) != 2*time.Second {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
		_ = a.SetDeadline(time.Now().Add(time.Second))
		n, err := a.Write(make([]byte, 2*Size))
		if n != Size || grid.CodeOf(err) != grid.Deadline {
			t.Errorf("wrote %d, %v", n, err)
		}
		_ = a.SetDeadline(time.Time{})
		go func() { _, _ = io.Copy(io.Discard, b) }()
		if _, err := a.Write(make([]byte, 2*Size)); err != nil {
			t.Errorf("after the deadline was lifted: %v", err)
		}
		_ = a.CloseWrite()
	})
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		delays := []time.Duration{3 * time.Second, time.Second, 0}
		i := 0
		a, b := New(func() time.Duration { i++; return delays[i-1] }, nil)
		start := time.Now()
		_, _ = a.Write([]byte("first"))
		_, _ = a.Write([]byte("second"))
		_ = a.CloseWrite()
		got, err := io.ReadAll(b)
		if err != nil || string(got) != "firstsecond" || time.Since(start) != 3*time.Second {
			t.Errorf("%q, %v after %v", got, err, time.Since(start))
		}
		a, b = New(nil, nil)
		a.Hold(true)
		_, _ = a.Write([]byte("held"))
		time.AfterFunc(time.Hour, func() { a.Hold(false) })
		start = time.Now()
		if _, err := io.ReadFull(b, make([]byte, 4)); err != nil || time.Since(start) != time.Hour {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func BenchmarkBulk(b *testing.B) {
	x, y := New(nil, nil)
	go func() { _, _ = io.Copy(io.Discard, y) }()
	data := make([]byte, 64<<10)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := x.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	_ = x.Close()
}
