package replica

import (
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

// pinned has two copies kept of something that the first node adds. had are those who keep them, rest the others.
func (s *swarm) pinned(a peer.ID) (root cid.Cid, had, rest []peer.ID) {
	root = s.add(a, "file", 1<<20)
	wait(time.Second)
	s.pin(a, grid.Pin{Root: grid.Link{Cid: root}, Replicas: 2})
	had = holders(s.healthy(a, root, time.Minute))
	return root, had, slices.DeleteFunc(slices.Clone(s.ids), func(id peer.ID) bool { return slices.Contains(had, id) })
}

// A pin made on a node that never heard of an earlier, removed pin of the same root must not vanish, when a repair
// brings in a node that remembers the removal.
func TestPinAfterRemovalElsewhere(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 4, nil)
		a := s.ids[0]
		root, had, rest := s.pinned(a)
		if err := s.nodes[a].Unpin(s.ctx, root); err != nil {
			t.Fatal(err)
		}
		wait(time.Minute)
		s.stop(had[0]) // they are away when it is pinned again; this is a week's time for it to happen
		s.stop(had[1])
		wait(2 * grace)
		c, d := rest[0], rest[1]
		s.add(c, "file", 1<<20) // the same data
		s.pin(c, grid.Pin{Root: grid.Link{Cid: root}, Replicas: 2})
		s.healthy(c, root, time.Minute)
		s.start(had[0])
		s.start(had[1])
		wait(5 * time.Minute)
		if _, err := s.nodes[c].Status(s.ctx, root, false); err != nil {
			t.Errorf("while all are up: %v", err)
		}
		s.wipe(d) // a repair chooses one of those that remember
		wait(5 * time.Minute)
		if _, err := s.nodes[c].Status(s.ctx, root, false); err != nil {
			t.Errorf("the promise is gone: %v", err)
		}
		n := 0
		if err := s.nodes[c].Roots(s.ctx, func(cid.Cid) { n++ }); err != nil || n == 0 {
			t.Errorf("%d roots, %v: nothing keeps it even where it was pinned", n, err)
		}
	})
}

// The same, when they are up: it is refused.
func TestPinAfterRemoval(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 3, nil)
		a := s.ids[0]
		root, _, rest := s.pinned(a)
		if err := s.nodes[a].Unpin(s.ctx, root); err != nil {
			t.Fatal(err)
		}
		wait(time.Minute)
		for _, c := range rest {
			s.add(c, "file", 1<<20) // the same data
			if st, err := s.nodes[c].Pin(s.ctx, grid.Pin{Root: grid.Link{Cid: root}, Replicas: 2}); err != nil {
				t.Errorf("%+v, %v", st, err)
			}
		}
	})
}

// A second pin with fewer copies, from a node that does not know the first one.
func TestPinElsewhere(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 5, nil)
		a := s.ids[0]
		root, _, rest := s.pinned(a)
		// changed twice by people
		s.pin(a, grid.Pin{Root: grid.Link{Cid: root}, Replicas: 2})
		wait(time.Minute)
		c := rest[len(rest)-1]
		s.add(c, "file", 1<<20)
		s.pin(c, grid.Pin{Root: grid.Link{Cid: root}, Replicas: 4})
		wait(2 * time.Minute)
		st, err := s.nodes[c].Status(s.ctx, root, false)
		if err != nil || st.Replicas != 4 {
			t.Errorf("%+v %v", st, err)
		}
	})
}

// Replicated first, coded later: holders of a whole copy become holders of shards.
func TestRecoded(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 6, nil)
		a := s.ids[0]
		root := s.add(a, "file", 24<<20)
		wait(time.Second)
		s.pin(a, grid.Pin{Root: grid.Link{Cid: root}, Replicas: 4})
		s.healthy(a, root, time.Minute)
		s.pin(a, grid.Pin{Root: grid.Link{Cid: root}, Code: grid.Coding{Data: 4, Parity: 2}})
		s.remember(a, root)
		s.healthy(a, root, time.Minute)
		s.until(a, root, 10*time.Minute, "let go of the whole", func(grid.PinStatus) bool {
			for _, n := range s.nodes {
				n.mu.Lock()
				w := n.entries[root].Whole
				n.mu.Unlock()
				if w {
					return false
				}
			}
			return true
		})
		for _, id := range s.ids {
			s.collect(id)
		}
		wait(10 * time.Minute)
		st, err := s.nodes[a].Status(s.ctx, root, true)
		if err != nil || st.Health != grid.Healthy {
			t.Errorf("deep: %+v, %v", st, err)
		}
		wait(10 * time.Minute)
		reader := s.nodes[s.ids[5]]
		if err := reader.Fetch(s.ctx, grid.Want{Roots: []cid.Cid{root}}); err != nil {
			t.Errorf("%v", err)
		}
	})
}

