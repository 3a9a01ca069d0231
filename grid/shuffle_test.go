package grid_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

func key(line string) string { k, _, _ := strings.Cut(line, "\t"); return k }

// plainParts divides lines the obvious way.
func plainParts(text string, parts uint32) []string {
	out := make([][]string, parts)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		p := grid.PartOf([]byte(key(line)), parts)
		out[p] = append(out[p], line)
	}
	texts := make([]string, parts)
	for p, lines := range out {
		slices.SortStableFunc(lines, func(a, b string) int { return strings.Compare(key(a), key(b)) })
		for _, line := range lines {
			texts[p] += line + "\n"
		}
	}
	return texts
}

func checkParts(t *testing.T, text string, parts uint32) {
	t.Helper()
	got, err := grid.DivideLines([]byte(text), parts)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range plainParts(text, parts) {
		if string(got[p]) != want {
			t.Fatalf("part %d of %q is %q, want %q", p, text, got[p], want)
		}
	}
}

// TestPartOf: which part a key belongs to must never change: results that are remembered depend on it.
func TestPartOf(t *testing.T) {
	for _, tt := range []struct {
		key         string
		parts, want uint32
	}{{"", 7, 3}, {"a", 7, 5}, {"key", 1000, 917}, {"\xff\x00", 16384, 11757}, {"anything", 1, 0}} {
		if got := grid.PartOf([]byte(tt.key), tt.parts); got != tt.want {
			t.Errorf("%q belongs to part %d of %d, want %d", tt.key, got, tt.parts, tt.want)
		}
	}
	counts := make([]int, 16)
	for i := range 16000 {
		counts[grid.PartOf(fmt.Append(nil, i), 16)]++
	}
	if slices.Min(counts) < 800 || slices.Max(counts) > 1200 {
		t.Errorf("numbers go to parts unevenly: %v", counts)
	}
}

func TestDivideLines(t *testing.T) {
	for _, text := range []string{"", "\n", "\n\n", "a", "a\nb", "b\t1\na\t2\nb\t0\n", "\tx\n\t\n", "k\r\nk\tv\t\n"} {
		for _, parts := range []uint32{1, 2, 5} {
			checkParts(t, text, parts)
		}
	}
}

func FuzzDivideLines(f *testing.F) {
	f.Add("b\t1\na\t2\nb\t0", byte(3))
	f.Fuzz(func(t *testing.T, text string, parts byte) { checkParts(t, text, uint32(parts)+1) })
}

// sorted makes a file of random lines in order of keys.
func sorted(r *rand.Rand, lines int) string {
	var out []string
	for range lines {
		line := fmt.Sprint(r.IntN(20))
		if r.IntN(3) > 0 {
			line += "\t" + strings.Repeat("v", r.IntN(9)) + fmt.Sprint(r.IntN(100))
		}
		out = append(out, line+"\n")
	}
	slices.SortStableFunc(out, func(a, b string) int {
		return strings.Compare(key(strings.TrimSuffix(a, "\n")), key(strings.TrimSuffix(b, "\n")))
	})
	return strings.Join(out, "")
}

