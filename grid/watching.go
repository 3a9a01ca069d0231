package grid

import (
	"cmp"
	"context"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// What the state of a node can be.
const (
	PulseUp       = "up"
	PulseDraining = "draining"
	PulseSilent   = "silent" // it does not answer
)

const (
	// pulseAge is how old a node's idea of itself may be when somebody asks.
	pulseAge = 100 * time.Millisecond
	// maxVictims bounds the nodes whose tasks that were taken are counted apart.
	maxVictims = 1 << 12
	// forgetNode is how long a node that is of the realm no longer is shown.
	forgetNode = 10 * time.Minute
)

// MinFollow and MaxFollow are the least and the most time between two lists of who follows nodes.
const (
	MinFollow = 250 * time.Millisecond
	MaxFollow = time.Minute
)

// loot counts the tasks that a node took from others.
type loot struct {
	mu   sync.Mutex
	from map[peer.ID]uint64
}

func (l *loot) note(victim peer.ID, tasks uint64) {
	if tasks == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.from == nil {
		l.from = make(map[peer.ID]uint64)
	}
	if _, ok := l.from[victim]; ok || len(l.from) < maxVictims {
		l.from[victim] += tasks
	}
}

// flows are those from whom most was taken.
func (l *loot) flows() []Flow {
	l.mu.Lock()
	list := make([]Flow, 0, len(l.from))
	for id, tasks := range l.from {
		list = append(list, Flow{id.String(), tasks})
	}
	l.mu.Unlock()
	slices.SortFunc(list, func(a, b Flow) int { return cmp.Or(cmp.Compare(b.Tasks, a.Tasks), cmp.Compare(a.From, b.From)) })
	return list[:min(len(list), MaxFlows)]
}

// sights is what is known of the nodes of the realm by looking at them.
type sights struct {
	mine struct {
		mu    sync.Mutex
		made  time.Time
		pulse Pulse
	}
	asking rounds

	mu      sync.Mutex
	nodes   map[peer.ID]*sight
	version uint64 // grows with whatever is heard
}

// sight is what is known of one.
type sight struct {
	pulse   Pulse
	version uint64
	heard   time.Time
}

// ownPulse is this node's own.
func (n *Node) ownPulse(*lookMsg) lookReply[Pulse] {
	m := &n.sights.mine
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.made) >= pulseAge {
		m.pulse, m.made = n.makePulse(), time.Now()
	}
	return lookReply[Pulse]{Run: n.started.UnixNano(), Now: time.Now().UnixNano(), Items: []Pulse{m.pulse}}
}

func (n *Node) makePulse() Pulse {
	now := time.Now()
	p := Pulse{
		Node: n.self.String(), Version: Version, At: now.UTC().Round(0), Started: n.started, State: PulseUp,
		Load: n.Load(), Jobs: n.JobsRunning(), Ran: n.ran.Load(), Failed: n.failed.Load(), Busy: int64(n.history.busy(now)),
		Stolen: n.stolen.Load(), Steals: n.loot.flows(), Goroutines: runtime.NumGoroutine(), Memory: memoryUsed(), Links: []PulseLink{},
	}
	p.P50, p.P99 = n.history.recent(now)
	ctx, cancel := context.WithTimeout(n.ctx, time.Second)
	defer cancel()
	if d, err := n.Pins.Draining(ctx); err == nil && d.Draining {
		p.State = PulseDraining
	}
	peers := n.Network.Peers()
	slices.SortStableFunc(peers, func(a, b PeerInfo) int { // those that were not measured come last
		return cmp.Or(cmp.Compare(uint64(a.RTT-1), uint64(b.RTT-1)), cmp.Compare(a.ID, b.ID))
	})
	for _, other := range peers[:min(len(peers), MaxLinks)] {
		p.Links = append(p.Links, PulseLink{other.ID.String(), other.RTT, other.Transport})
	}
	if n.Vitals != nil {
		n.Vitals(ctx, &p)
	}
	return p
}

// memoryUsed is what the Go runtime has from the operating system and has not given back.
func memoryUsed() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 || s[1].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// Bounds on the words of a pulse.
const (
	maxPulseName = 64
	maxPulseWord = 32
)

