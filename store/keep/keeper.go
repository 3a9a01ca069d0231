package keep

import (
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	mh "github.com/multiformats/go-multihash"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/block"
	"github.com/wasmgrid/wasmgrid/store/cache"
)

const (
	highWater = 90 // percent of the quota at which eviction begins
	lowWater  = 80 // to which it goes

	shareOfDisk = 80 // percent of what the store has and what is free, the default quota
	evictTries  = 3
	evictPause  = 5 * time.Second        // between an eviction that did not help and the next one, or
	evictAgain  = 250 * time.Millisecond // when something was let go of since
	fetchTime   = time.Minute            // for a damaged block from other nodes
)

// Config says what to keep. Segments and Meta are required.
type Config struct {
	Segments *block.Segments
	Meta     datastore.Datastore // remembers how far scrubbing has come, under "/scrub", and what is damaged, under "/damaged"
	Cache    int64               // bytes of small blocks to keep in memory, such as cache.DefaultSize; 0: none
	Quota    int64               // bytes of segments on disk; 0: 80% of what there is and what is free when it is opened
	Logger   *slog.Logger        // nil: none
}

// Duties is what a Keeper needs to know of its node. Only Roots is required.
type Duties struct {
	// Roots names the DAGs to keep. An error of it ends the collection before anything is deleted.
	Roots func(ctx context.Context, yield func(cid.Cid)) error
	// Fetch brings one block from other nodes, without what it links to.
	Fetch func(ctx context.Context, c cid.Cid) error
	// Forget is called after blocks were deleted, before anybody can hold others. It must not use the store.
	Forget func()
	// Background has it evict at the high-water mark and scrub, until the duties end.
	Background bool
	ScrubRate  int64 // bytes read in a second at most; 0: 8 MiB
}

// Keeper is grid.Blocks and grid.Keeper over segments. It is safe for concurrent use.
type Keeper struct {
	segments *block.Segments
	blocks   grid.Blocks // the segments, without us
	read     grid.Blocks // the same, or a cache before them
	clear    func()      // of the cache, after a delete that went past it
	reads    func() (hits, misses uint64)
	meta     datastore.Datastore
	quota    int64
	log      *slog.Logger
	born     block.Position // the end of the log when it was opened

	recent  *recent
	holding atomic.Int64  // how many holds of what is used there are
	ends    atomic.Uint64 // how many holds were released
	kick    chan struct{} // asks for an eviction
	one     chan struct{} // taken by who collects
	pinned  atomic.Int64  // bytes that the last collection kept

	mu         sync.RWMutex // held for writing to hold, to release, and to delete a batch
	duties     *Duties
	running    context.Context      // of the duties
	seq        uint64               // of the last hold
	roots      map[uint64][]cid.Cid // of holds, by number
	holds      *list.List           // of *hold, oldest first
	notes      *filter              // uses; see age
	older      *filter
	spare      *filter // to be used again
	noted      uint64
	turned     time.Time // when notes were begun
	collecting bool
	unmarked   map[cid.Cid]struct{} // roots of holds that began during a collection

	evicting sync.Mutex
	eviction *eviction

	broken  sync.Mutex
	damaged map[string]struct{} // multihashes of blocks known to be
	hurt    atomic.Int64        // how many these are
}

var (
	_ grid.Blocks = (*Keeper)(nil)
	_ grid.Keeper = (*Keeper)(nil)
)

// New makes the keeper of some segments.
func New(c Config) (*Keeper, error) {
	k := &Keeper{
		segments: c.Segments, blocks: block.New(c.Segments), meta: c.Meta, quota: c.Quota, log: c.Logger,
		born: c.Segments.End(), recent: newRecent(), roots: map[uint64][]cid.Cid{}, holds: list.New(), damaged: map[string]struct{}{},
		kick: make(chan struct{}, 1), one: make(chan struct{}, 1),
	}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	k.read, k.clear, k.reads = k.blocks, func() {}, func() (uint64, uint64) { return 0, 0 }
	if c.Cache > 0 {
		hot, err := cache.New(k.blocks, c.Cache)
		if err != nil {
			return nil, err
		}
		k.read, k.clear, k.reads = hot, hot.Clear, hot.Reads
	}
	if err := k.recall(); err != nil {
		return nil, err
	}
	if c.Quota < 0 {
		return nil, grid.Errorf(grid.Invalid, "store: a quota of %d bytes", c.Quota)
	}
	if c.Quota == 0 {
		free, err := c.Segments.Free()
		if err != nil {
			return nil, grid.Errorf(grid.Internal, "store: free space: %w", err)
		}
		k.quota = int64(float64(min(free, math.MaxInt64/2)+k.used()) * shareOfDisk / 100)
	}
	return k, nil
}

