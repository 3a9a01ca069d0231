package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
	"github.com/wasmgrid/wasmgrid/store/ledger/local"
	"github.com/wasmgrid/wasmgrid/store/ledger/member"
)

// town is nodes that live in one world, each with a folder. It is used inside a bubble: time is virtual.
type town struct {
	t     *testing.T
	mu    sync.Mutex // of rand, where others than the test use it
	rand  *rand.Rand
	world *memnet.World
	ids   []peer.ID
	dirs  []string
	nets  []*memnet.Node
	up    []*Realm // nil: down
}

func newTown(t *testing.T, n int, seed uint64) *town {
	w := &town{t: t, rand: rand.New(rand.NewPCG(seed, 2)), up: make([]*Realm, n), nets: make([]*memnet.Node, n)}
	w.world = memnet.New(memnet.Config{Seed: seed, Silence: time.Second, Latency: func(r *rand.Rand, _, _ peer.ID) time.Duration {
		return time.Duration(200+r.IntN(600)) * time.Microsecond
	}})
	for i := range n {
		var b [32]byte
		b[0], b[1] = byte(i), byte(seed)
		key, _, err := crypto.GenerateEd25519Key(strings.NewReader(string(b[:])))
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		w.ids = append(w.ids, id)
		w.dirs = append(w.dirs, t.TempDir())
	}
	return w
}

// end stops all nodes; it must be called inside the bubble.
func (w *town) end() {
	for i := range w.up {
		w.stop(i)
	}
}

func (w *town) start(i int, change ...func(*RealmConfig)) *Realm {
	w.t.Helper()
	net := w.world.Join(w.ids[i])
	cfg := RealmConfig{
		Network: net, Dir: w.dirs[i], Tick: 200 * time.Millisecond, Settle: 500 * time.Millisecond, Zone: fmt.Sprint("zone", i%3),
		Plan: member.Config{Stable: time.Second, Grace: 5 * time.Second},
	}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", i)
	}
	for _, f := range change {
		f(&cfg)
	}
	r, err := OpenRealm(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.up[i], w.nets[i] = r, net
	return r
}

// kill ends a node as a crash does, and stop in good order.
func (w *town) kill(i int) {
	w.world.Kill(w.ids[i])
	w.stop(i)
}

func (w *town) stop(i int) {
	if w.up[i] == nil {
		return
	}
	_ = w.up[i].Close()
	_ = w.nets[i].Close()
	w.up[i] = nil
}

func (w *town) eventually(what string, f func() error) {
	w.t.Helper()
	var err error
	for range 1200 {
		if err = f(); err == nil {
			return
		}
		<-time.After(100 * time.Millisecond)
	}
	for i, r := range w.up {
		if r != nil {
			st, _ := r.Status(w.t.Context())
			w.t.Logf("node %d %s: %+v", i, w.ids[i], st)
		}
	}
	w.t.Fatalf("waited two minutes for: %s: %v", what, err)
}

// settled reports whether the nodes that are up are one realm with so many voters and learners.
func (w *town) settled(voters, learners int) error {
	realm := ""
	for i, r := range w.up {
		if r == nil {
			continue
		}
		st, err := r.Status(w.t.Context())
		if err != nil {
			return err
		}
		if realm == "" {
			realm = st.RealmID
		}
		v, l := 0, 0
		for _, m := range st.Members {
			switch m.Role {
			case grid.Leader, grid.Voter:
				v++
			case grid.Learner:
				l++
			}
		}
		if st.RealmID != realm || v != voters || l != learners || st.Leader == "" {
			return fmt.Errorf("node %d: realm %s of %s, %d voters, %d learners, leader %s, note %q", i, st.RealmID, realm, v, l, st.Leader, st.Note)
		}
	}
	return nil
}

func (w *town) leader() int {
	w.t.Helper()
	lead := -1
	w.eventually("a leader", func() error {
		lead = slices.IndexFunc(w.up, func(r *Realm) bool { return r != nil && r.isLeader() })
		if lead < 0 {
			return errors.New("none")
		}
		return nil
	})
	return lead
}

