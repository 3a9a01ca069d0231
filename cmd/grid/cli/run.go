package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/remote"
)

// runFlags are the flags of grid run.
type runFlags struct {
	each      []string
	group     string
	count     uint32
	plugin    string
	fn        string
	reduce    string
	env       []string
	mounts    []string
	stdin     string
	pipe      bool
	out       string
	name      string
	detach    bool
	keepGoing bool
	noCache   bool
	replicas  int
	publish   []string
	show      output
	split     string
	decode    string
	encode    string
	timeout   time.Duration
	queue     time.Duration
	total     time.Duration
	open      uint32
	files     uint32
	calls     uint64
	impure    bool
	grants    grantFlags
	profile   string
	memory    sizeFlag
	fuel      uint64
	output    sizeFlag
	scratch   sizeFlag
	policy    policyFlags
}

func (e *env) runCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run MODULE|--plugin NAME [flags] [-- ARGS...]",
		Short: "Run a module, once or over many inputs",
		Long: `Run a WebAssembly module (WASI preview 1) as a job, and show what comes of it.

MODULE is a .wasm file, the URL or the CID of one, or a folder, which is built: one with a Go main package with
your go, a plugin's with the tools of its language, or with what its plugin.yaml says. These run as you, outside
of the sandbox. The rest of the command line is the module's arguments. With --plugin NAME[@VERSION] in place of MODULE it
is a plugin that was installed, and --func says which of its functions.

Without --each and --count the job has one task. With --each GLOB there is one task for each file that
matches, or for each --group of them. A task finds its inputs below /in by their names, which are their
paths below the part of the pattern without wildcards. {} in the arguments becomes their paths. If there
is no {}, no --stdin and no --func, the inputs are the task's standard input.

Wherever a file is named, so may be a URL: https://HOST/FILE, s3://BUCKET/KEY, and s3://BUCKET/PREFIX/ or,
for --each, s3://BUCKET/PATTERN. This command fetches it; #sha256=HEX or #cid=CID behind it pins the content.

With --count N there are N tasks; each finds its number, from 0, in GRID_TASK.

With --reduce the module's function map runs for each task, and its function reduce then runs once over
all that they printed and left in /out.

What the last stage's tasks print comes out here, in order of the tasks. What they write below /out is
kept in the grid, and copied to the folder of -o: straight into it if there is one task, else into a
folder for each task, named by its input or number. Files that are there are replaced. The folder may be
s3://BUCKET/PREFIX/.

Where it runs is chosen by --require, --prefer, --cores and the --reserve flags, when and how much of it by
--priority, --parallel and the deadlines; docs/scheduling.md tells more. ` + "`grid job --why JOB`" + ` says why a job does
not run.

The exit code is the guest's if it failed; see ` + "`grid help exit-codes`" + `.`,
		Example: `  grid run hello.wasm -- --greeting hi
  grid run ./resize --each 'photos/**/*.jpg' -o small -- --width 640 {}
  grid run ./wordcount --each 'texts/*.txt' --group 1MiB --reduce -o out
  grid run count.wasm --each 's3://bucket/logs/*.gz' -o s3://bucket/counts/
  grid run pi.wasm --count 100 --timeout 30s
  grid run --plugin wordcount@1 --func map --each 'texts/*.txt'
  grid run train.wasm --each 'data/*' --require 'gpu=true,zone in (a,b)' --reserve-memory 2GiB
  grid run nightly.wasm --count 5000 --priority -2 --parallel 8 --deadline 6h --allow-failures 10
  echo 'hello' | grid run upper.wasm -i`,
		Args: func(cmd *cobra.Command, args []string) error {
			if f.plugin != "" {
				return nil
			}
			return wantArgs(1, -1, "MODULE, a .wasm file, a CID or the folder of a program,")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			if f.plugin != "" {
				return e.run(cmd.Context(), f, "", args)
			}
			return e.run(cmd.Context(), f, args[0], args[1:])
		},
	}
	e.traceFlag(cmd)
	fl := cmd.Flags()
	fl.StringArrayVar(&f.each, "each", nil, "a task for each file or object that matches `GLOB`, where ** matches folders within folders; may be repeated")
	fl.StringVar(&f.group, "group", "", "how many inputs a task gets: a `COUNT`, or a size such as 1MiB (default 1, with --reduce 1MiB)")
	fl.StringVar(&f.split, "split", "", "have the splitter `NAME.FUNCTION[@VERSION]` of a plugin make pieces of the files of --each: a task for each")
	fl.StringVar(&f.decode, "decode", "", "have `NAME.FUNCTION[@VERSION]` of a plugin map each input of --each before the module gets it")
	fl.StringVar(&f.encode, "encode", "", "have `NAME.FUNCTION[@VERSION]` of a plugin map what each of the last tasks prints")
	fl.Uint32Var(&f.count, "count", 0, "run `N` tasks without inputs")
	fl.StringVar(&f.plugin, "plugin", "", "run the plugin `NAME[.FUNCTION][@VERSION]` in place of a module")
	_ = cmd.RegisterFlagCompletionFunc("plugin", e.completePlugins) // an error: there is no such flag
	fl.StringVar(&f.fn, "func", "", "the `FUNCTION` to run of a module built with the SDK (default main, with --reduce map)")
	_ = cmd.RegisterFlagCompletionFunc("func", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return e.completeFunctionsOf(cmd, f.plugin, prefix)
	})
	fl.StringVar(&f.reduce, "reduce", "", "gather all outputs with this `FUNCTION` of the module")
	fl.Lookup("reduce").NoOptDefVal = "reduce"
	fl.StringArrayVarP(&f.env, "env", "e", nil, "set an environment variable, `NAME=VALUE`; NAME alone hands on yours")
	fl.StringArrayVar(&f.mounts, "mount", nil, "show a file or folder to the tasks, read-only, `PATH|URL|CID|REF:GUESTPATH`")
	fl.StringVar(&f.stdin, "stdin", "", "give every task this `FILE` or URL as standard input; - is yours")
	fl.BoolVarP(&f.pipe, "pipe", "i", false, "give every task your standard input; the same as --stdin -")
	fl.StringVarP(&f.out, "output", "o", "", "copy what tasks write below /out to this `FOLDER`")
	fl.StringVar(&f.name, "name", "", "a `NAME` for the job")
	fl.BoolVarP(&f.detach, "detach", "d", false, "print the job's ID and do not wait for it")
	fl.BoolVar(&f.keepGoing, "keep-going", false, "go on with other tasks after one has failed")
	fl.StringArrayVar(&f.publish, "publish", nil, "have the ref `NAME` name what the last tasks leave, once the job is done; may be repeated")
	fl.IntVar(&f.replicas, "replicas", 0, "keep what the last tasks leave on `N` nodes (default only where the job was submitted)")
	fl.BoolVar(&f.noCache, "no-cache", false, "run tasks even if their results are known")
	fl.DurationVar(&f.timeout, "timeout", 0, fmt.Sprintf("how much `TIME` a task may run, such as 90s (default %v)", grid.DefaultLimits.Wall))
	fl.DurationVar(&f.queue, "queue-timeout", 0, "how much `TIME` a task may wait for memory on its node (default no limit)")
	fl.DurationVar(&f.total, "total-timeout", 0, "how much `TIME` a task may take in all, from fetching its inputs to its end (default no limit)")
	fl.Uint32Var(&f.open, "open-files", 0, fmt.Sprintf("a task may have `N` files open (default %d)", grid.DefaultLimits.Open))
	fl.Uint32Var(&f.files, "scratch-files", 0, fmt.Sprintf("a task may make `N` files and folders below /out and /tmp (default %d)", grid.DefaultLimits.Files))
	fl.Uint64Var(&f.calls, "calls", 0, "a task may call the system `N` times, such as to read or to write (default no limit)")
	fl.BoolVar(&f.impure, "impure", false, "let tasks see the real clock and real randomness; their results are not kept for later jobs")
	f.grants.add(cmd)
	fl.StringVar(&f.profile, "profile", "", "write a profile of where the tasks' fuel went to this `FILE`, for go tool pprof")
	fl.Uint64Var(&f.fuel, "fuel", 0, "a task may do `N` units of work, counted the same on every node, such as 1000000000 (default no limit)")
	fl.Var(&f.memory, "memory", "how much memory a task may use (default "+formatSize(grid.DefaultLimits.Memory)+")")
	fl.Var(&f.output, "output-limit", "how much a task may print (default "+formatSize(grid.DefaultLimits.Output)+")")
	fl.Var(&f.scratch, "scratch", "how much a task may write below /out and /tmp (default "+formatSize(grid.DefaultLimits.Scratch)+")")
	f.policy.add(cmd)
	e.maxDownloadFlag(cmd)
	f.show.prints(e, cmd, "{{or .id .job.id}}")
	groupFlags(cmd, runGroups)
	return cmd
}

