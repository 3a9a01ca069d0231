package grid

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Rows of stages that take from others come about one by one, as what they name is there. So they are in no table:
// the owner of the job makes them when they are asked for, and whoever runs the tasks asks.

const (
	// maxRows and rowsBytes bound the rows of one reply.
	maxRows   = 256
	rowsBytes = 1 << 20
	// rowsTimeout bounds one call: the owner may have to put a whole stage's outputs together first.
	rowsTimeout = time.Minute
	// rowTries is how often an owner is asked that is busy, or does not answer.
	rowTries = 5
	// passPieces is how many pieces of a stage's output are sorted by part at a time: it bounds memory.
	passPieces = 1 << 20
)

type (
	// rowsMsg asks for the inputs of tasks of a stage that takes from others.
	rowsMsg struct {
		Job   JobID  `cbor:"job"`
		Stage uint32 `cbor:"stage"`
		Epoch Epoch  `cbor:"epoch"`
		Span  Span   `cbor:"span"`
	}
	// rowsReply has those of the first tasks of the span, one at least unless the job is over.
	rowsReply struct {
		Over bool  `cbor:"over"`
		Rows []Row `cbor:"rows"`
	}
)

// errOver says that a job is not running any more, so that its tasks need not be run.
var errOver = Errorf(Canceled, "the job is over")

// made is what all outputs of a stage have been put together as, for the stages that take from it.
type made struct {
	mu     sync.Mutex
	all    *Input      // the folder of all of them
	pieces *Table[Row] // by part; entries are named by task
	inputs *Table[Row] // not made, but read: the stage's own table
}

// onRows answers who runs tasks of a job owned here.
func (n *Node) onRows(ctx context.Context, from peer.ID, m rowsMsg) (rowsReply, error) {
	j := n.job(m.Job)
	if j == nil || j.over(m.Epoch) {
		if j != nil && m.Epoch > j.rec.Epoch {
			n.suspect(j)
		}
		return rowsReply{Over: true, Rows: []Row{}}, nil
	}
	if int(m.Stage) >= len(j.spec.Stages) || len(j.spec.Stages[m.Stage].From) == 0 {
		return rowsReply{}, Errorf(Invalid, "job %s has no stage %d that takes from others", m.Job, m.Stage)
	}
	if tasks := j.spec.Stages[m.Stage].Tasks; m.Span.Lo >= m.Span.Hi || m.Span.Hi > tasks {
		return rowsReply{}, Errorf(Invalid, "job %s: stage %d has %d tasks, not %s", m.Job, m.Stage, tasks, m.Span)
	}
	if err := n.checkGiven(ctx, from, Work{m.Job, m.Stage}, m.Span); err != nil {
		return rowsReply{}, err
	}
	var reply rowsReply
	size := 0
	for i := m.Span.Lo; i < m.Span.Hi && len(reply.Rows) < maxRows && size < rowsBytes; i++ {
		row, err := n.rowOf(ctx, j, m.Stage, i)
		if err != nil && len(reply.Rows) > 0 {
			break // it is asked for again
		}
		if err != nil {
			return rowsReply{}, err
		}
		for _, in := range row {
			size += 64 + len(in.Name)
		}
		reply.Rows = append(reply.Rows, row)
	}
	return reply, nil
}

// rowOf makes the inputs of one task of a job of this node: those of the stage's table, and those from each source in
// turn. It is Busy as long as what they come from has not ended.
func (n *Node) rowOf(ctx context.Context, j *job, stage, i uint32) (row Row, err error) {
	st := &j.spec.Stages[stage]
	row = Row{}
	if st.Inputs.Defined() {
		if row, err = n.ownRow(ctx, j, stage, i); err != nil {
			return nil, err
		}
	}
	for k := range st.From {
		src := &st.From[k]
		switch {
		case src.Part:
			row, err = n.partOfAll(ctx, j, src, i, row)
		case src.Fan > 0:
			row, err = n.fan(ctx, j, src, i, row)
		default:
			var all Input
			all, err = n.allOf(ctx, j, src.Stage)
			if src.As != "" {
				all.Name = src.As
			}
			row = append(row, all)
		}
		if err != nil {
			return nil, Errorf(CodeOf(err), "inputs from stage %d (%s): %w", src.Stage, j.spec.Stages[src.Stage].Name, err)
		}
	}
	return row, nil
}

// ownRow reads a row of a stage's table.
func (n *Node) ownRow(ctx context.Context, j *job, stage, i uint32) (Row, error) {
	m := &j.stages[stage].made
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inputs == nil {
		get := func(ctx context.Context, c cid.Cid) ([]byte, error) { return n.block(ctx, c) }
		t, err := OpenTable[Row](ctx, get, j.spec.Stages[stage].Inputs)
		if err != nil {
			return nil, err
		}
		m.inputs = t
	}
	row, err := m.inputs.Row(ctx, i)
	return slices.Clone(row), err
}