func (w *town) put(r *Realm, key, value string) {
	w.t.Helper()
	w.eventually("put "+key, func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		_, err := r.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: grid.UserKey(key), Value: []byte(value)}}})
		return err
	})
}

func (w *town) want(r *Realm, key, value string) {
	w.t.Helper()
	w.eventually("get "+key, func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		e, err := r.Get(ctx, grid.UserKey(key))
		if err == nil && string(e.Value) != value {
			err = fmt.Errorf("%q, want %q", e.Value, value)
		}
		return err
	})
}

// inTown runs a test in virtual time.
func inTown(t *testing.T, n int, seed uint64, f func(t *testing.T, w *town)) {
	t.Helper()
	w := newTown(t, n, seed) // folders are made outside
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		defer w.end()
		f(t, w)
	})
}

func TestForm(t *testing.T) {
	for _, c := range []struct{ nodes, voters, learners int }{{1, 1, 0}, {2, 1, 1}, {3, 3, 0}, {4, 3, 1}, {5, 5, 0}, {7, 5, 2}, {9, 5, 2}} {
		t.Run(fmt.Sprint(c.nodes), func(t *testing.T) {
			inTown(t, c.nodes, uint64(c.nodes), func(t *testing.T, w *town) {
				for _, i := range w.rand.Perm(c.nodes) {
					r := w.start(i)
					w.put(r, fmt.Sprint("of", i), fmt.Sprint(i))
				}
				w.eventually("one realm", func() error { return w.settled(c.voters, c.learners) })
				for _, r := range w.up {
					for i := range c.nodes {
						w.want(r, fmt.Sprint("of", i), fmt.Sprint(i))
					}
				}
			})
		})
	}
}

func TestLoseNodes(t *testing.T) {
	inTown(t, 7, 1, func(t *testing.T, w *town) {
		for i := range 7 {
			w.start(i)
		}
		w.eventually("one realm", func() error { return w.settled(5, 2) })
		for n := range 3 { // the leader, three times
			dead := w.leader()
			w.kill(dead)
			w.put(w.up[w.leader()], fmt.Sprint("after", n), "x")
			if n == 0 {
				w.eventually("it is replaced", func() error {
					st, err := w.up[w.leader()].Status(t.Context())
					for _, m := range st.Members {
						if m.ID == w.ids[dead] && m.Role == grid.Voter {
							return errors.New("not yet")
						}
					}
					return errors.Join(err, w.settled(5, 2)) // it is a learner by then
				})
			}
		}
		// Four are left: of three dead ones two are replaced by learners, and one is waited for.
		w.eventually("a voter for each that is left", func() error {
			st, err := w.up[w.leader()].Status(t.Context())
			up := 0
			for _, m := range st.Members {
				if m.Up && (m.Role == grid.Voter || m.Role == grid.Leader) {
					up++
				}
			}
			if up < 3 {
				return fmt.Errorf("%d voters are up, %v", up, err)
			}
			return err
		})
		for i := range 7 {
			if w.up[i] == nil {
				w.start(i)
			}
		}
		w.eventually("all are back", func() error { return w.settled(5, 2) })
		for n := range 3 {
			w.want(w.up[n], fmt.Sprint("after", n), "x")
		}
	})
}

// TestBequeath: of two nodes, the one that votes ends in good order, and the other one goes on; then the same the
// other way round.
func TestBequeath(t *testing.T) {
	inTown(t, 2, 11, func(t *testing.T, w *town) {
		w.start(0)
		w.start(1)
		for n := range 4 {
			w.eventually("one realm", func() error { return w.settled(1, 1) })
			voter := w.leader()
			w.stop(voter)
			other := w.up[1-voter]
			w.put(other, fmt.Sprint("alone", n), "x")
			w.start(voter)
			w.put(w.up[voter], fmt.Sprint("together", n), "x")
			w.want(other, fmt.Sprint("together", n), "x")
		}
	})
}

