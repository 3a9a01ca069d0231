package member

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

var epoch = time.Unix(1<<30, 0)

// parse reads a realm such as "L v v- l l* n": the leader, a voter, one that is away, a learner, one that lags, and a node
// without a copy; a '!' marks what is gone, a '?' an old disk, and "@x" its zone. They are named a, b, c and so on.
func parse(s string) (v View) {
	for i, w := range strings.Fields(s) {
		id := peer.ID(rune('a' + i))
		w, zone, _ := strings.Cut(w, "@")
		if w == "n" {
			v.Nodes = append(v.Nodes, Node{id, zone})
			continue
		}
		r := Replica{ID: id, Voter: w[0] != 'l', Up: !strings.Contains(w, "-"), Gone: strings.Contains(w, "!"), Old: strings.Contains(w, "?"), Zone: zone}
		if strings.Contains(w, "*") {
			r.Lag = 1 << 20
		}
		if w[0] == 'L' {
			v.Leader = id
		}
		v.Replicas = append(v.Replicas, r)
	}
	return v
}

func apply(v *View, s Step) {
	i := slices.IndexFunc(v.Replicas, func(r Replica) bool { return r.ID == s.ID })
	switch s.Do {
	case Add:
		j := slices.IndexFunc(v.Nodes, func(n Node) bool { return n.ID == s.ID })
		v.Replicas = append(v.Replicas, Replica{ID: s.ID, Up: true, Zone: v.Nodes[j].Zone})
		v.Nodes = slices.Delete(v.Nodes, j, j+1)
	case Promote:
		v.Replicas[i].Voter = true
	case Demote:
		v.Replicas[i].Voter = false
	case Remove:
		v.Replicas = slices.Delete(v.Replicas, i, i+1)
	case HandOver:
		v.Leader = s.ID
	}
}

func TestNext(t *testing.T) {
	for _, c := range []struct{ name, realm, fresh, want string }{
		{"alone", "L", "", ""},
		{"two nodes rest at one voter", "L n", "add b", ""},
		{"three nodes", "L n n", "add b, add c", "promote b, promote c"},
		{"four nodes rest at three voters", "L n n n", "add b, add c", "promote b, promote c, add d"},
		{"five nodes", "L v v n n", "add d, add e", "promote d, promote e"},
		{"nine nodes", "L v v v v n n n n", "add f, add g", ""},
		{"a learner that lags waits", "L l l*", "", ""},
		{"a learner that is away waits", "L l l-", "", ""},
		{"a voter that is away is waited for", "L v v- l", "", "demote c, promote d"},
		{"without a learner it is waited for", "L v v-", "", ""},
		{"five with one away", "L v v v v-", "", ""},
		{"five with two away", "L v v v- v-", "", "demote d, demote e"},
		{"five with one away and a learner", "L v v v v- l", "", "demote e, promote f"},
		{"no majority", "L v- v-", "", ""},
		{"a change that was cut short goes on", "L v l", "demote b", "promote b, promote c"},
		{"four voters", "L v v v", "demote d", ""},
		{"four voters, one is away", "L v v- v", "demote c", ""},
		{"one left of three", "L v v!", "remove c, demote b", ""},
		{"one left of three, a learner is ready", "L v v! l", "remove c, demote b", "promote b, promote d"},
		{"the leader leaves", "L! v v l", "hand over b, remove a, demote c", "promote c, promote d"},
		{"the leader leaves one learner", "L! l", "", "promote b, hand over b, remove a"},
		{"an old disk", "L v v?-", "demote c, demote b", ""},
		{"an old disk of five", "L v v v v?-", "demote e, demote", ""},
		{"too many learners", "L v v v v l l l", "remove f", ""},
		{"lost learners make room", "L v v l- n", "add e", ""},
		{"voters are spread over zones", "L@x v@x v@y l@x l@x l@z l@y n@w", "remove d", "promote f, promote g, add h"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, v := New(Config{}), parse(c.realm)
			run := func(now time.Time, want string) {
				t.Helper()
				var got []string
				for range 20 {
					s := p.Next(now, v)
					if s.Do == Nothing {
						break
					}
					got = append(got, string(s.Do)+" "+string(s.ID))
					apply(&v, s)
				}
				if g := strings.Join(got, ", "); !strings.HasPrefix(g, want) || want == "" && g != "" {
					t.Errorf("at %v: %q, want %q", now.Sub(epoch), g, want)
				}
			}
			run(epoch, c.fresh)
			run(epoch.Add(time.Minute), c.want)
		})
	}
}

