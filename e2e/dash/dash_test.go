package dash

import (
	"testing"

	"github.com/wasmgrid/wasmgrid/e2e"
)

func TestPages(t *testing.T) {
	w := e2e.NewWorld(t)
	n := w.Up("a")
	p := Open(t, n)
	p.Shots("overview")
}
