// Package exchange moves blocks between nodes: it implements grid.Fetcher over grid.Blocks and
// grid.Network, and serves other nodes' fetches. It decides neither what to keep nor what to announce.
//
// # Protocol "blocks/1"
//
// A client opens a stream, writes one request and closes its side; the server answers with frames and
// closes the stream. Numbers are unsigned varints in their shortest form (as in multiformats). A request is
//
//	1  mode: 0 these blocks only, 1 these blocks and everything below them
//	v  number of CIDs, 1 to 1024
//	…  that many times: length of a CID (v, at most 64), the CID in binary
//
// A frame begins with its type, 1 byte:
//
//	1  block: length of CID and data together (v), the CID, the data: a section as in CAR files
//	2  missing: length of a CID (v), the CID: the server does not have this block
//	3  end: everything asked for has been sent or called missing; nothing follows
//	4  refused: a code of package grid (v), length of a text (v, at most 512), the text; nothing follows
//
// The server goes through the CIDs in their order and, in mode 1, through the links of each block in
// theirs, depth first, and sends each CID once. So a block comes after one that links to it, and the client
// takes only blocks that it has asked for or that a block of this DAG links to: a server cannot push
// anything else. Equal DAGs give equal streams. A stream without an end frame was cut short.
//
// # Bounds
//
// The client gives each frame 10 seconds and as much again as its length takes at 64 KiB/s, and gives up
// a server whose average falls below 16 KiB/s; the server likewise gives up a client that does not read.
// A server answers 16 streams of one peer at once, and 128 of all; others are refused as busy. One fetch
// goes through at most 2^20 blocks for each request, and asks at most 16 nodes.
package exchange
