package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestMeasuredLine(t *testing.T) {
	for _, c := range []struct {
		m    grid.Measured
		want string
	}{
		{grid.Measured{Name: "hash", Does: "sha2-256", Value: 512 << 20, Unit: "bytes/s"}, "hash            512.0 MiB/s  sha2-256"},
		{grid.Measured{Name: "ledger-commit", Value: .002, Unit: "s", Limit: .001, Ratio: .5, Against: "a sync"}, "ledger-commit           2ms   50% of 1ms: a sync"},
		{grid.Measured{Name: "peer-trip", Value: 1e-6, Unit: "s", Peer: "12D\x1b[2J", Note: "by tcp"}, `peer-trip               1µs   (by tcp), 12D\x1b[2J`},
		{grid.Measured{Name: "peer-speed", Error: "gone\x07"}, `peer-speed     could not be measured: gone\a`},
	} {
		if got := measuredLine(&c.m); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// What was measured before is read from a file, and nonsense refused by what is wrong with it.
func TestTuneFrom(t *testing.T) {
	f := newFake(t)
	name := filepath.Join(t.TempDir(), "bench.json")
	file := func(text string) string {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	r := f.grid("tune", "--from", file(`[{"name":"cores","does":"x","value":4,"unit":"cores"},{"name":"workers","does":"x","value":9,"unit":"tasks"},{"name":"task-memory","does":"x","value":9e9,"unit":"bytes"}]`))
	if r.exit != 0 || !strings.Contains(r.out, "\ngrid up --workers=4\n") {
		t.Errorf("%+v", r)
	}
	for _, text := range []string{"", "{}", "[1]", `[{"nam":"cores"}]`, strings.Repeat(" ", maxBench+1)} {
		if r := f.grid("tune", "--from", file(text)); r.exit == 0 || !strings.Contains(r.err, "bench.json") {
			t.Errorf("%.40q: %+v", text, r)
		}
	}
}

// What is suggested is written to the home's file, with its comments, and never over what somebody has set without being told to.
func TestTuneApply(t *testing.T) {
	const measured = `[{"name":"cores","does":"x","value":4,"unit":"cores"},{"name":"workers","does":"x","value":9,"unit":"tasks"},{"name":"memory","does":"x","value":17179869184,"unit":"bytes"},{"name":"task-memory","does":"x","value":16e9,"unit":"bytes"}]`
	const mine = "# of the lab\nup:\n  zone: a # here\n"
	p := newDesk(t)
	bench := p.write("bench.json", measured)
	run := func(exit int, want string, args ...string) {
		t.Helper()
		r := p.grid("", append([]string{"tune", "--from", bench}, args...)...)
		if r.exit != exit {
			t.Errorf("%q: exit %d, want %d", args, r.exit, exit)
		}
		wantIn(t, strings.Join(args, " "), r.err, want)
	}
	holds := func(want ...string) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(p.dir, homeFile))
		if err != nil {
			t.Fatal(err)
		}
		wantIn(t, "the file", string(text), want...)
	}
	p.write(homeFile, mine)
	run(0, "")
	holds(mine) // as it was
	run(exitUsage, "--force is for --apply", "--force")

	p.vars["GRID_UP_WORKERS"] = "9"
	run(68, "up.workers is 9 by $GRID_UP_WORKERS", "--apply", "--force")
	delete(p.vars, "GRID_UP_WORKERS")
	p.write(userFile, "up:\n  workers: 9\n")
	run(68, "up.workers is 9 by "+filepath.Join(p.dir, userFile)+":2", "--apply")
	holds(mine) // all of it or nothing

	run(0, "up.workers: 4, was 9, up.task-memory: 12GiB; the next start", "--apply", "--force")
	holds("# of the lab", "zone: a # here", "workers: 4", "task-memory: 12GiB")
	run(0, "the settings say so already", "--apply", "--json")

	p.vars["GRID_API"] = testKey(t)
	run(67, "is about a home on this machine", "--apply")
}
