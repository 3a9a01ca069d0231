package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"unicode"

	"github.com/wasmgrid/wasmgrid/e2e/bench/work"
)

// countWords is the independent counter: words by the definition in plugins/wordcount/README.md, in
// the plainest Go there is.
func countWords(t *testing.T, root string) (counts map[string]int, files int) {
	t.Helper()
	counts = map[string]int{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(path, ".go") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, w := range strings.FieldsFunc(string(data), func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsDigit(r)
		}) {
			counts[strings.ToLower(w)]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return counts, files
}

// TestMainJob runs the job that the README opens with, embedded, and compares every count with the
// independent counter's. A second run answers from receipts.
func TestMainJob(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	root := filepath.Join(goEnv("GOROOT"), "src")
	if testing.Short() {
		root = filepath.Join(root, "encoding")
	}
	want, files := countWords(t, root)
	plugin := filepath.Join(repo(t), "plugins", "wordcount")
	glob := filepath.Join(root, "**", "*.go")

	run := func(out string) Result {
		t.Helper()
		r := w.Grid("run", plugin, "--each", glob, "--reduce", "-o", filepath.Join(w.dir, out))
		if r.Exit != 0 {
			t.Fatalf("exit code %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
		}
		return r
	}
	first := run("out1")
	data := findOne(t, filepath.Join(w.dir, "out1"), "counts.tsv")
	got := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	sort.Strings(got)
	if g, w := strings.Join(got, "\n"), strings.Join(work.Table(want), "\n"); g != w {
		t.Fatalf("%d files: the counts differ from the independent counter's: %d words, want %d", files, len(got), len(want))
	}
	top, most := "", 0
	for w, n := range want {
		if n > most || n == most && w < top {
			top, most = w, n
		}
	}
	if line := strings.Fields(first.Stdout); len(line) < 2 || !(line[0] == top && line[1] == fmt.Sprint(most) || line[1] == top && line[0] == fmt.Sprint(most)) {
		t.Errorf("the first line printed is not %s with %d:\n%s", top, most, first.Stdout)
	}

	second := run("out2")
	if second.Stdout != first.Stdout || !bytes.Equal(data, findOne(t, filepath.Join(w.dir, "out2"), "counts.tsv")) {
		t.Error("the second run gave another result")
	}
	if !strings.Contains(second.Stderr, "known from earlier runs") {
		t.Errorf("the second run does not say that it used earlier results:\n%s", second.Stderr)
	}
}

// findOne reads the one file of a name below dir.
func findOne(t *testing.T, dir, name string) []byte {
	t.Helper()
	var found []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == name {
			found = append(found, path)
		}
		return nil
	})
	if len(found) != 1 {
		t.Fatalf("%d files named %s below %s, want one: %v", len(found), name, dir, found)
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return data
}
