// Package car writes and reads CAR files, in which IPFS tools pass DAGs around. It implements grid.Archive over
// any grid.Blocks. What blocks link to is package dag's matter.
//
// # Format
//
// A CARv1 is a header and then sections, without gaps, to the end of the file. Numbers are unsigned varints in
// their shortest form (as in multiformats).
//
//	v  length of the header, at most 1 MiB
//	…  the header: a DAG-CBOR map of "roots", a list of links, and "version", 1
//
//	v  length of the CID and the data together
//	…  the CID in binary
//	…  the data, at most grid.MaxBlock
//
// A CARv2 wraps one. Its numbers are little-endian:
//
//	0   11  the header of a CARv1 whose map holds nothing but "version", 2
//	11  16  characteristics, ignored
//	27  8   where the CARv1 begins
//	35  8   its length
//	43  8   where the index begins, 0 for none
//
// The index is ignored, and so is whatever stands before the CARv1 and behind it when there is an index. It is
// written never: a reader in a stream has no use for it.
//
// # What is written
//
// Blocks in depth-first order, each once: a block comes after one that links to it, so a reader can check that
// each was wanted, and equal DAGs give equal files. To leave out repeated ones the writer remembers what it has
// sent, some 40 to 80 bytes for each block; a DAG of more than 2^24 blocks, 16 TiB as Grid makes them, is refused.
// A reader that wants to remember nothing may have them repeated; the writer remembers nothing then, either.
//
// # What is read
//
// Any order, repeated blocks too. Each block is hashed before it is stored; one that does not match its CID, a
// hash other than sha2-256, a length that cannot be, an end that comes too early and anything behind the last
// section, zeros included, is an error that tells the offset. A section whose CID has the identity hash is
// checked and left out: the CID itself holds the data. Nothing is allocated by a length before it was checked.
// Some ten batches of 4 MiB are in memory at a time, whatever the size of the file.
package car
