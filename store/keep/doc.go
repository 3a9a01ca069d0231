// Package keep decides what of the local blocks stays. It stands before the segments of package block: the
// grid.Blocks that it hands out notes what is used, holds the quota, and lets blocks be collected beside reads
// and writes. It knows nothing of jobs, pins or other nodes: roots and the means to fetch come from its caller.
//
// # What stays
//
//  1. Everything below the roots that [Duties] names, and below the roots of holds, as far as it is here.
//  2. Everything put, found to be here by Put or Has, or read since the oldest hold of what is used began, as long as
//     that one lasts. A collection is itself such a hold, so what comes while it runs outlives it, be it named by a
//     root afterwards or not. These holds are for what has no root yet, and should be short: whatever anybody uses
//     meanwhile makes no room.
//  3. The rest is a cache. It stays until somebody asks for a collection, or the disk space runs short.
//
// Rule 2 does not list blocks: a hold notes the end of the log, and records behind it are left alone. Only use
// of older blocks is noted, in a filter of fixed size. What matters is the order of things, and one lock gives
// it: a use is noted before the block is looked up, and a batch is deleted, with a last look at holds and notes,
// as one step. So either the deletion heeds the note, or the look-up already misses the block. A filter may be
// wrong about a block that was not used: then garbage stays a little longer. Once a second another one is begun, and
// the last one forgotten when the holds have ended that relied on it: nodes with much to do always hold something.
//
// # Collection
//
// [Keeper.Collect] marks what lies below the roots, into a set of 64-bit pieces of the hashes (a collision only
// keeps garbage), sweeps the index and deletes what is not marked, and compacts the segments in which little is
// left. A node of a DAG that is damaged hides what lies below it: it is fetched again, and when nobody has it,
// nothing is collected.
//
// # Eviction
//
// The quota bounds the bytes of segments on disk. At 90% of it a collection starts in the background, which
// deletes only as much as brings it down to 80%, what was used least recently first. A Put that would pass the
// quota, or finds the disk full, waits for one such collection, and fails with NoSpace when that did not help.
// While segments are compacted the store may be above the quota by what they still hold.
//
// What was used least recently is known roughly. Older segments go first, for what is in them was stored
// first. Blocks that have been used in the current or the last epoch get a second chance: they go only when
// the others are not enough. An epoch ends after about half a million different blocks have been used; which
// ones is noted in memory, in a filter of one MiB, and forgotten when the process ends. Compaction moves what
// it keeps to the youngest segment.
//
// # Scrubbing
//
// In the background all blocks are read slowly and checked, about once a week, and damaged ones are fetched
// again. One that nobody has stays, and is told of. Has denies a block that is known to be damaged.
package keep
