package grid

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Bounds on the reading of logs.
const (
	maxTailed   = 256             // nodes that are asked what their tasks print
	maxTasksNow = 1 << 14         // running tasks that one reader is told of
	maxTasksOf  = 1 << 11         // and of these by one node
	maxUnended  = 8 << 20         // bytes of lines without an end yet
	tailAgain   = 2 * time.Second // how often it is looked for nodes that are not asked yet
	tailOnce    = 5 * time.Second // for all answers of one who does not follow
	tailNews    = 16              // frames of nodes that wait for the reader
)

// Logs calls f for lines that a job's tasks printed: first of tasks that have ended, in order of completion while the job runs and
// of stage and number once it has ended, with standard output before standard error; and of tasks that run, on whatever node of the
// realm, what they have printed so far. With Follow it goes on with what they print, and with what ends, until the job has ended, and
// each line is given once: of a task that is run again, a note says so, and of one that is not a pure function, all is
// given anew. No more is read than is asked for. An error of f ends it.
func (n *Node) Logs(ctx context.Context, id JobID, q LogQuery, f func(LogLine) error) error {
	j, rec, err := n.find(ctx, id)
	if err != nil {
		return err
	}
	if j != nil {
		rec.ID = j.rec.ID
	}
	if err := q.Check(rec.ID); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := newLogReader(ctx, n, rec.ID, q, f)
	defer r.wg.Wait()
	defer cancel()
	if q.Limit > 0 && r.given >= q.Limit {
		return nil
	}
	live := j != nil || !rec.State.Final() && !n.Bound
	err = r.run(live)
	if errors.Is(err, errEnough) {
		err = nil
	}
	return err
}

// errEnough ends the reading of logs when as many lines were given as were asked for.
var errEnough = errors.New("enough lines")

// logReader gives the lines of a job. All but the goroutines that ask nodes is one goroutine's.
type logReader struct {
	n       *Node
	ctx     context.Context
	id      JobID
	q       LogQuery
	pattern *regexp.Regexp
	f       func(LogLine) error
	pick    taskPick
	given   int
	wg      sync.WaitGroup

	now    map[taskRef]*liveTask // that run, as far as is known
	of     map[peer.ID]int       // how many of these each node told of
	held   int                   // bytes of their last lines
	open   map[taskRef]*liveTask // tasks of which a part was given
	ended  endedTasks            // of which all was
	news   chan tailed
	asking map[peer.ID]context.CancelCauseFunc
	follow *taskLogMsg // what they are asked
}

// newLogReader begins to read; the query was checked.
func newLogReader(ctx context.Context, n *Node, id JobID, q LogQuery, f func(LogLine) error) *logReader {
	r := &logReader{
		n: n, ctx: ctx, id: id, q: q, f: f, pick: taskPick{q.Stage, q.Task},
		now: make(map[taskRef]*liveTask), of: make(map[peer.ID]int), open: make(map[taskRef]*liveTask), news: make(chan tailed, tailNews),
	}
	r.pattern, _ = q.Pattern()
	after, _ := parseLogPlace(q.After, id)
	r.resume(&after)
	return r
}

// tailed is what a node tells of its tasks. frame is nil when it tells no more; anew says that it will, from the beginning.
type tailed struct {
	node  peer.ID
	frame *taskLogFrame
	anew  bool
}

// errAnew ends listening to a node that is to be listened to from the beginning.
var errAnew = errors.New("from the beginning")

// liveTask is a task that runs: one attempt at it, and how much of that was shown.
type liveTask struct {
	attemptID
	mark    uint64 // of that
	resumed bool   // only the mark is known of it: another reader has given what was
	impure  bool
	over    bool // the attempt has ended, or
	lost    bool // its node is not heard of
	since   time.Time
	out     [2]liveStream
	copies  []attemptID // that ran at the same time
}

// attemptID names an attempt at a task: by where and when it began.
type attemptID struct {
	node  peer.ID
	began int64
}

func newLiveTask(a attemptID, impure bool) *liveTask {
	return &liveTask{attemptID: a, mark: a.mark(), impure: impure}
}

func (a *attemptID) mark() uint64 { return markOf(a.node.String(), a.began) }

// goOn goes on with another attempt.
func (l *liveTask) goOn(a attemptID) { l.attemptID, l.mark, l.resumed = a, a.mark(), false }

// maxCopiesSeen bounds the copies of one task.
const maxCopiesSeen = 8

