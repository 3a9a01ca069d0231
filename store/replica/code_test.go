package replica

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
	"github.com/wasmgrid/wasmgrid/store/erasure"
)

// collect deletes what no root of a node's pins leads to, as a collector would, and returns the bytes left.
func (s *swarm) collect(id peer.ID) (bytes int) {
	s.t.Helper()
	n := s.nodes[id]
	kept := map[string]bool{}
	err := n.Roots(s.ctx, func(root cid.Cid) {
		todo := []cid.Cid{root}
		for len(todo) > 0 {
			c := todo[0]
			todo = todo[1:]
			data, err := n.blocks.Get(s.ctx, c)
			if err != nil || kept[string(c.Hash())] && c.Prefix().Codec == cid.Raw {
				continue
			}
			kept[string(c.Hash())] = true
			links, err := dag.Links(c, data)
			if err != nil {
				s.t.Error(err)
			}
			todo = append(todo, links...)
		}
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for c := range s.all {
		data, err := n.blocks.Get(s.ctx, c)
		if err != nil {
			continue
		}
		if kept[string(c.Hash())] {
			bytes += len(data)
		} else if err := n.blocks.Delete(s.ctx, c); err != nil {
			s.t.Fatal(err)
		}
	}
	n.exchange.Forget()
	return bytes
}

// remember lists the blocks of a DAG and its manifest for collect.
func (s *swarm) remember(id peer.ID, root cid.Cid) {
	s.t.Helper()
	n := s.nodes[id]
	note := func(c cid.Cid, _ []byte) error { s.all[c] = struct{}{}; return nil }
	if err := dag.Walk(s.ctx, n.blocks, root, note); err != nil {
		s.t.Fatal(err)
	}
	n.mu.Lock()
	r := n.entries[root].Record
	n.mu.Unlock()
	man, err := n.manifest(s.ctx, &r, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for column := range r.wanted() {
		for b := range man.Shards(column) {
			s.all[b.CID] = struct{}{}
		}
	}
}

func TestCoded(t *testing.T) {
	for _, lost := range [][2]int{{0, 1}, {2, 5}, {3, 4}} {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s := newSwarm(t, 10, nil)
				const size = 24 << 20
				root := s.add(s.ids[0], "file", size)
				wait(time.Second) // until all know one another
				s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Code: grid.Coding{Data: 4, Parity: 2}})
				s.remember(s.ids[0], root)
				st := s.healthy(s.ids[0], root, time.Minute)
				if len(st.Copies) != 6 || st.Copies[3].Shard != 4 {
					t.Fatalf("%+v", st)
				}
				s.until(s.ids[0], root, time.Minute, "let go of the whole", func(grid.PinStatus) bool {
					n := s.nodes[s.ids[0]]
					n.mu.Lock()
					defer n.mu.Unlock()
					return !n.entries[root].Whole
				})
				total := 0
				for _, id := range s.ids {
					got := s.collect(id)
					if total += got; got > size*3/10 {
						t.Errorf("%s keeps %d bytes", id, got)
					}
				}
				if total < size*3/2 || total > size*16/10 {
					t.Errorf("all keep %d bytes, want one and a half of %d", total, size)
				}

				had := holders(st)
				s.wipe(had[lost[0]], had[lost[1]])
				had = slices.DeleteFunc(had, func(id peer.ID) bool { return s.nodes[id] == nil })
				// It can be read where nothing of it is, before anything was repaired.
				var reader *testNode
				for _, id := range s.ids {
					if !slices.Contains(had, id) {
						reader = s.nodes[id]
					}
				}
				if err := reader.Fetch(s.ctx, grid.Want{Roots: []cid.Cid{root}}); err != nil {
					t.Fatal(err)
				}
				s.whole(reader.id, root)
				s.collect(reader.id)
				var leaves []cid.Cid // one after the other, as a reader of a part of it does
				for c := range s.all {
					if c.Prefix().Codec == cid.Raw {
						leaves = append(leaves, c)
					}
				}
				for _, c := range leaves {
					if err := reader.Fetch(s.ctx, grid.Want{Roots: []cid.Cid{c}, Shallow: true, Below: []cid.Cid{root}}); err != nil {
						t.Fatal(err)
					}
				}
				s.collect(reader.id)

				st = s.healthy(had[0], root, 3*grace)
				for i, c := range st.Copies {
					if c.Shard != i+1 {
						t.Errorf("shards %+v", st.Copies)
					}
				}
				// And again, by others.
				s.wipe(had[0], had[1])
				st = s.healthy(had[2], root, 3*grace)
				for _, id := range s.ids {
					s.collect(id)
				}
				// A block that a disk has lost, and nobody else has, is calculated.
				n := s.nodes[had[2]]
				n.mu.Lock()
				r := n.entries[root].Record
				n.mu.Unlock()
				man, err := n.manifest(s.ctx, &r, nil)
				if err != nil {
					t.Fatal(err)
				}
				for b := range man.Shards(r.place(n.id)) {
					if b.Kind == erasure.Parity || b.Kind == erasure.Data {
						if err := n.blocks.Delete(s.ctx, b.CID); err != nil {
							t.Fatal(err)
						}
						break
					}
				}
				n.Doubt()
				wait(time.Second)
				s.healthy(n.id, root, time.Minute)
				if missing, err := n.missingOfShard(s.ctx, &r, r.place(n.id)); err != nil || len(missing) > 0 {
					t.Errorf("%v is still missing, %v", missing, err)
				}
				deep, err := n.Status(s.ctx, root, true)
				if err != nil || deep.Health != grid.Healthy {
					t.Errorf("%+v, %v", deep, err)
				}
			})
		})
	}
}

