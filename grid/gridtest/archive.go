package gridtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// ArchiveNode is what one node has for archives.
type ArchiveNode struct {
	Blocks  grid.Blocks // empty
	Files   grid.Files  // over these blocks
	Archive grid.Archive
}

// addTree stores files by their paths; a text that begins with -> is a symlink's target.
func addTree(t *testing.T, f grid.Files, files map[string]string) cid.Cid {
	t.Helper()
	var entries []grid.FileInfo
	for name, text := range files {
		e := grid.FileInfo{Name: name, Kind: grid.KindFile}
		if target, ok := strings.CutPrefix(text, "->"); ok {
			e.Kind, e.Target = grid.KindSymlink, target
		} else {
			c, size, err := f.Add(t.Context(), strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			e.CID, e.Size = grid.Link{Cid: c}, size
		}
		entries = append(entries, e)
	}
	c, _, err := f.AddTree(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wide(n int) map[string]string {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("wide/entry-%05d-%s", i, strings.Repeat("n", 40))] = "the same"
	}
	return files
}

// TestArchive checks the contract of grid.Archive.
func TestArchive(t *testing.T, open func(t *testing.T) ArchiveNode) {
	ctx := t.Context()
	big := strings.Repeat("0123456789abcdef", 5<<16) // 5 MiB, all chunks equal
	varied := func() string {
		var b strings.Builder
		for i := 0; b.Len() < 3<<20+77; i++ {
			fmt.Fprintf(&b, "%d,", i)
		}
		return b.String()
	}()
	tree := func(t *testing.T, f grid.Files) cid.Cid {
		files := wide(4000)
		for name, text := range map[string]string{
			"a": "aa", "empty": "", "d/e/big": big, "d/e/varied": varied, "d/again": big, "link": "->d/e",
			"odd/ünï cödé\n\x01": "x", "-dash": "y",
		} {
			files[name] = text
		}
		return addTree(t, f, files)
	}
	export := func(t *testing.T, n ArchiveNode, parts ...grid.Selection) []byte {
		t.Helper()
		var b bytes.Buffer
		if err := n.Archive.Export(ctx, &b, parts...); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	code := func(t *testing.T, err error, want grid.Code, words ...string) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
		for _, w := range words {
			if err != nil && !strings.Contains(err.Error(), w) {
				t.Errorf("error %q does not mention %q", err, w)
			}
		}
	}
	read := func(t *testing.T, f grid.Files, c cid.Cid, p string) string {
		t.Helper()
		at, err := f.Resolve(ctx, c, p)
		if err != nil {
			t.Error(err)
			return ""
		}
		r, err := f.Open(ctx, at)
		if err != nil {
			t.Error(err)
			return ""
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}

	t.Run("there and back", func(t *testing.T) {
		from, to := open(t), open(t)
		root := tree(t, from.Files)
		file := export(t, from, grid.Selection{Root: root})
		if again := export(t, from, grid.Selection{Root: root}); !bytes.Equal(file, again) {
			t.Error("the same DAG gives another file")
		}
		if len(file) > 6<<20 {
			t.Errorf("%d bytes: blocks are repeated", len(file))
		}
		in, err := to.Archive.Import(ctx, iotest.HalfReader(bytes.NewReader(file)), false)
		if err != nil {
			t.Fatal(err)
		}
		if len(in.Roots) != 1 || in.Roots[0].CID.Cid != root || !in.Roots[0].Whole || in.Blocks < 10 || in.Bytes < 4<<20 {
			t.Errorf("imported %+v", in)
		}
		if again := export(t, to, grid.Selection{Root: root}); !bytes.Equal(file, again) {
			t.Error("what was imported gives another file")
		}
		for p, want := range map[string]string{"d/e/big": big, "d/e/varied": varied, "empty": "", "odd/ünï cödé\n\x01": "x"} {
			if got := read(t, to.Files, root, p); got != want {
				t.Errorf("%s: %d bytes, want %d", p, len(got), len(want))
			}
		}
		if again, err := to.Archive.Import(ctx, bytes.NewReader(file), false); err != nil || again.Blocks != in.Blocks {
			t.Errorf("a second import: %+v, %v", again, err)
		}
	})

	t.Run("several roots", func(t *testing.T) {
		from, to := open(t), open(t)
		a, b := addTree(t, from.Files, map[string]string{"x": "1"}), addTree(t, from.Files, map[string]string{"x": "1", "y": "2"})
		record, err := grid.EncodeBlock(map[string]any{"a": grid.Link{Cid: a}, "b": []grid.Link{{Cid: b}, {Cid: a}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := from.Blocks.Put(ctx, record); err != nil {
			t.Fatal(err)
		}
		in, err := to.Archive.Import(ctx, bytes.NewReader(export(t, from,
			grid.Selection{Root: a, Scope: grid.ScopeBlock}, grid.Selection{Root: b}, grid.Selection{Root: a}, grid.Selection{Root: record.CID()})), false)
		if err != nil || len(in.Roots) != 4 || in.Blocks != 5 {
			t.Errorf("imported %+v, %v", in, err)
		}
	})

	t.Run("parts", func(t *testing.T) {
		from := open(t)
		root := tree(t, from.Files)
		end, err := from.Files.Resolve(ctx, root, "d/e/varied")
		if err != nil {
			t.Fatal(err)
		}
		folder, err := from.Files.Resolve(ctx, root, "wide")
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name   string
			part   grid.Selection
			root   cid.Cid
			blocks int64
		}{
			{"a file by its path", grid.Selection{Path: "d/e/varied"}, end, 3 + 5},
			{"its entity", grid.Selection{Path: "/d//e/varied/", Scope: grid.ScopeEntity}, end, 3 + 5},
			{"its block", grid.Selection{Path: "d/e/varied", Scope: grid.ScopeBlock}, end, 3 + 1},
			{"one byte", grid.Selection{Path: "d/e/varied", Bytes: &grid.ByteRange{From: 1 << 20, To: 1 << 20}}, end, 3 + 2},
			{"across an edge", grid.Selection{Path: "d/e/varied", Bytes: &grid.ByteRange{From: 1<<20 - 1, To: 1 << 20}}, end, 3 + 3},
			{"the last bytes", grid.Selection{Path: "d/e/varied", Bytes: &grid.ByteRange{From: -10, To: grid.ToEnd}}, end, 3 + 2},
			{"from before the start", grid.Selection{Path: "d/e/varied", Bytes: &grid.ByteRange{From: -1 << 40, To: 0}}, end, 3 + 2},
			{"all its bytes", grid.Selection{Path: "d/e/varied", Bytes: &grid.ByteRange{From: 0, To: grid.ToEnd}}, end, 3 + 5},
			{"no bytes", grid.Selection{Path: "d/e/varied", Bytes: &grid.ByteRange{From: 5, To: 4}}, end, 3 + 1},
			{"equal parts", grid.Selection{Path: "d/again", Bytes: &grid.ByteRange{From: 1, To: -2}}, cid.Undef, 2 + 2},
			{"repeated", grid.Selection{Path: "d/again", Repeats: true}, cid.Undef, 2 + 1 + 5},
			{"repeated parts", grid.Selection{Path: "d/again", Repeats: true, Bytes: &grid.ByteRange{From: 1, To: 3<<20 + 1}}, cid.Undef, 2 + 1 + 4},
			{"a list of entries", grid.Selection{Scope: grid.ScopeEntity}, root, 1},
			{"bytes of a folder", grid.Selection{Bytes: &grid.ByteRange{From: 1 << 40, To: 1 << 41}}, root, 1},
			{"a symlink", grid.Selection{Path: "link", Scope: grid.ScopeEntity}, cid.Undef, 2},
			{"an empty file", grid.Selection{Path: "empty", Bytes: &grid.ByteRange{From: 0, To: grid.ToEnd}}, cid.Undef, 2},
		} {
			t.Run(tt.name, func(t *testing.T) {
				to := open(t)
				tt.part.Root = root
				in, err := to.Archive.Import(ctx, bytes.NewReader(export(t, from, tt.part)), true)
				if err != nil || in.Blocks != tt.blocks || len(in.Roots) != 1 || tt.root.Defined() && in.Roots[0].CID.Cid != tt.root {
					t.Errorf("%+v, %v; want %d blocks of %s", in, err, tt.blocks, tt.root)
				}
			})
		}
		t.Run("entries of a large folder", func(t *testing.T) {
			to := open(t)
			in, err := to.Archive.Import(ctx, bytes.NewReader(export(t, from, grid.Selection{Root: folder, Scope: grid.ScopeEntity})), true)
			if err != nil || in.Roots[0].Whole || in.Roots[0].Why == "" || in.Blocks < 200 {
				t.Errorf("%+v, %v", in, err)
			}
			if _, err := to.Files.Resolve(ctx, folder, fmt.Sprintf("entry-%05d-%s", 7, strings.Repeat("n", 40))); err != nil {
				t.Error(err)
			}
		})
		t.Run("an entry of a large folder", func(t *testing.T) {
			to := open(t)
			p := fmt.Sprintf("wide/entry-%05d-%s", 3999, strings.Repeat("n", 40))
			if _, err := to.Archive.Import(ctx, bytes.NewReader(export(t, from, grid.Selection{Root: root, Path: p})), false); err != nil {
				t.Fatal(err)
			}
			if got := read(t, to.Files, root, p); got != "the same" {
				t.Errorf("%q", got)
			}
		})
	})

	t.Run("refused before a byte", func(t *testing.T) {
		n := open(t)
		root := addTree(t, n.Files, map[string]string{"a": "aa", "d/b": "b"})
		for _, tt := range []struct {
			part grid.Selection
			want grid.Code
			word string
		}{
			{grid.Selection{}, grid.Invalid, "CID"},
			{grid.Selection{Root: grid.NewBlock(cid.Raw, []byte("nowhere")).CID()}, grid.NotFound, "not here"},
			{grid.Selection{Root: root, Path: "no"}, grid.NotFound, `"no"`},
			{grid.Selection{Root: root, Path: "d/../a"}, grid.NotFound, `".."`},
			{grid.Selection{Root: root, Path: "a/x"}, grid.Invalid, "not a folder"},
			{grid.Selection{Root: root, Scope: "some"}, grid.Invalid, "scope"},
			{grid.Selection{Root: root, Path: "a", Bytes: &grid.ByteRange{From: 2, To: 3}}, grid.Invalid, "range"},
		} {
			var b bytes.Buffer
			code(t, n.Archive.Export(ctx, &b, tt.part), tt.want, tt.word)
			if b.Len() > 0 {
				t.Errorf("%+v: %d bytes were written", tt.part, b.Len())
			}
		}
		code(t, n.Archive.Export(ctx, io.Discard), grid.Invalid)
	})

	t.Run("a block that is missing", func(t *testing.T) {
		from, to := open(t), open(t)
		root := addTree(t, from.Files, map[string]string{"a": "aa", "b": "bb"})
		b := grid.NewBlock(cid.Raw, []byte("bb"))
		whole := export(t, from, grid.Selection{Root: root})
		if err := from.Blocks.Delete(ctx, b.CID()); err != nil {
			t.Fatal(err)
		}
		var cut bytes.Buffer
		code(t, from.Archive.Export(ctx, &cut, grid.Selection{Root: root}), grid.NotFound, b.CID().String())
		// Take the last section, which is b, off the file.
		file := whole[:len(whole)-1-36-2]
		_, err := to.Archive.Import(ctx, bytes.NewReader(file), false)
		code(t, err, grid.Invalid, root.String(), b.CID().String(), "not whole")
		in, err := to.Archive.Import(ctx, bytes.NewReader(file), true)
		if err != nil || len(in.Roots) != 1 || in.Roots[0].Whole || !strings.Contains(in.Roots[0].Why, b.CID().String()) {
			t.Errorf("partial: %+v, %v", in, err)
		}
		if err := to.Blocks.Put(ctx, b); err != nil { // what is here already counts
			t.Fatal(err)
		}
		if _, err := to.Archive.Import(ctx, bytes.NewReader(file), false); err != nil {
			t.Error(err)
		}
	})

	t.Run("damaged files", func(t *testing.T) {
		from := open(t)
		root := addTree(t, from.Files, map[string]string{"a": "aa", "b": "bb", "d/c": "cc"})
		file := export(t, from, grid.Selection{Root: root})
		for i := range file {
			n := open(t)
			if _, err := n.Archive.Import(ctx, bytes.NewReader(file[:i]), false); err == nil {
				t.Errorf("cut short at %d: accepted", i)
			}
			bad := bytes.Clone(file)
			bad[i] ^= 4
			// A store that goes by hashes does not mind under which codec a block comes.
			if in, err := n.Archive.Import(ctx, bytes.NewReader(bad), false); err == nil {
				if in.Roots[0].CID.Cid != root || !bytes.Equal(export(t, n, grid.Selection{Root: root}), file) {
					t.Errorf("changed at %d: accepted", i)
				}
			}
		}
		n := open(t)
		for _, tail := range []string{"\x00", "\x00\x00\x00\x00", "garbage", "\xff\xff\xff\xff\xff\xff\xff\xff\x7f"} {
			_, err := n.Archive.Import(ctx, strings.NewReader(string(file)+tail), false)
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("at byte %d", len(file))) {
				t.Errorf("with %q behind it: %v; want the offset %d", tail, err, len(file))
			}
		}
		broken := errors.New("broken")
		if _, err := n.Archive.Import(ctx, io.MultiReader(bytes.NewReader(file), iotest.ErrReader(broken)), false); !errors.Is(err, broken) {
			t.Errorf("error %v, want that of the reader", err)
		}
	})

	t.Run("a writer that fails", func(t *testing.T) {
		n := open(t)
		root := tree(t, n.Files)
		full := errors.New("full")
		if err := n.Archive.Export(ctx, &limitWriter{1 << 20, full}, grid.Selection{Root: root}); !errors.Is(err, full) {
			t.Errorf("error %v, want that of the writer", err)
		}
		done, cancel := context.WithCancel(ctx)
		cancel()
		if err := n.Archive.Export(done, io.Discard, grid.Selection{Root: root}); err == nil {
			t.Error("an export after its context ended succeeded")
		}
	})
}

// limitWriter fails after so many bytes.
type limitWriter struct {
	left int
	err  error
}

func (w *limitWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, w.err
	}
	return len(p), nil
}

// SurveyNode is what one node has for surveys.
type SurveyNode struct {
	Blocks   grid.Blocks // empty
	Files    grid.Files  // over these blocks
	Surveyor grid.Surveyor
}

// TestSurveyor checks the contract of grid.Surveyor.
func TestSurveyor(t *testing.T, open func(t *testing.T) SurveyNode) {
	ctx := t.Context()
	t.Run("survey", func(t *testing.T) {
		n := open(t)
		root := addTree(t, n.Files, map[string]string{"a": "aa", "d/b": "bbb", "d/again": "aa", "e": "", "l": "->a"})
		x, err := n.Surveyor.Survey(ctx, root)
		if err != nil || x.Kind != grid.KindDir || x.Size != 7 || x.Blocks != 6 || x.Bytes < 7 || x.Missing != 0 || !x.Local || x.CID.Cid != root {
			t.Errorf("a folder: %+v, %v", x, err)
		}
		if err := n.Blocks.Delete(ctx, grid.NewBlock(cid.Raw, []byte("bbb")).CID()); err != nil {
			t.Fatal(err)
		}
		x, err = n.Surveyor.Survey(ctx, root)
		if err != nil || x.Blocks != 5 || x.Missing != 1 || x.Local || x.Size != 7 {
			t.Errorf("without a file: %+v, %v", x, err)
		}
		d, err := n.Files.Resolve(ctx, root, "d")
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Blocks.Delete(ctx, d); err != nil {
			t.Fatal(err)
		}
		x, err = n.Surveyor.Survey(ctx, root)
		if err != nil || x.Missing != 1 || x.Local || x.Size != -1 || x.Kind != grid.KindDir {
			t.Errorf("without a folder: %+v, %v", x, err)
		}
		if _, err := n.Surveyor.Survey(ctx, d); !errors.Is(err, grid.NotFound) {
			t.Errorf("of what is not here: %v", err)
		}
		big, size, err := n.Files.Add(ctx, strings.NewReader(strings.Repeat("x", 3<<20)))
		if err != nil {
			t.Fatal(err)
		}
		x, err = n.Surveyor.Survey(ctx, big)
		if err != nil || x.Kind != grid.KindFile || x.Size != size || x.Blocks != 2 || x.Bytes > 1<<20+1000 || !x.Local {
			t.Errorf("a file of equal chunks: %+v, %v", x, err)
		}
		record, err := grid.EncodeBlock([]grid.Link{{Cid: big}, {Cid: root}})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Blocks.Put(ctx, record); err != nil {
			t.Fatal(err)
		}
		x, err = n.Surveyor.Survey(ctx, record.CID())
		if err != nil || x.Kind != "" || x.Size != -1 || x.Missing != 1 || x.Blocks < 5 {
			t.Errorf("a record: %+v, %v", x, err)
		}
	})

	t.Run("diff", func(t *testing.T) {
		n := open(t)
		diff := func(a, b cid.Cid) string {
			t.Helper()
			var out []string
			err := n.Surveyor.Diff(ctx, a, b, func(c grid.Change) error {
				out = append(out, fmt.Sprintf("%s %s %s>%s", c, c.Path, c.WasKind, c.IsKind))
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			return strings.Join(out, ", ")
		}
		small := map[string]string{"same/x": "1", "d/gone": "2", "d/changed": "3", "kind": "4", "old/y/z": "5", "l": "->d"}
		a := addTree(t, n.Files, small)
		b := addTree(t, n.Files, map[string]string{"same/x": "1", "d/changed": "33", "d/new": "6", "kind/f": "4", "l": "->same"})
		want := "changed d/changed file>file, removed d/gone file>, added d/new >file, changed kind file>dir, changed l symlink>symlink, removed old dir>"
		if got := diff(a, b); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if got := diff(a, a); got != "" {
			t.Errorf("of equal ones: %s", got)
		}
		files := wide(4000)
		c := addTree(t, n.Files, files)
		files["wide/new"] = "new"
		delete(files, fmt.Sprintf("wide/entry-%05d-%s", 77, strings.Repeat("n", 40)))
		d := addTree(t, n.Files, files)
		if got, want := diff(c, d), "removed wide/entry-00077-"+strings.Repeat("n", 40)+" file>, added wide/new >file"; got != want {
			t.Errorf("large folders: got %s\nwant %s", got, want)
		}
		if got := diff(addTree(t, n.Files, map[string]string{"wide/new": "new"}), d); !strings.HasPrefix(got, "added wide/entry-00000") || strings.Count(got, ",") != 3998 {
			t.Errorf("a small folder and a large one: %.80s", got)
		}
		one, _, err := n.Files.Add(ctx, strings.NewReader("1"))
		if err != nil {
			t.Fatal(err)
		}
		if got := diff(one, a); got != "changed  file>dir" {
			t.Errorf("a file and a folder: %s", got)
		}
		// What is equal is not read: it may even be absent.
		if err := n.Blocks.Delete(ctx, one); err != nil {
			t.Fatal(err)
		}
		same, err := n.Files.Resolve(ctx, a, "same")
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Blocks.Delete(ctx, same); err != nil {
			t.Fatal(err)
		}
		if got := diff(a, b); got != want {
			t.Errorf("without what is equal: %s", got)
		}
		stop := errors.New("stop")
		if err := n.Surveyor.Diff(ctx, a, b, func(grid.Change) error { return stop }); err != stop {
			t.Errorf("error %v, want that of each", err)
		}
		err = n.Surveyor.Diff(ctx, a, grid.NewBlock(cid.DagProtobuf, []byte("nowhere")).CID(), func(grid.Change) error { return nil })
		if !errors.Is(err, grid.NotFound) {
			t.Errorf("with what is not here: %v", err)
		}
	})
}