// check refuses flags that contradict one another.
func (f *runFlags) check(cmd *cobra.Command) error {
	set := cmd.Flags().Changed
	switch {
	case set("each") && set("count"):
		return usageError(cmd, "--each and --count exclude each other: tasks have inputs, or they do not")
	case set("count") && f.count == 0:
		return usageError(cmd, "--count 0: a job has at least one task")
	case f.count > grid.MaxTasks:
		return usageError(cmd, "--count %d: a job has at most %d tasks", f.count, grid.MaxTasks)
	case set("group") && !set("each"):
		return usageError(cmd, "--group says how many of the inputs a task gets, but there is no --each")
	case set("split") && !set("each"):
		return usageError(cmd, "--split makes pieces of files, but there is no --each")
	case set("decode") && (!set("each") || set("group")):
		return usageError(cmd, "--decode maps files one by one: it needs --each, and goes without --group")
	case f.pipe && f.stdin != "" && f.stdin != "-":
		return usageError(cmd, "--stdin %s and -i exclude each other", f.stdin)
	case set("reduce") && f.reduce == "":
		return usageError(cmd, "--reduce= names no function")
	case f.detach && f.out != "":
		return usageError(cmd, "--detach does not wait for outputs; fetch them later with `grid get JOB -o %s`", f.out)
	case f.detach && f.profile != "":
		return usageError(cmd, "--detach does not wait for the profile")
	case f.timeout < 0:
		return usageError(cmd, "--timeout %v is negative", f.timeout)
	case f.queue < 0:
		return usageError(cmd, "--queue-timeout %v is negative", f.queue)
	case f.total < 0:
		return usageError(cmd, "--total-timeout %v is negative", f.total)
	}
	if err := f.policy.check(cmd); err != nil {
		return err
	}
	if f.pipe {
		f.stdin = "-"
	}
	for _, name := range f.publish {
		if err := grid.CheckRefName(name); err != nil {
			return grid.Errorf(grid.CodeOf(err), "--publish: %w", err)
		}
	}
	if remote.Is(f.out) {
		_, err := outputFolder(f.out)
		return err
	}
	return nil
}

