package grid

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// MaxRecall bounds the invocations that one call asks for.
const MaxRecall = 4096

const recallBytes = MaxMessage / 2 // of the receipts of one reply, about

// How others are asked. For a job that was taken over, what they know saves the work of its last owner; for a new
// one it is a chance, for which its tasks must not wait long.
var (
	recallAfter  = patience{nodes: 256, call: time.Second, vain: 8}
	recallBefore = patience{nodes: 32, call: 100 * time.Millisecond, vain: 2}
)

// patience bounds the asking of others for receipts of a stage.
type patience struct {
	nodes int           // that are asked, at most
	call  time.Duration // one answer may take; a node that takes longer, or fails, is asked no more
	vain  int           // calls in a row that bring nothing until a node is asked no more
}

// onRecall looks for receipts of whoever asks: who knows an invocation's key knows the invocation.
func (n *Node) onRecall(ctx context.Context, _ peer.ID, m recallMsg) (recallReply, error) {
	if len(m.Keys) > MaxRecall {
		return recallReply{}, Errorf(Limit, "%d invocations asked for, at most %d are allowed", len(m.Keys), MaxRecall)
	}
	reply := recallReply{Receipts: []Receipt{}}
	size := 0
	for _, key := range m.Keys {
		if size > recallBytes || ctx.Err() != nil {
			break
		}
		reply.Looked++
		r, ok, err := n.Cache.Lookup(ctx, key)
		if err != nil {
			return recallReply{}, err
		}
		if !ok || !r.Lasting() {
			continue
		}
		size += 1<<10 + len(r.Stdout.Inline) + len(r.Stderr.Inline)
		reply.Receipts = append(reply.Receipts, r)
	}
	return reply, nil
}

// recaller asks the nodes around for receipts, stage by stage. It is for one goroutine.
type recaller struct {
	patience
	n      *Node
	tries  map[peer.ID]int // calls in a row that brought nothing
	peers  []peer.ID
	inside map[peer.ID]bool // of the realm
	// firsthand believes nodes what they have run themselves only. Else one node could say it for any number of others, which
	// need not even be: an identity costs nothing.
	firsthand bool
}

// recaller lists whom to ask: the nodes of the realm that are up, the nearest first, and if there are others whose
// receipts count here, whoever else is connected. It is nil when there is nobody.
func (n *Node) recaller(p patience) *recaller {
	if n.realm == nil {
		return nil
	}
	r := &recaller{patience: p, n: n, tries: map[peer.ID]int{}, inside: map[peer.ID]bool{}}
	for _, id := range n.realm.up() {
		r.inside[id] = true
	}
	connected := n.Network.Peers()
	slices.SortStableFunc(connected, func(a, b PeerInfo) int { return cmp.Compare(a.RTT, b.RTT) })
	for _, within := range []bool{true, false} {
		for _, c := range connected {
			if c.ID != n.self && r.inside[c.ID] == within && (within || n.Trust.any()) && len(r.peers) < p.nodes {
				r.peers = append(r.peers, c.ID)
			}
		}
	}
	if len(r.peers) == 0 {
		return nil
	}
	return r
}

// Trust says whose receipts count for a node besides its realm's. Those of its realm tell the truth for all that it
// knows; so a receipt counts if a node of the realm tells it, whoever made it, or if the maker is trusted.
type Trust struct {
	Nodes []peer.ID
	All   bool // anybody's
}

func (t *Trust) any() bool { return t.All || len(t.Nodes) > 0 }

func (t *Trust) node(id peer.ID) bool { return t.All || slices.Contains(t.Nodes, id) }

// any reports whether there is anybody left to ask.
func (r *recaller) any() bool { return r != nil && len(r.peers) > 0 }

// ask brings receipts of tasks, by their keys, that others remember and that answer for later attempts, too: of each task at most
// one that its node has signed and that an honest node could have made. from are those who sent any.
func (r *recaller) ask(ctx context.Context, tasks map[Key]*Task) (found map[Key]Receipt, from []peer.ID) {
	found = make(map[Key]Receipt)
	if len(tasks) == 0 || !r.any() {
		return found, nil
	}
	keys := make([]Key, 0, len(tasks))
	for k := range tasks {
		keys = append(keys, k)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	answers := make(map[peer.ID]int, len(r.peers))
	for _, id := range r.peers {
		wg.Go(func() {
			got, err := r.askOne(ctx, id, keys)
			mu.Lock()
			defer mu.Unlock()
			answers[id] = len(got)
			if err != nil {
				answers[id] = -1
				r.n.log.Debug("nothing recalled", "peer", id, "err", err)
			}
			if len(got) > 0 {
				from = append(from, id)
			}
			var v verifier
			for _, rc := range got {
				if _, again := found[rc.Key]; again {
					continue
				}
				if t := tasks[rc.Key]; t != nil && r.believable(id, &rc, t, &v) {
					found[rc.Key] = rc
				}
			}
		})
	}
	wg.Wait()
	r.peers = slices.DeleteFunc(r.peers, func(id peer.ID) bool {
		if answers[id] > 0 {
			r.tries[id] = 0
		} else {
			r.tries[id]++
		}
		return answers[id] < 0 || r.tries[id] >= r.vain
	})
	return found, from
}

func (r *recaller) believable(teller peer.ID, rc *Receipt, t *Task, v *verifier) bool {
	if !r.inside[teller] && !r.inside[rc.Node] && !r.n.Trust.node(rc.Node) {
		return false // a stranger's word
	}
	if r.firsthand && rc.Node != teller {
		return false
	}
	err := rc.check(t.Limits)
	if err == nil && !rc.Lasting() {
		err = Errorf(Invalid, "it is of a failure that may not happen again")
	}
	if err == nil {
		err = v.verify(rc)
	}
	if err != nil {
		r.n.log.Warn("a recalled receipt is not believed", "key", rc.Key, "node", rc.Node, "err", err)
	}
	return err == nil
}

// askOne asks one node, as often as its answers are cut short.
func (r *recaller) askOne(ctx context.Context, id peer.ID, keys []Key) (got []Receipt, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.call)
	defer cancel()
	for len(keys) > 0 {
		page := keys[:min(len(keys), MaxRecall)]
		reply, err := call[recallReply](ctx, r.n, id, protoRecall, recallMsg{page})
		if err != nil {
			return got, err
		}
		if reply.Looked <= 0 || reply.Looked > len(page) || len(reply.Receipts) > reply.Looked {
			return got, Errorf(Invalid, "%s from %s: %d receipts of %d keys", protoRecall, id, len(reply.Receipts), reply.Looked)
		}
		got = append(got, reply.Receipts...)
		keys = keys[reply.Looked:]
	}
	return got, nil
}