// A learner that comes and goes is never up for long enough.
func TestStable(t *testing.T) {
	p := New(Config{Stable: 10 * time.Second})
	for i := range 100 {
		v := parse("L l l")
		v.Replicas[2].Up = i%9 != 0
		if s := p.Next(epoch.Add(time.Duration(i)*time.Second), v); s.Do != Nothing {
			t.Fatalf("after %d s: %+v", i, s)
		}
	}
}

// world is a realm that things happen to.
type world struct {
	t       *testing.T
	rand    *rand.Rand
	now     time.Time
	nodes   []*node
	leader  *node
	planner *Planner
	steps   int
	log     []string
}

type node struct {
	id          peer.ID
	zone        string
	up, gone    bool
	group       int // of the partition that it is in
	copy, voter bool
	lag         uint64
}

func (w *world) logf(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%8v ", w.now.Sub(epoch))+fmt.Sprintf(format, args...))
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.log[max(0, len(w.log)-60):], "\n"))
}

func (w *world) voters(from *node) (all, up int) {
	for _, n := range w.nodes {
		if n.voter {
			all++
			if n.up && from != nil && n.group == from.group {
				up++
			}
		}
	}
	return all, up
}

// elect finds out who leads: whoever does goes on while a majority follows.
func (w *world) elect() {
	ok := func(n *node) bool {
		all, up := w.voters(n)
		return n.up && n.voter && up >= majority(all)
	}
	if w.leader != nil && ok(w.leader) {
		return
	}
	w.leader = nil
	var next *node
	for _, i := range w.rand.Perm(len(w.nodes)) {
		if n := w.nodes[i]; ok(n) && (next == nil || n.lag < next.lag) {
			next = n
		}
	}
	if next != nil {
		w.lead(next)
	}
}

func (w *world) lead(n *node) {
	w.leader, w.planner = n, New(Config{})
	w.logf("%s leads", n.id)
}

func (w *world) view() View {
	v := View{Leader: w.leader.id}
	for _, n := range w.nodes {
		seen := n.up && n.group == w.leader.group
		switch {
		case n.copy:
			v.Replicas = append(v.Replicas, Replica{n.id, n.voter, seen, n.lag, n.zone, n.gone, false})
		case seen && !n.gone:
			v.Nodes = append(v.Nodes, Node{n.id, n.zone})
		}
	}
	w.rand.Shuffle(len(v.Nodes), func(i, j int) { v.Nodes[i], v.Nodes[j] = v.Nodes[j], v.Nodes[i] })
	return v
}

func (w *world) join() *node {
	n := &node{id: peer.ID(fmt.Sprintf("n%d", len(w.nodes))), up: true, zone: string(rune('x' + w.rand.IntN(3)))}
	w.nodes = append(w.nodes, n)
	return n
}

// happen is one mishap.
func (w *world) happen() {
	n := w.nodes[w.rand.IntN(len(w.nodes))]
	switch k := w.rand.IntN(20); {
	case k < 7:
		n.up = false
		w.logf("%s crashes", n.id)
	case k < 14:
		n.up = true
		w.logf("%s is back", n.id)
	case k < 16:
		if len(w.nodes) < 12 {
			w.logf("%s joins", w.join().id)
		}
	case k < 17:
		left := 0
		for _, n := range w.nodes {
			if !n.gone {
				left++
			}
		}
		if left > 3 {
			n.gone = true
			w.logf("%s leaves", n.id)
		}
	case k < 18:
		for _, n := range w.nodes {
			n.group = w.rand.IntN(2)
		}
		w.logf("a partition")
	default:
		for _, n := range w.nodes {
			n.group = 0
		}
		w.logf("it heals")
	}
	w.elect()
}

// tick passes half a second: copies catch up, and the leader plans until there is nothing to do.
func (w *world) tick(trouble float64) {
	w.now = w.now.Add(500 * time.Millisecond)
	for w.rand.Float64() < trouble {
		w.happen()
	}
	w.elect()
	if w.leader == nil {
		return
	}
	for _, n := range w.nodes {
		switch {
		case !n.copy:
		case n.up && n.group == w.leader.group:
			n.lag = n.lag / 3
		case w.rand.IntN(2) == 0:
			n.lag += uint64(w.rand.IntN(3000))
		}
	}
	w.leader.lag = 0
	for try := 0; w.leader != nil; try++ {
		if try > 50 {
			w.fail("there is no end of steps")
		}
		s := w.planner.Next(w.now, w.view())
		if s.Do == Nothing {
			if all, up := w.voters(w.leader); all%2 == 0 {
				w.fail("it rests at %d voters, of which %d are up", all, up)
			}
			return
		}
		w.steps++
		w.take(s)
		for w.rand.Float64() < trouble/2 {
			w.happen()
		}
	}
}

