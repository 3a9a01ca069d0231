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
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/p2p/member"
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
	for _, p := range []string{"job-watch/1", "job-tasks/1", "job-events/1", "task-log/1", "ledger-watch/1", "raft/1"} {
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

// liar is a node of another realm that takes work, and says of all that it comes to the same.
type liar struct {
	*attacker
	key  crypto.PrivKey
	lies int
}

// newLiar is one of the realm of an authority; nil: of one by itself.
func (s *siege) newLiar(t *testing.T, authority crypto.PrivKey) *liar {
	t.Helper()
	key := newKey()
	a, err := newHost(s.addr, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	kin := m{}
	if authority != nil {
		of := &member.Membership{Swarm: idOf(authority), Peer: a.ID(), Role: grid.RoleWorker, Issued: 1, Serial: 1}
		kin = m{"realm": of.Swarm, "chain": [][]byte{sealed(of, authority)}}
	}
	answer := func(body []byte) func(network.Stream) {
		return func(s network.Stream) {
			_, _ = io.CopyN(io.Discard, s, 1)
			_, _ = s.Write(append([]byte{0}, framed(body)...))
			_ = s.Close()
		}
	}
	a.SetStreamHandler(prefix+"kin/1", answer(marshal(kin)))
	a.SetStreamHandler(prefix+"ping/1", answer(nil))
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	if err := a.Connect(ctx, peer.AddrInfo{ID: a.victim}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is known of which realm it is", func() bool { return s.peer(t, a.ID()).Realm != "" })
	return &liar{a, key, 0}
}

// peer is what the victim knows of a peer.
func (s *siege) peer(t *testing.T, id peer.ID) (p grid.PeerInfo) {
	t.Helper()
	list, err := s.client.Peers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p = range list {
		if p.ID == id {
			return p
		}
	}
	return grid.PeerInfo{}
}

// lie steals and reports once, and calls given of what it was given before it reports.
func (l *liar) lie(t *testing.T, id grid.JobID, st *grid.Stage, given func()) {
	t.Helper()
	reply, code, err := l.call("steal/1", marshal(m{"slots": 4, "can": m{"slots": 4, "memory": 4 << 30, "scratch": 4 << 30}}))
	if err != nil || code != 0 {
		return
	}
	var r struct {
		Leases []grid.Lease `cbor:"leases"`
	}
	if err := grid.UnmarshalMessage(reply, &r); err != nil {
		t.Fatal(err)
	}
	for _, lease := range r.Leases {
		given()
		var done []grid.Completion
		for i := lease.Lo; i < lease.Hi; i++ {
			task := grid.Task{Job: id, Index: i, Invocation: grid.Invocation{ABI: grid.ABIVersion, Module: st.Module, Limits: st.Limits, Env: []string{
				grid.EnvABI + "=" + strconv.Itoa(grid.ABIVersion), grid.EnvTask + "=" + strconv.FormatUint(uint64(i), 10)}}}
			key, err := task.Key()
			if err != nil {
				t.Fatal(err)
			}
			c := grid.Completion{Index: i, Receipt: grid.Receipt{
				Key: key, Node: l.ID(), Stdout: grid.Output{Size: 4, Inline: []byte("evil")}, Fuel: 7, Started: time.Now().UnixNano()}}
			if err := grid.Sign(l.key, &c.Receipt); err != nil {
				t.Fatal(err)
			}
			done = append(done, c)
		}
		if reply, code, err := l.call("report/1", marshal(m{"job": id, "stage": 0, "epoch": lease.Epoch, "done": done})); err != nil || code != 0 {
			t.Logf("a report: %v, %v: %s", code, err, reply)
			continue
		}
		l.lies += len(done)
	}
}

// offload submits a job that is to be offloaded, and verified so.
func (s *siege) offload(t *testing.T, tasks uint32, verify string) (grid.JobID, *grid.Stage) {
	t.Helper()
	req := grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: s.module, Tasks: tasks}}}, NoCache: true}
	if err := req.SetOffload(true, verify); err != nil {
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
	return id, &spec.Stages[0]
}

