// Package member is membership of a private swarm: who belongs to it, as signed records, and how others come to. It
// decides; package p2p carries the decision out at connections and streams. docs/swarm.md has formats and rules.
//
//  1. A swarm is its first key, an Ed25519 key whose peer ID is the swarm's: all names on the network come from that ID. It is kept for
//     recovery, and signs but one thing: which key is that of the swarm's authority. A [Succession] replaces that key by another.
//  2. A [Membership] says that a peer belongs to the swarm, in a role. It is signed by the authority, or by another member, its
//     sponsor, together with what proves that it was invited: an [Invitation] that the authority has signed, and a signature of the
//     peer's ID by the key of that invitation. So a sponsor cannot let in whom it likes, nor who was invited pass by all sponsors.
//  3. A [Token] is an invitation with its private key, and addresses. Its holder proves itself over the protocol join/1, the only one that
//     strangers reach. The sponsor books the use and the membership in one transaction of the ledger.
//  4. A chain is a membership, that of its sponsor, and so on, up to one that the authority has signed: it is checked without a ledger.
//  5. The [Book] is what a node knows: the newest membership of each peer, by serial number, and revocations, each of a peer up to a
//     serial. It is fed by the ledger, by the chains that peers show each other when they connect, and by revocations that are pushed,
//     and compared now and then. What it believes it goes on to believe when the authority's key is replaced; what is new must rest on
//     the key of then, so the authority signs anew what is to be believed by others.
//  6. The home keeps the book, so that a node that starts knows its peers before it has a ledger.
//  7. The [Service] speaks join/1, follows the ledger, and is the gate of p2p: it allows each conversation by [Needs].
package member
