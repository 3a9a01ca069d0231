// Package placement decides which nodes keep something: the replicas of a DAG, or the columns of one that is
// erasure-coded. It is a pure function of what it is given and moves nothing. Every node comes to the same
// answer, on every kind of processor, for it calculates with whole numbers only.
//
// # Weighted rendezvous hashing
//
// For a key each node draws a waiting time, and who waits least is first. The time is exponentially
// distributed with the node's weight as its rate: with u the hash of key and node as a fraction in (0, 1),
//
//	wait = -log2(u) / weight
//
// so that a node is first for its share of the weight of all, and a node that joins or leaves changes
// nothing in the order of the others: what moves is what it takes or leaves, and no more. u is the first 8
// bytes, big-endian, of
//
//	SHA-256(SHA-256(key) ‖ node ID), over 2^64
//
// The weight is the node's free bytes rounded down to three significant binary digits. Twice as much room
// gets twice as many keys, and a node's weight changes only when its free space has changed by 14 to 25 per
// cent, not with every block that it stores.
package placement

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Node is what placement needs to know of a member. A node with a lower weight is not worse, just smaller.
type Node struct {
	ID       peer.ID
	Zone     string // what fails together, such as a rack or a site; "" is a zone like any other
	Free     uint64 // bytes it has room for; 0: it is full, and gets nothing new
	Draining bool   // it is to leave, and is to be relieved of what it has
}

// weight rounds the free bytes down to three significant binary digits.
func weight(free uint64) uint64 {
	drop := max(bits.Len64(free)-3, 0)
	return free >> drop << drop
}

// fraction is the number of binary digits of a wait's fraction.
const fraction = 48

// logOf is -log2(h/2^64) in units of 2^-fraction, at least 1. It finds the logarithm's digits one by one:
// squaring a number doubles its logarithm.
func logOf(h uint64) uint64 {
	h = max(h, 1)
	zeros := bits.LeadingZeros64(h)
	x := h << zeros // 1 <= x < 2, with 63 binary digits behind the point
	log := uint64(0)
	for range fraction {
		hi, lo := bits.Mul64(x, x) // 1 <= hi < 4, with 62
		log <<= 1
		if hi>>63 == 1 {
			log |= 1
			x = hi
		} else {
			x = hi<<1 | lo>>63
		}
	}
	return uint64(zeros+1)<<fraction - log
}

// ranked is a node with what its place for a key depends on.
type ranked struct {
	Node
	log, weight uint64 // they make the wait
}

func (r *ranked) class() int {
	switch {
	case r.weight == 0:
		return 2
	case r.Draining:
		return 1
	}
	return 0
}

func rank(key []byte, nodes []Node) []ranked {
	rs := make([]ranked, 0, len(nodes))
	seen := make(map[peer.ID]bool, len(nodes))
	sum := sha256.Sum256(key)
	buf := sum[:]
	for _, n := range nodes {
		if seen[n.ID] {
			continue
		}
		seen[n.ID] = true
		buf = append(buf[:len(sum)], n.ID...)
		h := sha256.Sum256(buf)
		rs = append(rs, ranked{n, logOf(binary.BigEndian.Uint64(h[:])), weight(n.Free)})
	}
	slices.SortFunc(rs, func(a, b ranked) int {
		if c := cmp.Compare(a.class(), b.class()); c != 0 {
			return c
		}
		// a.log/a.weight against b.log/b.weight; where weights are 0, log against log.
		ahi, alo := bits.Mul64(a.log, max(b.weight, 1))
		bhi, blo := bits.Mul64(b.log, max(a.weight, 1))
		return cmp.Or(cmp.Compare(ahi, bhi), cmp.Compare(alo, blo), cmp.Compare(a.ID, b.ID))
	})
	return rs
}

// Rank returns the nodes in the order in which they should keep what key names: those with room by weighted
// rendezvous, then those that are draining, then those that are full. A node given twice counts as first
// given.
func Rank(key []byte, nodes []Node) []Node {
	rs := rank(key, nodes)
	ns := make([]Node, len(rs))
	for i := range rs {
		ns[i] = rs[i].Node
	}
	return ns
}

// Choose picks n of the nodes to keep what key names, or fewer where there are not as many. Who keeps it now
// is in current; holders that are not among the nodes are gone. What it picks is, in this order of
// importance,
//
//  1. nodes with room that are not draining; only if they are too few, also full nodes that hold it
//     already, then draining nodes that do, then other draining nodes with room; a full node that does not
//     hold it never, since it could not,
//  2. spread over zones: as evenly as the nodes allow, which is one in each zone before a second in any,
//  3. holders, so that a holder is replaced only for one of the above,
//  4. early in the order of [Rank].
//
// The best are first. A holder needs no room for what it has: count it in its Free if it is not to be
// relieved of it.
func Choose(key []byte, nodes []Node, n int, current []peer.ID) (chosen []peer.ID) {
	holds := make(map[peer.ID]bool, len(current))
	for _, id := range current {
		holds[id] = true
	}
	rest := slices.DeleteFunc(rank(key, nodes), func(r ranked) bool { return r.weight == 0 && !holds[r.ID] })
	inZone := map[string]int{}
	for len(chosen) < n && len(rest) > 0 {
		best := 0 // of equals the one ranked first
		for i := 1; i < len(rest); i++ {
			a, b := &rest[i], &rest[best]
			if cmp.Or(
				cmp.Compare(tier(a, holds[a.ID]), tier(b, holds[b.ID])),
				cmp.Compare(inZone[a.Zone], inZone[b.Zone]),
				cmp.Compare(bit(!holds[a.ID]), bit(!holds[b.ID])),
			) < 0 {
				best = i
			}
		}
		chosen = append(chosen, rest[best].ID)
		inZone[rest[best].Zone]++
		rest = slices.Delete(rest, best, best+1)
	}
	return chosen
}

// tier is how good a place a node is by the first rule of Choose, 0 the best.
func tier(r *ranked, holder bool) int {
	switch {
	case !r.Draining && r.weight > 0:
		return 0
	case !r.Draining:
		return 1
	case holder:
		return 2
	}
	return 3
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Seat gives each of the chosen a seat of its own out of n, as the columns of an erasure-coded DAG need:
// whoever sits in current and is chosen stays there, the others take the free seats in their order. A seat
// that nobody is left for is "". Of more than n chosen the first are seated.
func Seat(n int, current, chosen []peer.ID) []peer.ID {
	seats := make([]peer.ID, n)
	chosen = chosen[:min(n, len(chosen))]
	seated := make(map[peer.ID]bool, len(chosen))
	for i, id := range current[:min(n, len(current))] {
		if id != "" && !seated[id] && slices.Contains(chosen, id) {
			seats[i], seated[id] = id, true
		}
	}
	next := 0
	for _, id := range chosen {
		if id == "" || seated[id] {
			continue
		}
		for next < n && seats[next] != "" {
			next++
		}
		if next == n {
			break
		}
		seats[next], seated[id] = id, true
	}
	return seats
}
