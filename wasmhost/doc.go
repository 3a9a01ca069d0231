// Package wasmhost runs guests: WASI preview 1 commands and functions of reactors, each in a sandbox of its own,
// on wazero. It implements [grid.Engine].
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
// # Modules
//
// A module is compiled once, whoever asks for it and however many, with no more than a few modules at a time, within two
// minutes and an estimate of the memory it takes. A large one that is not on disk from before is first made ready
// for the interpreter, which is a matter of a tenth of a second, and its guests are tried there until the
// machine code is ready. Whatever has not ended by then begins anew; nobody can tell (trial.go says why).
//
// # Reuse of instances
//
// An instance whose guest ended by itself is put back to its image (package image) and serves the next
// guest of its module: all of its memory, the memory's size and all globals are then as they were
// before a command's _start, or after a reactor's _initialize. One whose guest trapped, was stopped or has grown by
// more than 256 MiB is dropped. Modules with more state than that, with a start function or with much of anything to
// begin with get a fresh instance for each guest, as do all commands where the system is not Linux; [Host.Inspect] tells
// which and why. No guest can tell the difference, and nothing that is counted differs.
//
// What a command does in _start before its main is done each time: the Go runtime takes a third of a
// millisecond to start, whatever becomes of the instance. A reactor has that behind it, once and for all.
//
// # Plug-ins for Extism
//
// A module that imports Extism's functions (package extism) is a library whose input is stdin, and whose output goes to
// stdout. If it uses those functions while it is initialised, each of its guests has a fresh instance and initialises that.
//
// # Compiled code
//
// Compiled code is kept in Config.CacheDir, up to a bound; what was used longest ago goes first. A file is
// named for all that it depends on: the module as rewritten, and so the rewriting; the engine's version;
// the processor. It is verified each time before it is loaded, and one that is damaged is removed and made
// again. Any number of hosts and processes share a folder, and one that is killed leaves nothing behind for
// long. When the disk fails, modules are compiled without it.
//
// The digest is against damage, not against people: whoever can write there can run code as this process.
// So the folder is made private, and one that others may write to is refused; never share it, and never
// fill it from elsewhere. Code is not taken from other nodes.
package wasmhost
