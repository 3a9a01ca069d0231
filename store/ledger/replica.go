package ledger

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/machine"
)

// Of snapshots and the log behind them. A restart reads a snapshot and applies what came after it.
const (
	snapshotEntries = 1 << 14
	snapshotBytes   = 64 << 20
	trailingEntries = 1 << 13  // that stay for replicas which are a little behind
	trailingBytes   = 32 << 20 // about as much
	trailingLeast   = 64
	snapshotShare   = 10 // at most one tenth of the time goes into snapshots
)

// Of what replicas send one another.
const (
	appendEntries = 16 // log entries in one message; each holds up to 1 MiB of transactions
	streamsKept   = 4  // open streams per replica
)

// replica is this node as a keeper of a copy.
type replica struct {
	l       *Ledger
	realm   identity
	id      raft.ServerID
	log     *slog.Logger
	disk    Disk
	guard   *guard
	machine *machine.Machine
	fsm     *fsm
	layer   *layer
	trans   *transport
	raft    *raft.Raft
	batch   *batcher
	notify  chan bool       // of raft: this node leads, or no longer
	ctx     context.Context // ends when the replica is to end
	end     context.CancelFunc
	stop    <-chan struct{} // ctx's end
	wg      sync.WaitGroup

	started  chan struct{}          // closed when raft is set
	office   atomic.Pointer[office] // nil: somebody else leads, or nobody
	told     atomic.Pointer[view]   // the leader and its term, as that leader said
	shape    atomic.Pointer[shape]
	confirm  confirmer
	hint     nudger
	again    chan struct{} // see keepSending
	barriers atomic.Int32  // that raft has not answered

	hands atomic.Int32 // hand-overs that are under way

	configuring sync.Mutex // raft
}

// office is one time that this node leads.
type office struct {
	term  uint64
	ready chan struct{} // closed when all that was committed before has been applied
	lost  chan struct{} // closed when it is over
	lease *leases
}

func (o *office) isReady() bool { return isClosed(o.ready) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// openReplica starts a replica on what its disk holds. With found, that must be nothing, and it begins a realm.
func openReplica(l *Ledger, realm identity, found bool) (_ *replica, err error) {
	r := &replica{
		l: l, realm: realm, log: l.log, id: raft.ServerID(address(l.net.Self())),
		machine: machine.New(l.cfg.Machine), notify: make(chan bool), again: make(chan struct{}, 1), started: make(chan struct{}),
	}
	r.ctx, r.end = context.WithCancel(context.Background())
	r.stop = r.ctx.Done()
	if r.disk, err = l.cfg.OpenDisk(l.cfg.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.end()
			_ = r.disk.Close()
		}
	}()
	log := newLogger(r.log.With("room", "raft"))
	r.guard = &guard{LogStore: r.disk.Log, stable: r.disk.Stable, failed: r.fail, may: r.mayVote}
	r.fsm = &fsm{m: r.machine, guard: r.guard, due: make(chan struct{}, 1)}
	r.layer = newLayer(l.net, r.hello)
	r.trans = &transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: r.layer, MaxPool: streamsKept, Timeout: l.cfg.Timing.Stall, Logger: log, MsgpackUseNewTimeFormat: true,
		}),
		acks: &acks{by: make(map[raft.ServerID]ack)}, stall: l.cfg.Timing.Stall,
		mine: r.sends, done: r.layer.ctx.Done(), last: r.ahead, committed: r.committed, ended: r.pipelineEnded, voters: r.voters,
		lease: l.cfg.Timing.Election, beats: make(map[raft.ServerID]*beat), checked: make(chan raft.RPC),
	}
	r.trans.bears.Store(int64(l.cfg.Timing.Election))
	r.batch = &batcher{propose: r.propose, most: l.cfg.batch, atOnce: batchesAtOnce}
	r.batch.idle.L = &r.batch.mu
	r.confirm.verify = r.verify
	r.hint.r, r.hint.busy = r, make(map[raft.ServerID]bool)

	conf := r.config(log)
	err = r.guard.start(func() error {
		if found {
			alone := raft.Configuration{Servers: []raft.Server{{ID: r.id, Address: raft.ServerAddress(r.id)}}}
			if err := raft.BootstrapCluster(conf, r.guard, r.guard, r.disk.Snapshots, r.trans, alone); err != nil {
				return err
			}
		}
		var err error
		if r.raft, err = raft.NewRaft(conf, r.fsm, r.guard, r.guard, r.disk.Snapshots, r.trans); err != nil && r.fsm.failed != nil {
			return r.fsm.failed // says more
		}
		return err
	})
	if err != nil {
		_ = r.trans.Close()
		return nil, err
	}
	close(r.started)
	r.wg.Go(r.trans.check)
	r.raft.RegisterObserver(raft.NewObserver(nil, false, r.observe))
	r.wg.Go(r.watchOffice)
	r.wg.Go(r.keepSnapshots)
	r.wg.Go(r.keepTempo)
	r.wg.Go(r.keepSending)
	if servers := r.servers(); len(servers) == 1 && servers[0].Voter && servers[0].ID == l.net.Self() {
		r.reload(func(c *raft.ReloadableConfig) { // nobody to wait for: this wakes it
			c.HeartbeatTimeout, c.ElectionTimeout = l.cfg.Timing.Election, l.cfg.Timing.Election
		})
	}
	return r, nil
}