// takePulse makes what a peer says of itself fit to be shown.
func takePulse(p *Pulse, from peer.ID, c clockOf) bool {
	p.Node, p.Error = from.String(), ""
	p.Name, p.Version, p.Zone = clean(p.Name, maxPulseName), clean(p.Version, maxPulseName), clean(p.Zone, maxPulseName)
	if p.State != PulseDraining {
		p.State = PulseUp
	}
	if p.At = c.local(p.At); p.At.After(c.now.Add(clockSlack)) || p.At.Before(c.now.Add(-oldestRun)) {
		p.At = c.now.UTC().Round(0)
	}
	if p.Started = c.local(p.Started); p.Started.After(c.now.Add(clockSlack)) || p.Started.Year() < 2000 {
		p.Started = time.Time{}
	}
	p.Load.Slots = min(max(p.Load.Slots, 0), maxThiefSlots)
	p.Load.Running = min(max(p.Load.Running, 0), p.Load.Slots)
	p.Load.Parked = min(max(p.Load.Parked, 0), maxParked)
	p.Jobs, p.Busy, p.Goroutines = max(p.Jobs, 0), max(p.Busy, 0), max(p.Goroutines, 0)
	p.P50, p.P99 = min(max(p.P50, 0), oldestRun), min(max(p.P99, 0), oldestRun)
	flows := make([]Flow, 0, min(len(p.Steals), MaxFlows))
	for _, f := range p.Steals[:min(len(p.Steals), MaxFlows)] {
		if _, err := ParseNodeID(f.From); err == nil {
			flows = append(flows, f)
		}
	}
	links := make([]PulseLink, 0, min(len(p.Links), MaxLinks))
	for _, l := range p.Links[:min(len(p.Links), MaxLinks)] {
		if _, err := ParseNodeID(l.Node); err == nil {
			links = append(links, PulseLink{l.Node, min(max(l.RTT, 0), time.Hour), clean(l.Transport, maxPulseWord)})
		}
	}
	p.Steals, p.Links = flows, links
	return true
}

// see asks a node how it is.
func (n *Node) see(ctx context.Context, id peer.ID, _ bool) error {
	r, err := look(ctx, n, id, protoPulse, &lookMsg{}, 1, n.ownPulse, takePulse)
	if err == nil && len(r.Items) != 1 {
		err = Errorf(Invalid, "node %s says nothing of itself", id)
	}
	if ctx.Err() != nil {
		return err
	}
	v := &n.sights
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.nodes[id]
	if s == nil {
		s = &sight{pulse: Pulse{Steals: []Flow{}, Links: []PulseLink{}}}
		v.nodes[id] = s
	}
	if err == nil {
		s.pulse, s.heard = r.Items[0], time.Now()
	} else {
		text := clean(err.Error(), maxMessage)
		if s.pulse.State == PulseSilent && s.pulse.Error == text {
			return err
		}
		s.pulse.Node, s.pulse.State, s.pulse.Error, s.pulse.Leader = id.String(), PulseSilent, text, false
	}
	v.version++
	s.version = v.version
	return err
}

// seen lists the nodes of which something was heard after a version, by ID, and tells the last one. Those that have not answered
// yet are silent.
func (n *Node) seen(ids []peer.ID, after uint64) (list []Pulse, version uint64) {
	v := &n.sights
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range ids {
		if v.nodes[id] == nil {
			v.version++
			v.nodes[id] = &sight{Pulse{Node: id.String(), State: PulseSilent, Error: "it has not answered yet", Steals: []Flow{}, Links: []PulseLink{}}, v.version, time.Now()}
		}
	}
	for id, s := range v.nodes {
		if ids != nil && s.pulse.State == PulseSilent && time.Since(s.heard) > forgetNode && !slices.Contains(ids, id) {
			delete(v.nodes, id)
		} else if s.version > after {
			list = append(list, s.pulse)
		}
	}
	slices.SortFunc(list, func(a, b Pulse) int { return cmp.Compare(a.Node, b.Node) })
	return list, v.version
}

// Nodes tells how each node of the realm is, as it says itself. Of one that does not answer it is what was known last.
func (n *Node) Nodes(ctx context.Context) ([]Pulse, error) {
	leave, err := n.sights.asking.join(ctx, time.Second)
	if err != nil {
		return nil, err
	}
	defer leave()
	list, _ := n.seen(n.looked(ctx), 0)
	return list, nil
}

// FollowNodes calls f with all nodes of the realm, and then, every so often, with those of which something was heard since. If there are
// many, each is heard of less often. An error of f ends it.
func (n *Node) FollowNodes(ctx context.Context, every time.Duration, f func([]Pulse) error) error {
	every = min(max(every, MinFollow), MaxFollow)
	leave, err := n.sights.asking.join(ctx, every)
	if err != nil {
		return err
	}
	defer leave()
	tick := time.NewTicker(every)
	defer tick.Stop()
	list, version := n.seen(n.looked(ctx), 0)
	for {
		if len(list) > 0 {
			if err := f(list); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-n.ctx.Done():
			return errClosing
		}
		list, version = n.seen(nil, version)
	}
}
