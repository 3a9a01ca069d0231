package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/jobfile"
	"github.com/wasmgrid/wasmgrid/grid"
)

// jobSource says which job file is meant, and what its params are.
type jobSource struct {
	sets     []string
	setFiles []string
}

func (j *jobSource) flags(e *env, cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringArrayVar(&j.sets, "set", nil, "give a param of the file a value, `NAME=VALUE`; may be repeated")
	fl.StringArrayVar(&j.setFiles, "set-file", nil, "give a param of the file the content of a file, `NAME=PATH`; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("set", func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return completeParams(args, prefix), cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	})
	_ = cmd.RegisterFlagCompletionFunc("set-file", func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if strings.Contains(prefix, "=") {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return completeParams(args, prefix), cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	})
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return []string{"yaml", "yml", "json"}, cobra.ShellCompDirectiveFilterFileExt
	}
}

// completeParams offers the params of the file that is on the command line.
func completeParams(args []string, prefix string) (out []string) {
	if len(args) == 0 || args[0] == "-" {
		return nil
	}
	text, err := readCapped(args[0])
	if err != nil {
		return nil
	}
	for _, p := range jobfile.Params(text) {
		if strings.HasPrefix(p.Name, prefix) {
			out = append(out, p.Name+"=\t"+p.Description)
		}
	}
	return out
}

// readCapped reads a file that is small; of others so much that it is seen to be too large.
func readCapped(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, grid.Errorf(codeOfOS(err), "%s: %w", name, reason(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, jobfile.MaxBytes+1))
	if err != nil {
		return nil, grid.Errorf(codeOfOS(err), "%s: %w", name, reason(err))
	}
	return text, nil
}

// values are what --set and --set-file say.
func (j *jobSource) values(cmd *cobra.Command) (map[string]string, error) {
	set := map[string]string{}
	put := func(flag, text string, value func(string) (string, error)) error {
		name, v, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return usageError(cmd, "--%s %q: want NAME=VALUE", flag, text)
		}
		if _, twice := set[name]; twice {
			return usageError(cmd, "the param %s is set twice", name)
		}
		v, err := value(v)
		set[name] = v
		return err
	}
	for _, s := range j.sets {
		if err := put("set", s, func(v string) (string, error) { return v, nil }); err != nil {
			return nil, err
		}
	}
	for _, s := range j.setFiles {
		if err := put("set-file", s, func(p string) (string, error) {
			text, err := readCapped(p)
			if err == nil && len(text) > jobfile.MaxBytes {
				err = grid.Errorf(grid.Limit, "--set-file %s: it has more than %d KiB", p, jobfile.MaxBytes>>10)
			}
			return string(text), err
		}); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// load reads and checks a job file, - being standard input. base is the folder that its paths are relative to.
func (j *jobSource) load(ctx context.Context, e *env, cmd *cobra.Command, name string) (f *jobfile.File, problems []jobfile.Problem, base string, err error) {
	set, err := j.values(cmd)
	if err != nil {
		return nil, nil, "", err
	}
	var text []byte
	if name == "-" {
		read := make(chan struct{})
		go func() { // reads have no deadline: after an interrupt it ends with the input, or the process
			defer close(read)
			text, err = io.ReadAll(io.LimitReader(e.stdin, jobfile.MaxBytes+1))
		}()
		select {
		case <-read:
		case <-ctx.Done():
			return nil, nil, "", context.Cause(ctx)
		}
	} else {
		base = filepath.Dir(name)
		text, err = readCapped(name)
	}
	if err != nil {
		return nil, nil, "", err
	}
	f, problems = jobfile.Parse(text, set)
	if f != nil {
		if f.Path = name; f.Name == "" && name != "-" {
			f.Name = strings.TrimSuffix(jobName(name), filepath.Ext(name))
		}
	}
	return f, problems, base, nil
}

// tell prints problems of a job file, and returns the error to exit with; nil if all are warnings.
func (e *env) tell(name string, problems []jobfile.Problem) error {
	errs := 0
	for _, p := range problems {
		kind := ""
		if p.Warning {
			kind = "warning: "
			if e.quiet {
				continue
			}
		} else {
			errs++
		}
		fmt.Fprintf(e.err, "%s: %s%s\n", printable(p.Where(name)), kind, printable(p.Message))
		if p.Hint != "" {
			fmt.Fprintf(e.err, "  %s %s\n", e.paint(bold, "hint:"), printable(p.Hint))
		}
	}
	if errs == 0 {
		return nil
	}
	err := grid.Errorf(grid.Invalid, "%s is no job", name).Hint("docs/jobs.md explains job files; `grid job schema` is for editors")
	return &exitError{exitUsage, err}
}

func (e *env) jobValidateCommand() *cobra.Command {
	var src jobSource
	var show output
	cmd := &cobra.Command{
		Use:   "validate FILE",
		Short: "Check a job file",
		Long: `Check a job file, without a node and without looking for the files that it names; ` + "`grid submit --dry-run`" + ` looks
for these, too. FILE may be -, for standard input. All that is wrong is told, with its line.

It exits with 0 if the file is good, warnings or not, and with 2 if it is not.`,
		Example: `  grid job validate sweep.yaml --set epochs=10
  grid job validate sweep.yaml --json`,
		Args: wantArgs(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, problems, _, err := src.load(cmd.Context(), e, cmd, args[0])
			if err != nil {
				return err
			}
			if show.formatted() {
				if problems == nil {
					problems = []jobfile.Problem{}
				}
				if err := show.print(map[string]any{"file": args[0], "valid": f != nil, "problems": problems}); err != nil {
					return err
				}
				if f == nil {
					return &exitError{exit: exitUsage}
				}
				return nil
			}
			if err := e.tell(args[0], problems); err != nil {
				return err
			}
			e.note("%s is good: %s", printable(args[0]), plural(len(f.Stages), "stage"))
			return nil
		},
	}
	src.flags(e, cmd)
	show.prints(e, cmd, "")
	return cmd
}

func (e *env) jobSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of job files",
		Long: `Print the JSON schema of job files, for editors that check and complete with one. It is written for a file of its
own; in a job file, this comment names it to many editors:

  # yaml-language-server: $schema=job.schema.json`,
		Example: `  grid job schema > job.schema.json`,
		Args:    wantArgs(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			_, err := e.out.Write(jobfile.Schema)
			return err
		},
	}
}
