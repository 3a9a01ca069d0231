package grid

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// standingEvery is how often what was learned of nodes is written down.
	standingEvery = 15 * time.Second
	// maxStandings bounds the nodes that are remembered.
	maxStandings = 1 << 14
	// maxNoted is how many are written down at a time.
	maxNoted = 256
)

// standings is how nodes have done where their results were compared, of this node's jobs and, as far as the ledger
// tells, of all jobs of the realm. What is new goes to the ledger now and then, and when a job ends, not with each task.
type standings struct {
	mu    sync.Mutex
	known map[peer.ID]Standing
	news  map[peer.ID]Standing // since it was last written: what came after the last bad one, and how many were bad

	now chan struct{} // it is time to write
}

// Standing tells how a node has done.
func (s *standings) Standing(id peer.ID) Standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[id]
}

// Judged notes one more result of a node.
func (s *standings) Judged(id peer.ID, good bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.make()
	if _, known := s.known[id]; !known && len(s.known) >= maxStandings {
		return
	}
	s.known[id] = s.known[id].Judged(good)
	s.news[id] = s.news[id].Judged(good)
}

// make makes what is not there. s.mu is held.
func (s *standings) make() {
	if s.known == nil {
		s.known = make(map[peer.ID]Standing)
	}
	if s.news == nil {
		s.news = make(map[peer.ID]Standing)
	}
}

// after is a standing with what has been learned since.
func (s Standing) after(news Standing) Standing {
	if news.Bad > 0 {
		s.Good = 0
	}
	s.Good += min(news.Good, ^s.Good)
	s.Bad += min(news.Bad, ^s.Bad)
	return s
}

// take hands out some of the news, to be written.
func (s *standings) take() map[peer.ID]Standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[peer.ID]Standing, min(len(s.news), maxNoted))
	for id, st := range s.news {
		if len(out) == maxNoted {
			break
		}
		out[id] = st
		delete(s.news, id)
	}
	return out
}

// learned takes in what the ledger says of a node.
func (s *standings) learned(id peer.ID, st Standing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.make()
	if _, known := s.known[id]; known || len(s.known) < maxStandings {
		s.known[id] = st.after(s.news[id])
	}
}

// unwritten puts news back that were not written.
func (s *standings) unwritten(id peer.ID, st Standing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.make()
	s.news[id] = st.after(s.news[id])
}

// Standing tells how a node's results have done where they were compared with those of others.
func (n *Node) Standing(id peer.ID) Standing { return n.standing.Standing(id) }

// Peers lists the nodes that are connected, with their standing.
func (n *Node) Peers() []PeerInfo {
	list := n.Network.Peers()
	for i := range list {
		if st := n.Standing(list[i].ID); st != (Standing{}) {
			list[i].Standing = &st
		}
		if id := list[i].ID; n.inRealm(id) {
			list[i].Realm = "ours"
		} else if realm := n.realmOf(id); realm != "" {
			list[i].Realm = realm.String()
		}
	}
	return list
}

func (n *Node) standings() Standings { return &n.standing }

// keepStandings writes what this node has learned of others.
func (n *Node) keepStandings() {
	if n.Bound {
		return
	}
	timer := time.NewTimer(standingEvery)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-n.standing.now:
		case <-n.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(n.ctx, ledgerTimeout)
		n.writeStandings(ctx)
		cancel()
		timer.Reset(standingEvery)
	}
}

// noteStandings has what was learned by a job written, now that it has ended.
func (n *Node) noteStandings(j *job) {
	if j.Jury == nil {
		return
	}
	select {
	case n.standing.now <- struct{}{}:
	default:
	}
}

// standingsRead takes in what the realm knows of nodes, which may be another realm than before.
func (n *Node) standingsRead(all []Entry) {
	s := &n.standing
	s.mu.Lock()
	s.known = maps.Clone(s.news)
	s.mu.Unlock()
	n.standingsChanged(Changes{Put: all})
}

func (n *Node) standingsChanged(c Changes) {
	for _, e := range c.Put {
		id, err := peer.Decode(strings.TrimPrefix(e.Key, StandingKeys))
		var st Standing
		if err == nil {
			err = Unmarshal(e.Value, &st)
		}
		if err != nil {
			n.log.Warn("what is known of a node is not read", "key", e.Key, "err", err)
			continue
		}
		n.standing.learned(id, st)
	}
}

// writeStandings adds what is new to what the realm knows. What cannot be written now is written later.
func (n *Node) writeStandings(ctx context.Context) {
	if n.may(n.self, RoleSubmitter) != nil {
		return // it owns no jobs by now
	}
	for id, news := range n.standing.take() {
		if err := n.writeStanding(ctx, id, news); err != nil {
			n.standing.unwritten(id, news)
			n.log.Debug("what is known of a node is not written; it will be tried again", "node", id, "err", err)
		}
	}
}

func (n *Node) writeStanding(ctx context.Context, id peer.ID, news Standing) error {
	key := StandingKeys + id.String()
	e, err := n.Ledger.Get(ctx, key)
	if err != nil && CodeOf(err) != NotFound {
		return err
	}
	var st Standing
	if err == nil {
		if err := Unmarshal(e.Value, &st); err != nil {
			n.log.Warn("what was known of a node is begun anew", "key", key, "err", err)
			st = Standing{}
		}
	}
	st = st.after(news)
	data, err := Marshal(st)
	if err != nil {
		return err
	}
	_, err = n.Ledger.Commit(ctx, Txn{
		ID: NewRequestID(), If: []Cond{{Key: key, Version: e.Version}}, Put: []Entry{{Key: key, Value: data}},
	})
	if err == nil {
		n.standing.learned(id, st)
	}
	return err
}
