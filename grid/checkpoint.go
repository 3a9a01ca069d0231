package grid

import (
	"context"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Checkpoint lists what a running job has come to so far: tables of Completions, in the order in which they were
// written. Its block leads to all of them and to their outputs, so that one pin keeps all of it.
type Checkpoint struct {
	Job    JobID            `cbor:"job"`
	Before Link             `cbor:"before,omitzero"` // of a Checkpoint with the parts before these
	Parts  []CheckpointPart `cbor:"parts"`
	// Events are the last of what has happened to the job so far, and Forgotten how many came before them.
	Events    []JobEvent `cbor:"events,omitempty"`
	Forgotten int        `cbor:"forgotten,omitempty"`
}

// CheckpointPart is a table of Completions of one stage.
type CheckpointPart struct {
	Stage uint32 `cbor:"stage"`
	Table Link   `cbor:"table"`
}

const (
	// saveEvery is the least time between two checkpoints. As a job gets older they become rarer, up to
	// maxSaveEvery: at most a saveShare-th of its time is lost with its owner, of what cannot be had from those
	// who ran it. They are also at least saveCost times as far apart as one takes.
	saveEvery    = 2 * time.Second
	maxSaveEvery = time.Minute
	saveShare    = 16
	saveCost     = 10
	// maxSaved bounds the completions of one checkpoint, maxParts the tables that one block lists.
	maxSaved = 1 << 16
	maxParts = 64
	// maxCheckpoints bounds the blocks that are followed back: more than a checkpoint a second for months.
	maxCheckpoints = 1 << 16
	// loadTimeout bounds the reading of a checkpoint's list.
	loadTimeout = 10 * time.Second
)

// saves is what the owner of a job needs for its checkpoints. Its fields are guarded by the job's mu, except that
// head is only used by who writes checkpoints, one at a time.
type saves struct {
	save    func()    // writes one; nil: there are none, and nothing is noted
	began   time.Time // this owner did
	last    time.Time // when the last one was written, or the owner began
	took    time.Duration
	fresh   []unsaved // booked since, the first of which make the next one
	told    bool      // something has happened since that is worth one
	loaded  bool      // what earlier owners saved is in head, so that one may be written without completions
	timer   *time.Timer
	writing bool
	head    Checkpoint // the last one
}

// unsaved are completions for one checkpoint.
type unsaved struct {
	refs []taskRef
	used Usage // by their tasks, and for the verification of results meanwhile
}

func (s *saves) begin(save func(), now time.Time) { s.save, s.began, s.last = save, now, now }

// add notes a completion, and what its task has used.
func (s *saves) add(ref taskRef, used Usage) {
	if s.save == nil {
		return
	}
	if n := len(s.fresh); n == 0 || len(s.fresh[n-1].refs) >= maxSaved {
		s.fresh = append(s.fresh, unsaved{})
	}
	last := &s.fresh[len(s.fresh)-1]
	last.refs = append(last.refs, ref)
	last.used.Add(used)
	s.arm()
}

// arm sets the time of the next checkpoint, if there is something to save.
func (s *saves) arm() {
	if s.timer != nil || s.writing || len(s.fresh) == 0 && !s.told {
		return
	}
	now := time.Now()
	pause := min(max(saveEvery, now.Sub(s.began)/saveShare), maxSaveEvery)
	s.timer = time.AfterFunc(s.last.Add(max(pause, saveCost*s.took)).Sub(now), s.save)
}

// happened notes that something is worth a checkpoint, though no task has ended.
func (s *saves) happened() {
	if s.save != nil && s.loaded {
		s.told = true
		s.arm()
	}
}

// stopTimer ends the writing of checkpoints. j.mu is held.
func (j *job) stopTimer() {
	if j.saves.timer != nil {
		j.saves.timer.Stop()
	}
	j.saves.save = nil
}

// checkpoint writes what has been booked since the last one.
func (n *Node) checkpoint(j *job) {
	if !n.enter() {
		return
	}
	defer n.wg.Done()
	start := time.Now()
	j.mu.Lock()
	s := &j.saves
	s.timer = nil
	if j.ending || s.writing {
		j.mu.Unlock()
		return
	}
	s.writing = true
	if len(s.fresh) == 0 && !s.told {
		s.writing = false
		j.mu.Unlock()
		return
	}
	var first unsaved
	if len(s.fresh) > 0 {
		first, s.fresh = s.fresh[0], slices.Clone(s.fresh[1:])
	}
	s.told = false
	rows := make(map[uint32][][]byte)
	for _, ref := range first.refs {
		rows[ref.stage] = append(rows[ref.stage], j.stages[ref.stage].results[ref.index])
	}
	j.mu.Unlock()
	err := n.save(j, rows, first.used)
	if err != nil && j.ctx.Err() == nil {
		n.log.Warn("checkpoint not written; it will be tried again", "job", j.rec.ID, "err", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	s.writing, s.last = false, time.Now()
	s.took = s.last.Sub(start)
	if err != nil {
		if s.told = true; len(first.refs) > 0 {
			s.fresh = append([]unsaved{first}, s.fresh...)
		}
	}
	if !j.ending {
		s.arm()
	}
}

// save writes completions as tables, has other nodes keep them, and records them in the ledger, with what their tasks
// have used.
func (n *Node) save(j *job, rows map[uint32][][]byte, used Usage) error {
	release := n.HoldUsed()
	defer release()
	j.mu.Lock()
	rec, events, lost := j.rec, slices.Clone(j.story.events), j.story.lost
	j.mu.Unlock()
	head := Checkpoint{Job: rec.ID, Before: j.saves.head.Before, Parts: slices.Clone(j.saves.head.Parts), Events: events, Forgotten: lost}
	if len(head.Parts) >= maxParts {
		head.Before, head.Parts = rec.Checkpoint, nil
	}
	for stage := range uint32(len(j.stages)) {
		if len(rows[stage]) == 0 {
			continue
		}
		table, err := n.writeTable(j.ctx, rows[stage])
		if err != nil {
			return err
		}
		head.Parts = append(head.Parts, CheckpointPart{stage, table})
	}
	b, err := EncodeBlock(head)
	if err != nil {
		return err
	}
	if err := n.Blocks.Put(j.ctx, b); err != nil {
		return err
	}
	if err := n.Blocks.Sync(j.ctx); err != nil {
		return err
	}
	root, old := Link{b.CID()}, rec.Checkpoint
	defer n.Hold(root.Cid)()
	release() // others may take a while to make their copies
	want, now := n.copies(rec.Copies)
	if now > 1 {
		p := Pin{Root: root, Name: "checkpoint of job " + string(rec.ID), Replicas: want}
		if _, err := n.spread(j.ctx, p, now); err != nil {
			n.log.Warn("a checkpoint is only on this node", "job", rec.ID, "err", err)
		}
	}
	var total History
	at := time.Now()
	err = n.write(j.ctx, j, func(rec *Record) (Txn, error) {
		rec.Checkpoint = root
		t, err := rec.txn(j.version)
		if err != nil {
			return t, err
		}
		t.Put = t.Put[:min(len(t.Put), 1)] // the list of open jobs stays as it is
		total, err = j.countIn(&t, used, at)
		return t, err
	})
	if err != nil {
		n.unpin(root)
		return err
	}
	j.counted(total)
	j.saves.head = head
	n.unpin(old)
	return nil
}

func (n *Node) writeTable(ctx context.Context, rows [][]byte) (Link, error) {
	t := NewTable[cbor.RawMessage](n.Blocks) // of Completions, which are encoded already
	for _, row := range rows {
		if row == nil {
			continue
		}
		if err := t.Add(ctx, row); err != nil {
			return Link{}, err
		}
	}
	return t.Close(ctx)
}

// loadCheckpoint reads the list of what earlier owners have saved: tables by stage. What cannot be read is left
// out: it is found in another way, or made again.
func (n *Node) loadCheckpoint(j *job) (parts [][]Link) {
	parts = make([][]Link, len(j.stages))
	ctx, cancel := context.WithTimeout(j.ctx, loadTimeout)
	defer cancel()
	for i, at := 0, j.rec.Checkpoint; at.Defined() && i < maxCheckpoints; i++ {
		data, err := n.block(ctx, at.Cid)
		var c Checkpoint
		if err == nil {
			err = UnmarshalMessage(data, &c)
		}
		if err == nil && c.Job != j.rec.ID {
			err = Errorf(Invalid, "it is of another job, %.80q", c.Job)
		}
		if err != nil {
			n.log.Warn("checkpoint not read", "job", j.rec.ID, "checkpoint", at, "err", err)
			break
		}
		if i == 0 {
			j.mu.Lock()
			j.saves.head, j.saves.loaded = c, true
			j.story.recall(c.Events, c.Forgotten, j.rec.Epoch)
			j.mu.Unlock()
		}
		for _, p := range c.Parts {
			if int(p.Stage) < len(parts) {
				parts[p.Stage] = append(parts[p.Stage], p.Table)
			}
		}
		at = c.Before
	}
	return parts
}

// bookSaved books what earlier owners have saved of a stage, as far as its outputs are to be had.
func (n *Node) bookSaved(j *job, w Work, tables []Link) {
	for _, table := range tables {
		if err := n.bookTable(j, w, table); err != nil && j.ctx.Err() == nil {
			n.log.Warn("part of a checkpoint not read", "job", w.Job, "stage", w.Stage, "table", table, "err", err)
		}
	}
}

func (n *Node) bookTable(j *job, w Work, table Link) error {
	held := holds{n: n}
	defer held.end()
	held.add(table.Cid)
	t, err := OpenTable[Completion](j.ctx, func(ctx context.Context, c cid.Cid) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, loadTimeout)
		defer cancel()
		return n.block(ctx, c)
	}, table)
	if err != nil {
		return err
	}
	var batch []Completion
	for i := range t.Len() {
		c, err := t.Row(j.ctx, i)
		if err != nil {
			return err
		}
		batch = append(batch, c)
		if len(batch) == laterPieces || i+1 == t.Len() {
			batch = n.whole(j.ctx, batch, nil, &held)
			if _, _, err := j.book(w, j.rec.Epoch, batch, true, true); err != nil {
				return err
			}
			batch = nil
		}
	}
	return nil
}

// outputTimeout bounds how long the outputs of earlier attempts are waited for.
const outputTimeout = 10 * time.Second

// whole brings the outputs of completions here, and returns those of which nothing is missing.
func (n *Node) whole(ctx context.Context, done []Completion, from []peer.ID, held *holds) []Completion {
	var roots []cid.Cid
	seen := map[peer.ID]bool{}
	for i := range done {
		links := done[i].Receipt.Links()
		for _, l := range links {
			if CheckCID(l.Cid) == nil {
				roots = append(roots, l.Cid)
			}
		}
		if node := done[i].Receipt.Node; len(links) > 0 && !seen[node] && node != n.self {
			seen[node] = true
			from = append(from, node)
		}
	}
	if len(roots) == 0 {
		return done
	}
	held.add(roots...)
	bounded, cancel := context.WithTimeout(ctx, outputTimeout)
	defer cancel()
	if err := n.Fetcher.Fetch(bounded, Want{Roots: roots, From: from, Swarm: true}); err == nil {
		return done
	}
	return slices.DeleteFunc(done, func(c Completion) bool {
		for _, l := range c.Receipt.Links() {
			if all, err := n.Files.Whole(ctx, l.Cid); err != nil || !all {
				return true
			}
		}
		return false
	})
}
