// Package jobfile reads job files: the YAML, or JSON, that says what a job of many stages is. [Parse] turns the text
// into a checked [File] and tells all that is wrong with it, by line. [File.Plan] finds the files that it names, by
// way of a small interface, and gives the request for a node, with all but the CIDs of what has to be uploaded.
//
// It knows nothing of nodes and sends nothing: that is package cli's. docs/jobs.md is the reference of the format, and
// job.schema.json here its JSON schema.
package jobfile

import (
	_ "embed"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	"go.yaml.in/yaml/v3"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Schema is the JSON schema of job files.
//
//go:embed job.schema.json
var Schema []byte

// File is a job file that was read.
type File struct {
	Path              string // of the file, for errors; who reads it sets it
	Name              string
	Params            []Param
	Policy            grid.Policy
	KeepGoing         bool
	Allow             uint32
	Publish           []string
	Copies, Replicas  int
	Salt              string
	NoCache           bool
	Stages            []*Stage // each behind those that it takes from
	stagesByName      map[string]*Stage
	stagesAreReadable bool // each by itself
}

// Stage is a stage as its file tells it.
type Stage struct {
	// Stage has what needs no more work. It lacks links, tables, sources and, but with Count and a sweep, the number
	// of tasks.
	grid.Stage
	Line   int
	Module string // what names the module
	Stdin  string // and the stdin of every task, or ""
	Mounts []Mount
	Each   *Each // nil: no files
	Takes  []Take
	FanIn  uint32 // of a reduction by a tree; 0: none

	feed   *bool
	count  uint32
	reduce string
	around around
	keys   map[string]*yaml.Node
	at     *yaml.Node
}

// Mount shows the file or folder that From names at a path of the guest.
type Mount struct{ Path, From string }

// Take is a stage whose output is taken; see [grid.Source].
type Take struct {
	Stage string
	Fan   uint32
	Part  bool
	As    string

	set bool // how it is taken was said
	at  *yaml.Node
}

// Each says which files are inputs, and how they are dealt out to tasks.
type Each struct {
	Patterns   []string
	GroupCount int    // files of one task; 0: one
	GroupBytes int64  // or bytes of the files of one task, about
	PerFolder  bool   // a task for each folder
	Cut        *Cut   // a task for each chunk; nil: files are not cut
	Split      string // the function of a plugin that makes pieces of the files, a task for each; "": none

	at *yaml.Node
}

const (
	top          = "a job file"
	defaultFanIn = 8
	maxPatterns  = 1 << 10
)

// Parse reads a job file, with values for its params. The file is nil if it cannot be run; else all problems are
// warnings.
func Parse(text []byte, set map[string]string) (*File, []Problem) {
	return new(reader).parse(text, set)
}

func (r *reader) parse(text []byte, set map[string]string) (*File, []Problem) {
	doc := r.document(text)
	if doc == nil {
		return nil, inOrder(r.problems)
	}
	f := r.file(doc, set)
	if f.stagesAreReadable {
		f.Stages = r.sorted(f.Stages, f.stagesByName)
		r.checkTakes(f)
	}
	r.unused()
	problems := inOrder(r.problems)
	if Failed(problems) {
		return nil, problems
	}
	return f, problems
}

// Where is the place of a stage in its file, for errors.
func (f *File) Where(st *Stage) string {
	if f.Path == "" {
		return fmt.Sprintf("line %d: stage %s", st.Line, st.Name)
	}
	return fmt.Sprintf("%s:%d: stage %s", f.Path, st.Line, st.Name)
}

// Params reads no more of a file than its params, as far as that can be done.
func Params(text []byte) []Param {
	r := new(reader)
	doc := r.document(text)
	if doc == nil || doc.Kind != yaml.MappingNode {
		return nil
	}
	return r.readParams(child(doc, "params"), nil)
}

func child(n *yaml.Node, key string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func (r *reader) file(n *yaml.Node, set map[string]string) *File {
	f := &File{stagesByName: map[string]*Stage{}}
	f.Params = r.readParams(child(n, "params"), set)
	before := len(r.problems)
	got := r.object(n, top, map[string]field{
		"name":     r.toText(&f.Name),
		"params":   func(*yaml.Node) {}, // read first
		"policy":   func(n *yaml.Node) { r.policy(n, f) },
		"publish":  r.toTexts(&f.Publish),
		"copies":   r.toInt(&f.Copies, 1, grid.MaxCopies),
		"replicas": r.toInt(&f.Replicas, 1, grid.MaxCopies),
		"salt":     r.toText(&f.Salt),
		"no-cache": r.toBool(&f.NoCache),
		"stages":   func(n *yaml.Node) { r.stages(n, f) },
	})
	if got != nil && got["stages"] == nil {
		r.problem(n, "there are no stages")
	}
	if len(f.Name) > grid.MaxName {
		r.problem(got["name"], "the name has more than %d bytes", grid.MaxName)
	}
	if len(f.Salt) > grid.MaxName {
		r.problem(got["salt"], "the salt has more than %d bytes", grid.MaxName)
	}
	if len(f.Publish) > grid.MaxPublish {
		r.problem(got["publish"], "%d refs to publish, at most %d are allowed", len(f.Publish), grid.MaxPublish)
	}
	for i, name := range f.Publish {
		if err := grid.CheckRefName(name); err != nil {
			r.problem(got["publish"], "%v", err)
		} else if slices.Contains(f.Publish[:i], name) {
			r.problem(got["publish"], "the ref %q is to be published twice", name)
		}
	}
	f.stagesAreReadable = len(f.Stages) > 0 && !Failed(r.problems[before:])
	return f
}

func (r *reader) policy(n *yaml.Node, f *File) {
	p := &f.Policy
	offload, verify := false, ""
	got := r.object(n, "policy", map[string]field{
		"user":         r.toText(&p.User),
		"priority":     r.toInt(&p.Priority, -grid.MaxPriority, grid.MaxPriority),
		"parallel":     r.toUint32(&p.Parallel, 1, math.MaxUint32),
		"deadline":     r.toTime(&p.Deadline),
		"start-within": r.toTime(&p.Start),
		"verify": func(n *yaml.Node) {
			const want = "none, quorum=K, audit=P or adaptive"
			s, _, ok := r.scalar(n, want)
			if !ok {
				return
			}
			v, err := grid.ParseVerify(s)
			if err != nil {
				r.problem(n, "%v", err).hint("want %s", want)
			}
			p.Verify, verify = v, v.String()
		},
		"offload": r.toBool(&offload),
		"failures": func(n *yaml.Node) {
			if body, _ := r.enter(n); body.Kind == yaml.MappingNode {
				r.object(n, "failures", map[string]field{"allow": r.toUint32(&f.Allow, 0, grid.MaxTasks)})
			} else {
				var word string
				r.toWord(&word, "fail-fast", "continue")(n)
				f.KeepGoing = word == "continue"
			}
			r.leave()
		},
	})
	_ = p.SetOffload(offload, verify) // whose errors were told above
	switch {
	case len(p.User) > grid.MaxName:
		r.problem(got["user"], "user: more than %d bytes", grid.MaxName)
	case p.Deadline > 0 && p.Start > p.Deadline:
		r.problem(got["start-within"], "start-within %v is longer than deadline %v", p.Start, p.Deadline)
	}
}

// stages reads the list or mapping of stages.
func (r *reader) stages(n *yaml.Node, f *File) {
	add := func(name string, at, body *yaml.Node) {
		before := len(r.problems)
		st := r.stage(name, at, body)
		all := []*Stage{st}
		if !Failed(r.problems[before:]) {
			all = r.spread(st, st.keys)
		}
		for _, st := range all[:len(all)-1] {
			f.stagesByName[st.Name] = st
		}
		f.Stages = append(f.Stages, all[:len(all)-1]...)
		st = all[len(all)-1]
		switch {
		case st.Name == "":
		case f.stagesByName[st.Name] != nil:
			r.problem(at, "there are two stages %q", st.Name)
		default:
			f.stagesByName[st.Name] = st
		}
		f.Stages = append(f.Stages, st)
	}
	body, ok := r.enter(n)
	r.leave()
	switch {
	case !ok:
		return
	case body.Kind == yaml.MappingNode:
		r.pairs(n, "stages", func(key, value *yaml.Node) { add(key.Value, key, value) })
	case body.Kind == yaml.SequenceNode:
		r.items(n, func(it *yaml.Node) { add("", it, it) })
	default:
		r.problem(n, "want stages, in a list or by their names, got %s", describe(body))
		return
	}
	switch {
	case len(f.Stages) == 0:
		r.problem(n, "there are no stages")
	case len(f.Stages) > grid.MaxStages:
		r.problem(n, "%d stages, at most %d are allowed", len(f.Stages), grid.MaxStages)
	}
}

// stage reads a stage. Its name is "" in a list, where a key gives it.
func (r *reader) stage(name string, at, n *yaml.Node) *Stage {
	st := &Stage{at: at, Line: at.Line}
	st.Name = name
	before := len(r.problems)
	l := &st.Limits
	var wrapped struct {
		by         string
		partitions uint32
	}
	got := r.object(n, "a stage", map[string]field{
		"name": func(n *yaml.Node) {
			if name != "" {
				r.problem(n, "the stage has its name already, %s", clip(name)).hint("leave this key out, or make stages a list")
				return
			}
			st.Name = r.text(n)
		},
		"description": func(n *yaml.Node) { r.text(n) },
		"module":      r.toText(&st.Module),
		"plugin":      r.toText(&st.Plugin),
		"func":        r.toText(&st.Func),
		"args":        r.toTexts(&st.Args),
		"env":         func(n *yaml.Node) { st.Env = r.env(n) },
		"mounts":      func(n *yaml.Node) { st.Mounts = r.mounts(n) },
		"stdin":       r.toText(&st.Stdin),
		"feed": func(n *yaml.Node) {
			st.feed = new(bool)
			r.toBool(st.feed)(n)
		},
		"limits": func(n *yaml.Node) {
			r.object(n, "limits", map[string]field{
				"timeout": r.toTime(&l.Wall), "queue": r.toTime(&l.Queue), "total": r.toTime(&l.Total),
				"memory": r.toSize(&l.Memory), "output": r.toSize(&l.Output), "scratch": r.toSize(&l.Scratch),
				"files": r.toUint32(&l.Files, 1, math.MaxUint32), "open": r.toUint32(&l.Open, 1, math.MaxUint32),
				"calls": r.toUint64(&l.Calls, 1), "fuel": r.toUint64(&l.Fuel, 1),
			})
		},
		"impure":        r.toBool(&st.Impure),
		"allow-net":     r.toTexts(&st.Net),
		"allow-kv":      r.toTexts(&st.KV),
		"allow-secret":  r.toTexts(&st.Secrets),
		"allow-decrypt": r.toTexts(&st.Decrypt),
		"allow-data":    r.toTexts(&st.Data),
		"require":       func(n *yaml.Node) { st.Require = r.selector(n) },
		"prefer":        func(n *yaml.Node) { st.Prefer = r.selector(n) },
		"reserve": func(n *yaml.Node) {
			r.object(n, "reserve", map[string]field{
				"cores": r.toUint32(&st.Reserve.Cores, 1, math.MaxUint32), "memory": r.toSize(&st.Reserve.Memory), "scratch": r.toSize(&st.Reserve.Scratch),
			})
		},
		"attempts": r.toUint32(&st.Attempts, 1, math.MaxUint32),
		"count":    r.toUint32(&st.count, 1, grid.MaxTasks),
		"each":     func(n *yaml.Node) { st.Each = r.each(n) },
		"sweep":    func(n *yaml.Node) { st.Sweep = r.readSweep(n) },
		"from":     func(n *yaml.Node) { r.items(n, func(it *yaml.Node) { st.Takes = append(st.Takes, r.take(it)) }) },
		"shuffle": func(n *yaml.Node) {
			wrapped.by = "key"
			if got := r.object(n, "shuffle", map[string]field{
				"partitions": r.toUint32(&wrapped.partitions, 1, grid.MaxPartitions), "by": r.toWord(&wrapped.by, "key", "task"),
			}); got != nil && got["partitions"] == nil {
				r.problem(n, "shuffle needs partitions: in how many parts")
			}
			st.Partitions = wrapped.partitions
			if wrapped.by == "key" {
				st.Split = grid.SplitLines
			}
		},
		"reduce":  r.toWord(&st.reduce, "all", "by-key", "tree"),
		"fan-in":  r.toUint32(&st.FanIn, 2, grid.MaxTaskInputs/2),
		"decode":  r.toText(&st.around.decode),
		"encode":  r.toText(&st.around.encode),
		"combine": r.toText(&st.around.combine),
		"fan":     r.toUint32(&st.around.fan, 2, grid.MaxTaskInputs/2),
	})
	if got == nil {
		return st
	}
	if st.Name == "" && name == "" && got["name"] == nil {
		r.problem(at, "the stage has no name").hint("give it one with the key name")
	} else if !stageName(st.Name) {
		r.problem(at, "stage name %q: want 1 to %d letters, digits, _ and -", clip(st.Name), maxStageName)
		st.Name = ""
	}
	switch {
	case Failed(r.problems[before:]):
	case st.Module != "" && st.Plugin != "":
		r.problem(got["plugin"], "stage %s has both a module and a plugin", st.Name).hint("leave one of them out")
	case st.Plugin != "":
		if _, err := grid.ParsePluginRef(st.Plugin); err != nil {
			r.problem(got["plugin"], "plugin: %v", err)
		}
	case st.Module == "":
		r.problem(at, "stage %s has neither a module nor a plugin", st.Name)
	}
	if !Failed(r.problems[before:]) {
		r.combine(st, got)
	}
	st.keys = got
	if st.around.fan > 0 && st.around.combine == "" {
		r.problem(got["fan"], "stage %s: fan is for combine: how many outputs are combined at a time", st.Name)
	}
	return st
}

const maxStageName = 64

func stageName(s string) bool {
	return s != "" && len(s) <= maxStageName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}

// combine checks what a stage's keys say together.
func (r *reader) combine(st *Stage, got map[string]*yaml.Node) {
	var makers []string
	for _, key := range []string{"count", "each", "sweep"} {
		if got[key] != nil {
			makers = append(makers, key)
		}
	}
	at := st.at
	switch {
	case len(makers) > 1:
		r.problem(got[makers[1]], "stage %s: %s exclude each other: each says which tasks there are", st.Name, strings.Join(makers, " and "))
	case st.reduce != "" && len(st.Takes) == 0:
		r.problem(got["reduce"], "stage %s: reduce says how the output of other stages is taken, but there is no from", st.Name)
	case got["fan-in"] != nil && st.reduce != "tree":
		r.problem(got["fan-in"], "stage %s: fan-in is for reduce: tree", st.Name)
	case st.reduce == "tree" && len(st.Takes) != 1:
		r.problem(got["reduce"], "stage %s: a tree reduces the output of one stage, not of %d", st.Name, len(st.Takes))
	case st.reduce == "tree" && len(makers) > 0:
		r.problem(got[makers[0]], "stage %s: %s and reduce: tree exclude each other: each says which tasks there are", st.Name, makers[0])
	case st.reduce == "tree" && st.Takes[0].set:
		r.problem(st.Takes[0].at, "stage %s: take and reduce: tree exclude each other", st.Name)
	case len(st.Takes) == 0 && len(makers) == 0:
		st.count = 1
	}
	if st.reduce == "tree" && st.FanIn == 0 {
		st.FanIn = defaultFanIn
	}
	st.Merge = st.reduce == "by-key"
	dealt := ""
	for i := range st.Takes {
		t := &st.Takes[i]
		if !t.set && st.reduce == "by-key" {
			t.Part = true
		}
		if t.Fan > 0 || t.Part {
			dealt = t.Stage
		}
		if t.As == "" && (len(st.Takes) > 1 || st.Each != nil) {
			t.As = t.Stage
		}
		for _, u := range st.Takes[:i] {
			if u.As == t.As {
				r.problem(t.at, "stage %s: two inputs are named %q below /in", st.Name, t.As).hint("name them with as")
			}
		}
		if t.As != "" && (!stageName(t.As)) {
			r.problem(t.at, "stage %s: as: %q: want 1 to %d letters, digits, _ and -", st.Name, clip(t.As), maxStageName)
		}
	}
	if dealt != "" && len(makers) > 0 && makers[0] != "each" {
		r.problem(got[makers[0]], "stage %s: %s says which tasks there are, and so does what it takes from %s", st.Name, makers[0], dealt).
			hint("take all of it, or leave %s out", makers[0])
	}
	inputs := st.Each != nil || len(st.Takes) > 0
	switch {
	case grid.UsesPlaceholder(st.Args) && !inputs:
		r.problem(got["args"], "stage %s: the arguments mention {}, the task's inputs, but it has none", st.Name).hint("each and from give inputs")
	case st.feed != nil && *st.feed && st.Stdin != "":
		r.problem(got["feed"], "stage %s: stdin is either a file or the task's inputs", st.Name)
	case st.feed != nil && *st.feed && !inputs:
		r.problem(got["feed"], "stage %s: feed makes inputs the tasks' stdin, but there are none", st.Name)
	case st.Merge && st.Stdin != "":
		r.problem(got["stdin"], "stage %s: reduce: by-key makes the tasks' stdin", st.Name)
	}
	st.Feed = inputs && !st.Merge && st.Stdin == "" && st.Func == "" && !grid.UsesPlaceholder(st.Args)
	if st.feed != nil {
		st.Feed = *st.feed && !st.Merge
	}
	for _, a := range st.Sweep {
		for _, name := range a.Names {
			named := func(w string) bool { return strings.Contains(w, "{"+name+"}") }
			if !slices.ContainsFunc(st.Args, named) && !slices.ContainsFunc(st.Env, named) {
				r.warn(got["sweep"], "stage %s: neither args nor env mention {%s}, so that tasks that differ in it alone are the same", st.Name, name)
			}
		}
	}
	if err := st.check(); err != nil {
		p := r.problem(at, "stage %s: %v", st.Name, err)
		p.Hint = grid.AdviceOf(err)
	}
}

// check has the node's own rules look at what can be said of a stage by itself.
func (st *Stage) check() error {
	alone := st.Stage
	alone.Env = slices.DeleteFunc(slices.Clone(st.Env), func(v string) bool { return !strings.Contains(v, "=") })
	alone.Module = stand
	for _, m := range st.Mounts {
		alone.Mounts = append(alone.Mounts, grid.Mount{Path: m.Path, CID: stand})
	}
	if len(st.Sweep) == 0 {
		alone.Tasks = max(st.count, 1)
	}
	alone.Partitions, alone.Split, alone.Merge = 0, "", false
	spec := grid.Spec{Stages: []grid.Stage{alone}}
	err := spec.Normalize()
	if err == nil {
		return nil
	}
	_, msg, _ := strings.Cut(err.Error(), "): ")
	return grid.Errorf(grid.CodeOf(err), "%s", msg).Hint("%s", grid.AdviceOf(err))
}

// stand stands for the link of what is yet to be uploaded.
var stand = grid.Link{Cid: grid.NewBlock(cid.Raw, nil).CID()}

// env reads NAME: value, or a list of NAME=value; without a value the caller's is handed on.
func (r *reader) env(n *yaml.Node) (list []string) {
	body, ok := r.enter(n)
	r.leave()
	if !ok {
		return nil
	}
	if body.Kind != yaml.MappingNode {
		list = r.texts(n)
	} else {
		r.pairs(n, "env", func(key, value *yaml.Node) {
			if strings.Contains(key.Value, "=") {
				r.problem(key, "env: %q: a name has no =", clip(key.Value))
				return
			}
			if body, ok := r.enter(value); ok && isNull(body) {
				list = append(list, key.Value)
			} else {
				list = append(list, key.Value+"="+r.text(value))
			}
			r.leave()
		})
	}
	for _, v := range list {
		if v == "" || v[0] == '=' {
			r.problem(n, "env: %q: want NAME=value, or NAME to hand on yours", clip(v))
		}
	}
	return list
}

// mounts reads GUESTPATH: SOURCE.
func (r *reader) mounts(n *yaml.Node) (list []Mount) {
	r.pairs(n, "mounts", func(key, value *yaml.Node) {
		m := Mount{Path: key.Value, From: r.text(value)}
		if !path.IsAbs(m.Path) {
			r.problem(key, "mounts: %q: want the guest's path, which begins with /", clip(m.Path)).hint("the guest's path comes first: /data: folder")
		}
		list = append(list, m)
	})
	return list
}

// selector reads a selector of nodes by their labels.
func (r *reader) selector(n *yaml.Node) string {
	s, _, ok := r.scalar(n, "a selector such as gpu=true")
	if !ok {
		return ""
	}
	sel, err := grid.ParseSelector(s)
	if err != nil {
		r.problem(n, "%v", err).Hint = grid.AdviceOf(err)
		return ""
	}
	return sel.String()
}

// each reads which files are inputs: patterns, or a mapping that says more.
func (r *reader) each(n *yaml.Node) *Each {
	e := &Each{at: n}
	body, ok := r.enter(n)
	r.leave()
	if !ok {
		return e
	}
	if body.Kind != yaml.MappingNode {
		e.Patterns = r.texts(n)
	} else {
		r.eachOf(n, e)
	}
	switch {
	case len(e.Patterns) > maxPatterns:
		r.problem(n, "each has %d patterns, at most %d are allowed", len(e.Patterns), maxPatterns)
	case slices.Contains(e.Patterns, ""):
		r.problem(n, "each: a pattern is empty")
	}
	return e
}

func (r *reader) eachOf(n *yaml.Node, e *Each) {
	var per string
	var lines, bytes, record uint64
	end := "\n"
	got := r.object(n, "each", map[string]field{
		"files": r.toTexts(&e.Patterns),
		"per":   r.toWord(&per, "file", "folder"),
		"group": func(n *yaml.Node) {
			s, _, ok := r.scalar(n, "a count such as 10, or bytes such as 1MiB")
			if !ok {
				return
			}
			v, err := ParseSize(s)
			switch {
			case err != nil || v == 0:
				r.problem(n, "want a count such as 10, or bytes such as 1MiB, got %q", clip(s))
			case strings.Trim(s, "0123456789") != "":
				e.GroupCount, e.GroupBytes = grid.MaxTaskInputs, int64(v)
			case v > grid.MaxTaskInputs:
				r.problem(n, "one task has at most %d inputs", grid.MaxTaskInputs)
			default:
				e.GroupCount, e.GroupBytes = int(v), math.MaxInt64
			}
		},
		"lines":    r.toUint64(&lines, 1),
		"bytes":    r.toSize(&bytes),
		"split-at": r.toText(&end),
		"record":   r.toSize(&record),
		"split":    r.toText(&e.Split),
	})
	if got == nil {
		return
	}
	e.PerFolder = per == "folder"
	var ways []string
	for _, key := range []string{"group", "per", "lines", "bytes", "split"} {
		if got[key] != nil && !(key == "per" && per == "file") {
			ways = append(ways, key)
		}
	}
	switch {
	case got["files"] == nil:
		r.problem(n, "each needs files: a pattern, or a list of them")
	case len(ways) > 1:
		r.problem(got[ways[1]], "%s exclude each other: each says what one task gets", strings.Join(ways, " and "))
	case got["split-at"] != nil && got["record"] != nil:
		r.problem(got["split-at"], "split-at and record exclude each other: records have an end, or a size")
	case got["split-at"] != nil && lines == 0 && bytes == 0:
		r.problem(got["split-at"], "split-at says where records end, but files are cut only with lines or bytes")
	case got["record"] != nil && bytes == 0:
		r.problem(got["record"], "record says how long records are, but there is no bytes: how much a task gets")
	case end == "" || len(end) > maxEnd:
		r.problem(got["split-at"], "split-at: want 1 to %d bytes", maxEnd)
	case bytes > MaxChunk || record > MaxChunk:
		r.problem(n, "a chunk of more than %d MiB is too much", MaxChunk>>20)
	case e.Split != "":
		if _, err := grid.ParsePluginRef(e.Split); err != nil {
			r.problem(got["split"], "split: %v", err).Hint = grid.AdviceOf(err)
		}
	case lines > 0 || bytes > 0:
		e.Cut = &Cut{Bytes: int64(bytes), Count: int64(lines), End: end, Record: int64(record)}
	}
}

// take reads one stage that is taken from: its name, or a mapping.
func (r *reader) take(n *yaml.Node) Take {
	t := Take{at: n}
	body, ok := r.enter(n)
	r.leave()
	if !ok {
		return t
	}
	if body.Kind != yaml.MappingNode {
		t.Stage = r.text(n)
		return t
	}
	got := r.object(n, "from", map[string]field{
		"stage": r.toText(&t.Stage),
		"as":    r.toText(&t.As),
		"take": func(n *yaml.Node) {
			t.set = true
			if body, _ := r.enter(n); body.Kind == yaml.MappingNode {
				if got := r.object(n, "take", map[string]field{"fan": r.toUint32(&t.Fan, 1, grid.MaxTasks)}); got != nil && got["fan"] == nil {
					r.problem(n, "take: want all, each, part or {fan: N}")
				}
			} else {
				var word string
				r.toWord(&word, "all", "each", "part")(n)
				t.Part = word == "part"
				if word == "each" {
					t.Fan = 1
				}
			}
			r.leave()
		},
	})
	if got != nil && got["stage"] == nil {
		r.problem(n, "from needs the stage whose output is taken").hint("its keys: stage, take, as")
	}
	return t
}
