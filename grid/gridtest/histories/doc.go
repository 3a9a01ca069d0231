// Package histories holds ledgers to their word. Clients use a [grid.Ledger] through a [History], which
// records every call with its beginning, its end and what came of it; the history is then checked in two ways
// that know nothing of each other:
//
//   - [History.Linearizable] searches an order of all calls that explains every answer (with porcupine), from
//     the answers alone;
//   - [History.Replay] takes the order that the ledger itself tells its watchers, applies the transactions in
//     that order to a plain map, and compares every answer with it.
//
// A call whose answer was lost may have happened or not: it stays open to the end of the history. Whatever is
// written through a history has to be unique, so that a value tells which call wrote it; the loads of this
// package see to that. There is no clock in it: calls are ordered by a counter.
package histories