func (r *replica) config(log logger) *raft.Config {
	t := r.l.cfg.Timing
	conf := raft.DefaultConfig()
	conf.LocalID = r.id
	conf.Logger = log
	conf.NotifyCh = r.notify
	conf.HeartbeatTimeout = t.Election + time.Millisecond // reload takes it off
	conf.ElectionTimeout = t.Election + time.Millisecond
	conf.LeaderLeaseTimeout = t.Election // as long as it may be, since no promise rests on it; see transport
	conf.CommitTimeout = t.Election      // nudges are faster
	conf.MaxAppendEntries = appendEntries
	conf.ShutdownOnRemove = false
	conf.TrailingLogs = trailingEntries
	conf.SnapshotInterval = math.MaxInt64 / 4 // keepSnapshots decides
	conf.SnapshotThreshold = math.MaxUint64
	conf.NoLegacyTelemetry = true
	return conf
}

// reload changes some of what raft lets one change.
func (r *replica) reload(change func(c *raft.ReloadableConfig)) {
	r.configuring.Lock()
	defer r.configuring.Unlock()
	c := r.raft.ReloadableConfig()
	change(&c)
	if err := r.raft.ReloadConfig(c); err != nil {
		r.log.Error("cannot configure the ledger's replica", "err", err)
	}
}

func (r *replica) hello() hello {
	h := hello{Realm: r.realm.ID}
	if r.l.hooks.incarnation != nil {
		h.Incarnation = r.l.hooks.incarnation()
	}
	return h
}

// observe is called by raft, on its goroutines.
func (r *replica) observe(o *raft.Observation) bool {
	switch o.Data.(type) {
	case raft.LeaderObservation, raft.PeerObservation:
		r.l.bump()
	}
	return false
}

// watchOffice learns when this node begins and ceases to lead.
func (r *replica) watchOffice() {
	for {
		select {
		case leads := <-r.notify:
			if old := r.office.Swap(nil); old != nil {
				close(old.lost)
			}
			if leads {
				o := &office{term: r.raft.CurrentTerm(), ready: make(chan struct{}), lost: make(chan struct{})}
				o.lease = newLeases(r, o)
				r.office.Store(o)
				r.wg.Go(func() { r.begin(o) })
			}
			r.l.bump()
		case <-r.stop:
			if old := r.office.Swap(nil); old != nil {
				close(old.lost)
			}
			return
		}
	}
}

// barrier puts an entry in the log that does nothing, and waits until all up to it is applied.
func (r *replica) barrier() error {
	future := r.raft.Barrier(0)
	done := make(chan error, 1)
	r.barriers.Add(1)
	go func() {
		done <- future.Error()
		r.barriers.Add(-1)
	}()
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-r.stop:
		return errClosed()
	}
	if at, ok := future.(raft.IndexFuture); ok {
		r.fsm.advance(at.Index()) // it is not given to the machine
	}
	return nil
}

// begin waits until all that former leaders have committed is applied, and then serves until the office is lost.
func (r *replica) begin(o *office) {
	if err := r.barrier(); err != nil {
		return // lost already
	}
	r.log.Info("this node leads the ledger", "realm", r.realm.Name, "term", o.term)
	o.lease.run(func() {
		close(o.ready)
		r.l.bump()
	})
	r.log.Info("this node no longer leads the ledger", "realm", r.realm.Name, "term", o.term)
}

