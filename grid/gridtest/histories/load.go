package histories

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Step is a few calls of one client. n is a number that no other step of the run has. Its error says that a
// promise was broken; that a call did not get through is none.
type Step func(ctx context.Context, r *rand.Rand, l grid.Ledger, n int) error

// Run lets clients, one on each ledger, take steps drawn from a seed, with a pause of about so long between any two
// of one client, until stop is closed or so many steps are taken. Each step has a time of its own, which may be
// short, but is never longer than timeout.
func Run(t testing.TB, seed uint64, ledgers []grid.Ledger, steps []Step, many int, pause, timeout time.Duration, stop <-chan struct{}) {
	t.Helper()
	var wg sync.WaitGroup
	var next atomic.Int64
	for i, l := range ledgers {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for {
				n := int(next.Add(1))
				if n > many {
					return
				}
				patience := r.Float64()
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(patience*patience*float64(timeout)))
				err := steps[r.IntN(len(steps))](ctx, r, l, n)
				cancel()
				if err != nil {
					t.Error(err)
					return
				}
				var wait <-chan time.Time
				if pause > 0 {
					wait = time.After(time.Duration(r.Int64N(2 * int64(pause))))
				} else {
					c := make(chan time.Time)
					close(c)
					wait = c
				}
				select {
				case <-stop:
					return
				case <-wait:
				}
			}
		})
	}
	wg.Wait()
}

// chapter is how many steps use the same keys. It keeps the search for an order short.
const chapter = 250

func entry(key string, n int, what string) grid.Entry {
	return grid.Entry{Key: key, Value: fmt.Appendf(nil, "%s#%d", what, n)}
}

// Registers reads, writes, deletes, and compares and swaps single keys.
func Registers(prefix string, keys int) Step {
	return func(ctx context.Context, r *rand.Rand, l grid.Ledger, n int) error {
		key := fmt.Sprintf("%s%d/%d", prefix, n/chapter, r.IntN(keys))
		switch p := r.IntN(100); {
		case p < 40:
			_, _ = l.Get(ctx, key)
		case p < 60:
			_, _ = l.Commit(ctx, grid.Txn{Put: []grid.Entry{entry(key, n, "put")}})
		case p < 68:
			_, _ = l.Commit(ctx, grid.Txn{Delete: []string{key}})
		case p < 76: // as new
			_, _ = l.Commit(ctx, grid.Txn{If: []grid.Cond{{Key: key}}, Put: []grid.Entry{entry(key, n, "new")}})
		default:
			e, err := l.Get(ctx, key)
			if err != nil && grid.CodeOf(err) != grid.NotFound {
				return nil
			}
			_, _ = l.Commit(ctx, grid.Txn{If: []grid.Cond{{Key: key, Version: e.Version}}, Put: []grid.Entry{entry(key, n, "swap")}})
		}
		return nil
	}
}

// Maps reads and writes several keys of a small map at once.
func Maps(prefix string, keys int) Step {
	return func(ctx context.Context, r *rand.Rand, l grid.Ledger, n int) error {
		dir := fmt.Sprintf("%s%d/", prefix, n/chapter)
		key := func() string { return dir + strconv.Itoa(r.IntN(keys)) }
		if r.IntN(10) < 3 {
			_, _ = l.Range(ctx, grid.Query{Prefix: dir})
			return nil
		}
		_, _ = update(ctx, l, func(tx *grid.Tx) error {
			if r.IntN(2) == 0 {
				if _, err := tx.Range(dir); err != nil {
					return err
				}
			} else if _, _, err := tx.Get(key()); err != nil {
				return err
			}
			for range 1 + r.IntN(2) {
				tx.Put(key(), fmt.Appendf(nil, "map#%d.%d", n, r.Uint64()))
			}
			if r.IntN(3) == 0 {
				tx.Delete(key())
			}
			return nil
		})
		return nil
	}
}

// update is grid.Update with nothing to be said for its tries in vain.
func update(ctx context.Context, l grid.Ledger, f func(tx *grid.Tx) error) (bool, error) {
	_, err := grid.Update(ctx, l, f)
	var broken *brokenError
	if errors.As(err, &broken) {
		return false, broken
	}
	return err == nil, nil
}

// brokenError says that what was read at one moment cannot be.
type brokenError struct{ what string }

func (e *brokenError) Error() string { return e.what }

// Bank has accounts whose total never changes.
type Bank struct {
	Prefix   string
	Accounts int
	Money    int // in each at first
}

