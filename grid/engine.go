package grid

import (
	"context"
	"io"
	"io/fs"
	"time"

	"github.com/ipfs/go-cid"
)

// Engine runs guests in sandboxes. It is safe for concurrent use.
type Engine interface {
	// Prepare makes a module ready to run: checks and compiles it, unless that was done before. Its
	// errors are Invalid or Unsupported, saying what is wrong with the module and what to do about it.
	Prepare(ctx context.Context, module cid.Cid) error
	// Run runs one guest to its end. What the guest does, be it exit, trap or reaching a limit, is in
	// the outcome; the error is for the host's own failures, for a module that Prepare refuses, and
	// for ctx ending.
	Run(ctx context.Context, g *Guest) (Outcome, error)
	// Close waits for running guests, whose contexts the caller has ended.
	Close() error
}

// Guest is one sandbox to be: an invocation whose names have been resolved to things.
type Guest struct {
	Module cid.Cid
	Args   []string // with the program's name first
	Env    []string
	Stdin  io.Reader // nil: empty
	Stdout io.Writer // an error it returns ends the guest's write; the caller bounds it
	Stderr io.Writer
	Mounts map[string]fs.FS // absolute guest path to read-only tree
	Limits Limits           // Memory, Scratch, Files, Wall and Fuel are the engine's to enforce
	Seed   [32]byte         // of the guest's random source
}

// Outcome is how a guest ended.
type Outcome struct {
	Exit   uint32
	Fault  *Fault        // nil when it exited
	Memory uint64        // linear memory at the end, bytes
	Fuel   uint64        // work, counted the same on every node; 0 from an engine that does not count
	Run    time.Duration // from first to last guest instruction
	Out    fs.FS         // what it left in /out; nil when nothing
}
