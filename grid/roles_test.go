package grid_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// club is a private swarm's members with their roles, as all of its nodes know them.
type club struct {
	mu      sync.Mutex
	roles   map[peer.ID]grid.MemberRole // "": was revoked
	refused []string                    // writes
}

func (c *club) with(id peer.ID, role grid.MemberRole) *club {
	if c == nil {
		c = &club{roles: map[peer.ID]grid.MemberRole{}}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roles[id] = role
	return c
}

func (c *club) role(id peer.ID) (role grid.MemberRole, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	role, known = c.roles[id]
	return role, known
}

func (c *club) may(id peer.ID, need grid.MemberRole) error {
	role, known := c.role(id)
	switch {
	case !known:
		return grid.Errorf(grid.Unavailable, "%s is not known", id)
	case role == "":
		return grid.Errorf(grid.Denied, "the membership of %s was revoked", id)
	case !role.Includes(need):
		return grid.Errorf(grid.Denied, "%s is a member as %s, which is no %s", id, role, need).Hint("grid member set-role %s %s", id, need)
	}
	return nil
}

// ruled is a ledger whose leader looks at the role of the node that writes.
type ruled struct {
	*fake.Seat
	id peer.ID
	*club
}

func (l ruled) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	role, _ := l.role(l.id)
	if err := grid.CheckWrites(l.id, role, &t, held(l.Ledger)); err != nil {
		l.mu.Lock()
		l.refused = append(l.refused, err.Error())
		l.mu.Unlock()
		return 0, err
	}
	return l.Seat.Commit(ctx, t)
}

func held(l grid.Ledger) grid.Held {
	return func(prefix string, f func(grid.Entry) error) error {
		_, err := grid.RangeAll(context.Background(), l, prefix, false, f)
		return err
	}
}

var allRoles = []grid.MemberRole{grid.RoleWorker, grid.RoleSubmitter, grid.RoleVoter, grid.RoleAdmin}

