package ipfs

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/ipfs/boxo/exchange"
	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

// Bounds of a fetch.
const (
	maxWalks    = 4       // fetches at once; others wait
	window      = 32      // blocks of one fetch that are asked for at once, at most 2 MiB each
	maxBlocks   = 1 << 20 // gone through in one fetch
	batchBytes  = 1 << 20 // blocks are stored so many bytes, or
	batchBlocks = 128     // so many blocks at a time

	firstTime = 8 * time.Second        // for the first block to come, in which somebody is found who has it
	stallTime = 20 * time.Second       // for each that follows
	againTime = 2 * time.Second        // with nothing coming, after which a new round begins
	roundGap  = 100 * time.Millisecond // between rounds, for bitswap to take back what was asked for
	blockTime = time.Second            // over all, each block gives a fetch so much more time,
	leastRate = 16 << 10               // and so many bytes one second
)

// Fetcher asks swarm, and IPFS for what the swarm does not have or cannot give now. alone reports that nobody
// of the swarm is connected: then peers that may have it are dialled only when IPFS does not have it either.
// Want.Limit holds for each of the two by itself.
func (b *Bridge) Fetcher(swarm grid.Fetcher, alone func() bool) grid.Fetcher {
	return fetcher{b, swarm, alone}
}

type fetcher struct {
	bridge *Bridge
	swarm  grid.Fetcher
	alone  func() bool
}

func (f fetcher) Fetch(ctx context.Context, w grid.Want) error {
	if w.Swarm {
		return f.swarm.Fetch(ctx, w)
	}
	here := w // what the swarm is asked; with nobody to ask that is a look at what is here
	later := len(w.From) > 0 && f.alone()
	if later {
		here.From = nil
	}
	err := f.swarm.Fetch(ctx, here)
	if !elsewhere(err) {
		return err
	}
	if cerr := ctx.Err(); cerr != nil {
		return grid.Errorf(grid.CodeOf(cerr), "%v: %w", err, cerr)
	}
	ierr := f.bridge.fetch(ctx, w)
	if ierr == nil {
		return nil
	}
	if later && elsewhere(ierr) && ctx.Err() == nil {
		if err = f.swarm.Fetch(ctx, w); !elsewhere(err) {
			return err
		}
	}
	code := grid.CodeOf(ierr)
	if elsewhere(ierr) {
		code = grid.CodeOf(err) // IPFS does not tell whether it is there
	}
	return grid.Errorf(code, "%w; nor does IPFS give it: %v", err, ierr).
		Hint("connect to a node that has it (`grid up --join`, or `--ipfs-peer` for an IPFS node), or add the data again")
}

// elsewhere reports whether an error says that somebody else may have what was wanted.
func elsewhere(err error) bool {
	code := grid.CodeOf(err)
	return code == grid.NotFound || code == grid.Unavailable || code == grid.Corrupt // here, which IPFS may heal
}

var errClosing = grid.Errorf(grid.Canceled, "ipfs: the bridge is closing")

// enter counts a fetch in, so that Close waits for it.
func (b *Bridge) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.wg.Add(1)
	}
	return !b.closed
}

// fetch brings from IPFS what is not here of the wanted.
func (b *Bridge) fetch(ctx context.Context, w grid.Want) (err error) {
	if !b.enter() {
		return grid.Errorf(grid.Canceled, "ipfs: the bridge is closed")
	}
	defer b.wg.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.ctx, func() { cancel(errClosing) })()
	select {
	case b.walks <- struct{}{}:
		defer func() { <-b.walks }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t := &walk{b: b, want: w}
	// What came stays, even if nobody waits for it any more.
	defer func() {
		if ferr := t.flush(context.WithoutCancel(ctx)); err == nil {
			err = ferr
		}
		b.release(t.held...)
	}()
	if len(w.Roots) > 1 { // mostly one node has all of them, and so they come faster
		if err := t.together(ctx, w.Roots); !errors.Is(err, errQuiet) {
			return err
		}
	}
	for _, root := range w.Roots {
		if err := t.root(ctx, root); err != nil {
			return err
		}
	}
	return nil
}

// reach reports whether any IPFS node is connected, and tries to connect to those that should be.
func (b *Bridge) reach(ctx context.Context) bool {
	for _, info := range b.peers {
		if len(b.host.Network().Peers()) > 0 || ctx.Err() != nil {
			break
		}
		_ = b.dial(ctx, info)
	}
	return len(b.host.Network().Peers()) > 0
}

// walk goes through DAGs, here and at IPFS nodes. It belongs to one goroutine.
type walk struct {
	b    *Bridge
	want grid.Want

	seen   map[cid.Cid]struct{}
	stack  []cid.Cid // what is to be looked at, the next one last
	batch  []grid.Block
	size   int // of batch, bytes
	blocks int // that have come, and
	bytes  int64

	held                 []cid.Cid // what was asked for here and came, until it is stored
	fetched, fetchedSize int       // in batch, of it
}

