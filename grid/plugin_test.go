package grid_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

func samplePlugin() grid.Plugin {
	return grid.Plugin{
		CID: link("module"), Size: 77, ABI: 2, Description: "Counts.", License: "MIT", Wants: grid.Grants{KV: []string{"n/"}},
		Functions: []grid.Function{{Name: "count", Kind: grid.TypedFunc}}, Publisher: nodeID("a"), Signers: []peer.ID{nodeID("b")},
		Published: time.Unix(1700000000, 5).UTC(), Removed: time.Unix(1700000001, 0).UTC(),
	}
}

func FuzzPlugin(f *testing.F) {
	seed(f, samplePlugin(), grid.PluginPolicy{Require: grid.SignAll, Trust: []peer.ID{nodeID("a")}})
	f.Fuzz(func(t *testing.T, data []byte) {
		decodes[grid.Plugin](t, data)
		if p, ok := decodes[grid.PluginPolicy](t, data); ok && p.Check() == nil {
			if err := p.Check(); err != nil {
				t.Fatalf("a checked policy is refused: %v", err)
			}
		}
	})
}

func TestPluginRef(t *testing.T) {
	for _, test := range []struct {
		text string
		want grid.PluginRef
		ok   bool
	}{
		{"wordcount", grid.PluginRef{Name: "wordcount"}, true},
		{"wordcount.map", grid.PluginRef{Name: "wordcount", Func: "map"}, true},
		{"wordcount@1.2.3", grid.PluginRef{Name: "wordcount", Version: "1.2.3"}, true},
		{"wordcount.map@2.0.0-rc.1", grid.PluginRef{Name: "wordcount", Func: "map", Version: "2.0.0-rc.1"}, true},
		{"w@1", grid.PluginRef{Name: "w", Version: "1"}, true},
		{"w@^1.2", grid.PluginRef{Name: "w", Version: "^1.2"}, true},
		{"w@~1.2.3", grid.PluginRef{Name: "w", Version: "~1.2.3"}, true},
		{"w@>=1 <2", grid.PluginRef{Name: "w", Version: ">=1 <2"}, true},
		{"w@latest", grid.PluginRef{Name: "w", Version: "latest"}, true},
		{"w@stable", grid.PluginRef{Name: "w", Version: "stable"}, true},
		{"w._a-b@1", grid.PluginRef{Name: "w", Func: "_a-b", Version: "1"}, true},
		{"", grid.PluginRef{}, false},
		{"@1", grid.PluginRef{}, false},
		{"w@", grid.PluginRef{}, false},
		{"w.", grid.PluginRef{}, false},
		{"w.a.b", grid.PluginRef{}, false},
		{"W", grid.PluginRef{}, false},
		{"double.wasm@what ever", grid.PluginRef{}, false},
		{"./w", grid.PluginRef{}, false},
		{"w@1@2", grid.PluginRef{}, false},
		{"w@" + strings.Repeat("1", 300), grid.PluginRef{}, false},
	} {
		got, err := grid.ParsePluginRef(test.text)
		if got != test.want || (err == nil) != test.ok {
			t.Errorf("%q: %+v, %v", test.text, got, err)
		}
		if err == nil && got.String() != test.text {
			t.Errorf("%q is written %q", test.text, got)
		}
	}
}

func FuzzPluginRef(f *testing.F) {
	for _, s := range []string{"w.f@^1.2", "w@>=1 <2 || 3", "w@latest", "w@1.2.3-rc.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := grid.ParsePluginRef(text)
		if err != nil {
			return
		}
		if again, err := grid.ParsePluginRef(r.String()); err != nil || again != r {
			t.Fatalf("%q is %+v, then %+v, %v", text, r, again, err)
		}
	})
}

