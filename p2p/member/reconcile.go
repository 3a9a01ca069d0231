package member

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Members compare what revocations they know: whoever missed one, as it was away or cut off, learns it from the next member that
// it speaks to, whatever the realms of the two.
const (
	syncEvery   = 3 * time.Second
	syncPeers   = 2 // that are asked each time, at random
	syncTimeout = 5 * time.Second
	idleFor     = 30 * time.Second // after a peer with which comparing brought nothing

	buckets    = 32 // of revocations, by the peer
	sumSize    = 8
	digestSize = (buckets + 1) * sumSize // the first is of the successions

	lifeSize     = 8
	maxTwinAddrs = 4
	twinFor      = time.Minute // since the other was last heard of
	unknown      = "unknown"   // said in place of the addresses of a process that has told none
	maxLives     = 1 << 12
)

// digest is one number for the successions, and one for each bucket of revocations: it is equal where two books know the same.
func (b *Book) digest() []byte {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var lines uint64
	for _, at := range b.line.steps {
		for _, x := range at {
			lines += weigh(string(x.s.Key), x.s.Number)
		}
	}
	sum := binary.BigEndian.AppendUint64(make([]byte, 0, digestSize), lines)
	for _, n := range b.sums {
		sum = binary.BigEndian.AppendUint64(sum, n)
	}
	return sum
}

// weigh is what a pair adds to a sum, in whatever order pairs come.
func weigh(text string, n uint64) uint64 {
	h := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(text), n))
	return binary.BigEndian.Uint64(h[:])
}

func bucket(id peer.ID) int {
	h := sha256.Sum256([]byte(id))
	return int(h[0]) % buckets
}

// apart are the revocations in buckets in which two digests differ, up to most, and whether the successions do.
func (b *Book) apart(mine, theirs []byte, most int) (revocations [][]byte, lines bool) {
	differ := func(i int) bool {
		i *= sumSize
		return len(theirs) != digestSize || !bytes.Equal(mine[i:i+sumSize], theirs[i:i+sumSize])
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for id, r := range b.revoked {
		if len(revocations) < most && differ(1+bucket(id)) {
			revocations = append(revocations, r.raw)
		}
	}
	return revocations, differ(0)
}

// serial is that of this node's own membership.
func (s *Service) serial() uint64 {
	m, _ := s.book.known(s.self)
	return m.Serial
}

// newer is what proves the membership of a peer, if it knows only one with a smaller serial: it was renewed, say.
func (s *Service) newer(id peer.ID, serial uint64) [][]byte {
	if m, ok := s.book.known(id); !ok || m.Serial <= serial {
		return nil
	}
	return s.book.Chain(id)
}

// compare answers a member that compares.
func (s *Service) compare(from peer.ID, q *request) reply {
	a := reply{Records: s.newer(from, q.Serial), Twin: s.lived(from, q), Time: s.cfg.Now().Unix()}
	mine := s.book.digest()
	if bytes.Equal(mine, q.Digest) {
		return a
	}
	a.Digest = mine
	lines := false
	if a.Revocations, lines = s.book.apart(mine, q.Digest, maxAtOnce); lines {
		a.Successions = s.book.successions()
	}
	return a
}

// reconcile compares with some members now and then.
func (s *Service) reconcile() {
	for s.pause(syncEvery) {
		var peers []peer.ID
		now := s.cfg.Now()
		s.mu.Lock()
		for _, p := range s.wire.Network.Peers() {
			if now.After(s.idle[p.ID]) {
				delete(s.idle, p.ID)
				peers = append(peers, p.ID)
			}
		}
		s.mu.Unlock()
		mathrand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
		for _, id := range peers[:min(len(peers), syncPeers)] {
			if s.Admits(id) {
				s.sync(id)
			}
		}
	}
}

// sync compares with one member: each is told what it lacks.
func (s *Service) sync(id peer.ID) {
	ctx, cancel := context.WithTimeout(s.ctx, syncTimeout)
	defer cancel()
	mine := s.book.digest()
	data, err := grid.Marshal(request{
		Do: doSync, Swarm: s.swarm, Digest: mine, Serial: s.serial(), Life: s.life, Addrs: s.addrs(), Time: s.cfg.Now().Unix(),
	})
	if err == nil {
		data, err = s.wire.Network.Call(ctx, id, protocol, data)
	}
	if err != nil {
		return // it is asked again, or another is
	}
	a, err := decodeMessage[reply](data)
	if err != nil || len(a.Revocations) > maxAtOnce || len(a.Successions) > maxLineage || len(a.Digest) > digestSize {
		return
	}
	s.answered(id, &a)
	if len(a.Digest) == 0 {
		return
	}
	changed, err := s.book.Succeed(a.Successions)
	if err != nil {
		s.log.Warn("swarm: a succession of the authority's key is not believed", "from", id, "err", err)
	}
	if changed {
		s.succeeded(id)
	}
	fresh := s.revokeAll(a.Revocations)
	s.tell(fresh, nil, id)
	s.record(fresh)
	q := request{Do: doTell, Swarm: s.swarm}
	lines := false
	if q.Revocations, lines = s.book.apart(s.book.digest(), a.Digest, maxAtOnce); lines {
		q.Successions = s.book.successions()
	}
	if data, err = grid.Marshal(q); err == nil && len(q.Revocations)+len(q.Successions) > 0 {
		_, _ = s.wire.Network.Call(ctx, id, protocol, data)
	}
	if !changed && len(fresh) == 0 {
		s.mu.Lock()
		s.idle[id] = s.cfg.Now().Add(idleFor)
		s.mu.Unlock()
	}
}

// answered takes what a member has answered about this node itself.
func (s *Service) answered(id peer.ID, a *reply) {
	if len(a.Records) <= maxChain {
		changed, err := s.book.learnAll(a.Records, shown)
		if err != nil {
			s.log.Debug("swarm: a record is not believed", "from", id, "err", err)
		}
		for _, who := range changed {
			s.changed(who)
		}
	}
	if err := clocks(a.Time, s.cfg.Now()); err != nil {
		s.log.Log(s.ctx, s.level(), "swarm: a member's clock differs", "peer", id, "err", err, "hint", grid.AdviceOf(err))
	}
	if twin := clip(a.Twin); len(twin) > 0 {
		s.mu.Lock()
		fresh := !slices.Equal(s.twins, twin)
		s.twins, s.twinAt = twin, s.cfg.Now()
		s.mu.Unlock()
		if fresh {
			s.log.Error("swarm: another node runs with this node's key, which was copied", "addrs", twin, "told_by", id,
				"hint", "end one of the two; `grid member rotate-key` gives it a key of its own")
		}
	}
}

// twin are addresses of another process with this node's key, if there was one a moment ago.
func (s *Service) twin() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Now().Sub(s.twinAt) > twinFor {
		return nil
	}
	return s.twins
}

