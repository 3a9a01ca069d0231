//go:build linux

package e2e

import (
	"context"
	"fmt"
	"maps"
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
	"github.com/wasmgrid/wasmgrid/grid/gridtest/histories"
)

// copies is how many nodes keep each file.
const copies = 3

// load is who uses the nodes of a crew meanwhile. Whoever is refused, or loses the node that is asked, tries elsewhere; what is acknowledged counts.
type load struct {
	*crew
	ctx  context.Context // ends with the load
	wg   sync.WaitGroup
	done struct{ jobs, calls, files, reads, changes, events atomic.Int64 } // for the log

	// One for each node: commands that use it hold it, and who starts it again does. A command without a node has the home for itself.
	busy []sync.RWMutex
	away []atomic.Bool

	mu   sync.Mutex
	dice *rand.Rand
	kept map[string]string // contents by CID, that are pinned
	gone []string          // CIDs whose pins are to be taken back; of who adds files alone
}

// newLoad begins one that ends with ctx.
func newLoad(ctx context.Context, c *crew, seed uint64) *load {
	c.t.Helper()
	l := &load{crew: c, ctx: ctx, dice: rand.New(rand.NewPCG(seed, 2)), kept: make(map[string]string),
		busy: make([]sync.RWMutex, len(c.nodes)), away: make([]atomic.Bool, len(c.nodes))}
	module := guest(c.t, "burn")
	guest(c.t, "double")
	plugin, err := double("1.0.0", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	file := filepath.Join(c.w.dir, "double.wasm")
	save(c.t, file, plugin)
	c.node(0).Must("plugin", "install", "-q", file)
	for range 2 {
		l.every(func(i int) { l.job(module, i) })
	}
	l.every(func(int) { l.call() })
	l.every(func(i int) { l.file(fmt.Sprintf("file %d of %d\n", i, seed)) })
	l.every(func(int) { l.read() })
	l.every(func(int) { l.watch() })
	l.every(func(int) { l.follow() })
	return l
}

// roll draws a number below n.
func (l *load) roll(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dice.IntN(n)
}

// any is some node, which may be down.
func (l *load) any() *Node { return l.node(l.roll(len(l.nodes))) }

// grid runs a command on some node that is up, or was a moment ago.
func (l *load) grid(args ...string) Result {
	i := l.roll(len(l.busy))
	for l.away[i].Load() {
		if i = (i + 1) % len(l.busy); l.ctx.Err() != nil {
			return Result{Exit: -1}
		}
		pause(l.ctx, 10*time.Millisecond)
	}
	l.busy[i].RLock()
	defer l.busy[i].RUnlock()
	return l.node(i).Grid(args...)
}

// every runs f again and again; it is told how often it was run.
func (l *load) every(f func(i int)) {
	l.wg.Go(func() {
		for i := 0; l.ctx.Err() == nil; i++ {
			f(i)
		}
	})
}

// job has one end, wherever its nodes go: each fourth is a long one.
func (l *load) job(module string, i int) {
	tasks, rounds := 1+l.roll(60), 100+l.roll(10_000)
	if i%4 == 3 {
		tasks = 300
	}
	if r := l.grid("run", module, "--count", strconv.Itoa(tasks), "--detach", "--", strconv.Itoa(rounds)); r.Exit == 0 {
		l.ends(strings.TrimSpace(r.Stdout), burned(tasks, rounds))
		l.done.jobs.Add(1)
	} else {
		pause(l.ctx, 50*time.Millisecond)
	}
}

// ends waits for a job wherever it can be asked about, and looks at its answer.
func (l *load) ends(job, want string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	said := ""
	for ; ctx.Err() == nil; pause(ctx, 50*time.Millisecond) {
		st, got, err := l.answer(ctx, grid.JobID(job))
		switch {
		case err != nil || !st.State.Final():
			said = fmt.Sprintf("%s, %v", st.State, err)
			continue
		case st.State != grid.Done:
			l.t.Errorf("job %s is %s: %s", job, st.State, st.Error)
		case got != want:
			l.t.Errorf("job %s has the answer %q, want %q", job, got, want)
		}
		return
	}
	l.t.Errorf("job %s has not ended, or cannot be read: %s", job, said)
}

// answer asks a node about a job: its outputs in order, once it is done.
func (l *load) answer(ctx context.Context, job grid.JobID) (st grid.JobStatus, got string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second) // the node may stand still
	defer cancel()
	n := l.any()
	if st, err = n.Job(ctx, job); err != nil || st.State != grid.Done {
		return st, "", err
	}
	out := make(map[uint32]string)
	err = n.Tasks(ctx, job, false, func(e grid.TaskEnd) error {
		out[e.Index] += string(e.Stdout.Data) // told twice, it is wrong
		return nil
	})
	for _, i := range slices.Sorted(maps.Keys(out)) {
		got += out[i]
	}
	return st, got, err
}

// call calls a plugin.
func (l *load) call() {
	x := l.roll(1 << 20)
	if r := l.grid("call", "double.twice", strconv.Itoa(x)); r.Exit == 0 {
		if got := strings.TrimSpace(r.Stdout); got != strconv.Itoa(2*x) {
			l.t.Errorf("twice %d is %q", x, got)
		}
		l.done.calls.Add(1)
	}
}

