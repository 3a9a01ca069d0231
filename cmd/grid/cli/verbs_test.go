package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestRefsAreNames uses a ref wherever a CID will do.
func TestRefsAreNames(t *testing.T) {
	f := newFake(t)
	file := f.blob("hello")
	folder := f.tree(map[string]string{"a.txt": "hello"})
	f.refs = map[string]grid.Link{"file": file, "folder": folder}
	for args, want := range map[string]string{
		"cat file":             "hello",
		"cat ref:file":         "hello",
		"cat folder/a.txt":     "hello",
		"ls folder":            "a.txt",
		"pin add file":         file.String(),
		"stat nothing/of/this": "",
	} {
		r := f.grid(strings.Fields(args)...)
		if want == "" {
			if r.exit != 66 || !strings.Contains(r.err, "no ref of that name") {
				t.Errorf("%s: exit %d, %s", args, r.exit, r.err)
			}
		} else if r.exit != 0 || !strings.Contains(r.out, want) {
			t.Errorf("%s: exit %d, %q, %s", args, r.exit, r.out, r.err)
		}
	}
	t.Chdir(t.TempDir())
	if r := f.grid("run", "file", "--stdin", "file", "--mount", "folder:/data", "--publish", "a", "--publish", "b"); r.exit != 0 {
		t.Fatalf("run: exit %d, %s", r.exit, r.err)
	}
	req := f.submitted[len(f.submitted)-1]
	st := req.Stages[0]
	if st.Module != file || st.Stdin != file || st.Mounts[0].CID != folder || strings.Join(req.Publish, " ") != "a b" {
		t.Errorf("submitted %+v", req)
	}
	if err := os.WriteFile("file", []byte("on disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := f.grid("run", "file", "--stdin", "ref:file"); r.exit != 0 {
		t.Fatalf("run: exit %d, %s", r.exit, r.err)
	}
	st = f.submitted[len(f.submitted)-1].Stages[0]
	if st.Module == file || st.Stdin != file {
		t.Errorf("what is on disk goes first, but for ref:, got %+v", st)
	}
}

// TestLedgerVerbs goes through the verbs about the ledger, with nodes that live for one command.
func TestLedgerVerbs(t *testing.T) {
	home := filepath.Join(t.TempDir(), "h")
	grid := func(exit int, stdin string, args ...string) string {
		t.Helper()
		r := embedded(t, home, stdin, args...)
		if r.exit != exit {
			t.Fatalf("grid %s: exit %d, want %d: %s%s", strings.Join(args, " "), r.exit, exit, r.out, r.err)
		}
		return strings.TrimSpace(r.out)
	}
	grid(66, "", "kv", "get", "a")
	version := grid(0, "", "kv", "put", "a", "1")
	if got := grid(0, "", "kv", "get", "a"); got != "1" {
		t.Errorf("get: %q", got)
	}
	grid(68, "", "kv", "put", "a", "2", "--if-absent")
	next := grid(0, "two\x00", "kv", "put", "a", "-", "--if-version", version)
	grid(68, "", "kv", "put", "a", "3", "--if-version", version)
	grid(68, "", "kv", "del", "a", "--if-version", version)
	if got := grid(0, "", "kv", "get", "a", "--stale"); got != "two\x00" {
		t.Errorf("get: %q", got)
	}
	var page struct {
		Entries []struct {
			Key     string
			Version uint64
		}
	}
	if err := json.Unmarshal([]byte(grid(0, "", "kv", "ls", "--json")), &page); err != nil || len(page.Entries) != 1 || strconv.FormatUint(page.Entries[0].Version, 10) != next {
		t.Errorf("ls: %+v, %v", page, err)
	}
	doc := `{"if": [{"key": "a", "version": ` + next + `}, {"prefix": "b/", "count": 0}],
		"put": [{"key": "b/1", "text": "x"}, {"key": "b/2", "value": "AAE="}], "delete": ["a"]}`
	grid(0, doc, "kv", "txn", "-")
	grid(68, doc, "kv", "txn", "-")
	if got := grid(0, "", "kv", "ls", "--keys-only"); got != "b/1\nb/2" {
		t.Errorf("ls: %q", got)
	}
	if got := grid(0, "", "kv", "ls", "b/", "--limit", "1", "--keys-only"); got != "b/1" {
		t.Errorf("ls: %q", got)
	}
	grid(67, `{"putt": []}`, "kv", "txn", "-")
	grid(0, "", "kv", "del", "b/1")
	grid(0, "", "kv", "del", "b/2")
	grid(66, "", "kv", "del", "b/1")

	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := grid(0, "", "add", "-q", file)
	if got := grid(0, "", "ref", "set", "some/name", c); got != c {
		t.Errorf("ref set: %q", got)
	}
	grid(68, "", "ref", "set", "some/name", c, "--if-absent")
	grid(67, "", "ref", "set", c, c)
	if got := grid(0, "", "cat", "some/name"); got != "content" {
		t.Errorf("cat: %q", got)
	}
	if got := grid(0, "", "ref", "ls"); !strings.Contains(got, "some/name") {
		t.Errorf("ref ls: %q", got)
	}
	grid(0, "", "ref", "rm", "some/name")
	grid(66, "", "ref", "get", "some/name")

	if got := grid(0, "", "ledger", "status"); !strings.Contains(got, "leader") {
		t.Errorf("status: %q", got)
	}
	grid(exitUsage, "", "ledger", "recover")
	grid(exitNoNode, "", "ledger", "remove", "12D3KooWQfYSC9acjQo23nAvYtVFRcyBKSu5JCuwLzRFPwUnzhiP")
}

// embedded runs a command with a node of its own.
func embedded(t *testing.T, home, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	e := &env{ui: newUI(&out, &errs), stdin: strings.NewReader(stdin), lookupEnv: os.LookupEnv, now: time.Now, connect: openSession, pause: pauseFor}
	exit := e.main(t.Context(), append([]string{"--home", home}, args...))
	return result{exit: exit, out: out.String(), err: errs.String()}
}

// TestLeaveWithoutNode: a node that cannot start any more gets out of its swarm, but not by mistake.
func TestLeaveWithoutNode(t *testing.T) {
	p := newDesk(t)
	want := func(exit int, text string, args ...string) {
		t.Helper()
		if r := p.grid("", args...); r.exit != exit || !strings.Contains(r.err, text) {
			t.Errorf("%q: exit %d, want %d; %s lacks %q", args, r.exit, exit, r.err, text)
		}
	}
	want(66, "of no private swarm", "swarm", "leave", "--force")
	want(0, "swarm invite", "swarm", "init", "--name", "lab")
	want(exitNoNode, "--force has its home forget", "swarm", "leave")
	want(0, "ledger recover", "swarm", "leave", "--force")
	want(66, "of no private swarm", "swarm", "leave", "--force")
}

// TestDash: what begins with a dash and is no flag may have been meant as an argument.
func TestDash(t *testing.T) {
	f := newFake(t)
	for args, want := range map[string]string{"kv put a -5": "has no flag -5", "ps -aZ": "has no flag -Z"} {
		r := f.grid(strings.Fields(args)...)
		if r.exit != exitUsage || !strings.Contains(r.err, want) || !strings.Contains(r.err, "behind --") {
			t.Errorf("%s: exit %d, %s", args, r.exit, r.err)
		}
	}
}
