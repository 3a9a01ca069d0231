package cli

import (
	"slices"
	"testing"
)

func TestTopmost(t *testing.T) {
	got := topmost([]string{".gitignore", "cases/count/stdin", "cases/count/stdout", "main.go"})
	if want := []string{".gitignore", "cases/", "main.go"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