func TestGrantsMissing(t *testing.T) {
	for _, test := range []struct {
		grants, wants grid.Grants
		flags         string
	}{
		{grid.Grants{}, grid.Grants{}, ""},
		{grid.Grants{}, grid.Grants{Net: []string{"a.org"}, KV: []string{"n/:ro"}, Secrets: []string{"s"}, Data: []string{"*"}, Decrypt: []string{"k"}},
			"--allow-net a.org:443 --allow-kv n/:ro --allow-secret s --allow-data '*' --allow-decrypt k"},
		{grid.Grants{Secrets: []string{"k"}, Decrypt: []string{"d"}}, grid.Grants{Decrypt: []string{"d", "k"}}, "--allow-decrypt k"},
		{grid.Grants{Net: []string{"*:443"}}, grid.Grants{Net: []string{"a.org", "a.org:80", "1.1.1.1"}}, "--allow-net 1.1.1.1:443 --allow-net a.org:80"},
		{grid.Grants{Net: []string{"*.a.org"}}, grid.Grants{Net: []string{"b.a.org", "a.org", "*.b.a.org", "*.c.org"}}, "--allow-net '*.c.org:443' --allow-net a.org:443"},
		{grid.Grants{Net: []string{"10.0.0.0/8:80"}}, grid.Grants{Net: []string{"10.1.0.0/16:80", "10.2.3.4:80", "11.0.0.1:80"}}, "--allow-net 11.0.0.1:80"},
		{grid.Grants{KV: []string{"a/"}}, grid.Grants{KV: []string{"a/b/", "a/:ro", "b"}}, "--allow-kv b"},
		{grid.Grants{KV: []string{"a/:ro"}}, grid.Grants{KV: []string{"a/b:ro", "a/b"}}, "--allow-kv a/b"},
		{grid.Grants{Data: []string{"*"}}, grid.Grants{Data: []string{link("x").String()}}, ""},
	} {
		if err := errors.Join(test.grants.Normalize(), test.wants.Normalize()); err != nil {
			t.Fatal(err)
		}
		missing := test.grants.Missing(&test.wants)
		if got := missing.Flags(); got != test.flags {
			t.Errorf("%+v lacks %q of %+v, want %q", test.grants, got, test.wants, test.flags)
		}
	}
}

// registry is a node whose engine believes what it is told of modules.
type registry struct {
	*grid.Node
	w *fake.World

	mu      sync.Mutex
	modules map[cid.Cid]grid.Module
}

func openRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{w: fake.NewWorld(new(fake.Hub), "registry"), modules: map[cid.Cid]grid.Module{}}
	r.w.Engine.About = func(c cid.Cid) grid.Module {
		r.mu.Lock()
		defer r.mu.Unlock()
		if m, ok := r.modules[c]; ok {
			return m
		}
		return grid.Module{Kind: grid.Command, Any: true}
	}
	r.Node = open(t, r.w.Config())
	return r
}

// module makes a module with a manifest.
func (r *registry) module(t *testing.T, text, version string, change func(*grid.Manifest), signers ...peer.ID) grid.Link {
	t.Helper()
	b := grid.NewBlock(cid.Raw, []byte(text))
	if err := r.w.Blocks.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	m := &grid.Manifest{Format: 1, Name: "tool", Version: version, ABI: 2, Functions: []grid.Function{{Name: "count", Kind: grid.TypedFunc}, {Name: "map", Kind: grid.MapFunc}}}
	if change != nil {
		change(m)
	}
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.modules[b.CID()] = grid.Module{Kind: grid.Command, Any: true, Manifest: m, Signers: signers}
	return grid.Link{Cid: b.CID()}
}

