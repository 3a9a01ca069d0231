package grid

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// maxEventText bounds what one event says, in bytes.
const maxEventText = 512

// story is what happened to a job: the last MaxJobEvents events, the oldest first, each at a time of its own. Of what happened
// with earlier owners it has what they saved with their last checkpoint. It is guarded by the job's mu.
type story struct {
	events []JobEvent
	lost   int // how many came before these
}

func (s *story) add(ev JobEvent, now time.Time) JobEvent {
	ev.At = now.UTC().Round(0)
	if k := len(s.events); k > 0 && !ev.At.After(s.events[k-1].At) {
		ev.At = s.events[k-1].At.Add(1)
	}
	ev.Text = clean(ev.Text, maxEventText)
	if len(s.events) >= MaxJobEvents {
		s.events = slices.Delete(s.events, 0, 1)
		s.lost++
	}
	s.events = append(s.events, ev)
	return ev
}

// fit makes an event that another node tells fit to be kept and shown, with an owner no later than the one that tells it.
func (ev *JobEvent) fit(last Epoch) {
	ev.Kind, ev.Text, ev.Epoch = EventKind(clean(string(ev.Kind), maxEventWord)), clean(ev.Text, maxEventText), min(ev.Epoch, last)
	if len(ev.Node) > maxPeerID {
		ev.Node = ""
	}
	if y := ev.At.UTC().Year(); y < 1970 || y > 9999 { // which JSON cannot tell
		ev.At = time.Unix(0, 0).UTC()
	}
}

// recall puts what earlier owners have told before what is there. Their clocks may be ahead.
func (s *story) recall(old []JobEvent, lost int, last Epoch) {
	old = slices.Clone(old[max(0, len(old)-MaxJobEvents):])
	for i := len(old) - 1; i >= 0; i-- {
		old[i].fit(last)
		next := time.Time{}
		if i+1 < len(old) {
			next = old[i+1].At
		} else if len(s.events) > 0 {
			next = s.events[0].At
		}
		if !next.IsZero() && !old[i].At.Before(next) {
			old[i].At = next.Add(-1)
		}
	}
	all := append(old, s.events...)
	drop := max(0, len(all)-MaxJobEvents)
	s.events, s.lost = all[drop:], s.lost+drop+max(0, lost)
}

// since lists the events after a time. If some of them are not kept, the first says so.
func (s *story) since(at time.Time) []JobEvent {
	from := len(s.events)
	for from > 0 && s.events[from-1].At.After(at) {
		from--
	}
	list := slices.Clone(s.events[from:])
	if from > 0 || s.lost <= 0 || len(list) == 0 {
		return list
	}
	forgotten := JobEvent{At: list[0].At.Add(-1), Kind: EventForgotten, Epoch: list[0].Epoch, Text: fmt.Sprintf("%d earlier events are not kept", s.lost)}
	if !forgotten.At.After(at) {
		return list
	}
	return append([]JobEvent{forgotten}, list...)
}

// tell adds an event to a job's story.
func (j *job) tell(ev JobEvent) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.tellLocked(ev)
}

// tellLocked is tell; j.mu is held.
func (j *job) tellLocked(ev JobEvent) {
	ev.Epoch = j.rec.Epoch
	ev = j.story.add(ev, time.Now())
	switch ev.Kind {
	case EventStarted, EventStage, EventSpawned, EventPolicy: // the next owner finds that out by itself
	default:
		j.saves.happened()
	}
	if j.noticed != nil {
		j.noticed(&ev)
	}
	j.touch()
}

// begin is the first event with a new owner.
func (j *job) begin() JobEvent {
	rec := &j.rec
	ev := JobEvent{Kind: EventStarted, Node: rec.Owner, Text: "accepted"}
	if rec.Durable > 1 {
		ev.Text = fmt.Sprintf("accepted; its program and inputs are kept on %d nodes", rec.Durable)
	}
	if rec.Epoch > 1 {
		ev.Text = fmt.Sprintf("taken over: this is its owner number %d", rec.Epoch)
	}
	if rec.Deadline > 0 {
		ev.Text += fmt.Sprintf("; it is to have ended by %s", rec.Submitted.Add(rec.Deadline).UTC().Format(time.RFC3339))
	}
	return ev
}

// stageBegan and stageEnded tell of a stage's tasks. j.mu is held.
func (j *job) stageBegan(stage uint32) {
	st := &j.stages[stage]
	st.began = time.Now()
	j.tellLocked(JobEvent{Kind: EventStage, Stage: stage, Text: fmt.Sprintf("%s began, with %s", st.status.Name, plural(int(st.status.Tasks), "task"))})
}

