package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestOneStartsAtOnce(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, lan(1), nil)
		n := w.cluster(1, 0)[0]
		_, err := n.Commit(w.ctx, put("a", "1"))
		w.must(err)
		w.crash(n)
		began := time.Now()
		n = w.start(0)
		w.must(n.replicate(w.ctx, testRealm))
		e, err := n.Get(w.ctx, "a")
		w.must(err)
		if took := time.Since(began); string(e.Value) != "1" || took > 100*time.Millisecond {
			t.Errorf("%q after %v", e.Value, took)
		}
	})
}

func TestLeaderDies(t *testing.T) {
	for seed := range uint64(3) {
		virtual(t, func(t *testing.T) {
			w := newWorld(t, lan(seed), nil)
			nodes := w.cluster(3, 1)
			client := nodes[3]
			_, err := client.Commit(w.ctx, put("a", "1"))
			w.must(err)
			old := w.leader(nodes...)
			w.crash(old)
			began := time.Now()
			_, err = client.Commit(w.ctx, put("a", "2"))
			w.must(err)
			t.Logf("first commit after %v", time.Since(began))
			for _, n := range without(nodes, old) {
				if e, err := n.Get(w.ctx, "a"); err != nil || string(e.Value) != "2" {
					t.Errorf("%q, %v", e.Value, err)
				}
			}
			again := w.start(0)
			w.must(again.replicate(w.ctx, testRealm))
			w.until("the old leader has caught up", func() bool {
				p, err := again.Range(w.ctx, grid.Query{Stale: true})
				return err == nil && len(p.Entries) == 1 && string(p.Entries[0].Value) == "2"
			})
		})
	}
}

func TestHandOver(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, lan(1), nil)
		nodes := w.cluster(3, 1)
		old := w.leader(nodes...)
		began := time.Now()
		w.must(old.Close())
		_, err := nodes[3].Commit(w.ctx, put("a", "1"))
		w.must(err)
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("a leader that closes was followed after %v", took)
		}
	})
}

func TestCutOff(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, lan(2), nil)
		nodes := w.cluster(3, 0)
		old := w.leader(nodes...)
		others := without(nodes, old)
		_, err := old.Commit(w.ctx, put("a", "1"))
		w.must(err)
		w.cut(old, others...)

		// Nobody on the lonely side is told anything, in time.
		for _, limit := range []time.Duration{50 * time.Millisecond, 3 * time.Second} {
			for what, f := range map[string]func(ctx context.Context) error{
				"get":    func(ctx context.Context) error { _, err := old.Get(ctx, "a"); return err },
				"range":  func(ctx context.Context) error { _, err := old.Range(ctx, grid.Query{}); return err },
				"commit": func(ctx context.Context) error { _, err := old.Commit(ctx, put("lonely", "1")); return err },
				"open":   func(ctx context.Context) error { _, err := old.OpenSession(ctx, time.Second); return err },
			} {
				ctx, cancel := context.WithTimeout(w.ctx, limit)
				began := time.Now()
				err := f(ctx)
				if took := time.Since(began); took > limit+10*time.Millisecond {
					t.Errorf("%s within %v took %v", what, limit, took)
				}
				wantCode(t, err, grid.Unavailable, grid.Deadline)
				cancel()
			}
		}
		if p, err := old.Range(w.ctx, grid.Query{Stale: true}); err != nil || len(p.Entries) != 1 {
			t.Errorf("a stale read: %+v, %v", p, err)
		}
		// The others go on.
		_, err = others[0].Commit(w.ctx, put("a", "2"))
		w.must(err)
		w.heal(old, others...)
		if e, err := old.Get(w.ctx, "a"); err != nil || string(e.Value) != "2" {
			t.Errorf("after the cut: %q, %v", e.Value, err)
		}
	})
}

// TestAround cuts a node off from the leader alone: it goes through another replica.
func TestAround(t *testing.T) {
	virtual(t, func(t *testing.T) {
		net := lan(3)
		net.Silence = time.Second
		w := newWorld(t, net, nil)
		nodes := w.cluster(3, 1)
		client := nodes[3]
		lead := w.leader(nodes...)
		s, err := client.OpenSession(w.ctx, 3*time.Second)
		w.must(err)
		w.cut(client, lead)
		_, err = client.Commit(w.ctx, put("a", "1"))
		w.must(err)
		wait(t, s.Done(), 10*time.Second) // nothing to see
		select {
		case <-s.Done():
			t.Error("the session has ended")
		default:
		}
		if e, err := client.Get(w.ctx, "a"); err != nil || string(e.Value) != "1" {
			t.Errorf("%q, %v", e.Value, err)
		}
	})
}

// wait waits until something is closed, at most for d; of virtual time.
func wait(t *testing.T, c <-chan struct{}, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c:
	case <-timer.C:
	}
}

