package member

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	// endingDays is how long before its end a membership is said to end soon, unless a quarter of its length is less.
	endingDays = 7 * 24 * time.Hour
	warnEvery  = 6 * time.Hour
)

// ending reports whether a membership ends soon, or has ended.
func (m *Membership) ending(now time.Time) bool {
	if m.Expires == 0 {
		return false
	}
	soon := min(int64(endingDays/time.Second), (m.Expires-m.Issued)/4)
	return now.Unix() > m.Expires-soon
}

// Renew has the membership of a peer last for a time from now on: 0 is as long as it did before, less than 0 without end. One that has
// expired is valid again. It needs the authority's key: who was invited for a time does not stay by itself.
func (s *Service) Renew(ctx context.Context, id peer.ID, lasts time.Duration) error {
	l, err := s.shared()
	if err == nil {
		err = s.needAuthority("renew a membership")
	}
	if err != nil {
		return err
	}
	if lasts > 0 && lasts < time.Second {
		return grid.Errorf(grid.Invalid, "a membership of %v is too short", lasts).Hint("name at least a second")
	}
	return s.amend(ctx, l, id, grid.ActRenew, func(m *Membership) (string, error) {
		length := int64(lasts / time.Second)
		switch {
		case lasts < 0:
			m.Expires = 0
			return "without end", nil
		case length == 0 && m.Expires == 0:
			return "", grid.Errorf(grid.Invalid, "swarm: the membership of %s has no end", id).Hint("`grid member renew %s --for 720h` gives it one", id)
		case length == 0:
			length = m.Expires - m.Issued
		}
		m.Issued = s.cfg.Now().Unix()
		m.Expires = m.Issued + length
		return "until " + when(m.Expires), nil
	})
}

// warn says now and then that the membership of this node ends soon.
func (s *Service) warn() {
	m, _ := s.book.known(s.self)
	now := s.cfg.Now()
	s.mu.Lock()
	due := m.ending(now) && now.Sub(s.warned) >= warnEvery
	if due {
		s.warned = now
	}
	s.mu.Unlock()
	if due {
		s.log.Warn("swarm: the membership of this node ends soon, or has ended", "expires", when(m.Expires), "now", when(now.Unix()),
			"hint", "who has the authority's key makes it last longer: grid member renew "+s.self.String())
	}
}

// Catch asks the members that a home remembers what is new, as a node does whose own membership has ended by what it knows: it
// may have been renewed, or signed anew, while the node was down. It reports whether the home has a valid membership now.
func (h *Home) Catch(ctx context.Context, self peer.ID, now func() time.Time, ask func(ctx context.Context, addr string, req []byte) ([]byte, error)) (bool, error) {
	book := NewBook(h.Swarm, now)
	_ = book.recall(h.Successions)
	_, _ = book.learnAll(h.Records, remembered)
	for _, raw := range h.Revocations {
		_, _, _ = book.revoke(raw, remembered)
	}
	m, _ := book.known(self)
	data, err := grid.Marshal(request{
		Do: doHello, Swarm: h.Swarm, Chain: book.Chain(self), Revocations: book.revocations(shownAtOnce), Successions: book.successions(),
		Serial: m.Serial, Time: now().Unix(),
	})
	if err != nil {
		return false, err
	}
	for _, addr := range h.Peers {
		answer, err := ask(ctx, addr, data)
		if err != nil {
			continue
		}
		a, err := decodeMessage[reply](answer)
		if err != nil || len(a.Successions) > maxLineage || len(a.Records) > maxAtOnce {
			continue
		}
		_, _ = book.Succeed(a.Successions)
		_, _ = book.learnAll(a.Records, shown)
		if _, ok := book.Member(self); ok {
			h.Records, h.Revocations, h.Successions = book.records(maxMembers), book.revocations(maxRevoked), book.successions()
			return true, h.save()
		}
	}
	return false, nil
}

// known is the newest membership of a peer, be it valid or not; ok is false when none is.
func (b *Book) known(id peer.ID) (m Membership, ok bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	k, ok := b.members[id]
	return k.m, ok
}
