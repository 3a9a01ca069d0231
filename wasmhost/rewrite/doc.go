// Package rewrite counts the work of a Wasm module by changing its code: the instrumented module does
// what the given one does, and counts fuel down while it does so; and its NaNs are the same on every
// processor. It parses and encodes core Wasm 2.0;
// what fuel is for, and what happens when it runs out, is left to the host.
//
// # How fuel is counted
//
// The module gets a mutable global, exported as [ExportFuel], which begins at 0 and is what the guest
// may still use up, and an import, [ImportModule].[ImportRefuel]:
//
//	refuel(left i64) -> i64
//
// At each charging point the code takes the cost of what follows off the global. If that makes it
// negative, the code hands it to refuel and stores what comes back: left plus a new slice of fuel,
// which should not be negative. Refuel ends the guest by not returning. So at any time the guest has
// used up all that it was given minus what the global holds; and since refuel is called by the first
// charging point, a guest that never calls it has not used any.
//
// Charging points are the head of every loop, passed once each iteration, and the entry of every
// function, unless the function is a short one that its callers have paid for: neither loops nor calls,
// and at most costCall units. A point is charged the dearest path from it to wherever the next points
// can be, which is known without running the code; so the count is a little above what is executed, but
// it is the same on every machine, for every engine and in every run, and nothing is executed that has
// not been paid for.
//
// A loop without loops and calls in it is left when fuel runs out, for a loop that is put around it and asks
// for more there: a call within would have the engine keep less in registers. That is not charged.
//
// # How deep calls are
//
// Another mutable global, exported as [ExportDepth], is how many more calls may be under way. Functions
// that call others of the module, directly or through a table, take themselves off it at their entry and
// put themselves back wherever they return: the body becomes a block, which returns leave like its end.
// A function counts once, and once more for every 64 locals and 512 bytes of code, so that the engine's
// stack, whose frames grow with these, ends later than the count. One that finds less left than it
// needs calls refuel with [StackFull], and traps. After a trap the global is too low: the instance is
// over, or the host sets it to [MaxDepth].
//
// # What instructions cost
//
//	1    an instruction, if nothing else is said
//	0    block, loop, else, end, nop, drop, unreachable
//	2    loads, stores, br_table, ref.func, vector instructions
//	4    table.get, table.set, vector loads and stores
//	8    integer division and remainder; floating-point division and square root
//	16   call, bulk instructions
//	20   call_indirect
//	256  a call of an imported function, memory.grow
//	1    every charging point itself
//
// Bulk instructions are also charged by their length when they are reached: a unit for every 8 bytes of
// memory, 2 for every element of a table. The table is part of the ABI: changing it changes counts that
// were signed.
//
// memory.fill and memory.copy become calls of two functions at the end of the module, which do the work
// in pieces of 1 MiB with a charging point each, so that even the largest ends soon after it was asked
// to. Table and segment operations are bounded by the size of tables and of the module.
//
// # NaNs
//
// Which NaN an arithmetic instruction gives is the processor's choice, in the specification as in fact. With
// [Options].NaN it is always the positive canonical one, as if every result were replaced at once. Instructions
// that move bits (loads, stores, select, neg, abs, copysign and the like) keep those of any NaN.
//
// Most results are only calculated with further, where it makes no difference which NaN it is. So values are
// followed through operands and locals, and replaced where their bits are looked at: stored, reinterpreted,
// passed to a call or a global, or returned. Where a local may hold such a result or a value that must
// keep its bits, depending on the way taken, results are replaced before. Where following would take more than a
// few steps for every byte of the function, they all are, at once. None of this is charged.
//
// # select
//
// A select between floating-point numbers or vectors becomes a branch, since wazero's compiler for amd64 gets it wrong
// when registers are short (as of version 1.12; TestSelect has programs).
//
// # Bad input
//
// Whatever the bytes are, Instrument returns in time and memory proportional to their number, and what
// it returns with is safe to give to an engine that trusts counts: every list has as many elements as
// it says, no list makes the engine allocate out of proportion, and instructions have as many operands as
// they take. Types of operands are left to the engine to check.
package rewrite

// Names that instrumented modules add. A module that has them already is refused.
const (
	ImportModule = "grid_host"
	ImportRefuel = "refuel"
	ExportFuel   = "grid.fuel"
	ExportDepth  = "grid.depth" // how many more calls may be under way
)

// Depth of the stack.
const (
	// MaxDepth is how many calls may be under way at a time, those of large functions counting more.
	MaxDepth = 1 << 16
	// StackFull is what refuel is given by a guest that is about to trap because a call would be
	// deeper than MaxDepth. What refuel returns then is ignored.
	StackFull = -1 << 63

	weightLocals = 64  // that count as another call
	weightCode   = 512 // bytes that do
)

// Bounds on a module; those that the binary format or common engines share are not ours to choose.
const (
	maxTypes     = 1 << 17
	maxParams    = 1000
	maxImports   = 1 << 16
	maxFunctions = 200_000
	maxTables    = 1 << 7
	maxGlobals   = 1 << 18
	maxExports   = 1 << 17
	maxSegments  = 1 << 20
	maxElements  = 1 << 20 // in all element segments
	maxLocals    = 50_000  // of one function
	maxAllLocals = 1 << 23
	maxPoints    = 1 << 20 // of charging, each of which takes more than 20 bytes of code
)

// Bounds on one function. Engines stop compiling between functions only, and take more than linear time
// over these; at any one of these bounds it is a second or two.
const (
	maxBody     = 1 << 20 // bytes
	maxNesting  = 1 << 12
	maxLabels   = 1 << 15 // of all br_table
	maxBranches = 1 << 14 // of which a loop counts as six, an if as two
	maxCarried  = 2000    // locals that are used on both sides of a branch
	maxWays     = 1 << 21 // branches times those locals
	maxJumps    = 1 << 12 // that make results canonical; beyond it, that is done without them
	maxResults  = 1 << 16 // that are made canonical, each of which takes up to 40 bytes of code
)
