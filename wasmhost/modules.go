package wasmhost

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"golang.org/x/sync/semaphore"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
)

// Bounds on what is kept compiled. A module takes some four times its size as machine code.
const (
	maxModules     = 128
	maxModuleBytes = 256 << 20 // of binaries
)

// Bounds on compiling. The compiler takes some sixty times a module's size while it works.
const (
	maxCompiling   = 2 // modules at a time
	compileFactor  = 64
	compileFixed   = 16 << 20
	compileMemory  = 2 << 30 // for all modules together; a larger one compiles alone
	maxCompileTime = 2 * time.Minute
	// interpretFrom is how many bytes a module has that is interpreted until it is compiled; a smaller one is
	// compiled before anybody would notice.
	interpretFrom = 512 << 10
)

// program is a module compiled for one runtime.
type program struct {
	tier   *tier
	code   wazero.CompiledModule
	wasi   api.Module // its own imports, when it needs stubs
	inline bool       // each guest initialises it; see errTouched. Of one that is interpreted it is not known
}

func (p *program) close() {
	ctx := context.Background()
	p.code.Close(ctx)
	if p.wasi != nil {
		p.wasi.Close(ctx)
	}
}

// native is a module as machine code, and how its guests come by instances.
type native struct {
	program
	way, why string
	image    *image.Image // that instances are put back to; nil when they are not reused
	cells    int          // of an instance; see image.Layout
	least    uint64       // bytes of linear memory that a guest begins with
	elapsed  int64        // nanoseconds, on its virtual clocks
}

// compiled is a module ready to be instantiated, or about to be.
type compiled struct {
	id cid.Cid

	info  module.Info   // once early is closed
	early chan struct{} // closed when the module can be interpreted, or err is settled
	native
	ready chan struct{} // closed when native and err are settled
	err   error

	// Of the modules that hold it:
	size   int                // of its binary, bytes
	quick  *program           // to interpret while there is no native one
	trials sync.WaitGroup     // that do so
	refs   int                // users and waiters
	done   bool               // ready is closed
	cancel context.CancelFunc // of its compilation
	place  *list.Element      // nil once it is out of the map
}

// prepared is a module that was checked and rewritten.
type prepared struct {
	info   module.Info
	whole  []byte        // all of it
	code   []byte        // what is to be compiled; without its data segments when it is to have an image
	memory []byte        // what these make of memory, when they were taken off
	layout *image.Layout // nil when instances are not reused
	fresh  error         // why they are not

	large bool // compiling takes long enough to be interpreted meanwhile
	known bool // but its machine code is on disk
}

// maker does the steps of making a module ready.
type maker struct {
	prepare   func(ctx context.Context, id cid.Cid) (*prepared, error) // load, check, rewrite
	compile   func(ctx context.Context, id cid.Cid, p *prepared) (native, error)
	interpret func(ctx context.Context, info *module.Info, binary []byte) (*program, error) // nil: never
	discard   func(*native)                                                                 // undoes compile
	finish    time.Duration                                                                 // see Config.Finish
}

// modules keeps the modules used last. A module is compiled once however many ask for it, and is
// closed when it has been put out and nobody uses it.
type modules struct {
	maker
	ctx    context.Context // of all compilations
	cancel context.CancelFunc
	fronts *semaphore.Weighted // what comes before compiling
	slots  *semaphore.Weighted // compilations
	room   *semaphore.Weighted // bytes they may take
	wait   sync.WaitGroup

	mu    sync.Mutex
	byID  map[cid.Cid]*compiled
	order *list.List // of *compiled, used last first
	bytes int
}

