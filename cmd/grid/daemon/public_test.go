package daemon

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/p2p/member"
)

// Every protocol of a node is in the table of what strangers reach, and nothing else.
func TestAccess(t *testing.T) {
	d := up(t, filepath.Join(shortDir(t), "home"))
	spoken := append(d.host.Protocols(), p2p.JoinProtocol, kinProtocol)
	slices.Sort(spoken)
	if listed := slices.Sorted(maps.Keys(access)); !slices.Equal(listed, spoken) {
		t.Errorf("the table has\n%v\nthe node speaks\n%v", listed, spoken)
	}
}

// A proof is of the node that shows it, and of the realm that it says.
func TestKinProof(t *testing.T) {
	dir := t.TempDir()
	key, err := Identity(dir)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	home, err := member.Init(dir, key, "lab", "a", false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	reply := func(r kinReply) []byte {
		data, err := grid.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good := kinReply{Realm: home.Swarm, Chain: home.Records, Successions: home.Successions}
	other := peer.ID("other")
	if realm, err := checkKin(id, reply(good), time.Now); err != nil || realm != home.Swarm {
		t.Errorf("%s, %v", realm, err)
	}
	if realm, err := checkKin(id, reply(kinReply{}), time.Now); err != nil || realm != id {
		t.Errorf("a realm of one: %s, %v", realm, err)
	}
	for name, bad := range map[string]struct {
		id peer.ID
		r  kinReply
	}{
		"of somebody else":    {other, good},
		"of another realm":    {id, kinReply{Realm: id, Chain: home.Records, Successions: home.Successions}},
		"of no realm":         {id, kinReply{Realm: "x", Chain: home.Records, Successions: home.Successions}},
		"of an unknown key":   {id, kinReply{Realm: home.Swarm, Chain: home.Records}},
		"of many successions": {id, kinReply{Realm: home.Swarm, Chain: home.Records, Successions: slices.Repeat(home.Successions, 1000)}},
		"without a chain":     {id, kinReply{Realm: home.Swarm}},
		"of a broken record":  {id, kinReply{Realm: home.Swarm, Chain: [][]byte{[]byte("no")}}},
	} {
		if realm, err := checkKin(bad.id, reply(bad.r), time.Now); err == nil {
			t.Errorf("%s: believed to be of %s", name, realm)
		}
	}
}

// asked is a network of one peer, which answers what is set.
type asked struct {
	grid.Network
	reply []byte
	err   error
}

func (a *asked) Call(context.Context, peer.ID, grid.Protocol, []byte) ([]byte, error) {
	return a.reply, a.err
}

// TestMeet: who does not answer yet, as a node that has just come up, is asked again until it does; who is refused for good is not.
func TestMeet(t *testing.T) {
	key, err := Identity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPublic(key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	alone, err := grid.Marshal(kinReply{})
	if err != nil {
		t.Fatal(err)
	}
	const late, bad peer.ID = "late", "bad"
	p.present[late], p.present[bad] = false, false
	for _, step := range []struct {
		peer  peer.ID
		says  asked
		met   bool
		realm peer.ID
	}{
		{late, asked{err: grid.Errorf(grid.Unavailable, "hung up")}, false, ""},
		{late, asked{err: grid.Errorf(grid.Unsupported, "no such protocol")}, false, ""},
		{late, asked{reply: alone}, true, late},
		{bad, asked{reply: []byte("no proof")}, true, ""},
	} {
		p.meet(t.Context(), &step.says, step.peer)
		if p.met[step.peer] != step.met || p.realms[step.peer] != step.realm {
			t.Errorf("after %q, %v: met %v, of realm %q", step.says.reply, step.says.err, p.met[step.peer], p.realms[step.peer])
		}
	}
}

// TestPublicRevoked: in a public swarm a stranger's tasks are a question of what is lent, but a member that may not submit does not
// get around that by being revoked.
func TestPublicRevoked(t *testing.T) {
	root := shortDir(t)
	if _, err := InitSwarm(t.Context(), filepath.Join(root, "a"), "lab", "", false); err != nil {
		t.Fatal(err)
	}
	open := func(name string, join ...string) *Daemon {
		d, err := Open(t.Context(), Config{Home: filepath.Join(root, name), Public: true, Join: join, NoMDNS: true, NoNearby: true, Workers: 1, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	a := open("a")
	inv, err := a.Client().Invite(t.Context(), grid.InviteRequest{Role: grid.RoleSubmitter, Expires: time.Hour, Uses: 1})
	if err != nil {
		t.Fatal(err)
	}
	b := open("b", inv.Token)
	may := a.mayWork()
	want := func(id peer.ID, need grid.MemberRole, code grid.Code) {
		t.Helper()
		if err := may(id, need); (err == nil) != (code == 0) || err != nil && grid.CodeOf(err) != code {
			t.Errorf("%s as %s: %v", id, need, err)
		}
	}
	stranger := peer.ID("stranger")
	want(a.host.Self(), grid.RoleAdmin, 0)
	want(b.host.Self(), grid.RoleSubmitter, 0)
	want(b.host.Self(), grid.RoleAdmin, grid.Denied)
	want(stranger, grid.RoleSubmitter, 0)
	want(stranger, grid.RoleVoter, grid.Unavailable)
	if err := a.Client().Revoke(t.Context(), b.host.Self()); err != nil {
		t.Fatal(err)
	}
	want(b.host.Self(), grid.RoleSubmitter, grid.Denied)
}

// FuzzKin: what a stranger says of its realm is taken as its proof says, or not at all.
func FuzzKin(f *testing.F) {
	for _, r := range []kinReply{{}, {Realm: "x", Chain: [][]byte{{1}}}} {
		data, err := grid.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		id := peer.ID("somebody")
		if realm, err := checkKin(id, data, time.Now); err == nil && realm != id {
			t.Errorf("believed to be of %q", realm)
		}
	})
}

// A swarm with a pre-shared key is no part of a public one, and says so.
func TestPublicWithPSK(t *testing.T) {
	home := filepath.Join(shortDir(t), "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := InitSwarm(t.Context(), home, "lab", "a", true); err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), Config{Home: home, Public: true, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoMDNS: true, NoUPnP: true})
	if err == nil {
		_ = d.Close()
	}
	if grid.CodeOf(err) != grid.Invalid || grid.AdviceOf(err) == "" {
		t.Errorf("%v", err)
	}
}