// TestOnce commits while links break at random: whatever is sent again is applied once. A transaction that puts a key which
// must not be there would answer Conflict the second time.
func TestOnce(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		virtual(t, func(t *testing.T) {
			net := lan(seed)
			net.Silence = 300 * time.Millisecond
			w := newWorld(t, net, nil)
			nodes := w.cluster(3, 2)
			random := rand.New(rand.NewPCG(seed, 1))
			stop := make(chan struct{})
			var breaking, writing sync.WaitGroup
			breaking.Go(func() {
				for {
					a, b := nodes[random.IntN(5)], nodes[random.IntN(5)]
					if a != b {
						w.cut(a, b)
						wait(t, stop, time.Duration(random.IntN(700))*time.Millisecond)
						w.heal(a, b)
					}
					wait(t, stop, time.Duration(random.IntN(200))*time.Millisecond)
					if isClosed(stop) {
						return
					}
				}
			})
			const each = 60
			for i, n := range nodes {
				writing.Go(func() {
					for j := range each {
						key := fmt.Sprintf("%d/%d", i, j)
						ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
						_, err := n.Commit(ctx, grid.Txn{If: []grid.Cond{{Key: key}}, Put: []grid.Entry{{Key: key, Value: []byte("x")}}})
						cancel()
						if err != nil {
							t.Errorf("seed %d: %s: %v", seed, key, err)
						}
					}
				})
			}
			writing.Wait()
			close(stop)
			breaking.Wait()
			p, err := nodes[4].Range(w.ctx, grid.Query{})
			w.must(err)
			if len(p.Entries) != 5*each || p.Revision != 5*each {
				t.Errorf("%d entries at revision %d, want %d", len(p.Entries), p.Revision, 5*each)
			}
		})
	}
}

func TestRestart(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, lan(5), nil)
		nodes := w.cluster(3, 0)
		for i := range 100 {
			_, err := nodes[i%3].Commit(w.ctx, put(fmt.Sprintf("k%03d", i), "v"))
			w.must(err)
		}
		for _, n := range nodes {
			w.crash(n)
		}
		nodes = nil
		for _, i := range []int{2, 0} { // in another order; two are enough
			n := w.start(i)
			w.must(n.replicate(w.ctx, testRealm))
			nodes = append(nodes, n)
		}
		p, err := nodes[0].Range(w.ctx, grid.Query{})
		w.must(err)
		if len(p.Entries) != 100 || p.Revision != 100 {
			t.Errorf("%d entries at revision %d", len(p.Entries), p.Revision)
		}
	})
}

func TestSessionOfTheDead(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, lan(6), nil)
		nodes := w.cluster(3, 1)
		client := nodes[3]
		const ttl = 10 * time.Second
		s, err := client.OpenSession(w.ctx, ttl)
		w.must(err)
		_, err = client.Commit(w.ctx, grid.Txn{Put: []grid.Entry{{Key: "node/x", Session: s.ID()}}})
		w.must(err)
		// It is kept alive, through a change of the leader, too.
		wait(t, s.Done(), 3*ttl)
		w.crash(w.leader(nodes...))
		wait(t, s.Done(), 3*ttl)
		if isClosed(s.Done()) {
			t.Fatal("the session has ended")
		}
		var live []*node
		for _, n := range nodes[:3] {
			if !n.isClosed() {
				live = append(live, n)
			}
		}
		if _, err := live[0].Get(w.ctx, "node/x"); err != nil {
			t.Fatal(err)
		}
		// Its owner dies; its connection tells.
		w.crash(client)
		began := time.Now()
		w.until("the entry vanishes", func() bool {
			_, err := live[0].Get(w.ctx, "node/x")
			return errors.Is(err, grid.NotFound)
		})
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v to notice a death", took)
		}
	})
}

func (n *node) isClosed() bool {
	n.Ledger.mu.Lock()
	defer n.Ledger.mu.Unlock()
	return n.closed
}

func TestSessionOfTheCutOff(t *testing.T) {
	virtual(t, func(t *testing.T) {
		net := lan(7)
		net.Silence = time.Hour // nobody notices
		w := newWorld(t, net, nil)
		nodes := w.cluster(3, 1)
		client := nodes[3]
		const ttl = 3 * time.Second
		s, err := client.OpenSession(w.ctx, ttl)
		w.must(err)
		_, err = client.Commit(w.ctx, grid.Txn{Put: []grid.Entry{{Key: "node/x", Session: s.ID()}}})
		w.must(err)
		w.cut(client, nodes[:3]...)
		began := time.Now()
		<-s.Done()
		told := time.Since(began)
		if told > ttl {
			t.Errorf("the owner heard after %v that it may be over", told)
		}
		if _, err := nodes[0].Get(w.ctx, "node/x"); err != nil {
			t.Errorf("the entry vanished before its owner knew: %v", err)
		}
		w.until("the entry vanishes", func() bool {
			_, err := nodes[0].Get(w.ctx, "node/x")
			return errors.Is(err, grid.NotFound)
		})
		if took := time.Since(began); took > 3*ttl {
			t.Errorf("it vanished after %v", took)
		}
	})
}

// TestWatchGoesOn watches from a client while replicas die and come back one after the other.
func TestWatchGoesOn(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, lan(8), nil)
		nodes := w.cluster(3, 1)
		ctx, cancel := context.WithCancel(w.ctx)
		defer cancel()
		const writes = 200
		var watching sync.WaitGroup
		for _, n := range nodes[2:] {
			watching.Go(func() {
				next := uint64(1)
				err := n.Watch(ctx, "w/", 0, func(c grid.Changes) error {
					if c.Revision != next || len(c.Put) != 1 || string(c.Put[0].Value) != fmt.Sprint(next) {
						return fmt.Errorf("got %+v, want revision %d", c, next)
					}
					if next++; next > writes {
						return errEnough
					}
					return nil
				})
				if err != errEnough {
					t.Error(err)
				}
			})
		}
		for i := 1; i <= writes; i++ {
			_, err := nodes[3].Commit(w.ctx, put("w/k", fmt.Sprint(i)))
			w.must(err)
			if i%50 == 25 {
				k := i / 50 % 2
				w.crash(nodes[k])
				nodes[k] = w.start(k)
				w.must(nodes[k].replicate(w.ctx, testRealm))
			}
		}
		watching.Wait()
	})
}

var errEnough = errors.New("enough")
