// Package receipt is grid.Cache over a go-datastore: it remembers receipts by invocation key, one each, the
// latest. It neither verifies signatures nor decides what is worth remembering; that is its caller's.
//
// # What goes
//
// Receipts lie in two generations. When the newer one has half of the bytes that there may be, or is three months old, the older one is dropped
// as a whole, and a new one begins. What is looked up in the older one is taken over into the newer, so that it is what
// nobody has asked for in a while that goes.
//
// # Format
//
// A receipt lies under "/receipt/", the number of its generation in 8 hexadecimal digits, "/", and its key in hexadecimal, as 4 bytes of
// CRC-32C, big-endian, and then the receipt in CBOR. What no longer matches its checksum, does not decode or belongs to another key is as
// good as absent: the task runs again and overwrites it.
//
// "/receipt-now" tells, all big-endian, the CRC-32C of the rest (4 bytes), the number of the newer generation (4), how many bytes it has
// (8), and when it began (8, Unix time). Without it all below "/receipt/" is dropped.
package receipt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-datastore"

	"github.com/wasmgrid/wasmgrid/grid"
)

// maxReceipt bounds an encoded receipt: outputs inline, a fault's message and stack.
const maxReceipt = 1 << 20

// syncEvery is how often receipts are made durable while they keep coming. They are what a job that
// was cut short resumes from, so what a crash may cost is bounded by time, not by how many fit a buffer.
const syncEvery = 200 * time.Millisecond

// DefaultMost is how many bytes receipts may have, keys and all: it is some 400,000 of tasks with short outputs.
const DefaultMost = 256 << 20

// lasts is how long a generation is the newer one, at most.
const lasts = 90 * 24 * time.Hour

// Config says where receipts are kept, and how many.
type Config struct {
	Meta datastore.Batching // its batches are atomic. It stays the caller's to close
	// Drop deletes all keys below one. It need not be durable at once.
	Drop func(ctx context.Context, below datastore.Key) error
	Most int64            // bytes; 0: DefaultMost
	Now  func() time.Time // nil: time.Now
}

// Cache is a grid.Cache.
type Cache struct {
	Config
	newer atomic.Uint32 // the number of the newer generation

	mu    sync.Mutex // held by who writes
	bytes int64      // of the newer generation
	began time.Time  // that one

	syncing sync.Mutex
	synced  time.Time // when the last sync began
}

var _ grid.Cache = (*Cache)(nil)

// New opens the receipts of a store.
func New(ctx context.Context, c Config) (*Cache, error) {
	if c.Most == 0 {
		c.Most = DefaultMost
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	out := &Cache{Config: c}
	if err := out.open(ctx); err != nil {
		return nil, grid.Errorf(codeOf(err), "store: open the receipts: %w", err)
	}
	return out, nil
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	root       = datastore.RawKey("/receipt")
	nowKey     = datastore.RawKey("/receipt-now")
)

func below(generation uint32) datastore.Key {
	return datastore.RawKey(fmt.Sprintf("/receipt/%08x", generation))
}

func storeKey(generation uint32, k grid.Key) datastore.Key {
	return datastore.RawKey(below(generation).String() + "/" + k.String())
}

// open finds out which generations there are, and ends those whose time is over.
func (c *Cache) open(ctx context.Context) error {
	b, err := c.Meta.Get(ctx, nowKey)
	switch {
	case err != nil && !errors.Is(err, datastore.ErrNotFound):
		return err
	case err != nil || len(b) != 24 || binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli):
		if err := c.Drop(ctx, root); err != nil {
			return err
		}
		c.newer.Store(1)
		c.began = c.Now()
		return c.Meta.Put(ctx, nowKey, c.state(0))
	}
	c.newer.Store(binary.BigEndian.Uint32(b[4:]))
	c.bytes, c.began = int64(binary.BigEndian.Uint64(b[8:])), time.Unix(int64(binary.BigEndian.Uint64(b[16:])), 0)
	age := c.Now().Sub(c.began)
	if age < lasts {
		return nil
	}
	if err := c.turn(ctx); err != nil {
		return err
	}
	if age >= 2*lasts {
		if err := c.turn(ctx); err != nil {
			return err
		}
	}
	return c.Meta.Put(ctx, nowKey, c.state(0))
}

