// Package doctor looks whether a machine is fit for a node, and whether a node is well: a table of small checks, each of
// which tells what it found and how to fix what is wrong. It looks and changes nothing, but for a small file that it writes
// to the home and removes. What it looks at is in a [World], so that tests can make up one.
package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Info    Level = "info"    // neither good nor bad
	Warning Level = "warning" // it works, though not as well as it could
	Failure Level = "failure" // it does not work
)

// Finding is what a check found.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Found string `json:"found"`
	Fix   string `json:"fix,omitempty"` // of what is not OK
}

// Report is what all checks found.
type Report struct {
	Home     string    `json:"home"`
	Running  bool      `json:"node_running"`
	Findings []Finding `json:"findings"`
	Warnings int       `json:"warnings"`
	Failures int       `json:"failures"`
}

// World is what checks look at.
type World struct {
	Home   string
	Socket string // where a node of the home serves its API

	// Of the running node. Node is nil when none runs, and NodeErr says why one that seems to does not answer.
	Node    *grid.NodeStatus
	NodeErr error
	Ledger  *grid.LedgerStatus
	Checkup *grid.Checkup
	Use     *grid.StoreUse
	InUse   bool // the home, by a node or a command

	Nearby  string                                                         // folder in which nodes of this machine find each other
	Disk    func(dir string) (Disk, error)                                 // of a folder that is there
	Owner   func(path string) (mine bool, err error)                       // whether this user owns it
	Listen  func(network, address string) error                            // tries to
	Mcast   func() (interfaces []string, err error)                        // that are up and can do multicast
	Files   func() (uint64, error)                                         // that the process may have open
	Memory  func() (total, limit uint64)                                   // of the machine, and of the container; 0: not known, none
	Engine  func(context.Context) (way string, d time.Duration, err error) // compiles and runs a tiny module
	Fast    func() (string, error)                                         // how memories of instances are put back
	Version func(ctx context.Context, tool string, args ...string) (string, error)
}

// Disk is the state of one.
type Disk struct {
	Free, Total           uint64 // bytes
	FreeInodes, AllInodes uint64 // 0 of 0: it has no such bound
}

// check is one line of the table.
type check struct {
	name string
	what string // it looks at
	run  func(context.Context, *World) []Finding
}

// checks is the table, in the order of the report.
var checks = []check{
	{"home", "the home: whose it is and who may read it", checkHome},
	{"disk", "room on its disk, and a write that lasts", checkDisk},
	{"node", "the node and its API socket", checkNode},
	{"version", "versions, of this program and of peers", checkVersion},
	{"blocks", "damaged blocks that are known", checkBlocks},
	{"port", "the ports that nodes listen on", checkPort},
	{"clock", "the clock, against those of peers", checkClock},
	{"swarm", "the node's membership of its private swarm, and the authority's key", checkSwarm},
	{"ledger", "the realm, its majority and who is behind", checkLedger},
	{"discovery", "how nodes find each other", checkDiscovery},
	{"reach", "whether others can reach the node", checkReach},
	{"peers", "who is connected, and by what", checkPeers},
	{"limits", "open files, and memory for tasks", checkLimits},
	{"engine", "a tiny module, compiled and run", checkEngine},
	{"toolchain", "compilers for those who write plugins", checkToolchains},
}

// Checks names the checks, each with what it looks at.
func Checks() (list [][2]string) {
	for _, c := range checks {
		list = append(list, [2]string{c.name, c.what})
	}
	return list
}

// Run runs all checks.
func Run(ctx context.Context, w *World) Report {
	r := Report{Home: w.Home, Running: w.Node != nil, Findings: []Finding{}}
	for _, c := range checks {
		for _, f := range c.run(ctx, w) {
			f.Check = c.name
			switch f.Level {
			case Warning:
				r.Warnings++
			case Failure:
				r.Failures++
			}
			r.Findings = append(r.Findings, f)
		}
	}
	return r
}

func found(level Level, format string, args ...any) Finding {
	return Finding{Level: level, Found: fmt.Sprintf(format, args...)}
}

func (f Finding) fix(format string, args ...any) Finding {
	f.Fix = fmt.Sprintf(format, args...)
	return f
}

func one(f Finding) []Finding { return []Finding{f} }

// size writes bytes for people.
func size(n uint64) string {
	f, unit := float64(n), 0
	for ; f >= 1024 && unit < 4; unit++ {
		f /= 1024
	}
	return fmt.Sprintf("%.4g %s", f, [...]string{"B", "KiB", "MiB", "GiB", "TiB"}[unit])
}
