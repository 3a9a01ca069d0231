package grid

import (
	"cmp"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Bounds on what one job may ask for.
const (
	MaxStages     = 64
	MaxTasks      = 1 << 20   // of one stage
	MaxTaskInputs = 1 << 14   // of one task; all outputs of a stage are one of them
	MaxArgs       = 1 << 12   // arguments, and as many environment variables
	MaxArgBytes   = 256 << 10 // all arguments and environment variables of a stage together
	MaxMounts     = 64
	MaxName       = 128
)

// Spec is what a job is, normalised and immutable; its block's CID names it. Two submissions of the
// same work have the same spec.
type Spec struct {
	Version   uint    `cbor:"v" json:"version"`                           // of this format: SpecVersion
	Name      string  `cbor:"name,omitempty" json:"name,omitempty"`       // for people
	Stages    []Stage `cbor:"stages" json:"stages"`                       // each behind those that it takes outputs of
	KeepGoing bool    `cbor:"keep,omitempty" json:"keep_going,omitempty"` // go on after a failed task
	// Allow is how many tasks may fail without the job failing. What needs a task that failed does without it.
	Allow uint32 `cbor:"allow,omitempty" json:"allow,omitempty"`
	// Salt makes results that are known from jobs with another salt, or none, count for nothing.
	Salt string `cbor:"salt,omitempty" json:"salt,omitempty"`
}

// SpecVersion is the only spec format there is.
const SpecVersion = 2

// Stage is one function of one module over many rows of inputs. How its rows come about is one of:
// Inputs names a table; Tasks alone gives that many tasks without inputs; From names earlier stages whose outputs the
// tasks are given, alone or besides a table.
type Stage struct {
	Name   string   `cbor:"name,omitempty" json:"name,omitempty"`     // unique in the job; "": it is given one
	Module Link     `cbor:"module" json:"module"`                     // of the Wasm binary
	Plugin string   `cbor:"plugin,omitempty" json:"plugin,omitempty"` // NAME@VERSION that the module is, if it was run by that
	Func   string   `cbor:"func,omitempty" json:"func,omitempty"`     // for modules built with the SDK; "" runs main
	Args   []string `cbor:"args,omitempty" json:"args,omitempty"`     // "{}" stands for the task's input paths
	Env    []string `cbor:"env,omitempty" json:"env,omitempty"`       // NAME=value
	Mounts []Mount  `cbor:"mounts,omitempty" json:"mounts,omitempty"` // that every task sees besides its inputs
	Stdin  Link     `cbor:"stdin,omitzero" json:"stdin,omitzero"`     // one file for every task
	Feed   bool     `cbor:"feed,omitempty" json:"feed,omitempty"`     // each task's inputs, concatenated, are its stdin
	Inputs Link     `cbor:"inputs,omitzero" json:"inputs,omitzero"`   // the table of its rows, a task for each; none: see Tasks and From
	Tasks  uint32   `cbor:"tasks" json:"tasks"`                       // how many; 0 when that comes from a table, a sweep or other stages
	Limits Limits   `cbor:"limits" json:"limits"`                     // of each attempt
	// Impure tasks see the real clock and real randomness. Their results are not kept for later jobs, and of
	// several attempts the first that the owner records counts.
	Impure  bool `cbor:"impure,omitempty" json:"impure,omitempty"`
	Grants       // of each task; with some the stage is impure
	Profile bool `cbor:"profile,omitempty" json:"profile,omitempty"` // record where each task's fuel goes

	// From are earlier stages whose outputs the tasks are given, in place of Inputs or besides.
	From []Source `cbor:"from,omitempty" json:"from,omitempty"`
	// Partitions is in how many parts each task leaves its output, for stages that take it by parts; 0: in one.
	Partitions uint32 `cbor:"parts,omitempty" json:"partitions,omitempty"`
	Split      Split  `cbor:"split,omitempty" json:"split,omitempty"` // who makes the parts
	// Merge makes the lines of a task's inputs its stdin, in order of their keys. Each input must be in order, as
	// parts by SplitLines are.
	Merge bool `cbor:"merge,omitempty" json:"merge,omitempty"`

	// Sweep gives the stage a task for each combination of points of its axes, in place of Inputs. Where arguments and
	// environment variables name a parameter in braces, as in "{rate}", they get its value. The tasks have no number,
	// so that they are the same in a sweep over more.
	Sweep []Axis `cbor:"sweep,omitempty" json:"sweep,omitempty"`

	// Require and Prefer are selectors of nodes by their labels; see [ParseSelector].
	Require  string  `cbor:"require,omitempty" json:"require,omitempty"`
	Prefer   string  `cbor:"prefer,omitempty" json:"prefer,omitempty"`
	Reserve  Reserve `cbor:"reserve,omitzero" json:"reserve,omitzero"`     // what each task is given of its node
	Attempts uint32  `cbor:"attempts,omitempty" json:"attempts,omitempty"` // tries of a task that fails for its nodes' reasons; 0: 3
}

// Source is an earlier stage whose outputs are given to the tasks of a later one. With Fan 0 and no Part, every task
// is given all of them. Fan gives task i those of tasks i*Fan to (i+1)*Fan-1, as far as there are any. Part gives task
// i part i of the output of every task. All sources with Fan or Part, and the table of inputs, must come to the same
// number of tasks.
type Source struct {
	Stage uint32 `cbor:"stage" json:"stage"`                   // the earlier stage, counted from 0
	Fan   uint32 `cbor:"fan,omitempty" json:"fan,omitempty"`   // so many tasks of the earlier stage to each of this one; 0: not by fan
	Part  bool   `cbor:"part,omitempty" json:"part,omitempty"` // task i is given part i of every task's output
	As    string `cbor:"as,omitempty" json:"as,omitempty"`     // the folder below /in; "": /in itself, for the only source of a stage without inputs
}

// Split says who divides the output of a task into parts.
type Split string

// The ways. By "" the task itself does, into files or folders of /out that are named by number, in 7 digits. By
// SplitLines its node does, with the lines that it prints: each goes into the part that a hash of its key says, which
// is what precedes its first tab; the lines of a part are in order of keys, and lines of equal keys in the order in
// which they were printed.
const SplitLines Split = "lines"

// MaxPartitions bounds the parts of one output, MaxPieces those of all tasks of a stage together.
const (
	MaxPartitions = 1 << 14
	MaxPieces     = 1 << 22
)

// Reserve is what one task is given of its node. Nodes never run more at a time than they have.
type Reserve struct {
	Cores   uint32 `cbor:"cores,omitempty" json:"cores,omitempty"`           // slots; 0 is 1
	Memory  uint64 `cbor:"memory,omitempty" json:"memory_bytes,omitempty"`   // 0: not reckoned with
	Scratch uint64 `cbor:"scratch,omitempty" json:"scratch_bytes,omitempty"` // 0: not reckoned with
}

// Mount shows a file or folder to the guest, read-only, at an absolute path.
type Mount struct {
	Path string `cbor:"path" json:"path"` // absolute, in the guest
	CID  Link   `cbor:"cid" json:"cid"`   // of the file or folder
}

// Input is one file or folder given to one task; the guest finds it at /in/NAME.
type Input struct {
	Name string `cbor:"name" json:"name"` // slash-separated, see fs.ValidPath
	CID  Link   `cbor:"cid" json:"cid"`   // of the file or folder
	Size int64  `cbor:"size" json:"size"` // bytes, for sharing work out; not believed
}

// Limits bound one task. Zero means the default; a spec holds no zeros, except where there is none.
type Limits struct {
	Wall    time.Duration `cbor:"wall" json:"wall_ns"`                       // running time
	Queue   time.Duration `cbor:"queue,omitempty" json:"queue_ns,omitempty"` // waiting for room on its node; 0 means no limit
	Total   time.Duration `cbor:"total,omitempty" json:"total_ns,omitempty"` // of an attempt, from fetching inputs to the end of running; 0 means no limit
	Memory  uint64        `cbor:"memory" json:"memory_bytes"`                // linear memory
	Output  uint64        `cbor:"output" json:"output_bytes"`                // of stdout, and of stderr
	Scratch uint64        `cbor:"scratch" json:"scratch_bytes"`              // written under /out and /tmp together
	Files   uint32        `cbor:"files" json:"scratch_files"`                // files and folders there
	Open    uint32        `cbor:"open" json:"open_files"`                    // files open at a time
	Calls   uint64        `cbor:"calls,omitempty" json:"calls,omitempty"`    // of host functions; 0 means no limit
	Fuel    uint64        `cbor:"fuel,omitempty" json:"fuel,omitempty"`      // work, in units of docs/abi.md; 0 means no limit
}

// DefaultLimits are generous for one task on a laptop. MaxLimits is what a node grants at most.
var (
	DefaultLimits = Limits{Wall: 10 * time.Minute, Memory: 512 << 20, Output: 64 << 20, Scratch: 256 << 20, Files: 10_000, Open: 1024}
	MaxLimits     = Limits{Wall: 24 * time.Hour, Memory: 4 << 30, Output: 1 << 30, Scratch: 4 << 30, Files: 1_000_000, Open: 4096}
)

// Request is what a submitter hands in: a spec whose stages may name their rows directly. Rows[i], if
// not nil, becomes the table of stage i.
type Request struct {
	Spec
	Rows    [][]Row `cbor:"rows,omitempty" json:"rows,omitempty"`        // of each stage: a list of tasks, each a list of inputs
	NoCache bool    `cbor:"nocache,omitempty" json:"no_cache,omitempty"` // run tasks even if their results are known
	// Replicas is how many nodes are to keep what the job comes to; 0: as many as Copies says.
	Replicas int `cbor:"replicas,omitempty" json:"replicas,omitempty"`
	// Copies is on how many nodes of the realm what the job needs is to be before it is accepted, and what it
	// comes to before it has ended, so that it survives the loss of all but one of them. 0: the node's default;
	// 1: only here.
	Copies int `cbor:"copies,omitempty" json:"copies,omitempty"`
	// Publish names refs that are to point at what the job comes to once it is Done: at what the one task of its last
	// stage left in /out, else at its standard output; of several tasks, at a folder of these. The last stage is that of
	// the spec, whatever takes from it. They change in the transaction that ends the job.
	Publish []string `cbor:"publish,omitempty" json:"publish,omitempty"`
	// Traceparent is the span of the caller, which the job's is linked to; "", or what is none: there is no such. In the API it is a header.
	Traceparent string `cbor:"-" json:"-"`
	Policy
}

// Policy is how a job is to be run, besides what it is. It changes no result.
type Policy struct {
	// User is for whom the job runs, "": for the node that accepts it. It is taken at its word.
	User     string `cbor:"user,omitempty" json:"user,omitempty"`
	Priority int    `cbor:"prio,omitempty" json:"priority,omitempty"`     // among the user's jobs: -MaxPriority to MaxPriority
	Parallel uint32 `cbor:"parallel,omitempty" json:"parallel,omitempty"` // tasks that may be handed out at a time; 0: any number
	// Deadline is how long after its submission the job fails if it has not ended, Start if none of its tasks has
	// begun to run. 0: never.
	Deadline time.Duration `cbor:"deadline,omitempty" json:"deadline_ns,omitempty"`
	Start    time.Duration `cbor:"start,omitempty" json:"start_ns,omitempty"`
	// Verify says what of nodes' results is believed. The zero value is all.
	Verify Verify `cbor:"verify,omitzero" json:"verify,omitzero"`
	// Offload says whether nodes of other realms may run its tasks, and so read what those are given.
	Offload Offload `cbor:"offload,omitempty" json:"offload,omitempty"`
}

// MaxPublish is how many refs one job may publish.
const MaxPublish = 16

// Row is the inputs of one task.
type Row []Input

// Normalize fills in defaults and checks the spec, naming what is wrong. Tables are not opened.
func (s *Spec) Normalize() error {
	if s.Version != 0 && s.Version != SpecVersion {
		return Errorf(Unsupported, "the job's spec has version %d, this node knows %d", s.Version, SpecVersion).
			Hint("is one of the two nodes older? `grid version` tells")
	}
	s.Version = SpecVersion
	if !utf8.ValidString(s.Name) {
		return Errorf(Invalid, "the job's name %q is not UTF-8", s.Name)
	}
	if len(s.Name) > MaxName {
		return Errorf(Invalid, "the job's name has %d bytes, at most %d are allowed", len(s.Name), MaxName)
	}
	if len(s.Stages) == 0 || len(s.Stages) > MaxStages {
		return Errorf(Invalid, "a job has 1 to %d stages, this one %d", MaxStages, len(s.Stages))
	}
	for i := range s.Stages {
		st := &s.Stages[i]
		if st.Name == "" {
			st.Name = defaultStageName(st, i)
		}
		if err := st.check(s.Stages[:i]); err != nil {
			return Errorf(CodeOf(err), "stage %d (%s): %w", i, st.Name, err)
		}
	}
	return s.normalizePlacing()
}

func defaultStageName(st *Stage, i int) string {
	if st.Func != "" {
		return st.Func
	}
	if i == 0 {
		return "main"
	}
	return "stage" + string(rune('0'+i%10))
}

func (st *Stage) check(before []Stage) error {
	if err := CheckCID(st.Module.Cid); err != nil {
		return Errorf(Invalid, "module: %w", err)
	}
	if err := st.checkSweep(); err != nil {
		return err
	}
	if err := st.checkSources(before); err != nil {
		return err
	}
	if st.Feed && st.Stdin.Defined() {
		return Errorf(Invalid, "stdin is either a file or the task's inputs")
	}
	if len(st.Name) > MaxName || len(st.Func) > MaxName {
		return Errorf(Invalid, "a name has more than %d bytes", MaxName)
	}
	if !utf8.ValidString(st.Name) || !utf8.ValidString(st.Func) {
		return Errorf(Invalid, "a name is not UTF-8: %q, %q", st.Name, st.Func)
	}
	if len(st.Plugin) > MaxPluginRef || !utf8.ValidString(st.Plugin) {
		return Errorf(Invalid, "%.80q is not NAME@VERSION of a plugin", st.Plugin)
	}
	if err := checkWords("argument", st.Args); err != nil {
		return err
	}
	if err := checkWords("environment variable", st.Env); err != nil {
		return err
	}
	for _, e := range st.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" {
			return Errorf(Invalid, "environment variable %q: want NAME=value", e)
		}
	}
	if err := checkMounts(st.Mounts); err != nil {
		return err
	}
	if err := st.Grants.Normalize(); err != nil {
		return err
	}
	st.Impure = st.Impure || st.Grants.Impure()
	return st.Limits.normalize()
}