func (r *registry) install(t *testing.T, text, version string) grid.Plugin {
	t.Helper()
	p, err := r.InstallPlugin(within(t), r.module(t, text, version, nil))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRegistry(t *testing.T) {
	r := openRegistry(t)
	ctx := within(t)
	one := r.install(t, "one", "1.0.0")
	if one.String() != "tool@1.0.0" || one.Publisher != r.w.ID || len(one.Functions) != 2 || one.Published.IsZero() {
		t.Errorf("installed %+v", one)
	}
	if again := r.install(t, "one", "1.0.0"); !again.Published.Equal(one.Published) {
		t.Error("publishing it again made another of it")
	}
	if name := kept(t, r.w, one.CID); name != "plugin tool@1.0.0" {
		t.Errorf("its pin is %q", name)
	}
	wantCode(t, r.Unpin(ctx, one.CID.Cid), grid.Conflict, "is plugin tool@1.0.0")

	other := r.module(t, "other", "1.0.0", nil)
	_, err := r.InstallPlugin(ctx, other)
	wantCode(t, err, grid.Conflict, "tool@1.0.0", one.CID.String(), other.String())
	if kept(t, r.w, other) != "" {
		t.Error("what was refused is kept")
	}
	_, err = r.InstallPlugin(ctx, r.w.Module)
	wantCode(t, err, grid.Invalid, "no manifest")

	r.install(t, "two", "1.2.0")
	r.install(t, "three", "1.10.0")
	r.install(t, "four", "2.0.0-rc.1")
	if p, err := r.SetAlias(ctx, "tool", "stable", "1.2"); err != nil || p.Version != "1.2.0" {
		t.Errorf("alias: %+v, %v", p, err)
	}
	for _, bad := range [][2]string{{"latest", "1"}, {"v1", "1"}, {"x", "1"}, {"1", "1"}, {"beta", "9"}, {"beta", "none"}} {
		if _, err := r.SetAlias(ctx, "tool", bad[0], bad[1]); err == nil {
			t.Errorf("alias %q for %q was set", bad[0], bad[1])
		}
	}
	for _, test := range []struct{ ref, version, function, problem string }{
		{"tool", "1.10.0", "", ""},
		{"tool.map", "1.10.0", "map", ""},
		{"tool@latest", "1.10.0", "", ""},
		{"tool@1", "1.10.0", "", ""},
		{"tool@~1.2", "1.2.0", "", ""},
		{"tool.map@<1.2", "1.0.0", "map", ""},
		{"tool@>=1 <1.5", "1.2.0", "", ""},
		{"tool@1.0.0", "1.0.0", "", ""},
		{"tool@2.0.0-rc.1", "2.0.0-rc.1", "", ""},
		{"tool@>=2.0.0-0", "2.0.0-rc.1", "", ""},
		{"tool@stable", "1.2.0", "", ""},
		{"tool@2", "", "", "no version 2"},
		{"tool@1.0.1", "", "", "no version 1.0.1"},
		{"tool@beta", "", "", `no alias "beta"`},
		{"tools", "", "", `no plugin "tools"`},
		{"to ol", "", "", "names no plugin"},
	} {
		p, function, err := r.ResolvePlugin(ctx, test.ref)
		if p.Version != test.version || function != test.function || (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s is %s, %q, %v", test.ref, p.Version, function, err)
		}
	}

	gone, err := r.RemovePlugin(ctx, "tool@stable")
	if err != nil || gone.Version != "1.2.0" || gone.Removed.IsZero() || kept(t, r.w, gone.CID) != "" {
		t.Errorf("removed %+v, %v; kept by %q", gone, err, kept(t, r.w, gone.CID))
	}
	_, _, err = r.ResolvePlugin(ctx, "tool@stable")
	wantCode(t, err, grid.NotFound, "no alias")
	_, _, err = r.ResolvePlugin(ctx, "tool@1.2.0")
	wantCode(t, err, grid.NotFound, "was removed")
	_, err = r.InstallPlugin(ctx, r.module(t, "usurper", "1.2.0", nil))
	wantCode(t, err, grid.Conflict, gone.CID.String())
	if back := r.install(t, "two", "1.2.0"); !back.Removed.IsZero() || !back.Published.Equal(gone.Published) {
		t.Errorf("back is %+v", back)
	}
	all, err := r.Plugins(ctx, "tool", false)
	var versions []string
	for _, p := range all {
		versions = append(versions, p.Version)
	}
	if want := []string{"1.0.0", "1.2.0", "1.10.0", "2.0.0-rc.1"}; err != nil || !slices.Equal(versions, want) {
		t.Errorf("versions %q, %v, want %q", versions, err, want)
	}
}

// Of many that publish one version at a time, one does, and the others hear what there is.
func TestRegistryConcurrent(t *testing.T) {
	r := openRegistry(t)
	ctx := within(t)
	const n = 8
	var modules []grid.Link
	for i := range n {
		modules = append(modules, r.module(t, fmt.Sprint("m", i), "1.0.0", nil))
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { _, errs[i] = r.InstallPlugin(ctx, modules[i]) })
	}
	wg.Wait()
	p, _, err := r.ResolvePlugin(ctx, "tool@1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range errs {
		if won := modules[i] == p.CID; won != (err == nil) {
			t.Errorf("%d: %v", i, err)
		} else if !won {
			wantCode(t, err, grid.Conflict, p.CID.String(), modules[i].String())
		}
		if (kept(t, r.w, modules[i]) != "") != (err == nil) {
			t.Errorf("%d is kept by %q, though it came to %v", i, kept(t, r.w, modules[i]), err)
		}
	}
}

