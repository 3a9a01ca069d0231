package p2p

import (
	"context"
	"slices"
	"sync"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
)

// Bounds on the records of who provides what that this node keeps for the table. Anybody may announce anything as
// often as he likes, and records last for two days.
const (
	maxRecords        = 1 << 17 // about 32 MiB
	maxRecordsPerPeer = 1 << 13 // an honest node announces 1,024 roots
	maxRecordsPerKey  = 256
)

// records keeps provider records in memory, by their keys in kad-dht: "/providers/" and what is provided, "/" and who
// provides it. A record too many takes the place of another, of the same provider, the same key, or else of the
// provider with the most. It implements ds.Batching.
type records struct {
	mu    sync.Mutex
	of    map[string]map[string][]byte   // by what is provided and by whom
	by    map[string]map[string]struct{} // what is provided, by whom
	count int
}

var _ ds.Batching = (*records)(nil)

func newRecords() *records {
	return &records{of: make(map[string]map[string][]byte), by: make(map[string]map[string]struct{})}
}

// cut is a key's two parts.
func cut(k ds.Key) (what, who string) { return k.Parent().String(), k.BaseNamespace() }

// Put is told at ds.Write.
func (r *records) Put(_ context.Context, k ds.Key, value []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	what, who := cut(k)
	if _, again := r.of[what][who]; !again {
		switch {
		case len(r.by[who]) >= maxRecordsPerPeer:
			r.dropOf(who)
		case len(r.of[what]) >= maxRecordsPerKey:
			for other := range r.of[what] { // any
				r.drop(what, other)
				break
			}
		case r.count >= maxRecords:
			r.dropOf(r.greatest())
		}
		r.count++
	}
	if r.of[what] == nil {
		r.of[what] = make(map[string][]byte)
	}
	if r.by[who] == nil {
		r.by[who] = make(map[string]struct{})
	}
	r.of[what][who] = slices.Clone(value)
	r.by[who][what] = struct{}{}
	return nil
}

// greatest is who has the most records.
func (r *records) greatest() (who string) {
	most := 0
	for w, all := range r.by {
		if len(all) > most {
			who, most = w, len(all)
		}
	}
	return who
}

// dropOf forgets any record of a provider.
func (r *records) dropOf(who string) {
	for what := range r.by[who] {
		r.drop(what, who)
		return
	}
}

func (r *records) drop(what, who string) {
	if _, ok := r.of[what][who]; !ok {
		return
	}
	r.count--
	if delete(r.of[what], who); len(r.of[what]) == 0 {
		delete(r.of, what)
	}
	if delete(r.by[who], what); len(r.by[who]) == 0 {
		delete(r.by, who)
	}
}

// Delete is told at ds.Write.
func (r *records) Delete(_ context.Context, k ds.Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(cut(k))
	return nil
}

// Get is told at ds.Read.
func (r *records) Get(_ context.Context, k ds.Key) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	what, who := cut(k)
	value, ok := r.of[what][who]
	if !ok {
		return nil, ds.ErrNotFound
	}
	return slices.Clone(value), nil
}

// Has is told at ds.Read.
func (r *records) Has(ctx context.Context, k ds.Key) (bool, error) {
	_, err := r.Get(ctx, k)
	return err == nil, nil
}

// GetSize is told at ds.Read.
func (r *records) GetSize(ctx context.Context, k ds.Key) (int, error) {
	value, err := r.Get(ctx, k)
	if err != nil {
		return -1, err
	}
	return len(value), nil
}

// Query is told at ds.Read.
func (r *records) Query(_ context.Context, q dsq.Query) (dsq.Results, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var entries []dsq.Entry
	add := func(what string) {
		for who, value := range r.of[what] {
			entries = append(entries, dsq.Entry{Key: what + "/" + who, Value: value, Size: len(value)})
		}
	}
	if one := ds.NewKey(q.Prefix).String(); r.of[one] != nil {
		add(one)
	} else {
		for what := range r.of {
			add(what)
		}
	}
	return dsq.NaiveQueryApply(q, dsq.ResultsWithEntries(q, entries)), nil
}

// Batch is told at ds.Batching.
func (r *records) Batch(context.Context) (ds.Batch, error) { return ds.NewBasicBatch(r), nil }

// Sync is told at ds.Datastore: nothing outlives the node.
func (r *records) Sync(context.Context, ds.Key) error { return nil }

// Close is told at ds.Datastore.
func (r *records) Close() error { return nil }
