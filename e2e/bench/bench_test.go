package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite testdata")

const printed = `goos: linux
goarch: amd64
pkg: github.com/wasmgrid/wasmgrid/e2e
cpu: Some CPU @ 2GHz
BenchmarkTasks
BenchmarkTasks-2   	       1	 900000000 ns/op	     12.50 one-cpu-us/task	     20000 one-tasks/s
BenchmarkTasks-2   	       1	 800000000 ns/op	     12.00 one-cpu-us/task	     22000 one-tasks/s
BenchmarkReuse/c/one
BenchmarkReuse/c/one-2 	    2000	     10000 ns/op	       0 B/op
BenchmarkSkewed/400x10ms+10x1s 	 1	 5 ns/op	 1.25 x-ideal
BenchmarkQueue/redis/4
BenchmarkQueue/redis/4-2 	 1	 0 ns/op	 10500 tasks/s
BenchmarkQueue/redis/4-2 	 1	 0 ns/op	  9500 tasks/s
BenchmarkQueue/parallel
    bench_test.go:70: it broke down
--- FAIL: BenchmarkQueue/parallel
BenchmarkC
    guest_test.go:300: "clang" is not in $PATH
--- SKIP: BenchmarkC
BenchmarkGet
    bench_test.go:12: it broke
    bench_test.go:12: and more
--- FAIL: BenchmarkGet-2
BenchmarkOdd-2 12 4
BenchmarkInf-2 12 +Inf ns/op
FAIL
`

