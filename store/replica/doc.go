// Package replica keeps promises: it is grid.Pins. It decides which nodes are to keep a pinned DAG, has them
// fetch it, notices when one is lost, and has another take its place. How blocks travel is package exchange's
// business, where a DAG should lie that of placement, and how it is coded that of erasure.
//
// # Records
//
// A pin is a [record]: the root, what was promised, and the nodes that are to hold it, in order. Every holder
// has the record, and so has the node where it was pinned. No node is special: for each record the first of its
// holders that is up acts for it (it leads), and whatever it decides is a new version of the whole record, sent
// to the old and the new holders. A version is two counters and a node: edits by people, changes of holders,
// and who made the last; they are compared in that order, so that a repair on one side of a partition never
// undoes what somebody said on the other. Of two versions the greater counts, everywhere.
//
// Nodes that meet, and every minute those that have records in common, compare what these come to: how many there
// are, and the exclusive or of their digests. Only if that differs do they tell each other the versions, and send
// what the other lacks. A record of a pin that was taken back is kept for a week, so that a node that was away hears
// of it.
//
// In a large swarm nobody is connected to all others, and that there is no connection says nothing of a node. So
// those with records in common speak to each other whether they are connected or not; to one that does not answer
// less and less often.
//
// # Holders
//
// A node that finds itself among the holders fetches the DAG, makes it durable, and remembers that it has it;
// what fewest others have comes first. A node that is no longer among them lets go only when it has heard from
// enough holders, by their own word and of that very version, that they have theirs: until then what it has is
// surplus. Letting go means that its blocks become a cache, from which a collector may take them.
//
// A holder that has been away for longer than the grace period, and does not answer, counts as lost: the leader
// puts another node in its place, if there is one. If it comes back it finds that out and is trimmed. One that was
// chosen and has not spoken since has nothing to come back with, and is replaced after a quarter of a minute. A holder that drains is
// replaced at once, but is still asked. So in a partition each side restores what it lacks, and when it heals
// one of the two records wins and the rest is trimmed.
//
// # Protocol "pins/1"
//
// One call in CBOR, each field of which may be left out:
//
//	info   what the caller is: zone, bytes free, whether it drains
//	common of the records that concern both: count, how many there are; sum, 16 bytes, the exclusive or of their
//	       digests. A digest is the first 16 bytes of the SHA-256 of the root's CID in bytes and the version in CBOR
//	have   roots and versions of records, of which the caller takes the other for a holder or the maker
//	put    records, to be merged
//	ask    roots of which the caller wants to hear record and state; deep: after looking for every block
//
// The reply has the other's info, whether what it has in common is something else (differ), the records that it has
// newer (newer), the roots of have of which it wants to get the record (want), and the states that were asked for.
// At most 1,000 of each travel in one call.
package replica
