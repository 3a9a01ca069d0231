package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
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

// TestContextsByHand: a token is not shown, wherever in the file of contexts somebody has put it; nor is it read from a file that anybody can change.
func TestContextsByHand(t *testing.T) {
	p := newDesk(t)
	delete(p.vars, "GRID_HOME")
	key := testKey(t)
	file := filepath.Join(p.dir, "conf/grid/contexts.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"contexts": {"lab": {"api": "`+key+`", "token": "x"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"context", "ls"}, {"context", "show", "lab", "--json"}, {"--context", "lab", "config", "show"}, {"__complete", "context", "use", "l"}} {
		if r := p.grid("", args...); r.exit != 0 || strings.Contains(r.out+r.err, key) {
			t.Errorf("%q: exit %d, %s%s", args, r.exit, r.out, r.err)
		}
	}
	if runtime.GOOS == "windows" {
		return
	}
	settings := filepath.Join(p.dir, "conf/grid/config.yaml")
	if err := os.WriteFile(settings, []byte("up:\n  workers: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(settings, 0o666); err != nil {
		t.Fatal(err)
	}
	wantIn(t, "stderr", p.grid("", "config", "show").err, "anybody on this machine can change", "chmod o-w")
}