func (w *world) take(s Step) {
	i := slices.IndexFunc(w.nodes, func(n *node) bool { return n.id == s.ID })
	if i < 0 {
		w.fail("%+v: there is no such node", s)
	}
	n := w.nodes[i]
	was := fmt.Sprint(w.voters(w.leader))
	switch {
	case s.Do == Add && !n.copy && n.up:
		n.copy, n.lag = true, uint64(w.rand.IntN(100000))
	case s.Do == Promote && n.copy && !n.voter && n.up:
		n.voter = true
	case s.Do == Demote && n.voter && n != w.leader:
		n.voter = false
	case s.Do == Remove && n.copy && n != w.leader:
		n.voter, n.copy = false, false
	case s.Do == HandOver && n.voter && n.up:
		w.logf("%+v", s)
		w.lead(n)
		return
	default:
		w.fail("%+v does not fit %+v", s, *n)
	}
	all, up := w.voters(w.leader)
	w.logf("%+v: %s, now %d %d", s, was, all, up)
	if up < majority(all) {
		w.fail("after %+v only %d of %d voters are up", s, up, all)
	}
}

func TestSimulation(t *testing.T) {
	runs := 3000
	if testing.Short() {
		runs = 500
	}
	for seed := range runs {
		w := &world{t: t, rand: rand.New(rand.NewPCG(uint64(seed), 1)), now: epoch}
		w.logf("seed %d", seed)
		first := w.join()
		first.copy, first.voter = true, true
		for range w.rand.IntN(7) {
			w.join()
		}
		w.lead(first)
		trouble := []float64{0.005, 0.02, 0.1}[w.rand.IntN(3)]
		for range 400 {
			w.tick(trouble)
		}
		// All is well again, but for those that left and some that never come back: fewer of the voters than would matter.
		dead := 0
		all, _ := w.voters(nil)
		for _, n := range w.nodes {
			n.group = 0
			if n.up {
				continue
			}
			if !n.voter || dead >= all-majority(all) || w.rand.IntN(2) == 0 {
				n.up = true
			} else {
				dead++
			}
		}
		w.logf("quiet")
		for range 400 {
			w.tick(0)
		}
		before := w.steps
		for range 200 {
			w.tick(0)
		}
		if w.steps != before {
			w.fail("it does not come to rest")
		}
		w.check()
	}
}

// check looks whether a realm that is at rest is as it should be.
func (w *world) check() {
	w.t.Helper()
	if w.leader == nil {
		w.fail("nobody leads")
	}
	live, learners := 0, 0
	for _, n := range w.nodes {
		if n.gone && n.copy {
			w.fail("%s has left, and keeps a copy", n.id)
		}
		if n.up && !n.gone {
			live++
			if n.copy && !n.voter {
				learners++
			}
		}
	}
	all, up := w.voters(w.leader)
	want := min(5, live)
	want -= 1 - want%2
	if all%2 == 0 || up < want || up != all && live != up {
		w.fail("%d of %d voters are up, of %d nodes", up, all, live)
	}
	if learners != min(2, live-up) {
		w.fail("%d learners beside %d voters, of %d nodes", learners, up, live)
	}
}

// Voters are spread over zones when there is a choice.
func TestZones(t *testing.T) {
	v := parse("L@x l@x l@y l@x l@z")
	p := New(Config{Voters: 3})
	p.Next(epoch, v)
	now := epoch.Add(time.Minute)
	zones := map[string]bool{}
	for s := p.Next(now, v); s.Do == Promote; s = p.Next(now, v) {
		apply(&v, s)
	}
	for _, r := range v.Replicas {
		if r.Voter {
			zones[r.Zone] = true
		}
	}
	if len(zones) != 3 {
		t.Errorf("voters are in zones %v", zones)
	}
}

func BenchmarkNext(b *testing.B) {
	p, v := New(Config{}), parse("L v v v v l l n n n")
	for b.Loop() {
		p.Next(epoch, v)
	}
}