// TestBequeathEarly: the only voter ends in good order, at some moment after others have joined it: they have the ledger.
func TestBequeathEarly(t *testing.T) {
	for after := time.Duration(0); after < 3*time.Second; after += 290 * time.Millisecond {
		for joiners := 1; joiners <= 2; joiners++ {
			t.Run(fmt.Sprint(joiners, " ", after), func(t *testing.T) {
				inTown(t, 1+joiners, uint64(after), func(t *testing.T, w *town) {
					first := w.start(0, func(c *RealmConfig) { c.Prefers = func(id peer.ID) bool { return id == w.ids[0] } })
					w.put(first, "k", "v")
					for i := range joiners {
						w.start(1+i, func(c *RealmConfig) { c.Prefers = func(id peer.ID) bool { return id == w.ids[0] } })
					}
					for i := range joiners {
						for w.up[1+i].realmID() != first.realmID() {
							<-time.After(time.Millisecond)
						}
					}
					<-time.After(after)
					w.stop(0)
					for i := range joiners {
						w.want(w.up[1+i], "k", "v")
						w.put(w.up[1+i], fmt.Sprint("alone", i), "x")
					}
				})
			})
		}
	}
}

func TestRestartAll(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 7} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			voters, learners := map[int]int{1: 1, 2: 1, 3: 3, 5: 5, 7: 5}[n], map[int]int{2: 1, 7: 2}[n]
			inTown(t, n, uint64(n), func(t *testing.T, w *town) {
				for i := range n {
					w.start(i)
				}
				w.eventually("one realm", func() error { return w.settled(voters, learners) })
				for round := range 3 {
					w.put(w.up[w.rand.IntN(n)], fmt.Sprint("round", round), "x")
					for _, i := range w.rand.Perm(n) {
						w.kill(i)
					}
					for _, i := range w.rand.Perm(n) {
						w.start(i)
					}
					w.eventually("one realm again", func() error { return w.settled(voters, learners) })
				}
				for _, r := range w.up {
					for round := range 3 {
						w.want(r, fmt.Sprint("round", round), "x")
					}
				}
			})
		})
	}
}

func TestPartition(t *testing.T) {
	inTown(t, 5, 1, func(t *testing.T, w *town) {
		for i := range 5 {
			w.start(i)
		}
		w.eventually("one realm", func() error { return w.settled(5, 0) })
		few := []int{w.leader()}
		few = append(few, (few[0]+1)%5)
		each := func(f func(a, b peer.ID)) {
			for _, i := range few {
				for j := range 5 {
					if !slices.Contains(few, j) {
						f(w.ids[i], w.ids[j])
					}
				}
			}
		}
		each(w.world.Cut)
		many := (few[0] + 2) % 5
		w.put(w.up[many], "k", "many")
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := w.up[few[0]].Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: "kv/k", Value: []byte("few")}}}); err == nil {
			t.Error("a minority has committed")
		}
		w.eventually("the others go on as three", func() error {
			st, err := w.up[many].Status(t.Context())
			voters := 0
			for _, m := range st.Members {
				if m.Role == grid.Voter || m.Role == grid.Leader {
					voters++
				}
			}
			if voters != 3 {
				return fmt.Errorf("%d voters, %v", voters, err)
			}
			return err
		})
		each(w.world.Heal)
		w.eventually("one realm again", func() error { return w.settled(5, 0) })
		w.want(w.up[few[0]], "k", "many")
	})
}

