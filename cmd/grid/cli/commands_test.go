package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wasmgrid/wasmgrid/cmd/grid/cli/clitest"
)

// everyCommand runs a check for each command that users see.
func everyCommand(t *testing.T, f func(t *testing.T, c *cobra.Command)) {
	t.Helper()
	n := 0
	walkCommands(Command(), func(c *cobra.Command) {
		n++
		t.Run(strings.ReplaceAll(strings.TrimPrefix(c.CommandPath(), "grid "), " ", "_"), func(t *testing.T) { f(t, c) })
	})
	if n < 80 {
		t.Errorf("only %d commands: has the tree lost some?", n)
	}
}

// TestCommandHelp holds every command to the one shape of help.
func TestCommandHelp(t *testing.T) {
	everyCommand(t, func(t *testing.T, c *cobra.Command) {
		if r, _ := utf8.DecodeRuneInString(c.Short); !unicode.IsUpper(r) || len(c.Short) > 80 || strings.HasSuffix(c.Short, ".") {
			t.Errorf("Short %q: a few words, at most 80 bytes, that begin with a capital letter and end without a stop", c.Short)
		}
		if long := strings.TrimSpace(c.Long); !strings.HasSuffix(long, ".") && !strings.Contains(long, "\n") || long == "" {
			t.Errorf("Long %q: sentences that say what the command does, beyond Short", c.Long)
		}
		for line := range strings.Lines(c.Long) {
			if strings.Contains(line, "\t") || strings.HasSuffix(line, " \n") {
				t.Errorf("Long: %q has a tab, or a space at its end", line)
			}
		}
		var help bytes.Buffer
		c.Root().SetOut(&help)
		c.InitDefaultHelpFlag()
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		at := 0
		for _, part := range []string{"\nUsage:\n  grid ", "\nExamples:\n  ", "-h, --help", "\nGlobal flags:\n"} {
			i := strings.Index(help.String()[at:], part)
			if i < 0 {
				t.Errorf("help without %q in its place: leave the usage function to the root (or groupFlags):\n%s", part, help.String())
				break
			}
			at += i
		}
	})
}

// TestCommandExamples parses every example: the commands, flags and arguments in it are there.
func TestCommandExamples(t *testing.T) {
	everyCommand(t, func(t *testing.T, c *cobra.Command) {
		found, err := clitest.Find(c.Example)
		if err != nil {
			t.Fatalf("Example: %v", err)
		}
		own := false
		for _, ex := range found {
			line := "grid " + strings.Join(ex.Args, " ")
			if err := clitest.Check(Command(), ex.Args); err != nil {
				t.Errorf("Example line %d, `%s`: %v: mend the example, or the command", ex.Line, line, err)
			}
			own = own || strings.HasPrefix(line+" ", c.CommandPath()+" ") || strings.Contains(line, strings.TrimPrefix(c.CommandPath(), "grid ")) ||
				len(c.Aliases) > 0
		}
		if !own {
			t.Errorf("Example: no line shows `%s`; write one or more, each indented by two spaces", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("Example: %q is not indented by two spaces", line)
			}
		}
	})
}

// synonyms are names of flags that have another one here.
var synonyms = map[string]string{
	"silent": "quiet", "verbose": "log-level", "out": "output", "output-file": "output", "to-file": "output", "outdir": "output",
	"tail": "follow", "wait-for": "wait", "overwrite": "force", "output-format": "format", "template": "format", "yaml": "format", "wide": "format",
	"nodes": "node", "tasks-n": "task", "interval": "every", "dryrun": "dry-run", "check-only": "dry-run", "number": "count", "after": "since", "before": "until",
	"regexp": "grep", "filter": "grep", "max": "limit", "label-selector": "require", "background": "detach", "yes-i-am-sure": "yes",
}

// shorthands are the letters, each with the flags that it may stand for.
var shorthands = map[string][]string{
	"a": {"all"}, "d": {"detach"}, "e": {"env"}, "f": {"follow", "force"}, "h": {"help"}, "i": {"pipe"}, "n": {"limit"},
	"o": {"format", "output"}, "q": {"quiet"}, "t": {"timestamps"}, "w": {"watch"}, "v": {"version"},
}

// TestCommandFlags holds flags to one name for one meaning.
func TestCommandFlags(t *testing.T) {
	everyCommand(t, func(t *testing.T, c *cobra.Command) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if c.InheritedFlags().Lookup(f.Name) != nil || c.Root().PersistentFlags().Lookup(f.Name) != nil && f.Name != "api" && f.Name != "home" { // of grid up, and of a context
				t.Errorf("--%s is for all commands: do not define it again", f.Name)
			}
			if other := synonyms[f.Name]; other != "" {
				t.Errorf("--%s is called --%s elsewhere: name it so", f.Name, other)
			}
			if f.Shorthand != "" && !slices.Contains(shorthands[f.Shorthand], f.Name) {
				t.Errorf("-%s is short for --%s here, and elsewhere for %s: drop it, or add it to the table of shorthands", f.Shorthand, f.Name, strings.Join(shorthands[f.Shorthand], ", "))
			}
			for s, names := range shorthands {
				if slices.Contains(names, f.Name) && f.Shorthand != s && f.Name != "format" && f.Name != "force" && f.Name != "limit" {
					t.Errorf("--%s has the short form -%s elsewhere: give it that with ...VarP", f.Name, s)
				}
			}
			if what, _ := pflag.UnquoteUsage(f); what != strings.ToUpper(what) {
				t.Errorf("--%s takes a %s: name what it takes by a `WORD` of the usage, in capitals", f.Name, what)
			}
			if r, _ := utf8.DecodeRuneInString(f.Usage); f.Usage == "" || strings.HasSuffix(f.Usage, ".") || unicode.IsUpper(r) && !strings.HasPrefix(f.Usage, "`") {
				t.Errorf("--%s: %q: say what it does in words that begin small and end without a stop", f.Name, f.Usage)
			}
		})
	})
}