// answer is what became of asking for a block.
type answer struct {
	cid   cid.Cid
	block grid.Block
	err   error
	ours  bool // it was this walk that asked
}

// request is one block that is being asked for. Of two sessions that want a block at the same time one can be
// forgotten by bitswap, so no two ever do: what one walk asks for the others wait for, too.
type request struct {
	done  chan struct{}
	block grid.Block // once done,
	err   error      // unless there is an error
}

// errQuiet ends a round in which nothing came any more.
var errQuiet = errors.New("nothing comes")

// together brings DAGs in one session, as long as each round brings something.
func (t *walk) together(ctx context.Context, roots []cid.Cid) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := t.begin(roots...); err != nil {
		return err
	}
	session := t.b.bitswap.NewSession(ctx)
	for p := t.pace(); ; {
		had := t.blocks
		err := t.round(ctx, session, p, t.b.again)
		if !errors.Is(err, errQuiet) || t.blocks == had || !pause(ctx, roundGap) {
			return err
		}
	}
}

// root brings one DAG, in rounds. A bitswap session sends each want to one peer that claims to have the block,
// and may go on waiting for that peer for good, be it a liar or one that was slow to answer. So when nothing
// comes for a while, all wants are taken back and made again: those who gave blocks before are then preferred.
// Each round is more patient, so that a slow line is not filled with what was asked for twice.
func (t *walk) root(ctx context.Context, root cid.Cid) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := t.begin(root); err != nil {
		return err
	}
	session := t.b.bitswap.NewSession(ctx)
	p, had := t.pace(), t.blocks
	for again := t.b.again; ; again *= 2 {
		err := t.round(ctx, session, p, again)
		switch {
		case !errors.Is(err, errQuiet):
			return err
		case !time.Now().Before(p.end):
			return t.late(root, t.blocks-had)
		case !pause(ctx, roundGap):
			return context.Cause(ctx)
		}
	}
}

// pace is how a fetch keeps to its time.
type pace struct {
	end    time.Time // when it is given up
	all    time.Time // what end may be put off to, if it were the same for all,
	blocks int       // and what had come by then
	bytes  int64
}

func (t *walk) pace() *pace {
	end := time.Now().Add(t.b.first)
	return &pace{end: end, all: end, blocks: t.blocks, bytes: t.bytes}
}

// came puts off the end, as a block has come.
func (p *pace) came(t *walk) {
	p.end = time.Now().Add(t.b.stall)
	latest := p.all.Add(time.Duration(t.blocks-p.blocks)*blockTime + time.Duration(t.bytes-p.bytes)*time.Second/leastRate)
	if latest.Before(p.end) {
		p.end = latest
	}
}

// begin starts over with other roots.
func (t *walk) begin(roots ...cid.Cid) error {
	t.seen, t.stack = map[cid.Cid]struct{}{}, nil
	return t.push(roots...)
}

