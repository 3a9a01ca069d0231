package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestBetween(t *testing.T) {
	for _, c := range []struct {
		mine, theirs party
		want         way
	}{
		{party{"x", "a", 1, able}, party{"y", "b", 1, able}, alien},
		{party{"x", "a", 1, able}, party{"x", "a", 3, able}, same},
		{party{"x", "a", 1, able}, party{"x", "b", 1, able}, joined},
		{party{"x", "b", 1, able}, party{"x", "a", 1, able}, joins},
		{party{"x", "a", 1, able}, party{"x", "b", 2, able}, joins},
		{party{"x", "b", 2, able}, party{"x", "a", 1, able}, joined},
		{party{"x", "a", 2, able}, party{"x", "b", 2, able}, apart},
		{party{"x", "a", 1, barred}, party{"x", "b", 1, able}, joins},
		{party{"x", "a", 1, able}, party{"x", "b", 1, barred}, joined},
		{party{"x", "a", 1, barred}, party{"x", "b", 1, barred}, alien},
		{party{"x", "a", 1, able}, party{"x", "b", 1, preferred}, joins},
		{party{"x", "b", 1, preferred}, party{"x", "a", 1, able}, joined},
		{party{"x", "b", 1, preferred}, party{"x", "a", 1, barred}, joined},
		{party{"x", "a", 1, preferred}, party{"x", "b", 1, preferred}, joined},
		{party{"x", "a", 1, preferred}, party{"x", "b", 2, able}, joins},
		{party{"x", "a", 1, barred}, party{"x", "b", 2, barred}, joins},
	} {
		if got := between(c.mine, c.theirs); got != c.want {
			t.Errorf("%v and %v: %s, want %s", c.mine, c.theirs, got, c.want)
		}
		// Both must come to the same.
		mirror := map[way]way{joins: joined, joined: joins, same: same, apart: apart, alien: alien}
		if got := between(c.theirs, c.mine); got != mirror[c.want] {
			t.Errorf("%v and %v: %s, want %s", c.theirs, c.mine, got, mirror[c.want])
		}
	}
}

func TestTarget(t *testing.T) {
	now := time.Now()
	meet := func(r *Realm, p string, id string, members int, busy bool) {
		r.met[peer.ID(p)] = &acquaintance{greeting{Name: "x", Realm: id, Members: members, Busy: busy}, now, true}
	}
	r := &Realm{met: map[peer.ID]*acquaintance{}, avoid: map[string]time.Time{}, st: state{Name: "x", ID: "m", Replica: true}}
	if _, _, ok := r.target(now); ok {
		t.Error("there is a target where nobody is")
	}
	meet(r, "1", "z", 1, false)
	if _, _, ok := r.target(now); ok {
		t.Error("it joins a greater one")
	}
	meet(r, "2", "d", 1, false)
	meet(r, "3", "c", 1, true)
	if id, via, ok := r.target(now); id != "c" || len(via) != 0 || !ok {
		t.Errorf("target %q via %v", id, via)
	}
	meet(r, "4", "y", 3, false)
	meet(r, "5", "y", 2, false)
	if id, via, ok := r.target(now); id != "y" || len(via) != 2 || !ok {
		t.Errorf("target %q via %v", id, via)
	}
	r.avoid["y"] = now.Add(time.Second)
	if id, _, _ := r.target(now); id != "c" {
		t.Errorf("target %q", id)
	}
	r.st.Replica = false // it is a client of a realm
	if _, _, ok := r.target(now); ok {
		t.Error("a member joins another realm")
	}
}

type onlySelf struct{ grid.Network }

func (onlySelf) Self() peer.ID { return "m" }

// A node that may not keep the ledger can tell of a realm that there is not, and keeps nobody from joining one that there is.
func TestTargetMadeUp(t *testing.T) {
	now := time.Now()
	worker := func(id peer.ID) bool { return id != "w" }
	r := &Realm{met: map[peer.ID]*acquaintance{}, avoid: map[string]time.Time{}, st: state{Name: "x", ID: "m", Replica: true}, began: now}
	r.cfg.Keeps, r.cfg.Network = worker, onlySelf{}
	meet := func(p, id string, members int) {
		r.met[peer.ID(p)] = &acquaintance{greeting{Name: "x", Realm: id, Members: members}, now, true}
	}
	meet("w", "a", 1000)
	if id, via, ok := r.target(now); id != "a" || len(via) != 0 || !ok {
		t.Errorf("at first it waits to hear more: %q via %v", id, via)
	}
	if id, _, ok := r.target(now.Add(barredTime)); ok {
		t.Errorf("it waits for %q for ever", id)
	}
	meet("v", "z", 2)
	meet("u", "b", 1)
	for _, members := range []int{1, 1000} {
		for _, id := range []string{"a", "b", "z"} { // b is of one, whatever the worker says
			meet("w", id, members)
			if id, via, ok := r.target(now); id != "z" || len(via) != 1 || !ok {
				t.Errorf("target %q via %v", id, via)
			}
		}
	}
}

