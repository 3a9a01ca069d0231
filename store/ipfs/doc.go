// Package ipfs is the bridge to IPFS: a node of another network, beside the swarm's, through which IPFS
// nodes fetch what is in the local store, and through which the grid fetches what only IPFS has. It speaks
// bitswap and the Kademlia table that IPFS keeps for local networks, "/ipfs/lan/kad/1.0.0". The public
// table is left out: it takes nodes that the whole internet can reach.
//
// The bridge has a libp2p host and an identity of its own. So IPFS nodes, who are strangers, meet the
// limits of that host and cannot crowd out the swarm's connections; they cannot see which member of the
// swarm they speak to; and a node without a bridge has none of those protocols.
//
// # What is given away
//
// Every block of the local store is given to whoever asks for it by its CID. The store is never listed, and
// only roots are announced, but a CID is no secret: whoever was told one can pass it on. So a node has no
// bridge unless its user asks for one.
//
// # Fetching
//
// [Bridge.Fetcher] asks the swarm first, as its protocol is many times faster, and IPFS for what is still
// missing. Each root has a bitswap session, which finds providers by the root and keeps asking them for
// what lies below it. Blocks are asked for in the order of the tree, some at a time. A block counts only when
// its bytes match its CID; a node that sends others, or none, is as one that does not have it. A fetch ends
// when nothing has come for a while, or much too little over all; see the constants in fetch.go.
package ipfs
