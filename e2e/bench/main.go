// Command bench runs the benchmarks that tell what Grid is worth, on real nodes where a node matters, and prints them as one table:
//
//	go run ./e2e/bench --quick
//
// Each line is a figure of a benchmark somewhere in the module, beside its physical limit, which is measured in the same run: the same bytes
// through a bare stream, the same tasks with nothing between them, one fsync. What a line says of a machine is the figure, what it says of
// Grid is the ratio. table.go lists the lines; the benchmarks are in the packages whose work they measure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"github.com/wasmgrid/wasmgrid/e2e/bench/peers"
)

const usage = `usage: go run ./e2e/bench [flags]

Run in the repository, on a machine that does nothing else. Without --quick it takes an hour or more; --run measures a part.

`

// The exit codes.
const (
	exitFailed      = 1 // a benchmark failed, or a line is worse and --fail was given
	exitUsage       = 2
	exitInterrupted = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(errs)
	fs.Usage = func() { fmt.Fprint(errs, usage); fs.PrintDefaults() }
	list := fs.Bool("list", false, "list the lines and where they are measured, and run nothing")
	only := fs.String("run", "", "only lines whose names match this `regexp`")
	count := fs.Int("count", 0, "measure each so many `times`; the table shows medians (default 5, with --quick 1)")
	quick := fs.Bool("quick", false, "only what is measured within seconds")
	asJSON := fs.Bool("json", false, "print JSON, which --compare reads")
	asMarkdown := fs.Bool("markdown", false, "print a table in Markdown")
	beside := fs.String("peers", "", "measure these `names` of other tools, too, separated by commas, and show a column of each that is installed")
	install := fs.Bool("install", false, "install what --peers names and is not there, by apt-get")
	show := fs.String("show", "", "measure nothing: print the run in this `file`, which --json wrote")
	old := fs.String("compare", "", "tell what is better or worse than in this `file`, which --json wrote")
	fail := fs.Bool("fail", false, "with --compare: exit with 1 if something is worse")
	bad := func(err error) int {
		fmt.Fprintln(errs, "bench:", err)
		return exitUsage
	}
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return exitUsage
	}
	match, err := regexp.Compile(*only)
	switch {
	case err != nil:
		return bad(fmt.Errorf("--run: %w", err))
	case fs.NArg() > 0:
		return bad(fmt.Errorf("%q: there are no arguments, only flags; see --help", fs.Arg(0)))
	case *count < 0 || *count > maxCount:
		return bad(fmt.Errorf("--count %d: from 1 to %d", *count, maxCount))
	case *asJSON && *asMarkdown:
		return bad(errors.New("--json and --markdown: choose one"))
	case *install && *beside == "":
		return bad(errors.New("--install: what? Name it by --peers"))
	case *show != "" && (*install || *beside != "" || *quick || *count != 0 || *only != ""):
		return bad(errors.New("--show: that run is over; only how it is printed, and --compare, can be chosen"))
	case *fail && *old == "":
		return bad(errors.New("--fail: worse than what? Name a file by --compare"))
	}
	var others []*peers.Peer
	if *beside != "" {
		if others, err = peers.Named(*beside); err != nil {
			return bad(fmt.Errorf("--peers: %w", err))
		}
	}
	lines := chosen(match, *quick)
	if len(lines) == 0 {
		return bad(fmt.Errorf("no line matches --run %q; --list shows all", *only))
	}
	if *list {
		printList(out, lines)
		return 0
	}
	var before *report
	if *old != "" { // read first: a name that is mistyped should not cost an hour
		if before, err = readReport(*old); err != nil {
			return bad(fmt.Errorf("--compare: %w", err))
		}
	}
	if *count == 0 {
		*count = 5
		if *quick {
			*count = 1
		}
	}
	if *install {
		for _, p := range others {
			if _, err := p.Find(ctx); err == nil {
				continue
			}
			if err := p.Install(ctx, errs); err != nil {
				fmt.Fprintln(errs, "bench: --install:", err)
				return exitFailed
			}
		}
	}
	var r *report
	if *show != "" {
		if r, err = readReport(*show); err != nil {
			return bad(fmt.Errorf("--show: %w", err))
		}
	} else if r, err = measure(ctx, lines, others, *count, *quick, errs); err != nil {
		fmt.Fprintln(errs, "bench:", err)
		return exitFailed
	}
	if before != nil {
		r.compare(before)
	}
	switch {
	case *asJSON:
		err = r.json(out)
	case *asMarkdown:
		err = r.markdown(out)
	default:
		err = r.text(out)
	}
	switch {
	case err != nil:
		fmt.Fprintln(errs, "bench:", err)
		return exitFailed
	case ctx.Err() != nil:
		fmt.Fprintln(errs, "bench: interrupted: the table has what was measured before")
		return exitInterrupted
	case r.failed(), *fail && r.worse():
		return exitFailed
	}
	return 0
}
