package grid

import (
	"bufio"
	"context"
	"encoding/base64"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// What the tests, which live outside the package, need of its inside.

type (
	StealMsg     = stealMsg
	StealReply   = stealReply
	ClaimMsg     = claimMsg
	ReportMsg    = reportMsg
	ReportReply  = reportReply
	DropMsg      = dropMsg
	DropReply    = dropReply
	RevokeMsg    = revokeMsg
	WakeMsg      = wakeMsg
	HostFailure  = hostFailure
	TaskLogMsg   = taskLogMsg
	TaskLogFrame = taskLogFrame
	TaskPiece    = taskPiece
	RecallMsg    = recallMsg
	RecallReply  = recallReply
	RowsMsg      = rowsMsg
	RowsReply    = rowsReply
	TableIndex   = tableIndex
	TableRef     = tableRef
)

const (
	ProtoSteal  = protoSteal
	ProtoWake   = protoWake
	ProtoClaim  = protoClaim
	ProtoReport = protoReport
	ProtoDrop   = protoDrop
	ProtoRevoke = protoRevoke
	ProtoRecall = protoRecall

	ProtoPulse       = protoPulse
	ProtoStretches   = protoStretches
	ProtoRealmEvents = protoRealmEvents
	ProtoTaskLog     = protoTaskLog

	ProtoRows = protoRows

	MaxSmallList = maxSmallList
	MaxTells     = maxTells
	MaxText      = maxMessage
	TablePart    = tablePart
)

var (
	ExpandArgs      = expandArgs
	UnmarshalSmall  = UnmarshalMessage
	Clean           = clean
	CompletionOf    = completion
	GatheredName    = gatheredName
	IsWholeTree     = isWholeTree
	MaxReceiptStack = maxStack
)

// CheckReceipt is what an owner checks of a reported receipt besides its signature.
func CheckReceipt(r *Receipt, l Limits) error { return r.check(l) }

// NewInputFS builds the view of a row that a guest gets.
func NewInputFS(ctx context.Context, files Files, row Row) (fs.FS, error) {
	f := newInputFS(ctx, files)
	for _, in := range row {
		if err := f.add(in.Name, in.CID); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// DivideLines divides text as a node does, and reads the parts.
func DivideLines(text []byte, parts uint32) ([][]byte, error) {
	d, err := divideLines(text, parts)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, parts)
	for p := range out {
		if out[p], err = io.ReadAll(d.reader(p)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// PartOf is the part that a key belongs to.
func PartOf(key []byte, parts uint32) uint32 { return partOf(key, parts) }

// NewMerger merges files as a node does for stdin, of each of which it reads so many bytes at a time.
func NewMerger(ctx context.Context, files Files, row Row, stretch int) (io.Reader, error) {
	of, err := streams(ctx, files, row)
	m := newMerger(ctx, files, of, nil)
	for _, c := range m.heap {
		c.stretch = stretch
	}
	return m, err
}

// NewInputReader reads a row as stdin.
func NewInputReader(ctx context.Context, files Files, row Row) io.ReadCloser {
	return &inputReader{ctx: ctx, files: files, of: named(row)}
}

// RealmNodes is who the ledger says is of the realm.
func (n *Node) RealmNodes(ctx context.Context) (map[peer.ID]struct{}, error) {
	return n.realmNodes(ctx, false)
}

// DataFor is what a guest sees of data that it was granted; held tells how often a DAG is held for it.
func (n *Node) DataFor(ctx context.Context, grants ...string) (data fs.FS, held func() int) {
	f := n.dataFor(ctx, grants, new(sources), nil, func(error) {})
	return f, func() int { return len(f.held.release) }
}

// MaxDataTrees is how many DAGs are held at most for one guest's looking.
const MaxDataTrees = maxDataTrees

// TaskKey makes one task of a lease, and its key.
func (n *Node) TaskKey(ctx context.Context, l Lease, i uint32) (Task, Key, error) {
	p, err := n.planFor(ctx, l)
	if err != nil {
		return Task{}, Key{}, err
	}
	t, err := p.task(ctx, i)
	if err != nil {
		return t, Key{}, err
	}
	k, err := t.Key()
	return t, k, err
}

type (
	JobMsg      = jobMsg
	JobReply    = jobReply
	JobPicture  = jobPicture
	CancelMsg   = cancelMsg
	FollowMsg   = followMsg
	FollowFrame = followFrame
	TaskItem    = taskItem
)

const (
	ProtoJob    = protoJob
	ProtoCancel = protoCancel
	ProtoWatch  = protoWatch
	ProtoTasks  = protoTasks
)

// AppendFrame and ReadFrame are how followers and owners write to one another.
func AppendFrame(dst []byte, v any) ([]byte, error) { return appendFrame(dst, v) }

func ReadFrame(r io.Reader, v any) error {
	return readFrame(bufio.NewReaderSize(r, 16), maxFollowFrame, v)
}

// Sweep forgets old jobs as if it were now; Sweeps reports whether it is for this node to do so.
func (n *Node) Sweep(ctx context.Context, now time.Time) (int, bool, error) { return n.sweep(ctx, now) }

func (n *Node) Sweeps() bool { return n.sweeps() }

// KnownUp is how many nodes of the realm are up, as far as this one has heard.
func (n *Node) KnownUp() int { return len(n.realm.up()) }

// Brood counts the batches of children that the node owns.
func (n *Node) Brood() int { return len(n.brood.running()) }

// SetSpawned sets how many spawned tasks of one job a node may have, and how many children of a task may not be awaited.
func SetSpawned(alive, unawaited int) (back func()) {
	a, u := maxAlive, maxUnawaited
	maxAlive, maxUnawaited = alive, unawaited
	return func() { maxAlive, maxUnawaited = a, u }
}

// HeldRoots is what a node remembers to hold.
type HeldRoots struct{ heldRoots }

const MaxHeld = maxHeld

func (h *HeldRoots) Add(root cid.Cid, size int64) { h.add(root, size) }
func (h *HeldRoots) Has(root cid.Cid) bool        { return h.has(root) }
func (h *HeldRoots) Sum(now time.Time) Summary    { return h.sum(now) }
func (h *HeldRoots) Len() int                     { return len(h.young) + len(h.old) }

// Do carries an effect out, for which nothing of the loop's own is needed.
func (n *Node) Do(e Effect) { n.carryOut(e) }

// Check refuses what no honest thief says.
func (m *StealMsg) Check() error { return m.check() }

// Over is what a node does when it sees in the ledger that a job has ended.
func (n *Node) Over(id JobID) { n.over(id, nil) }

// Given is what a node remembers of whom it gave leases.
type Given struct{ given }

const MaxGivenJobs = maxGivenJobs

func (g *Given) Note(to peer.ID, leases ...Lease) { g.note(leases, to) }

func (g *Given) Of(job JobID, owner peer.ID) []peer.ID {
	gave, _ := g.of(job, owner)
	return gave
}

// Vouched reports whether a node's word counts for another.
func (n *Node) Vouched(ctx context.Context, id peer.ID) bool { return n.vouched(ctx, id) }

// MayRun is what a node asks before it runs a task.
func (n *Node) MayRun(ctx context.Context, st *Stage) error { return n.mayRun(ctx, st) }

// ModuleStartsIn is Module.startsIn.
func ModuleStartsIn(m *Module, limit uint64) error { return m.startsIn(limit) }

// ModuleHas is Module.has.
func ModuleHas(m *Module, function string) error { return m.has(function) }

// ParseDecision reads what an admission policy answers.
func ParseDecision(data []byte) (Decision, Verify, error) { return parseDecision(data) }

// RefreshTokens has a book be read anew so often.
func RefreshTokens(b *TokenBook, every time.Duration) { b.every = every }

// LendsTo refuses strangers that the node lends nothing to.
func (n *Node) LendsTo(id peer.ID) error { return n.lendsTo(id) }

// AdmitLent asks the realm's admission policy about a stage of a stranger's.
func (n *Node) AdmitLent(ctx context.Context, owner peer.ID, st *Stage) error {
	return n.admitLent(ctx, Lease{Owner: owner, Outside: true}, st)
}

// Voice is what a node's results count by.
func (n *Node) Voice(id peer.ID) peer.ID { return n.outlets.voice(id) }

// ReadBackup reads a backup, and what is to become of its data.
func ReadBackup(r io.Reader, car func(io.Reader) error) (entries []Entry, pins []Pin, err error) {
	c, err := readBackup(r, car)
	return c.entries, c.pins, err
}

// CheckTaskLog and TakeTaskLog are what a reader of logs does with what a node tells.
func CheckTaskLog(fr *TaskLogFrame) error { return fr.check() }

// TakeTaskLog takes a frame in as two nodes would tell it.
func TakeTaskLog(ctx context.Context, fr *TaskLogFrame) {
	r := newLogReader(ctx, new(Node), "", LogQuery{}, func(LogLine) error { return nil })
	for _, node := range []peer.ID{"a", "b", "a"} {
		_ = r.take(tailed{node: node, frame: fr})
		_ = r.take(tailed{node: node})
	}
	_ = r.rest()
}

// StageSpan is the ID of the span of a stage.
var StageSpan = stageSpan

// What tests need of those who look on.

type (
	LookMsg          = lookMsg
	LookReply[T any] = lookReply[T]
	Runs             = runs
)

const MaxRuns = maxRuns

var MergeStretches = mergeStretches

func now0() clockOf { return clockOf{now: time.Now()} }

func TakePulse(p *Pulse, from peer.ID) bool       { return takePulse(p, from, now0()) }
func TakeStretch(s *Stretch, from peer.ID) bool   { return takeStretch(s, from, now0()) }
func TakeEvent(ev *RealmEvent, from peer.ID) bool { return takeEvent(ev, from, now0()) }

// AnswerLooks has a node answer all that may be asked by a message.
func (n *Node) AnswerLooks(m *LookMsg) {
	n.ownPulse(m)
	n.ownStretches(m)
	n.ownEvents(m)
}

// LookAtAll asks all nodes how they are, once, and tells how many are up.
func (n *Node) LookAtAll(ctx context.Context) (up int) {
	ids := n.looked(ctx)
	var wg sync.WaitGroup
	room := make(chan struct{}, lookAtOnce)
	for _, id := range ids {
		room <- struct{}{}
		wg.Go(func() { _ = n.see(ctx, id, true); <-room })
	}
	wg.Wait()
	list, _ := n.seen(ids, 0)
	for _, p := range list {
		if p.State != PulseSilent {
			up++
		}
	}
	return up
}

// Note notes an attempt that took so long until now.
func (r *Runs) Note(now time.Time, took time.Duration, index uint32) {
	r.begin(now.Add(-took))
	r.end(&ran{from: now.Add(-took).UnixNano(), to: now.UnixNano(), job: "j", index: index})
}

// Each calls f for the attempts with numbers from lo to hi.
func (r *Runs) Each(lo, hi uint64, f func(index uint32)) {
	r.each(lo, hi, func(a *ran) bool { f(a.index); return true })
}

func (r *Runs) Recent(now time.Time) (p50, p99 time.Duration) { return r.recent(now) }
func (r *Runs) Busy(now time.Time) time.Duration              { return r.busy(now) }

// JoinLooking has a node look at the others, until leave is called; Looks reports whether it does.
func (n *Node) JoinLooking(ctx context.Context) (leave func(), err error) {
	return n.sights.asking.join(ctx, time.Second)
}

func (n *Node) Looks() bool {
	r := &n.sights.asking
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running
}

const Lookers = lookers

// ProtoSpeed is how nodes measure one another.
const ProtoSpeed = protoSpeed

// LogPlace encodes a place in the logs of a job, whatever it says.
func LogPlace(job JobID, ended []uint32, open ...[5]uint64) string {
	p := logPlace{Job: placeJob(job), Ended: ended}
	for _, o := range open {
		p.Open = append(p.Open, openTask{Stage: uint32(o[0]), Index: uint32(o[1]), Mark: o[2], Out: o[3], Err: o[4]})
	}
	data, err := Marshal(p)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

// ReadLogPlace reads a place, begins there, and tells the place at which that is.
func ReadLogPlace(text string, job JobID) (string, error) {
	if _, err := parseLogPlace(text, job); err != nil {
		return "", err
	}
	return newLogReader(context.Background(), nil, job, LogQuery{After: text}, nil).place(), nil
}