func TestConflictingKeys(t *testing.T) {
	inTown(t, 2, 1, func(t *testing.T, w *town) {
		for i := range 2 {
			w.put(w.start(i), "k", "same")
			w.put(w.up[i], "x", fmt.Sprint(i))
			if _, err := w.up[i].Commit(t.Context(), grid.Txn{Put: []grid.Entry{{Key: grid.SecretKeys + "s", Value: []byte{byte(i)}}}}); err != nil {
				t.Fatal(err)
			}
			w.kill(i)
		}
		for i := range 2 {
			w.start(i)
		}
		w.eventually("a note", func() error {
			for _, r := range w.up {
				st, err := r.Status(t.Context())
				if err != nil {
					return err
				}
				if strings.Contains(st.Note, "the key x") && strings.Contains(st.Note, "the secret s") && strings.Contains(st.Note, "delete, remove or rename") {
					return nil
				}
			}
			return errors.New("no note")
		})
		w.want(w.up[0], "x", "0")
		w.want(w.up[1], "x", "1")
		if _, err := w.up[0].Commit(t.Context(), grid.Txn{Delete: []string{"kv/x", grid.SecretKeys + "s"}}); err != nil {
			t.Fatal(err)
		}
		w.eventually("they join", func() error { return w.settled(1, 1) })
		w.want(w.up[0], "x", "1")
		st, err := w.up[0].Status(t.Context())
		if err != nil || st.Note != "" {
			t.Errorf("note %q, %v", st.Note, err)
		}
	})
}

func TestOtherName(t *testing.T) {
	inTown(t, 2, 1, func(t *testing.T, w *town) {
		w.start(0)
		w.start(1, func(c *RealmConfig) { c.Name = "other" })
		<-time.After(10 * time.Second)
		if w.up[0].realmID() == w.up[1].realmID() {
			t.Error("realms of different names have joined")
		}
		w.kill(1)
		w.start(1) // remembers its name
		if w.up[1].realmName() != "other" {
			t.Error("the name is forgotten")
		}
		w.kill(1)
		w.start(1, func(c *RealmConfig) { c.Name = DefaultRealm }) // alone, it may be renamed
		w.eventually("they join", func() error { return w.settled(1, 1) })
		w.kill(1)
		if _, err := OpenRealm(t.Context(), RealmConfig{Network: w.world.Join(w.ids[1]), Dir: w.dirs[1], Name: "third"}); !errors.Is(err, grid.Conflict) || grid.AdviceOf(err) == "" {
			t.Errorf("renamed with others: %v", err)
		}
	})
}

