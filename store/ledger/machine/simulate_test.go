package machine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// world is clients, a leader and replicas, without network or clock: what happens next is drawn from a seed.
type world struct {
	*rand.Rand
	t    *testing.T
	seed uint64
	cfg  Config

	log      [][]byte // committed entries; the index of the first is 1
	replicas []*replica
	leader   int
	flying   []message // to the leader; in any order, some twice, some never
	proposed []batch   // by the leader, not committed yet
	clients  []*client
	sums     map[uint64][32]byte // of the state behind an index, as the first replica that got there has it
	opened   int
	retried  int // refused since nobody could tell
	twice    int // acknowledged, and more than once in the log
	logged   map[grid.RequestID]int
}

// message is a client's command on its way.
type message struct {
	from *client
	try  uint64 // of the client's operations
	cmd  Command
}

// batch is an entry of the leader's own log, with whom to answer.
type batch struct {
	entry    []byte
	messages []message
}

type replica struct {
	m     *Machine
	saved []byte // its last snapshot; nil: none
}

// client does one operation after another, and sends each until it is answered.
type client struct {
	name    string
	seq     uint64 // of its operation
	cmd     Command
	session grid.SessionID
	base    uint64 // newest revision that it knows
	acked   []grid.RequestID
	revs    map[grid.RequestID]uint64 // of those
	old     []message                 // that may arrive again
}

// step lets one thing happen.
func (w *world) step() {
	switch n := w.IntN(100); {
	case n < 35: // a client sends what it waits for, or begins something
		w.send(w.clients[w.IntN(len(w.clients))])
	case n < 60 && len(w.flying) > 0: // some messages arrive, and are proposed together
		w.propose()
	case n < 75: // the log grows by what was proposed first
		w.commit()
	case n < 90: // a replica applies some of the log
		r := w.replicas[w.IntN(len(w.replicas))]
		w.catchUp(r, int(r.m.Applied())+w.IntN(4))
	case n < 93: // one saves its state
		r := w.replicas[w.IntN(len(w.replicas))]
		r.saved = snapshotOf(w.t, r.m)
	case n < 96: // one starts again from what it saved, or from another's
		r := w.replicas[w.IntN(len(w.replicas))]
		saved := r.saved
		if w.IntN(3) == 0 {
			saved = w.replicas[w.IntN(len(w.replicas))].saved
		}
		r.m = New(w.cfg)
		if saved != nil {
			if err := r.m.Restore(bytes.NewReader(saved)); err != nil {
				w.t.Fatal(err)
			}
		}
	case n < 98: // another leader; some of what the old one proposed is committed all the same, nobody is answered
		for _, b := range w.proposed[:w.IntN(len(w.proposed)+1)] {
			w.record(b)
		}
		w.proposed = nil
		w.leader = w.IntN(len(w.replicas))
		w.catchUp(w.replicas[w.leader], len(w.log))
	default: // a session was silent for too long, in the leader's eyes
		if list := w.replicas[w.leader].m.Sessions(); len(list) > 0 {
			w.flying = append(w.flying, message{cmd: Command{End: []grid.SessionID{list[w.IntN(len(list))].ID}}})
		}
	}
}

func (w *world) send(c *client) {
	if c.cmd.Txn == nil && c.cmd.Open == nil {
		c.seq++
		if c.session == "" {
			w.opened++
			c.cmd = Command{Open: &OpenSession{ID: grid.SessionID(fmt.Sprint("session", w.opened)), TTL: time.Second}}
		} else {
			var id [16]byte
			copy(id[:], fmt.Sprintf("%s-%d", c.name, c.seq))
			t := &grid.Txn{ID: grid.RequestID(id[:]), Put: []grid.Entry{
				{Key: "op/" + c.name, Value: id[:]}, {Key: "alive/" + c.name, Session: c.session},
			}}
			c.cmd = Command{Txn: t, Base: c.base}
		}
	}
	m := message{c, c.seq, c.cmd}
	if c.old = append(c.old, m); len(c.old) > 40 {
		c.old = c.old[1:]
	}
	for w.IntN(3) > 0 { // lost, or sent, or sent more than once
		w.flying = append(w.flying, m)
	}
	if w.IntN(4) == 0 { // something from long ago arrives at last
		w.flying = append(w.flying, c.old[w.IntN(len(c.old))])
	}
}

func (w *world) propose() {
	var b batch
	var cmds []Command
	for n := 1 + w.IntN(4); n > 0 && len(w.flying) > 0; n-- {
		i := w.IntN(len(w.flying))
		b.messages = append(b.messages, w.flying[i])
		cmds = append(cmds, w.flying[i].cmd)
		w.flying[i] = w.flying[len(w.flying)-1]
		w.flying = w.flying[:len(w.flying)-1]
	}
	var err error
	if b.entry, err = AppendBatch(nil, cmds); err != nil {
		w.t.Fatal(err)
	}
	w.proposed = append(w.proposed, b)
}

