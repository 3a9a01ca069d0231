package member

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Times of a service.
const (
	tellTimeout = 5 * time.Second
	lookEvery   = 15 * time.Second // for memberships that have expired
	followPause = time.Second
	tellAtOnce  = 16
	maxOdd      = 16 // records in one message that are not believed

	recordTimeout = 30 * time.Second
	partingTime   = 500 * time.Millisecond
)

// Config is what a service needs.
type Config struct {
	Key    crypto.PrivKey // of the node
	Home   *Home          // which it keeps up to date
	Realm  string         // the name that who joins is told
	Now    func() time.Time
	Logger *slog.Logger
}

// Wire is what a service asks of the network that it guards, besides calls.
type Wire struct {
	Network grid.Network
	// Reconsider has the network look again at whether a peer is a member: it lets it in, or cuts its connections.
	Reconsider func(peer.ID)
	// Changed is told that members, this node perhaps among them, have changed; nil: nobody is. It must not block.
	Changed func()
	// Contacts are addresses of this node and of members that it knows, with /p2p/ID.
	Contacts func() []string
}

// Service is a node's part in its private swarm. It is the gate of its network: a [p2p.Gate]. It is safe for concurrent use,
// and must be closed.
type Service struct {
	cfg   Config
	self  peer.ID
	swarm peer.ID
	keys  string // where the ledger's entries begin
	book  *Book
	log   *slog.Logger
	psk   pnet.PSK // nil without
	life  []byte   // of this process

	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup
	dirty chan struct{} // the home is to be written; holds one token

	rotating sync.Mutex // the authority's key is being replaced, or signs anew
	settling sync.Mutex // it is looked up in the home; taken before mu
	saving   sync.Mutex // the home is being written, for as long as the disk takes

	mu        sync.Mutex
	wire      Wire           // empty until attached
	ledger    grid.Ledger    // nil until followed
	authority crypto.PrivKey // nil without
	logged    time.Time      // when a refusal was
	warned    time.Time      // when it was that the membership ends
	lives     map[peer.ID]*lives
	twins     []string // addresses of another process with this node's key, and when they were told
	twinAt    time.Time
	idle      map[peer.ID]time.Time // with whom there is nothing to compare until then
}

