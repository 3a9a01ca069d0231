// Package ledger is grid.Ledger for a realm: the transactional map of store/ledger/machine, replicated by Raft
// over the nodes' own network. docs/ledger-protocol.md describes the bytes on the wire and what they promise.
//
// # Replicas and clients
//
// A few nodes of a realm keep a copy: voters, of which a majority makes decisions, and learners. All others are clients. A [Ledger]
// is either, and changes while it runs; who should be what is decided elsewhere. Every node serves every call, as it finds
// the leader by itself.
//
// # Writes
//
// The leader gathers the transactions that come while its last log entry is under way into the next one. An entry is applied
// once a majority has it on disk. What goes wrong on the way is tried again by the caller's node, with the same request ID, until
// time runs out; the machine applies it once. Three rules make that exact: an ID is remembered for long, and a try that is
// older than that is refused; a try is for one term of one leader, which refuses those of others; and a leader refuses a
// try that comes in after a later one. So once an answer is there, no try is left that could still change anything.
//
// # Reads
//
// The leader answers reads from its copy, after a majority has confirmed that it led when they came. Confirmations are shared by all
// reads that wait. A leader that was stopped, or cut off, and does not know that it was replaced, gets no confirmation,
// and so nobody is told what is out of date. Stale reads ask the own copy or the nearest.
//
// # Sessions
//
// A session is an entry in the machine, and a timer of the leader's alone. Its owner renews it with the leader, three times in its
// time-to-live; renewals are confirmed like reads and do not go through the log. A new leader grants all sessions their
// whole time anew, but for those of nodes that it knows to be away. A broken connection to the owner cuts the time short.
//
// # Elections
//
// Each replica lengthens its elections while leaders do not last, and shortens them again when one does; see tempo. A leader gives its
// office up as late as it would take another's away. Neither reads nor writes trust in times, so replicas need not agree on theirs.
package ledger
