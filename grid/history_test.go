package grid_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

type pinRest interface{ grid.Pins }

// pinNames is a pin set of which only the names matter.
type pinNames struct {
	pinRest
	mu    sync.Mutex
	names map[cid.Cid]string
	err   error
}

func (p *pinNames) Pin(_ context.Context, pin grid.Pin) (grid.PinStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names[pin.Root.Cid] = pin.Name
	return grid.PinStatus{Pin: pin}, nil
}

func (p *pinNames) Unpin(_ context.Context, root cid.Cid) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.names, root)
	return p.err
}

func (p *pinNames) Status(_ context.Context, root cid.Cid, _ bool) (grid.PinStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name, ok := p.names[root]
	if !ok {
		return grid.PinStatus{}, grid.Errorf(grid.NotFound, "no pin %s", root)
	}
	return grid.PinStatus{Pin: grid.Pin{Root: grid.Link{Cid: root}, Name: name}}, nil
}

func (p *pinNames) has(l grid.Link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.names[l.Cid]
	return ok
}

func historyLink(words ...any) grid.Link {
	return grid.Link{Cid: grid.NewBlock(cid.Raw, []byte(fmt.Sprint(words...))).CID()}
}

// pastJob is a job that ended so many hours after a certain moment.
func pastJob(i int, spec, result string) grid.Record {
	rec := grid.Record{
		ID: grid.JobID(fmt.Sprintf("jaaaaaaaaaaaaaaaaaaaaa%c%c%c%c", 'a'+i/26/26/26, 'a'+i/26/26%26, 'a'+i/26%26, 'a'+i%26)), Epoch: 1, Owner: pastOwner,
		Spec: historyLink(spec), State: grid.Done, Ended: pastMoment.Add(time.Duration(i) * time.Hour),
	}
	if result != "" {
		rec.Result = historyLink(result)
	}
	return rec
}

var pastOwner = fake.NewWorld(new(fake.Hub), "past").ID

var pastMoment = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// keeping makes the only node of a realm keep so many jobs for so long.
func keeping(t *testing.T, keep grid.Retention) (*remoteRealm, *grid.Node, *pinNames) {
	r := newRemoteRealm(t)
	pins := &pinNames{names: map[cid.Cid]string{}}
	m := r.join("a", func(c *grid.NodeConfig) { c.Retention, c.Pins = keep, pins })
	return r, m.Node, pins
}

func (r *remoteRealm) jobs() (ids []string) {
	r.t.Helper()
	if _, err := grid.RangeAll(context.Background(), r.ledger, grid.JobKeys, false, func(e grid.Entry) error {
		ids = append(ids, strings.TrimPrefix(e.Key, grid.JobKeys))
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
	return ids
}

func TestSweep(t *testing.T) {
	tests := []struct {
		name    string
		keep    grid.Retention
		jobs    int
		hours   int // from the past moment to now
		removed int
		more    bool
	}{
		{"nothing", grid.Retention{}, 0, 0, 0, false},
		{"young", grid.Retention{}, 10, 20, 0, false},
		{"default age", grid.Retention{}, 10, 30*24 + 4, 4, false},
		{"own age", grid.Retention{Age: 3 * time.Hour}, 10, 9, 6, false},
		{"for ever", grid.Retention{Age: -1}, 10, 1 << 20, 0, false},
		{"too many", grid.Retention{Jobs: 7}, 10, 0, 3, false},
		{"any number", grid.Retention{Jobs: -1}, 10, 0, 0, false},
		{"both", grid.Retention{Jobs: 7, Age: 5 * time.Hour}, 10, 10, 5, false},
		{"a round has its bound", grid.Retention{Jobs: 7}, 300, 0, 256, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, n, _ := keeping(t, tt.keep)
			for i := range tt.jobs {
				r.put(pastJob(i, fmt.Sprint("spec", i), fmt.Sprint("result", i)))
			}
			running := pastJob(1000, "spec", "")
			running.State, running.Ended = grid.Running, time.Time{}
			r.put(running)
			now := pastMoment.Add(time.Duration(tt.hours) * time.Hour)
			removed, more, err := n.Sweep(within(t), now)
			if err != nil || removed != tt.removed || more != tt.more {
				t.Errorf("removed %d, more %v, %v; want %d, %v", removed, more, err, tt.removed, tt.more)
			}
			left := r.jobs()
			if len(left) != tt.jobs-tt.removed+1 || !slices.Contains(left, string(running.ID)) {
				t.Errorf("%d jobs are left", len(left))
			}
			if tt.removed > 0 && slices.Contains(left, string(pastJob(tt.removed-1, "", "").ID)) {
				t.Error("an old job is left")
			}
			for more {
				if _, more, err = n.Sweep(within(t), now); err != nil {
					t.Fatal(err)
				}
			}
			if removed, more, err = n.Sweep(within(t), now); removed != 0 || more || err != nil {
				t.Errorf("a second time: %d, %v, %v", removed, more, err)
			}
		})
	}
}

// TestSweepClock: a node whose clock is a month ahead does not forget by it what is young by the clocks of the others, nor when they do not tell.
func TestSweepClock(t *testing.T) {
	r := newRemoteRealm(t)
	join := func(name string) *remoteNode {
		return r.join(name, func(c *grid.NodeConfig) { c.Pins = &pinNames{names: map[cid.Cid]string{}} })
	}
	a, b := join("a"), join("b")
	known := func(n int) {
		t.Helper()
		ctx, tick := within(t), time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for a.KnownUp() != n {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%d nodes are known to be up, want %d", a.KnownUp(), n)
			}
		}
	}
	known(2)
	now := time.Now()
	for i, ended := range []time.Time{now.Add(-time.Hour), now.Add(-24 * time.Hour), now.Add(-40 * 24 * time.Hour)} {
		rec := pastJob(i, fmt.Sprint("spec", i), "")
		rec.Ended = ended
		r.put(rec)
	}
	ahead := now.Add(31 * 24 * time.Hour)
	sweep := func(want int) {
		t.Helper()
		if removed, _, err := a.Sweep(within(t), ahead); removed != want || err != nil {
			t.Errorf("removed %d, %v; want %d", removed, err, want)
		}
	}
	sweep(1) // the one of 40 days ago, by b's clock
	c := join("c")
	known(3)
	sweep(0)
	r.world.Cut(a.w.ID, b.w.ID)
	r.world.Cut(a.w.ID, c.w.ID)
	sweep(0)
}