// keepSnapshots makes snapshots when they are due, and not too often.
func (r *replica) keepSnapshots() {
	for {
		select {
		case <-r.fsm.due:
		case <-r.stop:
			return
		}
		r.fsm.mu.Lock()
		entries, bytes := max(r.fsm.entries, 1), max(r.fsm.bytes, 1)
		r.fsm.mu.Unlock()
		trailing := uint64(max(trailingLeast, min(float64(entries)/float64(bytes)*trailingBytes, trailingEntries)))
		r.reload(func(c *raft.ReloadableConfig) { c.TrailingLogs = trailing })
		began := time.Now()
		if err := r.raft.Snapshot().Error(); err != nil && !isClosed(r.stop) {
			r.log.Warn("cannot make a snapshot of the ledger; its log grows", "realm", r.realm.Name, "err", err)
		}
		t := time.NewTimer(min(time.Minute, (snapshotShare-1)*time.Since(began)))
		select {
		case <-t.C:
		case <-r.stop:
			t.Stop()
			return
		}
	}
}

// fail ends the replica because its disk has.
func (r *replica) fail(err error) {
	r.log.Error("the ledger's replica on this node stops: its disk fails", "realm", r.realm.Name, "dir", r.l.cfg.Dir, "err", err)
	_ = r.layer.Close()
	code, hint := grid.Corrupt, "mend the disk and start the node again; or delete the folder, and it gets a new copy from the others"
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		code, hint = grid.NoSpace, "make room on the disk: it goes on by itself within half a minute"
	}
	r.l.dropReplica(r, grid.Errorf(code, "the replica in %s has stopped: %w", r.l.cfg.Dir, err).Hint("%s", hint))
}

// close ends the replica. A leader hands over before, if it can.
func (r *replica) close() error {
	if r.office.Load() != nil {
		_ = r.transfer("")
	}
	r.batch.stop()
	r.stopBarriers()
	stopped := r.raft.Shutdown()
	_ = r.trans.Close() // and the layer with it, or raft would wait for messages that are under way
	err := stopped.Error()
	r.trans.wg.Wait()
	r.end()
	r.batch.close()
	r.confirm.close()
	r.hint.close()
	r.wg.Wait()
	if e := r.disk.Close(); err == nil {
		err = e
	}
	return err
}

// sends reports whether it is for this node to send entries of a term, until they arrive, to a replica. While it hands over, raft must hear that one
// does not answer, and not wait for it: the next hand-over would, and nothing could be written until then.
func (r *replica) sends(id raft.ServerID, term uint64) bool {
	return r.hands.Load() == 0 && r.leads(id, term)
}

// stopBarriers gives barriers that are under way a moment, as batcher.stop does transactions: what raft does not answer until it ends, it never does,
// and a goroutine is left that waits.
func (r *replica) stopBarriers() {
	tick := time.NewTicker(holdTick)
	defer tick.Stop()
	for end := time.Now().Add(stopWait); r.barriers.Load() > 0 && time.Now().Before(end); {
		<-tick.C
	}
}

// leads reports whether this node leads in a term, and id is a replica.
func (r *replica) leads(id raft.ServerID, term uint64) bool {
	o := r.office.Load()
	return o != nil && o.term == term && slices.ContainsFunc(r.servers(), func(s server) bool { return s.ID.String() == string(id) })
}

// ahead is the index of this node's log while it leads.
func (r *replica) ahead() uint64 {
	if r.office.Load() == nil {
		return 0
	}
	return r.raft.LastIndex()
}