// TestLyingRealm: with a third of the nodes lying, a realm by itself, a job that is offloaded and verified comes out right, and the liar
// is found out and ends marked. It can read what it was given, and nothing else.
func TestLyingRealm(t *testing.T) {
	s := besiegePublic(t)
	secret := s.add(t, []byte("secret"))
	liar := s.newLiar(t, nil)
	const tasks = 60
	id, stage := s.offload(t, tasks, "")
	read := false
	eventually(t, "the liar has lied, or the job is over", func() bool {
		liar.lie(t, id, stage, func() {
			if read {
				return
			}
			read = true
			k := s.knows(liar.attacker, id)
			if frame, err := liar.firstFrame(protocolTable(k)["blocks/2"].bytes(k)); err != nil || frame != frameBlock {
				t.Errorf("the module of a task that it was given: %d, %v", frame, err)
			}
			k.root = secret.Cid
			if frame, err := liar.firstFrame(protocolTable(k)["blocks/2"].bytes(k)); err != nil || frame != frameMissing {
				t.Errorf("a file: %d, %v", frame, err)
			}
		})
		st, err := s.client.Job(t.Context(), id)
		return liar.lies > 3 || err == nil && st.State.Final()
	})
	if liar.lies == 0 {
		t.Fatal("the liar was given nothing")
	}
	st := s.finish(t, id, s.victim.Status().ID, s.ally.Status().ID)
	if c := st.Stages[0].Check; st.Stages[0].Done != tasks || c == nil || c.Liars[liar.ID().String()] == 0 {
		t.Errorf("with %d lies it ended as %+v, %+v", liar.lies, st.Stages[0], c)
	}
	if at := s.peer(t, liar.ID()).Standing; at == nil || at.Bad == 0 || at.Trusted() {
		t.Errorf("it stands at %+v", at)
	}
	if st.Stages[0].Nodes[s.ally.Status().ID] == 0 && s.ally.Status().Share.Ran == 0 {
		t.Error("the honest stranger has run nothing")
	}
}

// TestBigLyingRealm: three nodes of one realm that tell the same lies are one voice, and do not outvote two honest realms of a node
// each. They are found out.
func TestBigLyingRealm(t *testing.T) {
	s := besiegePublic(t)
	authority := newKey()
	var liars []*liar
	for range 3 {
		liars = append(liars, s.newLiar(t, authority))
	}
	const tasks = 100
	id, stage := s.offload(t, tasks, "quorum=2")
	eventually(t, "each has lied, or the job is over", func() bool {
		lied := 0
		for _, l := range liars {
			if l.lie(t, id, stage, func() {}); l.lies > 0 {
				lied++
			}
		}
		st, err := s.client.Job(t.Context(), id)
		return lied == len(liars) || err == nil && st.State.Final()
	})
	st := s.finish(t, id, s.victim.Status().ID, s.ally.Status().ID)
	c := st.Stages[0].Check
	if st.Stages[0].Done != tasks || c == nil || c.Split > 0 {
		t.Fatalf("it ended as %+v, %+v", st.Stages[0], c)
	}
	lies, found := 0, 0
	for _, l := range liars {
		lies += l.lies
		if c.Liars[l.ID().String()] > 0 {
			found++
		}
	}
	t.Logf("%d lies, refuted %v", lies, c.Liars)
	if lies == 0 || found == 0 || len(c.Liars) > len(liars) {
		t.Errorf("with %d lies these are found to lie: %v", lies, c.Liars)
	}

	// Three realms are there, and five nodes.
	id, _ = s.offload(t, 4, "quorum=4")
	why := ""
	eventually(t, "it says what is missing", func() bool {
		x, err := s.client.Why(t.Context(), id)
		if err == nil && x.Reason != why {
			why = x.Reason
			t.Log(why)
		}
		return strings.Contains(why, "4 nodes must") && strings.Contains(why, "3 nodes that can run it are up") && strings.Contains(why, "realm count as one")
	})
	if err := s.client.Cancel(t.Context(), id); err != nil {
		t.Error(err)
	}
}
