// Command grid runs WebAssembly over a peer-to-peer compute grid. Package cli holds its verbs.
package main

import (
	"os"

	"github.com/wasmgrid/wasmgrid/cmd/grid/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