// run is grid run.
func (e *env) run(ctx context.Context, f *runFlags, module string, args []string) error {
	p, err := e.plan(ctx, f, module, args)
	if err != nil {
		return err
	}
	defer p.close()
	return e.submit(ctx, f, p, "run "+cmp.Or(module, f.plugin))
}

// submit sends a job to a node and stays with it to its end, or not.
func (e *env) submit(ctx context.Context, f *runFlags, p *plan, what string) error {
	n := anyNode
	if f.detach {
		n = daemonOnly
	}
	return e.with(ctx, n, func(s *session) error {
		req, err := p.upload(ctx, e, s)
		if err != nil {
			return err
		}
		began := time.Now()
		id, err := s.Submit(ctx, *req)
		if err != nil {
			return grid.Errorf(grid.CodeOf(err), "%s: %w", what, err) // the node knows modules by their CIDs only
		}
		if f.detach {
			if f.show.formatted() {
				return f.show.print(map[string]grid.JobID{"id": id})
			}
			_, err := fmt.Fprintln(e.out, printable(string(id)))
			return err
		}
		return e.attend(ctx, s, f, id, began)
	})
}

// plan is a job before its parts are in the grid.
type plan struct {
	f      *runFlags
	base   string // the folder that paths are relative to; "": the current one
	inputs []input
	group  grouping
	count  int    // of inputs to upload
	items  []item // what to upload
	parts  map[string]part
	req    grid.Request
	total  uint64 // bytes of files whose size is known
	links  []linkPlan
	names  []namePlan
	refs   []pluginPlan
	rows   func(get func(item string) (grid.FileInfo, error)) error // makes the tables of inputs; nil: there are none
	spool  string                                                   // a temporary file
}

// linkPlan is what gets the CID of an item.
type linkPlan struct {
	item string
	set  func(grid.Link)
}

// namePlan is something that is not on this machine: a ref may lead to it.
type namePlan struct {
	text    string
	missing error // that it is not
	set     func(grid.Link)
}

