package cli

import (
	"bytes"
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
