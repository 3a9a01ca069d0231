// Broken is a library that panics while it is initialised, for tests.
package main

import "strings"

var table = func() map[string]int {
	panic("no table " + strings.Repeat("x", 2000))
}()

//go:wasmexport size
func size() int32 { return int32(len(table)) }

func main() {}
