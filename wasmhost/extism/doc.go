// Package extism is the host of plug-ins that were built for Extism (https://extism.org), as host functions for
// wazero: what their development kits import from extism:host/env. docs/extism.md tells how a plug-in is run here.
//
// # What a plug-in is given
//
// A plug-in has no arguments and, by these functions, no files. It asks for its input, works with blocks of memory that
// are not its own linear memory but the host's (the kernel's, in Extism's words), says which block is its output,
// and which is the message of an error. It may look up its configuration, keep variables, write to a log and send HTTP
// requests. All of that is in a [State], which travels in the context of the call into the plug-in ([State.Context]);
// the functions keep nothing themselves. It lasts for one call: then output and error are taken ([State.Result]), and
// everything else is forgotten.
//
// # Memory
//
// A block is named by its offset, which the plug-in sees. So offsets are a function of what it asked for: blocks lie one
// behind the other, and one that was freed is given out again, the one that was freed last first, for a block that is
// about as large. What the host must know of blocks is not in memory that the plug-in can reach. It can read and write
// all that was ever given out, freed blocks too, as with Extism's own kernel; other offsets read as 0, and what is
// written there is lost. A handle, which names a block as a whole, must be one of a block that is there: the plug-in is
// ended for others, with a sentence. Freeing what is not there does nothing.
//
// A block that is the output or the error can be freed at once: its bytes are kept. Nothing that the plug-in has
// allocated is freed by the host.
//
// The kernel's memory and the plug-in's own share its limit: each can grow to what the other leaves.
//
// # Costs and bounds
//
// Every function counts as a call of the system. Bytes that are moved cost as much fuel as those of other such calls, but
// for those that are moved by ones and eights, where the call is the dearer by far.
// A block is found in a time that is logarithmic in their number, and made in constant time; nothing is allocated by a
// length that the plug-in gives before that was held against its limit.
package extism
