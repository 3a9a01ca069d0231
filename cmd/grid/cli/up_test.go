package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestLastWords: of the log of a node that did not start, what it said of its end is shown.
func TestLastWords(t *testing.T) {
	for in, want := range map[string]string{
		"time=1 level=INFO msg=a\ngrid: no room\n  hint: make some\n": "grid: no room\n  hint: make some",
		"grid: one\n":           "grid: one",
		"panic: x\n\ngoroutine": "panic: x\n\ngoroutine",
		"":                      "",
	} {
		if got := strings.TrimSpace(string(lastWords([]byte(in)))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestUpFlags: every flag of grid up is in one group of its help, and nothing else is.
func TestUpFlags(t *testing.T) {
	e := &env{ui: newUI(&bytes.Buffer{}, &bytes.Buffer{})}
	cmd := e.upCommand()
	cmd.InitDefaultHelpFlag()
	help := cmd.UsageString()
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if n := strings.Count(help, "--"+f.Name+" ") - strings.Count(cmd.Example, "--"+f.Name+" "); n < 1 {
			t.Errorf("--%s is not in the help", f.Name)
		}
	})
	for _, g := range upGroups {
		for _, name := range g.flags {
			if cmd.Flag(name) == nil {
				t.Errorf("%s: there is no --%s", g.title, name)
			}
		}
	}
	if strings.Contains(help, "Other flags") {
		t.Errorf("a flag is in no group:\n%s", help)
	}
}

// TestCrash: of a node that crashed when it was started the first line of the trace is shown, be the rest as long as it may.
func TestCrash(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	before := "panic: long ago\n"
	trace := "time=1 level=INFO msg=a\nfatal error: out of memory\n\n" + strings.Repeat("goroutine 1 [running]:\n", 1000)
	if err := os.WriteFile(name, []byte(before+trace), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startFailure("the node", errors.New("exit status 2"), name, int64(len(before))).Error()
	if want := "the node did not start:\n    fatal error: out of memory"; r != want {
		t.Errorf("%q, want %q", r, want)
	}
}

// TestUpRefuses: what no node can be like is refused before one is started.
func TestUpRefuses(t *testing.T) {
	p := newDesk(t)
	file := filepath.Join(p.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"up --workers 16385":           "--workers 16385: want 1 to 16384",
		"up --workers 4294967296":      "want 1 to 16384",
		"up --zone a\nb":               "--zone",
		"up --home " + file:            "is not a folder",
		"status --home " + file + "/h": "is not a folder",
	} {
		if r := p.grid("", strings.Split(args, " ")...); r.exit == 0 || !strings.Contains(r.err, want) {
			t.Errorf("%q: exit %d, %s", args, r.exit, r.err)
		}
	}
}
