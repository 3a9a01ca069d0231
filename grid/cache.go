package grid

import "context"

// Cache remembers receipts by invocation key. It is safe for concurrent use.
type Cache interface {
	// Lookup finds the receipt of an earlier attempt; ok is false when there is none.
	Lookup(ctx context.Context, k Key) (r Receipt, ok bool, err error)
	// Remember keeps receipts. It need not be durable at once: a lost one is computed again.
	Remember(ctx context.Context, receipts ...Receipt) error
}