// state is what is kept under nowKey when more bytes have come.
func (c *Cache) state(more int64) []byte {
	b := make([]byte, 4, 24)
	b = binary.BigEndian.AppendUint32(b, c.newer.Load())
	b = binary.BigEndian.AppendUint64(b, uint64(c.bytes+more))
	b = binary.BigEndian.AppendUint64(b, uint64(c.began.Unix()))
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

// turn drops the older generation, and begins a new one. The caller holds mu, and keeps the state.
func (c *Cache) turn(ctx context.Context) error {
	now := c.newer.Load()
	if err := c.Drop(ctx, below(now-1)); err != nil {
		return err
	}
	c.newer.Store(now + 1)
	c.bytes, c.began = 0, c.Now()
	return nil
}

func encode(r *grid.Receipt) ([]byte, error) {
	data, err := grid.Marshal(r)
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "encode: %w", err)
	}
	if len(data) > maxReceipt {
		return nil, grid.Errorf(grid.Limit, "it has %d bytes, at most %d are allowed", len(data), maxReceipt)
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), crc32.Checksum(data, castagnoli))
	return append(b, data...), nil
}

// decode reports whether b holds the receipt of k.
func decode(b []byte, k grid.Key) (r grid.Receipt, ok bool) {
	if len(b) < 4 || len(b) > 4+maxReceipt || binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return grid.Receipt{}, false
	}
	if err := grid.Unmarshal(b[4:], &r); err != nil || r.Key != k {
		return grid.Receipt{}, false
	}
	return r, true
}

// Lookup finds a receipt.
func (c *Cache) Lookup(ctx context.Context, k grid.Key) (r grid.Receipt, ok bool, err error) {
	newer := c.newer.Load()
	b, err := c.Meta.Get(ctx, storeKey(newer, k))
	older := errors.Is(err, datastore.ErrNotFound)
	if older {
		b, err = c.Meta.Get(ctx, storeKey(newer-1, k))
	}
	if errors.Is(err, datastore.ErrNotFound) {
		return grid.Receipt{}, false, nil
	}
	if err != nil {
		return grid.Receipt{}, false, fail("look up", k, err)
	}
	if r, ok = decode(b, k); !ok || !older {
		return r, ok, nil
	}
	if err := c.put(ctx, []grid.Key{k}, [][]byte{b}, false); err != nil {
		return grid.Receipt{}, false, fail("take over", k, err)
	}
	return r, true, nil
}

// Remember keeps receipts, all in one batch. It waits for the disk once in a while, not each time.
func (c *Cache) Remember(ctx context.Context, receipts ...grid.Receipt) error {
	if len(receipts) == 0 {
		return nil
	}
	keys, values := make([]grid.Key, len(receipts)), make([][]byte, len(receipts))
	for i := range receipts {
		b, err := encode(&receipts[i])
		if err != nil {
			return fail("remember", receipts[i].Key, err)
		}
		keys[i], values[i] = receipts[i].Key, b
	}
	err := c.put(ctx, keys, values, true)
	if err == nil && c.due() {
		err = c.Meta.Sync(ctx, root)
	}
	if err != nil {
		return fail("remember", receipts[0].Key, err)
	}
	return nil
}

// put keeps what was encoded in the newer generation; over: even what is there already.
func (c *Cache) put(ctx context.Context, keys []grid.Key, values [][]byte, over bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bytes >= c.Most/2 || c.Now().Sub(c.began) >= lasts {
		if err := c.turn(ctx); err != nil {
			return err
		}
	}
	batch, err := c.Meta.Batch(ctx)
	if err != nil {
		return err
	}
	more := int64(0)
	for i, k := range keys {
		at := storeKey(c.newer.Load(), k)
		if !over {
			if has, err := c.Meta.Has(ctx, at); has || err != nil {
				return err
			}
		}
		if err := batch.Put(ctx, at, values[i]); err != nil {
			return err
		}
		more += int64(len(at.String()) + len(values[i]))
	}
	if err := batch.Put(ctx, nowKey, c.state(more)); err != nil {
		return err
	}
	if err := batch.Commit(ctx); err != nil {
		return err
	}
	c.bytes += more
	return nil
}

// due reports whether it is time to sync, and if so counts this as the sync.
func (c *Cache) due() bool {
	c.syncing.Lock()
	defer c.syncing.Unlock()
	now := time.Now()
	if now.Sub(c.synced) < syncEvery {
		return false
	}
	c.synced = now
	return true
}

func fail(doing string, k grid.Key, err error) error {
	return grid.Errorf(codeOf(err), "store: %s receipt %s: %w", doing, k, err)
}

func codeOf(err error) grid.Code {
	if code := grid.CodeOf(err); code != grid.Unknown {
		return code
	}
	return grid.Internal
}
