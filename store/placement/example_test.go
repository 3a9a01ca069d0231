package placement

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Three nodes in two zones are to keep two replicas; one that keeps one now is to leave.
func ExampleChoose() {
	nodes := []Node{
		{ID: "attic", Zone: "home", Free: 1 << 40},
		{ID: "cellar", Zone: "home", Free: 1 << 40},
		{ID: "desk", Zone: "office", Free: 1 << 38},
	}
	holders := Choose([]byte("a DAG"), nodes, 2, []peer.ID{"cellar"})
	fmt.Println(string(holders[0]), string(holders[1]))
	nodes[1].Draining = true
	holders = Choose([]byte("a DAG"), nodes, 2, holders)
	fmt.Println(string(holders[0]), string(holders[1]))
	// Output:
	// cellar desk
	// desk attic
}
