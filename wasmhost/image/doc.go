// Package image lets one instance of a Wasm module serve many tasks, none of which can see what another
// left behind. It keeps sealed snapshots of linear memory and globals, gives wazero linear memories that
// are copy-on-write views of one, and puts an instance that has run a task back to its snapshot in the
// time that it takes to find and copy the pages that the task wrote: a few microseconds.
//
//	store, err := image.Open(image.Config{})
//	layout, err := image.Examine(binary)          // or a refusal; image.Expose may help first
//	img, err := store.Snapshot(mod, layout)       // of an instance that has run _initialize
//	mem, err := img.Memory(limit)                 // for one more instance:
//	mod, err := runtime.InstantiateModule(experimental.WithMemoryAllocator(ctx, mem), code, config)
//	inst, err := image.Bind(mod, mem)             // now it is as the snapshot was
//	… call a function of mod …
//	err = inst.Reset()                            // and again it is
//
// # What is restored
//
// All of linear memory up to the furthest that it ever reached, its length, and all mutable globals. For
// nothing else is it known how: so [Examine] refuses modules that have more state than that, such as
// tables that change at run time, and says which. Those need a new instance for every task.
//
// # How
//
// On Linux a snapshot is a sealed memfd, without the pages that are zero. A memory is a range of
// addresses as long as its limit, of which nothing is there until it is touched: its beginning is a
// private mapping of the memfd, the rest is anonymous. So growing does not move it, and all instances
// share the pages that they only read. What a task wrote are the pages that are private by now. The
// kernel tells which these are, by one of several ways (see [Way]); [Open] tries them on memory of its
// own and takes the first that gives what is true. Pages that were found are overwritten with those of
// the snapshot, not given back, since the fault of a page that is written again takes ten times the
// copy; but only up to a budget, and pages that seem not to be used any more are given back from time
// to time. Elsewhere, or where the kernel grants nothing of this, memories are Go slices that are copied
// as a whole.
//
// Instances are kept between tasks in a [Pool]. To make one more is cheaper by far for a module that
// [Strip] took the data segments from.
//
// # Where it stops, and hazards
//
//   - State outside the instance is the caller's: WASI's file descriptors and arguments, what host
//     functions remember, and fuel. A counter of fuel that is an exported global is restored to its value
//     at the snapshot, so set it after Reset.
//   - Whatever a guest read before its snapshot is part of it: arguments, environment, the clock, and
//     seeds. All instances of one image have the same hash seeds and pseudo-random streams; this makes
//     results repeatable, and is no good for secrets.
//   - Take a snapshot only between calls, and reset an instance only after a call that returned. One that
//     was stopped, or whose end is in doubt, is not to be reused: call [Instance.Spoil] and close it.
//   - A slice that api.Memory.Read gave must not be used after Close either. After Reset it shows the
//     next task's bytes.
//   - No call may run in an instance during Reset or Close, nor begin after Close, which wazero does not
//     prevent: the compiled code would use addresses that are gone.
//   - Tables and memories that another instance imports are changed behind our back. Give a module's
//     exports to the host only.
//   - A live memory takes two mappings of the process, which Linux allows 65,530 (vm.max_map_count).
//   - The bytes are not in Go's heap: neither the collector nor a Go memory limit knows of them.
//   - Instantiating copies the module's active data segments over the new view, and so writes to it; Bind
//     puts that right. Modules with a start function are refused, since it would run on memory on which
//     it has run already. For the same reason _initialize is not to be called again.
package image