// fan adds to a row what some tasks have left: those that a fan gives to task i.
func (n *Node) fan(ctx context.Context, j *job, src *Source, i uint32, row Row) (Row, error) {
	s := src.needs(i, j.spec.Stages[src.Stage].Tasks)
	for k := s.Lo; k < s.Hi; k++ {
		entries, err := n.outputOf(ctx, j, src.Stage, k)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			row = append(row, Input{Name: src.name(e.Name), CID: e.CID, Size: e.Size})
		}
	}
	return row, nil
}

// outputOf lists what a task has left that has ended well: the file NNNNNNN is the stdout of task N, the folder
// NNNNNNN.out what it left in /out.
func (n *Node) outputOf(ctx context.Context, j *job, stage, task uint32) (entries []FileInfo, err error) {
	c, err := j.ended(stage, task)
	if err != nil || !c.Receipt.OK() {
		return nil, err
	}
	name := gatheredName(task)
	if o := c.Receipt.Stdout; o.Size > 0 {
		link := o.CID
		if !link.Defined() {
			b := NewBlock(cid.Raw, o.Inline)
			if err := n.Blocks.Put(ctx, b); err != nil {
				return nil, err
			}
			link = Link{b.CID()}
		}
		entries = append(entries, FileInfo{Name: name, CID: link, Kind: KindFile, Size: o.Size})
	}
	if out := c.Receipt.Out; out.Defined() {
		entries = append(entries, FileInfo{Name: name + gatheredDir, CID: out, Kind: KindDir, Size: c.Receipt.OutSize})
	}
	return entries, nil
}

// ended decodes the result of a task that has ended.
func (j *job) ended(stage, task uint32) (Completion, error) {
	data := j.result(stage, task)
	var c Completion
	if data == nil {
		return c, Errorf(Busy, "task %d has not ended yet", task)
	}
	return c, Unmarshal(data, &c)
}

// result is the encoded result of a task, nil while it has none.
func (j *job) result(stage, task uint32) []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	if int(stage) >= len(j.stages) || int(task) >= len(j.stages[stage].results) {
		return nil
	}
	return j.stages[stage].results[task]
}

// allOf makes the folder of all outputs of a stage that has ended, once. By itself it is named ".".
func (n *Node) allOf(ctx context.Context, j *job, stage uint32) (Input, error) {
	m := &j.stages[stage].made
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all != nil {
		return *m.all, nil
	}
	defer n.HoldUsed()() // until the job knows of it
	var entries []FileInfo
	for i := range j.spec.Stages[stage].Tasks {
		e, err := n.outputOf(ctx, j, stage, i)
		if err != nil {
			return Input{}, err
		}
		entries = append(entries, e...)
	}
	tree, size, err := n.Files.AddTree(ctx, entries)
	if err != nil {
		return Input{}, err
	}
	j.keep(tree)
	m.all = &Input{Name: ".", CID: Link{tree}, Size: size}
	return *m.all, nil
}

// partOfAll adds to a row what each task of a stage has left in one part.
func (n *Node) partOfAll(ctx context.Context, j *job, src *Source, part uint32, row Row) (Row, error) {
	m := &j.stages[src.Stage].made
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pieces == nil {
		if err := n.sortPieces(ctx, j, src.Stage, m); err != nil {
			return nil, err
		}
	}
	pieces, err := m.pieces.Row(ctx, part)
	if err != nil {
		return nil, err
	}
	for _, p := range pieces {
		row = append(row, Input{Name: src.name(p.Name), CID: p.CID, Size: p.Size})
	}
	return row, nil
}