func (w *world) commit() {
	if len(w.proposed) == 0 {
		return
	}
	b := w.proposed[0]
	w.proposed = w.proposed[1:]
	leader := w.replicas[w.leader]
	w.catchUp(leader, len(w.log))
	w.record(b)
	for i, r := range w.catchUp(leader, len(w.log)) {
		if w.IntN(3) > 0 { // else the answer is lost
			w.answer(b.messages[i], r)
		}
	}
}

func (w *world) record(b batch) {
	w.log = append(w.log, b.entry)
	for _, m := range b.messages {
		if m.cmd.Txn != nil {
			w.logged[m.cmd.Txn.ID]++
		}
	}
}

func (w *world) answer(m message, r Result) {
	c := m.from
	if c == nil || m.try != c.seq || c.cmd.Txn == nil && c.cmd.Open == nil {
		return // nobody waits for it
	}
	switch {
	case m.cmd.Open != nil && r.Code == 0:
		c.session = m.cmd.Open.ID
	case r.Retry:
		w.retried++ // it will never be known
	case r.Code == grid.Conflict:
		c.session = "" // has ended
	case r.Code == 0:
		id := m.cmd.Txn.ID
		c.acked = append(c.acked, id)
		c.revs[id] = r.Revision
		if w.logged[id] > 1 {
			w.twice++
		}
	default:
		w.t.Fatalf("seed %d: %+v gives %+v", w.seed, m.cmd, r)
	}
	c.base = max(c.base, r.Revision)
	c.cmd = Command{}
}

// catchUp lets a replica apply the log up to an index, and returns the last results.
func (w *world) catchUp(r *replica, index int) (last []Result) {
	for i := int(r.m.Applied()) + 1; i <= min(index, len(w.log)); i++ {
		var err error
		if last, err = r.m.Apply(uint64(i), w.log[i-1]); err != nil {
			w.t.Fatal(err)
		}
		sum := r.m.Snapshot().Sum()
		if first, known := w.sums[uint64(i)]; known && first != sum {
			w.t.Fatalf("seed %d: two replicas differ behind log entry %d", w.seed, i)
		}
		w.sums[uint64(i)] = sum
	}
	return last
}

// check goes through everything that was committed, as a watcher sees it.
func (w *world) check() {
	m := New(w.cfg)
	var all []grid.Changes
	watch, err := m.Watch("", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	for i, entry := range w.log {
		if _, err := m.Apply(uint64(i+1), entry); err != nil {
			w.t.Fatal(err)
		}
		alive := map[grid.SessionID]bool{}
		for _, s := range m.Sessions() {
			alive[s.ID] = true
		}
		p, err := m.Range(grid.Query{})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range p.Entries {
			if e.Session != "" && !alive[e.Session] {
				w.t.Fatalf("seed %d: behind log entry %d, %q outlives its session %q", w.seed, i+1, e.Key, e.Session)
			}
		}
		for {
			c, ok, err := watch.Poll()
			if err != nil {
				w.t.Fatal(err)
			}
			if !ok {
				break
			}
			all = append(all, c)
		}
	}
	effects := map[grid.RequestID]uint64{}
	for _, c := range all {
		for _, e := range c.Put {
			if id := grid.RequestID(e.Value); id != "" {
				if rev, again := effects[id]; again {
					w.t.Errorf("seed %d: %q took effect at revisions %d and %d", w.seed, id, rev, c.Revision)
				}
				effects[id] = c.Revision
			}
		}
	}
	for _, c := range w.clients {
		for _, id := range c.acked {
			if effects[id] != c.revs[id] {
				w.t.Errorf("seed %d: %q was acknowledged at revision %d, and took effect at %d", w.seed, id, c.revs[id], effects[id])
			}
		}
	}
}

// TestSimulation loses, repeats and delays messages and answers, changes leaders and restarts replicas: what is
// acknowledged has taken effect once, nothing ever does twice, and replicas agree.
func TestSimulation(t *testing.T) {
	seeds, acked, retried, twice := uint64(90), 0, 0, 0
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		w := &world{
			Rand: rand.New(rand.NewPCG(seed, 2)), t: t, seed: seed,
			cfg: Config{Requests: []int{1 << 10, 16, 4}[seed%3]}, sums: map[uint64][32]byte{}, logged: map[grid.RequestID]int{},
		}
		for range 3 {
			w.replicas = append(w.replicas, &replica{m: New(w.cfg)})
		}
		for i := range 4 {
			w.clients = append(w.clients, &client{name: string(rune('a' + i)), revs: map[grid.RequestID]uint64{}})
		}
		for range 600 {
			w.step()
		}
		for _, r := range w.replicas {
			w.catchUp(r, len(w.log))
		}
		w.check()
		for _, c := range w.clients {
			acked += len(c.acked)
		}
		retried += w.retried
		twice += w.twice
	}
	t.Logf("%d operations acknowledged, %d of them more than once in the log, %d left unknown", acked, twice, retried)
	if acked == 0 || retried == 0 || twice == 0 {
		t.Error("nothing much has happened")
	}
}
