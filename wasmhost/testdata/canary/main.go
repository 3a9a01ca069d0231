// Canary tells all that it can see of an earlier run, and leaves behind as much as it can.
package main

import (
	"fmt"
	"io"
	"os"
)

var (
	before = "nothing"
	seen   = map[string]int{"first": 1}
	large  [1 << 16]byte
)

func main() {
	fmt.Println("args", os.Args, "env", os.Environ())
	stdin, err := io.ReadAll(os.Stdin)
	fmt.Printf("stdin %q %v\n", stdin, err)
	fmt.Println("variables", before, seen, large[100])
	for _, name := range []string{"/tmp/left", "/out/left"} {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			fmt.Println("file", err)
			continue
		}
		fmt.Println("file", name, f.Fd())
		fmt.Fprint(f, "left by ", os.Args) // and never closed
	}
	wd, err := os.Getwd()
	fmt.Println("folder", wd, err)
	before, seen[os.Args[1]], large[100] = os.Args[1], 2, 3
	switch os.Args[1] {
	case "exit":
		os.Exit(7)
	case "panic":
		panic("left")
	case "grow":
		all := make([]byte, 24<<20)
		for i := range all {
			all[i] = 0xff
		}
		fmt.Println("grown", len(all))
	}
}