func TestTwoRealms(t *testing.T) {
	inTown(t, 4, 1, func(t *testing.T, w *town) {
		w.start(0)
		w.start(1)
		w.eventually("one realm", func() error { return w.settled(1, 1) })
		first := w.up[0].realmID()
		w.kill(0)
		w.kill(1)
		w.start(2)
		w.start(3)
		w.eventually("another realm", func() error { return w.settled(1, 1) })
		w.start(0)
		w.start(1)
		w.eventually("notes", func() error {
			for i, r := range w.up {
				st, err := r.Status(t.Context())
				if err != nil || !strings.Contains(st.Note, "grid ledger remove") {
					return fmt.Errorf("node %d: %q, %v", i, st.Note, err)
				}
			}
			return nil
		})
		if w.up[1].realmID() != first || w.up[2].realmID() == first {
			t.Fatal("they have joined")
		}
		// What the note says helps.
		w.eventually("removed", func() error { return w.up[2].Remove(t.Context(), w.ids[3]) })
		w.eventually("one realm", func() error { return w.settled(3, 1) })
		if w.up[2].realmID() != first {
			t.Error("not the realm that was to stay")
		}
	})
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOldDisk(t *testing.T) {
	backup := t.TempDir()
	inTown(t, 3, 1, func(t *testing.T, w *town) {
		for i := range 3 {
			w.start(i)
		}
		w.eventually("one realm", func() error { return w.settled(3, 0) })
		w.stop(1) // it may not even remember that it is a voter
		copyTree(t, w.dirs[1], backup)
		w.start(1)
		w.eventually("all voters", func() error { return w.settled(3, 0) })
		w.put(w.up[1], "k", "v")
		w.stop(1)
		if err := os.RemoveAll(w.dirs[1]); err != nil {
			t.Fatal(err)
		}
		copyTree(t, backup, w.dirs[1])
		w.start(1)
		w.eventually("it is noticed", func() error { // or it would be the second
			if n := w.up[1].incarnation(); n != 3 {
				return fmt.Errorf("incarnation %d", n)
			}
			return nil
		})
		w.eventually("it is brought up to date", func() error { return w.settled(3, 0) })
		w.want(w.up[1], "k", "v")
		st, err := w.up[1].Status(t.Context())
		if err != nil || st.Note != "" {
			t.Errorf("note %q, %v", st.Note, err)
		}
	})
}

func TestLostDisk(t *testing.T) {
	inTown(t, 3, 1, func(t *testing.T, w *town) {
		for i := range 3 {
			w.start(i)
		}
		w.eventually("one realm", func() error { return w.settled(3, 0) })
		w.put(w.up[0], "k", "v")
		w.stop(2)
		if err := os.RemoveAll(filepath.Join(w.dirs[2], "raft")); err != nil {
			t.Fatal(err)
		}
		w.start(2)
		w.eventually("it gets a new copy, and does not vote before it has what it may have acknowledged", func() error {
			if w.up[2].voteFrom() == 0 {
				return errors.New("it would")
			}
			return w.settled(3, 0)
		})
		w.want(w.up[2], "k", "v")
		w.stop(0) // so that it must vote
		w.put(w.up[2], "k", "w")
	})
}

func TestRemovedNode(t *testing.T) {
	inTown(t, 4, 1, func(t *testing.T, w *town) {
		for i := range 4 {
			w.start(i)
		}
		w.eventually("one realm", func() error { return w.settled(3, 1) })
		realm := w.up[0].realmID()
		dead := w.leader()
		w.kill(dead)
		at := w.up[(dead+1)%4]
		w.eventually("removed", func() error { return at.Remove(t.Context(), w.ids[dead]) })
		if err := at.Remove(t.Context(), w.ids[dead]); !errors.Is(err, grid.NotFound) {
			t.Errorf("removed twice: %v", err)
		}
		w.eventually("three go on", func() error { return w.settled(3, 0) })
		w.start(dead)
		w.eventually("it begins anew", func() error {
			if w.up[dead].realmID() == realm {
				return errors.New("it has not noticed")
			}
			return nil
		})
		w.put(w.up[dead], "k", "v")
		w.eventually("it joins again", func() error { return w.settled(3, 1) })
		w.want(at, "k", "v")
	})
}

// joining has a node that has ended be one that stopped while it joined a realm.
func (w *town) joining(i int, to string) state {
	w.t.Helper()
	st, _, err := readState(w.dirs[i], w.ids[i])
	if err != nil {
		w.t.Fatal(err)
	}
	st.Name, st.Joining = DefaultRealm, to
	if err := st.write(w.dirs[i]); err != nil {
		w.t.Fatal(err)
	}
	return st
}

// A node that stopped while it joined goes on.
func TestJoinInterrupted(t *testing.T) {
	for _, taken := range []bool{false, true} {
		inTown(t, 2, 1, func(t *testing.T, w *town) {
			w.put(w.start(0), "a", "0")
			w.put(w.start(1, func(c *RealmConfig) { c.Name = "apart" }), "b", "1")
			to := w.up[0].realmID()
			w.stop(1)
			st := w.joining(1, to)
			w.kill(0) // first there is nobody to join
			w.start(1)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			_, err := w.up[1].Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: "kv/late"}}})
			cancel()
			if !errors.Is(err, grid.Unavailable) {
				t.Errorf("written while joining: %v", err)
			}
			w.start(0)
			if taken {
				rec := record{Incarnation: st.Incarnation}
				w.eventually("taken before", func() error {
					_, err := w.up[0].take(t.Context(), w.ids[1], &greeting{Name: DefaultRealm, Realm: to, Do: doTake, Join: &rec, Entries: []grid.Entry{{Key: "kv/b", Value: []byte("1")}}})
					return err
				})
				w.put(w.up[0], "b", "newer")
			}
			w.eventually("it joins", func() error { return w.settled(1, 1) })
			w.want(w.up[1], "a", "0")
			w.want(w.up[1], "b", map[bool]string{false: "1", true: "newer"}[taken])
		})
	}
}