// transfer hands the office over to a voter; "" is for whoever of those that answer has most of the log. Raft's own choice may be one that is dead.
func (r *replica) transfer(to peer.ID) error {
	if len(r.voters()) < 2 {
		return nil
	}
	if to == "" {
		most, all, lately := uint64(0), r.progress(), time.Duration(r.trans.bears.Load())
		for _, s := range r.servers() {
			if p := all[s.ID]; s.Voter && s.ID != r.l.net.Self() && p.Heard < lately && p.Applied >= most {
				to, most = s.ID, p.Applied
			}
		}
		if to == "" {
			return grid.Errorf(grid.Unavailable, "ledger: hand over: no other voter answers")
		}
	}
	r.hands.Add(1)
	defer r.hands.Add(-1)
	done := make(chan error, 1)
	go func() { done <- r.raft.LeadershipTransferToServer(raft.ServerID(address(to)), address(to)).Error() }()
	t := time.NewTimer(2 * r.l.cfg.Timing.Election) // raft takes one at most, unless its goroutine has ended or elections are slow
	defer t.Stop()
	select {
	case err := <-done:
		if err != nil {
			return grid.Errorf(grid.Unavailable, "ledger: hand over: %w", err)
		}
		return nil
	case <-t.C:
		return grid.Errorf(grid.Unavailable, "ledger: hand over: no other voter has taken over")
	}
}

// shape is a configuration, read once.
type shape struct {
	of      *raft.Server // its first, which tells configurations apart
	servers []server
	conf    uint64 // a hash
}

func (r *replica) read() *shape {
	c := r.configuration().Servers
	if len(c) == 0 {
		return &shape{}
	}
	if old := r.shape.Load(); old != nil && old.of == &c[0] {
		return old
	}
	s := &shape{of: &c[0]}
	h := fnv.New64a()
	for _, x := range c {
		fmt.Fprintf(h, "%s %d,", x.ID, x.Suffrage)
		if id, err := peer.Decode(string(x.ID)); err == nil {
			s.servers = append(s.servers, server{ID: id, Voter: x.Suffrage == raft.Voter})
		}
	}
	s.conf = h.Sum64()
	r.shape.Store(s)
	return s
}

// servers lists the replicas of the newest configuration.
func (r *replica) servers() []server { return r.read().servers }

// view is what the replica knows of all of them.
func (r *replica) view() view {
	s := r.read()
	v := view{servers: s.servers, conf: s.conf}
	if o := r.office.Load(); o != nil {
		v.leader, v.term = r.l.net.Self(), o.term
		return v
	}
	if id, ok := r.leader(); ok && id != r.l.net.Self() {
		v.leader = id
	}
	if told := r.told.Load(); told != nil && told.leader == v.leader {
		v.term = told.term
	}
	return v
}

func (r *replica) configuration() raft.Configuration {
	f := r.raft.GetConfiguration() // never waits and never fails
	return f.Configuration()
}

// mayVote tells why this replica does not vote. Raft asks from a goroutine of its own.
func (r *replica) mayVote() error {
	<-r.started
	if from := r.l.hooks.voteFrom; from != nil {
		if least, has := from(), r.raft.LastIndex(); has < least {
			return grid.Errorf(grid.Unavailable, "ledger: this copy began anew and has got to %d of %d: it does not vote", has, least)
		}
	}
	return nil
}

// committed is up to where the log is, as this node knows. Raft asks from its goroutines.
func (r *replica) committed() uint64 {
	<-r.started
	return r.raft.CommitIndex()
}