// name leaves it to the node to find out what a name means; the error says that it cannot mean anything.
func (p *plan) name(text string, missing error, set func(grid.Link)) error {
	if grid.CheckRefName(strings.TrimPrefix(text, grid.RefMark)) != nil {
		if _, err := grid.ParseNamed(text); err != nil {
			return missing
		}
	}
	p.names = append(p.names, namePlan{text, missing, set})
	return nil
}

// Names of what is uploaded. They are seen nowhere; folders hold few entries to keep their blocks small.
const (
	itemModule = "module.wasm"
	itemStdin  = "stdin"
	itemMounts = "mounts"
	itemInputs = "inputs"
	fanOut     = 1024
)

func mountItem(i int) string { return fmt.Sprintf("%s/%d", itemMounts, i) }

func inputItem(i int) string { return fmt.Sprintf("%s/%d/%d", itemInputs, i/fanOut, i%fanOut) }

// plan checks and finds everything that the flags name on this machine.
func (e *env) plan(ctx context.Context, f *runFlags, module string, args []string) (_ *plan, err error) {
	p := &plan{f: f}
	first := func() *grid.Stage { return &p.req.Stages[0] }
	fn := f.fn
	if r, err := grid.ParsePluginRef(f.plugin); err == nil && fn == "" {
		fn = r.Func
	}
	stage := grid.Stage{
		Func: fn, Args: args, Tasks: max(f.count, 1),
		Limits: grid.Limits{
			Wall: f.timeout, Queue: f.queue, Total: f.total, Memory: uint64(f.memory), Output: uint64(f.output),
			Scratch: uint64(f.scratch), Files: f.files, Open: f.open, Calls: f.calls, Fuel: f.fuel,
		},
		Impure: f.impure, Profile: f.profile != "",
		Grants: f.grants.granted(),
	}
	if len(f.each) > 0 {
		if p.inputs, err = e.findInputs(ctx, ofEach, f.each); err != nil {
			return nil, err
		}
		how := f.group
		if how == "" {
			how = "1"
			if f.reduce != "" && f.split == "" && f.decode == "" {
				how = "1MiB"
			}
		}
		if p.group, err = parseGrouping(how); err != nil {
			return nil, err
		}
		if f.split != "" {
			if err := e.splitInputs(ctx, p); err != nil {
				return nil, err
			}
		}
	} else if grid.UsesPlaceholder(args) {
		return nil, grid.Errorf(grid.Invalid, "the arguments mention {}, the task's inputs, but there is no --each")
	}
	if f.reduce != "" && stage.Func == "" {
		stage.Func = "map"
	}
	stage.Feed = len(p.inputs) > 0 && !grid.UsesPlaceholder(args) && stage.Func == "" && f.stdin == ""
	if stage.Env, err = e.guestEnv("--env", f.env); err != nil {
		return nil, err
	}
	if err := e.planMounts(ctx, p, &stage); err != nil {
		return nil, err
	}
	if f.plugin != "" {
		err = p.planPlugin("--plugin", f.plugin, first)
	} else {
		err = e.planModule(ctx, p, itemModule, module, func(l grid.Link) { first().Module = l })
	}
	if err != nil {
		return nil, err
	}
	if err := e.planStdin(ctx, p, itemStdin, "--stdin", f.stdin, func(l grid.Link) { first().Stdin = l }); err != nil {
		return nil, err
	}
	for i, in := range p.inputs {
		p.items = append(p.items, item{inputItem(i), in.path})
		p.total += uint64(in.size)
	}
	if p.count = len(p.inputs); p.count > 0 {
		p.rows = p.table
	}
	if slices.ContainsFunc(p.items, func(it item) bool { return remote.Is(it.path) }) {
		p.total = 0 // not known
	}
	p.req = grid.Request{Spec: grid.Spec{Name: cmp.Or(f.name, pluginJobName(f.plugin), jobName(module)), Stages: []grid.Stage{stage}, KeepGoing: f.keepGoing}, NoCache: f.noCache || f.profile != "", Replicas: f.replicas, Publish: f.publish}
	f.policy.place(&p.req.Stages[0])
	f.policy.apply(&p.req)
	return p, nil
}

// jobName is what a job is called that was given no name: as its module's file or folder is.
func jobName(module string) string {
	if r, err := remote.Parse(module); err == nil {
		module = r.Path()
	} else if abs, err := filepath.Abs(module); err == nil {
		module = abs // "." is a name too
	}
	name := strings.ToValidUTF8(strings.TrimSuffix(filepath.Base(module), ".wasm"), "?")
	return name[:min(len(name), grid.MaxName)]
}