// TestJoinLost: the realm that a node has begun to join is gone. It goes on with its own, and joins when the other one is there again.
func TestJoinLost(t *testing.T) {
	for _, changed := range []bool{false, true} {
		inTown(t, 2, 1, func(t *testing.T, w *town) {
			first := func(c *RealmConfig) { c.Prefers = func(id peer.ID) bool { return id == w.ids[0] } }
			w.put(w.start(0, first), "a", "0")
			w.put(w.start(1, first, func(c *RealmConfig) { c.Name = "apart" }), "b", "1")
			to := w.up[0].realmID()
			w.stop(1)
			st := w.joining(1, to)
			rec := record{Incarnation: st.Incarnation}
			w.eventually("the other realm has its entries and itself", func() error {
				_, err := w.up[0].take(t.Context(), w.ids[1], &greeting{Name: DefaultRealm, Realm: to, Do: doTake, Join: &rec, Entries: []grid.Entry{{Key: "kv/b", Value: []byte("1")}}})
				return err
			})
			if changed {
				w.put(w.up[0], "b", "there")
			}
			w.kill(0)
			began := time.Now()
			w.put(w.start(1, first), "c", "1")
			if took := time.Since(began); took > joinPatience+5*time.Second {
				t.Errorf("it goes on with its own after %v", took)
			}
			w.want(w.up[1], "b", "1")
			if changed {
				w.put(w.up[1], "b", "here")
			}
			w.start(0, first)
			if !changed {
				w.eventually("it joins", func() error { return w.settled(1, 1) })
				w.want(w.up[0], "c", "1")
				return
			}
			w.eventually("the conflict is told", func() error {
				st, err := w.up[1].Status(t.Context())
				if err == nil && !strings.Contains(st.Note, "the key b is in both") {
					err = fmt.Errorf("note %q", st.Note)
				}
				return err
			})
			w.put(w.up[1], "d", "1")
			w.want(w.up[1], "b", "here")
			w.want(w.up[0], "b", "there")
		})
	}
}

// A realm that cannot be written to is not joined, and nobody waits for it.
func TestJoinNoMajority(t *testing.T) {
	inTown(t, 4, 1, func(t *testing.T, w *town) {
		for i := range 3 {
			w.start(i)
		}
		w.eventually("one realm", func() error { return w.settled(3, 0) })
		w.kill(1)
		w.kill(2)
		began := time.Now()
		for i := range 20 {
			w.put(w.start(3), fmt.Sprint("own", i), "x")
			<-time.After(time.Second)
			w.stop(3)
		}
		if took := time.Since(began); took > 25*time.Second {
			t.Errorf("twenty writes, a second apart, took %v", took)
		}
		w.start(1)
		w.start(3)
		w.eventually("it joins", func() error {
			st, err := w.up[3].Status(t.Context())
			if err == nil && st.RealmID != w.up[0].realmID() {
				err = errors.New("not yet")
			}
			return err
		})
		w.want(w.up[0], "own19", "x")
	})
}

// TestDiskFull: a voter whose disk is full when it has to write its vote stops, says so, and goes on when there is room.
func TestDiskFull(t *testing.T) {
	inTown(t, 3, 1, func(t *testing.T, w *town) {
		d := &brokenDisk{why: &fs.PathError{Op: "write", Path: "stable.new", Err: syscall.ENOSPC}}
		w.start(0, func(c *RealmConfig) {
			c.disk = func(dir string) (Disk, error) {
				x, err := openFiles(dir)
				d.StableStore = x.Stable
				x.Stable = d
				return x, err
			}
		})
		w.start(1)
		w.start(2)
		w.eventually("one realm", func() error { return w.settled(3, 0) })
		w.eventually("another one leads", func() error {
			if w.leader() == 0 {
				return cmp.Or(w.up[0].transfer(t.Context(), ""), errors.New("it leads"))
			}
			return nil
		})
		d.fail.Store(true)
		w.eventually("it stops", func() error { // whoever leads is ended, until the other has to vote
			if w.up[0].replica() == nil {
				return nil
			}
			if lead := w.leader(); lead != 0 {
				w.kill(lead)
				<-time.After(2 * time.Second)
				w.start(lead)
			}
			return errors.New("it still runs")
		})
		if st, err := w.up[0].Status(t.Context()); err != nil || !strings.Contains(st.Note, "no space left") || !strings.Contains(st.Note, "goes on by itself") {
			t.Errorf("note %q, %v", st.Note, err)
		}
		w.put(w.up[0], "a", "1") // by way of the others
		d.fail.Store(false)
		w.eventually("it goes on", func() error {
			if r := w.up[0].replica(); r == nil {
				return errors.New("not yet")
			}
			return w.settled(3, 0)
		})
		w.put(w.up[0], "b", "1")
	})
}

