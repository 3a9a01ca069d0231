package sdk

import (
	"bufio"
	"fmt"
	"io"
)

// The kinds of functions that extend a node; docs/extending.md specifies the documents that they are given.
const (
	kindSplitter  = "splitter"
	kindScorer    = "scorer"
	kindAdmission = "admission"
	kindNotifier  = "notifier"
)

// Admission makes an admission policy: it is given what is to be known of a job, and says whether a realm's nodes accept
// it. `grid plugin attach admission NAME.FUNCTION` has them ask it. An error is no decision: what becomes of the job then is
// for the realm to say. The function answers by the job alone; it is granted nothing.
func Admission(name string, f func(ctx Context, job JobInfo) (Decision, error)) Function {
	return typed(kindAdmission, name, f)
}

// Notifier makes a function that is told of what happens to jobs, one event a call. `grid plugin attach notifier
// NAME.FUNCTION --allow-net HOST` has a realm's nodes tell it. After an error it is told again, a few times. It may be told
// of an event that it was told of before; their IDs are the same.
func Notifier(name string, f func(ctx Context, ev JobEvent) error) Function {
	return typed(kindNotifier, name, func(ctx Context, ev JobEvent) (struct{}, error) { return struct{}{}, f(ctx, ev) })
}

// Scorer makes a function that says how well a node suits the tasks of a stage: nodes with higher scores are given them
// rather, and one with a score below 0 never is. 0 is what nodes have without a scorer. `grid plugin attach scorer
// NAME.FUNCTION` has a realm's nodes ask it. It answers by what it is given alone.
func Scorer(name string, f func(ctx Context, stage StageInfo, node Candidate) (float64, error)) Function {
	return typed(kindScorer, name, func(ctx Context, ask scoring) (scores, error) {
		out := scores{Scores: make([]float64, len(ask.Nodes))}
		for i, node := range ask.Nodes {
			score, err := f(ctx, ask.Stage, node)
			if err != nil {
				return out, fmt.Errorf("node %s: %w", node.ID, err)
			}
			out.Scores[i] = score
		}
		return out, nil
	})
}

// scoring is the document that a scorer is given, and scores the one that it answers.
type scoring struct {
	Version int         `json:"version,omitzero"`
	Stage   StageInfo   `json:"stage"`
	Nodes   []Candidate `json:"nodes"`
}

type scores struct {
	Scores []float64 `json:"scores"` // of the nodes, in their order
}

// Splitter makes a function that says how files become tasks: each piece that it emits is the input of a task of its own,
// in that order. `grid run --each FILES --split NAME.FUNCTION` runs it as one task, with the files as its inputs. Pieces may
// overlap, and need not cover the files.
func Splitter(name string, f func(ctx Context, files []File, emit func(Piece) error) error) Function {
	return makeFunction(function{name: name, kind: kindSplitter, run: func(ctx Context) error {
		files, err := ctx.files()
		if err != nil {
			return err
		}
		known := make(map[string]bool, len(files))
		for _, file := range files {
			known[file.Name] = true
		}
		w := bufio.NewWriterSize(ctx.Stdout(), 32<<10)
		enc := newEncoder(w)
		err = f(ctx, files, func(p Piece) error {
			if !known[p.File] || p.Offset < 0 || p.Length < 0 {
				return fmt.Errorf("piece of %d bytes from %d on of %.100q: there is no such thing in the files", p.Length, p.Offset, p.File)
			}
			return enc.Encode(p)
		})
		if err != nil {
			return err
		}
		return w.Flush()
	}})
}

// Piece is what a task is given of a file.
type Piece struct {
	File   string `json:"file"` // its name, as the splitter sees it
	Offset int64  `json:"offset,omitzero"`
	Length int64  `json:"length,omitzero"` // in bytes; 0: up to the end of the file
	Name   string `json:"name,omitzero"`   // of the task's input; "": the file's name and a number
}

// Size is how many bytes the file has. It may have to read all of it.
func (f File) Size() (int64, error) {
	r, err := f.Open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	if s, ok := r.(io.Seeker); ok {
		return s.Seek(0, io.SeekEnd)
	}
	return io.Copy(io.Discard, r)
}

