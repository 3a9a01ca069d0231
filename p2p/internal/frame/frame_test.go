package frame

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestGolden(t *testing.T) {
	var b bytes.Buffer
	for _, c := range []struct {
		write func() error
		want  string
	}{
		{func() error { return WriteRequest(&b, []byte("hi")) }, "02" + "6869"},
		{func() error { return WriteRequest(&b, nil) }, "00"},
		{func() error { return WriteReply(&b, []byte("hi"), nil) }, "00" + "02" + "6869"},
		{
			func() error { return WriteReply(&b, nil, grid.Errorf(grid.Busy, "full")) },
			"01" + "14" + "a2" + "64636f6465" + "0f" + "676d657373616765" + "6466756c6c",
		},
		{
			func() error { return WriteReply(&b, nil, grid.Errorf(grid.Busy, "full").Hint("wait")) },
			"01" + "1e" + "a3" + "64636f6465" + "0f" + "6468696e74" + "6477616974" + "676d657373616765" + "6466756c6c",
		},
	} {
		b.Reset()
		if err := c.write(); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b.Bytes()); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 250, 253, 254, 255, 256, joinBelow, joinBelow + 1, 1 << 20, grid.MaxMessage} {
		body := bytes.Repeat([]byte{'x'}, n)
		for name, slow := range map[string]func(io.Reader) io.Reader{
			"whole":        func(r io.Reader) io.Reader { return r },
			"half":         iotest.HalfReader,
			"data and EOF": iotest.DataErrReader,
		} {
			var b bytes.Buffer
			if err := WriteRequest(&b, body); err != nil {
				t.Fatal(err)
			}
			if got, err := ReadRequest(slow(bytes.NewReader(b.Bytes())), nil); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%s: request of %d bytes: %d, %v", name, n, len(got), err)
			}
			rest := bytes.NewReader(b.Bytes())
			if err := SkipRequest(slow(rest)); err != nil || rest.Len() != 0 {
				t.Errorf("%s: skipping %d bytes: %v, %d left", name, n, err, rest.Len())
			}
			b.Reset()
			if err := WriteReply(&b, body, nil); err != nil {
				t.Fatal(err)
			}
			if got, remote, err := ReadReply(slow(&b), nil); err != nil || remote != nil || !bytes.Equal(got, body) {
				t.Errorf("%s: reply of %d bytes: %d, %v, %v", name, n, len(got), remote, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	uvarint := func(n uint64) string { return string(binary.AppendUvarint(nil, n)) }
	for _, c := range []struct {
		name, bytes string
		reply       bool
		want        error
	}{
		{"nothing", "", false, io.ErrUnexpectedEOF},
		{"half a length", "\x80", false, io.ErrUnexpectedEOF},
		{"half a body", "\x04ab", false, io.ErrUnexpectedEOF},
		{"too long", uvarint(grid.MaxMessage + 1), false, grid.Limit},
		{"much too long", uvarint(1 << 62), false, grid.Limit},
		{"endless length", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", false, grid.Limit},
		{"long form", "\x81\x00a", false, grid.Invalid},
		{"trailing bytes", "\x01ab", false, grid.Invalid},
		{"no length", "\x00", true, io.ErrUnexpectedEOF},
		{"status", "\x02\x00", true, grid.Invalid},
		{"long error", "\x01" + uvarint(maxFault+1), true, grid.Limit},
		{"no CBOR", "\x01\x01\xff", true, grid.Invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			if c.reply {
				_, _, err = ReadReply(strings.NewReader(c.bytes), nil)
			} else {
				_, err = ReadRequest(strings.NewReader(c.bytes), nil)
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if err := WriteRequest(io.Discard, make([]byte, grid.MaxMessage+1)); !errors.Is(err, grid.Limit) {
		t.Errorf("got %v", err)
	}
}

// Nothing is allocated for a body before there is room for it.
func TestReserve(t *testing.T) {
	huge := string(binary.AppendUvarint(nil, grid.MaxMessage))
	asked := 0
	_, err := ReadRequest(strings.NewReader(huge), func(n int) error { asked = n; return grid.Busy })
	if asked != grid.MaxMessage || !errors.Is(err, grid.Busy) {
		t.Errorf("asked for %d, got %v", asked, err)
	}
}

func TestFaultIsClipped(t *testing.T) {
	var b bytes.Buffer
	long := strings.Repeat("é", maxMessage)
	if err := WriteReply(&b, nil, grid.Errorf(grid.Internal, "%s", "x"+long).Hint("%s", long)); err != nil {
		t.Fatal(err)
	}
	_, remote, err := ReadReply(&b, nil)
	if err != nil || grid.CodeOf(remote) != grid.Internal || len(remote.Error()) > maxMessage+8 {
		t.Errorf("got %d bytes, %v", len(remote.Error()), err)
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte("\x02hi"))
	f.Add([]byte("\x80\x80\x80\x04"))
	f.Fuzz(func(t *testing.T, data []byte) {
		body, err := ReadRequest(iotest.OneByteReader(bytes.NewReader(data)), small)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := WriteRequest(&b, body); err != nil || !bytes.HasPrefix(data, b.Bytes()) {
			t.Errorf("%x was read as %x", data, body)
		}
	})
}

func FuzzReadReply(f *testing.F) {
	f.Add([]byte("\x00\x02hi"))
	var b bytes.Buffer
	_ = WriteReply(&b, nil, grid.Errorf(grid.NotFound, "no such job").Hint("look again"))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		body, remote, err := ReadReply(bytes.NewReader(data), small)
		if err != nil && (body != nil || remote != nil) {
			t.Error("an error and something else")
		}
		if remote != nil {
			_ = grid.CodeOf(remote).Error()
		}
		if err == nil && remote == nil && len(body)+2 > len(data) {
			t.Errorf("%d bytes out of %d", len(body), len(data))
		}
	})
}

// small keeps the fuzzer from allocating megabytes for each short input.
func small(n int) error {
	if n > 1<<16 {
		return grid.Busy
	}
	return nil
}
