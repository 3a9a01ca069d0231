package local

import (
	"context"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/ledger/machine"
)

// realm opens Config.Under, once; nil if there is nothing.
func (l *Ledger) realm(ctx context.Context) (Reader, error) {
	if l.cfg.Under == nil {
		return nil, nil
	}
	l.underMu.Lock()
	defer l.underMu.Unlock()
	if l.looked {
		return l.under, nil
	}
	u, err := l.cfg.Under(ctx)
	if err != nil {
		return nil, grid.Errorf(codeOf(err), "open what the realm knew last: %w", err)
	}
	l.under, l.looked = u, true
	return u, nil
}

// union is a page of two states: of a key that both have, the entry of own.
func union(own, below grid.Page, limit int) grid.Page {
	if limit <= 0 || limit > grid.MaxLedgerPage {
		limit = grid.MaxLedgerPage
	}
	// Behind the end of a page that has more, nothing is known of its state.
	a, b := own.Entries, below.Entries
	if own.More && len(a) > 0 {
		b = upTo(b, a[len(a)-1].Key)
	}
	if below.More && len(below.Entries) > 0 {
		a = upTo(a, below.Entries[len(below.Entries)-1].Key)
	}
	p := grid.Page{Revision: own.Revision, More: own.More || below.More}
	for bytes := 0; len(a)+len(b) > 0; {
		from := &a
		switch {
		case len(a) == 0:
			from = &b
		case len(b) > 0:
			switch c := strings.Compare(a[0].Key, b[0].Key); {
			case c > 0:
				from = &b
			case c == 0:
				b = b[1:]
			}
		}
		e := (*from)[0]
		bytes += len(e.Key) + len(e.Value)
		if n := len(p.Entries); n == limit || n > 0 && bytes > grid.MaxLedgerBytes {
			p.More = true
			break
		}
		p.Entries = append(p.Entries, e)
		*from = (*from)[1:]
	}
	return p
}

func upTo(es []grid.Entry, key string) []grid.Entry {
	n := len(es)
	for n > 0 && es[n-1].Key > key {
		n--
	}
	return es[:n]
}

// outside refuses a transaction about entries that only the realm has.
func outside(own *machine.Machine, realm Reader, t *grid.Txn) error {
	check := func(key string) error {
		if _, ok := own.Get(key); ok {
			return nil
		}
		if _, ok := realm.Get(key); ok {
			return grid.Errorf(grid.Unavailable, "%q is in the realm's ledger, and the node of this home is not running", key).Hint("`grid up`")
		}
		return nil
	}
	for _, c := range t.If {
		if !c.Prefix {
			if err := check(c.Key); err != nil {
				return err
			}
			continue
		}
		p, err := realm.Range(grid.Query{Prefix: c.Key, Limit: 1})
		if err != nil {
			return err
		}
		if len(p.Entries) > 0 {
			return grid.Errorf(grid.Unavailable, "entries that begin with %q are in the realm's ledger, and the node of this home is not running", c.Key).
				Hint("`grid up`")
		}
	}
	for _, e := range t.Put {
		if err := check(e.Key); err != nil {
			return err
		}
	}
	for _, key := range t.Delete {
		if err := check(key); err != nil {
			return err
		}
	}
	return nil
}
