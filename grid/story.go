package grid

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// maxEventText bounds what one event says, in bytes.
const maxEventText = 512

// story is what happened to a job while this node owned it: the last MaxJobEvents events, the oldest first, each at a
// time of its own. It is guarded by the job's mu.
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

// since lists the events after a time. If some of them are not kept, the first says so.
func (s *story) since(at time.Time) []JobEvent {
	from := len(s.events)
	for from > 0 && s.events[from-1].At.After(at) {
		from--
	}
	list := slices.Clone(s.events[from:])
	if from > 0 || s.lost == 0 {
		return list
	}
	forgotten := JobEvent{At: list[0].At.Add(-1), Kind: EventForgotten, Text: fmt.Sprintf("%d earlier events are not kept", s.lost)}
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
	ev = j.story.add(ev, time.Now())
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
		ev.Text = fmt.Sprintf("accepted; %d nodes have all it needs", rec.Durable)
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
// the job has ended. While it runs they are with its owner: a new one begins anew. An error of f ends it.
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

	epoch Epoch
	last  time.Time // of the last one given of this epoch
}

func (t *teller) give(epoch Epoch, events []JobEvent) error {
	if len(events) > maxEventList {
		return Errorf(Invalid, "%d events of a job that keeps %d", len(events), MaxJobEvents)
	}
	if t.epoch != epoch {
		t.epoch, t.last = epoch, time.Time{}
	}
	for _, ev := range events {
		if !ev.At.After(t.last) {
			continue
		}
		t.last = ev.At
		ev.Text = clean(ev.Text, maxEventText)
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
	events := []JobEvent{endEvent(rec.State, why, rec.Ended)}
	if rec.Result.Defined() {
		data, err := t.n.block(ctx, rec.Result.Cid, t.n.keepers(ctx, rec, rec.Result)...)
		if err != nil {
			return Errorf(CodeOf(err), "events of job %s: %w", rec.ID, err)
		}
		var res Result
		if err := UnmarshalMessage(data, &res); err != nil {
			return Errorf(Corrupt, "events of job %s: %w", rec.ID, err)
		}
		if len(res.Events) > 0 {
			events = res.Events
		}
	} else if rec.Epoch == t.epoch && !events[0].At.After(t.last) {
		events[0].At = t.last.Add(1) // by another clock than the owner's
	}
	return unstop(t.give(rec.Epoch, events))
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
