package grid

import (
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
)

func sweepStage(axes ...Axis) Stage {
	return Stage{
		Module: Link{NewBlock(cid.Raw, []byte("m")).CID()}, Sweep: axes,
		Args: []string{"--rate={rate}", "{}", "{other}"}, Env: []string{"N={n}", "R={rate}{rate}"},
	}
}

func TestSweep(t *testing.T) {
	st := sweepStage(Axis{[]string{"rate"}, [][]string{{"1"}, {"{n}"}}}, Axis{[]string{"n", "m"}, [][]string{{"a", "x"}, {"b", "y"}, {"", "z"}}})
	spec := Spec{Stages: []Stage{st}}
	for range 2 { // a spec that is normal stays so
		if err := spec.Normalize(); err != nil {
			t.Fatal(err)
		}
	}
	st = spec.Stages[0]
	if st.Tasks != 6 {
		t.Fatalf("%d tasks", st.Tasks)
	}
	var got []string
	for i := range st.Tasks {
		args, env := st.Varied(i)
		got = append(got, strings.Join(append(args, env...), " "))
	}
	want := []string{
		"--rate=1 {} {other} N=a R=11", "--rate=1 {} {other} N=b R=11", "--rate=1 {} {other} N= R=11",
		"--rate={n} {} {other} N=a R={n}{n}", "--rate={n} {} {other} N=b R={n}{n}", "--rate={n} {} {other} N= R={n}{n}",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	p := plan{lease: Lease{Job: "j"}, stage: st}
	task, err := p.task(t.Context(), 4)
	if err != nil || !slices.Equal(task.Args, []string{"--rate={n}", "{}", "{other}"}) || !slices.Equal(task.Env, []string{"N=b", "R={n}{n}", abiEnv}) {
		t.Errorf("task 4: %q %q %v", task.Args, task.Env, err)
	}
}

func TestSweepRefuses(t *testing.T) {
	many := make([][]string, 2000)
	for i := range many {
		many[i] = []string{"v"}
	}
	long := strings.Repeat("x", MaxArgBytes/2)
	for want, axes := range map[string][]Axis{
		"no names or no values":     {{Names: []string{"a"}}},
		"letters, digits":           {{[]string{"a b"}, [][]string{{"1"}}}},
		`two parameters "rate"`:     {{[]string{"rate"}, [][]string{{"1"}}}, {[]string{"rate"}, [][]string{{"1"}}}},
		"have 1 values":             {{[]string{"a", "b"}, [][]string{{"1"}}}},
		"not UTF-8":                 {{[]string{"a"}, [][]string{{"\xff"}}}},
		"combinations":              {{[]string{"a"}, many}, {[]string{"b"}, many}},
		"values have more than":     {{[]string{"a"}, [][]string{{long}, {long}, {"x"}}}},
		"arguments or environment ": {{[]string{"rate"}, [][]string{{long}}}},
	} {
		spec := Spec{Stages: []Stage{sweepStage(axes...)}}
		if err := spec.Normalize(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
