package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestFamiliar: words of other tools are no commands here, and lead to some that are.
func TestFamiliar(t *testing.T) {
	root := Command()
	for word, names := range familiar {
		if c, _, err := root.Find([]string{word}); err == nil && c != root {
			t.Errorf("%s is a command", word)
		}
		for _, name := range names {
			if c, rest, err := root.Find(strings.Fields(name)); err != nil || c == root || len(rest) > 0 {
				t.Errorf("%s: there is no command %s", word, name)
			}
		}
	}
}

func TestNodeLs(t *testing.T) {
	f := newFake(t)
	f.pulses = []grid.Pulse{
		{Node: "12D3KooWone", State: grid.PulseUp, Version: "0.1.0", Started: time.Now().Add(-time.Hour), Leader: true, Load: grid.Load{Running: 1, Slots: 4}, Memory: 3 << 20},
		{Node: "12D3KooWtwo", State: grid.PulseSilent},
	}
	r := f.grid("node", "ls")
	wantIn(t, "the list", r.out, "12D3KooWone *", "1/4", "3.0 MiB", "silent")
	if strings.Contains(r.out, "ZONE") {
		t.Errorf("a column that nobody has anything for:\n%s", r.out)
	}
	if strings.Contains(r.out, "0/0") {
		t.Errorf("a node that was never heard has slots:\n%s", r.out)
	}
	if r = f.grid("node", "ls", "-o", "template={{range .}}{{.node}}{{end}}"); !strings.Contains(r.err, "each of the list") {
		t.Errorf("%d, %s", r.exit, r.err)
	}
	if r = f.grid("node", "ls", "-q"); r.out != "12D3KooWone\n12D3KooWtwo\n" {
		t.Errorf("%q %s", r.out, r.err)
	}
}
