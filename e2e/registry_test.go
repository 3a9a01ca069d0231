package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	wasm "github.com/wasmgrid/wasmgrid/wasmhost/module"
)

// double makes the guest double, which has been built, a plugin of some version.
func double(version string, change func(*grid.Manifest)) ([]byte, error) {
	binary, err := os.ReadFile(filepath.Join(build.dir, "guests", "double.wasm"))
	if err != nil {
		return nil, err
	}
	m := &grid.Manifest{
		Format: grid.ManifestFormat, Name: "double", Version: version, ABI: grid.ABIVersion, Description: "Doubles numbers.",
		License: "MIT", Docs: "# Double\nIt doubles.\n",
		Functions: []grid.Function{
			{Name: "twice", Kind: grid.TypedFunc, Doc: "Twice as much.", Input: json.RawMessage(`{"type":"integer"}`), Output: json.RawMessage(`{"type":"integer"}`)},
			{Name: "fail", Kind: grid.TaskFunc}, {Name: "trap", Kind: grid.TaskFunc},
		},
	}
	if change != nil {
		change(m)
	}
	return wasm.PutManifest(binary, m)
}

// fails runs a command that has to fail, with an exit code and words.
func (n *Node) fails(exit int, words string, args ...string) {
	n.w.t.Helper()
	if r := n.Grid(args...); r.Exit != exit || !strings.Contains(r.Stderr, words) {
		n.w.t.Errorf("grid %s: exit code %d, want %d and %q\n%s%s", strings.Join(args, " "), r.Exit, exit, words, r.Stdout, r.Stderr)
	}
}

func (n *Node) prints(want string, args ...string) {
	n.w.t.Helper()
	if got := strings.TrimSpace(n.Must(args...)); got != want {
		n.w.t.Errorf("grid %s printed %q, want %q", strings.Join(args, " "), got, want)
	}
}