func files(t testing.TB, w *fake.World, texts ...string) (row grid.Row) {
	t.Helper()
	for i, text := range texts {
		c, size, err := w.Files.Add(context.Background(), strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		row = append(row, grid.Input{Name: fmt.Sprint("f", i), CID: grid.Link{Cid: c}, Size: size})
	}
	return row
}

// plainMerge merges texts the obvious way.
func plainMerge(texts []string) string {
	var all []string
	for _, text := range texts {
		for line := range strings.Lines(text) {
			all = append(all, strings.TrimSuffix(line, "\n"))
		}
	}
	slices.SortStableFunc(all, func(a, b string) int { return strings.Compare(key(a), key(b)) })
	if len(all) == 0 {
		return ""
	}
	return strings.Join(all, "\n") + "\n"
}

func TestMerge(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 40 {
		texts := make([]string, n)
		for i := range texts {
			texts[i] = sorted(r, r.IntN(12))
			if r.IntN(2) == 0 {
				texts[i] = strings.TrimSuffix(texts[i], "\n")
			}
		}
		for _, stretch := range []int{1, 7, 1 << 20} {
			m, err := grid.NewMerger(within(t), w.Files, files(t, w, texts...), stretch)
			if err != nil {
				t.Fatal(err)
			}
			if n%2 == 0 {
				m = iotest.OneByteReader(m)
			}
			got, err := io.ReadAll(m)
			if want := plainMerge(texts); err != nil || string(got) != want {
				t.Fatalf("%q merged in stretches of %d to %q, %v; want %q", texts, stretch, got, err, want)
			}
		}
	}
}

func TestMergeRefuses(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	m, err := grid.NewMerger(within(t), w.Files, files(t, w, "a\nc\n", "a\t1\nb\na\t2\n"), 3)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(m)
	wantCode(t, err, grid.Invalid, "input f1, line 3", `key "a" comes after "b"`)
	if string(got) != "a\na\t1\nb\n" {
		t.Errorf("before that it read %q", got)
	}
	long := strings.Repeat("x", 64<<20+1)
	if m, err = grid.NewMerger(within(t), w.Files, files(t, w, long), 1<<20); err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, m)
	wantCode(t, err, grid.Limit, "input f0, line 1")
	_, err = grid.DivideLines([]byte(long), 2)
	wantCode(t, err, grid.Limit, "67108865 bytes")

	folder, size, err := w.Files.AddTree(within(t), []grid.FileInfo{{Name: "x", Kind: grid.KindFile, CID: files(t, w, "text")[0].CID}})
	if err != nil {
		t.Fatal(err)
	}
	row := grid.Row{{Name: "d", CID: grid.Link{Cid: folder}, Size: size}}
	_, err = grid.NewMerger(within(t), w.Files, row, 1)
	wantCode(t, err, grid.Invalid, "input d", `"x"`)
	_, err = io.ReadAll(grid.NewInputReader(within(t), w.Files, row))
	wantCode(t, err, grid.Invalid, "input d", `"x"`)
}

func FuzzMerge(f *testing.F) {
	f.Add("a\t1\nb\n", "a\nb\t2", "", byte(3))
	w := fake.NewWorld(new(fake.Hub), "a")
	f.Fuzz(func(t *testing.T, a, b, c string, stretch byte) {
		texts := []string{a, b, c}
		inOrder := true
		for _, text := range texts {
			var keys []string
			for line := range strings.Lines(text) {
				keys = append(keys, key(strings.TrimSuffix(line, "\n")))
			}
			inOrder = inOrder && slices.IsSorted(keys)
		}
		m, err := grid.NewMerger(context.Background(), w.Files, files(t, w, texts...), int(stretch)+1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(m)
		if (err == nil) != inOrder {
			t.Fatalf("%q: %v", texts, err)
		}
		if want := plainMerge(texts); inOrder && string(got) != want {
			t.Fatalf("%q merged to %q, want %q", texts, got, want)
		}
	})
}

func BenchmarkDivideLines(b *testing.B) {
	text := records(100_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := grid.DivideLines(text, 64); err != nil {
			b.Fatal(err)
		}
	}
}

// records are lines of 100 bytes with random keys.
func records(n int) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	var out bytes.Buffer
	for range n {
		fmt.Fprintf(&out, "%010d\t%s\n", r.IntN(1e10), strings.Repeat("x", 88))
	}
	return out.Bytes()
}

func BenchmarkMerge(b *testing.B) {
	w := fake.NewWorld(new(fake.Hub), "a")
	text := records(100_000)
	parts, err := grid.DivideLines(text, 1)
	if err != nil {
		b.Fatal(err)
	}
	texts := make([]string, 64)
	i := 0
	for line := range strings.Lines(string(parts[0])) {
		texts[i%len(texts)] += line
		i++
	}
	row := files(b, w, texts...)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		m, err := grid.NewMerger(context.Background(), w.Files, row, 1<<20)
		if err == nil {
			_, err = io.Copy(io.Discard, m)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