// New makes the service of a node that is a member. The error is Denied when it is none any more.
func New(cfg Config) (*Service, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	self, err := peer.IDFromPrivateKey(cfg.Key)
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "identity: %w", err)
	}
	s := &Service{
		cfg: cfg, self: self, swarm: cfg.Home.Swarm, log: cfg.Logger, dirty: make(chan struct{}, 1), life: newLife(),
		lives: make(map[peer.ID]*lives), idle: make(map[peer.ID]time.Time),
		keys: grid.SwarmKeys + NetworkName(cfg.Home.Swarm) + "/",
		book: NewBook(cfg.Home.Swarm, cfg.Now),
	}
	if s.authority, err = cfg.Home.Authority(); err != nil {
		return nil, err
	}
	if s.psk, err = cfg.Home.PSK(); err != nil {
		return nil, err
	}
	// What the home remembers was believed when it was written down.
	if err := s.book.recall(cfg.Home.Successions); err != nil {
		s.log.Warn("swarm: a succession that was remembered is not believed", "err", err)
	}
	if _, err := s.book.learnAll(cfg.Home.Records, remembered); err != nil {
		s.log.Warn("swarm: a membership that was remembered is not believed", "err", err)
	}
	for _, raw := range cfg.Home.Revocations {
		if _, _, err := s.book.revoke(raw, remembered); err != nil {
			s.log.Warn("swarm: a revocation that was remembered is not believed", "err", err)
		}
	}
	if s.authority == nil && cfg.Home.hasKey() {
		s.log.Warn("swarm: the key in the home is not that of the swarm's authority, or no more", "file", authorityFile)
	}
	s.sayDisputed()
	if err := s.book.Refusal(self); err != nil {
		return nil, err
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// Attach begins to answer on a network, whose gate this is.
func (s *Service) Attach(w Wire) {
	s.mu.Lock()
	s.wire = w
	s.mu.Unlock()
	w.Network.Serve(protocol, s.answer)
	s.wg.Go(s.keep)
	s.wg.Go(s.look)
	s.wg.Go(s.reconcile)
}

// Follow begins to learn from the realm's ledger, and to let others in.
func (s *Service) Follow(l grid.Ledger) {
	s.mu.Lock()
	s.ledger = l
	s.mu.Unlock()
	s.wg.Go(func() { s.follow(l) })
}

// Close ends what Attach and Follow began. The network and the ledger are still open then.
func (s *Service) Close() error {
	s.mu.Lock()
	s.stop() // from here on nothing is told
	s.mu.Unlock()
	s.wg.Wait()
	return s.write()
}

// PSK is the swarm's pre-shared key; nil if it has none.
func (s *Service) PSK() pnet.PSK { return s.psk }

// Self is the node itself.
func (s *Service) Self() peer.ID { return s.self }

// OwnName is what this node is called in the swarm.
func (s *Service) OwnName() string {
	m, _ := s.book.Member(s.self)
	return m.Name
}

// Admits is told at p2p.Gate.
func (s *Service) Admits(id peer.ID) bool {
	if id == s.self {
		return true
	}
	_, ok := s.book.Member(id)
	return ok
}

// Allows is told at p2p.Gate.
func (s *Service) Allows(from peer.ID, p grid.Protocol) error {
	if from == s.self || p == protocol {
		return nil
	}
	need, ok := Needs[p]
	if !ok {
		need = grid.RoleWorker
	}
	return s.May(from, need)
}

// May refuses a peer that has not the role.
func (s *Service) May(id peer.ID, need grid.MemberRole) error {
	m, ok := s.book.Member(id)
	switch {
	case !ok:
		return s.book.Refusal(id)
	case !m.Role.Includes(need):
		return grid.Errorf(grid.Denied, "swarm: %s is a member as %s, but what it wants needs the role %s", id, m.Role, need).
			Hint("who has the authority's key may change that: `grid member set-role %s %s`", id, need)
	}
	return nil
}

// Holds is May for who decides more than whether to speak to a peer: the error is Denied only if the peer is known to have another
// role, or to be a member no more. One that is not known may be in what this node has not read yet.
func (s *Service) Holds(id peer.ID, need grid.MemberRole) error {
	err := s.May(id, need)
	if err != nil && !s.book.knows(id) {
		return grid.Errorf(grid.Unavailable, "%w", err)
	}
	return err
}

// CheckWrites refuses a transaction of a peer that writes what its role may not: see grid.CheckWrites.
func (s *Service) CheckWrites(from peer.ID, t *grid.Txn, held grid.Held) error {
	m, ok := s.book.Member(from)
	if !ok {
		return s.Holds(from, grid.RoleWorker)
	}
	return grid.CheckWrites(from, m.Role, t, held)
}

// Greet is told at p2p.Gate.
func (s *Service) Greet(ctx context.Context, to peer.ID, call func(context.Context, []byte) ([]byte, error)) error {
	q := request{
		Do: doHello, Swarm: s.swarm, Chain: s.book.Chain(s.self), Revocations: s.book.revocations(shownAtOnce), Successions: s.book.successions(),
		Life: s.life, Addrs: s.addrs(), Time: s.cfg.Now().Unix(), Serial: s.serial(),
	}
	data, err := grid.Marshal(q)
	if err != nil {
		return err
	}
	if data, err = call(ctx, data); err != nil {
		return err
	}
	a, err := decodeMessage[reply](data)
	if err != nil {
		return err
	}
	if err := s.met(to, a.Chain, a.Revocations, a.Successions); err != nil {
		if e := clocks(a.Time, s.cfg.Now()); e != nil {
			err = grid.Errorf(grid.CodeOf(err), "%w; and %w", err, e)
		}
		return err
	}
	s.answered(to, &a)
	return nil
}

// met learns what a peer has shown of itself. The error says why it is no member.
func (s *Service) met(id peer.ID, chain, revocations, successions [][]byte) error {
	if len(revocations) > maxAtOnce {
		return grid.Errorf(grid.Limit, "swarm: %d revocations at once", len(revocations))
	}
	changed, succeeded, err := s.book.Meet(id, chain, successions)
	if succeeded {
		s.succeeded("")
	}
	if changed {
		s.changed(id)
	}
	if !s.Admits(id) { // a stranger's word about others is not even looked at
		if err == nil {
			err = s.book.Refusal(id)
		}
		return err
	}
	s.tell(s.revokeAll(revocations), nil, "") // if the chain is not believed, the peer is known otherwise
	return s.book.Refusal(id)
}

// revokeAll takes revocations, and returns those that were new.
func (s *Service) revokeAll(list [][]byte) [][]byte { return s.revokeFrom("", list, shown) }

// revokeFrom is revokeAll of what a peer says, who is hung up on a moment later if it leaves, so that it hears the answer.
func (s *Service) revokeFrom(from peer.ID, list [][]byte, by source) (fresh [][]byte) {
	odd, why := 0, error(nil)
	for _, raw := range inOrder(list) {
		id, changed, err := s.book.revoke(raw, by)
		switch {
		case err != nil:
			odd, why = odd+1, err
		case changed:
			fresh = append(fresh, raw)
			s.log.Info("swarm: a membership was revoked", "peer", id)
			if id == from {
				s.later(func() { s.changed(id) })
			} else {
				s.changed(id)
			}
		}
	}
	if odd > 0 { // once, however many there are
		s.log.Warn("swarm: a revocation is not believed", "err", why, "such", odd)
	}
	return fresh
}

// later runs f in a moment, unless the service is closing.
func (s *Service) later(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() == nil {
		s.wg.Go(func() {
			if s.pause(partingTime) {
				f()
			}
		})
	}
}

// changed acts on what is new about a peer.
func (s *Service) changed(id peer.ID) {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
	s.mu.Lock()
	w := s.wire
	s.mu.Unlock()
	if w.Reconsider != nil && id != s.self {
		w.Reconsider(id)
	}
	if w.Changed != nil {
		w.Changed()
	}
}

// tell passes on what is new to the peers that are connected, but for the one that it came from.
func (s *Service) tell(revocations, records [][]byte, from peer.ID) {
	if len(revocations)+len(records) > 0 {
		// What proves the key that has signed them goes with them, as messages overtake one another.
		s.pass(request{Records: records, Revocations: revocations, Successions: s.book.successions()}, from)
	}
}

// pass is tell of a message with whatever is new.
func (s *Service) pass(q request, from peer.ID) {
	q.Do, q.Swarm = doTell, s.swarm
	data, err := grid.Marshal(q)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.wire.Network
	if err != nil || n == nil || s.ctx.Err() != nil {
		return
	}
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, tellTimeout)
		defer cancel()
		slots := make(chan struct{}, tellAtOnce)
		var wg sync.WaitGroup
		for _, p := range n.Peers() {
			if p.ID == from {
				continue
			}
			slots <- struct{}{}
			wg.Go(func() {
				_, _ = n.Call(ctx, p.ID, protocol, data) // who does not hear it is told by the ledger
				<-slots
			})
		}
		wg.Wait()
	})
}

