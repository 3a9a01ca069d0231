package grid_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestParseVerify(t *testing.T) {
	for _, text := range []string{"none", "quorum=2", "quorum=16", "audit=1", "audit=100", "adaptive"} {
		v, err := grid.ParseVerify(text)
		if err != nil || v.String() != text || v.On() != (text != "none") {
			t.Errorf("%s: %v, %v", text, v, err)
		}
		data, err := json.Marshal(v)
		var again grid.Verify
		if err != nil || json.Unmarshal(data, &again) != nil || again != v {
			t.Errorf("%s as JSON: %s, %v", text, data, err)
		}
	}
	for _, text := range []string{"quorum", "quorum=", "quorum=1", "quorum=17", "quorum=02", "quorum=-1", "audit=0", "audit=101", "audit=1.5", "adaptive=2", "none=1", "twice", "quorum=99999999999"} {
		if v, err := grid.ParseVerify(text); grid.CodeOf(err) != grid.Invalid || !strings.Contains(err.Error(), "verification") {
			t.Errorf("%s: %v, %v", text, v, err)
		}
	}
}

func FuzzParseVerify(f *testing.F) {
	for _, text := range []string{"none", "", "quorum=2", "audit=10", "adaptive", "quorum=x", "=", "audit=1=2"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := grid.ParseVerify(text)
		if err != nil {
			return
		}
		if again, err := grid.ParseVerify(v.String()); err != nil || again != v {
			t.Fatalf("%q is %v, and that is %v, %v", text, v, again, err)
		}
	})
}

// TestAnswer: what is a function of the invocation is compared, and nothing else.
func TestAnswer(t *testing.T) {
	link := func(text string) grid.Link { return grid.Link{Cid: grid.NewBlock(cid.Raw, []byte(text)).CID()} }
	base := grid.Receipt{Key: grid.Key{1}, Node: "a", Exit: 0, Stdout: grid.Output{Size: 2, Inline: []byte("ok")}, Out: link("out"), Fuel: 10,
		Metrics: []grid.Metric{{Name: "lines", Kind: grid.Counter, Count: 3}}}
	tests := []struct {
		name   string
		edit   func(r *grid.Receipt)
		same   bool
		differ string
	}{
		{"another node, time and memory", func(r *grid.Receipt) { r.Node, r.Started, r.Memory, r.Phases.Run = "b", 7, 8, 9 }, true, ""},
		{"profile", func(r *grid.Receipt) { r.Profile = link("profile") }, true, ""},
		{"exit", func(r *grid.Receipt) { r.Exit = 1 }, false, "exit code 1, not exit code 0"},
		{"fault", func(r *grid.Receipt) { r.Fault = &grid.Fault{Code: grid.Trap} }, false, "fault trap, not exit code 0"},
		{"stdout", func(r *grid.Receipt) { r.Stdout.Inline = []byte("no") }, false, "stdout bafk"},
		{"stderr", func(r *grid.Receipt) { r.Stderr = grid.Output{Size: 1, Inline: []byte("x")} }, false, "stderr bafk"},
		{"out", func(r *grid.Receipt) { r.Out = grid.Link{} }, false, "/out nothing, not bafk"},
		{"fuel", func(r *grid.Receipt) { r.Fuel++ }, false, "fuel 11, not 10"},
		{"spawned", func(r *grid.Receipt) { r.Spawned++ }, false, "tasks spawned: 1, not 0"},
		{"metrics", func(r *grid.Receipt) { r.Metrics = nil }, false, "counted and measured"},
	}
	for _, tt := range tests {
		r := base
		tt.edit(&r)
		if got := r.Same(&base); got != tt.same {
			t.Errorf("%s: the same %v", tt.name, got)
		}
		if text := r.Differs(&base); !tt.same && !strings.Contains(text, tt.differ) {
			t.Errorf("%s: %s", tt.name, text)
		}
	}
	// Who ran out of time says so whatever it had written by then.
	slow := func(out string) *grid.Receipt {
		return &grid.Receipt{Key: base.Key, Fault: &grid.Fault{Code: grid.Deadline, Message: out}, Stdout: grid.Output{Size: 1, Inline: []byte(out)}}
	}
	if !slow("a").Same(slow("b")) || slow("a").Same(&base) {
		t.Error("what a node's circumstances ended is compared by what it wrote")
	}
}

// TestStanding: trust is earned by a run of good results, looked at ever more rarely, and lost at once.
func TestStanding(t *testing.T) {
	var s grid.Standing
	last := 1.0
	for i := range 200 {
		if s.Trusted() != (i >= 10) || s.Rate() > last {
			t.Fatalf("after %d good results: trusted %v, looked at in %v, before %v", i, s.Trusted(), s.Rate(), last)
		}
		last = s.Rate()
		s = s.Judged(true)
	}
	if last != 0.05 {
		t.Errorf("in the end it is looked at in %v", last)
	}
	if s = s.Judged(false); s.Trusted() || s.Rate() != 1 || s.Bad != 1 {
		t.Errorf("after a bad one: %+v", s)
	}
}