func checkWords(what string, words []string) error {
	if len(words) > MaxArgs {
		return Errorf(Limit, "%d %ss, at most %d are allowed", len(words), what, MaxArgs)
	}
	total := 0
	for _, w := range words {
		if strings.ContainsRune(w, 0) {
			return Errorf(Invalid, "%s %q contains a zero byte", what, w)
		}
		if !utf8.ValidString(w) { // it could be encoded, but no node would decode it
			return Errorf(Invalid, "%s %q is not UTF-8", what, w)
		}
		total += len(w)
	}
	if total > MaxArgBytes {
		return Errorf(Limit, "the %ss have %d bytes, at most %d are allowed", what, total, MaxArgBytes)
	}
	return nil
}

// Paths in the guest that the grid itself uses.
const (
	GuestIn  = "/in"  // the task's inputs
	GuestOut = "/out" // what the task leaves behind
	GuestTmp = "/tmp" // scratch, gone afterwards
)

func checkMounts(mounts []Mount) error {
	if len(mounts) > MaxMounts {
		return Errorf(Limit, "%d mounts, at most %d are allowed", len(mounts), MaxMounts)
	}
	seen := map[string]bool{GuestIn: true, GuestOut: true, GuestTmp: true, GuestSecrets: true, GuestData: true}
	below := map[string]string{} // folders above mount points, each with one of those
	for _, m := range mounts {
		if !path.IsAbs(m.Path) || path.Clean(m.Path) != m.Path || m.Path == "/" ||
			!utf8.ValidString(m.Path) || strings.ContainsRune(m.Path, 0) {
			return Errorf(Invalid, "mount point %q: want a clean absolute path below /", m.Path)
		}
		if seen[m.Path] {
			return Errorf(Invalid, "mount point %q is taken", m.Path)
		}
		seen[m.Path] = true
		for dir := path.Dir(m.Path); dir != "/"; dir = path.Dir(dir) {
			if seen[dir] {
				return Errorf(Invalid, "mount point %q lies below %s, which is taken", m.Path, dir)
			}
			below[dir] = m.Path
		}
		if other, ok := below[m.Path]; ok {
			return Errorf(Invalid, "mount point %q lies above another, %s", m.Path, other)
		}
		if err := CheckCID(m.CID.Cid); err != nil {
			return Errorf(Invalid, "mount %s: %w", m.Path, err)
		}
	}
	return nil
}

