package cli

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestExtractRefuses(t *testing.T) {
	type h = tar.Header
	tests := []struct {
		name    string
		entries []h
		want    string
	}{
		{"parent", []h{{Name: "../x"}}, `"../x"`},
		{"parent inside", []h{{Name: "a/../../x"}}, "no path below"},
		{"absolute", []h{{Name: "/etc/x"}}, `"/etc/x"`},
		{"no name", []h{{Name: ""}}, "no path below"},
		{"twice", []h{{Name: "a"}, {Name: "a"}}, "file exists"},
		{"file as folder", []h{{Name: "a"}, {Name: "a/b"}}, "a/b"},
		{"device", []h{{Name: "d", Typeflag: tar.TypeChar}}, "neither file"},
		{"hard link", []h{{Name: "d", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}}, "neither file"},
		{"link out", []h{{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "../../x"}}, "leads out"},
		{"absolute link", []h{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}}, "leads out"},
		{"through a link", []h{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "."}, {Name: "l/x"}}, "l"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range tt.entries {
				if h.Typeflag == 0 {
					h.Typeflag = tar.TypeReg
				}
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			w.Close()
			dir := t.TempDir()
			target := filepath.Join(dir, "in", "target")
			err := extract(&b, target, placing{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %s", err, tt.want)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*", "*")); left != nil {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestExtractTruncated: nothing appears of an archive that breaks off.
func TestExtractTruncated(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "a", Size: 4096, Typeflag: tar.TypeReg})
	w.Write(make([]byte, 1000))
	target := filepath.Join(t.TempDir(), "t")
	if err := extract(&b, target, placing{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("it appeared half written")
	}
}

// TestExtractOntoLinks: links that are there already lead nothing out of the folder.
func TestExtractOntoLinks(t *testing.T) {
	dir := t.TempDir()
	outside, target := filepath.Join(dir, "outside"), filepath.Join(dir, "p", "target")
	os.MkdirAll(outside, 0o777)
	os.MkdirAll(target, 0o777)
	if err := os.Symlink(outside, filepath.Join(target, "sub")); err != nil {
		t.Skip(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "sub/x", Typeflag: tar.TypeReg})
	w.Close()
	if err := extract(&b, target, placing{force: true}); err == nil {
		t.Error("no error")
	}
	if list, _ := os.ReadDir(outside); len(list) > 0 {
		t.Error("it was written outside")
	}
}

func FuzzExtract(f *testing.F) {
	f.Add("a/b", "../c")
	f.Add("../x", "y")
	f.Add("/x", "/y")
	f.Fuzz(func(t *testing.T, name, link string) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Format: tar.FormatPAX}) != nil ||
			w.WriteHeader(&tar.Header{Name: "l", Linkname: link, Typeflag: tar.TypeSymlink, Format: tar.FormatPAX}) != nil {
			return
		}
		w.Close()
		dir := t.TempDir()
		target := filepath.Join(dir, "a", "b", "target")
		_ = extract(&b, target, placing{})
		for _, above := range []string{dir, filepath.Join(dir, "a"), filepath.Join(dir, "a", "b")} {
			if list, _ := os.ReadDir(above); len(list) > 1 {
				t.Errorf("%q, %q: wrote outside: %v", name, link, list)
			}
		}
		if to, err := os.Readlink(filepath.Join(target, "l")); err == nil && !filepath.IsLocal(to) {
			t.Errorf("%q leads out", to)
		}
	})
}

