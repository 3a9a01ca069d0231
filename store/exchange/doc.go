// Package exchange moves blocks between nodes: it implements grid.Fetcher over grid.Blocks and
// grid.Network, and serves other nodes' fetches. It decides neither what to keep nor what to announce.
//
// # Protocol "blocks/2"
//
// A client opens a stream and writes one request; the server answers with frames and closes the stream. The
// client keeps its side open as long as it wants more. Numbers are unsigned varints in their shortest form
// (as in multiformats). A request is
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
// A client that has enough closes its side. The server then finishes the frame it is at and sends the end
// frame, which in this case says nothing of what was left out.
//
// # Several nodes
//
// One request in mode 1 brings a DAG of any depth, so a fetch asks one node for that: the walker. When the
// DAG turns out to be large, up to three more of those that are likely to have it are asked in mode 0 for
// blocks that are wanted but that the walker has not come to, from the back, in batches of about a quarter of
// a second at the speed of the node. When the two ends meet, the walker is told to stop. The client
// remembers who lacks what, and asks nobody for it again in this fetch. Only when nobody likely is left,
// nothing has come for half a second, or more than 32 MiB have, does it ask the swarm who provides the roots;
// in the first two cases it asks any node that is connected beside. A node whose stream breaks off after a
// part is asked for the rest, up to three times. Near the end, what a slow node was asked for is asked of one
// faster node as well. What comes twice is counted as wasted.
//
// Nodes are asked in this order: those that callers named, those that Config.Holders names, those that sent
// parts of this DAG before, those that the swarm names, and all that are connected; among these faster ones
// first, and last of all those that did wrong lately. A wrong is to send what is malformed, does not match
// its hash or was not asked for, and to be too slow; half of it is forgiven in 5 minutes.
//
// # Bounds
//
// The client gives each frame 10 seconds and as much again as its length takes at 64 KiB/s, and gives up
// a server whose average falls below 16 KiB/s; the server likewise gives up a client that does not read.
// A server answers 16 streams of one peer at once, and 128 of all; others are refused as busy, and ask again
// a little later. One fetch goes through at most 2^20 blocks, and so does one request; it asks at most 32
// nodes, of which 4 send at once, and holds at most 16 MiB of blocks between the network and the disk, then
// it reads no more and the streams' own flow control holds the senders.
package exchange