// A plugin that is installed on one node is there on all, its versions never change, and a job runs what was meant when
// it was made.
func TestRegistry(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	a, b, c := w.Up("a", "--workers", "1"), w.Up("b", "--workers", "1"), w.Up("c", "--workers", "1")
	w.Meet(a, b, c)
	realmOf(t, 3, a, b, c)
	dir := t.TempDir()
	guest(t, "double")
	file := func(name, version string, change func(*grid.Manifest)) string {
		t.Helper()
		plugin, err := double(version, change)
		if err != nil {
			t.Fatal(err)
		}
		save(t, filepath.Join(dir, name), plugin)
		return filepath.Join(dir, name)
	}
	one, two, signed := file("1.wasm", "1.0.0", nil), file("2.wasm", "1.1.0", nil), file("signed.wasm", "2.0.0", nil)
	other := file("other.wasm", "1.0.0", func(m *grid.Manifest) { m.Description = "Doubles other numbers." })

	first := strings.Fields(a.Must("plugin", "install", "-q", one))
	b.prints("42", "call", "double.twice", "21")
	c.fails(68, first[1], "plugin", "install", "-q", other)
	b.prints(strings.Join(first, " "), "plugin", "install", "-q", one)
	a.Must("plugin", "alias", "double@tested", "1.0.0")
	// The shell offers what is installed.
	for want, args := range map[string][]string{
		"twice\tfunc\n":                {"run", "--plugin", "double", "--func", ""},
		"double.twice@1.0.0\tfunc\n:4": {"call", "double.twice@"},
		"double@\n:6":                  {"plugin", "alias", "d"},
		"1.0.0\n:4":                    {"plugin", "alias", "double@tested", ""},
	} {
		if got := b.Must(append([]string{"__complete"}, args...)...); !strings.Contains(got, want) {
			t.Errorf("completion of %q offers %q, not %q", args, got, want)
		}
	}

	// What a job was made of stays, whatever becomes of the names.
	made := func(ref string) *grid.JobStatus {
		t.Helper()
		var r struct{ Job grid.JobStatus }
		out := b.Must("call", ref, "7", "--json")
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		return &r.Job
	}
	before := made("double.twice@^1")
	c.Must("plugin", "install", "-q", two)
	after := made("double.twice@^1")
	aliased := made("double.twice@tested")
	for _, x := range []struct {
		job  *grid.JobStatus
		want string
	}{{before, "double@1.0.0"}, {after, "double@1.1.0"}, {aliased, "double@1.0.0"}} {
		if got := a.Status(string(x.job.ID)).Stages[0].Plugin; got != x.want {
			t.Errorf("job %s ran %q, want %s", x.job.ID, got, x.want)
		}
	}
	a.Must("plugin", "rm", "double@1.0.0")
	b.fails(66, "was removed", "call", "double.twice@1.0.0", "7")
	b.fails(66, "no alias", "call", "double.twice@tested", "7")
	save(t, filepath.Join(dir, "seven"), []byte("7\n"))
	seven, err := grid.ParseLink(strings.TrimSpace(c.Must("add", "-q", filepath.Join(dir, "seven"))))
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := grid.ParseLink(first[1])
	if err != nil {
		t.Fatal(err)
	}
	id, err := c.Submit(context.Background(), grid.Request{NoCache: true, Spec: grid.Spec{Stages: []grid.Stage{
		{Module: bytes, Plugin: "double@1.0.0", Func: "twice", Stdin: seven, Tasks: 1},
	}}})
	if err != nil {
		t.Fatalf("the same job again: %v", err)
	}
	c.Must("wait", string(id))
	c.prints("14", "logs", string(id))
	c.fails(68, first[1], "plugin", "install", "-q", other)
	c.prints(strings.Join(first, " "), "plugin", "install", "-q", one)
	a.prints("14", "call", "double.twice@1.0.0", "7")

	// Signatures: every node refuses what is not signed, and nobody who knows better has to be asked.
	b.Must("plugin", "policy", "--require-signature", "plugins")
	a.fails(77, "is not signed", "call", "double.twice@1.1", "7", "--no-cache")
	c.fails(77, "is not signed", "plugin", "install", "-q", signed)
	key := strings.TrimSpace(c.Must("plugin", "sign", signed))
	if key != c.ID {
		t.Errorf("signed by %s, want the node %s", key, c.ID)
	}
	a.Must("plugin", "install", "-q", signed)
	b.prints("16", "call", "double.twice@2", "8")
	b.prints(key, "plugin", "verify", "double@2.0.0")
	a.prints("18", "call", one, "twice", "9") // a module, which the policy leaves alone
	a.Must("plugin", "policy", "--require-signature", "all")
	c.fails(77, "is not signed", "call", one, "twice", "10")
	b.Must("plugin", "policy", "--trust", a.ID)
	a.fails(77, "by nobody who this realm trusts", "call", "double.twice@2", "11")
	a.Must("plugin", "policy", "--require-signature", "off")
	c.prints("24", "call", "double.twice@1.1", "12")

	a.Kill() // which had published it
	c.prints("26", "call", "double.twice@2", "13")
}

// BenchmarkCall calls a function of a plugin that is installed, over the node's socket: one whose result is not known, one
// whose result is, and the look at what it takes that `grid call` has before.
func BenchmarkCall(b *testing.B) {
	w := NewWorld(b)
	n := w.Up("bench", "--workers", "1")
	guest(b, "double")
	plugin, err := double("1.0.0", nil)
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "double.wasm")
	save(b, file, plugin)
	n.Must("plugin", "install", "-q", file)
	p, err := n.Plugin(b.Context(), "double.twice", true)
	if err != nil {
		b.Fatal(err)
	}
	call := func(b *testing.B, fresh bool) {
		end, err := n.Call(b.Context(), api.Call{Input: []byte("21"), Request: grid.Request{NoCache: fresh, Spec: grid.Spec{Stages: []grid.Stage{
			{Module: p.CID, Plugin: p.String(), Func: "twice", Tasks: 1},
		}}}})
		if err != nil || end.Task == nil || string(end.Task.Stdout.Data) != "42\n" {
			b.Fatalf("%+v, %v", end, err)
		}
	}
	call(b, false)
	b.Run("run", func(b *testing.B) {
		for b.Loop() {
			call(b, true)
		}
	})
	b.Run("known", func(b *testing.B) {
		for b.Loop() {
			call(b, false)
		}
	})
	b.Run("look", func(b *testing.B) {
		for b.Loop() {
			if _, err := n.Plugin(b.Context(), "double.twice", true); err != nil {
				b.Fatal(err)
			}
		}
	})
}