// guestEnv is the environment that was asked for, with what of it is to be handed on.
func (e *env) guestEnv(what string, vars []string) ([]string, error) {
	var out []string
	for _, v := range vars {
		name, _, given := strings.Cut(v, "=")
		if name == "" {
			return nil, grid.Errorf(grid.Invalid, "%s %q: want NAME=VALUE, or NAME to hand on yours", what, v)
		}
		if !given {
			value, ok := e.lookupEnv(name)
			if !ok {
				return nil, grid.Errorf(grid.NotFound, "%s %s: it is not set here", what, name).Hint("give a value: %s=VALUE", name)
			}
			v = name + "=" + value
		}
		out = append(out, v)
	}
	return out, nil
}

// planMounts is what --mount says. The guest's path is what follows the last colon.
func (e *env) planMounts(ctx context.Context, p *plan, stage *grid.Stage) error {
	for i, m := range p.f.mounts {
		colon := strings.LastIndexByte(m, ':')
		if colon <= 0 || !path.IsAbs(m[colon+1:]) || remote.Is(m) && !remote.Is(m[:colon]) {
			return grid.Errorf(grid.Invalid, "--mount %q: want PATH:GUESTPATH, URL:GUESTPATH or CID:GUESTPATH, with an absolute GUESTPATH", m)
		}
		stage.Mounts = append(stage.Mounts, grid.Mount{Path: path.Clean(m[colon+1:])})
		if err := e.planMount(ctx, p, mountItem(i), "--mount", m[:colon], func(l grid.Link) { p.req.Stages[0].Mounts[i].CID = l }); err != nil {
			return err
		}
	}
	return nil
}

// planMount finds what is to be mounted: what a URL names, a file or a folder, else a CID or a ref.
func (e *env) planMount(ctx context.Context, p *plan, name, what, from string, set func(grid.Link)) error {
	if remote.Is(from) {
		items, err := e.itemsOf(ctx, name, from)
		if err != nil {
			return grid.Errorf(grid.CodeOf(err), "%s: %w", what, err)
		}
		p.items = append(p.items, items...)
		p.links = append(p.links, linkPlan{name, set})
		return nil
	}
	local := below(p.base, from)
	_, err := os.Stat(local)
	if err == nil {
		p.items = append(p.items, item{name, local})
		p.links = append(p.links, linkPlan{name, set})
		return nil
	}
	if link, perr := grid.ParseLink(from); perr == nil {
		p.links = append(p.links, linkPlan{"", func(grid.Link) { set(link) }})
		return nil
	}
	missing := grid.Errorf(codeOfOS(err), "%s %s: %w", what, from, reason(err)).Hint("want a file, a folder, a CID or a ref to mount")
	return p.name(from, missing, set)
}

// planModule finds the module: a URL or a file, else a folder to build, else a CID.
func (e *env) planModule(ctx context.Context, p *plan, name, module string, set func(grid.Link)) error {
	if remote.Is(module) {
		p.links = append(p.links, linkPlan{name, set})
		return p.planURL(name, module)
	}
	local := below(p.base, module)
	info, err := os.Stat(local)
	switch {
	case err != nil:
		if link, perr := grid.ParseLink(module); perr == nil {
			p.links = append(p.links, linkPlan{"", func(grid.Link) { set(link) }})
			return nil
		}
		missing := grid.Errorf(codeOfOS(err), "module %s: %w", module, reason(err)).Hint("want a .wasm file, the folder of a plugin or a Go program, a CID or a ref; an installed plugin is named by `grid run --plugin` or `grid call`")
		return p.name(module, missing, set)
	case info.IsDir():
		if local, err = e.buildFolder(ctx, local); err != nil {
			return err
		}
		if info, err = os.Stat(local); err != nil {
			return grid.Errorf(codeOfOS(err), "module %s: %w", module, reason(err))
		}
	case !info.Mode().IsRegular():
		return grid.Errorf(grid.Invalid, "module %s is neither a file nor a folder", module)
	}
	p.links = append(p.links, linkPlan{name, set})
	p.items = append(p.items, item{name, local})
	p.total += uint64(info.Size())
	return nil
}

