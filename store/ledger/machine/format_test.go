package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the format has changed: it is %q, and was %q", name, got, want)
	}
	return want
}

// everyCommand has each kind of command, and each of its fields.
func everyCommand() []Command {
	return []Command{
		{Open: &OpenSession{ID: "session", TTL: 1500 * time.Millisecond, Owner: "peer"}},
		{Base: 7, Txn: &grid.Txn{
			ID:     "0123456789abcdef",
			If:     []grid.Cond{{Key: "a"}, {Key: "p/", Prefix: true}},
			Put:    []grid.Entry{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte{}, Session: "session"}},
			Delete: []string{"c", "d"},
		}},
		{Txn: &grid.Txn{If: []grid.Cond{{Key: "a", Version: 300}, {Key: "", Prefix: true, Version: 300, Count: 200}}}},
		{End: []grid.SessionID{"other", "third"}},
		{Txn: &grid.Txn{Put: []grid.Entry{{Key: "a", Value: []byte("2")}, {Key: "x", Value: []byte("3")}}}},
		{Txn: &grid.Txn{Delete: []string{"x"}}},
		{Txn: new(grid.Txn)},
		{End: []grid.SessionID{}},
	}
}

func TestBatchFormat(t *testing.T) {
	b, err := AppendBatch([]byte("before"), everyCommand())
	if err != nil {
		t.Fatal(err)
	}
	want := golden(t, "batch", bytes.TrimPrefix(b, []byte("before")))
	cmds, err := DecodeBatch(want)
	if err != nil || !reflect.DeepEqual(cmds, everyCommand()) {
		t.Errorf("DecodeBatch = %+v, %v", cmds, err)
	}
	for n := range want {
		if _, err := DecodeBatch(want[:n]); !errors.Is(err, grid.Corrupt) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
}

func snapshotOf(t testing.TB, m *Machine) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := m.Snapshot().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSnapshotFormat(t *testing.T) {
	m := New(Config{})
	apply(t, m, everyCommand()...)
	want := golden(t, "snapshot", snapshotOf(t, m))
	other := New(Config{MaxBytes: 1, Requests: 1})
	apply(t, other, put("z", "is forgotten"))
	w, err := other.Watch("", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Restore(iotest.OneByteReader(bytes.NewReader(want))); err != nil {
		t.Fatal(err)
	}
	if c, err := w.Next(t.Context()); err != nil || c.Revision != 1 || len(c.Put) != 2 {
		t.Errorf("Next = %+v, %v", c, err)
	}
	if !bytes.Equal(snapshotOf(t, other), want) {
		t.Error("the snapshot of a restored machine differs")
	}
	before := other.Snapshot().Sum()
	refuses := func(what string, code grid.Code, b []byte) {
		t.Helper()
		if err := other.Restore(bytes.NewReader(b)); !errors.Is(err, code) || grid.AdviceOf(err) == "" {
			t.Errorf("%s: %v, want the code %q", what, err, code)
		}
		if other.Snapshot().Sum() != before {
			t.Fatalf("%s: the machine has changed", what)
		}
	}
	for n := range want {
		refuses("cut", grid.Corrupt, want[:n])
	}
	for bit := range 8 * len(want) {
		bad := bytes.Clone(want)
		bad[bit/8] ^= 1 << (bit % 8)
		code := grid.Corrupt
		if bit/8 == len(snapshotMagic) && bad[bit/8] > snapshotVersion {
			code = grid.Unsupported
		}
		refuses("a flipped bit", code, bad)
	}
	if err := other.Restore(iotest.TimeoutReader(bytes.NewReader(want))); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("Restore from a reader that fails: %v", err)
	}
}

// TestSnapshotOrder swaps and drops whole frames, each of which is good alone.
func TestSnapshotOrder(t *testing.T) {
	m := New(Config{})
	for _, k := range []string{"a", "b", "c", "d"} {
		one(t, m, 0, put(k, strings.Repeat(k, frameSize)))
	}
	good := snapshotOf(t, m)
	var frames [][]byte
	for rest := good[len(snapshotMagic)+1:]; len(rest) > 0; {
		n := 8 + int(binary.BigEndian.Uint32(rest))
		frames = append(frames, rest[:n])
		rest = rest[n:]
	}
	if len(frames) < 6 {
		t.Fatalf("%d frames", len(frames))
	}
	join := func(order ...int) []byte {
		b := bytes.Clone(good[:len(snapshotMagic)+1])
		for _, i := range order {
			b = append(b, frames[i]...)
		}
		return b
	}
	last := len(frames) - 1
	for _, order := range [][]int{{last}, {1, last}, {0, last}, {0, 2, 1, last}, {0, 1, 1, last}} {
		if err := m.Restore(bytes.NewReader(join(order...))); !errors.Is(err, grid.Corrupt) {
			t.Errorf("frames %v of %d: %v", order, len(frames), err)
		}
	}
}

// sealed makes a snapshot of items, with checksums that are right.
func sealed(items []byte) []byte {
	b := append([]byte(snapshotMagic), snapshotVersion)
	crc := crc32.Checksum(b, castagnoli)
	for _, items := range [][]byte{items, nil} {
		crc = crc32.Update(crc, castagnoli, items)
		b = binary.BigEndian.AppendUint32(b, uint32(len(items)))
		b = append(binary.BigEndian.AppendUint32(b, crc), items...)
		if len(items) == 0 {
			break
		}
	}
	return b
}

func FuzzDecodeBatch(f *testing.F) {
	b, err := AppendBatch(nil, everyCommand())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, c := range everyCommand() {
		b, err := AppendBatch(nil, []Command{c})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cmds, err := DecodeBatch(data)
		m := New(Config{})
		results, applied := m.Apply(1, data)
		if (err == nil) != (applied == nil) || len(results) != len(cmds) {
			t.Fatalf("DecodeBatch says %v, Apply %v with %d results", err, applied, len(results))
		}
		if err != nil {
			return
		}
		b := append([]byte{batchVersion}, binary.AppendUvarint(nil, uint64(len(cmds)))...)
		for i := range cmds {
			b = cmds[i].append(b)
		}
		if !bytes.Equal(b, data) {
			t.Fatalf("%x is decoded to %+v, which is encoded as %x", data, cmds, b)
		}
		if other := New(Config{}); other.Restore(bytes.NewReader(snapshotOf(t, m))) != nil || other.Snapshot().Sum() != m.Snapshot().Sum() {
			t.Fatal("a restored machine differs")
		}
	})
}