func TestAddGet(t *testing.T) {
	dir := files(t, map[string]string{"d/x.txt": "hello", "d/sub/y": "y"})
	os.Symlink("x.txt", "d/l")
	f := newFake(t)
	r := f.grid("add", "-q", "d/x.txt", "d")
	cids := strings.Fields(r.out)
	if r.exit != 0 || len(cids) != 2 {
		t.Fatalf("%+v", r)
	}
	if r := f.grid("cat", cids[0]); r.out != "hello" {
		t.Errorf("%+v", r)
	}
	if r := f.grid("cat", "/ipfs/"+cids[1]+"/sub/y"); r.out != "y" {
		t.Errorf("%+v", r)
	}
	for _, args := range [][]string{{cids[1], "-o", "copy"}, {cids[0], "-o", "copy"}, {cids[1] + "/sub/y"}} {
		if r := f.grid(append([]string{"get"}, args...)...); r.exit != 0 {
			t.Errorf("%v: %s", args, r.err)
		}
	}
	for name, want := range map[string]string{"copy/x.txt": "hello", "copy/l": "hello", "copy/" + cids[0]: "hello", "y": "y"} {
		if got, _ := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if r := f.grid("get", cids[1], "-o", "copy"); r.exit != exitOf(grid.Conflict) || !strings.Contains(r.err, "--force") {
		t.Errorf("overwrote: %+v", r)
	}
	if r := f.grid("get", cids[1]+"/sub/y", "-o", "y"); r.exit != exitOf(grid.Conflict) {
		t.Errorf("overwrote: %+v", r)
	}
	if r := f.grid("get", cids[1], "-o", "copy", "--force"); r.exit != 0 {
		t.Errorf("%+v", r)
	}
	if left, _ := filepath.Glob(".grid-*"); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// TestChangingFile: a file whose size is not what its header said is an error.
func TestChangingFile(t *testing.T) {
	dir := files(t, map[string]string{"f": strings.Repeat("x", 600<<10)})
	p := filepath.Join(dir, "f")
	for _, size := range []int64{10, 900 << 10} {
		a := newArchiver(io.Discard)
		first := true
		a.count = func(int) {
			if first {
				first = false
				if err := os.Truncate(p, size); err != nil {
					t.Error(err)
				}
			}
		}
		if err := a.file(t.Context(), "f", p); !errors.Is(err, grid.Conflict) || !strings.Contains(err.Error(), p) {
			t.Errorf("size %d: %v", size, err)
		}
		os.WriteFile(p, make([]byte, 600<<10), 0o666)
	}
}

func TestFindInputs(t *testing.T) {
	dir := files(t, map[string]string{"a/1.txt": "", "a/s/2.txt": "", "b/1.txt": "", "b/x/y": "", ".h": "", "odd[1].txt": ""})
	os.Symlink("../a/1.txt", "b/link.txt")
	os.Symlink("..", "b/loop")
	tests := []struct {
		globs string
		want  string
	}{
		{"a/*.txt", "1.txt"},
		{"a/**/*.txt", "1.txt s/2.txt"},
		{"a/**", "1.txt s/2.txt"},
		{dir + "/a/*.txt", "1.txt"},
		{"./a/1.txt", "1.txt"},
		{"b/**/*.txt", "1.txt link.txt"},
		{"a/*.txt a/**", "1.txt s/2.txt"},
		{"a/*.txt b/*.txt", "a/1.txt b/1.txt b/link.txt"},
		{"{a,b}/1.txt", "a/1.txt b/1.txt"},
		{"*/x/*", "b/x/y"},
		{`odd\[1\].txt`, "odd[1].txt"},
		{"../" + filepath.Base(dir) + "/a/*", "1.txt"},
	}
	for _, tt := range tests {
		got, err := ofEach.inputs(strings.Fields(tt.globs))
		var names []string
		for _, in := range got {
			names = append(names, in.name)
		}
		if err != nil || strings.Join(names, " ") != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.globs, names, err, tt.want)
		}
	}
	os.Symlink("nowhere", "a/broken.txt")
	for glob, want := range map[string]string{"a/*.txt": "broken.txt", "a/[": "bracket", "zz/*": "matches nothing in " + filepath.Join(dir, "zz")} {
		if _, err := ofEach.inputs([]string{glob}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", glob, err)
		}
	}
}

func TestGroup(t *testing.T) {
	inputs := make([]grid.Input, 7)
	for i, size := range []int64{5, 5, 1, 20, 0, 0, 9} {
		inputs[i] = grid.Input{Name: fmt.Sprint(i), Size: size}
	}
	for spec, want := range map[string][]int{"1": {1, 1, 1, 1, 1, 1, 1}, "3": {3, 3, 1}, "100": {7}, "10b": {2, 1, 1, 3}, "1GiB": {7}} {
		g, err := parseGrouping(spec)
		if err != nil {
			t.Error(err)
			continue
		}
		var got []int
		for _, r := range g.group(inputs) {
			got = append(got, len(r))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", spec, got, want)
		}
	}
}

func TestPrefixWriter(t *testing.T) {
	var b bytes.Buffer
	p := &prefixWriter{w: &b, prefix: "> "}
	for _, s := range []string{"a", "b\n", "\nc\nd"} {
		io.WriteString(p, s)
	}
	p.end()
	if got := b.String(); got != "> ab\n> \n> c\n> d\n" {
		t.Errorf("%q", got)
	}
	b.Reset()
	io.WriteString(p, strings.Repeat("x", 3*maxPrefixLine))
	p.end()
	if got := strings.Count(b.String(), "\n"); got != 3 {
		t.Errorf("a long line became %d", got)
	}
}

func BenchmarkArchive(b *testing.B) {
	p := filepath.Join(b.TempDir(), "f")
	if err := os.WriteFile(p, make([]byte, 8<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(8 << 20)
	for b.Loop() {
		a := newArchiver(io.Discard)
		if err := a.write(b.Context(), []item{{"f", p}}); err != nil {
			b.Fatal(err)
		}
	}
}
