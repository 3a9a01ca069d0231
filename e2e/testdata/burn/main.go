// Burn is a guest for tests: it hashes for a while and prints what only somebody who did the work can
// know. Its arguments are the number of rounds and, optionally, the task that is to trap.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strconv"
)

func main() {
	rounds, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "burn: rounds:", err)
		os.Exit(64)
	}
	task := os.Getenv("GRID_TASK")
	if len(os.Args) > 2 && os.Args[2] == task {
		fmt.Fprintln(os.Stderr, "burn: this is the one")
		var nothing *int
		*nothing = 1
	}
	sum := sha256.Sum256([]byte(task))
	for range rounds {
		sum = sha256.Sum256(sum[:])
	}
	fmt.Printf("%s %x\n", task, sum[:8])
}