func TestParse(t *testing.T) {
	m := parse(printed)
	for _, tt := range []struct {
		name, unit string
		want       []float64
	}{
		{"Tasks", "one-tasks/s", []float64{20000, 22000}},
		{"Tasks", "one-cpu-us/task", []float64{12.5, 12}},
		{"Reuse/c/one", "ns/op", []float64{10000}},
		{"Skewed/400x10ms+10x1s", "x-ideal", []float64{1.25}},
		{"Odd", "ns/op", nil},
		{"Inf", "ns/op", nil},
	} {
		if got := m.figures[tt.name][tt.unit]; !slices.Equal(got, tt.want) {
			t.Errorf("%s %s: %v, want %v", tt.name, tt.unit, got, tt.want)
		}
	}
	if got := m.skipped["C"]; got != `"clang" is not in $PATH` {
		t.Errorf("C was skipped since %q", got)
	}
	if got := m.failed["Get"]; got != "it broke" {
		t.Errorf("Get failed since %q", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(printed)
	f.Add("BenchmarkX-2 1 1 ns/op 2")
	f.Fuzz(func(t *testing.T, output string) {
		for name, units := range parse(output).figures {
			for unit, list := range units {
				if name == "" && strings.Contains(output, "Benchmark-") || len(list) == 0 || len(list) > maxCount || unit == "" {
					return
				}
			}
		}
	})
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"commit":"abc","lines":[{"name":"tasks-1","unit":"tasks/s","values":[1,2,3]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		old, err := decodeReport(bytes.NewReader(data))
		if err != nil {
			return
		}
		now := &report{Lines: slices.Clone(old.Lines)}
		now.compare(old)
		if err := errors.Join(now.text(io.Discard), now.markdown(io.Discard)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestMedianAndSpread(t *testing.T) {
	for _, tt := range []struct {
		list           []float64
		median, spread float64
	}{
		{nil, 0, 0}, {[]float64{3}, 3, 0}, {[]float64{3, 1, 2}, 2, 0.5}, {[]float64{4, 1, 3, 2}, 2.5, 0.6},
	} {
		if m, s := median(tt.list), spread(tt.list); m != tt.median || s != tt.spread {
			t.Errorf("%v: %v ±%v, want %v ±%v", tt.list, m, s, tt.median, tt.spread)
		}
	}
}

// TestChance compares with all orders counted one by one.
func TestChance(t *testing.T) {
	for _, tt := range []struct{ a, b []float64 }{
		{[]float64{1, 2, 3, 4, 5}, []float64{6, 7, 8, 9, 10}},
		{[]float64{1, 2, 3, 4, 8}, []float64{5, 6, 7, 9, 10}},
		{[]float64{1, 4, 5, 8}, []float64{2, 3, 6, 7, 9}},
		{[]float64{1}, []float64{2, 3}},
	} {
		n, all := len(tt.a), len(tt.a)+len(tt.b)
		u := func(a []float64, b []float64) float64 {
			u := 0.0
			for _, x := range a {
				for _, y := range b {
					if x > y {
						u++
					}
				}
			}
			return min(u, float64(len(a)*len(b))-u)
		}
		limit, as, of := u(tt.a, tt.b), 0.0, 0.0
		for mask := range 1 << all {
			var a, b []float64
			for i := range all {
				if mask>>i&1 == 1 {
					a = append(a, float64(i))
				} else {
					b = append(b, float64(i))
				}
			}
			if len(a) != n {
				continue
			}
			if of++; u(a, b) <= limit {
				as++
			}
		}
		if got, want := chance(tt.a, tt.b), as/of; got < want-1e-9 || got > want*1.5+1e-9 {
			t.Errorf("%v and %v: %v, want %v", tt.a, tt.b, got, want)
		}
	}
}

func TestVerdict(t *testing.T) {
	low, high, mixed := []float64{1, 2, 3, 4, 5}, []float64{6, 7, 8, 9, 10}, []float64{2, 3, 4, 5, 6}
	for _, tt := range []struct {
		old, now []float64
		less     bool
		want     string
	}{
		{low, high, false, "better"}, {low, high, true, "worse"}, {high, low, true, "better"}, {high, low, false, "worse"},
		{low, mixed, false, "same"}, {low, low, true, "same"}, {low[:3], high[:3], true, "too few"}, {nil, high, true, ""},
	} {
		if got := verdict(tt.old, tt.now, tt.less); got != tt.want {
			t.Errorf("%v to %v, less %v: %q, want %q", tt.old, tt.now, tt.less, got, tt.want)
		}
	}
}

func TestAmount(t *testing.T) {
	for _, tt := range []struct {
		v    float64
		unit string
		want string
	}{
		{0.00312, "s", "3.12 ms"}, {12e-9, "s", "12.0 ns"}, {75, "s", "75.0 s"}, {4000, "s", "4000 s"}, {1.2e9, "B/s", "1.2 GB/s"}, {0.5, "B", "0.5 B"},
		{250000, "tasks/s", "250000 tasks/s"}, {1.06, "", "1.06"}, {0, "s", "0 s"},
	} {
		if got := amount(tt.v, tt.unit); got != tt.want {
			t.Errorf("%v %s: %q, want %q", tt.v, tt.unit, got, tt.want)
		}
	}
}

// example is a report with all that lines can come to.
func example() *report {
	at := &bench{pkg: "e2e", name: "Tasks", time: "1x"}
	other := &bench{pkg: "e2e", name: "C", time: "1x"}
	third := &bench{pkg: "store", name: "Get", time: "1x"}
	beside := &bench{pkg: "e2e/bench/peers", name: "Queue", time: "1x"}
	lines := []line{
		{name: "tasks", shows: "tasks", unit: "tasks/s", value: series{at, "", "one-tasks/s", 0}, target: &target{bound: 10e3}, peer: series{beside, "4", "tasks/s", 0}},
		{name: "cpu", shows: "processor time of one", unit: "s", less: true, value: series{at, "", "one-cpu-us/task", us},
			limitIs: "a tick | two", limit: series{at, "", "ns/op", ns}, target: &target{0.1, true}},
		{name: "share", shows: "as the benchmark reports it", unit: "s", value: series{at, "", "ns/op", ns}, limitIs: "the ideal", ratio: series{at, "", "one-tasks/s", 1e-4},
			target: &target{bound: 2}, peer: series{other, "scan", "ns/op", 1e-9}},
		{name: "alone", shows: "what has lost its limit", unit: "s", value: series{at, "", "ns/op", ns}, limitIs: "a stream", limit: series{other, "", "ns/op", ns}, target: &target{1, true}},
		{name: "sandbox", shows: "a guest in C", unit: "s", less: true, value: series{other, "scan", "ns/op", ns}},
		{name: "get", shows: "what fails", unit: "s", less: true, value: series{third, "", "ns/op", ns}, target: &target{bound: 1}},
		{name: "gone", shows: "what is not there", unit: "s", value: series{at, "", "furlongs", 0}},
	}
	m := parse(printed)
	outcomes := map[*bench]outcome{at: {measured: m}, other: {measured: m}, third: {err: errors.New("go: exit status 1: undefined: x")}, beside: {measured: m}}
	r := &report{Machine: machine{CPU: "Some CPU @ 2GHz", Cores: 2, Memory: 8e9, Kernel: "6.1", System: "linux/amd64", Go: "go1.26"}, Commit: "abcdef", Modified: true,
		Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Took: "3s", LoadBefore: 0.1, LoadAfter: 2, Count: 2,
		Peers: []peer{{Name: "redis", Version: "7.0.15", Lacks: "no sandbox"}, {Name: "dask", Lacks: "no sandbox", Absent: "no python3 has the module distributed"},
			{Name: "parallel", Version: "20221122", Lacks: "no sandbox"}}}
	for i := range lines {
		r.Lines = append(r.Lines, lines[i].result(outcomes, []string{"redis", "parallel"}))
	}
	return r
}

func TestRender(t *testing.T) {
	compared := example()
	old := example()
	old.Commit = "012345"
	old.Lines[0].Values = []float64{10000, 11000, 10500, 10001, 10002}
	compared.Lines[0].Values = []float64{20000, 21000, 20500, 20001, 20002}
	compared.compare(old)
	for name, print := range map[string]func(io.Writer) error{
		"report.txt": example().text, "report.md": example().markdown, "report.json": example().json, "compared.txt": compared.text, "compared.md": compared.markdown,
	} {
		var got bytes.Buffer
		if err := print(&got); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != string(want) {
			t.Errorf("%s is now (go test -update, if it is to be):\n%s", name, got.String())
		}
	}
}

// TestSometimes: what has failed one time of several shows its figures, and that.
func TestSometimes(t *testing.T) {
	b := &bench{pkg: "here", name: "Tasks"}
	m := parse(printed + "BenchmarkTasks\n    bench_test.go:7: no leader\n--- FAIL: BenchmarkTasks-2\n")
	l := line{name: "tasks", unit: "tasks/s", value: series{b, "", "one-tasks/s", 0}}
	got := l.result(map[*bench]outcome{b: {measured: m}}, nil)
	if text := cell(got.Values, got.Unit, got.Skipped, got.Error); text != "21000 tasks/s ±5%; not each time: failed: no leader" {
		t.Errorf("%q", text)
	}
	if r := (&report{Lines: []result{got}}); !r.failed() {
		t.Error("nothing has failed")
	}
}

// TestReadAgain: what --json prints can be compared with; other things are refused by name.
func TestReadAgain(t *testing.T) {
	var data bytes.Buffer
	if err := example().json(&data); err != nil {
		t.Fatal(err)
	}
	if _, err := decodeReport(&data); err != nil {
		t.Fatal(err)
	}
	many := `"values":[` + strings.Repeat("1,", maxCount) + `1]`
	for _, bad := range []string{"", "[]", `{"speed":1}`, `{"lines":[{"name":"x",` + many + `}]}`, `{"lines":[{"name":"x","peers":{"y":{` + many + `}}}]}`} {
		if r, err := decodeReport(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was taken for %+v", short(bad), r)
		}
	}
}

// TestTable: the benchmarks that the table names are there, names are unique, and each line can be had by its name.
func TestTable(t *testing.T) {
	there := map[string]bool{} // package and name
	known := map[string]bool{}
	look := func(pkg string) {
		if known[pkg] {
			return
		}
		known[pkg] = true
		files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pkg), "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					there[pkg+" "+fn.Name.Name] = true
				}
			}
		}
	}
	names := map[string]bool{}
	for i := range table {
		l := &table[i]
		if names[l.name] || l.name == "" || l.shows == "" {
			t.Errorf("line %d, %q, has no name of its own, or does not say what it shows", i, l.name)
		}
		names[l.name] = true
		if l.value.bench == nil || (l.limit.bench != nil || l.ratio.bench != nil) != (l.limitIs != "") {
			t.Errorf("%s: has no value, or a limit that has no name", l.name)
		}
		if l.target != nil && l.target.ofLimit && l.limitIs == "" {
			t.Errorf("%s: aims at a part of a limit that it has not", l.name)
		}
		for _, s := range []series{l.value, l.limit, l.ratio, l.peer} {
			if s.bench == nil {
				continue
			}
			if s.fast == "" && l.quick() {
				t.Errorf("%s: is quick, but Benchmark%s is not", l.name, s.name)
			}
			look(s.pkg)
			if !there[s.pkg+" Benchmark"+s.name] {
				t.Errorf("%s: there is no Benchmark%s in %s", l.name, s.name, s.pkg)
			}
		}
	}
}

func TestNeeded(t *testing.T) {
	steps := needed(chosen(regexp.MustCompile("^(latency|submit-1|commit-1|submit-8|tasks-2)$"), false), []string{"dask", "redis"})
	var got []string
	for _, s := range steps {
		got = append(got, s.pkg+" "+s.pattern())
	}
	want := []string{
		"e2e ^BenchmarkTasks$",
		"e2e/bench/peers ^BenchmarkTasks$/^dask$/^2$|^BenchmarkTasks$/^redis$/^2$",
		"e2e ^BenchmarkTinyJob$",
		"e2e/bench/peers ^BenchmarkLatency$/^dask$|^BenchmarkLatency$/^redis$",
		"store/ledger ^BenchmarkFsync$",
		"store/ledger ^BenchmarkCommit$/^files$/^voters=3$/^clients=1$/^batch=256$",
		"cmd/grid/daemon ^BenchmarkSubmit$/^one$|^BenchmarkSubmit$/^eight$",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestUsage: a wrong flag is refused before anything is run.
func TestUsage(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		says string
	}{
		{"--run (", "--run"}, {"--run nothing-of-that-name", "no line matches"}, {"tasks", "only flags"}, {"--count 1000", "--count 1000"}, {"--json --markdown", "choose one"},
		{"--fail", "worse than what"}, {"--compare /nowhere/old.json", "/nowhere/old.json"}, {"--compare " + empty, "has to be what --json prints"}, {"--sped", "--quick"},
		{"--peers dask,slurm", "dask, parallel, redis"}, {"--install", "--peers"},
		{"--show " + empty, "has to be what --json prints"}, {"--show " + empty + " --quick", "that run is over"},
	} {
		var errs bytes.Buffer
		if code := run(context.Background(), strings.Fields(tt.args), io.Discard, &errs); code != exitUsage || !strings.Contains(errs.String(), tt.says) {
			t.Errorf("%s: exit code %d: %s", tt.args, code, errs.String())
		}
	}
	shown := bytes.Buffer{}
	if code := run(context.Background(), []string{"--show", filepath.Join("testdata", "report.json"), "--markdown"}, &shown, io.Discard); code != exitFailed || !strings.Contains(shown.String(), "21000 tasks/s") {
		t.Errorf("--show: exit code %d: %s", code, shown.String()) // lines of it have failed
	}
	var out bytes.Buffer
	if code := run(context.Background(), []string{"--list", "--run", "^commit", "--quick"}, &out, io.Discard); code != 0 || strings.Count(out.String(), "\n") != 4 {
		t.Errorf("--list: exit code %d: %s", code, out.String())
	}
}

// TestRunner measures a benchmark of this package, one that fails and one that skips; a package that does not build; and an end before the end.
func TestRunner(t *testing.T) {
	pkg := "e2e/bench"
	steady, fails, skips := &bench{pkg, "Steady", "1x", "1x"}, &bench{pkg, "Fails", "1x", "1x"}, &bench{pkg, "Skips", "1x", "1x"}
	none := &bench{"e2e/nothing", "Nothing", "1x", "1x"}
	t.Setenv("GRID_BENCH_SELF", "1")
	lines := []*line{
		{name: "steady", shows: "s", unit: "steps", value: series{steady, "", "steps", 0}, limitIs: "itself", limit: series{steady, "", "steps", 0}},
		{name: "fails", shows: "f", value: series{fails, "", "ns/op", 0}},
		{name: "skips", shows: "s", value: series{skips, "", "ns/op", 0}},
		{name: "none", shows: "n", value: series{none, "", "ns/op", 0}},
	}
	var errs bytes.Buffer
	r, err := measure(t.Context(), lines, nil, 2, true, &errs)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Lines[0]; !slices.Equal(got.Values, []float64{42, 42}) || !slices.Equal(got.Ratios, []float64{1, 1}) {
		t.Errorf("steady: %+v", got)
	}
	if got := r.Lines[1]; got.Error != "failed: this one fails" {
		t.Errorf("fails: %+v", got)
	}
	if got := r.Lines[2]; got.Skipped != "skipped: this one skips" {
		t.Errorf("skips: %+v", got)
	}
	if got := r.Lines[3]; !strings.Contains(got.Error, "exit status") {
		t.Errorf("none: %+v", got)
	}
	if !r.failed() || r.Machine.Cores == 0 || !strings.Contains(errs.String(), "1/4 e2e/bench Steady") {
		t.Errorf("%+v, and it told %s", r, errs.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := measure(ctx, lines, nil, 1, true, io.Discard); err == nil {
		t.Error("what was interrupted at once has a report")
	}
}

// These are for TestRunner alone.
func forRunner(b *testing.B) {
	if os.Getenv("GRID_BENCH_SELF") == "" {
		b.Skip("only for the test of the runner")
	}
}

func BenchmarkSteady(b *testing.B) {
	forRunner(b)
	for b.Loop() {
	}
	b.ReportMetric(42, "steps")
}

func BenchmarkFails(b *testing.B) { forRunner(b); b.Fatal("this one fails") }

func BenchmarkSkips(b *testing.B) { forRunner(b); b.Skip("this one skips") }