// Start gives the keeper its duties. Until then, and once they have ended, nothing is collected. stop ends
// them, and waits for what goes on in the background; it may be called more than once.
func (k *Keeper) Start(d Duties) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	k.mu.Lock()
	k.duties, k.running = &d, ctx
	k.mu.Unlock()
	if d.Background {
		if k.used() > k.quota/100*highWater {
			k.askForRoom()
		}
		wg.Go(func() { k.evictAsAsked(ctx) })
		wg.Go(func() { k.scrubForever(ctx, &d) })
	}
	return func() {
		cancel()
		k.mu.Lock()
		if k.duties == &d {
			k.duties = nil
		}
		k.mu.Unlock()
		wg.Wait()
		k.one <- struct{}{} // whoever collects has heard of the end
		<-k.one
	}
}

// onDuty is the duties, and a context that ends with them.
func (k *Keeper) onDuty(ctx context.Context) (*Duties, context.Context, context.CancelFunc, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.duties == nil {
		return nil, nil, nil, grid.Errorf(grid.Unavailable, "store: nobody says what is to be kept: the node is starting or stopping").Hint("try again")
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(k.running, cancel)
	return k.duties, ctx, func() { stop(); cancel() }, nil
}

// hash is the piece of a multihash by which blocks are told apart.
func hash[T string | mh.Multihash](key T) uint64 {
	var b [8]byte
	copy(b[:], key[max(0, len(key)-8):])
	return binary.LittleEndian.Uint64(b[:])
}

func (k *Keeper) used() int64 {
	n, _ := k.segments.DiskUsage(context.Background()) // it has no errors
	return int64(n)
}

// Quota is how many bytes blocks may take on disk.
func (k *Keeper) Quota() int64 { return k.quota }

// Room is how many bytes may be put before something has to go. Evictions leave some of the quota, so that a
// store that is full of cached blocks has room, too.
func (k *Keeper) Room() uint64 { return uint64(max(k.quota-k.used(), 0)) }

// Stats is what can be told of the store at once.
type Stats struct {
	Quota   uint64 // most bytes that blocks may take on disk
	Pinned  uint64 // bytes that the last collection found to be needed; 0 when there was none
	Free    uint64 // bytes of the disk that may still be written
	Damaged uint64 // blocks that are known to be
	Hits    uint64 // reads of blocks that were in memory
	Misses  uint64 // reads of others
}

// Stats tells it. The error is that of asking for the free space of the disk.
func (k *Keeper) Stats() (s Stats, err error) {
	free, err := k.segments.Free()
	s = Stats{Quota: uint64(k.quota), Pinned: uint64(max(k.pinned.Load(), 0)), Free: uint64(max(free, 0)), Damaged: uint64(max(k.hurt.Load(), 0))}
	s.Hits, s.Misses = k.reads()
	return s, err
}

// Put is grid.Blocks. It waits for an eviction when the quota would be passed or the disk is full, and the error
// is NoSpace when that did not help.
func (k *Keeper) Put(ctx context.Context, blocks ...grid.Block) error {
	if err := k.makeRoom(ctx, blocks); err != nil {
		return err
	}
	here, err := k.segments.Add(ctx, blocks...)
	if isCode(err, grid.NoSpace) { // something else takes the disk; what is only cached makes way
		if k.evict(ctx, k.used()/100*lowWater) == nil {
			here, err = k.segments.Add(ctx, blocks...)
		}
	}
	if err != nil {
		return err
	}
	if k.hurt.Load() > 0 {
		k.healed(blocks)
	}
	for _, i := range here {
		k.use(hash(blocks[i].CID().Hash()))
	}
	if len(here) == 0 || k.holding.Load() == 0 {
		return nil
	}
	// Those may have been deleted before they were noted; now that they are, they no longer can be.
	var gone []grid.Block
	for _, i := range here {
		has, err := k.blocks.Has(ctx, blocks[i].CID())
		if err != nil {
			return err
		}
		if !has {
			gone = append(gone, blocks[i])
		}
	}
	_, err = k.segments.Add(ctx, gone...)
	return err
}

// Get is grid.Blocks. What it finds damaged is denied by Has from then on, so that it is brought again.
func (k *Keeper) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	k.use(hash(c.Hash()))
	data, err := k.read.Get(ctx, c)
	if isCode(err, grid.Corrupt) {
		k.setDamaged(string(c.Hash()), true)
	}
	return data, err
}

