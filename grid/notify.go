package grid

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	// noticeRoom is how many events may wait for one notifier.
	noticeRoom = 1024
	// noticePause is how long a notifier is left alone after it has failed for the first time; four times as long after
	// each more, noticeMost at most.
	noticePause = 200 * time.Millisecond
	noticeMost  = 30 * time.Second
	// noticeLast is how long a node that closes waits until its notifiers have taken what waits for them.
	noticeLast = 5 * time.Second
)

// noticeQueue is what waits for one notifier, in order. Its goroutine hands one at a time over.
type noticeQueue struct {
	cancel  context.CancelFunc
	ctx     context.Context
	waiting chan Notice
	idle    chan struct{} // holds something while nothing waits or is being handed over
	left    int           // guarded by the mutex of extensions
}

// noticed tells notifiers of an event of a job, without waiting for them. j.mu is held.
func (n *Node) noticed(j *job, ev *JobEvent) {
	if j.batch != nil {
		return
	}
	n.happenedTo(j.rec.ID, j.spec.Name, ev)
	name := noticeOf(ev, j.rec.Epoch)
	if name == "" {
		return
	}
	stage := ""
	if ev.HasStage() && int(ev.Stage) < len(j.spec.Stages) {
		stage = j.spec.Stages[ev.Stage].Name
	}
	n.notify(j, name, stage, ev.Text, ev.At)
}

// noticedEnd tells notifiers how a job has ended. j.mu is held.
func (n *Node) noticedEnd(j *job) {
	end := endEvent(j.rec.State, nil, j.rec.Ended)
	if j.rec.Error != "" {
		end.Text += ": " + j.rec.Error
	}
	n.happenedTo(j.rec.ID, j.spec.Name, &end)
	name := map[State]string{Done: NoticeDone, Failed: NoticeFailed, Cancelled: NoticeCancelled}[j.rec.State]
	n.notify(j, name, "", clean(end.Text, maxEventText), end.At)
}

func (n *Node) notify(j *job, event, stage, text string, at time.Time) {
	xs := &n.extensions
	xs.mu.Lock()
	defer xs.mu.Unlock()
	var to []string
	for key, x := range xs.byKey {
		if x.Role == RoleNotifier && slices.Contains(x.Events, event) {
			to = append(to, key)
		}
	}
	if len(to) == 0 {
		return
	}
	j.notices++
	notice := Notice{
		Version: ExtensionVersion, ID: fmt.Sprintf("%s/%d/%d", j.rec.ID, j.rec.Epoch, j.notices), Event: event, Time: at.UTC().Format(time.RFC3339Nano),
		Node: n.self.String(), Job: string(j.rec.ID), Name: j.spec.Name, User: j.rec.User, State: string(j.rec.State), Stage: stage, Text: text,
	}
	for _, key := range to {
		n.queue(key, notice)
	}
}

// queue puts a notice behind others. The mutex of extensions is held.
func (n *Node) queue(key string, notice Notice) {
	xs := &n.extensions
	q := xs.queues[key]
	if q == nil {
		if n.ctx.Err() != nil {
			return
		}
		q = &noticeQueue{waiting: make(chan Notice, noticeRoom), idle: make(chan struct{}, 1)}
		q.ctx, q.cancel = context.WithCancel(n.ctx)
		if xs.queues == nil {
			xs.queues = make(map[string]*noticeQueue)
		}
		xs.queues[key] = q
		n.spawn(func() { n.notifier(key, q) })
	}
	select {
	case q.waiting <- notice:
		q.left++
	default:
		c := xs.countsOf(key)
		if c.Dropped++; c.Dropped%noticeRoom == 1 { // a log that is full of them helps nobody
			n.log.Warn("events are dropped, as too many wait for a notifier", "notifier", key, "waiting", noticeRoom, "event", notice.ID, "dropped", c.Dropped)
		}
	}
}

// notifier hands over what waits for a notifier until that is detached, or the node closes.
func (n *Node) notifier(key string, q *noticeQueue) {
	defer q.cancel()
	for {
		select {
		case notice := <-q.waiting:
			n.handOver(q.ctx, key, &notice)
			n.extensions.mu.Lock()
			q.left--
			n.extensions.mu.Unlock()
			select {
			case q.idle <- struct{}{}:
			default:
			}
		case <-q.ctx.Done():
			return
		}
	}
}

// handOver tells a notifier of one event, some times if need be.
func (n *Node) handOver(ctx context.Context, key string, notice *Notice) {
	pause := noticePause
	for try := uint32(1); ; try++ {
		x := n.extensions.get(key)
		if x == nil || ctx.Err() != nil {
			return
		}
		_, err := n.extend(ctx, x, notice)
		if err == nil {
			return
		}
		if try < x.Tries && ctx.Err() == nil {
			if pauseFor(ctx, pause) {
				pause = min(4*pause, noticeMost)
				continue
			}
		}
		n.extensions.counted(key, func(c *ExtensionCounts) { c.Dropped++ })
		n.log.Warn("an event is dropped, as its notifier did not take it", "notifier", key, "event", notice.Event, "id", notice.ID, "tries", try, "err", err)
		return
	}
}

// lastNotices waits until notifiers have taken what waits for them, but not for long.
func (n *Node) lastNotices() {
	deadline := time.NewTimer(noticeLast)
	defer deadline.Stop()
	for {
		var busy *noticeQueue
		n.extensions.mu.Lock()
		left := 0
		for _, q := range n.extensions.queues {
			if left += q.left; q.left > 0 {
				busy = q
			}
		}
		n.extensions.mu.Unlock()
		if busy == nil {
			return
		}
		select {
		case <-busy.idle:
		case <-busy.ctx.Done():
		case <-deadline.C:
			n.log.Warn("events are dropped, as the node closes", "events", left)
			return
		}
	}
}
