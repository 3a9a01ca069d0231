// Package grid holds the nouns of the compute grid, the few interfaces it asks of its rooms, and
// the Node that moves them. Read it first: a job is told here from submission to result.
//
// # Words
//
// A user submits a [Request]: stages, each one Wasm module run over many rows of inputs. The node
// that accepts it is the job's owner. It stores everything as content-addressed blocks, normalises
// the request to a [Spec], and records the job in the [Ledger]. A stage's tasks are numbered from 0;
// the scheduler moves them as [Lease]s over half-open spans of those numbers, never one by one. A
// worker turns one number into a [Task], whose [Invocation] names everything the guest can see. Equal
// invocations give equal results, so an invocation's [Key] finds earlier results. One try at a task
// gives a signed [Receipt].
//
// What a guest may use besides that is in its stage's [Grants]: places of the network, a part of the ledger's map
// ([KV]), [Secret]s, and data by CID. All but the last make tasks impure; with keys or secrets they run on nodes of their
// owner's realm only.
//
// # Rooms
//
// The package imports no libp2p host, no wazero and no disk. What it needs of them is asked for in
// small interfaces: [Network], [Blocks], [Keeper], [Files], [Fetcher], [Pins], [Ledger], [Engine], [Scheduler]
// and [Cache]; and for its API [Archive] and [Surveyor]. Each has one contract suite in grid/gridtest, which
// every implementation runs. The rooms
// p2p, store, wasmhost and sched implement them and do not know one another; cmd/grid/daemon joins
// them.
//
// # The life of a job
//
//  1. [Node.Submit] stores the rows as a [Table] and writes the spec block. The spec leads to all that the job needs:
//     it is pinned, and when enough nodes have a copy, the job's [Record] is committed.
//  2. The scheduler opens a stage; rows whose invocation already has a receipt are done at once.
//  3. Workers take grains (short leases) from the node's own deque; other nodes steal leases.
//  4. A worker fetches what the task names, runs it in the engine, and stores what it wrote.
//  5. Receipts go in batches to the owner, which fetches the outputs and records completion. Now and then it writes
//     a [Checkpoint] of what is new.
//  6. A task that takes from earlier stages is prepared when those tasks have ended that it needs: the owner makes its
//     row of what they have left.
//  7. When the last stage is complete, and enough nodes have a copy of the results, one ledger transaction commits
//     the result, and the refs that the job publishes.
//
// # Owners
//
// Every node keeps an entry in the ledger under a [Session]. When an owner's entry vanishes, another node of the realm
// takes its jobs over: in a transaction that holds only while the record is as it was, it makes itself the owner, in
// the next [Epoch]. It goes through the stages as at first, but begins with the last checkpoint, and asks the others
// for receipts that they remember. Nodes that still run tasks for the last owner report to the next.
//
// Every write of an owner is conditioned on the version of the record that it knows. So one that was cut off, and has
// been replaced, can change nothing; it finds out by watching the ledger, or when a write is refused, and forgets the
// job. A write of which the outcome is not known is tried until it is; nothing is told of an end before that.
// Work may therefore be done twice, but takes effect once.
//
// A node that lives for one command ([NodeConfig.Bound]) is a realm of its own, and does nothing of this.
package grid
