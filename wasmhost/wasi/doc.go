// Package wasi is WASI preview 1 for guests that nobody trusts: all 46 functions, as host functions for
// wazero, over a virtual file system (package vfs) and virtual clocks.
//
// # One host module, a State per guest
//
// [Export] adds the functions to a host module, once for each runtime. They keep nothing themselves:
// all that a guest has, arguments, streams, descriptors, files, clocks, is in a [State], which travels
// in the context of the call into the guest ([State.Context]). Giving an instance to another guest
// takes no more than another State; States are reused by [State.Reset].
//
// # What a guest can do
//
// It has stdin, stdout and stderr (0, 1, 2) and one pre-opened folder, / (3), which is all that vfs
// shows. Descriptors have rights, which only shrink; a call without the right to it fails with
// ENOTCAPABLE. One thing is not by the letter: whoever opens a file to write to it may truncate it,
// too, without the folder's right to set sizes, for programs built by Go rely on that.
//
// The clocks move by a millisecond at each reading, and by the time slept at each sleep, which returns
// at once; random bytes are a ChaCha8 stream from the seed. So everything a guest sees is a function of
// its [Config]; for guests that may differ from run to run, Config takes another clock, such as [RealClock], and
// another source. A read of stdin or of a file gives all that was asked for unless the input ends before, so
// that it does not show in what pieces the host had it.
//
// There are no sockets and no signals: the functions are there, and refuse.
//
// # What it costs the host
//
// Every pointer and length is checked against the guest's memory before use, and nothing is allocated
// by a length that the guest gives. What a call moves and looks at is charged to a [Meter], by what the guest sees
// of it alone. A call ends soon: the long ones, on random bytes and on streams, go in pieces and look at the context
// in between, as every call does at its beginning. Readers and writers that the host gives should obey the same
// context. Calls and open descriptors can be limited; [State] tells which limit ended a guest or refused it something.
//
// # How a guest ends here
//
// proc_exit panics with a [sys.ExitError], which wazero passes on as the call's error; the module
// stays open, so that its instance can be used again. A context that is over does the same, with
// [sys.ExitCodeContextCanceled] or [sys.ExitCodeDeadlineExceeded]. So does a failure of the host's, say
// of a mount that cannot give what it lists, with [ExitHostFailure]; [State.Err] tells it from a
// guest's own exit.
package wasi
