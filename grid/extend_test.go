package grid_test

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// answers is a guest that is given a document and answers with a text.
type answers func(ctx context.Context, doc string) (string, grid.Outcome, error)

func says(text string) answers {
	return func(context.Context, string) (string, grid.Outcome, error) { return text, grid.Outcome{}, nil }
}

// extensible is a node with plugins of each kind, whose functions are Go functions.
type extensible struct {
	*registry
	mu    sync.Mutex
	funcs map[string]answers // by function; others succeed without output
	docs  []string           // what the functions were given
	envs  []grid.Guest
}

func openExtensible(t *testing.T) *extensible {
	t.Helper()
	x := &extensible{registry: openRegistry(t), funcs: map[string]answers{}}
	x.w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		x.mu.Lock()
		f := x.funcs[g.Func]
		x.mu.Unlock()
		if f == nil {
			return grid.Outcome{}, nil
		}
		doc, err := io.ReadAll(g.Stdin)
		if err != nil {
			return grid.Outcome{}, err
		}
		x.mu.Lock()
		x.docs = append(x.docs, string(doc))
		x.envs = append(x.envs, *g)
		x.mu.Unlock()
		text, out, err := f(ctx, string(doc))
		if err == nil {
			if _, werr := io.WriteString(g.Stdout, text); werr != nil {
				out.Exit = 1
			}
		}
		return out, err
	}
	x.publish(t, "1.0.0", nil)
	return x
}