// planStdin finds the file for every task's stdin. What comes through a pipe goes to a temporary file
// first, as an archive tells the size of a file before its content.
func (e *env) planStdin(ctx context.Context, p *plan, name, what, from string, set func(grid.Link)) error {
	if from == "" {
		return nil
	}
	if remote.Is(from) {
		p.links = append(p.links, linkPlan{name, set})
		return p.planURL(name, from)
	}
	local := below(p.base, from)
	if from == "-" {
		spool, err := os.CreateTemp("", "grid-stdin-*")
		if err != nil {
			return grid.Errorf(codeOfOS(err), "keep standard input: %w", err)
		}
		p.spool, local = spool.Name(), spool.Name()
		copied := make(chan error, 1)
		go func() { // reads have no deadline: after an interrupt it ends with the input, or the process
			_, err := io.Copy(spool, e.stdin)
			copied <- errors.Join(err, spool.Close())
		}()
		select {
		case err = <-copied:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			p.close()
			return grid.Errorf(grid.CodeOf(err), "read standard input: %w", err)
		}
	}
	info, err := os.Stat(local)
	if err == nil && !info.Mode().IsRegular() {
		return grid.Errorf(grid.Invalid, "%s %s: it is not a file", what, from).Hint("- is your own standard input")
	}
	if err != nil {
		missing := grid.Errorf(codeOfOS(err), "%s %s: %w", what, from, reason(err))
		return p.name(from, missing, set)
	}
	p.links = append(p.links, linkPlan{name, set})
	p.items = append(p.items, item{name, local})
	p.total += uint64(info.Size())
	return nil
}

// close removes what plan left on disk.
func (p *plan) close() {
	if p.spool != "" {
		os.Remove(p.spool)
	}
}

// upload puts the parts into the grid and completes the request.
func (p *plan) upload(ctx context.Context, e *env, s *session) (*grid.Request, error) {
	if err := p.findPlugins(ctx, s); err != nil {
		return nil, err
	}
	for _, n := range p.names {
		l, err := resolveCID(ctx, s, n.text)
		switch {
		case grid.CodeOf(err) == grid.NotFound && !strings.HasPrefix(n.text, grid.RefMark):
			return nil, n.missing
		case err != nil:
			return nil, err
		}
		n.set(l)
	}
	var get func(name string) (grid.FileInfo, error)
	if len(p.items) > 0 {
		links := make(map[string]grid.FileInfo, len(p.items))
		wanted := make(map[string]bool, len(p.items))
		for _, it := range p.items {
			wanted[it.name] = true
		}
		what := "adding"
		if p.count > 0 {
			what = "adding " + plural(p.count, "input")
		}
		// Tasks do not see modes, which would only keep equal modules and inputs from having equal CIDs.
		root, err := e.upload(ctx, s, uploading{what: what, total: p.total, plain: true, parts: p.parts}, p.items, func(info grid.FileInfo) {
			if wanted[info.Name] && info.Kind == grid.KindFile { // a folder has its CID only at the end
				links[info.Name] = info
			}
		})
		if err != nil {
			return nil, err
		}
		get = func(name string) (info grid.FileInfo, err error) {
			info, ok := links[name]
			if !ok { // a folder
				info, err = s.Stat(ctx, root.CID.Cid, name)
			}
			return info, err
		}
	}
	if err := p.link(get); err != nil {
		return nil, err
	}
	if p.f.grants.all {
		if err := p.grantWants(ctx, e, s); err != nil {
			return nil, err
		}
	}
	if stage := &p.req.Stages[0]; p.f.reduce != "" {
		p.req.Stages = append(p.req.Stages, grid.Stage{
			Module: stage.Module, Plugin: stage.Plugin, Func: p.f.reduce, Args: stage.Args, Env: stage.Env, Mounts: stage.Mounts,
			From: []grid.Source{{Stage: 0}}, Limits: stage.Limits, Impure: stage.Impure, Grants: stage.Grants, Profile: stage.Profile,
			Require: stage.Require, Prefer: stage.Prefer, Reserve: stage.Reserve, Attempts: stage.Attempts,
		})
	}
	if err := p.wrap(ctx, s); err != nil {
		return nil, err
	}
	return &p.req, nil
}

// link fills in the CIDs of what was uploaded.
func (p *plan) link(get func(name string) (grid.FileInfo, error)) error {
	for _, l := range p.links {
		var info grid.FileInfo
		var err error
		if l.item != "" {
			if info, err = get(l.item); err != nil {
				return err
			}
		}
		l.set(info.CID)
	}
	if p.rows == nil {
		return nil
	}
	return p.rows(get)
}