// round asks for what is on the stack until that is empty, or nothing comes: then what was asked for is on the
// stack again. The stack is gone through depth first, which keeps it short, and the blocks that are asked for at
// the same time are the next ones on it.
func (t *walk) round(ctx context.Context, session exchange.Fetcher, p *pace, again time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	answers, asked := make(chan answer), 0
	defer func() {
		cancel()
		for range asked {
			a := <-answers
			t.stack = append(t.stack, a.cid)
			if a.ours && a.err == nil {
				t.b.release(a.cid)
			}
		}
	}()
	quiet := time.NewTimer(min(again, time.Until(p.end)))
	defer quiet.Stop()
	for {
		for len(t.stack) > 0 && asked < window {
			c := t.stack[len(t.stack)-1]
			t.stack = t.stack[:len(t.stack)-1]
			links, here, err := t.look(ctx, c)
			if err != nil {
				return err
			}
			if here {
				if err := t.push(links...); err != nil {
					return err
				}
				continue
			}
			if asked == 0 && !t.b.reach(ctx) {
				return grid.Errorf(grid.Unavailable, "ipfs: no IPFS node is connected").Hint("name one with `grid up --ipfs-peer`")
			}
			asked++
			go func() { answers <- t.b.get(ctx, session, c) }()
		}
		if asked == 0 {
			return nil
		}
		select {
		case a := <-answers:
			asked--
			if a.err != nil {
				return a.err
			}
			if err := t.arrived(ctx, a); err != nil {
				return err
			}
			p.came(t)
			quiet.Reset(min(again, time.Until(p.end)))
		case <-quiet.C:
			if err := t.flush(ctx); err != nil { // what it begins with next is looked for here, too
				return err
			}
			return errQuiet
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// late is the error of a fetch that ends because too little came.
func (t *walk) late(root cid.Cid, blocks int) error {
	var asked []string
	for _, p := range t.b.host.Network().Peers() {
		if asked = append(asked, p.String()); len(asked) == 4 {
			asked = append(asked, "...")
			break
		}
	}
	n := len(t.b.host.Network().Peers())
	missing := t.stack[len(t.stack)-1]
	if blocks == 0 {
		return grid.Errorf(grid.Unavailable, "ipfs: none of the IPFS nodes that are connected gave block %s within %v; they are %d: %s",
			missing, t.b.first, n, strings.Join(asked, ", "))
	}
	return grid.Errorf(grid.Unavailable, "ipfs: block %s did not come, after others of %s did (%d); connected are %d IPFS nodes: %s",
		missing, root, blocks, n, strings.Join(asked, ", ")).Hint("try again: what has come stays")
}

// get asks for one block, unless another walk does already, and checks it. What it asked for itself and got
// must be released once it is in the store.
func (b *Bridge) get(ctx context.Context, session exchange.Fetcher, c cid.Cid) answer {
	for {
		b.mu.Lock()
		r := b.requests[c]
		if r == nil {
			r = &request{done: make(chan struct{})}
			b.requests[c] = r
			b.mu.Unlock()
			if r.block, r.err = b.ask(ctx, session, c); r.err != nil {
				b.release(c)
			}
			close(r.done)
			return answer{c, r.block, r.err, true}
		}
		b.mu.Unlock()
		select {
		case <-r.done:
			if r.err == nil {
				return answer{cid: c, block: r.block}
			}
			pause(ctx, roundGap) // the other has given up; bitswap is to know before it is asked again
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return answer{cid: c, err: context.Cause(ctx)}
		}
	}
}

// release lets blocks be asked for again.
func (b *Bridge) release(cids ...cid.Cid) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range cids {
		delete(b.requests, c)
	}
}

func (b *Bridge) ask(ctx context.Context, session exchange.Fetcher, c cid.Cid) (grid.Block, error) {
	got, err := session.GetBlock(ctx, c)
	switch {
	case err == nil:
		return grid.VerifyBlock(c, got.RawData())
	case ctx.Err() != nil:
		return grid.Block{}, context.Cause(ctx)
	case b.ctx.Err() != nil: // bitswap may hear of it before ctx does
		return grid.Block{}, errClosing
	}
	return grid.Block{}, grid.Errorf(grid.Unavailable, "ipfs: get %s: %w", c, err)
}

// push takes in CIDs, the first of which is looked at first.
func (t *walk) push(cids ...cid.Cid) error {
	for i := len(cids) - 1; i >= 0; i-- {
		c := cids[i]
		if _, ok := t.seen[c]; ok {
			continue
		}
		if err := grid.CheckCID(c); err != nil {
			return err
		}
		if len(t.seen) >= maxBlocks {
			return grid.Errorf(grid.Limit, "ipfs: more than %d blocks below the roots", maxBlocks)
		}
		t.seen[c] = struct{}{}
		t.stack = append(t.stack, c)
	}
	return nil
}

// look reports whether a block is here, and its links.
func (t *walk) look(ctx context.Context, c cid.Cid) (links []cid.Cid, here bool, err error) {
	return dag.Look(ctx, t.b.blocks, c, t.want.Shallow, t.b.log)
}

// arrived takes in one block.
func (t *walk) arrived(ctx context.Context, a answer) error {
	b := a.block
	if a.ours {
		t.held = append(t.held, a.cid)
	}
	if t.want.Limit > 0 && t.bytes+int64(len(b.Data())) > t.want.Limit {
		return grid.Errorf(grid.Limit, "ipfs: it has more than the %d bytes that are allowed", t.want.Limit)
	}
	t.bytes += int64(len(b.Data()))
	t.blocks++
	t.batch = append(t.batch, b)
	t.size += len(b.Data())
	if a.ours {
		t.fetched++
		t.fetchedSize += len(b.Data())
	}
	if t.size >= batchBytes || len(t.batch) >= batchBlocks {
		if err := t.flush(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	if t.want.Shallow {
		return nil
	}
	links, err := dag.Links(b.CID(), b.Data())
	if err != nil {
		return err
	}
	return t.push(links...)
}

// flush stores what has arrived.
func (t *walk) flush(ctx context.Context) error {
	if len(t.batch) == 0 {
		return nil
	}
	if err := t.b.blocks.Put(ctx, t.batch...); err != nil {
		return err
	}
	t.b.fetched.Add(uint64(t.fetched))
	t.b.fetchedBytes.Add(uint64(t.fetchedSize))
	t.b.release(t.held...)
	t.held, t.fetched, t.fetchedSize = t.held[:0], 0, 0
	clear(t.batch) // the blocks may be large
	t.batch, t.size = t.batch[:0], 0
	return nil
}
