package wasmhost

import (
	"container/list"
	"context"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/wasmhost/image"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
)

// Bounds on what is kept compiled. A module takes some four times its size as machine code.
const (
	maxModules     = 128
	maxModuleBytes = 256 << 20 // of binaries
	maxCompiling   = 2         // at a time, for the compiler takes much memory
)

// compiled is a module ready to be instantiated.
type compiled struct {
	id   cid.Cid
	info module.Info
	code wazero.CompiledModule
	wasi api.Module // its own imports, when it needs stubs
	size int        // of its binary, bytes

	image *image.Image // that its instances are put back to; nil when they are not reused
	why   string       // they are, or are not
	cells int          // of an instance; see image.Layout

	// Of the modules that hold it:
	refs   int                // users and waiters
	ready  chan struct{}      // closed when err is settled
	done   bool               // the same, under the lock
	cancel context.CancelFunc // of its compilation
	err    error
	place  *list.Element // nil once it is out of the map
}

type compileFunc func(ctx context.Context, id cid.Cid) (*compiled, error)

// modules keeps the modules used last. A module is compiled once however many ask for it, and is
// closed when it has been put out and nobody uses it.
type modules struct {
	compile compileFunc
	discard func(*compiled) // undoes it
	ctx     context.Context // of all compilations
	cancel  context.CancelFunc
	slots   chan struct{}
	wait    sync.WaitGroup

	mu    sync.Mutex
	byID  map[cid.Cid]*compiled
	order *list.List // of *compiled, used last first
	bytes int
}

func newModules(compile compileFunc, discard func(*compiled)) *modules {
	c := &modules{compile: compile, discard: discard, slots: make(chan struct{}, maxCompiling), byID: map[cid.Cid]*compiled{}, order: list.New()}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// acquire gives a module, compiling it when need be. Release it afterwards.
func (c *modules) acquire(ctx context.Context, id cid.Cid) (*compiled, error) {
	c.mu.Lock()
	m := c.byID[id]
	if m == nil {
		m = &compiled{id: id, ready: make(chan struct{})}
		m.place = c.order.PushFront(m)
		c.byID[id] = m
		var work context.Context
		work, m.cancel = context.WithCancel(c.ctx)
		c.wait.Add(1)
		go c.make(work, m)
	} else {
		c.order.MoveToFront(m.place)
	}
	m.refs++
	done := m.done
	c.mu.Unlock()

	if !done {
		select {
		case <-m.ready:
		case <-ctx.Done():
			c.release(m)
			return nil, ended(ctx, sprintf("compile module %s", id))
		}
	}
	if m.err != nil {
		c.release(m)
		return nil, m.err
	}
	return m, nil
}

// make compiles m and settles it.
func (c *modules) make(ctx context.Context, m *compiled) {
	defer c.wait.Done()
	defer m.cancel()
	made, err := c.compileInTurn(ctx, m.id)

	c.mu.Lock()
	defer c.mu.Unlock()
	if m.err = err; err == nil {
		m.info, m.code, m.wasi, m.size = made.info, made.code, made.wasi, made.size
		m.image, m.why, m.cells = made.image, made.why, made.cells
		c.bytes += m.size
	}
	m.done = true
	close(m.ready)
	if err != nil {
		c.putOut(m)
	}
	c.closeIfUnused(m)
	c.evict()
}

func (c *modules) compileInTurn(ctx context.Context, id cid.Cid) (*compiled, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
		return c.compile(ctx, id)
	case <-ctx.Done():
		return nil, ended(ctx, sprintf("compile module %s", id))
	}
}

// release gives back what acquire gave.
func (c *modules) release(m *compiled) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.refs--
	if m.refs == 0 && !m.done {
		m.cancel() // nobody waits for it any more
		c.putOut(m)
	}
	c.closeIfUnused(m)
	c.evict()
}

// putOut takes m out of the map, so that whoever asks next starts anew.
func (c *modules) putOut(m *compiled) {
	if m.place != nil {
		c.order.Remove(m.place)
		m.place = nil
		delete(c.byID, m.id)
	}
}

func (c *modules) closeIfUnused(m *compiled) {
	if m.place != nil || m.refs > 0 || !m.done || m.code == nil {
		return
	}
	c.bytes -= m.size
	c.discard(m)
	m.code, m.wasi, m.image = nil, nil, nil
}

// evict closes modules used longest ago, but never one in use, while there are too many.
func (c *modules) evict() {
	for e := c.order.Back(); e != nil && (c.order.Len() > maxModules || c.bytes > maxModuleBytes); {
		m := e.Value.(*compiled)
		e = e.Prev()
		if m.refs == 0 && m.done && (e != nil || c.order.Len() > 1) {
			c.putOut(m)
			c.closeIfUnused(m)
		}
	}
}

// close ends compilations and waits for them. Nobody may hold a module.
func (c *modules) close() {
	c.cancel()
	c.wait.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.byID {
		c.putOut(m)
		c.closeIfUnused(m)
	}
}
