package hostile

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/p2p/member"
	"github.com/wasmgrid/wasmgrid/store/ledger"
)

// program is a worker's own: it is a member, with the worker's key and records, and obeys no rules.
type program struct {
	*p2p.Host
	realm *ledger.Realm
	keys  string // where the swarm's entries begin
}

func newProgram(t *testing.T, home, swarmName, addr string) *program {
	t.Helper()
	key, err := p2p.LoadIdentity(filepath.Join(home, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := member.LoadHome(home)
	if err != nil || h == nil {
		t.Fatal(h, err)
	}
	gate, err := member.New(member.Config{Key: key, Home: h})
	if err != nil {
		t.Fatal(err)
	}
	host, err := p2p.Open(t.Context(), p2p.Config{Identity: key, Swarm: swarmName, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Bootstrap: []string{addr}, Gate: gate})
	if err != nil {
		t.Fatal(err)
	}
	gate.Attach(member.Wire{Network: host, Reconsider: host.Reconsider, Contacts: func() []string { return nil }})
	realm, err := ledger.OpenRealm(t.Context(), ledger.RealmConfig{Network: host, Dir: t.TempDir(), Name: h.Realm, Keeps: func(id peer.ID) bool { return id != host.Self() }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = realm.Close()
		_ = gate.Close()
		_ = host.Close()
	})
	return &program{host, realm, grid.SwarmKeys + swarmName + "/"}
}

// TestWorker: a member that is a worker, with a program of its own, writes nothing that is not a worker's, and nobody works for it.
func TestWorker(t *testing.T) {
	dir, err := os.MkdirTemp("", "gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	id, err := daemon.InitSwarm(t.Context(), filepath.Join(dir, "a"), "lab", "a", false)
	if err != nil {
		t.Fatal(err)
	}
	log := new(lines)
	up := func(name string, to io.Writer, join ...string) *daemon.Daemon {
		d, err := daemon.Open(t.Context(), daemon.Config{
			Home: filepath.Join(dir, name), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Join: join,
			NoMDNS: true, NoNearby: true, Workers: 1, Logger: slog.New(slog.NewTextHandler(to, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		return d
	}
	victim := up("a", log)
	client := victim.Client()
	invite, err := client.Invite(t.Context(), grid.InviteRequest{Role: grid.RoleWorker, Expires: time.Hour, Uses: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := up("b", io.Discard, invite.Token).Close(); err != nil { // it has its membership
		t.Fatal(err)
	}
	bad := newProgram(t, filepath.Join(dir, "b"), member.NetworkName(id), victim.Status().Addrs[0])
	v, err := peer.Decode(victim.Status().ID)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the worker is of the victim's realm", func() bool {
		st, err := bad.realm.Status(t.Context())
		return err == nil && st.RealmID == victim.Status().Ledger.RealmID
	})

	// The ledger.
	put := func(key, value string) grid.Txn {
		return grid.Txn{Put: []grid.Entry{{Key: key, Value: []byte(value)}}}
	}
	module := (&siege{client: client}).add(t, wasmbytes.Spin(1000))
	spec := grid.Spec{Stages: []grid.Stage{{Module: module, Tasks: 1}}}
	if err := spec.Normalize(); err != nil {
		t.Fatal(err)
	}
	b, err := grid.EncodeBlock(spec)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := grid.Marshal(grid.Record{ID: "jbad", Spec: grid.Link{Cid: b.CID()}, Owner: bad.Self(), Origin: v, Epoch: 1, State: grid.Running})
	if err != nil {
		t.Fatal(err)
	}
	for _, txn := range []grid.Txn{
		put("job/jbad", string(rec)), put("open/jbad", bad.Self().String()), put("grant/jbad", ""), put("ref/a", ""), put("kv/a", ""),
		put("secret/a", ""), put("plugin/a@1", ""), put("plugin-alias/a@latest", ""), put("extension/admission", ""), put("realm/plugins", ""),
		put("standing/"+bad.Self().String(), ""), put("node/"+v.String(), ""), put("member/"+v.String(), ""),
		put("audit/log/0123456789abcdef0123456789ab", ""), put("audit/head/x", ""), put("something", ""),
		put(bad.keys+"member/"+bad.Self().String(), ""), put(bad.keys+"revoked/"+v.String(), ""), put(bad.keys+"waiting/"+v.String(), ""), put(bad.keys+"info", ""),
		{Delete: []string{"member/" + v.String()}}, {Delete: []string{"node/" + v.String()}}, {Delete: []string{bad.keys + "info"}}, {Delete: []string{"realm/plugins"}},
	} {
		_, err := bad.realm.Commit(t.Context(), txn)
		if grid.CodeOf(err) != grid.Denied || !strings.Contains(grid.AdviceOf(err), "set-role") {
			t.Errorf("%+v: %v", txn, err)
		}
	}
	if _, err := bad.realm.Commit(t.Context(), put("node/"+bad.Self().String(), "")); err != nil {
		t.Errorf("its own entry: %v", err)
	}

	// Work: leases on a job of its own, on a job of the victim's as it is not, and on what it says that a task has spawned.
	var leases []grid.Lease
	for _, l := range []grid.Lease{{Job: "jbad", Owner: bad.Self()}, {Job: "jbad", Owner: v}, {Job: "jbad.x-1", Owner: bad.Self()}} {
		l.Epoch, l.Spec, l.Span = 1, grid.Link{Cid: b.CID()}, grid.Span{Hi: 1}
		leases = append(leases, l)
	}
	bad.Serve("steal/1", func(context.Context, peer.ID, []byte) ([]byte, error) {
		return grid.Marshal(map[string]any{"leases": leases})
	})
	if _, err := bad.Call(t.Context(), v, "wake/1", marshal(struct{}{})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the leases are refused", func() bool { return strings.Count(log.String(), "a lease is not taken") >= len(leases) })
	if _, err := bad.Call(t.Context(), v, "job-cancel/1", marshal(map[string]any{"job": "jbad", "epoch": 1})); grid.CodeOf(err) != grid.Denied {
		t.Errorf("it cancels: %v", err)
	}
	if st := victim.Status(); st.Ran != 0 {
		t.Errorf("%d tasks were run", st.Ran)
	}
}
