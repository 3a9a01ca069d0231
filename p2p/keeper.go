package p2p

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// How the keeper dials.
const (
	redialMin   = time.Second
	redialMax   = time.Minute
	dialTimeout = 15 * time.Second
	dialsAtOnce = 8
	findsAtOnce = 8  // besides, of whom discovery has found: so one who makes it find what is not there does not stop the others
	targetPeers = 32 // connections to members that we look for by ourselves
)

// keeper keeps this node connected: it dials again whom we joined through and whom we remember, and
// gives one try to those that some form of discovery has found. It is safe for concurrent use; one
// goroutine runs it.
type keeper struct {
	dial      func(context.Context, peer.AddrInfo, bool) error
	connected func(peer.ID) bool
	directly  func(peer.ID) bool // nil, or whether otherwise than by a relay
	members   func() int
	refused   func(peer.ID, error) // nil, or told of the first of a row of failures to reach a fixed peer; must not block

	found chan peer.AddrInfo // by discovery; when it is full, later finds are dropped
	news  chan struct{}      // something may be due; holds one token

	mu      sync.Mutex
	kept    map[peer.ID]*kept
	dialing map[peer.ID]bool
}

// kept is a peer to dial again when it is lost.
type kept struct {
	remembered
	fixed bool          // joined through: not forgotten, and dialled however many others there are
	delay time.Duration // before the next try; 0 after a success
	due   time.Time
}

func newKeeper() *keeper {
	return &keeper{
		found:   make(chan peer.AddrInfo, 64),
		news:    make(chan struct{}, 1),
		kept:    make(map[peer.ID]*kept),
		dialing: make(map[peer.ID]bool),
	}
}

// fix adds a peer that this node was told to join through.
func (k *keeper) fix(info peer.AddrInfo) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.entry(info.ID)
	e.fixed = true
	e.Addrs = merge(info.Addrs, e.Addrs)
	k.wake()
}

// remember notes that a peer is a member now, reachable at the addresses.
func (k *keeper) remember(info peer.AddrInfo, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.entry(info.ID)
	if e.seen = now; len(info.Addrs) > 0 {
		if e.fixed { // a relay of yesterday is no way to it
			info.Addrs = merge(direct(e.Addrs), info.Addrs)
		}
		e.Addrs = byUse(info.Addrs)[:min(len(info.Addrs), maxPeerAddrs)]
	}
	e.delay = 0
	k.forget()
}

// restore adds peers remembered from an earlier run.
func (k *keeper) restore(peers []remembered) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range peers {
		e := k.entry(p.ID)
		e.seen = p.seen
		e.Addrs = merge(e.Addrs, p.Addrs)
	}
	k.forget()
	k.wake()
}

// lost says that the connections to a peer are gone.
func (k *keeper) lost(id peer.ID, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.kept[id]; e != nil {
		e.seen = now
		e.delay = 0
		e.retry(now)
		k.wake()
	}
}

// list is whom to write to the peer file: all that were connected once.
func (k *keeper) list() []remembered {
	k.mu.Lock()
	defer k.mu.Unlock()
	var peers []remembered
	for _, e := range k.kept {
		if !e.seen.IsZero() && len(e.Addrs) > 0 {
			peers = append(peers, e.remembered)
		}
	}
	return fresh(newest(peers), time.Now())
}

// infos is everybody kept, for the DHT to begin with.
func (k *keeper) infos() []peer.AddrInfo {
	k.mu.Lock()
	defer k.mu.Unlock()
	infos := make([]peer.AddrInfo, 0, len(k.kept))
	for _, e := range k.kept {
		infos = append(infos, peer.AddrInfo{ID: e.ID, Addrs: slices.Clone(e.Addrs)})
	}
	return infos
}

// offer hands over a peer that discovery found. It does not block.
func (k *keeper) offer(info peer.AddrInfo) {
	if k.reached(info.ID) || len(info.Addrs) == 0 {
		return
	}
	info.Addrs = info.Addrs[:min(len(info.Addrs), maxNearbyAddr)]
	select {
	case k.found <- info:
	default:
	}
}

// reached reports whether there is no need to dial a peer that was found: who is reached by a relay may be near.
func (k *keeper) reached(id peer.ID) bool {
	return k.connected(id) && (k.directly == nil || k.directly(id))
}

