package daemon

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/p2p"
)

// Every protocol of a node has a rate, and every rate is of a protocol.
func TestRates(t *testing.T) {
	d := up(t, filepath.Join(shortDir(t), "home"))
	spoken := slices.DeleteFunc(d.host.Protocols(), func(p grid.Protocol) bool { return p == "ping/1" }) // p2p's own
	spoken = append(spoken, p2p.JoinProtocol, kinProtocol)                                               // in private swarms, and public ones
	slices.Sort(spoken)
	if listed := slices.Sorted(maps.Keys(rates)); !slices.Equal(listed, spoken) {
		t.Errorf("rates are of\n%v\nthe node speaks\n%v", listed, spoken)
	}
	for p, r := range rates {
		if r.PerSecond <= 0 || r.Burst < int(r.PerSecond) {
			t.Errorf("%s: %+v: want a burst of a second at least", p, r)
		}
	}
}

// Nodes that work as fast as they can meet no limit.
func TestHonestAreNotRefused(t *testing.T) {
	dir := shortDir(t)
	a := up(t, filepath.Join(dir, "a"))
	b := up(t, filepath.Join(dir, "b"), a.Status().Addrs...)
	ca, cb := a.Client(), b.Client()
	eventually(t, "both are in one realm", func() bool {
		x, y := a.Status().Ledger.RealmID, b.Status().Ledger.RealmID
		return x != "" && x == y
	})
	const tasks = 20_000
	id := submit(t, ca, tasks, add(t, ca, wasmbytes.Noop()))
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for k := range 20 {
				if _, err := cb.KVPut(t.Context(), fmt.Sprint("k", i, ".", k), []byte("v"), api.KVCond{}); err != nil {
					t.Error(err)
				}
				if _, err := cb.Node(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if _, err := cb.Job(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if st := wait(t, ca, id); st.State != grid.Done || st.Stages[0].Done != tasks {
		t.Errorf("ended as %+v", st)
	}
	for _, d := range []*Daemon{a, b} {
		for _, r := range d.refusals() {
			t.Errorf("%s refused %+v", d.cfg.Home, r)
		}
	}
}

// protected is what a guard keeps, of the peers that are worth it.
type protected struct {
	mu    sync.Mutex
	worth []peer.ID
	kept  map[peer.ID]bool
}

func (p *protected) Protect(id peer.ID, _ string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept[id] = true
}

func (p *protected) Unprotect(id peer.ID, _ string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.kept, id)
}

func (p *protected) list() []peer.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.worth
}

// is checks what is kept, and sets what is worth it from now on.
func (p *protected) is(t *testing.T, want map[peer.ID]bool, next ...peer.ID) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !maps.Equal(p.kept, want) {
		t.Errorf("protected %v, want %v", p.kept, want)
	}
	p.worth = next
}

func TestGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := &protected{worth: []peer.ID{"a", "b", "a"}, kept: map[peer.ID]bool{}}
		go guard(ctx, p, p.list)
		synctest.Wait()
		p.is(t, map[peer.ID]bool{"a": true, "b": true}, "b", "c")
		time.Sleep(guardEvery + 1)
		synctest.Wait()
		p.is(t, map[peer.ID]bool{"b": true, "c": true})
		cancel()
	})
}