// A record from a peer with the last version there may be.
func TestLastVersion(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 3, nil)
		a, b := s.ids[0], s.ids[1]
		root := s.add(a, "file", 1<<20)
		s.add(b, "file", 1<<20)
		wait(time.Second)
		r := record{Root: grid.Link{Cid: root}, Replicas: 2, Created: 1, Changed: time.Now().Unix(), By: b,
			Version: version{Edit: 1, Assign: maxCount, Node: b}, Holders: []peer.ID{a}}
		s.nodes[b].tell(a, []record{r})
		wait(time.Minute)
		s.stop(a)
		n := s.nodes[a]
		n.net = s.world.Join(a)
		defer n.net.Close()
		m, err := Open(s.ctx, Config{Network: n.net, Blocks: n.blocks, Fetcher: n.exchange, State: n.state, Grace: grace})
		if err != nil {
			t.Errorf("it does not start any more: %v", err)
			return
		}
		m.Close()
	})
}

// A record whose manifest is none keeps a node from collecting anything, for ever.
func TestNoManifest(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 3, nil)
		a, b := s.ids[0], s.ids[1]
		root := s.add(b, "file", 1<<10) // one block
		wait(time.Second)
		r := record{Root: grid.Link{Cid: root}, Code: grid.Coding{Data: 2, Parity: 1}, Manifest: grid.Link{Cid: root}, Size: 1 << 10,
			Created: 1, Changed: time.Now().Unix(), By: b, Version: version{Edit: 1, Node: b}, Holders: []peer.ID{a, b, s.ids[2]}}
		s.nodes[b].tell(a, []record{r})
		wait(time.Minute)
		if err := s.nodes[a].Roots(s.ctx, func(cid.Cid) {}); err != nil {
			t.Errorf("nothing can be collected or evicted any more: %v", err)
		}
	})
}

// A node that hands over its copy, the only one, finds one block of it missing: the rest must stay until the others have it.
func TestDoubtedSurplus(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 2, func(c *Config) { c.Rate = 1 << 20 })
		a, b := s.ids[0], s.ids[1]
		root := s.add(a, "file", 40<<20)
		wait(time.Second)
		s.pin(a, grid.Pin{Root: grid.Link{Cid: root}, Replicas: 1})
		if err := s.nodes[a].Drain(s.ctx, true); err != nil {
			t.Fatal(err)
		}
		wait(10 * time.Second) // b is fetching, slowly
		n := s.nodes[a]
		var leaf cid.Cid
		missing := 0
		err := dag.Walk(s.ctx, n.blocks, root, func(c cid.Cid, _ []byte) error {
			if c.Prefix().Codec == cid.Raw {
				if has, err := s.nodes[b].blocks.Has(s.ctx, c); err == nil && !has {
					leaf = c
					missing++
				}
			}
			return nil
		})
		if err != nil || missing < 2 {
			t.Fatal(missing, err)
		}
		if err := n.blocks.Delete(s.ctx, leaf); err != nil { // one that the disk has lost
			t.Fatal(err)
		}
		n.Doubt()
		wait(time.Second)
		kept := 0
		if err := n.Roots(s.ctx, func(cid.Cid) { kept++ }); err != nil || kept == 0 {
			t.Errorf("one block is lost, and the other %d that nobody else has may be collected: %d roots, %v", missing-1, kept, err)
		}
	})
}

// A pin is taken back on a node that neither made nor holds it, which is restarted at once.
func TestUnpinByBystander(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 4, nil)
		a := s.ids[0]
		root, _, rest := s.pinned(a)
		x := rest[len(rest)-1]
		if err := s.nodes[x].Unpin(s.ctx, root); err != nil {
			t.Fatal(err)
		}
		s.stop(x) // acknowledged; then it is killed
		wait(time.Minute)
		s.start(x)
		wait(24 * time.Hour)
		for _, id := range s.ids {
			if err := s.nodes[id].Roots(s.ctx, func(c cid.Cid) { t.Errorf("%s still keeps %s", id, c) }); err != nil {
				t.Error(err)
			}
		}
	})
}