// life is a process that runs with the key of a peer; lives are the last two, the newest first.
type life struct {
	id    string
	addrs []string
	at    time.Time
}

type lives struct {
	last [2]life
	both bool // one was heard of after the other, and that after the one
}

// newLife draws the number by which a process is told from another with the same key.
func newLife() []byte {
	b := make([]byte, lifeSize)
	_, _ = rand.Read(b) // never fails
	return b
}

// lived takes note of which process speaks for a peer. Two that do so in turns run with one key: each is told the other's
// addresses.
func (s *Service) lived(id peer.ID, q *request) (twin []string) {
	if len(q.Life) == 0 {
		return nil
	}
	now := life{string(q.Life), clip(q.Addrs), s.cfg.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lives[id]
	switch {
	case l == nil:
		if len(s.lives) >= maxLives {
			clear(s.lives)
		}
		s.lives[id] = &lives{last: [2]life{now}}
		return nil
	case l.last[0].id == now.id:
		l.last[0] = now
	case l.last[1].id == now.id:
		if !l.both {
			s.log.Error("swarm: two nodes run with one key, which was copied", "peer", id, "one", now.addrs, "other", l.last[0].addrs,
				"hint", "end one of the two; `grid member rotate-key` gives it a key of its own")
		}
		l.last, l.both = [2]life{now, l.last[0]}, true
	default:
		l.last, l.both = [2]life{now, l.last[0]}, false
	}
	if other := l.last[1]; l.both && now.at.Sub(other.at) < twinFor {
		if len(other.addrs) == 0 {
			return []string{unknown}
		}
		return other.addrs
	}
	return nil
}

// addrs are addresses of this node.
func (s *Service) addrs() (own []string) {
	s.mu.Lock()
	contacts := s.wire.Contacts
	s.mu.Unlock()
	if contacts == nil {
		return nil
	}
	for _, a := range contacts() {
		if len(own) < maxTwinAddrs && strings.HasSuffix(a, "/p2p/"+s.self.String()) {
			own = append(own, a)
		}
	}
	return own
}

// clip bounds addresses that a peer names, which people are shown.
func clip(addrs []string) []string {
	addrs = slices.DeleteFunc(slices.Clone(addrs), func(a string) bool {
		if a == unknown || len(a) > maxAddr {
			return a != unknown
		}
		_, err := ma.NewMultiaddr(a)
		return err != nil
	})
	return addrs[:min(len(addrs), maxTwinAddrs)]
}

// clocks says by how much the clock of another node differs from this one, if it is too much.
func clocks(theirs int64, now time.Time) error {
	if theirs == 0 {
		return nil
	}
	by := time.Duration(theirs-now.Unix()) * time.Second
	if by.Abs() <= skew {
		return nil
	}
	return grid.Errorf(grid.Denied, "the clocks differ by %v: it is %s by this clock, and %s by that of the other node", by.Abs(), when(now.Unix()), when(theirs)).
		Hint("check the clocks of both machines")
}