func (x *extensible) publish(t *testing.T, version string, wants []string) grid.Plugin {
	t.Helper()
	p, err := x.InstallPlugin(within(t), x.module(t, "extension "+version, version, func(m *grid.Manifest) {
		m.Name, m.Wants.Net = "ext", wants
		m.Functions = []grid.Function{
			{Name: "admit", Kind: grid.AdmissionFunc}, {Name: "score", Kind: grid.ScorerFunc},
			{Name: "tell", Kind: grid.NotifierFunc}, {Name: "shout", Kind: grid.NotifierFunc}, {Name: "plain", Kind: grid.TypedFunc},
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (x *extensible) set(name string, f answers) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.funcs[name] = f
}

func (x *extensible) attach(t *testing.T, ref string, with grid.Extension) grid.Extension {
	t.Helper()
	got, err := x.Attach(within(t), ref, with)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (x *extensible) counts(t *testing.T, key string) grid.ExtensionCounts {
	t.Helper()
	all, err := x.Extensions(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range all {
		if st.Key() == key {
			return st.Counts
		}
	}
	t.Fatalf("nothing is attached as %s", key)
	return grid.ExtensionCounts{}
}

var policy = grid.Extension{Role: grid.RoleAdmission}

func TestAttach(t *testing.T) {
	x := openExtensible(t)
	ctx := within(t)
	got := x.attach(t, "ext", policy)
	if got.Plugin != "ext@1.0.0" || got.Func != "admit" || !got.Module.Defined() || got.Fallback != grid.FallbackRefuse || got.Timeout <= 0 || got.By != x.w.ID {
		t.Errorf("attached %+v", got)
	}
	for _, test := range []struct {
		ref  string
		with grid.Extension
		code grid.Code
		says []string
	}{
		{"ext.plain", policy, grid.Invalid, []string{"ext.plain is a function of the kind func, not admission"}},
		{"ext.none", policy, grid.Invalid, []string{`no function "none"`}},
		{"nope.admit", policy, grid.NotFound, []string{`no plugin "nope"`}},
		{"ext", grid.Extension{Role: grid.RoleNotifier}, grid.Invalid, []string{"several functions"}},
		{"ext.tell", grid.Extension{Role: "king"}, grid.Invalid, []string{"no role"}},
		{"ext.admit", grid.Extension{Role: grid.RoleAdmission, Fallback: "shrug"}, grid.Invalid, []string{"shrug"}},
		{"ext.admit", grid.Extension{Role: grid.RoleAdmission, Grants: grid.Grants{Net: []string{"a.org"}}}, grid.Invalid, []string{"notifiers"}},
		{"ext.admit", grid.Extension{Role: grid.RoleAdmission, Timeout: time.Hour}, grid.Invalid, []string{"timeout"}},
		{"ext.admit", grid.Extension{Role: grid.RoleAdmission, Memory: 1 << 40}, grid.Limit, []string{"memory"}},
		{"ext.admit", grid.Extension{Role: grid.RoleAdmission, Memory: 64}, grid.Invalid, []string{"64 B of memory"}},
		{"ext.tell", grid.Extension{Role: grid.RoleNotifier, Events: []string{"birthday"}}, grid.Invalid, []string{"birthday"}},
		{"ext.tell", grid.Extension{Role: grid.RoleNotifier, Name: "Bad Name"}, grid.Invalid, []string{"Bad Name"}},
		{"ext.tell", grid.Extension{Role: grid.RoleNotifier, Tries: 1000}, grid.Limit, []string{"1000 tries"}},
		{"ext.tell", grid.Extension{Role: grid.RoleNotifier, Fallback: grid.FallbackAccept}, grid.Invalid, []string{"fallback"}},
	} {
		_, err := x.Attach(ctx, test.ref, test.with)
		wantCode(t, err, test.code, test.says...)
	}
	x.attach(t, "ext.tell", grid.Extension{Role: grid.RoleNotifier})
	x.attach(t, "ext.shout", grid.Extension{Role: grid.RoleNotifier, Name: "loud"})
	all, err := x.Extensions(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, st := range all {
		keys = append(keys, st.Key()+"="+st.String())
	}
	if want := []string{"admission=ext.admit@1.0.0", "notifier/ext=ext.tell@1.0.0", "notifier/loud=ext.shout@1.0.0"}; !slices.Equal(keys, want) {
		t.Errorf("attached are %v, want %v", keys, want)
	}
	_, err = x.RemovePlugin(ctx, "ext@1.0.0")
	wantCode(t, err, grid.Denied, "attached", "admission")
	wantCode(t, x.Detach(ctx, "notifier"), grid.Invalid, "2 notifiers")
	wantCode(t, x.Detach(ctx, "scorer"), grid.NotFound, "scorer")
	for _, key := range []string{"notifier/loud", "notifier", "admission"} {
		if err := x.Detach(ctx, key); err != nil {
			t.Error(err)
		}
	}
	if _, err := x.RemovePlugin(ctx, "ext@1.0.0"); err != nil {
		t.Error(err)
	}
	x.publish(t, "2.0.0", []string{"hooks.org"})
	_, err = x.Attach(ctx, "ext.tell", grid.Extension{Role: grid.RoleNotifier})
	wantCode(t, err, grid.Denied, "--allow-net hooks.org")
	x.attach(t, "ext.tell", grid.Extension{Role: grid.RoleNotifier, Grants: grid.Grants{Net: []string{"hooks.org"}}})
}

func TestAdmission(t *testing.T) {
	x := openExtensible(t)
	x.attach(t, "ext.admit", policy)
	x.set("admit", func(_ context.Context, doc string) (string, grid.Outcome, error) {
		var job grid.JobInfo
		if err := json.Unmarshal([]byte(doc), &job); err != nil {
			return "", grid.Outcome{}, err
		}
		switch {
		case job.User == "mallory":
			return `{"accept": false, "reason": "mallory\u001b[31m is not welcome"}`, grid.Outcome{}, nil
		case job.User == "doubtful":
			return `{"accept": true, "verify": "audit=10", "reason": "just to be sure"}`, grid.Outcome{}, nil
		}
		return `{"accept": true}`, grid.Outcome{}, nil
	})
	r := request(x.w, 3)
	r.User, r.Stages[0].Name = "ann", "first"
	id := submit(t, x.Node, r)
	if st := end(t, x.Node, id); st.State != grid.Done {
		t.Errorf("the job ended %s: %s", st.State, st.Error)
	}
	found := slices.ContainsFunc(events(t, x.Node, id), func(ev grid.JobEvent) bool {
		return ev.Kind == grid.EventPolicy && strings.Contains(ev.Text, "ext.admit@1.0.0")
	})
	if !found {
		t.Error("the job's story does not tell of the policy")
	}
	var job grid.JobInfo
	if err := json.Unmarshal([]byte(x.docs[0]), &job); err != nil {
		t.Fatal(err)
	}
	if job.Version != 1 || job.User != "ann" || job.Name != "test" || job.Tasks != 3 || len(job.Stages) != 1 || job.Verify != "none" || job.Node != x.w.ID.String() ||
		job.Stages[0].Name != "first" || job.Stages[0].Module != x.w.Module.String() || job.Stages[0].Memory != grid.DefaultLimits.Memory || job.Stages[0].Net == nil {
		t.Errorf("the policy was told %s", x.docs[0])
	}
	if g := x.envs[0]; g.Impure || len(g.Net) > 0 || g.Tasks != nil || g.Limits.Fuel == 0 || g.Limits.Wall == 0 || g.Limits.Memory == 0 || g.Seed == [32]byte{} {
		t.Errorf("the policy's guest is %+v", g)
	}

	r.User = "mallory"
	_, err := x.Submit(within(t), r)
	wantCode(t, err, grid.Denied, "ext.admit@1.0.0", "mallory", "is not welcome")
	if strings.Contains(err.Error(), "\x1b") {
		t.Errorf("what a policy says comes with escapes: %q", err)
	}
	if grid.AdviceOf(err) == "" {
		t.Error("the refusal does not say what to do")
	}

	r.User = "doubtful"
	id = submit(t, x.Node, r)
	if st := end(t, x.Node, id); st.Verify.String() != "audit=10" {
		t.Errorf("the job is verified %s", st.Verify)
	}
	r.Verify = grid.Verify{Mode: grid.VerifyAudit, N: 50} // the stricter counts
	id = submit(t, x.Node, r)
	if st := end(t, x.Node, id); st.Verify.String() != "audit=50" {
		t.Errorf("the job is verified %s", st.Verify)
	}
	r.Verify, r.Stages[0].Impure = grid.Verify{}, true
	_, err = x.Submit(within(t), r)
	wantCode(t, err, grid.Denied, "audit=10", "impure")

	if c := x.counts(t, "admission"); c.Refused != 1 || c.Verified != 1 || c.Broken != 0 || c.Runs < 5 {
		t.Errorf("counted %+v", c)
	}
}

// TestBrokenPolicy: whatever is wrong with a policy, jobs end as the fallback says, and people are told.
func TestBrokenPolicy(t *testing.T) {
	for _, test := range []struct {
		name  string
		does  answers
		words string
	}{
		{"trap", func(context.Context, string) (string, grid.Outcome, error) {
			return "", grid.Outcome{Fault: &grid.Fault{Code: grid.Trap, Message: "unreachable"}}, nil
		}, "unreachable"},
		{"exit", func(context.Context, string) (string, grid.Outcome, error) {
			return `{"accept": true}`, grid.Outcome{Exit: 3}, nil
		}, "exit code 3"},
		{"endless", func(ctx context.Context, _ string) (string, grid.Outcome, error) {
			<-ctx.Done()
			return "", grid.Outcome{}, ctx.Err()
		}, "did not end within"},
		{"fuel", func(context.Context, string) (string, grid.Outcome, error) {
			return "", grid.Outcome{Fault: &grid.Fault{Code: grid.Limit, Message: "out of fuel"}}, nil
		}, "out of fuel"},
		{"slow", func(context.Context, string) (string, grid.Outcome, error) {
			return "", grid.Outcome{Fault: &grid.Fault{Code: grid.Deadline, Message: "took too long"}}, nil
		}, "took too long"},
		{"nothing", says(""), "answers nothing"},
		{"garbage", says("\xff\x00 yes"), "no answer"},
		{"undecided", says(`{"reason": "hm"}`), "accept is missing"},
		{"null", says(`null`), "accept is missing"},
		{"more", says(`{"accept": true} {"accept": true}`), "more than one"},
		{"meddling", says(`{"accept": true, "priority": 9}`), "priority"},
		{"misfit", says(`{"accept": "yes"}`), "no answer"},
		{"unknown verification", says(`{"accept": true, "verify": "prayer"}`), "prayer"},
		{"too large", says(`{"accept": true, "reason": "` + strings.Repeat("x", 1<<20) + `"}`), "more than"},
		{"host", func(context.Context, string) (string, grid.Outcome, error) {
			return "", grid.Outcome{}, grid.Errorf(grid.Internal, "engine bug")
		}, "engine bug"},
		{"panic", func(context.Context, string) (string, grid.Outcome, error) { panic("engine panic") }, "engine panic"},
	} {
		t.Run(test.name, func(t *testing.T) {
			x := openExtensible(t)
			short := policy
			short.Timeout = time.Millisecond
			x.set("admit", test.does)
			x.attach(t, "ext.admit", short)
			_, err := x.Submit(within(t), request(x.w, 1))
			wantCode(t, err, grid.Denied, test.words, "ext.admit@1.0.0", "broken")
			if c := x.counts(t, "admission"); c.Broken != 1 || c.Last == "" {
				t.Errorf("counted %+v", c)
			}
			short.Fallback = grid.FallbackAccept
			x.attach(t, "ext.admit", short)
			id := submit(t, x.Node, request(x.w, 1))
			if st := end(t, x.Node, id); st.State != grid.Done {
				t.Errorf("the job ended %s: %s", st.State, st.Error)
			}
			told := slices.ContainsFunc(events(t, x.Node, id), func(ev grid.JobEvent) bool {
				return ev.Kind == grid.EventPolicy && strings.Contains(ev.Text, test.words)
			})
			if !told {
				t.Error("the job's story does not say that the policy was broken")
			}
			if e, err := x.Why(within(t), id); err != nil || !strings.Contains(e.Last[0].Text, test.words) {
				t.Errorf("the explanation does not say so: %+v, %v", e.Last, err)
			}
		})
	}
}

// TestPolicyAside: what is in the way of asking a policy is not taken for consent.
func TestPolicyAside(t *testing.T) {
	x := openExtensible(t)
	ctx := within(t)
	x.set("admit", says(`{"accept": true}`))
	lax := policy
	lax.Fallback = grid.FallbackAccept
	got := x.attach(t, "ext.admit", lax)

	r := request(x.w, 1) // too much to tell
	for range 40 {
		st := r.Stages[0]
		for k := range 64 {
			st.Net = append(st.Net, strings.Repeat("a", 60)+"."+strings.Repeat("b", 60)+"."+strings.Repeat("c", 60)+"."+strings.Repeat("d", 40)+".x"+string(rune('a'+k/26))+string(rune('a'+k%26)))
		}
		st.KV = []string{strings.Repeat("k", 500)}
		for k := range 60 {
			st.KV = append(st.KV, strings.Repeat("k", 400)+string(rune('a'+k/26))+string(rune('a'+k%26)))
		}
		r.Stages = append(r.Stages, st)
	}
	_, err := x.Submit(ctx, r)
	wantCode(t, err, grid.Limit, "admission policy", "bytes")

	if _, err := x.w.Ledger.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: grid.ExtensionKeys + "admission", Value: []byte("garbage")}}}); err != nil {
		t.Fatal(err)
	}
	_, err = x.Submit(ctx, request(x.w, 1))
	wantCode(t, err, grid.Denied, "does not understand")
	if err := x.Detach(ctx, "admission"); err != nil {
		t.Fatal(err)
	}
	submit(t, x.Node, request(x.w, 1))

	x.attach(t, "ext.admit", policy) // a module that is gone
	if err := x.w.Blocks.Delete(ctx, got.Module.Cid); err != nil {
		t.Fatal(err)
	}
	_, err = x.Submit(ctx, request(x.w, 1))
	wantCode(t, err, grid.Denied, "broken", "module")
}

func TestNotifier(t *testing.T) {
	x := openExtensible(t)
	var fails atomic.Int32
	fails.Store(2)
	got := make(chan grid.Notice, 100)
	x.set("tell", func(_ context.Context, doc string) (string, grid.Outcome, error) {
		var n grid.Notice
		if err := json.Unmarshal([]byte(doc), &n); err != nil {
			return "", grid.Outcome{}, err
		}
		if fails.Add(-1) >= 0 {
			return "", grid.Outcome{Exit: 1}, nil
		}
		got <- n
		return "", grid.Outcome{}, nil
	})
	x.attach(t, "ext.tell", grid.Extension{Role: grid.RoleNotifier, Events: []string{"submitted", "stage", "ended"}, Grants: grid.Grants{Net: []string{"localhost:1"}}})
	r := request(x.w, 2)
	r.User, r.Stages[0].Name = "ann", "first"
	id := submit(t, x.Node, r)
	var list []string
	seen := map[string]bool{}
	for len(list) < 4 {
		select {
		case n := <-got:
			list = append(list, n.Event)
			if n.Version != 1 || n.Job != string(id) || n.User != "ann" || n.Node != x.w.ID.String() || n.Time == "" || seen[n.ID] {
				t.Errorf("told %+v", n)
			}
			seen[n.ID] = true
		case <-within(t).Done():
			t.Fatalf("told only of %v", list)
		}
	}
	if want := []string{"submitted", "stage", "stage", "done"}; !slices.Equal(list, want) {
		t.Errorf("told of %v, want %v", list, want)
	}
	x.mu.Lock()
	g := x.envs[0]
	x.mu.Unlock()
	if !g.Impure || !slices.Equal(g.Net, []string{"localhost:1"}) {
		t.Errorf("its guest is %+v", g)
	}
	if c := x.counts(t, "notifier/ext"); c.Broken != 2 || c.Dropped != 0 {
		t.Errorf("counted %+v", c)
	}
}

// TestBrokenNotifier: a notifier that takes nothing holds nothing up, and what it does not take is counted.
func TestBrokenNotifier(t *testing.T) {
	x := openExtensible(t)
	x.set("tell", func(context.Context, string) (string, grid.Outcome, error) { return "", grid.Outcome{Exit: 9}, nil })
	stuck := make(chan struct{})
	x.set("shout", func(ctx context.Context, _ string) (string, grid.Outcome, error) {
		select {
		case <-stuck:
		case <-ctx.Done():
		}
		return "", grid.Outcome{}, ctx.Err()
	})
	x.attach(t, "ext.tell", grid.Extension{Role: grid.RoleNotifier, Tries: 1})
	x.attach(t, "ext.shout", grid.Extension{Role: grid.RoleNotifier, Name: "stuck", Events: []string{"submitted"}})
	if st, _ := run(t, x.Node, request(x.w, 1)); st.State != grid.Done {
		t.Errorf("the job ended %s: %s", st.State, st.Error)
	}
	for c := x.counts(t, "notifier/ext"); c.Dropped != 1; c = x.counts(t, "notifier/ext") {
		if within(t).Err() != nil || c.Dropped > 1 {
			t.Fatalf("counted %+v", c)
		}
	}
	for _, name := range []string{"stuck-b", "stuck-c", "stuck-d"} {
		x.attach(t, "ext.shout", grid.Extension{Role: grid.RoleNotifier, Name: name, Events: []string{"submitted"}})
	}
	x.set("admit", says(`{"accept": true}`))
	x.attach(t, "ext.admit", policy)
	if st, _ := run(t, x.Node, request(x.w, 2)); st.State != grid.Done { // though all places of notifiers are taken
		t.Errorf("the job ended %s: %s", st.State, st.Error)
	}
	if st, _ := run(t, x.Node, request(x.w, 3)); st.State != grid.Done {
		t.Errorf("the job ended %s: %s", st.State, st.Error)
	}
	if err := x.Detach(within(t), "notifier/stuck"); err != nil { // which ends what it runs
		t.Fatal(err)
	}
	close(stuck)
}

func FuzzExtension(f *testing.F) {
	seed(f, grid.Extension{Plugin: "a@1.0.0", Module: link("module"), Func: "f", Timeout: time.Second, Events: []string{"done"}, By: nodeID("a")})
	f.Fuzz(func(t *testing.T, data []byte) {
		x, ok := decodes[grid.Extension](t, data)
		if x.Role, x.Name = grid.RoleNotifier, "a"; ok && x.Check() == nil {
			if err := x.Check(); err != nil {
				t.Fatalf("a checked extension is refused: %v", err)
			}
		}
	})
}

func FuzzDecision(f *testing.F) {
	for _, s := range []string{`{"accept": true}`, `{"accept": false, "reason": "no"}`, `{"accept": true, "verify": "quorum=2"}`, `[]`, `{`, `{"accept":true}x`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, v, err := grid.ParseDecision([]byte(text))
		if err == nil && (d.Accept == nil || !*d.Accept && v.On()) {
			t.Fatalf("%q decides %+v, %v", text, d, v)
		}
	})
}

func TestScorer(t *testing.T) {
	x := openExtensible(t)
	var mu sync.Mutex
	answer := `{"scores": [0.5]}`
	x.set("score", func(context.Context, string) (string, grid.Outcome, error) {
		mu.Lock()
		defer mu.Unlock()
		return answer, grid.Outcome{}, nil
	})
	x.attach(t, "ext.score", grid.Extension{Role: grid.RoleScorer})
	r := request(x.w, 1)
	r.Stages[0].Name = "first"
	id := submit(t, x.Node, r)
	end(t, x.Node, id)
	if x.counts(t, "scorer").Runs != 1 {
		t.Errorf("counted %+v", x.counts(t, "scorer"))
	}
	var asked grid.Scoring
	if err := json.Unmarshal([]byte(x.docs[0]), &asked); err != nil || asked.Version != 1 || asked.Stage.Name != "first" || len(asked.Nodes) != 1 ||
		asked.Nodes[0].ID != x.w.ID.String() || !asked.Nodes[0].Self || asked.Nodes[0].Slots == 0 {
		t.Errorf("asked %s, %v", x.docs[0], err)
	}
	submit(t, x.Node, r) // of which all is known
	if c := x.counts(t, "scorer"); c.Runs != 1 {
		t.Errorf("the same was asked twice: %+v", c)
	}
	for _, bad := range []string{"", "[]", `{"scores": []}`, `{"scores": [1, 2]}`, `{"scores": ["much"]}`, `{"scores": [1e999]}`, `{"scores": [1], "more": 1}`} {
		mu.Lock()
		answer = bad
		mu.Unlock()
		r.Stages[0].Name = "bad " + bad
		before := x.counts(t, "scorer").Broken
		id := submit(t, x.Node, r)
		if st := end(t, x.Node, id); st.State != grid.Done {
			t.Errorf("%q: the job ended %s", bad, st.State)
		}
		if after := x.counts(t, "scorer").Broken; after == before {
			t.Errorf("%q is taken for an answer", bad)
		}
		told := slices.ContainsFunc(events(t, x.Node, id), func(ev grid.JobEvent) bool { return strings.Contains(ev.Text, "the scorer is broken") })
		if !told {
			t.Errorf("%q: the job's story does not say so", bad)
		}
	}
}

// TestShunned: a stage that no node may run by its scores says so.
func TestShunned(t *testing.T) {
	x := openExtensible(t)
	x.set("score", says(`{"scores": [-2]}`))
	x.attach(t, "ext.score", grid.Extension{Role: grid.RoleScorer})
	hold := make(chan struct{})
	x.w.Engine.Guest = func(old func(context.Context, *grid.Guest) (grid.Outcome, error)) func(context.Context, *grid.Guest) (grid.Outcome, error) {
		return func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
			if g.Func == "" { // the job's task, which the fake scheduler runs all the same
				select {
				case <-hold:
				case <-ctx.Done():
				}
			}
			return old(ctx, g)
		}
	}(x.w.Engine.Guest)
	id := submit(t, x.Node, request(x.w, 1))
	e, err := x.Why(within(t), id)
	close(hold)
	if err != nil || e.Stages[0].State != grid.StageUnplaced || len(e.Nodes) != 1 || !strings.Contains(e.Nodes[0].Text, "its score is -2") {
		t.Errorf("explained %+v, %v", e, err)
	}
	end(t, x.Node, id)
}

// TestAdmitLent: a realm's admission policy is asked about a stranger's stage, once, and a broken one refuses, whatever its fallback.
func TestAdmitLent(t *testing.T) {
	x := openExtensible(t)
	st := grid.Stage{Module: x.w.Module, Name: "one", Tasks: 3, Limits: grid.DefaultLimits}
	ann, bob := nodeID("ann"), nodeID("bob")
	if err := x.AdmitLent(within(t), bob, &st); err != nil {
		t.Errorf("without a policy: %v", err)
	}
	lenient := policy
	lenient.Fallback = grid.FallbackAccept
	x.attach(t, "ext.admit", lenient)
	x.set("admit", func(_ context.Context, doc string) (string, grid.Outcome, error) {
		var job grid.JobInfo
		if err := json.Unmarshal([]byte(doc), &job); err != nil {
			return "", grid.Outcome{}, err
		}
		switch {
		case job.Owner == bob.String() && job.User == job.Owner && len(job.Stages) == 1 && job.Stages[0].Module == x.w.Module.String() && job.Stages[0].Memory > 0:
			return `{"accept": false, "reason": "bob is not welcome"}`, grid.Outcome{}, nil
		case job.Stages[0].Name == "broken":
			return `maybe`, grid.Outcome{}, nil
		}
		return `{"accept": true}`, grid.Outcome{}, nil
	})
	for range 3 {
		if err := x.AdmitLent(within(t), ann, &st); err != nil {
			t.Errorf("ann's stage: %v", err)
		}
		wantCode(t, x.AdmitLent(within(t), bob, &st), grid.Denied, "bob is not welcome")
	}
	st.Name = "broken"
	for range 2 {
		wantCode(t, x.AdmitLent(within(t), ann, &st), grid.Denied, "broken")
	}
	if c := x.counts(t, "admission"); c.Runs != 3 || c.Refused != 1 || c.Broken != 1 {
		t.Errorf("counted %+v", c)
	}
	if err := x.AdmitLent(within(t), x.w.ID, &st); err != nil {
		t.Errorf("what a task has spawned here: %v", err)
	}
}
