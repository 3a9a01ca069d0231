//go:build linux

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/e2e/bench/work"
	"github.com/wasmgrid/wasmgrid/e2e/chaos"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// soakFor is how long TestSoak loads its nodes. From soakProof on, it also asks that nothing of a node grows.
//
//	go test ./e2e -run TestSoak -soak 10m -timeout 30m -v
var soakFor = flag.Duration("soak", 0, "how long TestSoak loads its nodes; 0 leaves it out")

const soakProof = 5 * time.Minute

// footprint is what a node takes at a moment.
type footprint struct {
	memory, heap, disk int64 // bytes
	goroutines, files  int
	sessions           int              // in the ledger, as the node sees it
	parts              map[string]int64 // of the disk, by the folders of the store
}

func (f footprint) String() string {
	return fmt.Sprintf("%d MiB of memory, %d of them live or garbage, %d goroutines, %d open files, %d KiB on disk %v",
		f.memory>>20, f.heap>>20, f.goroutines, f.files, f.disk>>10, f.parts)
}

// footprint measures it.
func (n *Node) footprint(ctx context.Context) (f footprint, err error) {
	pid := n.cmd.Process.Pid
	if f.memory, err = work.Memory(pid); err != nil {
		return f, err
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return f, err
	}
	f.files = len(open)
	for name, to := range map[string]func(x float64){
		"go_goroutines":                func(x float64) { f.goroutines = int(x) },
		"go_memstats_heap_alloc_bytes": func(x float64) { f.heap = int64(x) },
		"grid_ledger_sessions":         func(x float64) { f.sessions = int(x) },
	} {
		x, err := n.gauge(ctx, name)
		if err != nil {
			return f, err
		}
		to(x)
	}
	f.parts = make(map[string]int64)
	_ = filepath.WalkDir(n.Home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				f.disk += info.Size()
				if rest, ok := strings.CutPrefix(path, filepath.Join(n.Home, "store")+"/"); ok {
					part, _, _ := strings.Cut(rest, "/")
					f.parts[part] += info.Size() >> 10
				}
			}
		}
		return nil // files come and go
	})
	return f, nil
}

// gauge is what the node says of a metric without labels.
func (n *Node) gauge(ctx context.Context, name string) (x float64, err error) {
	metrics, err := n.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	_, text, _ := strings.Cut(string(metrics), "\n"+name+" ")
	if _, err := fmt.Sscan(text, &x); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return x, nil
}

// grown tells what a node takes that is clearly more than it was; of what may be kept, memory and disk, only if everything is meant. What the
// folders of the ledger and of small things take goes up and down below their bounds, and is not compared.
func (f footprint) grown(now footprint, everything bool) error {
	var errs []error
	for _, x := range []struct {
		what               string
		early, late, slack int64
		kept               bool
	}{
		{"memory", f.memory, now.memory, 32 << 20, true},
		{"disk", f.flat(), now.flat(), 8 << 20, true},
		{"goroutines", int64(f.goroutines), int64(now.goroutines), 100, false},
		{"open files", int64(f.files), int64(now.files), 50, false},
	} {
		if (everything || !x.kept) && x.late > x.early+x.early/4+x.slack {
			errs = append(errs, fmt.Errorf("%s have grown from %d to %d", x.what, x.early, x.late))
		}
	}
	return errors.Join(errs...)
}

// flat is what a node takes of the disk, in bytes, but for what goes up and down.
func (f footprint) flat() int64 { return f.disk - (f.parts["ledger"]+f.parts["meta"])<<10 }

// middle is the median of each number by itself.
func middle(fs []footprint) footprint {
	of := func(get func(footprint) int64) int64 {
		var all []int64
		for _, f := range fs {
			all = append(all, get(f))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return footprint{
		parts: map[string]int64{
			"ledger": of(func(f footprint) int64 { return f.parts["ledger"] }), "meta": of(func(f footprint) int64 { return f.parts["meta"] }),
			"blocks": of(func(f footprint) int64 { return f.parts["blocks"] }),
		},
		memory:     of(func(f footprint) int64 { return f.memory }),
		heap:       of(func(f footprint) int64 { return f.heap }),
		disk:       of(func(f footprint) int64 { return f.disk }),
		goroutines: int(of(func(f footprint) int64 { return int64(f.goroutines) })), files: int(of(func(f footprint) int64 { return int64(f.files) })),
	}
}

// TestSoak is TestChaos with nodes that are only killed or ended, and one that never is: long enough, and that one does not grow.
func TestSoak(t *testing.T) {
	if *soakFor == 0 {
		t.Skip("takes as long as it is given; -soak was not")
	}
	t.Parallel()
	var prints []footprint
	began := time.Now()
	s := &storm{size: 5, spared: 1, kinds: []chaos.Kind{chaos.Kill, chaos.End}, length: *soakFor}
	if *soakFor >= soakProof { // what is bounded is to be full early
		s.before = func() { fill(t, s.node(0), 100<<20, stormQuota) }
	}
	s.after = func() {
		f, err := s.node(0).footprint(t.Context())
		if err != nil {
			t.Errorf("measure: %v", err)
			return
		}
		if prints = append(prints, f); len(prints)%10 == 1 {
			t.Logf("after %v: %v", time.Since(began).Round(time.Second), f)
		}
	}
	s.run(t)
	if *soakFor < soakProof {
		return
	}
	quarter := len(prints) / 4
	// What docs/operations.md says of the disk, in KiB.
	bounds := map[string]int64{
		"blocks": 2 * stormQuota >> 10,        // as much again while they are compacted
		"ledger": (64 + 32 + 16 + 3*24) << 10, // the log up to a snapshot, and behind it, and what of a segment has gone; two snapshots, and one that is being made
		"meta":   36 << 10,                    // 8 MiB of receipts, and the database's logs and what it has not merged
	}
	reached := make(map[string]int64)
	for i, f := range prints {
		for part, kib := range f.parts {
			if kib > bounds[part] {
				t.Errorf("store/%s has %d KiB, want at most %d", part, kib, bounds[part])
			}
			if i < 2*quarter {
				reached[part] = max(reached[part], kib)
			}
		}
	}
	t.Logf("of the bounds %v KiB there came to be in half of the time %v", bounds, reached)
	if reached["blocks"] < stormQuota*8/10>>10 {
		t.Log("the quota of blocks was not reached by then: longer, or on a machine with less to do, this would tell more")
	}
	early, late := middle(prints[quarter:2*quarter]), middle(prints[3*quarter:])
	t.Logf("second quarter: %v", early)
	t.Logf("last quarter:   %v", late)
	if err := early.grown(late, true); err != nil {
		t.Error(err)
	}
}

// fill writes as many bytes to the ledger, over one value, and has the store of a node hold some that nothing needs any more.
func fill(t *testing.T, n *Node, ledger, blocks int) {
	t.Helper()
	value := make([]byte, 1<<20-1<<10)
	for range ledger / len(value) {
		if _, err := n.KVPut(t.Context(), "fill", value, api.KVCond{}); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "noise")
	noise := make([]byte, blocks/8)
	for i := range 7 {
		rand.NewChaCha8([32]byte{byte(i)}).Read(noise)
		if err := os.WriteFile(file, noise, 0o600); err != nil {
			t.Fatal(err)
		}
		n.Must("rm", strings.TrimSpace(n.Must("add", "-q", "--replicas", "1", file)))
	}
}