// TestWriteRules: every prefix, by every role, of its own and of others.
func TestWriteRules(t *testing.T) {
	me, you := nodeID("me"), nodeID("you")
	mine, err := grid.AuditEntry(fake.Key("me"), grid.AuditFact{Act: grid.ActDrain, Subject: "x"})
	if err != nil {
		t.Fatal(err)
	}
	yours, err := grid.AuditEntry(fake.Key("you"), grid.AuditFact{Act: grid.ActDrain, Subject: "x"})
	if err != nil {
		t.Fatal(err)
	}
	renamed := mine
	renamed.Key = yours.Key
	grant, err := grid.Marshal(map[string][]string{"kv": {"counters/"}})
	if err != nil {
		t.Fatal(err)
	}
	var l fake.Ledger
	if _, err := l.Commit(within(t), grid.Txn{Put: []grid.Entry{{Key: "grant/job-1", Value: grant}, {Key: "grant/job-2", Value: []byte("nonsense")}}}); err != nil {
		t.Fatal(err)
	}
	put := func(key string) grid.Txn { return grid.Txn{Put: []grid.Entry{{Key: key, Value: []byte("v")}}} }
	job := func(id grid.JobID, owner, origin peer.ID) grid.Entry {
		value, err := grid.Marshal(grid.Record{ID: id, Spec: grid.Link{Cid: grid.NewBlock(cid.Raw, nil).CID()}, Owner: owner, Origin: origin, Epoch: 1, State: grid.Running})
		if err != nil {
			t.Fatal(err)
		}
		return grid.Entry{Key: grid.JobKeys + string(id), Value: value}
	}
	if _, err := l.Commit(within(t), grid.Txn{Put: []grid.Entry{job("jtheirs", you, you), job("jtheirs2", you, "")}}); err != nil {
		t.Fatal(err)
	}
	used := func(id grid.JobID, node peer.ID, user string) grid.Txn {
		value, err := grid.Marshal(map[string]any{"node": node, "user": user, "used": grid.History{}})
		if err != nil {
			t.Fatal(err)
		}
		return grid.Txn{Put: []grid.Entry{{Key: "usage/job/" + string(id), Value: value}}}
	}
	del := func(key string) grid.Txn { return grid.Txn{Delete: []string{key}} }
	signed := func(e grid.Entry) grid.Txn { return grid.Txn{Put: []grid.Entry{e}} }
	const nobody = grid.MemberRole("nobody")
	for _, tt := range []struct {
		what string
		t    grid.Txn
		need grid.MemberRole // the least that may
	}{
		{"nothing", grid.Txn{If: []grid.Cond{{Key: "secret/a"}}}, grid.RoleWorker},
		{"its own node", put("node/" + me.String()), grid.RoleWorker},
		{"another node", put("node/" + you.String()), grid.RoleVoter},
		{"another node's end", del("node/" + you.String()), grid.RoleVoter},
		{"its own place in the realm", put("member/" + me.String()), grid.RoleWorker},
		{"another's place in the realm", put("member/" + you.String()), grid.RoleVoter},
		{"its own act", signed(mine), grid.RoleWorker},
		{"another's act", signed(yours), grid.RoleVoter},
		{"its own act as another", signed(renamed), grid.RoleVoter},
		{"no act", put("audit/log/0123"), grid.RoleVoter},
		{"an act's end", del(mine.Key), grid.RoleVoter},
		{"a sealed log", put("audit/head/x"), grid.RoleVoter},
		{"a job", signed(job("jmine", me, me)), grid.RoleSubmitter},
		{"a job in another's name", signed(job("jmine", me, you)), grid.RoleVoter},
		{"a job that it takes over", signed(job("jtheirs", me, you)), grid.RoleSubmitter},
		{"one of before there were origins", signed(job("jtheirs2", me, you)), grid.RoleSubmitter},
		{"a job that it makes its own", signed(job("jtheirs", me, me)), grid.RoleVoter},
		{"no job", put("job/jmine"), grid.RoleVoter},
		{"a job's end", del("open/job-1"), grid.RoleSubmitter},
		{"a job's owner", put("open/job-1"), grid.RoleSubmitter},
		{"what a job may write", put("grant/job-1"), grid.RoleSubmitter},
		{"what its job has used", used("jnew", me, ""), grid.RoleSubmitter},
		{"what a job has used that it took over", used("jtheirs", you, ""), grid.RoleSubmitter},
		{"what such a job has used, as its own", used("jtheirs", me, ""), grid.RoleVoter},
		{"what such a job has used, as another user's", used("jtheirs", you, "bob"), grid.RoleVoter},
		{"what its job has used, as another's", used("jnew", you, ""), grid.RoleVoter},
		{"what a job has used, forgotten", del("usage/job/jtheirs"), grid.RoleVoter},
		{"what somebody has used", put("usage/sum/" + me.String() + "/ann"), grid.RoleVoter},
		{"what somebody has used, forgotten", del("usage/sum/" + me.String() + "/ann"), grid.RoleVoter},
		{"a quota", put("quota/day/ann"), grid.RoleAdmin},
		{"a token", put("token/x"), grid.RoleAdmin},
		{"a ref", put("ref/a"), grid.RoleSubmitter},
		{"a ref's end", del("ref/a"), grid.RoleSubmitter},
		{"a key", put("kv/a"), grid.RoleSubmitter},
		{"a key's end", del("kv/a"), grid.RoleSubmitter},
		{"a key that a job was granted", put("kv/counters/a"), grid.RoleWorker},
		{"the end of one", del("kv/counters/a"), grid.RoleWorker},
		{"one, and another", grid.Txn{Put: []grid.Entry{{Key: "kv/counters/a"}, {Key: "kv/b"}}}, grid.RoleSubmitter},
		{"a node's good name", put("standing/" + me.String()), grid.RoleSubmitter},
		{"a node's bad name, removed", del("standing/" + me.String()), grid.RoleAdmin},
		{"a membership", put("swarm/p-x/member/" + me.String()), grid.RoleVoter},
		{"a revocation's end", del("swarm/p-x/revoked/" + me.String()), grid.RoleVoter},
		{"a secret", put("secret/a"), grid.RoleVoter},
		{"a secret's end", del("secret/a"), grid.RoleAdmin},
		{"a plugin", put("plugin/a@1"), grid.RoleAdmin},
		{"an alias", put("plugin-alias/a@latest"), grid.RoleAdmin},
		{"an extension", put("extension/admission"), grid.RoleAdmin},
		{"a policy", put("realm/plugins"), grid.RoleAdmin},
		{"a policy's end", del("realm/plugins"), grid.RoleAdmin},
		{"what nobody has heard of", put("x"), grid.RoleAdmin},
		{"a job, and a policy", grid.Txn{Put: []grid.Entry{job("jmine", me, me), {Key: "realm/plugins"}}}, grid.RoleAdmin},
	} {
		for _, role := range append(slices.Clone(allRoles), "", nobody) {
			err := grid.CheckWrites(me, role, &tt.t, held(&l))
			want := role.Includes(tt.need) || len(tt.t.Put)+len(tt.t.Delete) == 0 || tt.need == grid.RoleWorker // who is nobody is not asked about
			if (err == nil) != want {
				t.Errorf("%s, by a %s: %v", tt.what, role, err)
			}
			if strings.HasPrefix(tt.what, "a job ") || strings.HasPrefix(tt.what, "what") && strings.Contains(tt.what, " job ") || tt.what == "no job" {
				continue // the role is not what is wrong
			}
			if err != nil && (!errors.Is(err, grid.Denied) || !strings.Contains(grid.AdviceOf(err), "grid member set-role "+me.String())) {
				t.Errorf("%s, by a %s: %v, %s", tt.what, role, err, grid.AdviceOf(err))
			}
		}
	}
}