// sortPieces makes a table of a stage's outputs by part. Several passes over them bound what is in memory.
func (n *Node) sortPieces(ctx context.Context, j *job, stage uint32, m *made) error {
	defer n.HoldUsed()() // until the job knows of it
	st := &j.spec.Stages[stage]
	table := NewTable[Row](n.Blocks)
	step := max(passPieces/st.Tasks, 1)
	for lo := uint32(0); lo < st.Partitions; lo += step {
		rows := make([]Row, min(step, st.Partitions-lo))
		for i := range st.Tasks {
			c, err := j.ended(stage, i)
			if err != nil {
				return err
			}
			if !c.Receipt.OK() || !c.Receipt.Out.Defined() {
				continue
			}
			list, err := n.Files.List(ctx, c.Receipt.Out.Cid)
			if err != nil {
				return Errorf(CodeOf(err), "output of task %d: %w", i, err)
			}
			for _, e := range list {
				p, ok := gatheredNumber(e.Name)
				if ok && p >= lo && p-lo < uint32(len(rows)) && e.Kind != KindSymlink {
					rows[p-lo] = append(rows[p-lo], Input{Name: gatheredName(i), CID: e.CID, Size: e.Size})
				}
			}
		}
		for _, row := range rows {
			if row == nil {
				row = Row{}
			}
			if err := table.Add(ctx, row); err != nil {
				return err
			}
		}
	}
	root, err := table.Close(ctx)
	if err != nil {
		return err
	}
	j.keep(root.Cid)
	m.pieces, err = OpenTable[Row](ctx, n.Blocks.Get, root)
	return err
}

// keep notes that what the tasks of later stages are given is below a root, until the job ends.
func (j *job) keep(root cid.Cid) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.kept = append(j.kept, root)
}

// gatheredDir is what is appended to the name of a task's stdout for that of its folder.
const gatheredDir = ".out"

// gatheredNumber is what gatheredName was made of.
func gatheredNumber(name string) (n uint32, ok bool) {
	if len(name) != 7 || strings.Trim(name, "0123456789") != "" {
		return 0, false
	}
	for _, c := range []byte(name) {
		n = 10*n + uint32(c-'0')
	}
	return n, true
}

// told are the rows of a stage that takes from others, as its owner tells them. It is for one goroutine.
type told struct {
	n     *Node
	lease Lease
	span  Span // of tasks that are likely to be asked for together
	first uint32
	rows  []Row // from first on
	past  *job  // the books of a job that has ended, to ask in place of its owner; nil: it runs
}

// row is the row of task i.
func (t *told) row(ctx context.Context, i uint32) (Row, error) {
	if t.past != nil {
		return t.n.rowOf(ctx, t.past, t.lease.Stage, i)
	}
	if t.lease.Owner == t.n.self {
		j := t.n.job(t.lease.Job)
		if j == nil || j.rec.Spec != t.lease.Spec || j.rec.Epoch != t.lease.Epoch { // or a lease that this node has not made
			return nil, errOver
		}
		return t.n.rowOf(ctx, j, t.lease.Stage, i)
	}
	if i < t.first || i-t.first >= uint32(len(t.rows)) {
		s := Span{i, i + 1}
		if t.span.Lo <= i && i < t.span.Hi {
			s.Hi = t.span.Hi
		}
		rows, err := t.n.askRows(ctx, t.lease, s)
		if err != nil {
			return nil, err
		}
		t.first, t.rows = i, rows
	}
	return t.rows[i-t.first], nil
}

// askRows asks the owner of a job for rows, or who has become its owner since.
func (n *Node) askRows(ctx context.Context, l Lease, s Span) ([]Row, error) {
	owner, msg := l.Owner, rowsMsg{Job: l.Job, Stage: l.Stage, Epoch: l.Epoch, Span: s}
	pause := 100 * time.Millisecond
	for try, moves := 1, 0; ; try++ {
		reply, err := n.askRowsOf(ctx, owner, msg)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err == nil && !reply.Over && len(reply.Rows) > 0 && len(reply.Rows) <= int(s.Len()):
			return reply.Rows, nil
		case err == nil && !reply.Over:
			return nil, Errorf(Invalid, "%s from %s: %d rows of %d tasks", protoRows, owner, len(reply.Rows), s.Len())
		case moves < rowTries:
			if next, epoch, ok := n.successor(l.Job, msg.Epoch); ok {
				owner, msg.Epoch, try, moves = next, epoch, 0, moves+1
				continue
			}
		}
		if err == nil {
			return nil, errOver
		}
		if try >= rowTries && moves > 0 && CodeOf(err) == Busy { // what it needs was lost with the last owner
			return nil, errOver
		}
		if try >= rowTries || !transient(CodeOf(err)) {
			return nil, Errorf(CodeOf(err), "ask %s for the inputs of tasks %s: %w", owner, s, err)
		}
		if !pauseFor(ctx, pause) {
			return nil, context.Cause(ctx)
		}
		pause *= 2
	}
}

// askRowsOf asks once. The owner may be this node by now.
func (n *Node) askRowsOf(ctx context.Context, owner peer.ID, msg rowsMsg) (rowsReply, error) {
	ctx, cancel := context.WithTimeout(ctx, rowsTimeout)
	defer cancel()
	if owner == n.self {
		return n.onRows(ctx, n.self, msg)
	}
	return call[rowsReply](ctx, n, owner, protoRows, msg)
}
