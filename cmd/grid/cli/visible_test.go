package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestVisible: wherever a text is cut into pieces, a terminal gets its lines, in which what would do something to it is written out.
func TestVisible(t *testing.T) {
	const text, want = "a\x1b[2J\r\n\tä€\U0001f600 \"b\"\\\nno end \u009b31m", "a\\x1b[2J\n\tä€\U0001f600 \"b\"\\\nno end \\u009b31m"
	for size := 1; size <= len(text); size++ {
		var out bytes.Buffer
		v := &visibleWriter{w: &out, probe: 10}
		for rest := []byte(text); len(rest) > 0; {
			n, err := v.Write(rest[:min(size, len(rest))])
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := v.end(); err != nil || out.String() != want {
			t.Errorf("in pieces of %d bytes: %q, %v; want %q", size, out.String(), err, want)
		}
	}
	// A line without an end is shown when it is long, and no character is cut in two.
	for shift := range 4 {
		var out bytes.Buffer
		v, long := &visibleWriter{w: &out}, strings.Repeat("x", shift)+strings.Repeat("\U0001f600", maxPrefixLine)
		for i := 0; i < len(long); i += 1000 {
			if _, err := v.Write([]byte(long[i:min(i+1000, len(long))])); err != nil {
				t.Fatal(err)
			}
			if len(v.line) > maxPrefixLine+1000 {
				t.Fatalf("%d bytes wait", len(v.line))
			}
		}
		if err := v.end(); err != nil || out.String() != long {
			t.Errorf("shifted by %d: it is another text, %v", shift, err)
		}
	}
}

// TestFilesOnTerminal: a terminal is shown text, which does nothing to it, and no other files; a pipe gets them as they are.
func TestFilesOnTerminal(t *testing.T) {
	f := newFake(t)
	text, binary := "a\x1b[2Jb\n", "\x7fELF\x00\x1b[2J"
	for _, test := range []struct {
		content  string
		terminal bool
		exit     int
		out, err string
	}{
		{text, false, 0, text, ""},
		{binary, false, 0, binary, ""},
		{text, true, 0, "a\\x1b[2Jb\n", ""},
		{binary, true, 67, "", "it is not text"},
		{"", true, 0, "", ""},
	} {
		var out, errs bytes.Buffer
		e := f.command(&out, &errs, "")
		e.terminal = test.terminal
		if exit := e.main(t.Context(), []string{"cat", f.blob(test.content).String()}); exit != test.exit || out.String() != test.out || !strings.Contains(errs.String(), test.err) {
			t.Errorf("%q, on a terminal %v: exit %d, %q, %s", test.content, test.terminal, exit, out.String(), errs.String())
		}
	}
}

// TestLogsOnTerminal: so it is with what tasks have printed, as a whole and inline.
func TestLogsOnTerminal(t *testing.T) {
	f := newFake(t)
	const said = "\x1b]0;owned\a\x00"
	f.jobs[0].Stages[0].Tasks = 2
	f.ends = []grid.TaskEnd{end(0, said+"\n"), {Index: 1, Stdout: grid.TaskOutput{Size: int64(len(said)), CID: f.blob(said)}}}
	for i := range f.ends {
		f.ends[i].Stderr = grid.TaskOutput{Size: int64(len(said)), Data: []byte(said)}
	}
	for _, terminal := range []bool{false, true} {
		var out, errs bytes.Buffer
		e := f.command(&out, &errs, "")
		if e.terminal = terminal; terminal {
			e.width = func() int { return 80 }
		}
		if exit := e.main(t.Context(), []string{"logs", string(testJob)}); exit != 0 {
			t.Errorf("exit %d: %s", exit, errs.String())
		}
		shown := said
		if terminal {
			shown = `\x1b]0;owned\a\x00`
		}
		if out.String() != shown+"\n"+shown {
			t.Errorf("on a terminal %v: %q", terminal, out.String())
		}
		if got := strings.ReplaceAll(errs.String(), "\r\x1b[K", ""); strings.Contains(got, said) == terminal || strings.Count(got, shown) != 2 {
			t.Errorf("on a terminal %v: %q", terminal, got)
		}
	}
}
