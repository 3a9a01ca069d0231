//go:build unix

package e2e

import (
	"context"
	"encoding/hex"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/histories"
)

// userKeys is the ledger as a node's API has it for users. Their keys are all that it shows.
type userKeys struct {
	grid.Ledger // nil: the API has no more
	c           *crew
	i           int
}

func fromKV(k api.KV) grid.Entry {
	v, _ := k.Bytes() // what the API sends is well formed
	return grid.Entry{Key: k.Key, Value: v, Version: k.Version}
}

func (l *userKeys) Get(ctx context.Context, key string) (grid.Entry, error) {
	k, err := l.c.node(l.i).KVGet(ctx, key, false)
	return fromKV(k), err
}

func (l *userKeys) Range(ctx context.Context, q grid.Query) (grid.Page, error) {
	p, err := l.c.node(l.i).KVRange(ctx, api.KVQuery{Prefix: q.Prefix, After: q.After, Limit: q.Limit, At: q.At, Stale: q.Stale})
	page := grid.Page{Revision: p.Revision, More: p.More}
	for _, k := range p.Entries {
		page.Entries = append(page.Entries, fromKV(k))
	}
	return page, err
}

func (l *userKeys) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	d := api.TxnDoc{ID: hex.EncodeToString([]byte(t.ID)), Delete: t.Delete}
	for _, c := range t.If {
		switch {
		case c.Prefix:
			d.If = append(d.If, api.TxnCond{Prefix: &c.Key, Count: &c.Count, Version: &c.Version})
		case c.Version == 0:
			d.If = append(d.If, api.TxnCond{Key: &c.Key, Absent: true})
		default:
			d.If = append(d.If, api.TxnCond{Key: &c.Key, Version: &c.Version})
		}
	}
	for _, e := range t.Put {
		d.Put = append(d.Put, api.KV{Key: e.Key, Value: e.Value})
	}
	return l.c.node(l.i).KVTxn(ctx, d)
}

// Watch begins again behind what it has told when its node has ended.
func (l *userKeys) Watch(ctx context.Context, prefix string, after uint64, f func(grid.Changes) error) error {
	for {
		err := l.c.node(l.i).KVWatch(ctx, prefix, &after, func(k api.KVChanges) error {
			if len(k.Put)+len(k.Delete) == 0 {
				return nil // says where it begins
			}
			c := grid.Changes{Revision: k.Revision, Delete: k.Delete}
			for _, e := range k.Put {
				e.Version = k.Revision
				c.Put = append(c.Put, fromKV(e))
			}
			if err := f(c); err != nil {
				return err
			}
			after = k.Revision
			return nil
		})
		if ctx.Err() != nil || grid.CodeOf(err) != grid.Unavailable {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// TestHistories: what clients of real nodes see is linearizable, money is neither made nor lost, and a watch tells
// all of it, while the ledger's leader and others are killed, paused and started again.
func TestHistories(t *testing.T) {
	t.Parallel()
	long(t)
	many, seed := rounds(t, 3)
	c := newCrew(t, 3, "--workers", "1")
	defer c.tell()
	c.r = rand.New(rand.NewPCG(seed, 0))
	h := histories.New()
	plain := func(i int) grid.Ledger { return &userKeys{c: c, i: i} }
	all, err := histories.NewAll(t.Context(), h.Client(plain(0)), "h/")
	if err != nil {
		t.Fatal(err)
	}
	watched := histories.Watch(t, plain(0), all.Prefix, 0)
	var lines []grid.Ledger
	for i := range 2 * len(c.nodes) {
		lines = append(lines, h.Client(plain(i%len(c.nodes))))
	}
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		histories.Run(t, seed, lines, all.Steps(), 1<<30, 40*time.Millisecond, 3*time.Second, end)
	}()
	ended := false
	stop := func() {
		if !ended {
			ended = true
			close(end)
			<-done
		}
	}
	defer stop()
	pause := func(lo, hi time.Duration) { <-time.After(lo + time.Duration(c.r.Int64N(int64(hi-lo)))) }
	for round := range many {
		pause(500*time.Millisecond, 2*time.Second)
		who := c.leader()
		if round%3 == 2 {
			who = c.but(who)
		}
		if round%3 == 1 {
			t.Logf("pause %d", who)
			p := c.nodes[who].cmd.Process
			if err := p.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			pause(200*time.Millisecond, 4*time.Second)
			if err := p.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			continue
		}
		t.Logf("kill %d", who)
		c.kill(who)
		pause(0, 2*time.Second)
		c.start(who)
	}
	pause(500*time.Millisecond, time.Second)
	stop()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var log []grid.Changes
	Eventually(t, "the ledger answers", func(ctx context.Context) error {
		_, err := plain(0).Range(ctx, grid.Query{Prefix: all.Prefix})
		return err
	})
	log = all.End(ctx, t, h.Client(plain(0)), watched)
	h.Replay(t, log)
	h.Linearizable(t)
	known, unknown := h.Calls()
	t.Logf("seed %d: %d calls, and %d without an answer; %d transactions", seed, known, unknown, len(log))
}
