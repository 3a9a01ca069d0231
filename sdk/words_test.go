package sdk_test

import (
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/wasmgrid/wasmgrid/sdk"
)

// FuzzWords checks the fast tokenizer against the definition of a word.
func FuzzWords(f *testing.F) {
	for _, s := range []string{"", "a", "Hello, World", "Über-fox99 北京x", "\xff\xfe", "a\xffb", "İstanbul K", "naïve—naive", "abcd efghi j", "abc\x80efgh", "...a",
		"0123456789abcdefgh ABCDEFGHIJKLMNOPQ", "@[`{/:azAZ09", "eight8ch", "eight8ch!", "seven7é ABCDEF", "ABCDEFGHİ ABC"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var got []string
		sdk.Words([]byte(s), func(w []byte) { got = append(got, string(w)) })
		var want []string
		for _, w := range strings.FieldsFunc(s, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
			want = append(want, strings.Map(unicode.ToLower, w))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	})
}

func BenchmarkWords(b *testing.B) {
	text := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog; internationalization 2026. ", 1000))
	b.SetBytes(int64(len(text)))
	n := 0
	for b.Loop() {
		sdk.Words(text, func(w []byte) { n += len(w) })
	}
}