// file adds one, and takes one back when there are enough.
func (l *load) file(line string) {
	const most = 20
	content := strings.Repeat(line, 1+l.roll(20_000))
	name := filepath.Join(l.w.dir, "content")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		l.t.Error(err)
		return
	}
	r := l.grid("add", "-q", "--replicas", strconv.Itoa(copies), "--wait", name)
	if r.Exit != 0 {
		pause(l.ctx, 50*time.Millisecond)
		return
	}
	l.done.files.Add(1)
	l.mu.Lock()
	if len(l.kept) >= most {
		for old := range l.kept {
			delete(l.kept, old)
			l.gone = append(l.gone, old) // from here on it may be there or not
			break
		}
	}
	l.kept[strings.TrimSpace(r.Stdout)] = content
	l.mu.Unlock()
	l.gone = slices.DeleteFunc(l.gone, func(old string) bool { // the rest next time, or pins pile up
		exit := l.grid("rm", old).Exit
		return exit == 0 || exit == 66 // the answer was lost
	})
}

// files is what is pinned at the moment.
func (l *load) files() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.kept)
}

// read reads a file where it may not be.
func (l *load) read() {
	pause(l.ctx, 200*time.Millisecond)
	for root, want := range l.files() {
		if r := l.grid("cat", root); r.Exit == 0 {
			if r.Stdout != want {
				l.t.Errorf("%s has %d bytes that are not the %d that were added", root, len(r.Stdout), len(want))
			}
			l.done.reads.Add(1)
		}
		return
	}
}

// watch looks on for a while, and goes away.
func (l *load) watch() {
	one, cancel := context.WithTimeout(l.ctx, time.Duration(1+l.roll(3000))*time.Millisecond)
	defer cancel()
	_ = l.any().KVWatch(one, "", nil, func(api.KVChanges) error { l.done.changes.Add(1); return nil })
	pause(one, 50*time.Millisecond)
}

// follow does so with the events of a job.
func (l *load) follow() {
	one, cancel := context.WithTimeout(l.ctx, 5*time.Second)
	defer cancel()
	n := l.any()
	if jobs, err := n.Jobs(one); err == nil && len(jobs) > 0 {
		_ = n.RealmEvents(one, grid.EventQuery{Job: jobs[0].ID, Follow: true}, func(grid.RealmEvent) error { l.done.events.Add(1); return nil })
	} else {
		pause(one, 50*time.Millisecond)
	}
}

// history has clients use the ledger until what it returns is called, which holds the ledger to its word. The nodes are well at both times.
func (l *load) history(seed uint64, prefix string) (check func()) {
	l.t.Helper()
	h := histories.New()
	plain := func(i int) grid.Ledger { return &userKeys{c: l.crew, i: i} }
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var all *histories.All
	before, err := plain(0).Range(ctx, grid.Query{Prefix: prefix})
	if err == nil {
		all, err = histories.NewAll(ctx, h.Client(plain(0)), prefix)
	}
	if err != nil {
		l.t.Fatalf("the ledger does not answer, although all nodes are well: %v", err)
	}
	watched := histories.Watch(l.t, plain(0), all.Prefix, before.Revision)
	var lines []grid.Ledger
	for i := range l.nodes {
		lines = append(lines, h.Client(plain(i)))
	}
	on, end := context.WithCancel(l.ctx)
	done := make(chan struct{})
	l.wg.Go(func() {
		defer close(done)
		histories.Run(l.t, seed, lines, all.Steps(), 1<<30, 100*time.Millisecond, 3*time.Second, on.Done())
	})
	return func() {
		l.t.Helper()
		end()
		<-done
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		log := all.End(ctx, l.t, h.Client(plain(0)), watched)
		h.Replay(l.t, log)
		h.Linearizable(l.t)
		known, unknown := h.Calls()
		l.t.Logf("the history of %s is checked: %d calls, and %d without an answer; %d transactions", prefix, known, unknown, len(log))
	}
}

func (l *load) String() string {
	d := &l.done
	return fmt.Sprintf("%d jobs, %d calls, %d files, %d reads of them, %d changes seen, %d events seen",
		d.jobs.Load(), d.calls.Load(), d.files.Load(), d.reads.Load(), d.changes.Load(), d.events.Load())
}

// check looks at what must be there in the end, when all nodes are well: each file whole on as many nodes as promised, and to be read from all.
func (l *load) check() {
	l.t.Helper()
	for root, want := range l.files() {
		link, err := grid.ParseLink(root)
		if err != nil {
			l.t.Errorf("%q was printed as a CID: %v", root, err)
			continue
		}
		Eventually(l.t, "there are all copies of "+root, func(ctx context.Context) error {
			st, err := l.node(0).PinStatus(ctx, link.Cid, true)
			if err == nil && (st.Health != grid.Healthy || st.Durable() < copies) {
				err = fmt.Errorf("%s: %+v, %s", st.Health, st.Copies, st.Note)
			}
			return err
		})
		for _, n := range l.nodes {
			if got := n.Must("cat", root); got != want {
				l.t.Errorf("%s has %d bytes at %s, want %d", root, len(got), n.Home, len(want))
			}
		}
	}
}

// pause waits, or until ctx has ended.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// rest waits until nodes are as idle as when they were fresh: no task, job or session is left over, and they do not take more than they did, but for
// what they have more to keep.
func rest(t testing.TB, fresh []footprint, nodes ...*Node) {
	t.Helper()
	for i, n := range nodes {
		Eventually(t, n.Home+" is at rest", func(ctx context.Context) error {
			st, err := n.Node(ctx)
			if err != nil {
				return err
			}
			if st.Load.Running > 0 || st.Load.Queued > 0 || st.Load.Parked > 0 || st.Jobs > 0 {
				return fmt.Errorf("%+v, %d jobs", st.Load, st.Jobs)
			}
			now, err := n.footprint(ctx)
			if err != nil {
				return err
			}
			if now.sessions != len(nodes) {
				return fmt.Errorf("the ledger has %d sessions, of %d nodes", now.sessions, len(nodes))
			}
			return fresh[i].grown(now, false)
		})
	}
}