// TestWriteRulesTold: docs/swarm.md has the table.
func TestWriteRulesTold(t *testing.T) {
	doc, err := os.ReadFile("../docs/swarm.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range grid.WriteRules {
		if row := fmt.Sprintf("| `%s` | %s | `%s` | `%s` |", r.Prefix, r.What, r.Put, r.Delete); !strings.Contains(string(doc), row) {
			t.Errorf("docs/swarm.md lacks the row\n%s", row)
		}
	}
}

// TestGrantsReadOnce: of a transaction that writes a thousand keys, the leader looks through the grants of open jobs once.
func TestGrantsReadOnce(t *testing.T) {
	var txn grid.Txn
	for i := range 1000 {
		txn.Put = append(txn.Put, grid.Entry{Key: fmt.Sprintf("kv/counters/%d", i)})
		txn.Delete = append(txn.Delete, fmt.Sprintf("kv/counters/x%d", i))
	}
	grant, err := grid.Marshal(map[string][]string{"kv": {"counters/"}})
	if err != nil {
		t.Fatal(err)
	}
	looks := 0
	held := func(_ string, f func(grid.Entry) error) error {
		looks++
		return f(grid.Entry{Key: "grant/job-1", Value: grant})
	}
	if err := grid.CheckWrites(nodeID("me"), grid.RoleWorker, &txn, held); err != nil || looks != 1 {
		t.Errorf("%d looks, %v", looks, err)
	}
}

// TestRolesSubmit: who may not submit is told so at once, and what to do.
func TestRolesSubmit(t *testing.T) {
	for _, role := range allRoles {
		w := fake.NewWorld(new(fake.Hub), "a")
		c := w.Config()
		c.May = (*club)(nil).with(w.ID, role).may
		n := open(t, c)
		_, err := n.Submit(within(t), request(w, 1))
		if role.Includes(grid.RoleSubmitter) != (err == nil) {
			t.Errorf("a %s submits: %v", role, err)
		}
		if err != nil && (!errors.Is(err, grid.Denied) || !strings.Contains(err.Error(), string(role)) || !strings.Contains(grid.AdviceOf(err), "set-role")) {
			t.Errorf("a %s is told %v, %s", role, err, grid.AdviceOf(err))
		}
		_, err = n.SetSecret(within(t), "s", []byte("x"))
		if role.Includes(grid.RoleAdmin) != (err == nil) {
			t.Errorf("a %s sets a secret: %v", role, err)
		}
	}
}

// roled is bubble with members of roles.
func roled(t *testing.T, f func(r *realm), roles ...grid.MemberRole) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRealm(t, len(roles), roles...)
		defer r.close()
		f(r)
		for _, m := range r.all {
			if m.n != nil {
				m.n.Close()
				m.n = nil
			}
		}
		r.club.mu.Lock()
		defer r.club.mu.Unlock()
		if len(r.club.refused) > 0 {
			t.Errorf("an honest node writes what it may not: %q", r.club.refused)
		}
	})
}

// change gives a member another role, of which all hear.
func (r *realm) change(m *member, role grid.MemberRole) {
	r.club.with(m.w.ID, role)
	for _, o := range r.all {
		if o.n != nil {
			o.n.MembersChanged()
		}
	}
}