// voters lists them, those first who have voted for longest. Raft asks from its goroutines.
func (r *replica) voters() (ids []raft.ServerID) {
	<-r.started
	for _, s := range r.configuration().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// leader is who leads as far as this replica has heard.
func (r *replica) leader() (peer.ID, bool) {
	_, id := r.raft.LeaderWithID()
	if id == "" {
		return "", false
	}
	p, err := peer.Decode(string(id))
	return p, err == nil
}

func (r *replica) addLearner(id peer.ID, wait time.Duration) raft.IndexFuture {
	return r.raft.AddNonvoter(raft.ServerID(address(id)), address(id), 0, wait)
}

func (r *replica) promote(id peer.ID, wait time.Duration) raft.IndexFuture {
	return r.raft.AddVoter(raft.ServerID(address(id)), address(id), 0, wait)
}

func (r *replica) demote(id peer.ID, wait time.Duration) raft.IndexFuture {
	return r.raft.DemoteVoter(raft.ServerID(address(id)), 0, wait)
}

func (r *replica) remove(id peer.ID, wait time.Duration) raft.IndexFuture {
	return r.raft.RemoveServer(raft.ServerID(address(id)), 0, wait)
}

// reconfigure changes the configuration, on the leader.
func (l *Ledger) reconfigure(ctx context.Context, what string, id peer.ID, f func(r *replica, id peer.ID, wait time.Duration) raft.IndexFuture) error {
	r, err := l.leading()
	if err != nil {
		return err
	}
	wait := l.cfg.Timing.Call
	if d, ok := ctx.Deadline(); ok {
		wait = time.Until(d)
	}
	if wait <= 0 {
		return context.Cause(ctx)
	}
	done := make(chan error, 1)
	go func() { done <- f(r, id, wait).Error() }() // ends with raft at the latest
	select {
	case err := <-done:
		if err != nil {
			return grid.Errorf(grid.Unavailable, "ledger: %s %s: %w", what, id, err)
		}
		l.bump()
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// progress tells what the leader knows of the replicas.
func (r *replica) progress() map[peer.ID]progress {
	o := r.office.Load()
	if o == nil {
		return nil
	}
	all := make(map[peer.ID]progress)
	now := time.Now()
	for _, s := range r.servers() {
		if s.ID == r.l.net.Self() {
			all[s.ID] = progress{Applied: r.raft.LastIndex()}
		} else if k, ok := r.trans.acks.of(raft.ServerID(address(s.ID)), o.term); ok {
			all[s.ID] = progress{Applied: k.last, Heard: now.Sub(k.at)}
		} else {
			all[s.ID] = progress{Heard: never}
		}
	}
	return all
}

// never is the progress.Heard of a replica that has not answered this leader.
const never = time.Duration(math.MaxInt64)

// nudger tells the others at once that an entry is committed, when no later entry does it: raft leaves that to a
// timer of its own, and until then watches there would hear nothing.
type nudger struct {
	r *replica

	mu     sync.Mutex
	index  uint64 // newest committed entry
	told   uint64
	says   *raft.AppendEntriesRequest // what they are told
	busy   map[raft.ServerID]bool     // who is being told
	active bool
	closed bool
	wg     sync.WaitGroup
}

// nudgeAfter is for how long no entry must follow.
const nudgeAfter = time.Millisecond

func (r *replica) nudge(index uint64) {
	n := &r.hint
	n.mu.Lock()
	defer n.mu.Unlock()
	n.index = max(n.index, index)
	if n.active || n.closed || len(r.configuration().Servers) < 2 {
		return
	}
	n.active = true
	n.wg.Go(n.run)
}

func (n *nudger) run() {
	for {
		t := time.NewTimer(nudgeAfter)
		select {
		case <-t.C:
		case <-n.r.stop:
			t.Stop()
		}
		n.mu.Lock()
		index := n.index
		if index == n.told || n.closed {
			n.active = false
			n.mu.Unlock()
			return
		}
		n.told = index
		n.mu.Unlock()
		if n.r.raft.LastIndex() == index {
			n.tell(index)
		}
	}
}

// tell has all that answer be told, by an empty append behind an entry. This node has proposed the entry, so it leads in the entry's term, and it
// is committed, so what the message says stays true whatever has happened since.
func (n *nudger) tell(index uint64) {
	r := n.r
	var entry raft.Log
	if r.disk.Log.GetLog(index, &entry) != nil {
		return // a snapshot has taken its place
	}
	req := raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(r.id), Addr: []byte(r.id)},
		Term:      entry.Term, Leader: []byte(r.id),
		PrevLogEntry: index, PrevLogTerm: entry.Term, LeaderCommitIndex: index,
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.says = &req
	for _, s := range r.configuration().Servers {
		if s.ID == r.id || n.busy[s.ID] || n.closed {
			continue
		}
		n.busy[s.ID] = true
		n.wg.Go(func() { n.tellOne(s) })
	}
}

// tellOne tells one of them what there is to tell. It tries once, and the others do not wait for it: it may be dead.
func (n *nudger) tellOne(s raft.Server) {
	for said := (*raft.AppendEntriesRequest)(nil); ; {
		n.mu.Lock()
		req := n.says
		k, ok := n.r.trans.acks.of(s.ID, req.Term)
		if req == said || n.closed || !ok || time.Since(k.at) > n.r.l.cfg.Timing.Election { // who has not answered for so long would only be waited for
			delete(n.busy, s.ID)
			n.mu.Unlock()
			return
		}
		n.mu.Unlock()
		said = req
		copied := *req
		_ = n.r.trans.send(s.ID, s.Address, &copied, new(raft.AppendEntriesResponse))
	}
}

func (n *nudger) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.wg.Wait()
}
