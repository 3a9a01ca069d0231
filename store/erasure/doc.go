// Package erasure codes DAGs so that they survive the loss of nodes at a fraction of the price of replicas:
// coded "4+2", a DAG takes one and a half times its bytes and survives the loss of any two of six nodes.
//
// The blocks of the DAG stay what they are, under their own CIDs, so that reading needs no decoding. Blocks
// that link to others, which one needs to find one's way, are the DAG's index and are copied M+1 times. All
// other blocks are its data: they are put into groups of K of similar size, and to each group M parity blocks
// are added, from which any M lost blocks of the group can be had again. The manifest lists all of that; it
// is a small DAG itself.
//
// Everything to be kept belongs to one of K+M columns. Whoever calls gives each column a node of its own; the
// loss of any M nodes then takes at most M blocks of a group, and not every copy of an index block. Which
// node keeps which column, and moving blocks between nodes, is not decided here.
//
// [Encode] makes parity and manifest, [Load] reads a manifest, [Manifest.Shards] tells what a column keeps,
// [Manifest.Losses] and [Manifest.Health] what losses mean, and [Rebuild] makes lost blocks again.
//
// docs/erasure.md has the format byte by byte.
//
// # What is believed
//
// A manifest is believed about which blocks there are, as far as its maker is: nobody here checks that it
// lists all of the DAG. It is not believed about bytes. Every block is verified by its CID before it is used,
// and what was rebuilt before it is stored.
package erasure
