package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"github.com/wasmgrid/wasmgrid/grid"
)

// hostileText has what terminals take for more than text, in each of its forms.
const hostileText = "a\x1b]0;owned\a\x1b[2J\u009b31m\u202eb\r\nroot\tx"

// TestTextOfOthers: whatever a node says, or others through it, nothing of it drives the terminal, forges a line, or is completed to more than a word.
func TestTextOfOthers(t *testing.T) {
	f := newFake(t)
	f.jobs = []grid.JobStatus{{ID: grid.JobID("jabc" + hostileText), Name: hostileText, State: grid.State(hostileText), Owner: hostileText, Note: hostileText,
		Stages: []grid.StageStatus{{Name: hostileText, Tasks: 1}}}}
	f.refs = map[string]grid.Link{hostileText: f.blob("x"), "-rf": f.blob("x"), "plain": f.blob("x")}
	for _, args := range []string{"ps -a", "ps -a -o wide", "ps -a --json", "ps -a -o yaml", "ps -a -o name", "ref ls", "ref ls --json", "ref ls -q"} {
		var out, errs bytes.Buffer
		e := f.command(&out, &errs, "")
		e.terminal = true
		if exit := e.main(t.Context(), strings.Fields(args)); exit != 0 {
			t.Errorf("%s: exit %d: %s", args, exit, errs.String())
		}
		if at := strings.IndexFunc(out.String()+errs.String(), func(r rune) bool { return r != '\n' && r != ' ' && printable(string(r)) != string(r) }); at >= 0 {
			t.Errorf("%s: at %d: %q", args, at, out.String()+errs.String())
		}
		if strings.Contains(out.String(), "\nroot") {
			t.Errorf("%s: a line is forged: %q", args, out.String())
		}
	}
	if got := f.grid("__complete", "cat", "").out; !strings.HasPrefix(got, "plain\t") || strings.Contains(got, "-rf") || strings.Contains(got, "owned") {
		t.Errorf("completion: %q", got)
	}
	var was, is any
	data, _ := json.Marshal(hostileText + "\U000e0001")
	if json.Unmarshal(data, &was) != nil || json.Unmarshal(escapeJSON(data, unicode.MaxRune), &is) != nil || was != is {
		t.Errorf("%s is not %s", escapeJSON(data, unicode.MaxRune), data)
	}
}

// TestJobOfAnotherName: a node cannot have its outputs written elsewhere by what it calls a job.
func TestJobOfAnotherName(t *testing.T) {
	f := newFake(t)
	f.jobs = []grid.JobStatus{{ID: "jabc/../../elsewhere", State: grid.Done}}
	r := f.grid("get", "jabc")
	wantIn(t, "stderr", r.err, `"jabc/../../elsewhere" is not a job ID`)
}
