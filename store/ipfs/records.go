package ipfs

import (
	"context"
	"encoding/base32"
	"strings"
	"sync"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxRecords = 1 << 16
	maxRecord  = 16 << 10 // bytes of one
)

// records is the memory of the Kademlia table: what other nodes ask this one to remember for two days. They
// may ask for anything, so it is bounded; what is too much is forgotten at once, which the table can bear.
// Records of this node itself always have room.
type records struct {
	*dssync.MutexDatastore
	own string // ends the keys of records of this node

	mu sync.Mutex
	n  int // keys
}

func newRecords(self peer.ID) *records {
	return &records{
		MutexDatastore: dssync.MutexWrap(datastore.NewMapDatastore()),
		own:            "/" + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(self)),
	}
}

// Put keeps a record if there is room.
func (r *records) Put(ctx context.Context, k datastore.Key, value []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	has, err := r.Has(ctx, k)
	if err != nil {
		return err
	}
	own := strings.HasSuffix(k.String(), r.own)
	if len(value) > maxRecord || !has && !own && r.n >= maxRecords {
		return nil
	}
	if err := r.MutexDatastore.Put(ctx, k, value); err != nil {
		return err
	}
	if !has {
		r.n++
	}
	return nil
}

// Delete forgets a record.
func (r *records) Delete(ctx context.Context, k datastore.Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	has, err := r.Has(ctx, k)
	if err != nil || !has {
		return err
	}
	if err := r.MutexDatastore.Delete(ctx, k); err != nil {
		return err
	}
	r.n--
	return nil
}

// Batch gathers puts and deletes.
func (r *records) Batch(context.Context) (datastore.Batch, error) {
	return datastore.NewBasicBatch(r), nil
}