// TestSweepPins: what something else needs stays pinned, and what people have pinned.
func TestSweepPins(t *testing.T) {
	r, n, pins := keeping(t, grid.Retention{Jobs: 1})
	r.put(pastJob(0, "own", "own result"))
	r.put(pastJob(1, "shared", "named result"))
	r.put(pastJob(2, "users", "twice"))
	r.put(pastJob(3, "unpinned", "twice"))
	r.put(pastJob(4, "shared", "last"))
	for _, root := range []string{"own", "own result", "shared", "named result", "twice", "last"} {
		pins.names[historyLink(root).Cid] = "job x"
	}
	pins.names[historyLink("users").Cid] = "my data"
	data, err := grid.Marshal(grid.Ref{CID: historyLink("named result"), Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ledger.Commit(t.Context(), grid.Txn{Put: []grid.Entry{{Key: grid.RefKeys + "latest", Value: data}}}); err != nil {
		t.Fatal(err)
	}
	if removed, _, err := n.Sweep(within(t), pastMoment); removed != 4 || err != nil {
		t.Fatalf("removed %d, %v", removed, err)
	}
	for root, want := range map[string]bool{
		"own": false, "own result": false, "shared": true, "named result": true, "users": true, "twice": false, "last": true,
	} {
		if got := pins.has(historyLink(root)); got != want {
			t.Errorf("%s is pinned: %v, want %v", root, got, want)
		}
	}
}

// TestSweepLater: a job whose pins cannot be taken back stays until they can.
func TestSweepLater(t *testing.T) {
	r, n, pins := keeping(t, grid.Retention{Jobs: -1, Age: time.Hour})
	rec := pastJob(0, "spec", "result")
	r.put(rec)
	pins.names[rec.Spec.Cid] = "job x"
	pins.err = grid.Errorf(grid.Unavailable, "no disk")
	now := pastMoment.Add(2 * time.Hour)
	removed, _, err := n.Sweep(within(t), now)
	wantCode(t, err, grid.Unavailable, "no disk")
	if removed != 0 || len(r.jobs()) != 1 {
		t.Errorf("removed %d: %v", removed, err)
	}
	pins.err = nil
	if removed, _, err := n.Sweep(within(t), now); removed != 1 || err != nil {
		t.Errorf("removed %d, %v", removed, err)
	}
}

// TestOneSweeps: of the nodes that are up one forgets; none before it knows of the others.
func TestOneSweeps(t *testing.T) {
	r := newRemoteRealm(t, "a", "b", "c")
	ctx := within(t)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for { // until they have heard of one another
		sweepers := 0
		for _, m := range r.all {
			if m.Sweeps() {
				sweepers++
			}
		}
		if sweepers == 1 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d nodes sweep", sweepers)
		}
	}
}

func TestRemoveJob(t *testing.T) {
	r, n, _ := keeping(t, grid.Retention{})
	rec := pastJob(7, "spec", "result")
	r.put(rec)
	running := pastJob(8, "spec", "")
	running.State = grid.Running
	r.put(running)
	_, err := n.RemoveJob(within(t), running.ID)
	wantCode(t, err, grid.Conflict, "has not ended")
	_, err = n.RemoveJob(within(t), "jaaa")
	wantCode(t, err, grid.Invalid, "several")
	if id, err := n.RemoveJob(within(t), rec.ID); err != nil || id != rec.ID {
		t.Errorf("%s, %v", id, err)
	}
	_, err = n.RemoveJob(within(t), rec.ID)
	wantCode(t, err, grid.NotFound, string(rec.ID))
}