func (k *keeper) entry(id peer.ID) *kept {
	e := k.kept[id]
	if e == nil {
		e = &kept{remembered: remembered{AddrInfo: peer.AddrInfo{ID: id}}}
		k.kept[id] = e
	}
	return e
}

// forget drops the oldest that are not fixed, beyond maxRemembered.
func (k *keeper) forget() {
	var loose []*kept
	for _, e := range k.kept {
		if !e.fixed {
			loose = append(loose, e)
		}
	}
	if len(loose) <= maxRemembered {
		return
	}
	slices.SortFunc(loose, func(a, b *kept) int { return b.seen.Compare(a.seen) })
	for _, e := range loose[maxRemembered:] {
		delete(k.kept, e.ID)
	}
}

func (k *keeper) wake() {
	select {
	case k.news <- struct{}{}:
	default:
	}
}

// retry puts the next try off: by a second first, then by twice as much each time up to a minute, give
// or take a quarter so that nodes that lost one another together do not dial together.
func (e *kept) retry(now time.Time) {
	e.delay = min(max(2*e.delay, redialMin), redialMax)
	e.due = now.Add(jitter(e.delay))
}

// jitter is d, give or take a quarter.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// merge is the addresses of a and then those of b that are not in a, up to maxPeerAddrs.
func merge(a, b []ma.Multiaddr) []ma.Multiaddr {
	all := slices.Clone(a)
	for _, x := range b {
		if !slices.ContainsFunc(all, x.Equal) {
			all = append(all, x)
		}
	}
	return all[:min(len(all), maxPeerAddrs)]
}

// run dials until ctx ends, and waits for the dials under way.
func (k *keeper) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots, finds := make(chan struct{}, dialsAtOnce), make(chan struct{}, findsAtOnce)
	timer := time.NewTimer(0)
	defer timer.Stop()
	start := func(info peer.AddrInfo, again bool) bool {
		of := slots
		if !again {
			of = finds
		}
		select {
		case of <- struct{}{}:
		default:
			return false
		}
		wg.Go(func() {
			dctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			err := k.dial(dctx, info, again)
			<-of
			k.dialed(info.ID, err, time.Now())
		})
		return true
	}
	for {
		select {
		case <-ctx.Done():
			return
		case info := <-k.found:
			if k.begin(info.ID) && !start(info, false) {
				k.release(info.ID)
			}
		case <-timer.C:
		case <-k.news:
		}
		now := time.Now()
		for {
			info, ok := k.next(now)
			if !ok {
				break
			}
			if !start(info, true) {
				k.release(info.ID) // a dial that ends wakes us
				break
			}
		}
		timer.Reset(k.wait(now))
	}
}

// begin claims a peer that discovery found for a dial.
func (k *keeper) begin(id peer.ID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dialing[id] || k.reached(id) || k.members() >= targetPeers {
		return false
	}
	k.dialing[id] = true
	return true
}

// next claims a kept peer that is due.
func (k *keeper) next(now time.Time) (peer.AddrInfo, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	enough := k.members() >= targetPeers
	for id, e := range k.kept {
		if now.Before(e.due) || k.dialing[id] || !e.fixed && enough || k.connected(id) {
			continue
		}
		k.dialing[id] = true
		return peer.AddrInfo{ID: id, Addrs: slices.Clone(e.Addrs)}, true
	}
	return peer.AddrInfo{}, false
}

// release gives up the claim to a peer.
func (k *keeper) release(id peer.ID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.dialing, id)
}

// dialed notes how a dial went and releases the peer. After a success too there is a pause, for a peer
// may hang up at once.
func (k *keeper) dialed(id peer.ID, err error, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.dialing, id)
	if e := k.kept[id]; e != nil && err != nil {
		if e.fixed && e.delay == 0 && k.refused != nil {
			k.refused(id, err)
		}
		e.retry(now)
	} else if e != nil {
		e.due = now.Add(redialMin)
	}
	k.wake()
}

// wait is how long nothing is due.
func (k *keeper) wait(now time.Time) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	first := redialMax
	for id, e := range k.kept {
		if d := e.due.Sub(now); d > 0 && d < first && !k.dialing[id] {
			first = d
		}
	}
	return first
}