func newModules(m maker) *modules {
	c := &modules{
		maker: m, fronts: semaphore.NewWeighted(maxCompiling), slots: semaphore.NewWeighted(maxCompiling), room: semaphore.NewWeighted(compileMemory),
		byID: map[cid.Cid]*compiled{}, order: list.New(),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// acquire gives a module once it is compiled, or with early as soon as it can be run at all. Release it
// afterwards.
func (c *modules) acquire(ctx context.Context, id cid.Cid, early bool) (*compiled, error) {
	c.mu.Lock()
	m := c.byID[id]
	if m == nil {
		m = &compiled{id: id, early: make(chan struct{}), ready: make(chan struct{})}
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
		is := m.ready
		if early {
			is = m.early
		}
		if err := m.await(ctx, is); err != nil {
			c.release(m)
			return nil, err
		}
	}
	select {
	case <-m.ready:
		if m.err != nil {
			c.release(m)
			return nil, m.err
		}
	default: // it can be interpreted
	}
	return m, nil
}

// await waits for one of a module's channels.
func (m *compiled) await(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ended(ctx, sprintf("compile module %s", m.id))
	}
}

// make makes m ready and settles it.
func (c *modules) make(ctx context.Context, m *compiled) {
	defer c.wait.Done()
	defer m.cancel()
	p, err := c.prepareInTurn(ctx, m)
	if err != nil {
		c.settle(m, native{}, 0, err)
		return
	}
	n, err := c.compileInTurn(ctx, m.id, p)
	c.settle(m, n, len(p.whole), err)
	if m.quick != nil {
		m.trials.Wait() // they have been told by ready
		m.quick.close()
	}
}

// prepareInTurn prepares m when there is room for it, and makes it ready for interpretation if it is worth it.
func (c *modules) prepareInTurn(ctx context.Context, m *compiled) (*prepared, error) {
	if err := c.fronts.Acquire(ctx, 1); err != nil {
		return nil, ended(ctx, sprintf("compile module %s", m.id))
	}
	defer c.fronts.Release(1)
	p, err := c.prepare(ctx, m.id)
	if err != nil {
		return nil, err
	}
	m.info = p.info
	// Both at once would take each other's time, and the first answer is what somebody waits for.
	if p.large && !p.known {
		c.offer(ctx, m, p.whole)
	}
	return p, nil
}

// offer makes m ready for interpretation. Errors are left to the compiler to find.
func (c *modules) offer(ctx context.Context, m *compiled, binary []byte) {
	quick, err := c.interpret(ctx, &m.info, binary)
	if err != nil {
		return
	}
	c.mu.Lock()
	m.quick = quick
	c.mu.Unlock()
	close(m.early)
}

// try gives a module's program for interpretation while there is no other, else nil. Tell m.trials when it
// is no longer used, which is to be soon after m.ready was closed.
func (c *modules) try(m *compiled) *program {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.done || m.quick == nil {
		return nil
	}
	m.trials.Add(1)
	return m.quick
}

// settle publishes what has become of m.
func (c *modules) settle(m *compiled, n native, size int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.native, m.err, m.done = n, err, true
	if err == nil {
		m.size = size
		c.bytes += size
	}
	close(m.ready)
	if m.quick == nil {
		close(m.early)
	}
	if err != nil {
		c.putOut(m)
	}
	c.closeIfUnused(m)
	c.evict()
}

// compileInTurn compiles when there is room for it.
func (c *modules) compileInTurn(ctx context.Context, id cid.Cid, p *prepared) (native, error) {
	bytes := min(compileFixed+compileFactor*int64(len(p.code)), compileMemory)
	if err := c.slots.Acquire(ctx, 1); err != nil {
		return native{}, ended(ctx, sprintf("compile module %s", id))
	}
	defer c.slots.Release(1)
	if err := c.room.Acquire(ctx, bytes); err != nil {
		return native{}, ended(ctx, sprintf("compile module %s", id))
	}
	defer c.room.Release(bytes)
	bounded, cancel := context.WithTimeout(ctx, maxCompileTime)
	defer cancel()
	n, err := c.compile(bounded, id, p)
	switch {
	case err != nil && ctx.Err() != nil:
		err = ended(ctx, sprintf("compile module %s", id))
	case err != nil && bounded.Err() != nil:
		err = grid.Errorf(grid.Limit, "wasmhost: module %s takes more than %v to compile, the limit", id, maxCompileTime).
			Hint("split the program, or build it with less inlining")
	}
	return n, err
}

// release gives back what acquire gave.
func (c *modules) release(m *compiled) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.refs--
	if m.refs == 0 && !m.done && m.quick == nil {
		m.cancel() // nobody waits for it any more, nor has run it
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
	c.discard(&m.native)
	m.native = native{}
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

// hurry has close give nothing any time.
func (c *modules) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finish = 0
}

// close ends compilations and waits for them. Nobody may hold a module. Those whose guests were answered by
// interpretation may have some time left.
func (c *modules) close() {
	c.mu.Lock()
	finish := c.finish
	for _, m := range c.byID {
		if !m.done && (m.quick == nil || finish == 0) {
			m.cancel()
		}
	}
	c.mu.Unlock()
	grace := time.AfterFunc(finish, c.cancel)
	c.wait.Wait()
	grace.Stop()
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.byID {
		c.putOut(m)
		c.closeIfUnused(m)
	}
}