// answer is join/1.
func (s *Service) answer(ctx context.Context, from peer.ID, data []byte) ([]byte, error) {
	q, err := decodeMessage[request](data)
	if err != nil {
		return nil, err
	}
	if err := q.check(s.swarm); err != nil {
		return nil, err
	}
	var a reply
	switch q.Do {
	case doHello:
		if err = s.met(from, q.Chain, q.Revocations, q.Successions); err == nil {
			a = reply{
				Chain: s.book.Chain(s.self), Revocations: s.book.revocations(shownAtOnce), Successions: s.book.successions(),
				Records: s.newer(from, q.Serial), Twin: s.lived(from, &q), Time: s.cfg.Now().Unix(),
			}
		} else if e := clocks(q.Time, s.cfg.Now()); e != nil {
			err = grid.Errorf(grid.CodeOf(err), "%w; and %w", err, e).Hint("%s", grid.AdviceOf(e))
		}
	case doJoin:
		a, err = s.admit(ctx, from, &q)
	case doTell:
		if err = s.book.Refusal(from); err == nil {
			s.heard(from, &q)
		}
	case doSync:
		if err = s.book.Refusal(from); err == nil {
			a = s.compare(from, &q)
		}
	default:
		err = grid.Errorf(grid.Unsupported, "swarm: %.20q is nothing that join/1 does", q.Do)
	}
	if err != nil {
		s.log.Log(ctx, s.level(), "swarm: refused", "peer", from, "what", q.Do, "err", err)
		return nil, err
	}
	return grid.Marshal(a)
}