func (j *job) stageEnded(stage uint32) {
	j.stages[stage].ended = time.Now()
	st := &j.stages[stage].status
	text := fmt.Sprintf("%s ended: %d of %s well", st.Name, st.Done, plural(int(st.Tasks), "task"))
	if st.Cached > 0 {
		text += fmt.Sprintf(", %d known from before", st.Cached)
	}
	if st.Failed > 0 {
		text += fmt.Sprintf(", %d failed", st.Failed)
	}
	j.tellLocked(JobEvent{Kind: EventStage, Stage: stage, Text: text})
	if st.Spawned > 0 {
		j.tellLocked(JobEvent{Kind: EventSpawned, Stage: stage, Text: fmt.Sprintf("%s's tasks have spawned %s, with what those spawned in turn", st.Name, plural(int(st.Spawned), "task"))})
	}
}

// endEvent says how a job ended.
func endEvent(state State, why error, at time.Time) JobEvent {
	ev := JobEvent{At: at.UTC().Round(0), Kind: EventEnded, Text: string(state)}
	if why != nil {
		ev.Text += ": " + why.Error()
	}
	ev.Text = clean(ev.Text, maxEventText)
	return ev
}

// whole is the story, with its end, for the job's result.
func (j *job) whole(state State, why error) []JobEvent {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := j.story.since(time.Time{})
	end := endEvent(state, why, time.Now())
	end.Epoch = j.rec.Epoch
	if k := len(list); k > 0 && !end.At.After(list[k-1].At) {
		end.At = list[k-1].At.Add(1)
	}
	return append(list, end)
}

// note takes in what the scheduler tells of a job. The reason of a host's failure is only known here.
func (n *Node) note(e Note) {
	if e.Event.Kind == EventAccused && e.Event.Node != "" {
		n.accused.note(e.Event.Node, e.Event.Text)
	}
	if e.Event.Kind == EventLost {
		n.measures.Leases[leaseLost].Add(1)
	}
	j := n.job(e.Job)
	if j == nil {
		return
	}
	ev := e.Event
	j.mu.Lock()
	defer j.mu.Unlock()
	if int(ev.Stage) >= len(j.stages) {
		ev.Stage = 0
	}
	switch ref := (taskRef{ev.Stage, ev.Tasks.Lo}); ev.Kind {
	case EventRetry:
		if f, ok := j.troubles[ref]; ok {
			ev.Text += ": " + f.Message
		}
	case EventFailed:
		if why := j.failure(ref); why != "" {
			ev.Text += ": " + why
		}
	}
	j.tellLocked(ev)
}

// failure says how a task failed for good, as far as that is known: by its own fault, or the last node's. j.mu is held.
func (j *job) failure(ref taskRef) string {
	if r := j.stages[ref.stage].results; int(ref.index) < len(r) && r[ref.index] != nil {
		var c Completion
		switch err := Unmarshal(r[ref.index], &c); {
		case err != nil:
			return ""
		case c.Receipt.Fault != nil:
			return c.Receipt.Fault.Message
		}
		return fmt.Sprintf("exit code %d", c.Receipt.Exit)
	}
	return j.troubles[ref].Message
}

// maxEventList is how many events are believed to be in one list.
const maxEventList = MaxJobEvents + 2

// Events calls f for each event of a job that is kept, the oldest first; with follow also for those to come, until
// the job has ended. While it runs they are with its owner; a new one knows of those before what was saved with the last checkpoint. An
// error of f ends it.
func (n *Node) Events(ctx context.Context, id JobID, follow bool, f func(JobEvent) error) error {
	j, rec, err := n.find(ctx, id)
	if err != nil {
		return err
	}
	t := &teller{n: n, f: f, follow: follow}
	switch {
	case j == nil && (rec.State.Final() || n.Bound):
		return t.final(ctx, &rec)
	case follow:
		return n.attend(ctx, j, rec, t)
	}
	return n.once(ctx, j, rec, t)
}

// teller gives the events of a job, each once.
type teller struct {
	n      *Node
	f      func(JobEvent) error
	follow bool

	epoch Epoch     // of the owner who told the last one given
	last  time.Time // of that
}

// give gives those that are later than the last one: of a later owner, or of the same one and at a later time.
func (t *teller) give(owner Epoch, events []JobEvent) error {
	if len(events) > maxEventList {
		return Errorf(Invalid, "%d events of a job that keeps %d", len(events), MaxJobEvents)
	}
	for _, ev := range events {
		ev.fit(owner)
		if ev.Epoch < t.epoch || ev.Epoch == t.epoch && !ev.At.After(t.last) {
			continue
		}
		t.epoch, t.last = ev.Epoch, ev.At
		if err := t.f(ev); err != nil {
			return stopped{err}
		}
	}
	return nil
}