func (b Bank) account(i int) string { return fmt.Sprintf("%s%03d", b.Prefix, i) }

// Open puts the money into the accounts.
func (b Bank) Open(ctx context.Context, l grid.Ledger) error {
	var t grid.Txn
	for i := range b.Accounts {
		t.If = append(t.If, grid.Cond{Key: b.account(i)})
		t.Put = append(t.Put, entry(b.account(i), -i, strconv.Itoa(b.Money)))
	}
	_, err := l.Commit(ctx, t)
	return err
}

func balance(e grid.Entry) int {
	s, _, _ := strings.Cut(string(e.Value), "#")
	n, _ := strconv.Atoi(s)
	return n
}

// Audit reads all accounts at once.
func (b Bank) Audit(ctx context.Context, _ *rand.Rand, l grid.Ledger, _ int) error {
	p, err := l.Range(ctx, grid.Query{Prefix: b.Prefix})
	if err != nil {
		return nil
	}
	return b.check(p.Entries)
}

func (b Bank) check(es []grid.Entry) error {
	total := 0
	for _, e := range es {
		if balance(e) < 0 {
			return fmt.Errorf("account %s has %d", e.Key, balance(e))
		}
		total += balance(e)
	}
	if len(es) != b.Accounts || total != b.Accounts*b.Money {
		return fmt.Errorf("%d accounts with %d together, want %d with %d", len(es), total, b.Accounts, b.Accounts*b.Money)
	}
	return nil
}

// Transfer moves money between two accounts, now and then after reading all of them.
func (b Bank) Transfer(ctx context.Context, r *rand.Rand, l grid.Ledger, n int) error {
	from, to := r.IntN(b.Accounts), r.IntN(b.Accounts-1)
	if to >= from {
		to++
	}
	amount := 1 + r.IntN(b.Money)
	all := r.IntN(8) == 0
	try := 0
	_, err := update(ctx, l, func(tx *grid.Tx) error {
		try++
		if all {
			es, err := tx.Range(b.Prefix)
			if err != nil {
				return err
			}
			if err := b.check(es); err != nil {
				return &brokenError{err.Error()}
			}
		}
		x, okx, err := tx.Get(b.account(from))
		if err != nil {
			return err
		}
		y, oky, err := tx.Get(b.account(to))
		if err != nil {
			return err
		}
		if !okx || !oky {
			return &brokenError{fmt.Sprintf("an account of %d and %d is not there", from, to)}
		}
		sum := min(amount, balance(x))
		if sum == 0 {
			return nil
		}
		tx.Put(x.Key, fmt.Appendf(nil, "%d#%d.%d", balance(x)-sum, n, try))
		tx.Put(y.Key, fmt.Appendf(nil, "%d#%d.%d", balance(y)+sum, n, try))
		return nil
	})
	return err
}

// OnCall is the textbook's write skew: of each pair at least one has to stay on call, which each checks before
// going off. A ledger that compares only what is written lets both go.
func OnCall(prefix string, pairs int) Step {
	return func(ctx context.Context, r *rand.Rand, l grid.Ledger, n int) error {
		dir := fmt.Sprintf("%s%d/", prefix, r.IntN(pairs))
		me, other := dir+"a", dir+"b"
		if r.IntN(2) == 0 {
			me, other = other, me
		}
		ranged := r.IntN(2) == 0
		_, err := update(ctx, l, func(tx *grid.Tx) error {
			off := make(map[string]bool) // entries are of who is off
			if ranged {
				es, err := tx.Range(dir)
				if err != nil {
					return err
				}
				for _, e := range es {
					off[e.Key] = true
				}
			} else {
				for _, k := range []string{me, other} {
					_, ok, err := tx.Get(k)
					if err != nil {
						return err
					}
					off[k] = ok
				}
			}
			switch {
			case off[me] && off[other]:
				if ranged { // of one moment; two Gets are not, until they are committed
					return &brokenError{"nobody is on call in " + dir}
				}
				return grid.Conflict
			case off[me]:
				tx.Delete(me)
				tx.Put(strings.TrimSuffix(dir, "/")+".back", fmt.Appendf(nil, "on#%d.%d", n, r.Uint64())) // tells who
			case !off[other]:
				tx.Put(me, fmt.Appendf(nil, "off#%d.%d", n, r.Uint64()))
			}
			return nil
		})
		return err
	}
}

// Counters counts acknowledged increments: each is sent under one request ID until there is an answer, and has
// then to be in the count exactly once. One that never gets an answer may be in it or not.
type Counters struct {
	Key string

	acked, open atomic.Int64
}