// JobInfo is what an admission policy is told of a job.
type JobInfo struct {
	Version    int         `json:"version,omitzero" doc:"of this document: 1"`
	Node       string      `json:"node,omitzero" doc:"the node that is to accept the job"`
	User       string      `json:"user,omitzero" doc:"for whom it runs, as the submitter says"`
	Name       string      `json:"name,omitzero"`
	Priority   int         `json:"priority,omitzero" doc:"among the user's jobs"`
	Parallel   uint32      `json:"parallel,omitzero" doc:"tasks at a time; 0 is any number"`
	DeadlineMS int64       `json:"deadline_ms,omitzero" doc:"from now on; 0 is none"`
	Verify     string      `json:"verify,omitzero" doc:"what it asks for itself: none, audit=P, adaptive or quorum=K"`
	Replicas   int         `json:"replicas,omitzero" doc:"nodes that are to keep what it comes to"`
	Publish    []string    `json:"publish,omitempty" doc:"refs that it is to change"`
	Tasks      uint64      `json:"tasks,omitzero" doc:"of all stages, as far as is known"`
	InputBytes uint64      `json:"input_bytes,omitzero" doc:"of all stages, as far as is known, and as the submitter says"`
	Owner      string      `json:"owner" doc:"the node of another realm whose stage this one is to run; none for the realm's own jobs"`
	Realm      string      `json:"realm" doc:"of which that is"`
	Stages     []StageInfo `json:"stages,omitempty"`
}

// StageInfo is what extensions are told of a stage.
type StageInfo struct {
	Name       string   `json:"name,omitzero"`
	Plugin     string   `json:"plugin,omitzero" doc:"NAME@VERSION, if it is run by that"`
	Module     string   `json:"module,omitzero" doc:"the module's CID"`
	Func       string   `json:"func,omitzero"`
	Tasks      uint32   `json:"tasks,omitzero"`
	InputBytes uint64   `json:"input_bytes,omitzero"`
	Impure     bool     `json:"impure,omitzero"`
	Net        []string `json:"net,omitempty" doc:"what it is granted of the network"`
	KV         []string `json:"kv,omitempty" doc:"what it is granted of the realm's map"`
	Secrets    []string `json:"secrets,omitempty" doc:"that it is granted"`
	Data       []string `json:"data,omitempty" doc:"CIDs that it is granted"`
	TimeoutMS  int64    `json:"timeout_ms,omitzero" doc:"of one task, as what follows"`
	Memory     uint64   `json:"memory_bytes,omitzero"`
	Output     uint64   `json:"output_bytes,omitzero"`
	Scratch    uint64   `json:"scratch_bytes,omitzero"`
	Fuel       uint64   `json:"fuel,omitzero" doc:"0 is no limit"`
	Cores      uint32   `json:"cores,omitzero"`
	Require    string   `json:"require,omitzero" doc:"selector of nodes"`
	Prefer     string   `json:"prefer,omitzero" doc:"selector of nodes"`
}

// Decision is what an admission policy says. The zero Decision refuses.
type Decision struct {
	Accept bool   `json:"accept"`
	Reason string `json:"reason,omitzero"` // for the user, 1 KiB at most
	// Verify has a job that is accepted verified: audit=P, adaptive or quorum=K. What the job asks for itself counts if it
	// is stricter.
	Verify string `json:"verify,omitzero"`
}

// Accept is a decision for a job.
func Accept() Decision { return Decision{Accept: true} }

// Refuse is a decision against a job, with the reason, which the user is told.
func Refuse(format string, args ...any) Decision {
	return Decision{Reason: fmt.Sprintf(format, args...)}
}

// JobEvent is what a notifier is told.
type JobEvent struct {
	Version int    `json:"version,omitzero" doc:"of this document: 1"`
	ID      string `json:"id,omitzero" doc:"equal for repetitions"`
	Event   string `json:"event" doc:"submitted, taken, stage, trouble, done, failed or cancelled"`
	Time    string `json:"time,omitzero" doc:"RFC 3339"`
	Node    string `json:"node,omitzero" doc:"the node that drives the job"`
	Job     string `json:"job,omitzero" doc:"its ID"`
	Name    string `json:"name,omitzero"`
	User    string `json:"user,omitzero"`
	State   string `json:"state,omitzero"`
	Stage   string `json:"stage,omitzero" doc:"the name of the stage that it is about"`
	Text    string `json:"text,omitzero" doc:"for people"`
}

// Candidate is a node that may run tasks.
type Candidate struct {
	ID      string            `json:"id"`
	Labels  map[string]string `json:"labels,omitempty"`
	Slots   int               `json:"slots,omitzero" doc:"tasks at a time"`
	Memory  uint64            `json:"memory_bytes,omitzero" doc:"for all tasks; 0 is not bounded"`
	Scratch uint64            `json:"scratch_bytes,omitzero" doc:"for all tasks; 0 is not bounded"`
	RTT     float64           `json:"rtt_ms,omitzero" doc:"round trip from the node that asks; 0 is not known"`
	Self    bool              `json:"self,omitzero" doc:"it is the node that asks"`
}