// FuzzRestore restores items that nothing has damaged since they were written, by whoever it was.
func FuzzRestore(f *testing.F) {
	m := New(Config{})
	f.Add(snapshotOf(f, m)[len(snapshotMagic)+1+8:])
	apply(f, m, everyCommand()...)
	b := snapshotOf(f, m)
	f.Add(b[len(snapshotMagic)+1+8 : len(b)-8])
	f.Fuzz(func(t *testing.T, items []byte) {
		m := New(Config{})
		_ = m.Restore(bytes.NewReader(items)) // as it is
		if err := m.Restore(bytes.NewReader(sealed(items))); err != nil {
			if c := grid.CodeOf(err); c != grid.Corrupt && c != grid.Unsupported {
				t.Fatalf("Restore: %v", err)
			}
			return
		}
		again := snapshotOf(t, m)
		other := New(Config{})
		if err := other.Restore(bytes.NewReader(again)); err != nil {
			t.Fatalf("its own snapshot: %v", err)
		}
		if other.Snapshot().Sum() != m.Snapshot().Sum() {
			t.Fatal("a restored machine differs")
		}
		// It works.
		end := Command{}
		for _, s := range m.Sessions() {
			end.End = append(end.End, s.ID)
		}
		if end.End != nil && m.Applied() < 1<<62 {
			apply(t, m, end)
		}
		if _, err := m.Range(grid.Query{}); err != nil {
			t.Fatal(err)
		}
		if w, err := m.Watch("", m.Stats().Oldest); err != nil {
			t.Fatal(err)
		} else {
			for ok := true; ok; {
				if _, ok, err = w.Poll(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

var _ io.WriterTo = (*Snapshot)(nil)
