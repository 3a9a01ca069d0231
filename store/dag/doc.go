// Package dag shows blocks as UnixFS files and folders, and lists the links of blocks. It implements
// grid.Files over any grid.Blocks; it moves nothing between nodes.
//
// CIDs are those of the UnixFS profile "unixfs-v1-2025" (IPIP-499), which IPFS tools use by default: CIDv1,
// sha2-256, chunks of 1 MiB as raw leaves, at most 1024 links in a file node, and folders that become a
// HAMT of width 256 when their block would exceed 256 KiB. A file of at most 1 MiB is one raw block.
//
// DAG-PB, UnixFS and the HAMT are small formats, written and read here directly: reading must bound what
// a hostile block can make it do, and importing must hash each byte once. The tests hold every CID
// against the reference implementation in boxo.
//
// A DAG from outside is not believed. Depth is capped, a size that does not match its block is an error,
// nothing is allocated by a size that was only claimed, and entries whose names could not be shown in a
// file system make their folder invalid.
package dag