// Who watches while the node joins another realm is told that it has to begin again: revisions are counted anew there, and
// what the realm had before would be missed.
func TestWatchWhileJoining(t *testing.T) {
	inTown(t, 2, 1, func(t *testing.T, w *town) {
		type end struct {
			node int
			err  error
		}
		ends := make(chan end, 2)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		before := map[int]string{}
		for i := range 2 {
			r := w.start(i)
			before[i] = r.realmID()
			p, err := r.Range(ctx, grid.Query{Prefix: "kv/"})
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				ends <- end{i, r.Watch(ctx, "kv/", p.Revision, func(grid.Changes) error { return nil })}
			}()
		}
		if before[0] == before[1] {
			t.Fatal("they are one realm before anybody watches")
		}
		w.eventually("one realm", func() error { return w.settled(1, 1) })
		var e end
		select {
		case e = <-ends:
		case <-time.After(time.Minute):
			t.Fatal("both go on watching")
		}
		if before[e.node] == w.up[e.node].realmID() || !errors.Is(e.err, grid.OutOfDate) {
			t.Errorf("the watch of node %d, which was of realm %s, has ended: %v", e.node, before[e.node], e.err)
		}
		cancel()
		if e := <-ends; grid.CodeOf(e.err) != grid.Canceled {
			t.Errorf("that of the other, node %d, has ended: %v", e.node, e.err)
		}
	})
}

// What commands without a node have kept moves to the realm, but for what is there already with another value.
func TestCarryLocal(t *testing.T) {
	inTown(t, 2, 1, func(t *testing.T, w *town) {
		home, err := local.Open(t.Context(), dssync.MutexWrap(datastore.NewMapDatastore()), local.Config{})
		if err != nil {
			t.Fatal(err)
		}
		put := []grid.Entry{{Key: "kv/same", Value: []byte("1")}, {Key: "kv/other", Value: []byte("mine")}, {Key: "job/j1", Value: []byte("a job")}, {Key: "member/x", Value: []byte("?")}}
		if _, err := home.Commit(t.Context(), grid.Txn{Put: put}); err != nil {
			t.Fatal(err)
		}
		w.put(w.start(0), "same", "1")
		w.put(w.up[0], "other", "theirs")
		w.start(1)
		w.eventually("one realm", func() error { return w.settled(1, 1) })
		w.kill(1)
		w.start(1, func(c *RealmConfig) { c.Local = home })
		w.eventually("moved", func() error {
			_, err := w.up[1].Get(t.Context(), "job/j1")
			return err
		})
		w.want(w.up[1], "other", "theirs")
		w.eventually("deleted where it was", func() error {
			p, err := home.Range(t.Context(), grid.Query{})
			if err != nil || len(p.Entries) != 2 || p.Entries[0].Key != "kv/other" || p.Entries[1].Key != "member/x" {
				return fmt.Errorf("%v, %v", p.Entries, err)
			}
			return nil
		})
	})
}

