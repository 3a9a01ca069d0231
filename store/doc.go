// Package store opens what one node keeps in its data folder, and hands out the parts behind grid's
// interfaces. The parts live below it: block (bytes on disk), cache (hot blocks in memory), dag (files and links), exchange (blocks from
// and to other nodes), ledger (transactions) and receipt (remembered results).
//
// # On disk
//
//	DIR/blocks/00000001.seg …  block bytes; package block tells the format
//	DIR/meta/                  a pebble database, with these keys:
//	    /block/…, /block-end   index of the blocks
//	    /ledger/…              the ledger; package ledger tells the format
//	    /receipt/…             receipts; package receipt tells the format
//
// Only one process may use a folder at a time.
package store
