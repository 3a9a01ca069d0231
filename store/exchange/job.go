package exchange

import (
	"bufio"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

const (
	parcelBytes = 128 << 10 // frames are verified and taken in so many bytes, or
	parcelItems = 512       // so many frames at a time, when they come fast
	parcelQueue = 8         // parcels of one stream that wait for verification
	inlineBytes = 16 << 10  // so little is verified without a goroutine of its own
	openTime    = 5 * time.Second
)

// job is one request to one node and its answer: a stream. Fields without a comment on who uses them belong
// to the transfer's goroutine.
type job struct {
	p      *provider
	mode   mode
	cancel context.CancelFunc
	enough context.CancelFunc // asks the node to stop
	began  time.Time

	last   atomic.Int64 // when something came, as UnixNano; set by the reader
	paused atomic.Bool  // the reader waits for memory: it is we who are slow

	named     map[*node]struct{}   // asked for by name, and not answered
	told      map[cid.Cid]struct{} // what it has said is missing, or sent although it was here
	batch     int                  // how many were named
	open      int                  // in modeBlocks: how many of those named are still wanted
	contested int                  // in modeDAG: blocks it could send that others are asked for
	bytes     int                  // of blocks that came
	vain      int                  // blocks that came and were not
	wasted    int                  // bytes of those
	stopped   bool                 // it was asked to stop
	overtaken bool                 // all of it came from others, and it was cancelled
	refused   bool                 // the node said so
	reached   bool                 // the node was; set by the job's goroutine before it tells of anything
	err       error                // why it was cancelled: what it did wrong
}

// parcel is some frames of one stream, in their order.
type parcel struct {
	frames []arrival
	size   int
	ready  chan struct{} // closed when they are verified; nil: the receiver verifies them
}

// arrival is a frame and what is found out about it on the way.
type arrival struct {
	frame
	held  int64 // of the transfer's memory
	block grid.Block
	bad   error
	links []cid.Cid
	loose error // why the links cannot be found
}

// event is what a job tells its transfer: a parcel, or its end.
type event struct {
	job    *job
	parcel *parcel
	err    error
}

// start makes a request. The job's goroutine ends after the event without a parcel.
func (t *transfer) start(p *provider, m mode, nodes []*node) *job {
	now := t.x.now()
	j := &job{p: p, mode: m, began: now, batch: len(nodes), named: make(map[*node]struct{}, len(nodes)), told: map[cid.Cid]struct{}{}}
	j.last.Store(now.UnixNano())
	req := request{mode: m}
	for _, n := range nodes {
		j.named[n] = struct{}{}
		req.cids = append(req.cids, n.cid)
		if m == modeBlocks {
			t.assign(n, j)
		}
	}
	ctx, cancel := context.WithCancel(t.ctx)
	enough, stop := context.WithCancel(ctx)
	j.cancel, j.enough = cancel, stop
	t.jobs = append(t.jobs, j)
	p.jobs++
	t.x.stats.requests.Add(1)
	t.x.wg.Go(func() {
		defer cancel()
		s, err := t.stream(ctx, enough, j, req)
		t.events <- event{job: j, err: err}
		if s != nil {
			_ = s.Close()
		}
	})
	return j
}

// stream carries out a job. When all went well it returns the stream, which is to be closed.
func (t *transfer) stream(ctx, enough context.Context, j *job, req request) (grid.Stream, error) {
	opening, cancel := context.WithTimeout(ctx, openTime)
	s, err := t.x.net.Open(opening, j.p.id, Protocol)
	cancel()
	if err != nil {
		return nil, err
	}
	j.reached = true
	free := context.AfterFunc(ctx, func() { _ = s.Reset() }) // also frees the reader
	_ = s.SetDeadline(t.x.now().Add(frameTime))
	said := make(chan struct{})
	t.x.wg.Go(func() { // a server may refuse before it has read
		defer close(said)
		if _, err := s.Write(req.encode()); err != nil {
			_ = s.Reset()
		}
	})
	deaf := context.AfterFunc(enough, func() {
		if <-said; ctx.Err() == nil {
			_ = s.CloseWrite()
		}
	})
	parcels := make(chan *parcel, parcelQueue)
	var failed error
	go func() {
		defer close(parcels)
		failed = t.read(ctx, j, s, parcels)
	}()
	for p := range parcels {
		if p.ready == nil {
			t.verify(p)
		} else {
			<-p.ready
		}
		t.events <- event{job: j, parcel: p}
	}
	deaf()
	if failed != nil || !free() {
		_ = s.Reset()
		return nil, errors.Join(failed, ctx.Err())
	}
	return s, nil
}

// read takes frames from a stream until the last one, keeping the time and the bound of memory, and hands
// them on in parcels.
func (t *transfer) read(ctx context.Context, j *job, s grid.Stream, parcels chan<- *parcel) error {
	r := wireReader{bufio.NewReaderSize(s, 64<<10)}
	start, received := t.x.now(), 0
	deadline := func(n int) {
		now := t.x.now()
		one := now.Add(frameTime + time.Duration(n)*time.Second/frameRate)
		all := start.Add(frameTime + time.Duration(received+n)*time.Second/leastRate)
		if all.Before(one) {
			one = all
		}
		_ = s.SetDeadline(one)
	}
	late := false // we were: the deadline that stands means nothing
	wait := func(f func() error) error {
		before := t.x.now()
		j.paused.Store(true)
		err := f()
		now := t.x.now()
		j.last.Store(now.UnixNano())
		j.paused.Store(false)
		start, late = start.Add(now.Sub(before)), true
		return err
	}
	p := &parcel{}
	ship := func() {
		if len(p.frames) == 0 {
			return
		}
		j.last.Store(t.x.now().UnixNano())
		if p.size > inlineBytes {
			p.ready = make(chan struct{})
			go func(p *parcel) {
				defer close(p.ready)
				t.verify(p)
			}(p)
		}
		select {
		case parcels <- p:
		default:
			_ = wait(func() error { parcels <- p; return nil }) // it is always taken
		}
		p = &parcel{}
	}
	defer func() { ship() }() // what came before an error counts
	for {
		if r.Buffered() == 0 {
			ship()
		}
		if r.Buffered() == 0 || late { // else the deadline that stands is early enough
			late = false
			deadline(0)
		}
		var held int64
		f, err := r.frame(func(n int) error {
			waits := n > r.Buffered()
			if waits {
				ship()
			}
			if !t.memory.TryAcquire(int64(n)) {
				ship()
				if err := wait(func() error { return t.memory.Acquire(ctx, int64(n)) }); err != nil {
					return err
				}
			}
			held = int64(n)
			if waits || late {
				late = false
				deadline(n)
			}
			return nil
		})
		if err != nil {
			t.memory.Release(held)
			return err
		}
		received += f.size
		p.frames = append(p.frames, arrival{frame: f, held: held})
		if p.size += f.size; p.size >= parcelBytes || len(p.frames) >= parcelItems {
			ship()
		}
		if f.typ == frameEnd || f.typ == frameRefused {
			return nil
		}
	}
}

// verify checks the blocks of a parcel, up to the first bad one, and finds their links.
func (t *transfer) verify(p *parcel) {
	for i := range p.frames {
		a := &p.frames[i]
		if a.typ != frameBlock {
			continue
		}
		if a.block, a.bad = grid.VerifyBlock(a.cid, a.data); a.bad != nil {
			return
		}
		if t.mode == modeDAG {
			a.links, a.loose = dag.Links(a.cid, a.data)
		}
	}
}