// Has is grid.Blocks. It denies what is known to be damaged.
func (k *Keeper) Has(ctx context.Context, c cid.Cid) (bool, error) {
	k.use(hash(c.Hash()))
	if k.hurt.Load() > 0 && k.isDamaged(string(c.Hash())) {
		return false, nil
	}
	return k.blocks.Has(ctx, c)
}

// Delete is grid.Blocks. It heeds no hold.
func (k *Keeper) Delete(ctx context.Context, c cid.Cid) error {
	if err := k.read.Delete(ctx, c); err != nil {
		return err
	}
	k.setDamaged(string(c.Hash()), false)
	return nil
}

// Sync is grid.Blocks.
func (k *Keeper) Sync(ctx context.Context) error { return k.blocks.Sync(ctx) }

// recordSize is about what a block takes on disk.
func recordSize(b grid.Block) int64 { return int64(len(b.Data())) + 44 }

// makeRoom sees to it that blocks fit the quota.
func (k *Keeper) makeRoom(ctx context.Context, blocks []grid.Block) error {
	size := int64(0)
	for _, b := range blocks {
		size += recordSize(b)
	}
	used := k.used() + size
	if used > k.quota/100*highWater {
		k.askForRoom()
	}
	if used <= k.quota {
		return nil
	}
	size = 0 // what is here takes no room; nor may what heals be refused
	for _, b := range blocks {
		if !b.CID().Defined() || k.hurt.Load() > 0 && k.isDamaged(string(b.CID().Hash())) {
			continue
		}
		has, err := k.blocks.Has(ctx, b.CID())
		if err != nil {
			return err
		}
		if !has {
			size += recordSize(b)
		}
	}
	if size == 0 || k.used()+size <= k.quota {
		return nil
	}
	var err error
	for try := 0; try < evictTries && err == nil && size <= k.quota; try++ { // others take room, too
		if err = k.evict(ctx, min(k.quota/100*lowWater, k.quota-size)); k.used()+size <= k.quota {
			return nil
		}
	}
	if ctx.Err() != nil {
		return grid.Errorf(grid.CodeOf(ctx.Err()), "store: put: %w", context.Cause(ctx))
	}
	const hint = "unpin data that is not needed, or give more room with `grid up --store-quota`"
	if err != nil {
		return grid.Errorf(grid.NoSpace, "store: the quota of %s is full, and nothing could be evicted: %w", human(k.quota), err).Hint(hint)
	}
	return grid.Errorf(grid.NoSpace, "store: the quota of %s is full: %s are pinned or in use", human(k.quota), human(k.pinned.Load())).Hint(hint)
}

