package extism

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/wasmhost/guestnet"
)

func TestDecode(t *testing.T) {
	for _, test := range []struct{ in, want, err string }{
		{`{"url":"http://a/"}`, "GET http://a/", ""},
		{`{"url":"http://a/","method":"post","headers":{"b":"2","A":"1","Content-Length":"7"},"other":[1]}`, "POST http://a/\nA: 1\nb: 2", ""},
		{`{"url":"http://a/\nb: c"}`, "", "control character in its method or URL"},
		{`{"url":"http://a/","method":"GET http://b\n"}`, "", "control character"},
		{`{"url":"http://a/","headers":{"a":"b\r\nc: d"}}`, "", "control character in its headers"},
		{`{"url":"http://a/","headers":{"a\n\nb":""}}`, "", "control character"},
		{``, "", "not JSON"}, {`[]`, "", "not JSON"}, {`{"url":7}`, "", "not JSON"},
		{`{"url":"` + strings.Repeat("x", maxRequest) + `"}`, "", "at most 262144"},
	} {
		got, err := decode([]byte(test.in))
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%.80s: %q, %v", test.in, got, err)
		}
	}
}

// Whatever the JSON is, what comes of it has one request in it, with as many lines as headers.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"url":"http://a/","method":"put","headers":{"a":"b","c":"\u0085"}}`, `{"url":"\n"}`, `{"headers":null}`, "{"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		head, err := decode(in)
		if err != nil {
			return
		}
		var r request
		if err := json.Unmarshal(in, &r); err != nil {
			t.Fatal("it took what is not JSON:", err)
		}
		if lines := strings.Count(head, "\n"); lines > len(r.Headers) || strings.ContainsAny(head, "\r\x00") {
			t.Errorf("%q has %d lines besides the first, for %d headers", head, lines, len(r.Headers))
		}
		n, err := guestnet.New(guestnet.Config{}) // which lets nothing out
		if err != nil {
			t.Fatal(err)
		}
		var s guestnet.State
		if err := s.Reset(n, nil); err != nil {
			t.Fatal(err)
		}
		if resp, err := s.Fetch(context.Background(), head, nil); err == nil {
			t.Errorf("a request was answered: %+v", resp)
		}
	})
}

// Whatever a server's headers are, a plug-in is given JSON of them.
func FuzzHeaders(f *testing.F) {
	f.Add("Content-Type", "text/plain", "A\xff", "<\u2028>")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		s := State{call: call{headers: http.Header{a: {b, d}, c: {d}}}}
		text, err := s.encodeHeaders()
		var m map[string]string
		if err != nil || json.Unmarshal(text, &m) != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}

// Whatever a plug-in calls, the kernel's memory stays whole: blocks do not overlap, hold what was put there, and take
// no more than is allowed.
func FuzzHeap(f *testing.F) {
	f.Add([]byte{0, 10, 0, 200, 1, 0, 0, 10, 2, 1, 1, 1, 0, 255})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var memory moving
		var h heap
		const most = 1 << 20
		h.reset(func(size uint64, blocks int) []byte {
			if size+uint64(blocks)*blockCost > most {
				return nil
			}
			return memory.Reallocate(size)
		})
		type have struct {
			off, n uint64
			fill   byte
		}
		var all []have
		for i := 0; i+1 < len(ops) && i < 2000; i += 2 {
			arg := uint64(ops[i+1])
			switch ops[i] % 3 {
			case 0:
				n := arg * arg
				off := h.alloc(n)
				if off == 0 {
					continue
				}
				if !h.within(off, n) || h.find(off) == nil || uint64(h.find(off).used) != n {
					t.Fatalf("a block of %d at %d is not there", n, off)
				}
				for k := range n {
					h.mem[off+k] = byte(i)
				}
				all = append(all, have{off, n, byte(i)})
			case 1:
				if len(all) > 0 {
					k := int(arg) % len(all)
					h.release(h.find(all[k].off))
					if h.find(all[k].off) != nil {
						t.Fatal("a freed block is there")
					}
					all = append(all[:k], all[k+1:]...)
				}
			case 2:
				if h.find(arg) != nil && arg < base {
					t.Fatal("there is a block at", arg)
				}
			}
		}
		for _, b := range all {
			for k := range b.n {
				if h.mem[b.off+k] != b.fill {
					t.Fatalf("the block of %d at %d was overwritten", b.n, b.off)
				}
			}
		}
		if uint64(len(h.mem))+uint64(h.room)*blockCost > most || cap(h.blocks) > max(keep, h.room) {
			t.Errorf("%d bytes and %d blocks", len(h.mem), cap(h.blocks))
		}
	})
}

func TestClasses(t *testing.T) {
	last := 0
	for n := uint64(1); n <= 1<<32; n += 1 + n/100 {
		class, size := classOf(n)
		if class < last || class >= classes || size < n || size > max(n+n/8+1, n+15) || size%16 != 0 {
			t.Fatalf("%d bytes are of class %d, of %d", n, class, size)
		}
		if again, same := classOf(size); again != class || same != size {
			t.Fatalf("a block of %d is of class %d, of %d", size, again, same)
		}
		last = class
	}
	if class, size := classOf(1 << 32); class != classes-1 || size != 1<<32 {
		t.Error(class, size)
	}
}
