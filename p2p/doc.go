// Package p2p is the swarm as one node sees it: it finds the other nodes, keeps connections to them,
// and carries calls and streams. It implements grid.Network on libp2p, with Kademlia for finding.
// What the bytes of a call mean is not its business, nor is whom to trust: it proves who a peer is and
// leaves to others what that peer may do. Package memnet is its in-memory sibling.
//
// # Finding others
//
// A node meets others through the addresses it is told (Bootstrap, Connect), those it remembers from
// earlier runs (PeerFile), multicast on the local network (MDNS) and a folder shared by the nodes of
// one user on one machine (Nearby). Through any one of them it joins the swarm's Kademlia table, where
// all nodes announce themselves under a rendezvous key and look for the others, until they have 32
// peers. A peer that is lost is dialled again after 1 s, then 2 s, up to once a minute.
//
// # Reaching others
//
// A node listens on TCP and QUIC. It learns how it is seen from outside by what peers say of its packets, and by having
// members try its addresses (see outlook). If it is reached, it relays for those that are not (see relayService), which take
// places at two such members and announce addresses through them. Who is connected through a relay tries to punch a hole,
// by QUIC. Connections through relays are used like others; docs/network.md tells more, and the limits.
//
// A connected peer counts as present once it has said, by libp2p's identify protocol, that it speaks
// one of this swarm's protocols, and until its last connection is gone. A peer that does not answer
// pings for 14 s is hung up on.
//
// # Bytes
//
// Every protocol is a libp2p stream protocol; SWARM is the swarm's name:
//
//	/grid/SWARM/kad/1.0.0   the Kademlia table, as libp2p specifies it; nodes are servers always
//	/grid/SWARM/ping/1      the opener writes 8 bytes, the other side writes the same 8 bytes; repeat
//	/grid/SWARM/NAME        a call or a stream of the protocol NAME of package grid, e.g. steal/1
//
// A stream carries the bytes that its two ends write and nothing else. A call has a stream of its own:
//
//	request, from the caller:
//	  uvarint   length of the body, at most 8 MiB (grid.MaxMessage), in the shortest form
//	  bytes     the body
//	reply, from the other side:
//	  1 byte    status: 0 the call succeeded, 1 it failed
//	  uvarint   length of the body, at most 8 MiB, or 64 KiB when it failed; in the shortest form
//	  bytes     the body; when the call failed, CBOR as below
//
// A uvarint is 7 bits a byte, the least significant first, the top bit set on all bytes but the last;
// here it has at most 4 bytes. The caller leaves its sending side open until it has the reply: closing
// or resetting it means that it has given up, and ends the handler's context. After the reply the
// answering side closes the stream. Anything else that comes is an error and the stream is reset. The
// CBOR of a failed call is a map, in the canonical form of package grid:
//
//	"code"     unsigned, a grid.Code
//	"message"  text, at most 8 KiB
//	"hint"     text, at most 8 KiB, what to do about it; left out when there is nothing to say
//
// A node that has too many handlers running reads the request, forgets it, and replies with Busy; with Limit, when the
// peer calls the protocol more often than it may. A stream is reset for either.
//
// # Addresses nearby
//
// The file of a node in the folder Nearby is named by its peer ID. Its first line is "grid nearby 1
// SWARM", each further line is a multiaddr without /p2p; it has at most 8 KiB. A node replaces its
// file atomically, touches it every 5 s and removes it when it closes; others look every 2 s, and
// remove a file that was not touched for 30 s.
package p2p