func TestPieces(t *testing.T) {
	if p := pieces(nil); len(p) != 1 || len(p[0]) != 0 {
		t.Errorf("of nothing: %v", p)
	}
	var list []grid.Entry
	for i := range 1000 {
		list = append(list, grid.Entry{Key: fmt.Sprint(i), Value: make([]byte, 1+i*20), Version: 7})
	}
	var back []string
	for _, p := range pieces(list) {
		size := 0
		for _, e := range p {
			size += len(e.Key) + len(e.Value)
			back = append(back, e.Key)
			if e.Version != 0 {
				t.Fatal("a version is carried over")
			}
		}
		if len(p) > maxCarryEntries || size > maxCarryBytes {
			t.Errorf("a piece of %d entries and %d bytes", len(p), size)
		}
	}
	if len(back) != 1000 || back[999] != "999" {
		t.Errorf("%d entries", len(back))
	}
}

const selfID = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"

func goodState(t testing.TB) (peer.ID, state) {
	self, err := peer.Decode(selfID)
	if err != nil {
		t.Fatal(err)
	}
	st := state{Format: 1, Node: selfID, Name: "lab", Incarnation: 3}
	st.reset(self)
	return self, st
}

func TestState(t *testing.T) {
	dir := t.TempDir()
	self, st := goodState(t)
	if _, found, err := readState(dir, self); found || err != nil {
		t.Fatalf("found %v, %v", found, err)
	}
	for range 2 {
		if err := st.write(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, found, err := readState(dir, self)
	if !found || err != nil || !reflect.DeepEqual(got, st) {
		t.Fatalf("%+v, %v, %v; want %+v", got, found, err, st)
	}
	if _, _, err := readState(dir, "somebody"); !errors.Is(err, grid.Conflict) || !strings.Contains(err.Error(), selfID) {
		t.Errorf("another node's folder: %v", err)
	}
	path := filepath.Join(dir, stateFile)
	for name, data := range map[string]string{
		"empty": "", "torn": `{"format":1,"node":"`, "senseless": `{"format":1}`,
		"no name": `{"format":1,"name":"-x","id":"a","incarnation":1}`,
	} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := readState(dir, self); !errors.Is(err, grid.Corrupt) || grid.AdviceOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(path, []byte(`{"format":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readState(dir, self); !errors.Is(err, grid.Unsupported) {
		t.Errorf("a newer format: %v", err)
	}
}

func TestRealmName(t *testing.T) {
	for _, good := range []string{"default", "lab-2", "A.b_c"} {
		if err := CheckRealmName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "-x", "a b", "a/b", "ü", strings.Repeat("x", 65)} {
		if err := CheckRealmName(bad); !errors.Is(err, grid.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"format":1,"node":"n","name":"lab","id":"x","incarnation":1,"replica":true,"known":[{"id":"` + selfID + `","voter":true}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if st, err := decodeState(data); err == nil && (st.ID == "" || CheckRealmName(st.Name) != nil) {
			t.Errorf("%+v", st)
		}
	})
}

func FuzzGreeting(f *testing.F) {
	self, _ := goodState(f)
	data, err := grid.Marshal(greeting{
		Name: "lab", Realm: "x", Incarnation: 2, Members: 1, Servers: []server{{self, true}}, Do: doTake,
		Entries: []grid.Entry{{Key: "kv/a", Value: []byte("1")}}, Join: &record{Incarnation: 2},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := decodeGreeting(data)
		if err != nil {
			return
		}
		if g.Realm == "" || len(g.Servers) > maxServers {
			t.Errorf("%+v", g)
		}
		if _, err := grid.Marshal(g); err != nil {
			t.Error(err)
		}
	})
}

// TestCarried: what a node takes along into another realm, and what keeps it from joining.
func TestCarried(t *testing.T) {
	for key, want := range map[string]bool{
		"kv/a": true, "job/j": true, "plugin/p@1.0.0": true, "plugin-alias/p@good": true, "secret/s": true,
		"member/m": false, "node/n": false, "standing/n": false, "token/t": false, "realm/plugins": false,
	} {
		if carried(grid.Entry{Key: key}) != want {
			t.Errorf("%s is carried: %v", key, !want)
		}
	}
	self, err := peer.Decode(selfID)
	if err != nil {
		t.Fatal(err)
	}
	plugin := func(module string, removed bool) []byte {
		p := grid.Plugin{Publisher: self, CID: grid.Link{Cid: grid.NewBlock(cid.Raw, []byte(module)).CID()}, Published: time.Now()}
		if removed {
			p.Removed = time.Now()
		}
		data, err := grid.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for _, test := range []struct {
		key          string
		mine, theirs []byte
		want         bool
	}{
		{"kv/a", []byte("x"), []byte("y"), true},
		{"plugin-alias/p@good", []byte("1.0.0"), []byte("1.1.0"), true},
		{"job/j", []byte("x"), []byte("y"), false},
		{"plugin/p@1.0.0", plugin("a", false), plugin("a", false), false}, // by another node, at another time
		{"plugin/p@1.0.0", plugin("a", false), plugin("b", false), true},
		{"plugin/p@1.0.0", plugin("a", false), plugin("b", true), true},
		{"plugin/p@1.0.0", plugin("a", true), plugin("b", false), false},
		{"plugin/p@1.0.0", []byte("?"), plugin("b", false), true},
	} {
		if grid.Clash(test.key, test.mine, test.theirs) != test.want {
			t.Errorf("%s, %q and %q clash: %v", test.key, test.mine, test.theirs, !test.want)
		}
	}
}
