// Package wasmhost runs guests: WASI preview 1 commands, each in a sandbox of its own, on wazero. It
// implements [grid.Engine].
//
// # One guest
//
// A module is checked (package module), compiled once and kept; every guest is a fresh instance of
// it. A guest sees its arguments, its environment, stdin, stdout and stderr, and one file tree
// (package memfs); nothing else of the node or the world. Everything it sees is a function of its
// [grid.Guest]: its clock is not the node's but starts at 2022-01-01 and moves on by one millisecond
// at each look, and by the whole time at each sleep, which therefore returns at once; its random
// numbers are a ChaCha8 stream from the guest's seed. docs/abi.md is the full account.
//
// # Limits
//
//   - Time: a guest that runs past its limit, or whose context ends, is stopped at its next loop or
//     call. This version asks wazero to check for that (WithCloseOnContextDone), which makes tight
//     loops 4 to 12 times slower; counting fuel by rewriting the module is to replace it. A guest is
//     not stopped inside a host call, so a reader given as stdin must obey the same context.
//   - Memory: growing linear memory beyond the limit fails inside the guest, as when a machine is
//     full. The node's bound on all guests together makes guests wait instead, for otherwise a result
//     would depend on the neighbours.
//   - Files: writing more than the limits into /out and /tmp fails inside the guest. A guest that
//     then gives up is reported as out of space.
//   - Tables hold at most a million elements; the call stack is bounded by wazero.
//
// A module's first run waits for its compilation: about a second for a Go program. There is no
// interpreter tier to answer sooner, and no reuse of instances.
//
// Compiled code is kept in Config.CacheDir. Whoever can write there can run code as this process, so
// the folder is made private; never share it, and never fill it from elsewhere.
package wasmhost