// level keeps strangers from filling the log.
func (s *Service) level() slog.Level {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.logged) > time.Second {
		s.logged = now
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// heard takes what a member tells of others.
func (s *Service) heard(from peer.ID, q *request) {
	changed, err := s.book.Succeed(q.Successions)
	if err != nil {
		s.log.Log(s.ctx, s.level(), "swarm: a succession of the authority's key is not believed", "from", from, "err", err)
	}
	if changed {
		s.succeeded(from)
	}
	var fresh [][]byte
	odd := 0
	for _, raw := range q.Records {
		id, changed, err := s.book.learn(raw, shown)
		if err != nil {
			if odd++; odd > maxOdd {
				break // to look at more costs too much
			}
		} else if changed {
			fresh = append(fresh, raw)
			s.changed(id)
		}
	}
	revocations := s.revokeFrom(from, q.Revocations, shown)
	s.tell(revocations, fresh, from)
	s.record(revocations)
}

// record puts revocations into the ledger that this node was told of, unless they are there: a node that leaves is cut off before
// it could.
func (s *Service) record(list [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.ledger
	if l == nil || len(list) == 0 || s.ctx.Err() != nil || s.May(s.self, grid.RoleVoter) != nil {
		return
	}
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, recordTimeout)
		defer cancel()
		for _, raw := range list {
			var r Revocation
			signer, err := unseal(raw, &r)
			if err != nil {
				continue
			}
			_, err = grid.Update(ctx, l, func(tx *grid.Tx) error {
				_, revokedTo, err := s.standing(tx, r.Peer)
				if err != nil || revokedTo >= r.Serial {
					return err
				}
				tx.Put(s.keys+revokedPart+r.Peer.String(), raw)
				if signer == r.Peer {
					return s.audit(tx, grid.ActLeave, r.Peer, "as it told this node")
				}
				return s.audit(tx, grid.ActRevoke, r.Peer, fmt.Sprintf("memberships up to %d, by %s", r.Serial, signer))
			})
			if err != nil && s.ctx.Err() == nil {
				s.log.Warn("swarm: a revocation is not in the ledger yet", "peer", r.Peer, "err", err)
			}
		}
	})
}

// keep writes the home whenever the book has changed.
func (s *Service) keep() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.dirty:
		}
		if err := s.write(); err != nil {
			s.log.Warn("swarm: the home does not know the newest members", "err", err)
		}
	}
}

func (s *Service) write() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	h := s.cfg.Home
	h.Records, h.Revocations, h.Successions = s.book.records(maxMembers), s.book.revocations(maxRevoked), s.book.successions()
	return h.save()
}

