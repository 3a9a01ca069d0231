package hostile

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
	"google.golang.org/protobuf/proto"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/p2p/member"
)

// fort is a private swarm under attack: a siege whose nodes are its founder and a voter.
type fort struct {
	*siege
	home    string
	id      peer.ID
	prefix  string
	spy     crypto.PrivKey // a member as worker, that has turned against the others
	spyUsed secret         // the token by which it has joined, which is used up
	spyHas  admitted
	visits  atomic.Int32
}

func (f *fort) up(t *testing.T, name string, log io.Writer, join ...string) *daemon.Daemon {
	t.Helper()
	d, err := f.open(t.Context(), name, log, join...)
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

func (f *fort) open(ctx context.Context, name string, log io.Writer, join ...string) (*daemon.Daemon, error) {
	return daemon.Open(ctx, daemon.Config{
		Home: filepath.Join(f.home, name), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Join: join,
		NoMDNS: true, NoNearby: true, Workers: 1, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
}

func fortify(t *testing.T) *fort {
	t.Helper()
	home, err := os.MkdirTemp("", "gf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	f := &fort{siege: &siege{log: new(lines)}, home: home}
	if f.id, err = daemon.InitSwarm(t.Context(), filepath.Join(home, "victim"), "fort", "", false); err != nil {
		t.Fatal(err)
	}
	f.prefix = "/grid/" + member.NetworkName(f.id) + "/"
	f.victim = f.up(t, "victim", f.log)
	f.addr = f.victim.Status().Addrs[0]
	f.client = f.victim.Client()
	f.ally = f.up(t, "ally", io.Discard, f.invite(t, grid.RoleVoter, 1))
	f.module = f.add(t, wasmbytes.Spin(500_000))
	f.known.root = f.module.Cid
	eventually(t, "both share the ledger", func() bool {
		f.known.realm = f.victim.Status().Ledger.RealmID
		return f.known.realm != "" && f.ally.Status().Ledger.RealmID == f.known.realm && len(f.members(t)) == 2
	})
	f.spy, f.spyUsed = newKey(), steal(t, f.invite(t, grid.RoleWorker, 1))
	v := f.visit(t, f.spy)
	f.spyHas = v.letIn(t, f.spyUsed)
	_ = v.Close()
	return f
}

func (f *fort) invite(t *testing.T, role grid.MemberRole, uses uint32, change ...func(*grid.InviteRequest)) string {
	t.Helper()
	req := grid.InviteRequest{Role: role, Expires: time.Hour, Uses: uses}
	for _, c := range change {
		c(&req)
	}
	inv, err := f.client.Invite(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return inv.Token
}

func nodeID(d *daemon.Daemon) peer.ID {
	id, err := peer.Decode(d.Status().ID)
	if err != nil {
		panic(err)
	}
	return id
}

// members are the IDs of all members by what the victim knows.
func (f *fort) members(t *testing.T) (ids []string) {
	t.Helper()
	list, err := f.client.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range list {
		if x.State == "member" {
			ids = append(ids, x.ID)
		}
	}
	return ids
}

// visit connects to the victim, each time from another address of this machine.
func (f *fort) visit(t *testing.T, key crypto.PrivKey) *visitor {
	t.Helper()
	n := f.visits.Add(1)
	v, err := visit(f.addr, f.prefix, fmt.Sprintf("127.0.%d.%d", 1+n/250, 1+n%250), key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

// refused looks that an answer is a refusal with an error that says something.
func refused(t *testing.T, what string, reply []byte, code grid.Code, err error) {
	t.Helper()
	if err == nil && code != grid.Denied && code != grid.Invalid && code != grid.Limit {
		t.Errorf("%s: answered with code %v: %.200q", what, code, reply)
	}
}

// TestPrivateSiege goes through what strangers, and one member, may try against a private swarm, whose jobs go on meanwhile.
func TestPrivateSiege(t *testing.T) {
	f := fortify(t)
	f.done(t, f.submit(t, 20), 20)
	heapBefore, routinesBefore := heap(), runtime.NumGoroutine()
	inside := f.members(t)
	for _, attack := range []struct {
		name string
		run  func(*testing.T, *fort)
	}{
		{"every protocol", knockEverywhere},
		{"garbage to join", garbageToJoin},
		{"other versions", otherVersions},
		{"forged memberships", forgeMemberships},
		{"forged revocations", forgeRevocations},
		{"a token for too many", overuse},
		{"thousands of identities", sybils},
		{"a flood from one address", floodAddress},
		{"lies about others", eclipse},
	} {
		t.Run(attack.name, func(t *testing.T) {
			began := time.Now()
			const tasks = 60
			id := f.submit(t, tasks)
			attack.run(t, f)
			if _, err := f.client.Node(t.Context()); err != nil {
				t.Fatalf("the node is down: %v", err)
			}
			f.done(t, id, tasks)
			t.Logf("%v", time.Since(began))
		})
	}
	for _, id := range inside {
		if !slices.Contains(f.members(t), id) {
			t.Errorf("%s is not a member any more", id)
		}
	}
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() < routinesBefore+300 })
	if now := heap(); now > heapBefore+128<<20 {
		t.Errorf("the heap grew from %d to %d MiB", heapBefore>>20, now>>20)
	}
	log := f.log.String()
	if !strings.Contains(log, "refused what a peer asked for") || strings.Contains(log, "panicked") {
		t.Errorf("the log:\n%s", log)
	}
}

// protocols is all that a member may speak with the victim, and what libp2p's nodes speak elsewhere.
func (f *fort) protocols(t *testing.T) []string {
	t.Helper()
	a := f.member(t)
	list := []string{
		"/libp2p/circuit/relay/0.2.0/hop", "/libp2p/circuit/relay/0.2.0/stop", "/libp2p/dcutr", "/libp2p/autonat/1.0.0",
		"/libp2p/autonat/2/dial-request", "/libp2p/autonat/2/dial-back", "/ipfs/bitswap/1.2.0", "/ipfs/kad/1.0.0",
	}
	eventually(t, "the victim tells a member what it speaks", func() bool {
		said, err := a.Peerstore().GetProtocols(a.victim)
		for _, p := range said {
			if !slices.Contains(list, string(p)) {
				list = append(list, string(p))
			}
		}
		return err == nil && slices.Contains(list, f.prefix+"steal/1") && slices.Contains(list, f.prefix+"realm/1")
	})
	return list
}

// member is a whole libp2p host with the spy's key, which has shown that it is a member.
func (f *fort) member(t *testing.T) *attacker {
	t.Helper()
	a, err := newHost(f.addr, f.spy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	f.hello(t, a)
	return a
}

// hello connects and shows the spy's membership.
func (f *fort) hello(t *testing.T, a *attacker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	c, err := a.Network().DialPeer(ctx, a.victim)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.NewStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	if err := multistream.SelectProtoOrFail(protocol.ID(f.prefix+"join/1"), s); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(framed(marshal(m{"do": "hello", "swarm": f.id, "chain": f.spyHas.Chain}))); err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	if reply, code, err := parseReply(data); err != nil || code != 0 {
		t.Fatalf("the spy is not taken for a member: %v, %s, %v", code, reply, err)
	}
}

// knockEverywhere has a stranger for each protocol begin a stream of it as a member would, and get nothing.
func knockEverywhere(t *testing.T, f *fort) {
	all := f.protocols(t)
	table := protocolTable(&known{self: nodeID(f.victim), victim: nodeID(f.victim), job: nobodys, realm: f.known.realm, root: f.known.root})
	var wg sync.WaitGroup
	for _, p := range all {
		name := strings.TrimPrefix(p, f.prefix)
		if name == "join/1" || p == "/libp2p/circuit/relay/0.2.0/hop" || p == "/libp2p/autonat/2/dial-back" {
			continue // where a node speaks those with strangers, package p2p tests what they may
		}
		v := f.visit(t, newKey())
		wg.Go(func() {
			s, err := v.begin(p)
			if err != nil {
				return // it does not speak that
			}
			defer s.Reset()
			first := []byte("\x04ping\x08\x01abcdefghijklmnopqrstuvwxyz012345")
			switch x := table[name]; {
			case x.bytes != nil:
				first = x.bytes(&known{self: v.id, victim: nodeID(f.victim), root: f.known.root})
			case x.stream != nil:
				first = x.encode(x.begin)
			case x.call != nil:
				first = framed(marshal(x.call))
			}
			_, _ = s.Write(first)
			if data, err := io.ReadAll(s); len(data) > 0 || err == nil {
				t.Errorf("%s: a stranger is told %q, %v", p, data, err)
			}
			if !f.named(t, v.id.String(), name, grid.Denied.Error()) {
				t.Errorf("%s: the stranger is not counted", p)
			}
		})
	}
	wg.Wait()
}

// garbageToJoin sends what is no message to the one protocol that strangers reach, too much of it, and too little.
func garbageToJoin(t *testing.T, f *fort) {
	stranger := newKey()
	hello := m{"do": "hello", "swarm": f.id, "chain": f.spyHas.Chain, "revocations": []any{[]byte("r")}}
	bad := steal(t, f.invite(t, grid.RoleWorker, 1))
	join := m{"do": "join", "swarm": f.id, "invite": bad.Invite, "proof": bad.proof(f.id), "name": "x"}
	tell := m{"do": "tell", "swarm": f.id, "records": f.spyHas.Chain, "revocations": []any{}}
	v := f.visit(t, stranger)
	pieces := garbage(rand.New(rand.NewPCG(9, 9)), marshal(join))
	pieces = append(pieces, framed(make([]byte, 128<<10+1)), framed(make([]byte, grid.MaxMessage)))
	for _, data := range pieces {
		s, err := v.begin("join/1")
		if err != nil {
			v = f.visit(t, stranger)
			continue
		}
		_, _ = s.Write(data)
		_ = s.CloseWrite()
		answer, _ := io.ReadAll(io.LimitReader(s, 1<<20))
		if _, code, err := parseReply(answer); err == nil && (code == 0 || code == grid.Internal) {
			t.Errorf("%.40q is answered with %v", data, code)
		}
		_ = s.Reset()
	}
	if !f.named(t, v.id.String(), "join/1", grid.RefusedMalformed) {
		t.Error("malformed messages are not counted")
	}
	sent := 0
	for _, valid := range []m{hello, join, tell} {
		mutants(t, valid, func(x any) {
			if sent++; sent%150 == 1 {
				v = f.visit(t, newKey()) // each may ask but so often
			}
			reply, code, err := v.ask("join/1", marshal(x))
			if err == nil && (code == 0 || code == grid.Internal) {
				t.Errorf("%.100q is answered with %v: %.100q", x, code, reply)
			}
		})
	}
	// Slow ones keep their streams, and keep nobody out.
	for range 24 {
		slow := f.visit(t, newKey())
		for range 20 {
			if s, err := slow.begin("join/1"); err == nil {
				_, _ = s.Write([]byte{0x80})
			}
		}
	}
	if _, code, err := f.visit(t, newKey()).ask("join/1", marshal(join)); err != nil || code != grid.Denied {
		t.Errorf("beside slow ones, another stranger is answered %v, %v", code, err)
	}
	t.Logf("%d mutants, %d pieces of garbage", sent, len(pieces))
}

// otherVersions asks for protocols as they were or may be.
func otherVersions(t *testing.T, f *fort) {
	for _, p := range []string{"join/0", "join/2", "join/1.1"} {
		v := f.visit(t, newKey())
		if _, err := v.begin(p); err == nil {
			t.Errorf("it speaks %s", p)
		}
		_ = v.Close()
		eventually(t, "it is named", func() bool { return f.named(t, v.id.String(), "join/1", "unsupported") })
	}
}

// forgeMemberships shows every chain that should not be believed, as a stranger, and as one whom the spy would let in.
func forgeMemberships(t *testing.T, f *fort) {
	free := steal(t, f.invite(t, grid.RoleAdmin, 1)) // a token that somebody has lost
	foreign, authority := newKey(), newKey()
	chainOf := func(raw ...[]byte) [][]byte { return append(raw, f.spyHas.Chain...) }
	change := func(s *secret, id peer.ID, f func(*member.Membership)) *member.Membership {
		x := s.membership(id)
		f(x)
		return x
	}
	far := time.Now().Add(1000 * time.Hour).Unix()
	for name, make := range map[string]func(key crypto.PrivKey, id peer.ID) [][]byte{
		"nothing":          func(crypto.PrivKey, peer.ID) [][]byte { return nil },
		"of another peer":  func(crypto.PrivKey, peer.ID) [][]byte { return f.spyHas.Chain },
		"too long a chain": func(crypto.PrivKey, peer.ID) [][]byte { return slices.Repeat(f.spyHas.Chain, 20) },
		"cut":              func(crypto.PrivKey, peer.ID) [][]byte { return [][]byte{f.spyHas.Chain[0][:80]} },
		"flipped": func(crypto.PrivKey, peer.ID) [][]byte {
			x := slices.Clone(f.spyHas.Chain[0])
			x[len(x)/2] ^= 1
			return [][]byte{x}
		},
		"signed by itself":   func(k crypto.PrivKey, id peer.ID) [][]byte { return chainOf(sealed(free.membership(id), k)) },
		"signed by its like": func(_ crypto.PrivKey, id peer.ID) [][]byte { return chainOf(sealed(free.membership(id), foreign)) },
		"of another authority": func(_ crypto.PrivKey, id peer.ID) [][]byte {
			return [][]byte{sealed(&member.Membership{Swarm: f.id, Peer: id, Role: grid.RoleAdmin, Issued: 1, Serial: 1}, authority)}
		},
		"of another swarm": func(_ crypto.PrivKey, id peer.ID) [][]byte {
			return [][]byte{sealed(&member.Membership{Swarm: idOf(authority), Peer: id, Role: grid.RoleAdmin, Issued: 1, Serial: 1}, authority)}
		},
		"another domain": func(_ crypto.PrivKey, id peer.ID) [][]byte {
			return chainOf(sealed(&member.Revocation{Swarm: f.id, Peer: id, Serial: 1}, f.spy))
		},
		"by a token that is used up": func(_ crypto.PrivKey, id peer.ID) [][]byte { return chainOf(sealed(f.spyUsed.membership(id), f.spy)) },
		"role raised": func(_ crypto.PrivKey, id peer.ID) [][]byte {
			return chainOf(sealed(change(&f.spyUsed, id, func(x *member.Membership) { x.Role = grid.RoleAdmin }), f.spy))
		},
		"no invitation": func(_ crypto.PrivKey, id peer.ID) [][]byte {
			return chainOf(sealed(change(&free, id, func(x *member.Membership) { x.Invite, x.Proof = nil, nil }), f.spy))
		},
		"an invitation of its own": func(_ crypto.PrivKey, id peer.ID) [][]byte {
			i := free.token.Invitation
			return chainOf(sealed(change(&free, id, func(x *member.Membership) { x.Invite = sealed(&i, authority) }), f.spy))
		},
		"somebody else's proof": func(_ crypto.PrivKey, id peer.ID) [][]byte {
			return chainOf(sealed(change(&free, id, func(x *member.Membership) { x.Proof = free.proof(idOf(foreign)) }), f.spy))
		},
		"serial 0": func(_ crypto.PrivKey, id peer.ID) [][]byte {
			return chainOf(sealed(change(&free, id, func(x *member.Membership) { x.Serial = 0 }), f.spy))
		},
		"serial without end": func(_ crypto.PrivKey, id peer.ID) [][]byte {
			return chainOf(sealed(change(&free, id, func(x *member.Membership) { x.Serial = math.MaxUint64 }), f.spy))
		},
		"of the far future": func(_ crypto.PrivKey, id peer.ID) [][]byte {
			return chainOf(sealed(change(&free, id, func(x *member.Membership) { x.Issued = far }), f.spy))
		},
		"of the end of time": func(_ crypto.PrivKey, id peer.ID) [][]byte {
			return chainOf(sealed(change(&free, id, func(x *member.Membership) { x.Issued = math.MaxInt64 }), f.spy))
		},
		"of before time": func(_ crypto.PrivKey, id peer.ID) [][]byte {
			return chainOf(sealed(change(&free, id, func(x *member.Membership) { x.Issued, x.Expires = math.MinInt64, -1 }), f.spy))
		},
	} {
		v := f.visit(t, newKey())
		reply, code, err := v.ask("join/1", marshal(m{"do": "hello", "swarm": f.id, "chain": make(v.key, v.id)}))
		refused(t, name, reply, code, err)
		if err != nil {
			t.Errorf("%s: no clear error: %v", name, err)
		}
		if slices.Contains(f.members(t), v.id.String()) {
			t.Errorf("%s: is believed", name)
		}
		if !f.named(t, v.id.String(), "join/1", code.Error()) {
			t.Errorf("%s: is not counted as %v", name, code)
		}
	}
	// Proofs that are none.
	for name, change := range map[string]func(m){
		"no proof":         func(q m) { delete(q, "proof") },
		"proof of another": func(q m) { q["proof"] = free.proof(idOf(foreign)) },
		"no invitation":    func(q m) { delete(q, "invite") },
		"another's invitation": func(q m) {
			i := free.token.Invitation
			q["invite"] = sealed(&i, authority)
		},
		"an invitation with more uses": func(q m) {
			i := free.token.Invitation
			i.Uses = 10_000
			q["invite"] = sealed(&i, f.spy)
		},
		"a used-up invitation": func(q m) { q["invite"] = f.spyUsed.Invite; q["proof"] = f.spyUsed.proof(q["self"].(peer.ID)) },
		"of another swarm":     func(q m) { q["swarm"] = idOf(authority) },
		"a name that is none":  func(q m) { q["name"] = "\x1b[2J" },
	} {
		v := f.visit(t, newKey())
		q := m{"do": "join", "swarm": f.id, "invite": free.Invite, "proof": free.proof(v.id), "name": "x", "self": v.id}
		change(q)
		delete(q, "self")
		reply, code, err := v.ask("join/1", marshal(q))
		refused(t, "join with "+name, reply, code, err)
		if err != nil || slices.Contains(f.members(t), v.id.String()) {
			t.Errorf("join with %s: %v", name, err)
		}
	}
	// The spy itself would be more than it is.
	v := f.visit(t, f.spy)
	up := change(&free, idOf(f.spy), func(x *member.Membership) { x.Serial = 7 })
	reply, code, err := v.ask("join/1", marshal(m{"do": "tell", "swarm": f.id, "records": [][]byte{sealed(up, f.spy)}}))
	if list, e := f.client.Members(t.Context()); e != nil || slices.ContainsFunc(list, func(x grid.SwarmMember) bool { return x.ID == v.id.String() && x.Role != grid.RoleWorker }) {
		t.Errorf("the spy has raised itself: %s, %v, %v", reply, code, err)
	}
}

// forgeRevocations would have honest members thrown out.
func forgeRevocations(t *testing.T, f *fort) {
	ally := nodeID(f.ally)
	by := func(key crypto.PrivKey, id peer.ID, swarm peer.ID, serial uint64) []byte {
		return sealed(&member.Revocation{Swarm: swarm, Peer: id, Serial: serial, Issued: time.Now().Unix()}, key)
	}
	stranger := newKey()
	list := [][]byte{
		by(stranger, ally, f.id, 9), by(f.spy, ally, f.id, 9), by(f.spy, nodeID(f.victim), f.id, math.MaxUint64), by(f.spy, ally, idOf(f.spy), 9),
		f.spyHas.Chain[0], nil, []byte("x"),
	}
	v := f.visit(t, stranger)
	for _, q := range []m{
		{"do": "tell", "swarm": f.id, "revocations": list},
		{"do": "hello", "swarm": f.id, "revocations": list, "chain": f.spyHas.Chain},
	} {
		reply, code, err := v.ask("join/1", marshal(q))
		refused(t, "a stranger's revocations", reply, code, err)
	}
	spy := f.visit(t, f.spy)
	for _, q := range []m{
		{"do": "tell", "swarm": f.id, "revocations": list},
		{"do": "tell", "swarm": f.id, "revocations": slices.Repeat(list, 300)},
		{"do": "hello", "swarm": f.id, "revocations": list, "chain": f.spyHas.Chain},
	} {
		_, _, _ = spy.ask("join/1", marshal(q))
	}
	for _, id := range []peer.ID{ally, nodeID(f.victim)} {
		if !slices.Contains(f.members(t), id.String()) {
			t.Errorf("%s was thrown out", id)
		}
	}
	if !strings.Contains(f.log.String(), "a revocation is not believed") {
		t.Error("it is not logged")
	}
}

// overuse has many join by one token at once, through both nodes.
func overuse(t *testing.T, f *fort) {
	const uses = 3
	before := len(f.members(t))
	token := steal(t, f.invite(t, grid.RoleWorker, uses))
	ally := f.ally.Status().Addrs[0]
	var in atomic.Int32
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			v, err := visit(cmp.Or(map[bool]string{true: ally}[i%2 == 0], f.addr), f.prefix, fmt.Sprintf("127.0.100.%d", i+1), newKey())
			if err != nil {
				t.Error(err)
				return
			}
			defer v.Close()
			for range 10 { // a transaction may have to give way to others
				reply, code, err := v.ask("join/1", token.join(v.id))
				switch {
				case err != nil:
					t.Error(err)
				case code == 0:
					in.Add(1)
				case code == grid.Denied:
					if !strings.Contains(string(reply), "used up") {
						t.Errorf("not a clear error: %s", reply)
					}
				default:
					continue
				}
				return
			}
			t.Error("never told")
		})
	}
	wg.Wait()
	if in.Load() != uses {
		t.Errorf("%d were let in by a token for %d", in.Load(), uses)
	}
	eventually(t, "the victim knows those", func() bool { return len(f.members(t)) == before+uses })
}

// sybils are a thousand identities, fewer in haste, half of which have a proof that is valid, of a token that is used up. An honest node joins among
// them.
func sybils(t *testing.T, f *fort) {
	all := 1000
	if testing.Short() {
		all = 200
	}
	before := len(f.members(t))
	var wg sync.WaitGroup
	var told, hung atomic.Int32
	next := atomic.Int32{}
	for range 8 {
		wg.Go(func() {
			for {
				n := int(next.Add(1))
				if n > all {
					return
				}
				key := newKey()
				v, err := visit(f.addr, f.prefix, fmt.Sprintf("127.0.%d.%d", 120+n%40, 1+n%200), key)
				if err != nil {
					hung.Add(1)
					continue
				}
				q := f.spyUsed.join(v.id)
				if n%2 == 0 {
					q = f.spyUsed.join(f.id) // not for this one
				}
				reply, code, err := v.ask("join/1", q)
				refused(t, "a Sybil", reply, code, err)
				if err == nil {
					told.Add(1)
				}
				_ = v.Close()
			}
		})
	}
	honest := f.up(t, "late", io.Discard, f.invite(t, grid.RoleWorker, 1))
	wg.Wait()
	if got := len(f.members(t)); got != before+1 || honest.Status().Private == nil {
		t.Errorf("%d members, there were %d", got, before)
	}
	t.Logf("%d were told no, %d hung up on", told.Load(), hung.Load())
}

// floodAddress takes all the places that one address gets, again and again, while a node joins from another.
func floodAddress(t *testing.T, f *fort) {
	const from = "127.0.200.1"
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var held []*visitor
	var refusals atomic.Int32
	full := make(chan struct{})
	once := sync.OnceFunc(func() { close(full) })
	for range 4 {
		wg.Go(func() {
			for range 500 {
				select {
				case <-stop:
					return
				default:
				}
				v, err := visit(f.addr, f.prefix, from, newKey())
				if err == nil {
					_, err = v.begin("join/1")
				}
				if err != nil {
					if refusals.Add(1) > 8 {
						once()
					}
					continue
				}
				mu.Lock()
				held = append(held, v)
				mu.Unlock()
			}
			once()
		})
	}
	<-full
	began := time.Now()
	f.up(t, "flooded", io.Discard, f.invite(t, grid.RoleWorker, 1))
	t.Logf("beside %d refusals, a node joined within %v", refusals.Load(), time.Since(began))
	close(stop)
	wg.Wait()
	if !f.named(t, from, "", grid.RefusedConn) {
		t.Error("the flood is not counted")
	}
	for _, v := range held {
		_ = v.Close()
	}
}

// eclipse has the spy, which is a member, tell everybody who asks of thousands of nodes that there are not, and nothing of those that there
// are. They find one another all the same.
func eclipse(t *testing.T, f *fort) {
	a := f.member(t)
	var asked atomic.Int32
	var fakes []*dht_pb.Message_Peer
	for i := range 400 {
		at := ma.StringCast(fmt.Sprintf("/ip4/127.0.250.%d/tcp/1", 1+i%200))
		fakes = append(fakes, &dht_pb.Message_Peer{Id: []byte(idOf(newKey())), Addrs: [][]byte{at.Bytes()}, Connection: dht_pb.Message_CONNECTED})
	}
	answer, err := proto.Marshal(&dht_pb.Message{CloserPeers: fakes, ProviderPeers: fakes})
	if err != nil {
		t.Fatal(err)
	}
	a.SetStreamHandler(protocol.ID(f.prefix+"kad/1.0.0"), func(s network.Stream) {
		defer s.Reset()
		asked.Add(1)
		_ = s.SetDeadline(time.Now().Add(patience))
		buf := make([]byte, 64<<10)
		for {
			if _, err := s.Read(buf); err != nil {
				return
			}
			if _, err := s.Write(framed(answer)); err != nil {
				return
			}
		}
	})
	a.SetStreamHandler(protocol.ID(f.prefix+"ping/1"), func(s network.Stream) {
		defer s.Reset()
		_, _ = io.Copy(s, s)
	})
	eventually(t, "the victim takes the spy for a peer", func() bool {
		peers, err := f.client.Peers(t.Context())
		return err == nil && slices.ContainsFunc(peers, func(p grid.PeerInfo) bool { return p.ID == a.ID() })
	})
	token := f.invite(t, grid.RoleVoter, 1)
	of := map[peer.ID]int{}
	for _, addr := range steal(t, token).token.Addrs {
		_, id := peer.SplitAddr(addr)
		of[id]++
	}
	if of[a.ID()] > 2 || of[nodeID(f.victim)] == 0 {
		t.Errorf("a token names %v", of)
	}
	late := f.up(t, "eclipsed", io.Discard, token)
	eventually(t, "the honest nodes meet", func() bool {
		for _, d := range []*daemon.Daemon{f.victim, f.ally, late} {
			peers, err := d.Client().Peers(t.Context())
			if err != nil {
				return false
			}
			met := map[peer.ID]bool{nodeID(d): true}
			for _, p := range peers {
				met[p.ID] = true
			}
			for _, other := range []*daemon.Daemon{f.victim, f.ally, late} {
				if !met[nodeID(other)] {
					return false
				}
			}
		}
		return true
	})
	eventually(t, "it was asked", func() bool { return asked.Load() > 0 })
	peers, err := f.client.Peers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		if !slices.Contains(f.members(t), p.ID.String()) {
			t.Errorf("%s is a peer and no member", p.ID)
		}
	}
	t.Logf("asked %d times; peers %d", asked.Load(), len(peers))
}
