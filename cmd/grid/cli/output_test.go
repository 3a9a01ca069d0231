package cli

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestFormats(t *testing.T) {
	f := newFake(t)
	f.jobs[0].Name, f.jobs[0].Owner, f.jobs[0].Error = "a: \"b\"\n1", "12D3KooWfake", "true"
	for _, tt := range []struct {
		args string
		exit int
		want string // in stdout, or in stderr if it fails
	}{
		{"ps -a -o name", 0, string(testJob) + "\n"},
		{"ps -a -q", 0, string(testJob) + "\n"},
		{"ps -a -q --json", 0, `"id": "` + string(testJob)},
		{"ps -q", 0, ""},
		{"ps -a -o yaml", 0, "- id: " + string(testJob) + "\n  name: |-\n    a: \"b\"\n    1\n  state: done\n  error: \"true\"\n"},
		{"ps -o yaml", 0, "[]\n"},
		{"ps -o json", 0, "[]\n"},
		{"ps -a -o wide", 0, "SPEC"},
		{"ps -a -o template={{.state}}/{{.stages|json}}", 0, `done/[{"`},
		{"ps -a -o template={{.state.x}}", exitUsage, "--json shows what there is"},
		{"ps -a -o template={{", exitUsage, "unclosed action"},
		{"ps -a -o xml", exitUsage, "want json, yaml, name, wide, template=TEMPLATE"},
		{"status -o wide", exitUsage, "want json"},
		{"ps --json -o name", 0, ""},
		{"status -o template={{.id}}", 0, "12D3KooWfake\n"},
		{"status -o yaml", 0, "id: 12D3KooWfake\n"},
	} {
		r := f.grid(strings.Fields(tt.args)...)
		got := r.out
		if r.exit != 0 {
			got = r.err
		}
		if r.exit != tt.exit || !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("grid %s: exit %d, %q, %q; want %q", tt.args, r.exit, r.out, r.err, tt.want)
		}
	}
}

// TestFormatOfLines: what comes bit by bit is JSON in a line each, or documents of YAML.
func TestFormatOfLines(t *testing.T) {
	var out bytes.Buffer
	for format, want := range map[string]string{
		formatJSON: `{"at":`, formatYAML: "---\nat: ", "template={{.text}}": "x\n",
	} {
		out.Reset()
		o := &output{e: &env{ui: newUI(&out, io.Discard)}}
		if err := (*formatFlag)(o).Set(format); err != nil {
			t.Fatal(err)
		}
		if err := o.line(grid.JobEvent{Text: "x"}); err != nil || !strings.HasPrefix(out.String(), want) || strings.Count(out.String(), "{\n") > 0 {
			t.Errorf("%s: %q, %v", format, out.String(), err)
		}
	}
}

// TestWatch: what --watch prints comes again when it has changed, and only then.
func TestWatch(t *testing.T) {
	f := newFake(t)
	var out, errs bytes.Buffer
	e := f.command(&out, &errs, "")
	ctx, cancel := context.WithCancel(t.Context())
	round := 0
	e.pause = func(ctx context.Context, d time.Duration) error {
		switch round++; round {
		case 2:
			f.mu.Lock()
			f.jobs[0].State = grid.Failed
			f.mu.Unlock()
		case 4:
			cancel()
			return pauseFor(ctx, d)
		}
		return nil
	}
	if exit := e.main(ctx, strings.Fields("ps -a --watch -o template={{.state}}")); exit != exitInterrupted || out.String() != "done\nfailed\n" {
		t.Errorf("exit %d, %q, %s", exit, out.String(), errs.String())
	}
}

func TestOnScreen(t *testing.T) {
	got := onScreen("a\nlong line\nc\nd\n", func() (int, int) { return 4, 4 })
	if want := "\x1b[Ha\x1b[K\nlong\x1b[K\nand \x1b[J\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := onScreen("a\n", func() (int, int) { return 0, 0 }); got != "\x1b[Ha\x1b[J\n" {
		t.Errorf("%q", got)
	}
}
