//go:build unix

package cli

import (
	"strings"
	"syscall"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestAddSpecial(t *testing.T) {
	files(t, map[string]string{"d/x": "hello"})
	f := newFake(t)
	without := f.grid("add", "-q", "d").out
	if err := syscall.Mkfifo("d/pipe", 0o600); err != nil {
		t.Skip(err)
	}
	if r := f.grid("add", "d"); r.exit != exitOf(grid.Unsupported) || !strings.Contains(r.err, "d/pipe") {
		t.Errorf("%+v", r)
	}
	if r := f.grid("add", "-q", "--skip-special", "d"); r.out != without {
		t.Errorf("%+v, want %s", r, without)
	}
}
