package plugin

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// all is the plugin of testdata/all, built, in a folder with these cases.
func all(t *testing.T, cases map[string]string) *Runner {
	t.Helper()
	needsGo(t)
	dir := filepath.Join(t.TempDir(), "all")
	if _, err := New("all", "go", dir); err != nil {
		t.Fatal(err)
	}
	main, err := os.ReadFile("testdata/all/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.RemoveAll(filepath.Join(dir, CasesDir)), os.Remove(filepath.Join(dir, "main_test.go")), WriteFile(filepath.Join(dir, "main.go"), main)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range cases {
		if err := create(filepath.Join(dir, CasesDir, name), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	yaml := "name: all\nversion: 0.1.0\nwants: {kv: [counters/], secrets: [token], net: ['example.org:443']}\n"
	if err := WriteFile(filepath.Join(dir, File), []byte(yaml)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOFLAGS", "")
	t.Setenv("GOWORK", "off")
	box := openBox(t)
	built, err := (&Builder{Cache: t.TempDir(), Sandbox: func() (Sandbox, error) { return box, nil }}).Build(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(built.Path)
	if err != nil {
		t.Fatal(err)
	}
	id, err := box.Add(binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	return &Runner{Sandbox: box, Module: id, Manifest: built.Manifest}
}

func TestRunner(t *testing.T) {
	r := all(t, map[string]string{
		"fib/stdin":                     "20",
		"bump/stdin":                    "3",
		"bump/case.yaml":                "kv: {counters/a: '1', other/b: '2'}",
		"bump.denied/stdin":             "3",
		"bump.denied/case.yaml":         "grants: {kv: ['counters/:ro']}\nkv: {counters/a: '1'}",
		"look/case.yaml":                "args: [x, y]\ntask: 7\nenv: {LANG: de}\nsecrets: {token: abc}\nmounts: {/model: model}",
		"look/model/weights.txt":        "1 2 3\n",
		"look.secretless/case.yaml":     "mounts: {/model: m}",
		"look.secretless/m/weights.txt": "",
		"chance/case.yaml":              "",
		"chance.impure/case.yaml":       "impure: true",
		"forever/case.yaml":             "limits: {fuel: 10_000_000}",
		"forever.slow/case.yaml":        "limits: {time: 50ms}\n",
		"missing/case.yaml":             "",
	})
	if m := r.Manifest; m.ABI < 2 || len(m.Functions) != 5 || string(m.Functions[0].Input) == "" {
		t.Errorf("%+v", m)
	}
	cases, err := ReadCases(".")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(CasesDir, name))
		if err != nil {
			failure, _ := os.ReadFile(filepath.Join(CasesDir, filepath.Dir(name), errorFile))
			return err.Error() + ": " + string(failure)
		}
		return string(text)
	}
	for _, c := range cases {
		if c.Name == "missing" {
			if _, err := r.Run(t.Context(), c, false); grid.CodeOf(err) != grid.NotFound || !strings.Contains(grid.AdviceOf(err), "fib, bump, look") {
				t.Errorf("a case of no function: %v", err)
			}
			continue
		}
		before, err := r.Run(t.Context(), c, false)
		if err != nil {
			t.Fatal(err)
		}
		if before.OK {
			t.Errorf("%s is ok although nothing says what comes out", c.Name)
		}
		rep, err := r.Run(t.Context(), c, true)
		if err != nil || !rep.OK || !rep.Updated || len(rep.Problems) != 0 {
			t.Errorf("%s: update: %+v, %v", c.Name, rep, err)
		}
		again, err := r.Run(t.Context(), c, false)
		if err != nil || again.OK == again.Impure {
			t.Errorf("%s: again: %+v, %v", c.Name, again, err)
		}
		switch c.Name {
		case "fib": // a task for each number, not for each call
			if rep.Fuel < again.Fuel || rep.Fuel == 0 {
				t.Errorf("fib: %+v", rep)
			}
		case "bump":
			if !slices.ContainsFunc(rep.Metrics, func(m grid.Metric) bool { return m.Name == "bumps" && m.Count == 1 }) {
				t.Errorf("bump: metrics %+v", rep.Metrics)
			}
		case "chance.impure":
			if len(again.Problems) != 1 || again.Problems[0].What != stdoutFile {
				t.Errorf("an impure case whose output is another: %+v", again)
			}
		}
	}
	for name, want := range map[string]string{
		"fib/stdout":            "6765",
		"bump/stdout":           "1+3",
		"bump/kv.json":          "{\n  \"counters/a\": \"1+3\",\n  \"counters/new\": \"data:;base64,/wA=\",\n  \"other/b\": \"2\"\n}\n",
		"look/stdout":           "[\"x\" \"y\"] 7 de abc \"1 2 3\"\n",
		"look/out/deep/b.txt":   "deep/b.txt",
		"forever.slow/error":    "deadline exceeded",
		"forever/error":         "limit exceeded",
		"bump.denied/error":     "denied\n",
		"look.secretless/error": "exit 1\nlook: ",
	} {
		if got := read(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	// Another case sees nothing of the first.
	if got := read("bump.denied/kv.json"); !strings.Contains(got, "no such file") {
		t.Errorf("a refused transaction has changed the map: %s", got)
	}
}
