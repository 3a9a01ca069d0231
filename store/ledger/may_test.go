package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/local"
	"github.com/wasmgrid/wasmgrid/store/ledger/machine"
)

// ruled has members with roles: nodes 0 to 2 are voters, 3 is a worker and 4 a submitter.
func ruled(w *town) func(*RealmConfig) {
	role := func(id peer.ID) grid.MemberRole {
		for i, of := range []grid.MemberRole{grid.RoleVoter, grid.RoleVoter, grid.RoleAdmin, grid.RoleWorker, grid.RoleSubmitter} {
			if w.ids[i] == id {
				return of
			}
		}
		return ""
	}
	return func(c *RealmConfig) {
		c.Keeps = func(id peer.ID) bool { return role(id).Includes(grid.RoleVoter) }
		c.May = func(from peer.ID, t *grid.Txn, held grid.Held) error {
			return grid.CheckWrites(from, role(from), t, held)
		}
	}
}

// What a member may not write it cannot, by whatever way: through the leader, through a replica that passes it on, as
// somebody else, with a session that is not its own, or when it joins.
func TestMayWrite(t *testing.T) {
	inTown(t, 5, 1, func(t *testing.T, w *town) {
		home, err := local.Open(t.Context(), dssync.MutexWrap(datastore.NewMapDatastore()), local.Config{})
		if err != nil {
			t.Fatal(err)
		}
		rules := ruled(w)
		const worker, submitter = 3, 4
		w.put(w.start(worker), "before", "1") // when nobody asked what it may
		w.stop(worker)
		for i := range w.ids {
			w.start(i, rules, func(c *RealmConfig) {
				if i == worker {
					c.Local = home
				}
			})
		}
		w.eventually("one realm", func() error { return w.settled(3, 0) })
		if e, err := home.Get(t.Context(), "kv/before"); err != nil || string(e.Value) != "1" {
			t.Errorf("what it may not bring along is lost: %v", err)
		}
		if _, err := w.up[0].Get(t.Context(), "kv/before"); grid.CodeOf(err) != grid.NotFound {
			t.Errorf("it brought along what it may not: %v", err)
		}
		put := func(key string) grid.Txn { return grid.Txn{Put: []grid.Entry{{Key: key, Value: []byte("v")}}} }
		try := func(way string) {
			t.Helper()
			for _, tt := range []struct {
				by  int
				t   grid.Txn
				may bool
			}{
				{worker, put("kv/a"), false},
				{worker, put("node/" + w.ids[worker].String()), true},
				{worker, put("node/" + w.ids[0].String()), false},
				{worker, put("ref/r"), false},
				{worker, put("secret/s"), false},
				{worker, grid.Txn{Delete: []string{"member/" + w.ids[0].String()}}, false},
				{worker, put("kv/counters/a"), true}, // a job was granted them
				{submitter, put("kv/a"), true},
				{submitter, put("ref/r"), true},
				{submitter, put("realm/plugins"), false},
				{0, put("realm/plugins"), false},
				{2, put("realm/plugins"), true},
			} {
				_, err := w.up[tt.by].Commit(t.Context(), tt.t)
				if (err == nil) != tt.may || err != nil && (!errors.Is(err, grid.Denied) || grid.AdviceOf(err) == "") {
					t.Errorf("%s: node %d: %+v: %v", way, tt.by, tt.t, err)
				}
			}
		}
		grant, err := grid.Marshal(map[string][]string{"kv": {"counters/"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.up[submitter].Commit(t.Context(), grid.Txn{Put: []grid.Entry{{Key: "grant/j", Value: grant}}}); err != nil {
			t.Fatal(err)
		}
		try("through the leader")
		lead := w.leader()
		for _, i := range []int{worker, submitter} {
			w.world.Cut(w.ids[i], w.ids[lead])
		}
		try("through another replica")
		for _, i := range []int{worker, submitter} {
			w.world.Heal(w.ids[i], w.ids[lead])
		}

		ctx, bad := t.Context(), w.up[worker]
		w.eventually("it is connected again", func() error { _, err := bad.Get(ctx, "ref/r"); return err })
		theirs, err := w.up[0].OpenSession(ctx, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		under := put("node/" + w.ids[worker].String())
		under.Put[0].Session = theirs.ID()
		if _, err := bad.Commit(ctx, under); !errors.Is(err, grid.Denied) {
			t.Errorf("under another's session: %v", err)
		}
		if _, err := bad.apply(ctx, "end", &machine.Command{End: []grid.SessionID{theirs.ID()}}); !errors.Is(err, grid.Denied) {
			t.Errorf("the end of another's session: %v", err)
		}
		if err := theirs.Close(ctx); err != nil {
			t.Error(err)
		}
		mine, err := bad.OpenSession(ctx, time.Minute)
		if err == nil {
			err = mine.Close(ctx)
		}
		if err != nil {
			t.Errorf("its own session: %v", err)
		}

		// As somebody else, and as a leader.
		txn := put("secret/s")
		txn.ID = grid.NewRequestID()
		batch, err := machine.AppendBatch(nil, []machine.Command{{Txn: &txn, Base: bad.base()}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			data, err := grid.Marshal(&request{Realm: bad.realmID(), Kind: askCommit, Hops: 1, Wait: 5000, Origin: w.ids[2], Batch: batch, Term: bad.Ledger.view().term})
			if err != nil {
				t.Fatal(err)
			}
			if data, err = w.nets[worker].Call(ctx, w.ids[i], callProtocol, data); err != nil {
				t.Fatal(err)
			}
			p, err := decodeReply(data)
			if err != nil || p.Code != grid.Denied || !strings.Contains(p.Message, "only replicas") {
				t.Errorf("in the name of an admin: %+v, %v", p, err)
			}
		}
		for _, g := range []greeting{
			{Do: doTake, Entries: put("secret/s").Put},
			{Do: doTake, Entries: put("job/x").Put},
			{Do: doServe, Servers: []server{{ID: w.ids[worker], Voter: true}}},
		} {
			g.Name, g.Realm, g.Incarnation = DefaultRealm, bad.realmID(), bad.incarnation()
			if _, err := bad.call(ctx, w.ids[0], g, takeTimeout); !errors.Is(err, grid.Denied) {
				t.Errorf("%s: %v", g.Do, err)
			}
		}
		if _, err := w.up[0].Get(ctx, "secret/s"); grid.CodeOf(err) != grid.NotFound {
			t.Errorf("it is written: %v", err)
		}
	})
}

// A replica that may keep the ledger no more passes nothing on either, though it is still on the list; and a node that never might
// takes nobody into the realm.
func TestMayForward(t *testing.T) {
	inTown(t, 3, 1, func(t *testing.T, w *town) {
		var barred atomic.Bool
		rules := func(c *RealmConfig) {
			c.Keeps = func(id peer.ID) bool { return !barred.Load() || id != w.ids[1] }
			c.May = func(from peer.ID, _ *grid.Txn, _ grid.Held) error {
				if from == w.ids[2] {
					return nil
				}
				return grid.Errorf(grid.Denied, "not %s", from)
			}
			c.Plan.Stable = time.Hour // so that it stays on the list
		}
		for i := range 3 {
			w.start(i)
		}
		w.eventually("one realm", func() error { return w.settled(3, 0) })
		for i := range 3 {
			w.stop(i)
		}
		for i := range 3 {
			w.start(i, rules)
		}
		lead := w.leader()
		if lead == 1 {
			t.Skip("this seed has the wrong leader")
		}
		txn := grid.Txn{ID: grid.NewRequestID(), Put: []grid.Entry{{Key: "x", Value: []byte("v")}}}
		send := func() (*reply, error) {
			r := w.up[1]
			batch, err := machine.AppendBatch(nil, []machine.Command{{Txn: &txn, Base: r.base()}})
			if err != nil {
				return nil, err
			}
			data, err := grid.Marshal(&request{Realm: r.realmID(), Kind: askCommit, Wait: 5000, Origin: w.ids[2], Batch: batch, Term: w.up[lead].Ledger.view().term})
			if err != nil {
				return nil, err
			}
			if data, err = w.nets[1].Call(t.Context(), w.ids[lead], callProtocol, data); err != nil {
				return nil, err
			}
			return decodeReply(data)
		}
		w.eventually("a replica passes on", func() error {
			p, err := send()
			if err == nil && p.Code != 0 {
				err = fmt.Errorf("%+v", p)
			}
			return err
		})
		barred.Store(true)
		// or it is off the list by then
		if p, err := send(); err != nil || p.Code == 0 || !strings.Contains(p.Message, "pass nothing on") && !strings.Contains(p.Message, "only replicas") {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// A node that may not keep the ledger says to all others, which start at the same time, that they were removed from the realm, and that
// their copies are old ones. Nobody heeds it: they have what they had.
func TestLiesOnRestart(t *testing.T) {
	inTown(t, 5, 1, func(t *testing.T, w *town) {
		const worker = 3
		rules := ruled(w)
		for i := range w.ids {
			w.start(i, rules)
		}
		w.eventually("one realm", func() error { return w.settled(3, 0) })
		w.put(w.up[0], "kept", "1")
		realm, name := w.up[0].realmID(), w.up[0].realmName()
		for i := range w.ids {
			w.stop(i)
		}
		net := w.world.Join(w.ids[worker])
		defer net.Close()
		net.Serve(realmProtocol, func(context.Context, peer.ID, []byte) ([]byte, error) {
			return grid.Marshal(greeting{
				Name: name, Realm: realm, Incarnation: 1, Start: 1, Members: 5, Copy: true, Replica: true, Servers: []server{{w.ids[worker], true}},
				Known: 1 << 40, Acked: 1 << 40, Removed: true, Leads: true,
			})
		})
		w.start(0, rules) // alone with the liar: there is no leader
		for range 50 {
			<-time.After(200 * time.Millisecond)
		}
		if id := w.up[0].realmID(); id != realm {
			t.Fatalf("it has left the realm %s for %s", realm, id)
		}
		w.start(1, rules)
		w.start(2, rules)
		w.eventually("one realm again", func() error { return w.settled(3, 0) })
		for i := range 3 {
			if e, err := w.up[i].Get(t.Context(), "kv/kept"); err != nil || string(e.Value) != "1" || w.up[i].realmID() != realm {
				t.Errorf("node %d has lost it: %v", i, err)
			}
		}
	})
}

// Voters that may keep the ledger no more, since a moment before all nodes went down, still count when those start again: else nobody
// could take them off.
func TestBarredRestart(t *testing.T) {
	inTown(t, 3, 1, func(t *testing.T, w *town) {
		for i := range w.ids {
			w.start(i)
		}
		w.eventually("one realm", func() error { return w.settled(3, 0) })
		w.put(w.up[0], "kept", "1")
		for i := range w.ids {
			w.stop(i)
		}
		for i := range w.ids {
			w.start(i, func(c *RealmConfig) { c.Keeps = func(id peer.ID) bool { return id == w.ids[0] } })
		}
		w.eventually("the ledger answers", func() error {
			_, err := w.up[0].Get(t.Context(), "kv/kept")
			return err
		})
	})
}