// Nodes come and go at random. What was acknowledged stays, and in the end they are one realm.
func TestComings(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inTown(t, 5, uint64(seed+10), func(t *testing.T, w *town) {
				for i := range 5 {
					w.start(i)
				}
				w.eventually("one realm", func() error { return w.settled(5, 0) })
				sure := map[string]bool{}
				for n := range 60 {
					i := w.rand.IntN(5)
					down := 0
					for _, r := range w.up {
						if r == nil {
							down++
						}
					}
					switch {
					case w.up[i] == nil:
						w.start(i)
					case down < 2 && w.rand.IntN(2) == 0:
						w.kill(i)
					default:
						key := fmt.Sprint("n", n)
						ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
						if _, err := w.up[i].Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: grid.UserKey(key), Value: []byte("x")}}}); err == nil {
							sure[key] = true
						}
						cancel()
					}
					<-time.After(time.Duration(w.rand.IntN(3000)) * time.Millisecond)
				}
				for i := range 5 {
					if w.up[i] == nil {
						w.start(i)
					}
				}
				w.eventually("one realm again", func() error { return w.settled(5, 0) })
				if len(sure) < 5 {
					t.Errorf("only %d were acknowledged", len(sure))
				}
				for key := range sure {
					w.want(w.up[w.rand.IntN(5)], key, "x")
				}
			})
		})
	}
}

// What a stopped node knew last can be read, and a realm that has lost its majority can be had back from it.
func TestRecover(t *testing.T) {
	inTown(t, 3, 1, func(t *testing.T, w *town) {
		if m, err := LastKnown(t.Context(), w.dirs[0], w.ids[0]); m != nil || err != nil {
			t.Errorf("of nobody: %v, %v", m, err)
		}
		for i := range 3 {
			w.start(i)
		}
		w.eventually("one realm", func() error { return w.settled(3, 0) })
		w.put(w.up[0], "k", "v")
		w.want(w.up[2], "k", "v")
		realm := w.up[0].realmID()
		<-time.After(time.Second)
		for i := range 3 {
			w.kill(i)
		}
		m, err := LastKnown(t.Context(), w.dirs[0], w.ids[0])
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := m.Get("kv/k"); !ok || string(e.Value) != "v" {
			t.Errorf("last known: %v, %v", e, ok)
		}
		rec, err := Recover(t.Context(), w.dirs[0], w.ids[0])
		if err != nil || rec.Old != realm || rec.New == realm || rec.Voters != 3 {
			t.Fatalf("%+v, %v", rec, err)
		}
		w.start(0)
		w.want(w.up[0], "k", "v")
		w.put(w.up[0], "k", "new")
		w.eventually("alone", func() error { return w.settled(1, 0) })
		if _, err := Recover(t.Context(), w.dirs[0], w.ids[0]); !errors.Is(err, grid.Invalid) {
			t.Errorf("recovered twice: %v", err)
		}
		// The others come back after all.
		w.start(1)
		w.start(2)
		w.eventually("two realms", func() error {
			st, err := w.up[1].Status(t.Context())
			if err != nil || st.RealmID != realm || st.Leader == "" {
				return fmt.Errorf("%+v, %v", st, err)
			}
			return nil
		})
		w.want(w.up[1], "k", "v")
		w.want(w.up[0], "k", "new")
	})
}

// A node that was killed and starts again is heard of by the realm at once. Whoever is asked after that must not take
// this start for one that the node does not remember.
func TestOwnStartIsNoOther(t *testing.T) {
	inTown(t, 3, 4, func(t *testing.T, w *town) {
		for i := range 3 {
			w.start(i)
		}
		w.eventually("one realm", func() error { return w.settled(3, 0) })
		w.kill(1)
		b := w.start(1)
		w.eventually("the realm has heard of it", func() error {
			for _, i := range []int{0, 2} {
				a := w.up[i]
				a.mu.Lock()
				m := a.members[w.ids[1]]
				a.mu.Unlock()
				if m.Incarnation != b.incarnation() {
					return fmt.Errorf("node %d knows incarnation %d", i, m.Incarnation)
				}
			}
			return nil
		})
		for _, i := range []int{0, 2} {
			if g := w.up[i].greeting(w.ids[1]); g.Known >= b.incarnation() {
				t.Errorf("node %d knows incarnation %d, and this start is %d", i, g.Known, b.incarnation())
			}
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.old {
			t.Error("it takes its copy for an old one")
		}
	})
}
