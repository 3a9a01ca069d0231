package grid

import (
	"context"
	"io"
	"io/fs"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Engine runs guests in sandboxes. It is safe for concurrent use.
type Engine interface {
	// Prepare makes a module ready to run: checks and compiles it, unless that was done before. An
	// engine that can run a module in another way while it compiles may return before that has ended. Its
	// errors are Invalid, Unsupported or Limit, saying what is wrong with the module and what to do about it.
	Prepare(ctx context.Context, module cid.Cid) error
	// Inspect prepares a module and tells what it is and how its guests are run. With settled it waits until
	// that will not change any more.
	Inspect(ctx context.Context, module cid.Cid, settled bool) (Module, error)
	// Run runs one guest to its end. What the guest does, be it exit, trap or reaching a limit, is in
	// the outcome; the error is for the host's own failures, for a module that Prepare refuses, and
	// for ctx ending.
	Run(ctx context.Context, g *Guest) (Outcome, error)
	// Close waits for running guests, whose contexts the caller has ended.
	Close() error
}

// Module is what an engine knows of a module that it can run.
type Module struct {
	Kind      ModuleKind `json:"kind"`             // whether it is a program or a library
	Functions []string   `json:"functions"`        // of a library: what a stage may name; empty when it takes any name
	Any       bool       `json:"any_function"`     // it finds the function itself, by GRID_FUNC: a library that takes any name, a program that mentions the variable
	Imports   []string   `json:"imports"`          // module and name, sorted
	Size      int        `json:"size_bytes"`       // of the binary
	MinMemory uint64     `json:"min_memory_bytes"` // linear memory to begin with
	MaxMemory uint64     `json:"max_memory_bytes"` // that it may ask for
	Names     bool       `json:"names"`            // its functions have names, for stacks and profiles
	Extism    bool       `json:"extism,omitempty"` // a plug-in for Extism, whose functions are called by its rules
	// Manifest is what it says of itself, if it is a plugin.
	Manifest *Manifest `json:"manifest,omitempty"`
	// Signers are those whose signatures it carries. All of these are right, or it would not run.
	Signers []peer.ID `json:"signers,omitempty"`
	Way     string    `json:"way"`         // how each guest comes by its instance, in a word
	Why     string    `json:"why"`         // it is that way
	Image   uint64    `json:"image_bytes"` // of memory that instances are put back to; 0 without
}

// ModuleKind is how a module begins.
type ModuleKind string

// The kinds, in WASI's words: a command has a _start, a reactor is a library of functions.
const (
	Command ModuleKind = "command"
	Reactor ModuleKind = "reactor"
)

// Guest is one sandbox to be: an invocation whose names have been resolved to things.
type Guest struct {
	Module cid.Cid
	Func   string   // of a reactor; a command is told by its environment
	Args   []string // with the program's name first
	Env    []string
	Stdin  io.Reader // nil: empty
	Stdout io.Writer // an error it returns ends the guest's write
	Stderr io.Writer
	Mounts map[string]fs.FS // absolute guest path to read-only tree
	Limits Limits           // all but Total, which is the caller's, are the engine's to enforce
	Seed   [32]byte         // of the guest's random source
	Impure bool             // it sees the real clock and real randomness
	Net    []string         // where it may send HTTP requests to, in the forms of NetGrant
	// KV is the map that the guest may use. nil: none. Secrets and data that it was granted are among its Mounts.
	KV KV
	// Progress is told how far the guest says it is: done of total, in units of its own; total 0 says that it does not
	// know. It is called on the guest's goroutine, must not wait, and may be called often. nil: nobody listens.
	Progress func(done, total uint64)
	// Profile asks where its fuel goes. It changes nothing for the guest.
	Profile bool
	// Tasks runs what the guest spawns. nil: it may spawn nothing.
	Tasks Tasks
}

// KV is the part of the realm's map that a guest was granted. Keys are as the guest writes them, without [UserKeys]. An
// error that is Denied, Invalid, Limit, NotFound or Conflict is the guest's to handle; others are the host's failure.
type KV interface {
	// Get reads one entry; NotFound when there is none.
	Get(ctx context.Context, key string) (Entry, error)
	// List reads entries whose keys begin with a prefix and are greater than after, in order of keys, at most limit, and
	// no more than one page; more says that others follow.
	List(ctx context.Context, prefix, after string, limit int) (entries []Entry, more bool, err error)
	// Commit applies a transaction, all of it or, with Conflict, nothing. Its If, Put and Delete name the guest's keys.
	Commit(ctx context.Context, t Txn) (revision uint64, err error)
}

// Tasks runs tasks that a guest spawns, of its own module and with all that it sees itself but its inputs. It is for
// the goroutine that the guest runs in. Children are numbered from 0 in the order in which they were spawned, and
// nothing that it tells depends on where they run, or when.
type Tasks interface {
	// Spawn has a child run. An Invalid or Limit error is of the guest's making: the call is not one that there can
	// be, or it has spawned as much as it may. Others are the host's failure.
	Spawn(ctx context.Context, c Call) (child uint32, err error)
	// Ended reports whether Await would not wait.
	Ended(child uint32) bool
	// Await waits until a child has ended. Each can be awaited once; it is NotFound after that, and before it was
	// spawned. Other errors are the host's failure.
	Await(ctx context.Context, child uint32) (Ending, error)
}

// Call is a function of the guest's own module with what a child is given.
type Call struct {
	Func  string
	Args  []string
	Stdin []byte // the receiver's
}

// Ending is how a child has ended.
type Ending struct {
	Exit   uint32
	Fault  *Fault        // nil when it exited. One that is Fatal ends the parent, too, who must not know.
	Stdout io.ReadCloser // nil with a fault
	Stderr []byte        // when it is short
}

// Outcome is how a guest ended.
type Outcome struct {
	Exit   uint32
	Fault  *Fault        // nil when it exited
	Memory uint64        // linear memory at the end, which is the most it had, bytes
	Fuel   uint64        // work, counted the same on every node; 0 from an engine that does not count
	Calls  uint64        // of host functions
	Queue  time.Duration // waited for room on the node before it began
	Wait   time.Duration // waited for its module to be compiled, having been interpreted meanwhile to no avail
	Run    time.Duration // from first to last guest instruction, without Parked
	Parked time.Duration // waited for tasks that it spawned, and for room to go on
	Out    fs.FS         // what it left in /out; nil when nothing
	// Metrics are what it counted and measured, by name. They are a function of the invocation, as its output is.
	Metrics []Metric
	// Profile is where its fuel went, by stacks of functions: a gzipped profile of pprof's format. nil unless
	// the guest asked for it.
	Profile []byte
}
