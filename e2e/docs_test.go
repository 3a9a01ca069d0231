//go:build unix

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/wasmgrid/wasmgrid/cmd/grid/cli"
	"github.com/wasmgrid/wasmgrid/cmd/grid/cli/clitest"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

// TestDocsCommands runs the commands that README.md and docs show, so that what is shown works. The blocks of a page are one script of bash,
// in a folder of its own, with nodes of its own:
//
//	```sh                   commands, run as they are; one that fails fails the test
//	```console              commands behind "$ ", and what they print, where … or ... stands for anything; a line of it alone for any lines.
//	                        Where an error of grid is shown the command may fail
//	```sh unrun: WHY        commands that cannot be run here; each `grid` in them is parsed, so that its commands, flags and arguments are there
//
// What the reader is not to see is in comments:
//
//	<!-- run                commands that prepare what the next blocks take for granted, up to the line -->
//	<!-- where TEXT is X    from here on TEXT in commands of the page means X -->
//
// A node that is started goes to the background, listens on loopback, and is ended with the page, as is what a page itself runs in the background. Scripts find in $REPO the repository, in $NOOP a
// module that does nothing, and in $PORT_A and $PORT_B two free ports.
func TestDocsCommands(t *testing.T) {
	docsTools(t)
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "../README.md")
	var mu sync.Mutex
	ran, unrun := 0, map[string]int{}
	t.Run("pages", func(t *testing.T) {
		for _, name := range pages {
			if filepath.Base(name) == "cli.md" {
				continue // made of the commands, and tested beside them
			}
			t.Run(strings.TrimPrefix(strings.TrimSuffix(name, ".md"), "../"), func(t *testing.T) {
				t.Parallel()
				p, err := readPage(name)
				if err != nil {
					t.Fatal(err)
				}
				p.parse(t)
				mu.Lock()
				for _, b := range p.blocks {
					switch {
					case b.unrun != "":
						unrun[b.unrun]++
					case !b.hidden:
						ran++
					}
				}
				mu.Unlock()
				p.run(t)
			})
		}
	})
	total := 0
	for _, why := range slices.Sorted(maps.Keys(unrun)) {
		t.Logf("only parsed: %d blocks, %s", unrun[why], why)
		total += unrun[why]
	}
	t.Logf("%d blocks were run, %d only parsed", ran, total)
}

// docsTools skips a test if there is nothing to run documents with.
func docsTools(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"bash", "curl", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("GRID_TOOLCHAINS") == "all" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

// page is a document with its commands.
type page struct {
	name   string // from the repository on
	blocks []docBlock
}

// docBlock is commands of a page.
type docBlock struct {
	line    int // of the first one
	text    string
	console bool
	hidden  bool
	unrun   string // why it is not run; "": it is
}

// otherFences are blocks that hold no commands. Blocks that say nothing are taken for such, unless there is a command in them.
var otherFences = []string{"", "text", "go", "yaml", "json", "rust", "c", "ts", "typescript", "mermaid", "toml", "dockerfile", "ini", "diff", "py", "python", "html", "js"}

var holdsCommand = regexp.MustCompile(`(?m)^\s*(\$ )?(.*\| *)?grid (-|[a-z]+( |$))`)

// readPage finds the commands of a page.
func readPage(name string) (*page, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	p := &page{name: strings.TrimPrefix(filepath.ToSlash(name), "../")}
	lines := strings.Split(string(data), "\n")
	var where []string // pairs for a Replacer
	for i := 0; i < len(lines); i++ {
		at := fmt.Sprintf("%s:%d", p.name, i+1)
		end := func(mark string) (string, error) {
			from := i + 1
			for i = from; i < len(lines); i++ {
				if strings.TrimSpace(lines[i]) == mark {
					return strings.Join(lines[from:i], "\n") + "\n", nil
				}
			}
			return "", fmt.Errorf("%s: no %s ends it", at, mark)
		}
		switch line := strings.TrimSpace(lines[i]); {
		case strings.HasPrefix(lines[i], "    grid "):
			return nil, fmt.Errorf("%s: a command that nobody runs: begin its block with ```sh", at)
		case strings.HasPrefix(line, "<!-- where "):
			text, is, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(line, "<!-- where "), " -->"), " is ")
			if !ok || !strings.HasSuffix(line, " -->") {
				return nil, fmt.Errorf("%s: want <!-- where TEXT is X -->", at)
			}
			where = append([]string{text, is}, where...)
		case line == "<!-- run":
			from := i + 2
			text, err := end("-->")
			if err != nil {
				return nil, err
			}
			p.blocks = append(p.blocks, docBlock{line: from, text: text, hidden: true})
		case strings.HasPrefix(line, "```"):
			info, from := strings.TrimPrefix(line, "```"), i+2
			text, err := end("```")
			if err != nil {
				return nil, err
			}
			kind, rest, _ := strings.Cut(info, " ")
			switch {
			case kind == "sh" || kind == "console":
				b := docBlock{line: from, text: strings.NewReplacer(where...).Replace(text), console: kind == "console"}
				if rest != "" {
					why, ok := strings.CutPrefix(rest, "unrun: ")
					if !ok {
						return nil, fmt.Errorf("%s: %q: want `unrun: ` and why", at, rest)
					}
					b.unrun = why
				}
				p.blocks = append(p.blocks, b)
			case !slices.Contains(otherFences, kind):
				return nil, fmt.Errorf("%s: nobody knows what %q is: if it holds commands, write sh or console, else add it to otherFences", at, kind)
			case kind == "" && holdsCommand.MatchString(text):
				return nil, fmt.Errorf("%s: commands in a block that does not say how they are run: begin it with ```sh, ```console or ```sh unrun: WHY", at)
			}
		}
	}
	return p, nil
}

