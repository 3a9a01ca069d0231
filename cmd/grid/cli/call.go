package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/schema"
	"github.com/wasmgrid/wasmgrid/store/remote"
)

// maxCallInput bounds the input of a call, which is held in memory.
const maxCallInput = 64 << 20

// callFlags are the flags of grid call.
type callFlags struct {
	in      string
	show    output
	noCache bool
	impure  bool
	timeout time.Duration
	memory  sizeFlag
	grants  grantFlags
}

func (e *env) callCommand() *cobra.Command {
	f := &callFlags{}
	cmd := &cobra.Command{
		Use:   "call NAME.FUNCTION[@VERSION]|MODULE FUNCTION [INPUT] [-- ARGS...]",
		Short: "Call one function, once",
		Long: `Call one function of a plugin, and print what it gives. INPUT is a JSON value, or the bytes that the function takes; - is your
standard input, and --in FILE a file. It is checked against what the function says it takes.

MODULE FUNCTION in place of a plugin's function calls that of a .wasm file, a URL, a CID or a folder: what ends in
.wasm, has a slash in it, or is a CID, is a module.

A call is a job of one task: another node may run it, its result is remembered, and ` + "`grid ps -a`" + ` lists it. The exit code is
the guest's if it failed; see ` + "`grid help exit-codes`" + `.`,
		Example: `  grid call double.twice 21
  grid call wordcount.count@^1.2 --in text.json
  generate | grid call clean.lines -
  grid call ./double twice 21`,
		Args:              wantArgs(1, -1, "NAME.FUNCTION, or MODULE and FUNCTION,"),
		ValidArgsFunction: e.completeFunctions,
		RunE: func(cmd *cobra.Command, args []string) error {
			var guestArgs []string
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				args, guestArgs = args[:dash], args[dash:]
			}
			if len(args) == 0 {
				return usageError(cmd, "%s: NAME.FUNCTION, or MODULE and FUNCTION, is missing", nameOf(cmd))
			}
			what, rest := args[0], args[1:]
			function := ""
			if isModule(what) {
				if len(rest) == 0 {
					return usageError(cmd, "say which function of %s to call: grid call %s FUNCTION", what, what)
				}
				function, rest = rest[0], rest[1:]
			}
			named := function != "" || strings.Contains(what, ".")
			switch {
			case !named && len(rest) > 0 && isFolder(what):
				return usageError(cmd, "%s is a folder here: write it as ./%s; without a slash it names an installed plugin, as in NAME.FUNCTION", what, what)
			case !named && len(rest) > 0 && grid.CheckFunctionName(rest[0]) == nil:
				return usageError(cmd, "%s names no function of a plugin: write it as %s.%s", what, what, rest[0])
			case len(rest) > 1:
				return usageError(cmd, "%q is one argument too many: quote JSON that has spaces in it, and put what the function gets as arguments behind --", rest[1])
			case len(rest) == 1 && f.in != "":
				return usageError(cmd, "--in %s and %.40q: which of them is the input?", f.in, rest[0])
			}
			return e.call(cmd.Context(), f, what, function, rest, guestArgs)
		},
	}
	e.traceFlag(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.in, "in", "", "take the input from this `FILE`; - is your standard input")
	fl.BoolVar(&f.noCache, "no-cache", false, "run it even if its result is known")
	fl.BoolVar(&f.impure, "impure", false, "let it see the real clock and real randomness")
	fl.DurationVar(&f.timeout, "timeout", 0, fmt.Sprintf("how much `TIME` it may take, such as 90s (default %v)", grid.DefaultLimits.Wall))
	fl.Var(&f.memory, "memory", "how much memory it may use (default "+formatSize(grid.DefaultLimits.Memory)+")")
	f.grants.add(cmd)
	f.show.prints(e, cmd, "")
	e.maxDownloadFlag(cmd)
	return cmd
}

