package hostile

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/p2p"
)

// siege is a node under attack, and an honest one beside it that shares its work.
type siege struct {
	victim, ally *daemon.Daemon
	client       *api.Client
	addr         string
	log          *lines
	known        known
	module       grid.Link
	traitor      crypto.PrivKey // of a node of the realm that has gone, and comes back as something else
	reading      sync.Mutex     // the metrics
}

// lines keeps what is logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// besiege starts the nodes. betrayed, there is one more, which leaves the realm its key.
func besiege(t *testing.T, betrayed bool) *siege {
	t.Helper()
	home, err := os.MkdirTemp("", "gh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	s := &siege{log: new(lines)}
	up := func(name string, log io.Writer, join ...string) *daemon.Daemon {
		d, err := daemon.Open(t.Context(), daemon.Config{
			Home: filepath.Join(home, name), Swarm: swarm, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Join: join,
			NoMDNS: true, NoNearby: true, NoUPnP: true, Relay: p2p.RelayOn, Workers: 1, Logger: slog.New(slog.NewTextHandler(log, nil)),
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
	s.victim = up("victim", s.log)
	s.addr = s.victim.Status().Addrs[0]
	s.ally = up("ally", io.Discard, s.addr)
	s.client = s.victim.Client()
	s.module = s.add(t, wasmbytes.Spin(500_000))
	s.known.root = s.module.Cid
	if !betrayed {
		return s
	}
	traitor := up("traitor", io.Discard, s.addr)
	eventually(t, "all nodes keep the ledger of one realm", func() bool {
		st := s.victim.Status().Ledger
		votes := 0
		for _, m := range st.Members {
			if m.Up && (m.Role == grid.Voter || m.Role == grid.Leader) {
				votes++
			}
		}
		return votes == 3
	})
	if err := traitor.Close(); err != nil {
		t.Fatal(err)
	}
	if s.traitor, err = p2p.LoadIdentity(filepath.Join(home, "traitor", "identity")); err != nil {
		t.Fatal(err)
	}
	s.known.realm = s.victim.Status().Ledger.RealmID
	return s
}

func (s *siege) add(t *testing.T, data []byte) (link grid.Link) {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	_ = w.WriteHeader(&tar.Header{Name: "m", Size: int64(len(data)), Mode: 0o644, Typeflag: tar.TypeReg})
	_, _ = w.Write(data)
	_ = w.Close()
	if _, err := s.client.Add(t.Context(), &archive, func(e grid.FileInfo) { link = e.CID }); err != nil {
		t.Fatal(err)
	}
	return link
}

func (s *siege) submit(t *testing.T, tasks uint32) grid.JobID {
	t.Helper()
	id, err := s.client.Submit(t.Context(), grid.Request{
		Spec: grid.Spec{Stages: []grid.Stage{{Module: s.module, Tasks: tasks}}}, NoCache: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// done waits for a job and looks that all its tasks were run by honest nodes.
func (s *siege) done(t *testing.T, id grid.JobID, tasks uint32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := s.client.Watch(ctx, id, func(grid.JobStatus) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	by := st.Stages[0].Nodes
	sum := by[s.victim.Status().ID] + by[s.ally.Status().ID]
	if st.State != grid.Done || st.Stages[0].Done != tasks || st.Stages[0].Failed != 0 || sum != tasks {
		t.Fatalf("the job ended as %+v", st)
	}
}

// attacker is a new stranger, who knows what he can.
func (s *siege) attacker(t *testing.T) *attacker {
	t.Helper()
	return newAttacker(t, s.addr, nil)
}

func (s *siege) knows(a *attacker, job grid.JobID) *known {
	k := s.known
	k.self, k.victim, k.job = a.ID(), a.victim, job
	return &k
}

// named reports whether the node's metrics count something that it refused.
func (s *siege) named(t *testing.T, from, proto, reason string) bool {
	t.Helper()
	s.reading.Lock() // few may read them at once
	defer s.reading.Unlock()
	data, err := s.client.Metrics(t.Context())
	if err != nil {
		t.Error(err)
	}
	return strings.Contains(string(data), fmt.Sprintf("grid_refused_total{peer=%q,protocol=%q,reason=%q}", from, proto, reason))
}

// heap is what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestSiege goes through all attacks on one node, whose jobs go on meanwhile.
func TestSiege(t *testing.T) {
	s := besiege(t, true)
	s.done(t, s.submit(t, 20), 20) // everything is warm
	heapBefore, routinesBefore := heap(), runtime.NumGoroutine()

	for _, attack := range []struct {
		name string
		run  func(*testing.T, *siege, grid.JobID)
	}{
		{"garbage", throwGarbage},
		{"absurd values", sendMutants},
		{"forged receipts", forgeReceipts},
		{"silence", sayNothing},
		{"readers that do not read", neverRead},
		{"flood of calls", floodCalls},
		{"flood of streams", floodStreams},
		{"flood of the ledger", floodLedger},
		{"flood of dials", floodDials},
		{"flood of identities", floodIdentities},
	} {
		t.Run(attack.name, func(t *testing.T) {
			const tasks = 60
			id := s.submit(t, tasks)
			attack.run(t, s, id)
			if _, err := s.client.Node(t.Context()); err != nil {
				t.Fatalf("the node is down: %v", err)
			}
			s.done(t, id, tasks)
		})
	}

	// What they left behind goes with them.
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() < routinesBefore+200 })
	if now := heap(); now > heapBefore+128<<20 {
		t.Errorf("the heap grew from %d to %d MiB", heapBefore>>20, now>>20)
	}
	if !strings.Contains(s.log.String(), "refused what a peer asked for") {
		t.Error("nothing of it was logged")
	}
	for _, line := range strings.Split(s.log.String(), "\n") {
		if strings.Contains(line, "panicked") {
			t.Error(line)
		}
	}
}

// each runs f for every protocol at the same time.
func each(t *testing.T, table map[string]served, f func(name string, p served)) {
	t.Helper()
	var wg sync.WaitGroup
	for name, p := range table {
		wg.Go(func() { f(name, p) })
	}
	wg.Wait()
}

// throwGarbage sends what is no message to every protocol that the node speaks: a list that must be whole.
func throwGarbage(t *testing.T, s *siege, job grid.JobID) {
	a := s.attacker(t)
	table := protocolTable(s.knows(a, job))
	spoken := map[string]bool{}
	for _, p := range a.protocols(t) {
		name := strings.TrimPrefix(p, prefix)
		spoken[name] = true
		if _, ok := table[name]; !ok {
			t.Errorf("the node speaks %s, which nothing attacks: add it to protocolTable", p)
		}
	}
	each(t, table, func(name string, p served) {
		if !spoken[name] && p.seldom {
			return
		}
		if !spoken[name] {
			t.Errorf("the node does not speak %s", name)
			return
		}
		var valid []byte
		if msg := p.message(); msg != nil {
			valid = marshal(msg)
		}
		for _, data := range garbage(rand.New(rand.NewPCG(8, 8)), valid) {
			_, _ = a.throw(name, data)
		}
		if p.call != nil && !s.named(t, a.ID().String(), name, grid.RefusedMalformed) {
			t.Errorf("%s: malformed messages are not counted", name)
		}
	})
	for _, p := range []string{"blocks/2", "raft/1", "ledger-watch/1", "job-watch/1"} {
		id := a.ID().String()
		if !slices.ContainsFunc([]string{grid.RefusedMalformed, "invalid", "limit exceeded", "denied"}, func(reason string) bool { return s.named(t, id, p, reason) }) {
			t.Errorf("%s: malformed streams are not counted", p)
		}
	}
}

// sendMutants sends every valid message with each of its values replaced, as a stranger and as one of the realm.
func sendMutants(t *testing.T, s *siege, job grid.JobID) {
	mutate(t, s, s.attacker(t), job)
	mutate(t, s, newAttacker(t, s.addr, s.traitor), job)
}

func mutate(t *testing.T, s *siege, a *attacker, job grid.JobID) {
	t.Helper()
	var sent atomic.Int64
	each(t, protocolTable(s.knows(a, job)), func(name string, p served) {
		switch {
		case p.call != nil:
			if reply, code, err := a.call(name, marshal(p.call)); err != nil || code == grid.Internal || strings.HasPrefix(string(reply), name+" from ") {
				t.Errorf("%s: the valid message: %v, %v: %s", name, code, err, reply)
			}
			mutants(t, p.call, func(v any) {
				reply, code, err := a.call(name, marshal(v))
				if err != nil {
					return // hung up on
				}
				sent.Add(1)
				if code == grid.Internal {
					t.Errorf("%s: answered as its own fault: %s", name, reply)
				}
			})
		case p.stream != nil:
			mutants(t, p.begin, func(v any) {
				if data := marshal(v); len(data) < 1<<16 { // as far as its length can be told
					s, err := a.open(name)
					if err != nil {
						return
					}
					_, _ = s.Write(p.encode(v))
					_ = s.CloseWrite()
					_ = s.Reset()
					sent.Add(1)
				}
			})
		}
	})
	t.Logf("%d absurd messages", sent.Load())
}

// forgeReceipts reports tasks done that nobody gave out, in other nodes' names, and the same again and again.
func forgeReceipts(t *testing.T, s *siege, job grid.JobID) {
	a := newAttacker(t, s.addr, s.traitor)
	for _, node := range []string{s.victim.Status().ID, s.ally.Status().ID, a.ID().String()} {
		for epoch := range 4 {
			var done []grid.Completion
			for i := range uint32(60) {
				r := grid.Receipt{Stdout: grid.Output{Size: 4, Inline: []byte("evil")}, Fuel: 1, Started: time.Now().UnixNano()}
				_ = r.Node.UnmarshalText([]byte(node))
				done = append(done, grid.Completion{Index: i, Receipt: r})
			}
			body := marshal(m{"job": job, "stage": 0, "epoch": epoch, "done": done})
			for range 3 {
				if _, _, err := a.call("report/1", body); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// sayNothing opens streams of every protocol and leaves them there, some after a byte. An honest node is answered.
func sayNothing(t *testing.T, s *siege, job grid.JobID) {
	a := s.attacker(t)
	var mu sync.Mutex
	var held []network.Stream
	each(t, protocolTable(s.knows(a, job)), func(name string, p served) {
		for i := range 150 {
			stream, err := a.open(name)
			if err != nil {
				return
			}
			if _, err := stream.Write([]byte{0x84}[:i%2]); err != nil {
				continue
			}
			mu.Lock()
			held = append(held, stream)
			mu.Unlock()
		}
	})
	other := s.attacker(t) // who has manners today
	if _, code, err := other.call("job/1", marshal(m{"jobs": []grid.JobID{job}})); err != nil || code == grid.Busy || code == grid.Limit {
		t.Errorf("with %d silent streams another peer is answered %v, %v", len(held), code, err)
	}
	if !s.named(t, a.ID().String(), "steal/1", grid.RefusedAtOnce) {
		t.Error("too many silent streams are not counted")
	}
	s.done(t, job, 60)
	for _, stream := range held {
		_ = stream.Reset()
	}
}

// neverRead asks for all it can get and takes none of it.
func neverRead(t *testing.T, s *siege, job grid.JobID) {
	data := make([]byte, 4<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	big := s.add(t, data)
	a := s.attacker(t)
	k := s.knows(a, job)
	k.root = big.Cid
	table := protocolTable(k)
	blocks, list := table["blocks/2"], table["ledger/1"]
	var held []network.Stream
	for range 64 {
		for name, first := range map[string][]byte{"blocks/2": blocks.bytes(k), "ledger/1": framed(marshal(list.call))} {
			stream, err := a.open(name)
			if err != nil {
				continue
			}
			_, _ = stream.Write(first)
			held = append(held, stream)
		}
	}
	s.done(t, job, 60)
	for _, stream := range held {
		_ = stream.Reset()
	}
}

// flood runs f from many goroutines until it says that it has met its limit.
func flood(t *testing.T, f func() (refused bool)) bool {
	t.Helper()
	var wg sync.WaitGroup
	var met atomic.Bool
	for range 16 {
		wg.Go(func() {
			for range 3000 {
				if met.Load() {
					return
				}
				if f() {
					met.Store(true)
				}
			}
		})
	}
	wg.Wait()
	return met.Load()
}

func floodCalls(t *testing.T, s *siege, job grid.JobID) {
	for _, name := range []string{"job-why/1", "job-cancel/1", "pins/1"} {
		a := s.attacker(t)
		body := marshal(protocolTable(s.knows(a, job))[name].call)
		if name == "pins/1" {
			body = marshal(m{"info": m{"free": 1}})
		}
		if !flood(t, func() bool {
			_, code, err := a.call(name, body)
			return err == nil && code == grid.Limit
		}) {
			t.Errorf("%s: there is no limit", name)
			continue
		}
		if !s.named(t, a.ID().String(), name, grid.RefusedRate) {
			t.Errorf("%s: the flood is not counted", name)
		}
		if other := s.attacker(t); name == "job-why/1" {
			if _, code, err := other.call(name, body); err != nil || code == grid.Limit {
				t.Errorf("%s: another peer is answered %v, %v", name, code, err)
			}
		}
	}
}

func floodStreams(t *testing.T, s *siege, job grid.JobID) {
	a := s.attacker(t)
	p := protocolTable(s.knows(a, job))["job-events/1"]
	first := p.encode(p.begin)
	if !flood(t, func() bool {
		stream, err := a.open("job-events/1")
		if err != nil {
			return false
		}
		defer stream.Reset()
		_, _ = stream.Write(first)
		_, err = stream.Read(make([]byte, 1)) // an answer, but for a stream that is refused
		return err != nil
	}) {
		t.Error("there is no limit")
	}
	if !s.named(t, a.ID().String(), "job-events/1", grid.RefusedRate) {
		t.Error("the flood is not counted")
	}
}

// floodLedger asks the ledger as fast as it can. What is not refused is answered.
func floodLedger(t *testing.T, s *siege, job grid.JobID) {
	a := s.attacker(t)
	p := protocolTable(s.knows(a, job))["ledger-watch/1"]
	first := p.encode(p.begin)
	var held []network.Stream
	for range 200 {
		stream, err := a.open("ledger-watch/1")
		if err != nil {
			break
		}
		_, _ = stream.Write(first)
		held = append(held, stream)
	}
	eventually(t, "too many watches are counted", func() bool {
		return s.named(t, a.ID().String(), "ledger-watch/1", grid.RefusedAtOnce)
	})
	s.done(t, job, 60) // which takes writing to the ledger
	for _, stream := range held {
		_ = stream.Reset()
	}
}

// floodDials opens connections that never say who they are.
func floodDials(t *testing.T, s *siege, _ grid.JobID) {
	full, err := ma.NewMultiaddr(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	at, _ := ma.SplitLast(full)
	to, err := manet.ToNetAddr(at)
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range 800 {
		c, err := net.DialTimeout("tcp", to.String(), patience)
		if err != nil {
			break
		}
		conns = append(conns, c)
	}
	eventually(t, "too many connections are counted", func() bool { return s.named(t, "127.0.0.1", "", grid.RefusedConn) })
	for _, c := range conns {
		_ = c.Close()
	}
	eventually(t, "somebody new can connect", func() bool {
		a, err := connect(s.addr, nil)
		if err != nil {
			return false
		}
		_ = a.Close()
		return true
	})
}

// floodIdentities comes back under many names, each of which takes what it can get.
func floodIdentities(t *testing.T, s *siege, job grid.JobID) {
	var held []network.Stream
	for range 24 {
		a := s.attacker(t)
		for range 100 {
			stream, err := a.open("steal/1")
			if err != nil {
				break
			}
			_, _ = stream.Write([]byte{0x84})
			held = append(held, stream)
		}
	}
	honest := s.attacker(t)
	if _, code, err := honest.call("load/1", marshal(m{})); err != nil || code == grid.Busy {
		t.Errorf("with %d silent streams another peer is answered %v, %v", len(held), code, err)
	}
	s.done(t, job, 60)
	for _, stream := range held {
		_ = stream.Reset()
	}
}

// TestWrongBlocks: a node that lacks a block asks a peer that sends others. It believes none of them, and says so.
func TestWrongBlocks(t *testing.T) {
	s := besiege(t, false)
	for i, evil := range [][]byte{
		[]byte("not a frame"),
		blockFrame(cid.Cid{}, []byte("x")),
		append([]byte{1}, bytes.Repeat([]byte{0xff}, 12)...),
		nil, // another one than was asked for
		{},  // the right name, and other bytes
		{3},
	} {
		want := grid.NewBlock(cid.Raw, fmt.Append(nil, "wanted ", i)).CID()
		answer := evil
		switch {
		case evil == nil:
			other := grid.NewBlock(cid.Raw, []byte("other"))
			answer = blockFrame(other.CID(), []byte("other"))
		case len(evil) == 0:
			answer = blockFrame(want, []byte("wrong bytes"))
		}
		a := s.attacker(t)
		asked := make(chan struct{}, 64)
		a.SetStreamHandler(prefix+"blocks/2", func(stream network.Stream) {
			defer stream.Reset()
			_, _ = stream.Write(answer)
			_ = stream.CloseWrite()
			select {
			case asked <- struct{}{}:
			default:
			}
			_, _ = io.Copy(io.Discard, stream)
		})
		eventually(t, "the victim takes it for a node", func() bool {
			peers, err := s.client.Peers(t.Context())
			return err == nil && slices.ContainsFunc(peers, func(p grid.PeerInfo) bool { return p.ID == a.ID() })
		})
		ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
		got := make(chan error, 1)
		go func() {
			r, err := s.client.Cat(ctx, want, "")
			if err == nil {
				_, err = io.ReadAll(r)
				r.Close()
			}
			got <- err
		}()
		select {
		case <-asked:
		case err := <-got:
			t.Fatalf("answer %d: nobody was asked: %v", i, err)
		}
		cancel()
		if err := <-got; err == nil {
			t.Errorf("answer %d was believed", i)
		}
		_ = a.Close()
	}
	eventually(t, "bad peers are counted", func() bool { return s.victim.Status().Store.BadPeers > 0 })
}

func blockFrame(c cid.Cid, data []byte) []byte {
	b := []byte{1, byte(c.ByteLen() + len(data))}
	return append(append(b, c.Bytes()...), data...)
}