// table deals the inputs of --each out to tasks.
func (p *plan) table(get func(name string) (grid.FileInfo, error)) error {
	inputs := make([]grid.Input, len(p.inputs))
	for i, in := range p.inputs {
		info, err := get(inputItem(i))
		if err != nil {
			return err
		}
		inputs[i] = grid.Input{Name: in.name, CID: info.CID, Size: info.Size}
	}
	rows := p.group.group(inputs)
	if len(rows) > grid.MaxTasks {
		return grid.Errorf(grid.Limit, "%d inputs make %d tasks, at most %d are allowed", len(inputs), len(rows), grid.MaxTasks).
			Hint("give each task several inputs, with --group")
	}
	p.req.Stages[0].Tasks = uint32(len(rows))
	p.req.Rows = [][]grid.Row{rows}
	return nil
}

// runResult is what run --json prints.
type runResult struct {
	Job     grid.JobStatus `json:"job"`
	Tasks   []grid.TaskEnd `json:"tasks"`
	Outputs []string       `json:"outputs,omitempty"` // folders written
	Exit    int            `json:"exit_code"`
}

// attend follows a job to its end and fetches its outputs.
func (e *env) attend(ctx context.Context, s *session, f *runFlags, id grid.JobID, began time.Time) error {
	fl := &follower{e: e, s: s, id: id, follow: true, showBar: true, stdout: !f.show.formatted(), stderr: !f.show.formatted(), keep: f.show.formatted()}
	job, err := fl.run(ctx)
	if err != nil {
		return e.abandon(ctx, s, id, err)
	}
	result := runResult{Job: job, Tasks: fl.tasks}
	if f.out != "" {
		result.Outputs, err = e.placeOutputs(ctx, s, lastStage(fl.tasks, fl.last), severalTasks(&job), f.out, placing{force: true})
		if err != nil {
			return err
		}
		if len(result.Outputs) == 0 && job.State == grid.Done {
			e.note("the tasks wrote nothing below %s, so there is nothing in %s", grid.GuestOut, f.out)
		}
	}
	if f.profile != "" {
		if err := e.saveProfile(ctx, s, fl.tasks, f.profile); err != nil {
			return err
		}
	}
	failure := fl.reportFailures(&job)
	if f.show.formatted() {
		result.Exit = exitCode(failure)
		if result.Tasks == nil {
			result.Tasks = []grid.TaskEnd{}
		}
		if err := f.show.print(result); err != nil {
			return err
		}
	}
	for _, line := range summary(&job, time.Since(began)) {
		e.note("%s", line)
	}
	return failure
}

func lastStage(tasks []grid.TaskEnd, stage uint32) []grid.TaskEnd {
	return slices.DeleteFunc(slices.Clone(tasks), func(t grid.TaskEnd) bool { return t.Stage != stage })
}

// severalTasks reports whether the job's last stage has more tasks than one.
func severalTasks(job *grid.JobStatus) bool {
	return len(job.Stages) > 0 && job.Stages[len(job.Stages)-1].Tasks > 1
}

// cancelTimeout bounds the wait for a job's end after an interrupt.
const cancelTimeout = 10 * time.Second

// abandon cancels the job that the user, or the reader of its output, no longer wants. When the node
// is what failed, the job is left to it.
func (e *env) abandon(ctx context.Context, s *session, id grid.JobID, cause error) error {
	interrupted := ctx.Err() != nil
	var output *fs.PathError // our own output cannot be written
	if !interrupted && !errors.As(cause, &output) {
		return grid.Errorf(grid.CodeOf(cause), "job %s: %w", id, cause)
	}
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer stop()
	err := s.Cancel(end, id)
	if err == nil {
		_, err = s.Watch(end, id, func(grid.JobStatus) error { return nil })
	}
	switch {
	case err != nil && !errors.Is(err, grid.Conflict): // a conflict: it has just ended
		err = grid.Errorf(grid.CodeOf(err), "interrupted, but job %s could not be cancelled: %w", id, err).Hint("`grid cancel %s` tries again", id)
	case interrupted:
		err = grid.Errorf(grid.Canceled, "interrupted; job %s is cancelled", id)
	default:
		return cause
	}
	return &exitError{exitInterrupted, err}
}