func isFolder(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// isModule tells modules from names of plugins, by the look of them alone.
func isModule(text string) bool {
	if _, err := grid.ParseLink(text); err == nil {
		return true
	}
	return remote.Is(text) || strings.HasSuffix(text, ".wasm") || strings.ContainsAny(text, `/\`) || text == "." || text == ".." ||
		strings.HasPrefix(text, grid.RefMark)
}

// call is grid call.
func (e *env) call(ctx context.Context, f *callFlags, what, function string, input, args []string) error {
	var p *plan
	if function != "" {
		var err error
		if p, err = e.plan(ctx, &runFlags{fn: function}, what, nil); err != nil {
			return err
		}
		defer p.close()
	} else if r, err := grid.ParsePluginRef(what); err != nil {
		return err
	} else if r.Func == "" {
		return e.whichFunction(ctx, r)
	}
	data, given, err := e.callInput(ctx, f, input)
	if err != nil {
		return err
	}
	return e.with(ctx, anyNode, func(s *session) error {
		st := grid.Stage{
			Func: function, Args: args, Tasks: 1, Impure: f.impure, Grants: f.grants.granted(),
			Limits: grid.Limits{Wall: f.timeout, Memory: uint64(f.memory)},
		}
		m, err := e.callee(ctx, s, p, what, &st)
		if err != nil {
			return err
		}
		if f.grants.all {
			if err := grantWanted(&st, m); err != nil {
				return err
			}
			e.tellGranted(m)
		}
		var fn *grid.Function // nil: nothing is known of it
		if m != nil {
			if found, ok := m.Find(st.Func); ok {
				fn = found
				if err := checkInput(m, fn, data, given); err != nil {
					return err
				}
			}
		}
		name := what
		if function != "" {
			name = jobName(what) + "." + function
		}
		meter := e.startMeter(progress{what: "calling " + printable(name)})
		defer meter.stop()
		end, err := s.Call(ctx, api.Call{Input: data, Request: grid.Request{
			Spec: grid.Spec{Name: name[:min(len(name), grid.MaxName)], Stages: []grid.Stage{st}}, NoCache: f.noCache, Policy: grid.Policy{User: userName()},
		}})
		if err != nil {
			return grid.Errorf(grid.CodeOf(err), "call %s: %w", name, err)
		}
		meter.stop()
		return e.showCall(ctx, s, f, name, fn, &end)
	})
}

// callee fills in which module a call is of, and gives what that says of itself; nil: nothing.
func (e *env) callee(ctx context.Context, s *session, p *plan, what string, st *grid.Stage) (*grid.Manifest, error) {
	if p != nil {
		req, err := p.upload(ctx, e, s)
		if err != nil {
			return nil, err
		}
		st.Module = req.Stages[0].Module
		return s.Manifest(ctx, st.Module.Cid)
	}
	info, err := s.Plugin(ctx, what, true)
	if err != nil {
		return nil, err
	}
	st.Module, st.Plugin, st.Func = info.CID, info.String(), info.Function
	return info.Manifest, nil
}

// whichFunction says which functions a plugin has, to who has named none.
func (e *env) whichFunction(ctx context.Context, r grid.PluginRef) error {
	return e.with(ctx, anyNode, func(s *session) error {
		info, err := s.Plugin(ctx, r.String(), false)
		if err != nil {
			return err
		}
		var names []string
		for _, fn := range info.Functions {
			names = append(names, r.Name+"."+fn.Name)
		}
		return grid.Errorf(grid.Invalid, "%s names no function", r).Hint("call one of %s", strings.Join(names, ", "))
	})
}

// callInput reads what a function is to be given. given is false when nothing was.
func (e *env) callInput(ctx context.Context, f *callFlags, input []string) (data []byte, given bool, err error) {
	from := f.in
	if len(input) == 1 {
		if input[0] != "-" {
			return []byte(input[0]), true, nil
		}
		from = "-"
	}
	var r io.Reader
	switch from {
	case "":
		return nil, false, nil
	case "-":
		r = e.stdin
	default:
		file, err := os.Open(from)
		if err != nil {
			return nil, false, grid.Errorf(codeOfOS(err), "--in %s: %w", from, reason(err))
		}
		defer file.Close()
		r = file
	}
	read := make(chan error, 1)
	go func() { // reads have no deadline: after an interrupt it ends with the input, or the process
		var err error
		data, err = io.ReadAll(io.LimitReader(r, maxCallInput+1))
		read <- err
	}()
	select {
	case err = <-read:
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
	if err != nil {
		return nil, false, grid.Errorf(codeOfOS(err), "read the input: %w", reason(err))
	}
	if len(data) > maxCallInput {
		return nil, false, grid.Errorf(grid.Limit, "the input has more than %d bytes", maxCallInput).Hint("`grid run --stdin FILE` takes any size")
	}
	return data, true, nil
}

// checkInput checks what a function is given against what it says it takes.
func checkInput(m *grid.Manifest, fn *grid.Function, data []byte, given bool) error {
	if len(fn.Input) == 0 {
		return nil
	}
	takes := schema.Text(fn.Input)
	s, err := schema.Compile(fn.Input)
	if err != nil {
		return grid.Errorf(grid.CodeOf(err), "what %s.%s takes: %w", m.Name, fn.Name, err)
	}
	wrong := func(err error, at string) error {
		return grid.Errorf(grid.Invalid, "the input of %s.%s%s: %w", m.Name, fn.Name, at, err).Hint("it takes %s", takes)
	}
	if fn.Kind != grid.StreamFunc {
		if err := s.Check(data); err != nil {
			if !given {
				return grid.Errorf(grid.Invalid, "%s.%s wants an input, and there is none", m.Name, fn.Name).
					Hint("it takes %s: give it as an argument, with --in FILE, or with - from your standard input", takes)
			}
			return wrong(err, "")
		}
		return nil
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxCallInput+1)
	for n := 1; lines.Scan(); n++ {
		if err := s.Check(lines.Bytes()); err != nil {
			return wrong(err, fmt.Sprintf(", line %d", n))
		}
	}
	return nil
}

// callResult is what --json prints.
type callResult struct {
	Call   string         `json:"call"`
	Output any            `json:"output,omitempty"` // see callOutput
	Job    grid.JobStatus `json:"job"`
	Task   *grid.TaskEnd  `json:"task,omitempty"`
	Exit   int            `json:"exit"`
}

// callOutput is what a function gave, as it is best read in a JSON document: the value, when it gives one; those of a stream
// as a list; else text. nil: it is neither, or too long to come with the end of its task, which has its bytes or their CID.
func callOutput(fn *grid.Function, out *grid.TaskOutput) any {
	if out.Size == 0 || out.Size != int64(len(out.Data)) {
		return nil
	}
	if fn != nil && len(fn.Output) > 0 {
		switch {
		case fn.Kind != grid.StreamFunc && json.Valid(out.Data):
			return json.RawMessage(out.Data)
		case fn.Kind == grid.StreamFunc:
			list := []json.RawMessage{}
			for line := range bytes.Lines(out.Data) {
				if !json.Valid(line) {
					return nil
				}
				list = append(list, json.RawMessage(bytes.TrimSpace(line)))
			}
			return list
		}
	}
	if !utf8.Valid(out.Data) {
		return nil
	}
	return string(out.Data)
}

// showCall hands on what a call came to.
func (e *env) showCall(ctx context.Context, s *session, f *callFlags, name string, fn *grid.Function, end *api.CallEnd) error {
	fl := &follower{e: e, s: s, id: end.Job.ID}
	t := end.Task
	if t != nil && !f.show.formatted() {
		if err := fl.copyOutput(ctx, e.err, &t.Stderr); err != nil {
			return err
		}
		if err := fl.copyOutput(ctx, e.out, &t.Stdout); err != nil {
			return err
		}
	}
	failure := callFailure(name, end)
	if f.show.formatted() {
		res := callResult{Call: name, Job: end.Job, Task: t, Exit: exitCode(failure)}
		if t != nil {
			res.Output = callOutput(fn, &t.Stdout)
		}
		return cmp.Or(f.show.print(res), failure)
	}
	if t != nil && t.Out.Defined() {
		e.note("it left files: `grid get %s` copies them", end.Job.ID)
	}
	return failure
}

// callFailure tells how a call failed: which function, why, and where in the guest. nil: it did not.
func callFailure(name string, end *api.CallEnd) error {
	t := end.Task
	switch {
	case t == nil && end.Job.Error != "":
		return grid.Errorf(end.Job.Code, "call %s: %s", name, end.Job.Error).Hint("`grid job --why %s` tells more", end.Job.ID)
	case t == nil:
		return grid.Errorf(grid.Unknown, "call %s: job %s %s", name, end.Job.ID, end.Job.State)
	case t.OK():
		return nil
	case t.Fault == nil:
		return &exitError{taskExit(t), grid.Errorf(grid.Exit, "%s failed, with exit code %d", printable(name), t.Exit)}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s failed: %s", printable(name), printable(t.Fault.Message))
	for line := range strings.Lines(strings.TrimSpace(t.Fault.Stack)) {
		fmt.Fprintf(&b, "\n    %s", printable(strings.TrimSpace(line)))
	}
	err := grid.Errorf(t.Fault.Code, "%s", b.String())
	switch t.Fault.Code {
	case grid.Deadline:
		err.Hint("let it run longer with --timeout")
	case grid.Limit:
		err.Hint("--memory allows more memory; `grid run` has flags for all limits")
	}
	return &exitError{taskExit(t), err}
}
