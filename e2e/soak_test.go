//go:build linux

package e2e

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// soakFor is how long TestSoak loads its nodes. From soakProof on, it also asks that nothing of a node grows.
//
//	go test ./e2e -run TestSoak -soak 10m -timeout 30m -v
var soakFor = flag.Duration("soak", 10*time.Second, "how long TestSoak loads its nodes")

const soakProof = 5 * time.Minute

// footprint is what a node takes at a moment.
type footprint struct {
	memory, heap, disk int64 // bytes
	goroutines, files  int
	parts              map[string]int64 // of the disk, by the folders of the store
}

func (f footprint) String() string {
	return fmt.Sprintf("%d MiB of memory, %d of them live or garbage, %d goroutines, %d open files, %d KiB on disk %v", f.memory>>20, f.heap>>20, f.goroutines, f.files, f.disk>>10, f.parts)
}

// footprint measures it.
func (n *Node) footprint(ctx context.Context) (f footprint, err error) {
	proc := filepath.Join("/proc", strconv.Itoa(n.cmd.Process.Pid))
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return f, err
	}
	_, rss, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(rss, &f.memory); err != nil {
		return f, err
	}
	f.memory <<= 10
	open, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return f, err
	}
	f.files = len(open)
	metrics, err := n.Metrics(ctx)
	if err != nil {
		return f, err
	}
	number := func(name string) (x float64) {
		_, text, _ := strings.Cut(string(metrics), "\n"+name+" ")
		if _, e := fmt.Sscan(text, &x); e != nil {
			err = fmt.Errorf("%s: %w", name, e)
		}
		return x
	}
	f.goroutines, f.heap = int(number("go_goroutines")), int64(number("go_memstats_heap_alloc_bytes"))
	if err != nil {
		return f, err
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
		memory: of(func(f footprint) int64 { return f.memory }), heap: of(func(f footprint) int64 { return f.heap }), disk: of(func(f footprint) int64 { return f.disk }),
		goroutines: int(of(func(f footprint) int64 { return int64(f.goroutines) })), files: int(of(func(f footprint) int64 { return int64(f.files) })),
	}
}

// load is who uses the nodes meanwhile. Whoever is refused, or loses the node that is asked, tries elsewhere; what is acknowledged counts.
type load struct {
	t    *testing.T
	c    *crew
	ctx  context.Context // ends with the load
	r    func(n int) int
	wg   sync.WaitGroup
	done [6]atomic.Int64 // by kind, for the log

	busy []sync.RWMutex // one for each node: commands that use it hold it, and who starts it again does; a command without a node has the home for itself
	away []atomic.Bool

	mu    sync.Mutex
	kept  map[string]string // contents by CID, that are pinned with three copies
	order []string          // of them, the oldest first
}

// any is some node, which may be down.
func (l *load) any() *Node { return l.c.node(l.r(len(l.c.nodes))) }

// grid runs a command on some node that is up, or was a moment ago.
func (l *load) grid(args ...string) Result {
	i := l.r(len(l.busy))
	for l.away[i].Load() {
		i = (i + 1) % len(l.busy)
	}
	l.busy[i].RLock()
	defer l.busy[i].RUnlock()
	return l.c.node(i).Grid(args...)
}

// every runs f again and again; it is told how often it was run.
func (l *load) every(f func(i int)) {
	l.wg.Go(func() {
		for i := 0; l.ctx.Err() == nil; i++ {
			f(i)
		}
	})
}

