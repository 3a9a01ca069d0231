// Package receipt is grid.Cache over a go-datastore: it remembers receipts by invocation key, one each, the
// latest. It neither verifies signatures nor decides what is worth remembering; that is its caller's.
//
// A receipt lies under "/receipt/" and its key in hexadecimal, as 4 bytes of CRC-32C, big-endian, and then
// the receipt in CBOR. What no longer matches its checksum, does not decode or belongs to another key is as
// good as absent: the task runs again and overwrites it.
package receipt

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"

	"github.com/wasmgrid/wasmgrid/grid"
)

// maxReceipt bounds an encoded receipt: outputs inline, a fault's message and stack.
const maxReceipt = 1 << 20

// syncEvery is how often receipts are made durable while they keep coming. They are what a job that
// was cut short resumes from, so what a crash may cost is bounded by time, not by how many fit a buffer.
const syncEvery = 200 * time.Millisecond

// Cache is a grid.Cache.
type Cache struct {
	d datastore.Batching

	mu     sync.Mutex
	synced time.Time // when the last sync began
}

var _ grid.Cache = (*Cache)(nil)

// New keeps receipts in d, which stays the caller's to close.
func New(d datastore.Batching) *Cache { return &Cache{d: d} }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func storeKey(k grid.Key) datastore.Key { return datastore.RawKey("/receipt/" + k.String()) }

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
	b, err := c.d.Get(ctx, storeKey(k))
	if errors.Is(err, datastore.ErrNotFound) {
		return grid.Receipt{}, false, nil
	}
	if err != nil {
		return grid.Receipt{}, false, fail("look up", k, err)
	}
	r, ok = decode(b, k)
	return r, ok, nil
}

// Remember keeps receipts, all in one batch. It waits for the disk once in a while, not each time.
func (c *Cache) Remember(ctx context.Context, receipts ...grid.Receipt) error {
	if len(receipts) == 0 {
		return nil
	}
	batch, err := c.d.Batch(ctx)
	if err != nil {
		return fail("remember", receipts[0].Key, err)
	}
	for i := range receipts {
		r := &receipts[i]
		b, err := encode(r)
		if err == nil {
			err = batch.Put(ctx, storeKey(r.Key), b)
		}
		if err != nil {
			return fail("remember", r.Key, err)
		}
	}
	if err = batch.Commit(ctx); err == nil && c.due() {
		err = c.d.Sync(ctx, datastore.NewKey("/receipt"))
	}
	if err != nil {
		return fail("remember", receipts[0].Key, err)
	}
	return nil
}

// due reports whether it is time to sync, and if so counts this as the sync.
func (c *Cache) due() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.synced) < syncEvery {
		return false
	}
	c.synced = now
	return true
}

func fail(doing string, k grid.Key, err error) error {
	code := grid.CodeOf(err)
	if code == grid.Unknown {
		code = grid.Internal
	}
	return grid.Errorf(code, "store: %s receipt %s: %w", doing, k, err)
}