func TestPluginPolicy(t *testing.T) {
	r := openRegistry(t)
	ctx := within(t)
	friend, stranger := fake.NewWorld(new(fake.Hub), "friend").ID, fake.NewWorld(new(fake.Hub), "stranger").ID
	unsigned := r.module(t, "unsigned", "1.0.0", nil)
	foreign := r.module(t, "foreign", "1.1.0", nil, stranger)
	trusted := r.module(t, "trusted", "1.2.0", nil, stranger, friend)
	ours := r.module(t, "ours", "1.3.0", nil, r.w.ID)
	old, err := r.InstallPlugin(ctx, unsigned) // before anything was demanded
	if err != nil {
		t.Fatal(err)
	}
	stage := func(l grid.Link, plugin string) grid.Request {
		return grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: l, Plugin: plugin, Tasks: 1}}}}
	}
	for _, test := range []struct {
		policy    grid.PluginPolicy
		installed []grid.Link // may be
		run       []grid.Link // by CID
	}{
		{grid.PluginPolicy{}, []grid.Link{unsigned, foreign, trusted, ours}, []grid.Link{unsigned, foreign, trusted, ours}},
		{grid.PluginPolicy{Require: grid.SignPlugins}, []grid.Link{ours}, []grid.Link{unsigned, foreign, trusted, ours}},
		{grid.PluginPolicy{Require: grid.SignPlugins, Trust: []peer.ID{friend}}, []grid.Link{trusted}, []grid.Link{unsigned, foreign, trusted, ours}},
		{grid.PluginPolicy{Require: grid.SignAll, Trust: []peer.ID{friend}}, []grid.Link{trusted}, []grid.Link{trusted}},
	} {
		if _, err := r.SetPluginPolicy(ctx, test.policy); err != nil {
			t.Fatal(err)
		}
		for _, l := range []grid.Link{unsigned, foreign, trusted, ours} {
			if _, err := r.InstallPlugin(ctx, l); (err == nil) != slices.Contains(test.installed, l) || err != nil && grid.CodeOf(err) != grid.Denied {
				t.Errorf("%+v: install: %v", test.policy, err)
			}
			_, err := r.Submit(ctx, stage(l, ""))
			if (err == nil) != slices.Contains(test.run, l) || err != nil && grid.CodeOf(err) != grid.Denied {
				t.Errorf("%+v: submit: %v", test.policy, err)
			}
		}
		_, err := r.Submit(ctx, stage(unsigned, old.String()))
		if (err == nil) != slices.Contains(test.installed, unsigned) || err != nil && !strings.Contains(err.Error(), "plugin tool@1.0.0 is not signed") {
			t.Errorf("%+v: submit by name: %v", test.policy, err)
		}
	}
	// A node that runs tasks of others asks, too. It has not asked before, and so knows nothing old.
	next := openRegistry(t)
	if _, err := next.SetPluginPolicy(ctx, grid.PluginPolicy{Require: grid.SignAll}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, next.MayRun(ctx, &grid.Stage{Module: next.w.Module}), grid.Denied, "is not signed")
	if err := next.MayRun(ctx, &grid.Stage{Module: next.module(t, "mine", "1.0.0", nil, next.w.ID)}); err != nil {
		t.Error(err)
	}
	// One that others have changed back is asked about again before anything is refused.
	if _, err := next.w.Ledger.Commit(ctx, grid.Txn{Delete: []string{grid.PluginPolicyKey}}); err != nil {
		t.Fatal(err)
	}
	if err := next.MayRun(ctx, &grid.Stage{Module: next.w.Module}); err != nil {
		t.Errorf("after the policy was taken back: %v", err)
	}
	for _, bad := range []grid.PluginPolicy{{Require: "some"}, {Trust: make([]peer.ID, grid.MaxTrust+1)}, {Trust: []peer.ID{""}}} {
		if _, err := r.SetPluginPolicy(context.Background(), bad); err == nil {
			t.Errorf("%+v was set", bad)
		}
	}
}