// TestRolesWork: workers run what others submit, and write nothing that they may not, whoever dies.
func TestRolesWork(t *testing.T) {
	roled(t, func(r *realm) {
		owner := r.all[0]
		id := r.submit(owner, squares(owner, 120))
		r.pass(500 * time.Millisecond)
		r.kill(owner)
		if rec := r.done(id); rec.Owner != r.all[3].w.ID || rec.Origin != owner.w.ID {
			t.Errorf("taken over by %s, of %s", rec.Owner, rec.Origin)
		}
		r.exact(r.all[1], id, 120)
		st, err := r.all[1].n.Job(context.Background(), id)
		if err != nil || st.Stages[0].Nodes[r.all[1].w.ID.String()] == 0 {
			t.Errorf("the worker has run none of %+v, %v", st.Stages, err)
		}
	}, grid.RoleSubmitter, grid.RoleWorker, grid.RoleWorker, grid.RoleVoter)
}

// TestRolesLost: what becomes of jobs when a member is revoked, or has another role.
func TestRolesLost(t *testing.T) {
	ends := func(r *realm, id grid.JobID, says string) {
		t.Helper()
		rec := r.wait(id, "the job does not end", func(rec grid.Record) bool { return rec.State.Final() })
		if rec.State != grid.Failed || rec.Code != grid.Denied || !strings.Contains(rec.Error, says) {
			t.Errorf("it is %s: %s", rec.State, rec.Error)
		}
		e, err := r.all[1].n.Why(context.Background(), id)
		if err != nil || !strings.Contains(e.Reason, says) {
			t.Errorf("it is explained by %q, %v", e.Reason, err)
		}
		r.pass(time.Second)
		r.mu.Lock()
		clear(r.runs)
		r.mu.Unlock()
		r.pass(time.Second)
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.runs) > 0 {
			t.Errorf("it is worked on: %v", r.runs)
		}
	}
	t.Run("revoked", func(t *testing.T) {
		roled(t, func(r *realm) {
			m := r.all[0]
			id := r.submit(m, squares(m, 4000))
			r.pass(500 * time.Millisecond)
			r.change(m, "")
			r.kill(m) // as it is cut off
			ends(r, id, "revoked")
		}, grid.RoleSubmitter, grid.RoleWorker, grid.RoleVoter)
	})
	t.Run("demoted", func(t *testing.T) {
		roled(t, func(r *realm) {
			m := r.all[0]
			id := r.submit(m, squares(m, 4000))
			r.pass(500 * time.Millisecond)
			r.change(m, grid.RoleWorker)
			ends(r, id, "as worker")
			if m.n.JobsRunning() != 0 {
				t.Error("its owner has not let go of it")
			}
		}, grid.RoleSubmitter, grid.RoleWorker, grid.RoleVoter)
	})
	t.Run("an owner that took it over", func(t *testing.T) {
		roled(t, func(r *realm) {
			m := r.all[0]
			id := r.submit(m, squares(m, 200))
			r.pass(200 * time.Millisecond)
			r.kill(m)
			rec := r.wait(id, "it is not taken over", func(rec grid.Record) bool { return rec.Epoch > 1 })
			for _, o := range r.all {
				if o.w.ID == rec.Owner {
					r.change(o, grid.RoleWorker)
				}
			}
			if rec = r.done(id); rec.Epoch < 3 {
				t.Errorf("it was not taken over again: %+v", rec)
			}
			r.exact(r.all[1], id, 200)
		}, grid.RoleSubmitter, grid.RoleWorker, grid.RoleVoter, grid.RoleSubmitter)
	})
	t.Run("of the one that it was submitted to, by who took it over", func(t *testing.T) {
		roled(t, func(r *realm) {
			m := r.all[0]
			id := r.submit(m, squares(m, 4000))
			r.pass(200 * time.Millisecond)
			r.kill(m)
			r.wait(id, "it is not taken over", func(rec grid.Record) bool { return rec.Epoch > 1 })
			r.change(m, "")
			ends(r, id, "revoked")
		}, grid.RoleSubmitter, grid.RoleWorker, grid.RoleVoter)
	})
	t.Run("nobody is left who may", func(t *testing.T) {
		roled(t, func(r *realm) {
			m := r.all[0]
			id := r.submit(m, squares(m, 4000))
			r.pass(200 * time.Millisecond)
			r.change(m, grid.RoleWorker)
			r.pass(5 * time.Second)
			e, err := r.all[1].n.Why(context.Background(), id)
			if err != nil || !strings.Contains(e.Reason, "as worker") || len(e.Advice) != 1 || !strings.Contains(e.Advice[0], "set-role") {
				t.Errorf("%+v, %v", e, err)
			}
			r.change(m, grid.RoleSubmitter)
			r.wait(id, "it does not go on", func(rec grid.Record) bool { return rec.Epoch > 1 })
		}, grid.RoleSubmitter, grid.RoleWorker)
	})
}