// ends is a keeper that tells when a hold of what is used ends.
type ends struct {
	grid.NoKeeper
	f func()
}

func (k ends) HoldUsed() (release func()) { return k.f }

// TestCodedHeld: what a code adds is held until the pin is recorded, which keeps it from then on.
func TestCodedHeld(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var s *swarm
		var root cid.Cid
		first, ended := name(0), 0
		s = newSwarm(t, 3, func(c *Config) {
			if c.Network.Self() != first {
				return
			}
			c.Keeper = ends{f: func() {
				ended++
				m := s.nodes[first].Manager
				m.mu.Lock()
				defer m.mu.Unlock()
				if e := m.entries[root]; e == nil || !e.Record.Manifest.Defined() {
					t.Error("the hold has ended, and nothing names the manifest")
				}
			}}
		})
		root = s.add(first, "file", 8<<20)
		wait(time.Second)
		s.pin(first, grid.Pin{Root: grid.Link{Cid: root}, Code: grid.Coding{Data: 2, Parity: 1}})
		if ended == 0 {
			t.Error("nothing was held")
		}
	})
}

func TestCodedTooFewLeft(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s := newSwarm(t, 3, nil)
		root := s.add(s.ids[0], "file", 8<<20)
		wait(time.Second)
		s.pin(s.ids[0], grid.Pin{Root: grid.Link{Cid: root}, Code: grid.Coding{Data: 2, Parity: 1}})
		s.remember(s.ids[0], root)
		had := holders(s.healthy(s.ids[0], root, time.Minute))
		wait(time.Minute)
		for _, id := range s.ids {
			s.collect(id)
		}
		s.wipe(had[1], had[2])
		wait(2 * grace)
		last := s.nodes[had[0]]
		st, err := last.Status(s.ctx, root, false)
		if err != nil || st.Health != grid.Lost {
			t.Errorf("%+v, %v", st, err)
		}
		if err := last.Fetch(s.ctx, grid.Want{Roots: []cid.Cid{root}}); grid.CodeOf(err) != grid.Unavailable && grid.CodeOf(err) != grid.NotFound {
			t.Errorf("Fetch of what is lost: %v", err)
		}
		if err := last.Unpin(s.ctx, root); err != nil {
			t.Error(err)
		}
	})
}
