package cli

import (
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestPinVerbs(t *testing.T) {
	files(t, map[string]string{"x.txt": "hello", "y.txt": "you"})
	f := newFake(t)
	r := f.grid("add", "-q", "--replicas", "3", "--wait", "x.txt")
	if r.exit != 0 || len(f.pins) != 1 || f.pins[0].Replicas != 3 || len(f.pins[0].Copies) != 3 || f.pins[0].Name != "x.txt" {
		t.Fatalf("%+v, %+v", r, f.pins)
	}
	root := strings.TrimSpace(r.out)
	for _, tt := range []struct {
		args     string
		exit     int
		out, err string // what they contain
	}{
		{"add --replicas 2 y.txt", 0, "y.txt", "1 of 2 copies are durable"},
		{"add --no-pin y.txt", 0, "y.txt", ""},
		{"pin ls", 0, "3/3", ""},
		{"pin ls --json", 0, `"health": "ok"`, ""},
		{"pin status " + root, 0, "durable", ""},
		{"pin status " + root + "/x", exitOf(grid.Invalid), "", "only whole pins"},
		{"pin add --ec 4+2 " + root, 0, root, ""},
		{"pin add --ec 4 " + root, exitOf(grid.Invalid), "", "4+2"},
		{"pin add --ec 40+2 " + root, exitOf(grid.Invalid), "", "at most 32"},
		{"pin add --replicas 2 --ec 4+2 " + root, exitOf(grid.Invalid), "", "choose one"},
		{"pin add", exitUsage, "", "CID"},
		{"pin frob", exitUsage, "", "no command"},
		{"rm " + root + "/x.txt", exitOf(grid.Invalid), "", "only whole pins"},
		{"rm " + root, 0, "", ""},
		{"pin rm " + root, exitOf(grid.NotFound), "", "no such pin"},
		{"pin status " + root, exitOf(grid.NotFound), "", "no such pin"},
		{"node drain", 0, "", "nothing is kept here"},
	} {
		f.drain.Left = 3
		r := f.grid(strings.Fields(tt.args)...)
		if r.exit != tt.exit || !strings.Contains(r.out, tt.out) || !strings.Contains(r.err, tt.err) {
			t.Errorf("%s: %+v", tt.args, r)
		}
	}
}
