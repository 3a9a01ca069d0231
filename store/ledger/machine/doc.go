// Package machine is the state of a realm's ledger as a pure state machine: an ordered map with versions,
// conditions, sessions, remembered requests and a bounded history. It knows no network, disk, clock or chance.
// Whoever keeps the log (store/ledger by Raft, store/ledger/local alone) applies its entries one by one; machines
// that have applied the same entries are equal, and give equal results.
//
// # Revisions
//
// Each transaction that writes has a revision of its own, the next whole number; so has the end of a session that
// entries were put under. What was written carries that revision as its version.
//
// # Once
//
// A command with a request ID is applied once. The machine remembers the last committed IDs with their revisions
// and answers a repeated one with its first result. It forgets the oldest, and so each command says which revision
// its sender knew before its first try, its Base: had it been applied, it would have been later than that. When
// everything later than Base is remembered, an unknown ID is new. Otherwise it is refused, never applied twice.
// A command that failed or wrote nothing needs no memory.
//
// # Sessions
//
// The machine knows which sessions there are, and not the time: the leader's timers decide when one has been silent for
// too long, and propose its end.
//
// # Format of a batch
//
// A log entry is a batch of commands. Numbers are unsigned LEB128 varints; text is its length and its bytes.
//
//	version (1 byte): 1
//	number of commands
//	each: kind (1 byte)
//	  1 transaction: Base, request ID (text),
//	    number of conditions, each: 0 key version | 1 prefix version count
//	    number of puts, each: key, value, session
//	    number of deletes, each: key
//	  2 open session: ID, time-to-live in nanoseconds, owner
//	  3 end sessions: number, each: ID
//
// # Format of a snapshot
//
//	"gridlgr", version (1 byte): 1
//	frames, each: length (4 bytes), CRC-32C (4 bytes), items
//	a frame of length 0
//
// Both numbers are big-endian. The checksum continues that of the frame before, so that frames cannot be lost,
// added or swapped; the first continues that of the 8 bytes in front. The items, each within one frame, are a kind
// and its fields as in a batch, in this order:
//
//	h revision, index applied, newest forgotten request, MaxBytes, Requests, and how many items of s, r and e follow
//	s a session: ID, time-to-live, owner
//	r a remembered request: revision, ID
//	e an entry: key, value, version, session; in order of keys
//	c the next revision of the history, which ends with the snapshot's
//	d a change of that revision: 1 old | 2 new | 3 old new, each an entry as above
package machine