// MinTaskMemory is one page of Wasm memory, of which there are no parts.
const MinTaskMemory = 64 << 10

// CheckTaskMemory refuses memory in which no task could start.
func CheckTaskMemory(bytes uint64) error {
	if bytes >= MinTaskMemory {
		return nil
	}
	return Errorf(Invalid, "%s of memory: the least that there is, one page, is %s", sizeText(bytes), sizeText(MinTaskMemory)).
		Hint("a size without a unit is in bytes; write for example 64MiB")
}

func (l *Limits) normalize() error {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	fill := func(v *uint64, def, most uint64, what string, text func(uint64) string) error {
		if *v == 0 {
			*v = def
		}
		if *v > most {
			return Errorf(Limit, "%s limit %s is above the most that is granted, %s", what, text(*v), text(most))
		}
		return nil
	}
	if err := CheckTaskMemory(cmp.Or(l.Memory, DefaultLimits.Memory)); err != nil {
		return Errorf(CodeOf(err), "memory limit: %w", err)
	}
	for _, d := range []time.Duration{l.Wall, l.Queue, l.Total} {
		if d < 0 {
			return Errorf(Invalid, "negative time limit %v", d)
		}
	}
	wall, files, open := uint64(l.Wall), uint64(l.Files), uint64(l.Open)
	for _, err := range []error{
		fill(&wall, uint64(DefaultLimits.Wall), uint64(MaxLimits.Wall), "time", func(n uint64) string { return time.Duration(n).String() }),
		fill(&l.Memory, DefaultLimits.Memory, MaxLimits.Memory, "memory", sizeText),
		fill(&l.Output, DefaultLimits.Output, MaxLimits.Output, "output", sizeText),
		fill(&l.Scratch, DefaultLimits.Scratch, MaxLimits.Scratch, "scratch", sizeText),
		fill(&files, uint64(DefaultLimits.Files), uint64(MaxLimits.Files), "scratch file", number),
		fill(&open, uint64(DefaultLimits.Open), uint64(MaxLimits.Open), "open file", number),
	} {
		if err != nil {
			return err
		}
	}
	l.Wall, l.Files, l.Open = time.Duration(wall), uint32(files), uint32(open)
	return nil
}

