package jobfile

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// chunks cuts a text.
func chunks(c Cut, text string) ([]string, error) {
	var out []string
	err := c.Chunks(strings.NewReader(text), int64(len(text)), func(offset, length int64) error {
		out = append(out, text[offset:][:length])
		return nil
	})
	return out, err
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		cut        Cut
		text, want string
	}{
		{Cut{Bytes: 4, End: "\n"}, "", ""},
		{Cut{Bytes: 4, End: "\n"}, "ab\ncd\nef", "ab\n|cd\n|ef"},
		{Cut{Bytes: 6, End: "\n"}, "ab\ncd\nef", "ab\ncd\n|ef"},
		{Cut{Bytes: 100, End: "\n"}, "ab\ncd\nef", "ab\ncd\nef"},
		{Cut{Bytes: 2, End: "\n"}, "long line\nx\n", "long line\n|x\n"},
		{Cut{Bytes: 4, End: "\n"}, "a\r\nb\r\n", "a\r\n|b\r\n"},
		{Cut{Bytes: 3, End: "--"}, "a--b--c", "a--|b--|c"},
		{Cut{Bytes: 4, End: "--"}, "abc--b", "abc--|b"},
		{Cut{Count: 2, End: "\n"}, "a\nb\nc\nd\ne", "a\nb\n|c\nd\n|e"},
		{Cut{Count: 1, End: "\n"}, "\n\n", "\n|\n"},
		{Cut{Bytes: 5, Record: 2}, "aabbccdd", "aabb|ccdd"},
		{Cut{Bytes: 1, Record: 2}, "aabb", "aa|bb"},
	} {
		got, err := chunks(tt.cut, tt.text)
		if err != nil || strings.Join(got, "|") != tt.want {
			t.Errorf("%+v of %q: %q, %v", tt.cut, tt.text, got, err)
		}
	}
	if _, err := chunks(Cut{Bytes: 4, Record: 3}, "aaab"); !errors.Is(err, grid.Invalid) {
		t.Errorf("half a record: %v", err)
	}
}

// endless is a file without the end of a record.
type endless struct{}

func (endless) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

func TestCutBound(t *testing.T) {
	c := Cut{Bytes: 1 << 20, End: "\n"}
	if err := c.Chunks(endless{}, 1<<40, func(int64, int64) error { return nil }); !errors.Is(err, grid.Limit) {
		t.Errorf("a record without an end: %v", err)
	}
	if err := c.Chunks(strings.NewReader("short"), 1<<20+1, func(int64, int64) error { return nil }); !errors.Is(err, grid.Conflict) {
		t.Errorf("a file that shrank: %v", err)
	}
}

// checkCut checks what holds for chunks of any text.
func checkCut(t *testing.T, c Cut, text string) {
	t.Helper()
	got, err := chunks(c, text)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(got, "") != text {
		t.Fatalf("%+v: the chunks are not the file", c)
	}
	for i, chunk := range got {
		last := i == len(got)-1
		switch {
		case chunk == "":
			t.Fatalf("%+v: chunk %d is empty", c, i)
		case !last && !strings.HasSuffix(chunk, c.End):
			t.Fatalf("%+v: chunk %d ends within a record: %q", c, i, chunk)
		case c.Bytes > 0 && int64(len(chunk)) > c.Bytes && strings.Contains(chunk[:c.Bytes], c.End):
			t.Fatalf("%+v: chunk %d has %d bytes, and more than one record", c, i, len(chunk))
		case c.Count > 0 && !last && int64(strings.Count(chunk, c.End)) != c.Count:
			t.Fatalf("%+v: chunk %d has %d records", c, i, strings.Count(chunk, c.End))
		}
		if c.Bytes > 0 && !last { // it could not have been longer
			next, _, ended := strings.Cut(got[i+1], c.End)
			if ended && int64(len(chunk)+len(next)+len(c.End)) <= c.Bytes {
				t.Fatalf("%+v: chunk %d has room for a record", c, i)
			}
		}
	}
}

func TestCutProperties(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var b bytes.Buffer
		end := []string{"\n", "--", "xyz"}[rnd.IntN(3)]
		size, line := rnd.IntN(4*window), 1+rnd.IntN(1+rnd.IntN(3*window))
		for b.Len() < size {
			b.WriteString(strings.Repeat("a", rnd.IntN(line)))
			b.WriteString(end)
		}
		text := b.String()
		if rnd.IntN(2) == 0 {
			text = text[:max(0, len(text)-rnd.IntN(10))]
		}
		checkCut(t, Cut{Bytes: int64(1 + rnd.IntN(3*window)), End: end}, text)
		checkCut(t, Cut{Count: int64(1 + rnd.IntN(20)), End: end}, text)
	}
}

func FuzzCut(f *testing.F) {
	f.Add("a\nb\n\nc", "\n", uint16(3))
	f.Add("a--b---c", "--", uint16(2))
	f.Fuzz(func(t *testing.T, text, end string, n uint16) {
		if end == "" || len(end) > 64 || n == 0 || len(text) > 1<<12 {
			return
		}
		for _, c := range []Cut{{Bytes: int64(n), End: end}, {Count: int64(n), End: end}} {
			got, err := chunks(c, text)
			if err != nil || strings.Join(got, "") != text {
				t.Fatalf("%+v: %q, %v", c, got, err)
			}
			for i, chunk := range got {
				if chunk == "" || i < len(got)-1 && !strings.HasSuffix(chunk, end) {
					t.Fatalf("%+v: %q", c, got)
				}
			}
		}
	})
}

func BenchmarkCut(b *testing.B) {
	text := strings.Repeat(strings.Repeat("a", 79)+"\n", 1<<20/80*16)
	for name, c := range map[string]Cut{"lines": {Count: 1000, End: "\n"}, "bytes": {Bytes: 1 << 20, End: "\n"}} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if err := c.Chunks(strings.NewReader(text), int64(len(text)), func(int64, int64) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