// TestRolesLeases: what a member offers, with a program of its own, and whether anybody works for it.
func TestRolesLeases(t *testing.T) {
	hub := new(fake.Hub)
	thief := fake.NewWorld(hub, "thief")
	boss, worker, stranger := hub.Join(nodeID("boss")), hub.Join(nodeID("worker")), hub.Join(nodeID("stranger"))
	c := (*club)(nil).with(thief.ID, grid.RoleWorker).with(boss.Self(), grid.RoleSubmitter).with(worker.Self(), grid.RoleWorker).with(stranger.Self(), "")
	other := grid.NewBlock(cid.Raw, []byte("another module"))
	spec := func(name string, module cid.Cid) grid.Link {
		s := grid.Spec{Name: name, Stages: []grid.Stage{{Module: grid.Link{Cid: module}, Tasks: 1}}}
		if err := s.Normalize(); err != nil {
			t.Fatal(err)
		}
		b, err := grid.EncodeBlock(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := thief.Blocks.Put(within(t), b, other); err != nil {
			t.Fatal(err)
		}
		return grid.Link{Cid: b.CID()}
	}
	theirs, mine, same := spec("theirs", thief.Module.Cid), spec("mine", other.CID()), spec("same", thief.Module.Cid)
	value, err := grid.Marshal(grid.Record{ID: "jboss", Spec: theirs, Owner: boss.Self(), Origin: boss.Self(), Epoch: 1, State: grid.Running})
	if err != nil {
		t.Fatal(err)
	}
	gone, err := grid.Marshal(grid.Record{ID: "jgone", Spec: theirs, Owner: boss.Self(), Origin: stranger.Self(), Epoch: 1, State: grid.Running})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := thief.Ledger.Commit(within(t), grid.Txn{Put: []grid.Entry{{Key: "job/jboss", Value: value}, {Key: "job/jgone", Value: gone}}}); err != nil {
		t.Fatal(err)
	}
	reports := make(chan grid.ReportMsg, 9)
	worker.Serve(grid.ProtoReport, func(_ context.Context, _ peer.ID, data []byte) ([]byte, error) {
		var m grid.ReportMsg
		if err := grid.Unmarshal(data, &m); err != nil {
			return nil, err
		}
		if len(m.Failed) > 0 {
			reports <- m
		}
		return grid.Marshal(grid.ReportReply{Over: true})
	})
	for name, tt := range map[string]struct {
		lease grid.Lease
		ok    bool
		late  bool // it is refused when it is to be run
	}{
		"a submitter's job":                                 {grid.Lease{Job: "jboss", Owner: boss.Self(), Spec: theirs}, true, false},
		"what a task of it has spawned":                     {grid.Lease{Job: "jboss.x-1", Owner: worker.Self(), Spec: same}, true, false},
		"what a task says to have spawned":                  {grid.Lease{Job: "jboss.x-2", Owner: worker.Self(), Spec: mine}, false, true},
		"a submitter's job with another spec":               {grid.Lease{Job: "jboss", Owner: boss.Self(), Spec: mine}, false, false},
		"a submitter's job, as the worker's own":            {grid.Lease{Job: "jboss", Owner: worker.Self(), Spec: theirs}, false, false},
		"a worker's job":                                    {grid.Lease{Job: "jworker", Owner: worker.Self(), Spec: mine}, false, false},
		"what a task of a worker's job has spawned":         {grid.Lease{Job: "jworker.x-1", Owner: worker.Self(), Spec: mine}, false, false},
		"a job of the thief's own":                          {grid.Lease{Job: "jmine", Owner: thief.ID, Spec: mine}, false, false},
		"the job of somebody who was revoked":               {grid.Lease{Job: "jgone", Owner: boss.Self(), Spec: theirs}, false, false},
		"what a task of somebody's has spawned":             {grid.Lease{Job: "jgone.x-1", Owner: worker.Self(), Spec: theirs}, false, false},
		"a stranger's job":                                  {grid.Lease{Job: "jx", Owner: nodeID("who"), Spec: mine}, false, false},
		"a submitter's job that the ledger knows not of":    {grid.Lease{Job: "jother", Owner: boss.Self(), Spec: theirs}, true, false}, // of another realm
		"what a submitter's task has spawned in another":    {grid.Lease{Job: "jother.x-1", Owner: boss.Self(), Spec: theirs}, true, false},
		"what a worker's task has spawned in another realm": {grid.Lease{Job: "jother.x-1", Owner: worker.Self(), Spec: theirs}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := thief.Config()
			cfg.May, cfg.Scheduler, cfg.Cache = c.may, fake.NewScheduler(1), &fake.Cache{}
			ran, answered := make(chan struct{}, 9), make(chan int, 9)
			thief.Engine.Guest = func(context.Context, *grid.Guest) (grid.Outcome, error) {
				ran <- struct{}{}
				return grid.Outcome{}, nil
			}
			cfg.Scheduler.(*fake.Scheduler).Seen = func(ev grid.Event) {
				if ev, ok := ev.(grid.StealAnswered); ok {
					answered <- len(ev.Leases)
				}
			}
			tt.lease.Epoch, tt.lease.Span = 1, grid.Span{Hi: 1}
			victim := hub.Join(nodeID("victim " + name))
			victim.Serve(grid.ProtoSteal, func(context.Context, peer.ID, []byte) ([]byte, error) {
				return grid.Marshal(grid.StealReply{Leases: []grid.Lease{tt.lease}})
			})
			n := open(t, cfg)
			enter(t, thief, n, victim.Self())
			defer func() {
				if _, err := thief.Ledger.Commit(within(t), grid.Txn{Delete: []string{grid.NodeKeys + victim.Self().String()}}); err != nil {
					t.Error(err)
				}
			}()
			msg, _ := grid.Marshal(grid.WakeMsg{})
			if _, err := victim.Call(within(t), thief.ID, grid.ProtoWake, msg); err != nil {
				t.Fatal(err)
			}
			ctx := within(t)
			select {
			case n := <-answered:
				if want := tt.ok || tt.late; (n == 1) != want {
					t.Fatalf("%d leases were taken", n)
				} else if !want {
					return
				}
			case <-ctx.Done():
				t.Fatal("nobody asks for work")
			}
			select {
			case <-ran:
				if !tt.ok {
					t.Error("it is run")
				}
			case m := <-reports: // what it claims to be was found out when it was read
				if tt.ok || len(m.Failed) != 1 || m.Failed[0].Code != grid.Denied {
					t.Errorf("it is not run: %+v", m)
				}
			case <-ctx.Done():
				t.Error("nothing becomes of it")
			}
		})
	}
}

// BenchmarkCheckWrites is what a role costs the leader for each transaction: one that sets a key, and one that submits a job.
func BenchmarkCheckWrites(b *testing.B) {
	me := nodeID("me")
	act, err := grid.AuditEntry(fake.Key("me"), grid.AuditFact{Act: grid.ActSubmit, Subject: "jmine"})
	if err != nil {
		b.Fatal(err)
	}
	rec, err := grid.Marshal(grid.Record{ID: "jmine", Spec: grid.Link{Cid: grid.NewBlock(cid.Raw, nil).CID()}, Owner: me, Origin: me, Epoch: 1, State: grid.Running})
	if err != nil {
		b.Fatal(err)
	}
	none := func(string, func(grid.Entry) error) error { return nil }
	for name, t := range map[string]grid.Txn{
		"key": {Put: []grid.Entry{{Key: "kv/a"}}},
		"job": {Put: []grid.Entry{{Key: "job/jmine", Value: rec}, {Key: "open/jmine"}, act}},
	} {
		for _, role := range []grid.MemberRole{grid.RoleSubmitter, grid.RoleAdmin} {
			b.Run(name+"/"+string(role), func(b *testing.B) {
				for b.Loop() {
					if err := grid.CheckWrites(me, role, &t, none); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