// look cuts peers whose memberships have expired.
func (s *Service) look() {
	for {
		s.warn()
		if !s.pause(lookEvery) {
			return
		}
		for _, p := range s.wire.Network.Peers() {
			if !s.Admits(p.ID) {
				s.changed(p.ID)
			}
		}
		if f := s.wire.Changed; f != nil { // somebody who is not connected may have expired, too
			f()
		}
	}
}

func (s *Service) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// follow learns from the ledger until the service ends.
func (s *Service) follow(l grid.Ledger) {
	for {
		revision, err := s.read(l)
		if err == nil {
			err = l.Watch(s.ctx, s.keys, revision, func(c grid.Changes) error {
				s.entries(c.Put)
				s.endorseSoon()
				return nil
			})
		}
		if s.ctx.Err() != nil {
			return
		}
		s.log.Debug("swarm: reading the ledger again", "err", err)
		if !s.pause(followPause) {
			return
		}
	}
}

// read takes in what the ledger holds. Of a founder it gets what the home has.
func (s *Service) read(l grid.Ledger) (revision uint64, err error) {
	if s.cfg.Home.Founder {
		if err := s.found(l); err != nil {
			return 0, err
		}
	}
	revision, err = s.readAll(s.ctx, l)
	if err == nil {
		s.endorseSoon()
	}
	return revision, err
}

// readAll takes in what the ledger holds now.
func (s *Service) readAll(ctx context.Context, l grid.Ledger) (revision uint64, err error) {
	var all []grid.Entry
	revision, err = grid.RangeAll(ctx, l, s.keys, false, func(e grid.Entry) error {
		if len(all) > 4*maxMembers+maxRevoked { // uses of invitations are among them
			return grid.Errorf(grid.Limit, "swarm: the ledger has more entries than a swarm may have")
		}
		all = append(all, e)
		return nil
	})
	if err == nil {
		s.entries(all)
	}
	return revision, err
}

// entries takes what the ledger says. It is checked like anything else.
func (s *Service) entries(list []grid.Entry) {
	var members, revocations [][]byte
	for _, e := range list {
		if e.Key != s.keys+authorityPart {
			continue
		}
		var successions [][]byte
		err := grid.Unmarshal(e.Value, &successions)
		if err == nil && len(successions) > maxLineage {
			err = grid.Errorf(grid.Limit, "swarm: %d successions of the authority", len(successions))
		}
		changed := false
		if err == nil {
			changed, err = s.book.Succeed(successions)
		}
		if err != nil {
			s.log.Warn("swarm: a succession of the authority's key in the ledger is not believed", "err", err)
		}
		if changed {
			s.succeeded("")
		}
	}
	for _, e := range list {
		switch key := strings.TrimPrefix(e.Key, s.keys); {
		case strings.HasPrefix(key, memberPart):
			members = append(members, e.Value)
		case strings.HasPrefix(key, revokedPart):
			revocations = append(revocations, e.Value)
		}
	}
	changed, err := s.book.learnAll(members, recorded)
	if err != nil {
		s.log.Warn("swarm: a membership in the ledger is not believed", "err", err)
	}
	s.revokeFrom("", revocations, recorded)
	for _, id := range changed {
		s.changed(id)
	}
}

// found puts a swarm into the ledger of its first node: it is by this entry that a member knows that its ledger is the swarm's.
func (s *Service) found(l grid.Ledger) error {
	chain := s.book.Chain(s.self)
	_, err := grid.Update(s.ctx, l, func(tx *grid.Tx) error {
		if _, ok, err := tx.Get(s.keys + infoPart); err != nil || ok {
			return err
		}
		tx.Put(s.keys+infoPart, []byte(s.swarm))
		tx.Put(s.keys+memberPart+s.self.String(), chain[0])
		return put(tx, s.keys+authorityPart, s.book.successions())
	})
	return err
}