var shellVariable = regexp.MustCompile(`^\$[A-Za-z_]+$`)

// parse checks that the grid commands of a page are there, with their flags and arguments.
func (p *page) parse(t *testing.T) {
	for _, b := range p.blocks {
		text := b.text
		if b.console {
			text = ""
			for line := range strings.Lines(b.text) {
				command, ok := strings.CutPrefix(line, "$ ")
				if !ok {
					command = "\n"
				}
				text += command
			}
		}
		found, err := clitest.Find(text)
		if err != nil {
			t.Errorf("%s:%d: %v", p.name, b.line, err)
		}
		for _, c := range found {
			args := slices.Clone(c.Args)
			for i, arg := range args {
				if shellVariable.MatchString(arg) {
					args[i] = "1" // which numbers, names and files may be
				}
			}
			if err := clitest.Check(cli.Command(), args); err != nil {
				t.Errorf("%s:%d: `grid %s`: %v", p.name, b.line+c.Line-1, strings.Join(c.Args, " "), err)
			}
		}
	}
}

// step is a part of a page's script.
type step struct {
	line  int    // of the page
	text  string // commands
	shown string // what they print; "": anything
}

func (b *docBlock) steps() (steps []step) {
	if !b.console {
		return []step{{b.line, b.text, ""}}
	}
	line := b.line
	more := false // the command goes on
	for text := range strings.Lines(b.text) {
		command, ok := strings.CutPrefix(text, "$ ")
		switch {
		case ok:
			steps = append(steps, step{line: line, text: command})
			more = strings.HasSuffix(command, "\\\n")
		case len(steps) > 0 && more:
			steps[len(steps)-1].text += text
			more = strings.HasSuffix(text, "\\\n")
		case len(steps) > 0:
			steps[len(steps)-1].shown += text
		}
		line++
	}
	return steps
}

// docsGrid stands before the program: nodes go to the background, and keep to this machine.
const docsGrid = `#!/bin/bash
home=$GRID_HOME api= skip= verb= given=" $* "
for arg in "$@"; do
	case $skip in home) home=$arg skip=; continue;; api) skip=; continue;; esac
	case $arg in
	--home) skip=home;;
	--home=*) home=${arg#--home=};;
	--api) test -z "$verb" && skip=api;;
	-*) ;;
	*) test -z "$verb" && verb=$arg;;
	esac
done
more=()
if test "$verb" = up; then
	more+=(--no-mdns --no-upnp)
	case $given in *" -d "*|*" --detach "*|*" --help "*) ;; *) more+=(-d);; esac
	case $given in *" --listen "*) ;; *) more+=(--listen /ip4/127.0.0.1/tcp/0);; esac
	echo "$home" >>"$DOCS_HOMES"
fi
exec "$DOCS_GRID" "$@" "${more[@]}"
`

