// Command double is a guest with a few functions, written without an SDK: twice doubles a number, fail fails, crash panics.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	switch f := os.Getenv("GRID_FUNC"); f {
	case "twice":
		var n int
		if err := json.NewDecoder(os.Stdin).Decode(&n); err != nil {
			fmt.Fprintln(os.Stderr, "twice:", err)
			os.Exit(1)
		}
		fmt.Println(2 * n)
	case "fail":
		fmt.Fprintln(os.Stderr, "fail: it is Thursday")
		os.Exit(3)
	case "trap":
		_ = *(*int)(nil)
	default:
		fmt.Fprintf(os.Stderr, "no function %q\n", f)
		os.Exit(2)
	}
}
