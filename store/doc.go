// Package store opens what one node keeps in its data folder, and hands out the parts behind grid's
// interfaces. The parts live below it: block (bytes on disk), cache (hot blocks in memory), keep (which of them
// stay), dag (files and links), crypt (files and folders that are encrypted before they are added), car (DAGs as
// CAR files), exchange (blocks from and to other nodes), replica (copies of what is pinned, with placement and
// erasure), ledger (transactions) and receipt (remembered results).
//
// # On disk
//
//	DIR/blocks/00000001.seg …  block bytes; package block tells the format
//	DIR/meta/                  a pebble database, with these keys:
//	    /block/…, /block-end   index of the blocks
//	    /ledger/…              the ledger; package ledger tells the format
//	    /receipt/…, /receipt-now   receipts; package receipt tells the format
//	    /pin/…, /pin-drain     pins, and whether the node drains; package replica tells the format
//	    /scrub                 how far reading all blocks has come: segment and offset (4 and 8 bytes), and
//	                           when it began (8 bytes, Unix time); all big-endian
//	    /damaged/CID           multihashes of blocks that are known not to match any more
//
// Only one process may use a folder at a time.
package store
