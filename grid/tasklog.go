package grid

import (
	"bytes"
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// protoTaskLog is how a node of the realm is told what running tasks print on another one: a stream, taskLogMsg, then
// taskLogFrames. A task's whole output is with its node while it runs, in memory; nothing is done for it as long as nobody asks.
const protoTaskLog Protocol = "task-log/1"

type (
	taskLogMsg struct {
		Job    JobID   `cbor:"job"`
		Stage  *uint32 `cbor:"stage,omitempty"` // only of these
		Task   *uint32 `cbor:"task,omitempty"`
		Follow bool    `cbor:"follow,omitempty"` // go on until the asker hangs up; else what is there now
	}
	// taskLogFrame is one item of the stream; without any field it is a sign of life. An error ends the stream, as a
	// followFrame.
	taskLogFrame struct {
		Pieces  []taskPiece `cbor:"pieces,omitempty"`
		End     bool        `cbor:"end,omitempty"`
		Code    Code        `cbor:"code,omitempty"`
		Message string      `cbor:"message,omitempty"`
	}
	// taskPiece is a piece of what an attempt wrote. The node and the time at which the attempt began name it.
	taskPiece struct {
		Stage  uint32 `cbor:"stage"`
		Index  uint32 `cbor:"index"`
		Began  int64  `cbor:"began"`
		Impure bool   `cbor:"impure,omitempty"`
		Err    bool   `cbor:"err,omitempty"` // of standard error
		From   uint64 `cbor:"from"`          // what it wrote before; what is between two pieces was left out
		At     int64  `cbor:"at,omitempty"`  // when it was written
		Data   []byte `cbor:"data,omitempty"`
		Ended  bool   `cbor:"ended,omitempty"` // the attempt has ended; this is its last piece
	}
)

// Bounds on what is told of running tasks.
const (
	tailEvery  = 200 * time.Millisecond // how often it is looked for more
	tailPiece  = 64 << 10               // bytes of one piece
	tailFrame  = 256 << 10              // bytes that are worth a frame
	tailPieces = 512                    // of one frame
	// A reader who is more than tailBehind bytes behind in a stream goes on tailKept bytes from its end.
	tailBehind = 1 << 20
	tailKept   = 64 << 10
	// maxTailLine is how far it is looked for the beginning of a line there.
	maxTailLine = 4 << 10
)

// tailing is how far a reader is with one attempt.
type tailing struct {
	a        *attempt
	out, err int
	told     bool // that there is such an attempt
}

// tail tells what the attempts of a job that run here print, each from its beginning. send may wait, and is told less then; it may
// keep the frames.
func (n *Node) tail(ctx context.Context, m *taskLogMsg, send func(*taskLogFrame) error) error {
	known := make(map[*attempt]*tailing)
	beat := time.Now()
	for {
		running := n.attempts.shown(m)
		var all []*tailing
		for _, a := range running {
			if known[a] == nil {
				known[a] = &tailing{a: a}
			}
			all = append(all, known[a])
		}
		current := make(map[*attempt]struct{}, len(running))
		for _, a := range running {
			current[a] = struct{}{}
		}
		for a, t := range known {
			if _, runs := current[a]; !runs {
				delete(known, a)
				all = append(all, t)
			}
		}
		fr, size := new(taskLogFrame), 0
		flush := func(least int) error {
			if len(fr.Pieces) == 0 || size < least && len(fr.Pieces) < tailPieces {
				return nil
			}
			err := send(fr)
			fr, size, beat = new(taskLogFrame), 0, time.Now()
			return err
		}
		for _, t := range all {
			_, runs := current[t.a]
			for more, sent := true, 0; more && (sent < tailBehind || !runs); { // then it is another one's turn
				var p taskPiece
				if p, more = t.next(); more {
					fr.Pieces = append(fr.Pieces, p)
					size += len(p.Data)
					sent += len(p.Data)
				}
				if err := flush(tailFrame); err != nil {
					return err
				}
			}
			if !runs {
				fr.Pieces = append(fr.Pieces, t.a.piece(true))
				if err := flush(tailFrame); err != nil {
					return err
				}
			}
		}
		if err := flush(0); err != nil {
			return err
		}
		if !m.Follow {
			return send(&taskLogFrame{End: true})
		}
		if time.Since(beat) >= followBeat {
			if err := send(&taskLogFrame{}); err != nil {
				return err
			}
			beat = time.Now()
		}
		timer := time.NewTimer(tailEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// piece begins a piece of the attempt.
func (a *attempt) piece(ended bool) taskPiece {
	return taskPiece{Stage: a.stage, Index: a.index, Began: a.began.UnixNano(), Impure: a.impure, Ended: ended}
}

// next is the next piece that the reader has not had; first, that there is such an attempt. It is false when there is none now.
func (t *tailing) next() (taskPiece, bool) {
	p := t.a.piece(false)
	if !t.told {
		t.told = true
		return p, true
	}
	for _, s := range []struct {
		of  *tape
		had *int
		err bool
	}{{&t.a.out, &t.out, false}, {&t.a.err, &t.err, true}} {
		if behind := s.of.size() - *s.had; behind > tailBehind {
			*s.had += behind - tailKept
			if data, _, _ := s.of.read(*s.had, maxTailLine); bytes.IndexByte(data, '\n') >= 0 {
				*s.had += bytes.IndexByte(data, '\n') + 1
			}
		}
		data, at, _ := s.of.read(*s.had, tailPiece)
		if len(data) == 0 {
			continue
		}
		p.Err, p.From, p.Data, p.At = s.err, uint64(*s.had), data, at.UnixNano()
		*s.had += len(data)
		return p, true
	}
	return p, false
}

// shown lists a job's attempts that may be looked at.
func (r *attempts) shown(m *taskLogMsg) (list []*attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for a := range r.list {
		if a.job == m.Job && !a.hidden && (m.Stage == nil || *m.Stage == a.stage) && (m.Task == nil || *m.Task == a.index) {
			list = append(list, a)
		}
	}
	return list
}

// feedTaskLog serves one stream.
func (n *Node) feedTaskLog(ctx context.Context, from peer.ID, out *feed) error {
	var m taskLogMsg
	leave, err := n.admitReader(ctx, from, out, &m)
	if err != nil {
		return err
	}
	defer leave()
	return n.tail(ctx, &m, func(fr *taskLogFrame) error { return out.send(fr) })
}

// check refuses a frame that no honest node sends.
func (fr *taskLogFrame) check() error {
	if len(fr.Pieces) > 2*tailPieces {
		return Errorf(Invalid, "%d pieces of output in one frame", len(fr.Pieces))
	}
	for i := range fr.Pieces {
		if p := &fr.Pieces[i]; p.Stage >= MaxStages || p.Index >= MaxTasks || p.From > 1<<62 {
			return Errorf(Invalid, "a piece of output of task %d of stage %d, from byte %d", p.Index, p.Stage, p.From)
		}
	}
	return nil
}
