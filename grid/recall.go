package grid

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// MaxRecall bounds the invocations that one call asks for.
const MaxRecall = 4096

const (
	recallTimeout  = time.Second    // of one call
	recallBytes    = MaxMessage / 2 // of the receipts of one reply, about
	maxRecalled    = 256            // nodes that are asked
	recallPatience = 8              // calls in vain until a node is asked no more of a stage
)

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
		if !ok || !r.OK() {
			continue
		}
		size += 1<<10 + len(r.Stdout.Inline) + len(r.Stderr.Inline)
		reply.Receipts = append(reply.Receipts, r)
	}
	return reply, nil
}

// recaller asks the nodes around for receipts, stage by stage. It is for one goroutine.
type recaller struct {
	n     *Node
	vain  map[peer.ID]int // calls in a row that brought nothing
	peers []peer.ID
}

// recaller lists whom to ask: the nodes of the realm that are up, and whoever else is connected.
func (n *Node) recaller() *recaller {
	r := &recaller{n: n, vain: map[peer.ID]int{}}
	seen := map[peer.ID]bool{n.self: true}
	add := func(id peer.ID) {
		if !seen[id] && len(r.peers) < maxRecalled {
			seen[id] = true
			r.peers = append(r.peers, id)
		}
	}
	if n.realm != nil {
		up := n.realm.up()
		slices.Sort(up)
		for _, id := range up {
			add(id)
		}
	}
	for _, p := range n.Network.Peers() {
		add(p.ID)
	}
	return r
}

// ask brings receipts of successful attempts at tasks, by their keys, that others remember: of each task at most
// one that its node has signed and that an honest node could have made. from are those who sent any.
func (r *recaller) ask(ctx context.Context, tasks map[Key]*Task) (found map[Key]Receipt, from []peer.ID) {
	found = make(map[Key]Receipt)
	if len(tasks) == 0 || len(r.peers) == 0 {
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
			got, err := r.n.askRecall(ctx, id, keys)
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
			for _, rc := range got {
				if _, again := found[rc.Key]; again {
					continue
				}
				if t := tasks[rc.Key]; t != nil && r.believable(&rc, t) {
					found[rc.Key] = rc
				}
			}
		})
	}
	wg.Wait()
	r.peers = slices.DeleteFunc(r.peers, func(id peer.ID) bool {
		if answers[id] > 0 {
			r.vain[id] = 0
		} else {
			r.vain[id]++
		}
		return answers[id] < 0 || r.vain[id] >= recallPatience
	})
	return found, from
}

func (r *recaller) believable(rc *Receipt, t *Task) bool {
	err := rc.check(t.Limits)
	if err == nil && !rc.OK() {
		err = Errorf(Invalid, "it is of a failure")
	}
	if err == nil {
		err = rc.Verify()
	}
	if err != nil {
		r.n.log.Warn("a recalled receipt is not believed", "key", rc.Key, "node", rc.Node, "err", err)
	}
	return err == nil
}

// askRecall asks one node, as often as its answers are cut short.
func (n *Node) askRecall(ctx context.Context, id peer.ID, keys []Key) (got []Receipt, err error) {
	ctx, cancel := context.WithTimeout(ctx, recallTimeout)
	defer cancel()
	for len(keys) > 0 {
		page := keys[:min(len(keys), MaxRecall)]
		reply, err := call[recallReply](ctx, n, id, protoRecall, recallMsg{page})
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