// run runs the script that a page is.
func (p *page) run(t *testing.T) {
	var steps []step
	for i := range p.blocks {
		if p.blocks[i].unrun == "" {
			steps = append(steps, p.blocks[i].steps()...)
		}
	}
	if len(steps) == 0 {
		return
	}
	w := NewWorld(t)
	hidden, work := filepath.Join(w.dir, ".docs"), filepath.Join(w.dir, "w")
	write := func(name, text string) string {
		t.Helper()
		name = filepath.Join(hidden, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		return name
	}
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	fmt.Fprintf(&script, "set -eEuo pipefail\ntrap 'echo \"${BASH_SOURCE[0]#*/.docs/*/}:$LINENO: $BASH_COMMAND: exit code $?\" >>%s/failed' ERR\n", hidden)
	script.WriteString("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n")
	for i, s := range steps {
		// A file of the page's name, with blank lines before the commands, has bash tell where in the page they are.
		name := write(fmt.Sprintf("%d/%s", i, p.name), strings.Repeat("\n", s.line-1)+s.text)
		switch {
		case s.shown == "":
			fmt.Fprintf(&script, "source %s\n", name)
		case strings.HasPrefix(s.shown, "grid: "):
			fmt.Fprintf(&script, "source %s >%s/%d/out 2>&1 || true\n", name, hidden, i)
		default:
			fmt.Fprintf(&script, "source %s >%s/%d/out 2>&1\n", name, hidden, i)
		}
	}
	repo, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	homes := filepath.Join(hidden, "homes")
	env := append(w.env, "PATH="+filepath.Dir(write("bin/grid", docsGrid))+string(os.PathListSeparator)+os.Getenv("PATH"),
		"DOCS_GRID="+binary(t), "DOCS_HOMES="+homes, "GRID_HOME="+filepath.Join(w.dir, "h"), "TMPDIR="+w.dir,
		"REPO="+repo, "NOOP="+write("noop.wasm", string(wasmbytes.Noop())), "PORT_A="+freePort(t), "PORT_B="+freePort(t))
	t.Cleanup(func() {
		data, _ := os.ReadFile(homes) // none: no node was started
		for _, home := range slices.Compact(slices.Sorted(slices.Values(strings.Fields(string(data))))) {
			if !filepath.IsAbs(home) {
				home = filepath.Join(work, home)
			}
			w.Grid("--home", home, "down")
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience) // some pages build several programs
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", write("script", script.String()))
	cmd.Dir, cmd.Env, cmd.WaitDelay = work, env, patience // what still holds the output then was never ended
	printed, err := cmd.CombinedOutput()
	if err != nil {
		failed, _ := os.ReadFile(filepath.Join(hidden, "failed"))
		for i := range steps {
			out, _ := os.ReadFile(filepath.Join(hidden, fmt.Sprint(i), "out"))
			printed = append(printed, out...)
		}
		t.Fatalf("%v: %s\n%s", err, failed, printed)
	}
	for i, s := range steps {
		if s.shown == "" {
			continue
		}
		got, err := os.ReadFile(filepath.Join(hidden, fmt.Sprint(i), "out"))
		if err != nil {
			t.Fatal(err)
		}
		if !shows(s.shown).MatchString(squeeze(string(got))) {
			t.Errorf("%s:%d: %sprints\n%s\nbut the page shows\n%s", p.name, s.line, s.text, got, s.shown)
		}
	}
}

// shows is a pattern for what a page shows: … and ... stand for anything in a line, and alone for any lines.
func shows(text string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for line := range strings.Lines(squeeze(text)) {
		line = strings.TrimSuffix(strings.ReplaceAll(line, "…", "..."), "\n")
		if line == "..." {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, `.*`) + `\n`)
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

// squeeze has one space where there are several, since columns are as wide as what is in them, and no lines that are empty.
func squeeze(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 0 {
			b.WriteString(strings.Join(words, " ") + "\n")
		}
	}
	return b.String()
}

// freePort is a port of loopback that nobody had a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
