// Package abi holds the names and numbers on which the grid's nodes and the programs that run there
// agree. docs/abi.md says what they mean. It imports nothing and has no code.
package abi

// Version of what a guest can see. A later version adds to it; what a program built for an earlier one uses stays as it is.
const Version = 2

// Environment variables that a guest finds set.
const (
	EnvABI  = "GRID_ABI"  // Version, in decimal
	EnvFunc = "GRID_FUNC" // the function to run, of a module that has several; absent when none was named
	EnvTask = "GRID_TASK" // the task's number, in stages that have neither inputs nor a sweep
	// EnvPartitions is in how many parts the task's output is to be; absent when in one.
	EnvPartitions = "GRID_PARTITIONS"
)

// Folders that a guest sees.
const (
	In  = "/in"  // the task's inputs, read-only
	Out = "/out" // what the task leaves behind
	Tmp = "/tmp" // scratch, gone afterwards

	Secrets = "/secrets" // a file for each secret that was granted
	Data    = "/cid"     // the DAGs that were granted, by CID
)

// A task that takes the outputs of earlier tasks finds them in In, or in a folder below it, in order of task number: a
// file named by the number in GatherDigits digits holds that task's stdout, when it wrote any; a folder
// of the same name with GatherDir appended is its Out, when it left one. Parts of outputs are named alike, by number.
const (
	GatherDigits = 7
	GatherDir    = ".out"
)

// Call is what a library (reactor) exports that has several functions behind one door: it takes nothing,
// runs the function that EnvFunc names, and gives the exit code as an i32.
const Call = "grid_call"

// Functions beside WASI, which guests import from Module. docs/abi.md specifies them.
const (
	Module = "grid"

	HTTPOpen = "http_open"
	Spawn    = "spawn"
	Await    = "await"
	KV       = "kv"       // since version 2
	Progress = "progress" // since version 2
	Count    = "count"    // since version 2
	Observe  = "observe"  // since version 2
	// LastError gives the message of the last of the functions above that failed. Since version 2.
	LastError = "last_error"

	MaxMessage = 1 << 10 // the most bytes that a message has
)

// Operations of KV, the first byte of its request.
const (
	KVGet    = 1
	KVList   = 2
	KVCommit = 3
)

// Describe is the function that every program of an SDK has: it prints what functions there are, as JSON of the form
// that docs/abi.md gives.
const Describe = "grid.describe"

// ChildInput is the name in In of what a child was given as its stdin.
const ChildInput = "stdin"

// MaxChildInput is the most bytes that a child is given.
const MaxChildInput = 16 << 20