// liveStream is one stream of an attempt: how many bytes there were, of these in lines that were given, and the last line, which has no
// end yet. That another attempt prints the same is not taken on trust: sum is of what there was, unless some of it was left out.
type liveStream struct {
	had   uint64
	given uint64
	line  []byte
	at    time.Time // of the line
	sum   maphash.Hash
	gap   bool
}

// begins reports whether what an attempt printed, of which from begins the file, begins with what there was.
func (s *liveStream) begins(from io.Reader, size uint64) (bool, error) {
	if s.gap || size < s.had {
		return false, nil
	}
	var sum maphash.Hash
	sum.SetSeed(s.sum.Seed())
	_, err := io.CopyN(&sum, from, int64(s.had))
	return err == nil && sum.Sum64() == s.sum.Sum64(), err
}

func streamName(i int) string { return [...]string{StreamOut, StreamErr}[i] }

// run reads what has ended, and, if the job is live, what runs.
func (r *logReader) run(live bool) error {
	id := r.id
	if !live {
		return r.n.tasks(r.ctx, id, false, r.pick, r.end)
	}
	if !r.q.Follow {
		if err := r.n.tasks(r.ctx, id, false, r.pick, r.end); err != nil {
			return err
		}
		return r.once(id)
	}
	ends, done := make(chan TaskEnd), make(chan error, 1)
	r.wg.Go(func() {
		done <- r.n.tasks(r.ctx, id, true, r.pick, func(t TaskEnd) error {
			select {
			case ends <- t:
				return nil
			case <-r.ctx.Done():
				return context.Cause(r.ctx)
			}
		})
	})
	r.follow = &taskLogMsg{Job: id, Stage: r.q.Stage, Task: r.q.Task, Follow: true}
	r.asking = make(map[peer.ID]context.CancelCauseFunc)
	r.ask()
	again := time.NewTicker(tailAgain)
	defer again.Stop()
	for {
		var err error
		select {
		case t := <-ends:
			err = r.end(t)
		case t := <-r.news:
			err = r.take(t)
		case <-again.C:
			r.seekCopies()
			r.ask()
		case err := <-done:
			if err == nil {
				err = r.last()
			}
			return err
		}
		if err != nil {
			return err
		}
	}
}

// once asks each node once what its tasks have printed.
func (r *logReader) once(id JobID) error {
	m := &taskLogMsg{Job: id, Stage: r.q.Stage, Task: r.q.Task}
	ctx, cancel := context.WithTimeout(r.ctx, tailOnce)
	defer cancel()
	asked := r.nodes()
	for _, node := range asked {
		r.wg.Go(func() { r.listen(ctx, node, m) })
	}
	for range asked {
		for told := false; !told; {
			t := <-r.news // each says in the end that it has no more
			if told = t.frame == nil; told {
				continue
			}
			if err := r.take(t); err != nil {
				return err
			}
		}
	}
	return r.rest()
}

// nodes are those to be asked: of the realm, this one among them.
func (r *logReader) nodes() []peer.ID {
	ids := []peer.ID{r.n.self}
	if r.n.realm != nil {
		up := r.n.realm.up()
		slices.Sort(up)
		for _, id := range up {
			if id != r.n.self {
				ids = append(ids, id)
			}
		}
	}
	if r.q.Node != "" {
		ids = slices.DeleteFunc(ids, func(id peer.ID) bool { return id.String() != r.q.Node })
	}
	return ids[:min(len(ids), maxTailed)]
}

// ask begins to listen to nodes that are not listened to.
func (r *logReader) ask() {
	for _, node := range r.nodes() {
		if r.asking[node] == nil {
			ctx, cancel := context.WithCancelCause(r.ctx)
			r.asking[node] = cancel
			r.wg.Go(func() { r.listen(ctx, node, r.follow) })
		}
	}
}

// seekCopies looks for tasks whose attempt has ended without a result, and goes over to another one that has run meanwhile, if
// there is one: what that has printed is asked for again.
func (r *logReader) seekCopies() {
	for _, l := range r.now {
		if !l.over || len(l.copies) == 0 || !l.lost && time.Since(l.since) < tailAgain {
			continue
		}
		l.lost = true
		for _, c := range l.copies {
			if cancel := r.asking[c.node]; cancel != nil {
				cancel(errAnew)
			}
		}
		l.copies = nil
	}
}