// ends waits for a job wherever it can be asked about, and looks at its answer.
func (l *load) ends(job, want string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	said := ""
	for ctx.Err() == nil {
		n := l.any()
		st, err := n.Job(ctx, grid.JobID(job))
		if err != nil || !st.State.Final() {
			said = fmt.Sprintf("%s, %v", st.State, err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		if st.State != grid.Done {
			l.t.Errorf("job %s is %s: %s", job, st.State, st.Error)
			return
		}
		var got []string
		if err := n.Tasks(ctx, grid.JobID(job), false, func(e grid.TaskEnd) error {
			got = append(got, string(e.Stdout.Data))
			return nil
		}); err != nil {
			said = err.Error()
			continue
		}
		slices.Sort(got)
		lines := strings.SplitAfter(want, "\n")
		lines = lines[:len(lines)-1]
		slices.Sort(lines)
		if !slices.Equal(got, lines) {
			l.t.Errorf("job %s has the answer %q, want %q", job, got, lines)
		}
		return
	}
	l.t.Errorf("job %s has not ended, or cannot be read: %s", job, said)
}

// TestSoak loads five nodes with everything at once, while some of them are killed or ended and started again: all that was acknowledged is there in the
// end, all answers are exact, nothing is stuck, and, if it is given long enough, the node that is never killed does not grow.
func TestSoak(t *testing.T) {
	t.Parallel()
	long(t)
	const size, keys, most, quota = 5, 200, 20, 32 << 20
	flags := []string{"--workers", "1", "--keep-jobs", "50", "--store-quota", strconv.Itoa(quota)} // little, so that both bounds are reached early
	c := newCrew(t, size, flags...)
	defer c.tell()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("GRID_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("GRID_SEED=%d", seed)
	var mu sync.Mutex
	dice := rand.New(rand.NewPCG(seed, 0))
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return dice.IntN(n)
	}
	module := guest(t, "burn")
	guest(t, "double")
	plugin, err := double("1.0.0", nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(c.w.dir, "double.wasm")
	if err := os.WriteFile(file, plugin, 0o600); err != nil {
		t.Fatal(err)
	}
	c.node(0).Must("plugin", "install", "-q", file)

	if *soakFor >= soakProof { // what is bounded is to be full early
		fill(t, c.node(0), file, 100<<20, quota)
	}
	ctx, stop := context.WithTimeout(t.Context(), *soakFor)
	defer stop()
	l := &load{t: t, c: c, ctx: ctx, r: roll, kept: make(map[string]string), busy: make([]sync.RWMutex, size), away: make([]atomic.Bool, size)}
	for range 2 { // jobs
		l.every(func(int) {
			tasks, rounds := 1+l.r(60), 100+l.r(3000)
			r := l.grid("run", module, "--count", strconv.Itoa(tasks), "--detach", "--", strconv.Itoa(rounds))
			if r.Exit != 0 {
				return
			}
			l.ends(strings.TrimSpace(r.Stdout), burned(tasks, rounds))
			l.done[0].Add(1)
		})
	}
	l.every(func(int) { // calls of a plugin
		x := l.r(1 << 20)
		if r := l.grid("call", "double.twice", strconv.Itoa(x)); r.Exit == 0 {
			if got := strings.TrimSpace(r.Stdout); got != strconv.Itoa(2*x) {
				t.Errorf("twice %d is %q", x, got)
			}
			l.done[1].Add(1)
		}
	})
	l.every(func(i int) { // files, of which the newest stay
		content := strings.Repeat(fmt.Sprintf("file %d of %d\n", i, seed), 1+l.r(20_000))
		name := filepath.Join(c.w.dir, "content")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Error(err)
			return
		}
		r := l.grid("add", "-q", "--replicas", "3", "--wait", name)
		if r.Exit != 0 {
			return
		}
		root := strings.TrimSpace(r.Stdout)
		l.mu.Lock()
		l.kept[root] = content
		l.order = append(l.order, root)
		l.mu.Unlock()
		l.done[2].Add(1)
		if len(l.order) > most {
			old := l.order[0]
			if r := l.grid("rm", old); r.Exit == 0 {
				l.mu.Lock()
				delete(l.kept, old)
				l.order = l.order[1:]
				l.mu.Unlock()
			}
		}
	})
	acked := make([]int, keys) // the newest number that was acknowledged for each key; they only grow
	l.every(func(i int) {
		one, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		value := fmt.Appendf(nil, "%d%*s", i, l.r(64<<10), "") // long enough for the ledger to come to its snapshots
		if _, err := l.any().KVPut(one, fmt.Sprintf("soak/%d", i%keys), value, api.KVCond{}); err == nil {
			acked[i%keys] = i
			l.done[3].Add(1)
		} else if one.Err() == nil {
			pause(one)
		}
	})
	l.every(func(int) { // those who look on, and go away
		one, cancel := context.WithTimeout(ctx, time.Duration(1+l.r(3000))*time.Millisecond)
		defer cancel()
		_ = l.any().KVWatch(one, "soak/", nil, func(api.KVChanges) error { l.done[4].Add(1); return nil })
		pause(one)
	})
	l.every(func(int) {
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		n := l.any()
		if jobs, err := n.Jobs(one); err == nil && len(jobs) > 0 {
			_ = n.RealmEvents(one, grid.EventQuery{Job: jobs[0].ID, Follow: true}, func(grid.RealmEvent) error { l.done[5].Add(1); return nil })
		} else {
			pause(one)
		}
	})

	// Node 0 is the one that is measured. Of the others one or two are away at a time.
	var prints []footprint
	began, kills := time.Now(), 0
	for ctx.Err() == nil {
		which := []int{1 + roll(size-1)}
		if other := 1 + roll(size-1); roll(4) == 0 && other != which[0] {
			which = append(which, other)
		}
		for _, i := range which {
			l.away[i].Store(true)
			if roll(3) == 0 {
				c.nodes[i].end()
			} else {
				c.kill(i)
			}
			kills++
		}
		select {
		case <-time.After(time.Duration(200+roll(3000)) * time.Millisecond):
		case <-ctx.Done():
		}
		for _, i := range which {
			l.busy[i].Lock()
			n := c.w.Up("n"+strconv.Itoa(i), flags...)
			c.mu.Lock()
			c.nodes[i] = n
			c.mu.Unlock()
			l.busy[i].Unlock()
			l.away[i].Store(false)
		}
		select {
		case <-time.After(time.Duration(1000+roll(6000)) * time.Millisecond):
		case <-ctx.Done():
		}
		f, err := c.node(0).footprint(t.Context())
		if err != nil {
			t.Errorf("measure: %v", err)
			continue
		}
		prints = append(prints, f)
		if len(prints)%10 == 1 {
			t.Logf("after %v: %v", time.Since(began).Round(time.Second), f)
		}
	}
	l.wg.Wait()
	t.Logf("in %v, with %d kills and ends: %d jobs, %d calls, %d files, %d writes, %d changes seen, %d events seen", time.Since(began).Round(time.Second), kills,
		l.done[0].Load(), l.done[1].Load(), l.done[2].Load(), l.done[3].Load(), l.done[4].Load(), l.done[5].Load())

	realmOf(t, size, c.nodes...)
	idle(t, c.nodes...)
	for key, want := range acked {
		e, err := c.node(1+key%(size-1)).KVGet(t.Context(), fmt.Sprintf("soak/%d", key), false)
		if got, bad := strconv.Atoi(strings.TrimSpace(string(e.Value))); want > 0 && (err != nil || bad != nil || got < want) {
			t.Errorf("key %d has %q, %v; %d was acknowledged", key, e.Value, err, want)
		}
	}
	for root, want := range l.kept {
		if got := c.node(roll(size)).Must("cat", root); got != want {
			t.Errorf("%s has %d bytes, want %d", root, len(got), len(want))
		}
	}
	if *soakFor < soakProof {
		return
	}
	quarter := len(prints) / 4
	// What docs/operations.md says of the disk, in KiB.
	bounds := map[string]int64{
		"blocks": 2 * quota >> 10,             // as much again while they are compacted
		"ledger": (64 + 32 + 16 + 3*24) << 10, // the log up to a snapshot, and behind it, and what of a segment has gone; two snapshots, and one that is being made
		"meta":   32 << 10,                    // 4 MiB of receipts, and the database's logs and what it has not merged
	}
	reached := make(map[string]int64)
	for i := range prints {
		f := &prints[i]
		for part, kib := range f.parts {
			if kib > bounds[part] {
				t.Errorf("store/%s has %d KiB, want at most %d", part, kib, bounds[part])
			}
			if i < 2*quarter {
				reached[part] = max(reached[part], kib)
			}
		}
		f.disk -= (f.parts["ledger"] + f.parts["meta"]) << 10 // the rest is to be flat once the quota is reached
	}
	t.Logf("of the bounds %v KiB there came to be in half of the time %v", bounds, reached)
	if reached["blocks"] < quota*8/10>>10 {
		t.Log("the quota of blocks was not reached by then: longer, or on a machine with less to do, this would tell more")
	}
	early, late := middle(prints[quarter:2*quarter]), middle(prints[3*quarter:])
	t.Logf("second quarter: %v", early)
	t.Logf("last quarter:   %v", late)
	for _, x := range []struct {
		what               string
		early, late, slack int64
	}{
		{"memory", early.memory, late.memory, 32 << 20},
		{"disk but for the ledger and meta", early.disk, late.disk, 8 << 20},
		{"goroutines", int64(early.goroutines), int64(late.goroutines), 100},
		{"open files", int64(early.files), int64(late.files), 50},
	} {
		if x.late > x.early+x.early/4+x.slack {
			t.Errorf("%s grows: from %d to %d", x.what, x.early, x.late)
		}
	}
}

// fill writes as many bytes to the ledger, over one value, and has the store of a node hold some that nothing needs any more.
func fill(t *testing.T, n *Node, file string, ledger, blocks int) {
	t.Helper()
	value := make([]byte, 1<<20-1<<10)
	for range ledger / len(value) {
		if _, err := n.KVPut(t.Context(), "fill", value, api.KVCond{}); err != nil {
			t.Fatal(err)
		}
	}
	noise := make([]byte, blocks/8)
	for i := range 7 {
		rand.NewChaCha8([32]byte{byte(i)}).Read(noise)
		if err := os.WriteFile(file, noise, 0o600); err != nil {
			t.Fatal(err)
		}
		n.Must("rm", strings.TrimSpace(n.Must("add", "-q", "--replicas", "1", file)))
	}
}

// pause lets somebody else have a turn.
func pause(ctx context.Context) {
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
	}
}
