package cli

import (
	"encoding/json"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestStore(t *testing.T) {
	f := newFake(t)
	found, lost := f.blob("found"), f.blob("lost")
	for _, tt := range []struct {
		args     []string
		damaged  []grid.DamagedBlock
		exit     int
		out, err []string
	}{
		{args: []string{"stat"}, out: []string{"on disk", "3.0 MiB of 12.0 MiB (25%)", "2.0 MiB in 20 blocks", "1.0 MiB in 1 block", "in 19 blocks"}},
		{args: []string{"gc"}, out: []string{"2 blocks, 2.0 KiB, deleted; 1 block, 1.0 KiB, stay; the disk got 4.0 KiB back"}},
		{args: []string{"gc", "--dry-run"}, out: []string{"2 blocks, 2.0 KiB, would be deleted; 1 block, 1.0 KiB, stay"}},
		{args: []string{"verify"}, err: []string{"7 blocks, 7.0 KiB, read in"}},
		{args: []string{"verify"}, damaged: []grid.DamagedBlock{{CID: found}}, exit: 1,
			out: []string{"damaged  " + found.String()}, err: []string{"1 block damaged", "--repair"}},
		{args: []string{"verify", "--repair"}, damaged: []grid.DamagedBlock{{CID: found}}, out: []string{"repaired  " + found.String()}},
		{args: []string{"repair"}, damaged: []grid.DamagedBlock{{CID: found}, {CID: lost, Error: "nobody has it"}}, exit: 1,
			out: []string{"repaired  " + found.String(), "lost      " + lost.String(), "nobody has it"}, err: []string{"1 block damaged", "add the data again"}},
		{args: []string{"verify", "all"}, exit: exitUsage, err: []string{"one argument too many"}},
		{args: []string{"clean"}, exit: exitUsage, err: []string{`no command "clean"`}},
	} {
		f.damaged = tt.damaged
		r := f.grid(append([]string{"store"}, tt.args...)...)
		if r.exit != tt.exit || len(tt.out) == 0 && r.out != "" {
			t.Errorf("grid store %v: exit code %d, want %d\n%s%s", tt.args, r.exit, tt.exit, r.out, r.err)
		}
		wantIn(t, "stdout", r.out, tt.out...)
		wantIn(t, "stderr", r.err, tt.err...)
	}
	f.damaged = []grid.DamagedBlock{{CID: lost}}
	for verb, into := range map[string]any{"stat": new(grid.StoreUse), "gc": new(grid.Collected), "verify": new(grid.Verified), "repair": new(grid.Verified)} {
		r := f.grid("store", verb, "--json")
		if err := json.Unmarshal([]byte(r.out), into); err != nil {
			t.Errorf("grid store %s --json: %v\n%s", verb, err, r.out)
		}
	}
}