// TestCommandOutput: what prints something for programs does so by output, and what prints a list always.
func TestCommandOutput(t *testing.T) {
	watched := []string{"grid ps", "grid status", "grid peers", "grid node ls", "grid job", "grid ledger status", "grid pin ls", "grid pin status", "grid member ls", "grid store stat"}
	everyCommand(t, func(t *testing.T, c *cobra.Command) {
		format, short := c.Flags().Lookup("format"), c.Flags().Lookup("json")
		list := c.Name() == "ls" || strings.HasPrefix(c.Short, "List ")
		if format == nil {
			if list || short != nil {
				t.Errorf("no --format: have a `var show output`, define its flags with show.lists or show.prints(e, cmd, NAME), and where show.formatted() `return show.print(value)`")
			}
			return
		}
		o, ok := format.Value.(*formatFlag)
		switch {
		case !ok || short == nil:
			t.Error("--format is not that of output: define it, and --json, with show.prints or show.lists")
		case list && !o.lister:
			t.Error("it prints a list: define the flags with show.lists, and say what names one of it")
		case list && o.name == "":
			t.Error("--quiet prints the names of a list: say what they are in show.lists")
		case slices.Contains(watched, c.CommandPath()) && c.Flags().Lookup("watch") == nil:
			t.Error("no --watch: define it with show.watches(cmd), and ask by show.with in place of e.with")
		}
		if o != nil && o.name != "" {
			if _, err := parseTemplate(o.name); err != nil {
				t.Errorf("the name: %v", err)
			}
		}
		if c.Flags().ShorthandLookup("o") == nil {
			t.Error("there is no -o: define the flags of output after a --output of the command's own, and else --format has it")
		}
	})
}

// namesThings are the arguments that a node can complete, as they are called in the first line of help.
var namesThings = regexp.MustCompile(`\b(JOB|CID|NODE|PLUGIN|KEY|REF|SUBMITTER|TOKEN|ROLE|SHELL|CONTEXT)\b|NAME[\[@.]`)

// TestCommandCompletion: arguments that name jobs, data, plugins, nodes and the like complete.
func TestCommandCompletion(t *testing.T) {
	everyCommand(t, func(t *testing.T, c *cobra.Command) {
		_, args, _ := strings.Cut(c.Use, " ")
		args, _, _ = strings.Cut(args, " --") // what a flag takes is the flag's
		if what := namesThings.FindString(args); what != "" && c.ValidArgsFunction == nil && len(c.ValidArgs) == 0 {
			t.Errorf("%s does not complete: set ValidArgsFunction, or add it to the table in complete", strings.Trim(what, "[@."))
		}
	})
}

var exitSaid = regexp.MustCompile(`exits? (?:code )?(?:is|with) (?:code )?(\d+)|exit code (\d+)`)

// TestCommandExits: the exit codes that help speaks of are those of `grid help exit-codes`.
func TestCommandExits(t *testing.T) {
	everyCommand(t, func(t *testing.T, c *cobra.Command) {
		for _, m := range exitSaid.FindAllStringSubmatch(strings.ReplaceAll(c.Long, "\n", " "), -1) {
			n, _ := strconv.Atoi(m[1] + m[2])
			if n != 0 && !slices.ContainsFunc(exits, func(x exit) bool { return x.exit == n }) {
				t.Errorf("Long speaks of the exit code %d, which is not in the table of exits", n)
			}
		}
	})
}

// TestCommandMistakes: every command that has others below it says which one was meant.
func TestCommandMistakes(t *testing.T) {
	everyCommand(t, func(t *testing.T, c *cobra.Command) {
		if !c.HasAvailableSubCommands() || strings.Contains(c.Use, " ") {
			return
		}
		sub := c.Commands()[0]
		f := newFake(t)
		r := f.grid(append(strings.Fields(c.CommandPath())[1:], sub.Name()+"x")...)
		if want := "did you mean `" + sub.CommandPath() + "`"; r.exit != exitUsage || !strings.Contains(r.err, want) {
			t.Errorf("exit %d, %s; want %s: set Args: noSubcommand", r.exit, r.err, want)
		}
	})
}

var update = flag.Bool("update", false, "write docs/cli.md and the reference in docs/configuration.md anew")

// TestReference keeps docs/cli.md what the commands say of themselves.
func TestReference(t *testing.T) {
	const name = "../../../docs/cli.md"
	want := reference(Command())
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("docs/cli.md is not what the commands say: run `go test ./cmd/grid/cli -run TestReference -update`\n%s", firstDifference(string(got), want))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d is %q, want %q", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}
