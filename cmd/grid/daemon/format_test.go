package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestFormat(t *testing.T) {
	home := t.TempDir()
	name := filepath.Join(home, formatFile)
	w, err := checkFormat(home)
	if err != nil || w != (written{}) {
		t.Fatalf("a new home: %+v, %v", w, err)
	}
	for range 2 {
		if err := noteFormat(home, w); err != nil {
			t.Fatal(err)
		}
		if w, err = checkFormat(home); err != nil || w != (written{homeFormat, grid.Version}) {
			t.Fatalf("noted: %+v, %v", w, err)
		}
	}
	for text, want := range map[string]grid.Code{
		`{"format": 1, "version": "0.0.9", "more": true}`: 0,
		`{"format": 2, "version": "9.0.0"}`:               grid.Unsupported,
		`{"format": 0}`:                                   grid.Corrupt,
		`{}`:                                              grid.Corrupt,
		"":                                                grid.Corrupt,
		`{"format": 1` + strings.Repeat(" ", maxFormatFile) + `}`: grid.Corrupt,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := checkFormat(home); grid.CodeOf(err) != want && (want != 0 || err != nil) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}