// State is where a job stands.
type State string

// The states; the last three are final.
const (
	Running   State = "running"
	Waiting   State = "waiting"   // its owner does not answer; never in a record
	Done      State = "done"      // every task ended with exit code 0
	Failed    State = "failed"    // some task did not
	Cancelled State = "cancelled" // somebody cancelled it
)

// Final reports whether a job in this state will never change again.
func (s State) Final() bool { return s != Running && s != Waiting }

// Record is a job's entry in the ledger, under "job/" and its ID. Until it is final there is another one, under
// "open/" and its ID, with its owner's peer ID as text. Whoever writes it does so on the condition that it is
// still as they know it, so that an owner who has been replaced can change nothing.
type Record struct {
	ID       JobID    `cbor:"id"`
	Name     string   `cbor:"name,omitempty"` // of the spec
	Spec     Link     `cbor:"spec"`
	Owner    peer.ID  `cbor:"owner"`
	Epoch    Epoch    `cbor:"epoch"`
	State    State    `cbor:"state"`
	Fresh    bool     `cbor:"fresh,omitempty"`    // run tasks even if their results are known
	Bound    bool     `cbor:"bound,omitempty"`    // ends with the command that submitted it
	Replicas int      `cbor:"replicas,omitempty"` // of what it comes to; 0: as many as Copies says
	Copies   int      `cbor:"copies,omitempty"`   // of what it needs and comes to; 0: the owner's default
	Durable  int      `cbor:"durable,omitempty"`  // nodes that had all it needs when it was accepted; 0: its owner
	Publish  []string `cbor:"publish,omitempty"`  // refs to be set when it is Done
	Origin   peer.ID  `cbor:"origin,omitempty"`   // the node that it was submitted to
	Writes   []string `cbor:"writes,omitempty"`   // prefixes of the keys that its tasks may write
	Caller   string   `cbor:"caller,omitempty"`   // the traceparent with which it was submitted
	Policy
	Submitted time.Time `cbor:"submitted"`
	Ended     time.Time `cbor:"ended,omitzero"`
	// Kit is what is pinned for the job in place of its spec, while it runs, when not all that it needs was here.
	Kit Link `cbor:"kit,omitzero"`
	// Checkpoint is of a Checkpoint block, while it runs. Result is of a Result block, once it is final.
	Checkpoint Link `cbor:"checkpoint,omitzero"`
	Result     Link `cbor:"result,omitzero"`

	Used   *Usage        `cbor:"used,omitempty"` // by its tasks, once it is final
	Error  string        `cbor:"error,omitempty"`
	Code   Code          `cbor:"code,omitempty"`   // of Error
	Stages []StageStatus `cbor:"stages,omitempty"` // once final
}

// finish sets a record's final state and, unless it is Done, the reason.
func (r *Record) finish(state State, why error) {
	r.State, r.Ended, r.Code, r.Error = state, time.Now().UTC(), 0, ""
	if why != nil {
		r.Code, r.Error = CodeOf(why), clean(why.Error(), maxMessage)
	}
}

// Result is what a job came to. Stages[i] is a table of Completions in order of their index; tasks
// that did not end are not in it. Its DAG is what the tasks have left.
type Result struct {
	Job    JobID  `cbor:"job"`
	Stages []Link `cbor:"stages"`
	// Events are the last of what happened to the job, the last one its end.
	Events []JobEvent `cbor:"events,omitempty"`
}