// listen hands on what a node tells, until it tells no more.
func (r *logReader) listen(ctx context.Context, node peer.ID, m *taskLogMsg) {
	hand := func(fr *taskLogFrame) error {
		if len(fr.Pieces) == 0 {
			return nil
		}
		select {
		case r.news <- tailed{node: node, frame: fr}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	var err error
	if node == r.n.self {
		err = r.n.tail(ctx, m, hand)
	} else {
		err = followStream(ctx, r.n, node, protoTaskLog, m, func(fr *taskLogFrame) (bool, error) {
			if fr.Code != 0 {
				return true, Errorf(fr.Code, "%s", clean(fr.Message, maxMessage))
			}
			if err := fr.check(); err != nil {
				return true, err
			}
			return fr.End, hand(fr)
		})
	}
	if err != nil && r.ctx.Err() == nil {
		r.n.log.Debug("a node does not tell what its tasks print", "node", node, "job", m.Job, "err", err)
	}
	select {
	case r.news <- tailed{node: node, anew: context.Cause(ctx) == errAnew}:
	case <-r.ctx.Done():
	}
}

// take takes in what a node tells of its running tasks.
func (r *logReader) take(t tailed) error {
	if t.frame == nil {
		if cancel := r.asking[t.node]; cancel != nil {
			cancel(nil)
			delete(r.asking, t.node)
		}
		if t.anew {
			r.ask()
			return nil
		}
		for _, l := range r.now {
			if l.node == t.node && !l.over {
				l.over, l.lost, l.since = true, true, time.Now()
			}
		}
		r.seekCopies()
		return nil
	}
	for i := range t.frame.Pieces {
		if err := r.piece(t.node, &t.frame.Pieces[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *logReader) piece(node peer.ID, p *taskPiece) error {
	ref := taskRef{p.Stage, p.Index}
	if !r.pick.has(ref.stage, ref.index) || r.ended.has(ref.stage, ref.index) {
		return nil
	}
	l := r.now[ref]
	switch {
	case l == nil && (len(r.now) >= maxTasksNow || r.of[node] >= maxTasksOf):
		return nil
	case l == nil:
		l = newLiveTask(attemptID{node, p.Began}, p.Impure)
		r.now[ref] = l
		r.of[node]++
	case l.resumed:
		a := attemptID{node, p.Began}
		if l.mark != a.mark() {
			if err := r.again(ref, l, node, p.Impure); err != nil {
				return err
			}
		}
		l.goOn(a)
		r.of[node]++
	case l.node == node && l.began == p.Began:
	case !l.over:
		if c := (attemptID{node, p.Began}); len(l.copies) < maxCopiesSeen && !slices.Contains(l.copies, c) {
			l.copies = append(l.copies, c)
		}
		return nil // one at a time is enough
	case p.Ended || !l.lost && slices.Contains(l.copies, attemptID{node, p.Began}):
		return nil // the first one's result is on its way
	default:
		if err := r.again(ref, l, node, p.Impure); err != nil {
			return err
		}
		r.of[l.node]--
		r.of[node]++
		l.goOn(attemptID{node, p.Began})
	}
	l.over, l.lost, l.since = p.Ended, false, time.Now()
	which := 0
	if p.Err {
		which = 1
	}
	s := &l.out[which]
	data := p.Data
	switch {
	case len(data) == 0:
		return nil
	case p.From < s.had:
		data = data[min(uint64(len(data)), s.had-p.From):]
	case p.From > s.had:
		if err := r.flush(ref, l, which); err != nil {
			return err
		}
		if err := r.note(ref, l.node, "%d bytes of its %s are left out: it prints faster than it is read", p.From-s.had, streamName(which)); err != nil {
			return err
		}
		s.had, s.given, s.gap = p.From, p.From, true
	}
	s.had += uint64(len(data))
	_, _ = s.sum.Write(data)
	return r.lines(ref, l, which, data, time.Unix(0, p.At).UTC())
}

// again says that a task is run by another attempt, and begins anew if that may print something else.
func (r *logReader) again(ref taskRef, l *liveTask, node peer.ID, impure bool) error {
	if l.impure = l.impure || impure || l.out[0].gap || l.out[1].gap; !l.impure { // it prints the same, or its end will tell
		if l.out[0].had+l.out[1].had == 0 {
			return nil
		}
		return r.note(ref, node, "run again, on node %s%s: it prints the same, and goes on from here", node, l.inPlace())
	}
	for i := range l.out {
		if err := r.flush(ref, l, i); err != nil {
			return err
		}
		l.out[i] = liveStream{}
	}
	return r.note(ref, node, "run again, on node %s%s: what was printed before does not count", node, l.inPlace())
}

// inPlace says whose attempt counts no longer, if that is known.
func (l *liveTask) inPlace() string {
	if l.resumed {
		return ""
	}
	return " in place of " + l.node.String()
}

// lines gives the whole lines of what a running task printed, and keeps the rest.
func (r *logReader) lines(ref taskRef, l *liveTask, which int, data []byte, at time.Time) error {
	s := &l.out[which]
	for len(data) > 0 {
		if len(s.line) == 0 {
			s.at = at
		}
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		if room := MaxLogText - len(s.line); len(line) > room {
			line, rest, whole = data[:room], data[room:], true
		}
		cut := len(rest)+len(line) == len(data) // without a newline
		s.line, data = append(s.line, line...), rest
		r.held += len(line)
		if whole || r.held > maxUnended {
			if s.given += uint64(len(s.line)); !cut {
				s.given++
			}
			r.open[ref] = l
			if err := r.line(ref, l.node.String(), which, r.cut(s), s.at, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// cut takes the last line of a stream out of it.
func (r *logReader) cut(s *liveStream) string {
	text := string(s.line)
	r.held -= len(s.line)
	s.line = nil
	return text
}

// flush gives the last line, if there is one, though it has no end.
func (r *logReader) flush(ref taskRef, l *liveTask, which int) error {
	s := &l.out[which]
	if len(s.line) == 0 {
		return nil
	}
	s.given += uint64(len(s.line))
	r.open[ref] = l
	return r.line(ref, l.node.String(), which, r.cut(s), s.at, true)
}

// last takes in what was told before the job's end, and gives the rest.
func (r *logReader) last() error {
	for {
		select {
		case t := <-r.news:
			if err := r.take(t); err != nil {
				return err
			}
		default:
			return r.rest()
		}
	}
}

// rest gives the last lines of what runs still.
func (r *logReader) rest() error {
	refs := make([]taskRef, 0, len(r.now))
	for ref := range r.now {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, func(a, b taskRef) int { return cmp.Or(cmp.Compare(a.stage, b.stage), cmp.Compare(a.index, b.index)) })
	for _, ref := range refs {
		for i := range r.now[ref].out {
			if err := r.flush(ref, r.now[ref], i); err != nil {
				return err
			}
		}
	}
	return nil
}

// end takes in a task that has ended: what was not shown while it ran is given.
func (r *logReader) end(t TaskEnd) error {
	ref := taskRef{t.Stage, t.Index}
	if !r.pick.has(ref.stage, ref.index) || r.ended.has(ref.stage, ref.index) {
		return nil
	}
	l := r.now[ref]
	delete(r.now, ref)
	begun := &liveTask{mark: markOf(t.Node, t.Started.UnixNano())}
	if l != nil {
		if !l.resumed {
			if r.of[l.node]--; r.of[l.node] == 0 {
				delete(r.of, l.node)
			}
		}
		same := l.mark == begun.mark
		if !same && !t.Impure && !l.impure {
			var err error
			if same, err = r.begins(&t, l); err != nil {
				return err
			}
		}
		switch {
		case same:
			for i := range l.out {
				r.held -= len(l.out[i].line)
			}
			begun.out = l.out
		case l.out[0].had+l.out[1].had > 0:
			for i := range l.out {
				if err := r.flush(ref, l, i); err != nil {
					return err
				}
			}
			if err := r.noteOf(ref, t.Node, "run by another attempt, on node %s: what was shown before does not count", t.Node); err != nil {
				return err
			}
		}
	}
	for i, o := range [2]*TaskOutput{&t.Stdout, &t.Stderr} {
		if err := r.output(ref, &t, i, o, begun); err != nil {
			return err
		}
	}
	delete(r.open, ref)
	r.ended.add(ref.stage, ref.index)
	return nil
}

// begins reports whether what a task printed begins with what was shown of it, on the word of another attempt. What cannot be read does not.
func (r *logReader) begins(t *TaskEnd, l *liveTask) (bool, error) {
	for i, o := range [2]*TaskOutput{&t.Stdout, &t.Stderr} {
		s := &l.out[i]
		if s.had == 0 {
			continue
		}
		src := io.Reader(bytes.NewReader(o.Data))
		if o.CID.Defined() {
			file, err := r.n.openOutput(r.ctx, o, 0)
			if err != nil {
				return false, context.Cause(r.ctx)
			}
			defer file.Close()
			src = file
		}
		if ok, err := s.begins(src, uint64(o.Size)); !ok || err != nil {
			return false, context.Cause(r.ctx)
		}
	}
	return true, nil
}

// Ended is when the guest of a task ended, by the clock of its node.
func (t *TaskEnd) Ended() time.Time {
	p := &t.Phases
	return t.Started.Add(p.Fetch + p.Compile + p.Queue + p.Start + p.Run + p.Parked)
}

// output gives what a task that has ended printed to one stream, behind what was shown of it.
func (r *logReader) output(ref taskRef, t *TaskEnd, which int, o *TaskOutput, l *liveTask) error {
	begun := &l.out[which]
	if len(begun.line) == 0 && uint64(o.Size) <= begun.had || !r.wants(which, t.Node, t.Ended()) {
		return nil
	}
	src := io.Reader(bytes.NewReader(o.Data[min(uint64(len(o.Data)), begun.had):]))
	if o.CID.Defined() && uint64(o.Size) > begun.had {
		file, err := r.n.openOutput(r.ctx, o, int64(begun.had))
		if err != nil {
			return r.unread(ref, t, which, err)
		}
		defer file.Close()
		src = file
	}
	in, line := bufio.NewReaderSize(src, int(min(tailPiece, uint64(o.Size)-min(uint64(o.Size), begun.had)))), begun.line
	give := func(text string, bytes int) error {
		begun.given += uint64(bytes)
		r.open[ref] = l
		return r.line(ref, t.Node, which, text, t.Ended(), false)
	}
	for {
		part, err := in.ReadSlice('\n')
		ended := err == nil
		if err == bufio.ErrBufferFull {
			err = nil
		}
		part = bytes.TrimSuffix(part, []byte{'\n'})
		for len(line)+len(part) > MaxLogText {
			room := MaxLogText - len(line)
			if err := give(string(line)+string(part[:room]), MaxLogText); err != nil {
				return err
			}
			line, part = line[:0], part[room:]
		}
		line = append(line, part...)
		if ended || err == io.EOF && len(line) > 0 {
			end := 0 // of the line
			if ended {
				end = 1
			}
			if err := give(string(line), len(line)+end); err != nil {
				return err
			}
			line = line[:0]
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return r.unread(ref, t, which, err)
		}
	}
}

// openOutput opens what a task printed, from a place on. What is not here is fetched as it is read.
func (n *Node) openOutput(ctx context.Context, o *TaskOutput, from int64) (io.ReadCloser, error) {
	files, err := n.Reading(ctx, o.CID.Cid)
	if err != nil {
		return nil, err
	}
	file, err := files.Open(ctx, o.CID.Cid)
	if err != nil {
		return nil, err
	}
	if from > 0 {
		if _, err := file.Seek(from, io.SeekStart); err != nil {
			file.Close()
			return nil, err
		}
	}
	return file, nil
}

// unread says that something cannot be read. That of others may be.
func (r *logReader) unread(ref taskRef, t *TaskEnd, which int, err error) error {
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	return r.noteOf(ref, t.Node, "its %s cannot be read: %s", streamName(which), clean(err.Error(), maxMessage))
}

// wants reports whether lines of a stream, of a node and of a time are wanted.
func (r *logReader) wants(which int, node string, at time.Time) bool {
	return (r.q.Stream == "" || r.q.Stream == streamName(which)) && (r.q.Node == "" || r.q.Node == node) && !at.Before(r.q.Since)
}

// line gives a line, if it is wanted.
func (r *logReader) line(ref taskRef, node string, which int, text string, at time.Time, live bool) error {
	if !r.wants(which, node, at) || r.pattern != nil && !r.pattern.MatchString(text) {
		return nil
	}
	return r.give(LogLine{At: at, Stage: ref.stage, Task: ref.index, Node: node, Stream: streamName(which), Text: text, Live: live})
}

func (r *logReader) note(ref taskRef, node peer.ID, format string, args ...any) error {
	return r.noteOf(ref, node.String(), format, args...)
}

// noteOf gives a line of the grid's own about a task.
func (r *logReader) noteOf(ref taskRef, node, format string, args ...any) error {
	if r.q.Stream != "" || r.q.Node != "" && r.q.Node != node {
		return nil
	}
	return r.give(LogLine{At: time.Now().UTC(), Stage: ref.stage, Task: ref.index, Node: node, Stream: StreamNote, Text: fmt.Sprintf(format, args...)})
}

func (r *logReader) give(l LogLine) error {
	l.Text = strings.ToValidUTF8(l.Text, "\uFFFD")
	r.given++
	if r.q.Places {
		l.Place = r.place()
	}
	if err := r.f(l); err != nil {
		return err
	}
	if r.q.Limit > 0 && r.given >= r.q.Limit {
		return errEnough
	}
	return nil
}
