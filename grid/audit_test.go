package grid_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

func export(t testing.TB, n *grid.Node) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := n.ExportAudit(within(t), time.Time{}, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// checked checks a log and lists its acts with their subjects.
func checked(t testing.TB, log []byte) (acts []string, r grid.AuditReport) {
	t.Helper()
	r, err := grid.CheckAudit(bytes.NewReader(log), func(l *grid.AuditLine) error {
		if l.Fact != nil {
			acts = append(acts, string(l.Fact.Act)+" "+l.Fact.Subject)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return acts, r
}

func sound(t testing.TB, n *grid.Node) (acts []string, r grid.AuditReport) {
	t.Helper()
	acts, r = checked(t, export(t, n))
	if !r.OK() {
		t.Fatalf("a log that nobody has touched: %+v", r.Problems)
	}
	return acts, r
}

func act(t testing.TB, n *grid.Node, subjects ...string) {
	t.Helper()
	for _, s := range subjects {
		if err := n.Audit(within(t), grid.AuditFact{Act: "test", Subject: s}); err != nil {
			t.Fatal(err)
		}
	}
}

func numbered(from, to int) (out []string) {
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

func TestAuditActs(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	n := open(t, w.Config())
	ctx := within(t)
	r := request(w, 1)
	r.User, r.Publish = "ann", []string{"results/one"}
	r.Stages[0].Grants.KV = []string{"counters/"}
	id := submit(t, n, r)
	end(t, n, id)
	if _, err := n.SetRef(ctx, "data/x", w.Module, grid.RefCond{}); err != nil {
		t.Fatal(err)
	}
	if err := n.RemoveRef(ctx, "data/x", grid.RefCond{}); err != nil {
		t.Fatal(err)
	}
	if err := n.RemoveRef(ctx, "data/x", grid.RefCond{}); grid.CodeOf(err) != grid.NotFound {
		t.Fatalf("error %v", err)
	}
	if _, err := n.SetSecret(ctx, "token", []byte("hunter2")); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RemoveSecret(ctx, "token"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.SetPluginPolicy(ctx, grid.PluginPolicy{}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RemoveJob(ctx, id); err != nil {
		t.Fatal(err)
	}
	log := export(t, n)
	acts, report := checked(t, log)
	want := []string{"job.submit " + string(id), "ref.publish results/one", "ref.set data/x", "ref.remove data/x", "secret.set token", "secret.remove token",
		"plugin.policy plugins", "job.remove " + string(id)}
	if !slices.Equal(acts, want) || !report.OK() {
		t.Errorf("acts %q, want %q; %+v", acts, want, report.Problems)
	}
	if report.Entries != uint64(len(want)) || report.By != w.ID {
		t.Errorf("report %+v", report)
	}
	for _, s := range []string{`"user":"ann"`, "--allow-kv counters/", "publishes results/one"} {
		if !bytes.Contains(log, []byte(s)) {
			t.Errorf("the log does not say %s", s)
		}
	}
	if bytes.Contains(log, []byte("hunter2")) {
		t.Error("the log has a secret")
	}
}

// TestAuditSealed: what is in blocks reads as before, and only the newest block is in the ledger, and pinned.
func TestAuditSealed(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	n := open(t, w.Config())
	if sealed, err := n.SealAudit(within(t), 0); sealed != 0 || err != nil {
		t.Fatalf("of an empty log %d entries are sealed, %v", sealed, err)
	}
	act(t, n, numbered(1, 700)...)
	if sealed, err := n.SealAudit(within(t), 701); sealed != 0 || err != nil {
		t.Fatalf("%d entries are sealed though there are too few, %v", sealed, err)
	}
	_, before := sound(t, n)
	for _, want := range []int{500, 200, 0} {
		if sealed, err := n.SealAudit(within(t), 1); sealed != want || err != nil {
			t.Fatalf("%d entries are sealed, want %d; %v", sealed, want, err)
		}
	}
	act(t, n, numbered(701, 710)...)
	acts, r := sound(t, n)
	for i, a := range acts {
		if a != "test "+fmt.Sprint(i+1) {
			t.Fatalf("entry %d is %q", i+1, a)
		}
	}
	if len(acts) != 710 || r.Blocks != 2 || !strings.Contains(string(export(t, n)), before.Sum) {
		t.Errorf("%d entries in %d blocks", len(acts), r.Blocks)
	}
	p, err := w.Ledger.Range(within(t), grid.Query{Prefix: grid.AuditKeys})
	if err != nil || len(p.Entries) != 11 {
		t.Errorf("%d entries of the ledger, want 10 and the head; %v", len(p.Entries), err)
	}
	if held := w.Pins.Held(); !slices.Equal(held, []string{"audit log"}) {
		t.Errorf("pins %q", held)
	}
	root, err := grid.ParseLink(strings.TrimPrefix(p.Entries[0].Key, grid.AuditKeys+"head/"))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Unpin(within(t), root.Cid); grid.CodeOf(err) != grid.Conflict {
		t.Errorf("the log may be unpinned: %v", err)
	}
	var recent bytes.Buffer // what was sealed before now is left out
	if err := n.ExportAudit(within(t), time.Now(), &recent); err != nil {
		t.Fatal(err)
	}
	if acts, r := checked(t, recent.Bytes()); len(acts) != 10 || !r.OK() {
		t.Errorf("since now: %d entries, %+v", len(acts), r.Problems)
	}
	if err := w.Blocks.Delete(within(t), root.Cid); err != nil {
		t.Fatal(err)
	}
	if acts, r := checked(t, export(t, n)); len(acts) != 10 || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, root.String()) {
		t.Errorf("without a block: %d entries, %+v", len(acts), r.Problems)
	}
}

// TestAuditSealers: of several who seal at once each entry is sealed once.
func TestAuditSealers(t *testing.T) {
	hub := new(fake.Hub)
	a, b := fake.NewWorld(hub, "a"), fake.NewWorld(hub, "b")
	b.Ledger, b.Blocks, b.Files, b.Fetcher, b.Pins = a.Ledger, a.Blocks, a.Files, a.Fetcher, a.Pins
	nodes := []*grid.Node{open(t, a.Config()), open(t, b.Config())}
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			for k := range 60 {
				act(t, n, fmt.Sprint(i, " ", k))
				if _, err := n.SealAudit(context.Background(), 3); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	acts, r := sound(t, nodes[0])
	slices.Sort(acts)
	if n := len(slices.Compact(acts)); n != 120 || r.Entries != 120 {
		t.Errorf("%d entries, %d of them different", r.Entries, n)
	}
	if held := a.Pins.Held(); len(held) != 1 {
		t.Errorf("%d pins are left", len(held))
	}
}

// TestAuditMerged: a node that brings a log of its own leaves one log.
func TestAuditMerged(t *testing.T) {
	hub := new(fake.Hub)
	a, b := fake.NewWorld(hub, "a"), fake.NewWorld(hub, "b")
	b.Blocks, b.Files, b.Fetcher, b.Pins = a.Blocks, a.Files, a.Fetcher, a.Pins
	n, m := open(t, a.Config()), open(t, b.Config())
	for i, x := range []*grid.Node{n, m} {
		act(t, x, numbered(10*i, 10*i+4)...)
		if _, err := x.SealAudit(within(t), 1); err != nil {
			t.Fatal(err)
		}
		act(t, x, numbered(10*i+5, 10*i+6)...)
	}
	p, err := b.Ledger.Range(within(t), grid.Query{Prefix: grid.AuditKeys})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Ledger.Commit(within(t), grid.Txn{Put: p.Entries}); err != nil { // as those who join do
		t.Fatal(err)
	}
	for range 2 {
		if acts, _ := sound(t, n); len(acts) != 14 {
			t.Errorf("%d acts: %q", len(acts), acts)
		}
		if _, err := n.SealAudit(within(t), 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, r := sound(t, n); r.Blocks != 3 {
		t.Errorf("%d blocks", r.Blocks)
	}
}

// TestAuditTampered: whatever is done to an export is found, and named.
func TestAuditTampered(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	n := open(t, w.Config())
	act(t, n, numbered(1, 4)...)
	if _, err := n.SealAudit(within(t), 1); err != nil {
		t.Fatal(err)
	}
	act(t, n, numbered(5, 9)...)
	log := export(t, n)
	lines := bytes.SplitAfter(bytes.TrimSuffix(log, []byte("\n")), []byte("\n"))
	lines[len(lines)-1] = append(lines[len(lines)-1], '\n')
	for _, test := range []struct {
		name   string
		tamper func([][]byte) [][]byte
		entry  uint64 // that is named; 0: none
		says   string
	}{
		{"cut", func(l [][]byte) [][]byte { return l[:len(l)-3] }, 0, "cut behind entry 7"},
		{"one missing", func(l [][]byte) [][]byte { return slices.Delete(l, 3, 4) }, 2, "missing"},
		{"several missing", func(l [][]byte) [][]byte { return slices.Delete(l, 8, 11) }, 6, "all up to 8"},
		{"last of a block missing", func(l [][]byte) [][]byte { return slices.Delete(l, 5, 6) }, 4, "missing"},
		{"swapped", func(l [][]byte) [][]byte { l[8], l[9] = l[9], l[8]; return l }, 6, "out of its order"},
		{"renamed", func(l [][]byte) [][]byte {
			l[4] = bytes.Replace(l[4], []byte(`"subject":"3"`), []byte(`"subject":"8"`), 1)
			return l
		}, 3, "not what node"},
		{"changed", func(l [][]byte) [][]byte {
			at := bytes.Index(l[4], []byte(`"signed":"`)) + 60
			l[4] = slices.Clone(l[4])
			l[4][at] = map[bool]byte{true: 'B', false: 'A'}[l[4][at] == 'A'] // which base64 has, too
			return l
		}, 3, "it was changed"},
		{"revision", func(l [][]byte) [][]byte {
			l[9] = bytes.Replace(l[9], []byte(`"revision":`), []byte(`"revision":1`), 1)
			return l
		}, 7, "does not follow"},
		{"block missing", func(l [][]byte) [][]byte { return slices.Delete(l, 1, 6) }, 0, "a block is missing"},
		{"garbage", func(l [][]byte) [][]byte { l[7] = []byte("{garbage\n"); return l }, 5, "missing"},
		{"more", func(l [][]byte) [][]byte { return append(l, l[8]) }, 0, "behind the end"},
		{"header", func(l [][]byte) [][]byte {
			l[0] = bytes.Replace(l[0], []byte(`"realm":"fake"`), []byte(`"realm":"fakf"`), 1)
			return l
		}, 0, "something in it was changed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, r := checked(t, bytes.Join(test.tamper(slices.Clone(lines)), nil))
			if !slices.ContainsFunc(r.Problems, func(p grid.AuditProblem) bool {
				return strings.Contains(p.What, test.says) && (test.entry == 0 || p.Entry == test.entry)
			}) {
				t.Errorf("problems %+v, want %q of entry %d", r.Problems, test.says, test.entry)
			}
		})
	}
	for i := range log { // any bit whatever
		if i%29 != 0 && i < len(log)-120 {
			continue
		}
		bad := slices.Clone(log)
		bad[i] ^= 1
		if r, err := grid.CheckAudit(bytes.NewReader(bad), nil); err == nil && r.OK() {
			t.Fatalf("a bit of byte %d is wrong, and nobody noticed", i)
		}
	}
	if _, err := grid.CheckAudit(strings.NewReader("{}\n"), nil); grid.CodeOf(err) != grid.Invalid {
		t.Errorf("what is no log: %v", err)
	}
}

func FuzzCheckAudit(f *testing.F) {
	f.Add([]byte(`{"kind":"log","format":1}` + "\n" + `{"kind":"tail","entries":1}` + "\n" + `{"kind":"entry","n":1,"signed":"oWE=","sum":"00"}` + "\n" + `{"kind":"end"}` + "\n"))
	f.Add([]byte(`{"kind":"log","format":1,"follows":["00"]}` + "\n" + `{"kind":"lost","sum":"00"}` + "\n" + `{"kind":"block","parents":["00","11"]}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := grid.CheckAudit(bytes.NewReader(data), nil); err == nil && r.OK() {
			t.Errorf("%q passes, though nobody has signed it", data)
		}
	})
}
