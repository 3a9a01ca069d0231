package cli

import (
	"strings"
	"testing"
)

// What is wrong with a command line is said before any node is asked.
func TestLedgerUsage(t *testing.T) {
	f := newFake(t)
	for _, tt := range []struct {
		args string
		exit int
		err  string
	}{
		{"kv frob", exitUsage, "no command"},
		{"kv put a", exitUsage, "want a VALUE"},
		{"kv put a b --file c", exitUsage, "want a VALUE"},
		{"kv put a b --if-version 0", exitUsage, "no entry has that"},
		{"kv put a b --if-version 1 --if-absent", exitUsage, "exclude"},
		{"kv put a --file missing", 66, "missing"},
		{"kv del a --if-version 0", exitUsage, "no entry has that"},
		{"kv ls --limit -1", exitUsage, "negative"},
		{"kv txn missing", 66, "missing"},
		{"ref set a", exitUsage, "is missing"},
		{"ref set a b --if x --if-absent", exitUsage, "exclude"},
		{"ref get a//b", 67, "not a name for a ref"},
		{"ledger remove nobody", 67, "not the ID of a node"},
		{"run x --publish a//b", 67, "not a name for a ref"},
	} {
		r := f.grid(strings.Fields(tt.args)...)
		if r.exit != tt.exit || !strings.Contains(r.err, tt.err) || r.out != "" {
			t.Errorf("%s: %+v", tt.args, r)
		}
	}
}

func TestRunPublishes(t *testing.T) {
	files(t, map[string]string{"m.wasm": "\x00asm"})
	f := newFake(t)
	if r := f.grid("run", "m.wasm", "--publish", "a/b", "--publish", "c"); r.exit != 0 || strings.Join(f.request().Publish, " ") != "a/b c" {
		t.Errorf("%+v, %v", r, f.request().Publish)
	}
}
