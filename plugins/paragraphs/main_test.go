package main

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

// pieces cuts one text.
func pieces(t *testing.T, text string) (list []string) {
	t.Helper()
	at := int64(0)
	for _, p := range sdktest.Split(t, split, map[string]string{"f": text}) {
		if p.File != "f" || p.Offset != at || p.Length < 1 {
			t.Fatalf("%+v, at %d", p, at)
		}
		at += p.Length
		list = append(list, text[p.Offset:at])
	}
	if at != int64(len(text)) {
		t.Fatalf("%d of %d bytes are in pieces", at, len(text))
	}
	return list
}

func TestSplit(t *testing.T) {
	defer func(n int64) { *size = n }(*size)
	*size = 4
	for text, want := range map[string]string{
		"":                        "",
		"one":                     "one",
		"one\n\ntwo":              "one\n\n|two",
		"a\n\nb\n\nc\n\n":         "a\n\nb\n\n|c\n\n",
		"one\r\n \r\ntwo\n":       "one\r\n \r\n|two\n",
		"\n\n\n\n\nx":             "\n\n\n\n|\nx",
		"no blank\nline\nin it\n": "no blank\nline\nin it\n",
		strings.Repeat("long ", 50_000) + "\n\nx": strings.Repeat("long ", 50_000) + "\n\n|x",
	} {
		if got := strings.Join(pieces(t, text), "|"); got != want {
			t.Errorf("%.40q: %.60q", text, got)
		}
	}
	*size = 0
	if _, err := sdktest.Try(sdk.Splitter("split", split), nil); err == nil {
		t.Error("pieces of no bytes are made")
	}
}

// Whatever the text, each piece but the last ends with a blank line, and has no other place to be cut.
func TestRandom(t *testing.T) {
	defer func(n int64) { *size = n }(*size)
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var text strings.Builder
		for range r.IntN(300) {
			text.WriteString([]string{"word ", "\n", "\n\n", " "}[r.IntN(4)])
		}
		*size = 1 + r.Int64N(60)
		list := pieces(t, text.String())
		for i, p := range list {
			if i == len(list)-1 {
				break
			}
			lines := strings.Split(strings.TrimSuffix(p, "\n"), "\n")
			if int64(len(p)) < *size || !strings.HasSuffix(p, "\n") || strings.TrimSpace(lines[len(lines)-1]) != "" {
				t.Fatalf("piece %q of at least %d bytes", p, *size)
			}
		}
	}
}