// askForRoom has the background evict soon.
func (k *Keeper) askForRoom() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// human writes bytes for people.
func human(n int64) string {
	f, i := float64(n), 0
	for ; f >= 1024 && i < 5; i++ {
		f /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", f, " KMGTP"[i])
}

// eviction is a collection for want of space that some Puts wait for.
type eviction struct {
	done chan struct{}
	err  error
	over time.Time // when it ended, if it freed nothing
	ends uint64    // of holds, when it began
}

// stands reports whether its outcome may be taken for that of another one now.
func (e *eviction) stands(ends uint64) bool {
	pause := evictPause
	if ends != e.ends {
		pause = evictAgain
	}
	return e.over.IsZero() || time.Since(e.over) < pause
}

// evict waits for an eviction down to so many bytes, or for one that goes on already. For a moment after one
// that freed nothing, its outcome stands.
func (k *Keeper) evict(ctx context.Context, goal int64) error {
	k.evicting.Lock()
	e := k.eviction
	if ends := k.ends.Load(); e == nil || !e.stands(ends) {
		e = &eviction{done: make(chan struct{}), ends: ends}
		k.eviction = e
		go k.evictTo(e, goal) // ends with the duties
	}
	k.evicting.Unlock()
	select {
	case <-e.done:
		return e.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (k *Keeper) evictTo(e *eviction, goal int64) {
	did, err := k.Collect(context.Background(), Plan{Goal: max(1, goal)})
	if err != nil {
		k.log.Warn("eviction", "err", err)
	}
	k.evicting.Lock()
	e.err = err
	if err == nil && did.Reclaimed > 0 {
		k.eviction = nil
	} else {
		e.over = time.Now()
	}
	k.evicting.Unlock()
	close(e.done)
}

// evictAsAsked evicts at the high-water mark. What is younger than this process stays for now: a job or a
// pin may be about to name it.
func (k *Keeper) evictAsAsked(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select { // not all the time, when there is little to evict
		case <-pause.C:
		case <-ctx.Done():
			return
		}
		select {
		case <-k.kick:
		case <-ctx.Done():
			return
		}
		pause.Reset(evictPause)
		if k.used() <= k.quota/100*highWater {
			continue
		}
		did, err := k.Collect(ctx, Plan{Goal: k.quota / 100 * lowWater, Spare: k.born})
		switch {
		case err != nil && ctx.Err() == nil:
			k.log.Warn("eviction", "err", err)
		case err == nil:
			k.log.Info("evicted", "blocks", did.Deleted, "bytes", did.DeletedBytes, "reclaimed", did.Reclaimed, "took", did.Took)
		}
		if k.used() > k.quota/100*highWater {
			pause.Reset(time.Minute)
		}
	}
}

func (k *Keeper) isDamaged(key string) bool {
	k.broken.Lock()
	defer k.broken.Unlock()
	_, ok := k.damaged[key]
	return ok
}

// damagedRoot is where the damage that is known is remembered: a command that adds the data again must know, too.
const damagedRoot = "/damaged"

func damagedKey(key string) datastore.Key {
	return datastore.RawKey(damagedRoot + "/" + rawCID(key).String())
}

func (k *Keeper) setDamaged(key string, is bool) {
	k.broken.Lock()
	defer k.broken.Unlock()
	if _, was := k.damaged[key]; was == is {
		return
	}
	ctx := context.Background() // what was found out is remembered whoever was asking
	var err error
	if is {
		k.damaged[key] = struct{}{}
		err = k.meta.Put(ctx, damagedKey(key), []byte(key))
	} else {
		delete(k.damaged, key)
		err = k.meta.Delete(ctx, damagedKey(key))
	}
	if err != nil {
		k.log.Warn("damage not remembered", "cid", rawCID(key), "err", err)
	}
	k.hurt.Store(int64(len(k.damaged)))
}

// recall reads what was remembered of damage.
func (k *Keeper) recall() error {
	for r, err := range datastore.QueryIter(context.Background(), k.meta, query.Query{Prefix: damagedRoot}) {
		if err != nil {
			return grid.Errorf(grid.Internal, "store: damaged blocks: %w", err)
		}
		if mh, err := mh.Cast(r.Value); err == nil {
			k.damaged[string(mh)] = struct{}{}
		}
	}
	k.hurt.Store(int64(len(k.damaged)))
	return nil
}

func (k *Keeper) healed(blocks []grid.Block) {
	for _, b := range blocks {
		k.setDamaged(string(b.CID().Hash()), false)
	}
}

// heal fetches a damaged block again.
func (k *Keeper) heal(ctx context.Context, d *Duties, c cid.Cid) error {
	k.setDamaged(string(c.Hash()), true)
	if d.Fetch == nil {
		return grid.Errorf(grid.Unavailable, "store: %s is damaged, and there is no other node to fetch it from", c)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	if err := d.Fetch(ctx, c); err != nil {
		return err
	}
	if _, err := k.blocks.Get(ctx, c); err != nil {
		return err
	}
	k.setDamaged(string(c.Hash()), false)
	k.log.Info("a damaged block was healed", "cid", c)
	return nil
}

// rawCID names a block by its multihash alone.
func rawCID(key string) cid.Cid { return cid.NewCidV1(cid.Raw, mh.Multihash(key)) }

func isCode(err error, c grid.Code) bool { return errors.Is(err, c) }
