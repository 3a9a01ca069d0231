// Package wasmhost runs guests: WASI preview 1 commands, each in a sandbox of its own, on wazero. It
// implements [grid.Engine].
//
// # One guest
//
// A module is checked (package module), compiled once and kept; every guest has an instance of it, as
// it is right after it was instantiated. A guest sees its arguments, its environment, stdin, stdout and
// stderr, and one file tree, all by way of our own WASI (package wasi); nothing else of the node or the
// world. Everything it sees is a function of its [grid.Guest]: its clock is not the node's but starts at 2022-01-01 and moves on by one millisecond
// at each look, and by the whole time at each sleep, which therefore returns at once; its random
// numbers are a ChaCha8 stream from the guest's seed. docs/abi.md is the full account.
//
// # Limits
//
//   - Fuel: modules are rewritten to count their work (package rewrite), the same on every node. A
//     guest gets fuel in slices of about a millisecond; between two of them it can be stopped, at a
//     fuel limit exactly, and lets others run. Without that a busy guest would hold up the whole
//     process: compiled code cannot be preempted, and the garbage collector waits for it.
//   - Time: a guest that runs past its limit, or whose context ends, is stopped at its next slice. Host
//     calls look at the context, too, but a reader given as stdin must obey it itself.
//   - Memory: growing linear memory beyond the limit fails inside the guest, as when a machine is
//     full. The node's bound on all guests together makes guests wait instead, for otherwise a result
//     would depend on the neighbours.
//   - Files: writing more than the limits into /out and /tmp fails inside the guest. A guest that
//     then gives up is reported as out of space.
//   - Tables hold at most a million elements together. The stack is at most 65,536 calls deep, fewer of
//     functions with many locals: the rewriting counts them, so that it is the same on every processor.
//
// A module's first run waits for its compilation: about a second for a Go program. There is no
// interpreter tier to answer sooner.
//
// # Reuse of instances
//
// An instance whose guest ended by itself is put back to its image (package image) and serves the next
// guest of its module: all of its memory, the memory's size and all globals are then as they were
// before _start. One whose guest trapped, was stopped or has grown by more than 256 MiB is dropped.
// Modules with more state than that, with a start function or with much of anything to begin with
// get a fresh instance for each guest, as all do where the system is not Linux; [Host.Way] tells which
// and why. No guest can tell the difference, and nothing that is counted differs.
//
// What a program does in _start before its main is done each time: the Go runtime takes a third of a
// millisecond to start, whatever becomes of the instance.
//
// Compiled code is kept in Config.CacheDir. Whoever can write there can run code as this process, so
// the folder is made private; never share it, and never fill it from elsewhere.
package wasmhost
