package main

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestGolden(t *testing.T) {
	inputs := map[string]string{}
	files, err := filepath.Glob("testdata/in/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		inputs[filepath.Base(f)] = string(data)
	}
	*top = 5
	mapper, reducer := sdk.Map("map", add, countWords), sdk.Reduce("reduce", add, printCounts)
	r := sdktest.MapReduce(t, mapper, reducer, inputs)
	golden(t, "testdata/top.txt", r.Stdout)
	golden(t, "testdata/counts.tsv", r.Out["counts.tsv"])

	// However the files are shared out among tasks, the result is the same.
	one := sdktest.Run(t, mapper, inputs)
	if again := sdktest.Run(t, reducer, map[string]string{"0000000": one.Stdout}); !maps.Equal(again.Out, r.Out) {
		t.Errorf("one task for all files gives another table:\n%s", again.Out["counts.tsv"])
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew); got:\n%s", name, got)
	}
}

// FuzzEachWord checks the fast tokenizer against the definition of a word.
func FuzzEachWord(f *testing.F) {
	for _, s := range []string{"", "a", "Hello, World", "Über-fox99 北京x", "\xff\xfe", "a\xffb", "İstanbul K", "naïve—naive", "abcd efghi j", "abc\x80efgh", "...a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var got []string
		eachWord([]byte(s), func(w []byte) { got = append(got, string(w)) })
		var want []string
		for _, w := range strings.FieldsFunc(s, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
			want = append(want, strings.Map(unicode.ToLower, w))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	})
}

func BenchmarkMap(b *testing.B) {
	text, err := os.ReadFile("main.go")
	if err != nil {
		b.Fatal(err)
	}
	text = []byte(strings.Repeat(string(text), 200))
	buf := make([]byte, len(text))
	b.SetBytes(int64(len(text)))
	counts := map[string]int{}
	for b.Loop() {
		copy(buf, text)
		eachWord(buf, func(w []byte) { counts[string(w)]++ })
	}
}
