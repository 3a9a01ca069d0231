// Package block keeps block bytes on disk: append-only segment files, with an index in any
// go-datastore. [Segments] is that store, itself a go-datastore; [New] puts the grid.Blocks contract,
// which includes verification, over any go-datastore. It knows nothing of links, files or peers.
//
// # Segment files
//
// Segments are named by their number, "00000001.seg" and so on, and hold up to about 256 MiB. All
// numbers are little-endian. A file begins with the 8 bytes "gridseg" and 1, the version; records
// follow without gaps:
//
//	0  4  CRC-32C (Castagnoli) of everything in the record after this field
//	4  4  length of the value, at most grid.MaxBlock
//	8  1  kind: 1 value, 2 tombstone (its value is empty)
//	9  1  length of the key, 1 to 64
//	10 …  the key: a multihash
//	…  …  the value: a block's bytes
//
// # Index
//
// For a value the index holds, under "/block/" and the key in unpadded upper-case base32, 12 bytes
// big-endian: segment number, offset of the value, length of the value, 4 bytes each. Under
// "/block-end" it holds 8 bytes: the segment and offset up to which the index covers the segments.
//
// # Durability
//
// Five rules make a crash harmless at any point:
//
//  1. A record is never changed once written. Deleting appends a tombstone.
//  2. New entries wait in memory until their records are fsynced; only then do they go to the index, in
//     one batch with "/block-end". So the index lags behind the segments but never names lost bytes.
//  3. Opening reads the records after "/block-end" again. Where none is whole any more, the file ends:
//     what is left of a torn write is cut off. A damaged record with whole ones after it is skipped.
//  4. Sync returns when the fsync that covers its caller's records has; callers that wait together share
//     one. Writers also sync by themselves after 64 MiB, which bounds what rule 3 has to read, while other
//     writers go on.
//  5. Once an fsync has failed nothing more is written or acknowledged until the store is opened again: the
//     kernel may have dropped the bytes and forgotten about it.
//
// So that an fsync finds little left to do, on Linux the disk is told every few MiB to begin writing. That
// says nothing about when it is done, but a failure it tells of counts as one of an fsync.
//
// An index that is lost is rebuilt by rule 3 from the first segment on.
//
// # Compaction
//
// Whoever decides what goes, deletes it; [Segments.Compact] then gets the space back. It copies the live
// records of a segment to the end, each only if the index, asked under the lock of writers, still names the
// old one. Only when the copies are fsynced, the index names them and is itself synced is the file removed.
// So the rules above hold, at any point of it: until the end the old records are there, and what has been
// copied twice is only garbage. A reader that located a value before it was moved looks it up once more.
//
// Tombstones are not copied. Should the index be lost later, what they deleted may come back, if its
// record is in a segment that was not compacted: garbage again.
//
// Nothing is deleted or moved here by itself, and damage found by [Segments.Scrub] is only told of: putting
// a damaged block heals it, by a second record that takes the place of the first.
package block
