package daemon

import (
	"errors"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Each thing is measured once, nothing is left behind, and who hears enough ends it.
func TestBench(t *testing.T) {
	d, err := Open(t.Context(), Config{Home: shortDir(t), Embedded: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c := d.Client()
	seen := map[string]grid.Measured{}
	err = c.Bench(t.Context(), true, func(m grid.Measured) error {
		if _, twice := seen[m.Name]; twice || m.Error != "" || m.Value < 0 || m.Does == "" || m.Unit == "" || (m.Limit > 0) != (m.Ratio > 0) || (m.Limit > 0) != (m.Against != "") {
			t.Errorf("%+v", m)
		}
		seen[m.Name] = m
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cores", "memory", "workers", "hash", "disk-write", "disk-read", "disk-sync", "block-write", "block-read", "ledger-commit", "sandbox", "tasks"} {
		if seen[name].Value <= 0 {
			t.Errorf("%s: %+v", name, seen[name])
		}
	}
	if jobs, err := c.Jobs(t.Context()); err != nil || len(jobs) > 0 {
		t.Errorf("jobs are left: %v, %v", jobs, err)
	}
	if u, err := c.StoreUse(t.Context()); err != nil || u.Live > 8<<20 || u.Pinned > 0 { // what the job came to goes when room is needed
		t.Errorf("blocks are left: %+v, %v", u, err)
	}
	enough := errors.New("enough")
	if err := d.bench(t.Context(), true, func(grid.Measured) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
}
