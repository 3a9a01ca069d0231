package hostile

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

// besiegePublic starts a node of a public swarm, and an honest one of another realm that lends itself.
func besiegePublic(t *testing.T) *siege {
	t.Helper()
	home, err := os.MkdirTemp("", "gh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	s := &siege{log: new(lines)}
	up := func(name string, log io.Writer, share grid.Portion, join ...string) *daemon.Daemon {
		d, err := daemon.Open(t.Context(), daemon.Config{
			Home: filepath.Join(home, name), Swarm: swarm, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Join: join, Public: true, Share: share,
			Workers: 1, Memory: 2 << 30, Logger: slog.New(slog.NewTextHandler(log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
		return d
	}
	s.victim = up("victim", s.log, grid.Portion{})
	s.addr = s.victim.Status().Addrs[0]
	s.ally = up("ally", io.Discard, grid.Portion{Percent: 100}, s.addr)
	s.client = s.victim.Client()
	s.module = s.add(t, wasmbytes.Spin(500_000))
	s.known.root = s.module.Cid
	s.known.realm = s.victim.Status().Ledger.RealmID
	return s
}

// The types of frames of blocks/2.
const (
	frameBlock   = 1
	frameMissing = 2
)

// firstFrame asks for blocks, and tells the type of the first frame of the answer.
func (a *attacker) firstFrame(request []byte) (byte, error) {
	s, err := a.open("blocks/2")
	if err != nil {
		return 0, err
	}
	defer s.Reset()
	if _, err := s.Write(request); err != nil { // and does not close its side: that says that it has enough
		return 0, err
	}
	var first [1]byte
	_, err = io.ReadFull(s, first[:])
	return first[0], err
}

// TestStrangerReachesNothing: of a node in a public swarm a stranger gets, of all that it speaks, nothing but what is for strangers.
func TestStrangerReachesNothing(t *testing.T) {
	s := besiegePublic(t)
	secret := s.add(t, []byte("secret"))
	job := s.submit(t, 100_000) // which is not to be offloaded, and goes on
	a := s.attacker(t)
	k := s.knows(a, job)
	k.root = secret.Cid
	table := protocolTable(k)
	table["kin/1"] = served{call: m{}} // only of public swarms
	for _, p := range a.protocols(t) {
		if _, ok := table[strings.TrimPrefix(p, prefix)]; !ok {
			t.Errorf("the node speaks %s, which nothing attacks: add it to protocolTable", p)
		}
	}
	for _, data := range garbage(rand.New(rand.NewPCG(8, 8)), nil) {
		_, _ = a.throw("kin/1", data)
	}
	if reply, code, err := a.call("kin/1", marshal(m{})); err != nil || code != 0 || len(reply) > 8 {
		t.Errorf("of which realm it is: %x, %v, %v", reply, code, err)
	}
	for _, p := range []string{"steal/1", "wake/1", "claim/1", "drop/1", "revoke/1"} { // are answered, without anything in it
		reply, code, err := a.call(p, marshal(table[p].call))
		if err != nil || code != 0 {
			t.Errorf("%s: %v, %v", p, code, err)
		}
		if p == "steal/1" {
			var r struct {
				Leases []grid.Lease `cbor:"leases"`
				Try    []any        `cbor:"try"`
			}
			if err := grid.Unmarshal(reply, &r); err != nil || len(r.Leases)+len(r.Try) > 0 {
				t.Errorf("a stranger is given %+v, %v", r, err)
			}
		}
	}
	denied := 0
	for p, served := range table {
		if served.call == nil || slices.Contains([]string{"steal/1", "wake/1", "claim/1", "drop/1", "revoke/1", "kin/1"}, p) {
			continue
		}
		denied++
		if reply, code, err := a.call(p, marshal(served.call)); err != nil || code != grid.Denied && !(p == "rows/1" && code == grid.Invalid) {
			t.Errorf("%s: a stranger is answered %v, %v: %q", p, code, err, reply)
		}
	}
	if denied < 10 {
		t.Errorf("only %d protocols are denied", denied)
	}
	for _, p := range []string{"job-watch/1", "job-tasks/1", "job-events/1", "ledger-watch/1", "raft/1"} {
		served := table[p]
		if reply, err := a.throw(p, served.encode(served.begin)); len(reply) > 0 {
			t.Errorf("%s: a stranger reads %d bytes, %v", p, len(reply), err)
		}
		eventually(t, p+" is counted", func() bool { return s.named(t, a.ID().String(), p, grid.Denied.Error()) })
	}
	for name, c := range map[string]cid.Cid{"a file": secret.Cid, "a job's module": s.module.Cid} {
		k.root = c
		if frame, err := a.firstFrame(table["blocks/2"].bytes(k)); err != nil || frame != frameMissing {
			t.Errorf("%s: a stranger is answered %d, %v, want that it is missing", name, frame, err)
		}
	}
	st, err := s.client.Job(t.Context(), job)
	if err != nil || st.State != grid.Running || len(st.Stages[0].Nodes) > 1 {
		t.Errorf("the job is %s, and ran on %v, %v", st.State, st.Stages[0].Nodes, err)
	}
	if err := s.client.Cancel(t.Context(), job); err != nil {
		t.Error(err)
	}
}

// finish waits for a job and looks that nobody but some nodes has run it.
func (s *siege) finish(t *testing.T, id grid.JobID, nodes ...string) grid.JobStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := s.client.Watch(ctx, id, func(grid.JobStatus) error { return nil })
	if err != nil || st.State != grid.Done {
		t.Fatalf("the job ended as %+v, %v", st, err)
	}
	for by := range st.Stages[0].Nodes {
		if !slices.Contains(nodes, by) {
			t.Errorf("it was run by %s", by)
		}
	}
	return st
}

// TestLyingRealm: a job that is offloaded and verified comes out right with a realm that lies, and that realm is found out. It can read
// what it was given, and nothing else.
func TestLyingRealm(t *testing.T) {
	s := besiegePublic(t)
	secret := s.add(t, []byte("secret"))
	key, _, err := crypto.GenerateKeyPair(crypto.Ed25519, 0)
	if err != nil {
		t.Fatal(err)
	}
	liar := newAttacker(t, s.addr, key)
	const tasks = 60
	req := grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: s.module, Tasks: tasks}}}, NoCache: true}
	if err := req.SetOffload(true, ""); err != nil {
		t.Fatal(err)
	}
	id, err := s.client.Submit(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	spec := req.Spec
	if err := spec.Normalize(); err != nil {
		t.Fatal(err)
	}
	lies, read := 0, false
	eventually(t, "the liar has lied, or the job is over", func() bool {
		reply, code, err := liar.call("steal/1", marshal(m{"slots": 4, "can": m{"slots": 4, "memory": 4 << 30, "scratch": 4 << 30}}))
		if err != nil || code != 0 {
			return false
		}
		var r struct {
			Leases []grid.Lease `cbor:"leases"`
		}
		if err := grid.UnmarshalMessage(reply, &r); err != nil {
			t.Fatal(err)
		}
		k := s.knows(liar, id)
		for _, l := range r.Leases {
			if !read {
				read = true
				if frame, err := liar.firstFrame(protocolTable(k)["blocks/2"].bytes(k)); err != nil || frame != frameBlock {
					t.Errorf("the module of a task that it was given: %d, %v", frame, err)
				}
				k.root = secret.Cid
				if frame, err := liar.firstFrame(protocolTable(k)["blocks/2"].bytes(k)); err != nil || frame != frameMissing {
					t.Errorf("a file: %d, %v", frame, err)
				}
			}
			var done []grid.Completion
			for i := l.Lo; i < l.Hi; i++ {
				st := &spec.Stages[0]
				task := grid.Task{Job: id, Index: i, Invocation: grid.Invocation{ABI: grid.ABIVersion, Module: st.Module, Limits: st.Limits, Env: []string{
					grid.EnvABI + "=" + strconv.Itoa(grid.ABIVersion), grid.EnvTask + "=" + strconv.FormatUint(uint64(i), 10)}}}
				key, err := task.Key()
				if err != nil {
					t.Fatal(err)
				}
				done = append(done, grid.Completion{Index: i, Receipt: grid.Receipt{
					Key: key, Node: liar.ID(), Stdout: grid.Output{Size: 4, Inline: []byte("evil")}, Fuel: 7, Started: time.Now().UnixNano()}})
			}
			for i := range done {
				if err := grid.Sign(key, &done[i].Receipt); err != nil {
					t.Fatal(err)
				}
			}
			if reply, code, err := liar.call("report/1", marshal(m{"job": id, "stage": 0, "epoch": l.Epoch, "done": done})); err != nil || code != 0 {
				t.Logf("a report: %v, %v: %s", code, err, reply)
				continue
			}
			lies += len(done)
		}
		st, err := s.client.Job(t.Context(), id)
		return lies > 3 || err == nil && st.State.Final()
	})
	if lies == 0 {
		t.Fatal("the liar was given nothing")
	}
	st := s.finish(t, id, s.victim.Status().ID, s.ally.Status().ID)
	if c := st.Stages[0].Check; st.Stages[0].Done != tasks || c == nil || c.Liars[liar.ID().String()] == 0 {
		t.Errorf("with %d lies it ended as %+v, %+v", lies, st.Stages[0], c)
	}
	if st.Stages[0].Nodes[s.ally.Status().ID] == 0 && s.ally.Status().Share.Ran == 0 {
		t.Error("the honest stranger has run nothing")
	}
}