// A stage is checked against the manifest of its module before anything runs.
func TestSubmitPlugin(t *testing.T) {
	r := openRegistry(t)
	ctx := within(t)
	p := r.install(t, "one", "1.0.0")
	wanting := r.module(t, "wanting", "2.0.0", func(m *grid.Manifest) {
		m.Wants = grid.Grants{Net: []string{"api.example.org"}, KV: []string{"counts/"}}
	})
	for _, test := range []struct {
		name  string
		stage grid.Stage
		code  grid.Code
		words string
	}{
		{"by name", grid.Stage{Module: p.CID, Plugin: "tool@1.0.0", Func: "count"}, grid.Unknown, ""},
		{"by CID", grid.Stage{Module: p.CID, Func: "count"}, grid.Unknown, ""},
		{"itself", grid.Stage{Module: p.CID, Func: "grid.describe"}, grid.Unknown, ""},
		{"no such function", grid.Stage{Module: p.CID, Func: "cuont"}, grid.Invalid, `plugin tool@1.0.0 has no function "cuont"`},
		{"another module", grid.Stage{Module: wanting, Plugin: "tool@1.0.0"}, grid.Conflict, p.CID.String()},
		{"no such plugin", grid.Stage{Module: p.CID, Plugin: "tool@3.0.0"}, grid.NotFound, "no plugin tool@3.0.0"},
		{"not granted", grid.Stage{Module: wanting, Grants: grid.Grants{KV: []string{"counts/"}}}, grid.Denied, "wants what the job does not grant"},
		{"granted", grid.Stage{Module: wanting, Grants: grid.Grants{Net: []string{"*.example.org"}, KV: []string{"counts/"}}}, grid.Unknown, ""},
	} {
		test.stage.Tasks = 1
		_, err := r.Submit(ctx, grid.Request{Spec: grid.Spec{Stages: []grid.Stage{test.stage}}})
		if grid.CodeOf(err) != test.code || err != nil && !strings.Contains(err.Error(), test.words) {
			t.Errorf("%s: %v", test.name, err)
		}
		switch advice := grid.AdviceOf(err); {
		case test.name == "no such function" && advice != "it has count, map",
			test.name == "not granted" && !strings.Contains(advice, "--allow-net api.example.org:443,"):
			t.Errorf("%s: advice %q", test.name, advice)
		}
	}
	// What a job was made of runs on when it has been removed.
	if _, err := r.RemovePlugin(ctx, "tool@1.0.0"); err != nil {
		t.Fatal(err)
	}
	if st, _ := run(t, r.Node, grid.Request{Spec: grid.Spec{Stages: []grid.Stage{{Module: p.CID, Plugin: "tool@1.0.0", Func: "count", Tasks: 1}}}}); st.State != grid.Done {
		t.Errorf("removed, it comes to %s", st.State)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"store-quota", "workers", "zone", "a"}
	for word, want := range map[string]string{
		"workrs": "workers", "WORKERS": "workers", "store_quota": "store-quota", "zon": "zone", "b": "", "": "", "label": "", strings.Repeat("w", grid.MaxName+1): "",
	} {
		if got := grid.Nearest(word, words); got != want {
			t.Errorf("near %.20q is %q, want %q", word, got, want)
		}
	}
}