// Add is a step that counts on.
func (c *Counters) Add(ctx context.Context, r *rand.Rand, l grid.Ledger, n int) error {
	for {
		e, err := l.Get(ctx, c.Key)
		if err != nil && grid.CodeOf(err) != grid.NotFound {
			return nil
		}
		t := grid.Txn{
			ID:  grid.NewRequestID(),
			If:  []grid.Cond{{Key: c.Key, Version: e.Version}},
			Put: []grid.Entry{entry(c.Key, n, fmt.Sprintf("%d#%d", balance(e)+1, r.Uint64()))},
		}
		for {
			_, err = l.Commit(ctx, t)
			if err == nil {
				c.acked.Add(1)
				return nil
			}
			if grid.CodeOf(err) == grid.Conflict {
				break // surely not applied
			}
			if ctx.Err() != nil {
				c.open.Add(1)
				return nil
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
	}
}

// Check compares the count with what was acknowledged, when all clients have ended.
func (c *Counters) Check(ctx context.Context, l grid.Ledger) error {
	e, err := l.Get(ctx, c.Key)
	if err != nil && grid.CodeOf(err) != grid.NotFound {
		return err
	}
	got, least, most := int64(balance(e)), c.acked.Load(), c.acked.Load()+c.open.Load()
	if got < least || got > most {
		return fmt.Errorf("%s is %d, after %d acknowledged increments and %d that may have happened", c.Key, got, least, most-least)
	}
	return nil
}

// Lossy loses answers: of the calls to a ledger that it wraps, some are carried out and answered Unavailable,
// and some are not even sent.
func Lossy(seed uint64, l grid.Ledger, part float64) grid.Ledger {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	return &lossy{Ledger: l, r: rand.New(rand.NewChaCha8(key)), part: part}
}

type lossy struct {
	grid.Ledger
	mu   sync.Mutex
	r    *rand.Rand
	part float64
}

func (l *lossy) draw() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Float64()
}

// Commit implements grid.Ledger.
func (l *lossy) Commit(ctx context.Context, t grid.Txn) (uint64, error) {
	lost := grid.Errorf(grid.Unavailable, "the answer was lost")
	p := l.draw()
	if p < l.part/4 {
		return 0, lost
	}
	rev, err := l.Ledger.Commit(ctx, t)
	if p < l.part {
		return 0, lost
	}
	return rev, err
}

// All is a bank, registers, maps, pairs on call and a counter, under one prefix.
type All struct {
	Prefix  string
	bank    Bank
	counter Counters
}

// NewAll opens the bank on l, which is best a client of the history.
func NewAll(ctx context.Context, l grid.Ledger, prefix string) (*All, error) {
	a := &All{Prefix: prefix, bank: Bank{Prefix: prefix + "bank/", Accounts: 8, Money: 100}, counter: Counters{Key: prefix + "count"}}
	return a, a.bank.Open(ctx, l)
}

// Steps lists the steps, the more common ones several times.
func (a *All) Steps() []Step {
	return slices.Concat(
		slices.Repeat([]Step{Registers(a.Prefix+"reg/", 6)}, 4),
		slices.Repeat([]Step{Maps(a.Prefix+"map/", 4), a.bank.Transfer}, 2),
		[]Step{a.bank.Audit, OnCall(a.Prefix+"call/", 2), a.counter.Add},
	)
}

// End looks at the end of it all, when the clients have ended: at the bank and the counter. It returns what the
// watch of the prefix has told from the beginning, for [History.Replay].
func (a *All) End(ctx context.Context, t testing.TB, l grid.Ledger, stop func(ctx context.Context, until uint64) []grid.Changes) []grid.Changes {
	t.Helper()
	_, err := l.Commit(ctx, grid.Txn{Put: []grid.Entry{entry(a.Prefix+"end", 0, "end")}})
	if err != nil {
		t.Errorf("the ledger does not answer at the end: %v", err)
		return nil
	}
	p, err := l.Range(ctx, grid.Query{Prefix: a.Prefix + "bank/"})
	if err == nil {
		err = a.bank.check(p.Entries)
	}
	if err != nil {
		t.Error(err)
	}
	if err := a.counter.Check(ctx, l); err != nil {
		t.Error(err)
	}
	e, err := l.Get(ctx, a.Prefix+"end")
	if err != nil {
		t.Error(err)
	}
	return stop(ctx, e.Version)
}