func (t *teller) here(ctx context.Context, j *job) (done bool, err error) {
	for {
		j.mu.Lock()
		rec, changed := j.rec, j.changed
		last := t.last
		if t.epoch != rec.Epoch {
			last = time.Time{}
		}
		events := j.story.since(last)
		j.mu.Unlock()
		if err := t.give(rec.Epoch, events); err != nil {
			return false, err
		}
		if rec.State.Final() {
			return true, t.final(ctx, &rec)
		}
		if !t.follow {
			return true, nil
		}
		if _, err := t.n.settle(ctx, j, changed, quietCheck); err != nil || !t.n.runs(j) {
			return false, err
		}
	}
}

func (t *teller) there(ctx context.Context, rec *Record) error {
	m := &followMsg{Job: rec.ID, Epoch: t.epoch, Follow: t.follow}
	if !t.last.IsZero() {
		m.From = uint64(t.last.UnixNano())
	}
	return t.n.followOwner(ctx, rec.Owner, protoEvents, m, func(fr *followFrame) error {
		if fr.Epoch == 0 {
			return nil // a sign of life, or the end
		}
		if fr.Epoch < rec.Epoch {
			return errElsewhere // it was, before
		}
		return t.give(fr.Epoch, fr.Events)
	})
}

func (t *teller) waits(context.Context, *Record, string) error { return nil }

// final gives what is left: the story is with the result, if the job's owner ended it.
func (t *teller) final(ctx context.Context, rec *Record) error {
	if !rec.State.Final() {
		return nil
	}
	var why error
	if rec.Error != "" {
		why = Errorf(rec.Code, "%s", rec.Error)
	}
	end := endEvent(rec.State, why, rec.Ended)
	end.Epoch = rec.Epoch
	events, err := t.n.storedEvents(ctx, rec)
	if err != nil {
		return Errorf(CodeOf(err), "events of job %s: %w", rec.ID, err)
	}
	if len(events) == 0 || events[len(events)-1].Kind != EventEnded { // it was ended without its owner
		last := t.last
		if k := len(events); k > 0 && events[k-1].At.After(last) {
			last = events[k-1].At
		}
		if !end.At.After(last) {
			end.At = last.Add(1) // by another clock than the owner's
		}
		events = append(events, end)
	}
	return unstop(t.give(rec.Epoch, events))
}

// storedEvents reads the story of a job that has ended from its result, or from what its last owner saved of it.
func (n *Node) storedEvents(ctx context.Context, rec *Record) ([]JobEvent, error) {
	root := rec.Result
	if !root.Defined() {
		if root = rec.Checkpoint; !root.Defined() {
			return nil, nil
		}
	}
	data, err := n.block(ctx, root.Cid, n.keepers(ctx, rec, root)...)
	if err != nil {
		return nil, err
	}
	if rec.Result.Defined() {
		var res Result
		err = UnmarshalMessage(data, &res)
		return res.Events, asCorrupt(err)
	}
	var c Checkpoint
	err = UnmarshalMessage(data, &c)
	s := story{events: c.Events, lost: c.Forgotten}
	return s.since(time.Time{}), asCorrupt(err)
}

func asCorrupt(err error) error {
	if err == nil {
		return nil
	}
	return Errorf(Corrupt, "%w", err)
}

// feedEvents sends the events of a job to another node.
func (n *Node) feedEvents(ctx context.Context, out *feed, j *job, m *followMsg) error {
	var last time.Time
	first := true
	for {
		j.mu.Lock()
		epoch, changed, final := j.rec.Epoch, j.changed, j.rec.State.Final()
		if first && m.Epoch == epoch && m.From > 0 {
			last = time.Unix(0, int64(m.From))
		}
		events := j.story.since(last)
		j.mu.Unlock()
		if len(events) > 0 || first {
			first = false
			if err := out.send(&followFrame{Epoch: epoch, Events: events}); err != nil {
				return err
			}
		}
		if k := len(events); k > 0 {
			last = events[k-1].At
		}
		if final || !n.runs(j) {
			return out.send(&followFrame{End: true, Over: !final})
		}
		if !m.Follow {
			return out.send(&followFrame{End: true})
		}
		news, err := n.settle(ctx, j, changed, followBeat)
		if err != nil {
			return err
		}
		if !news {
			if err := out.send(&followFrame{}); err != nil {
				return err
			}
		}
	}
}
