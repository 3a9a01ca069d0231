package grid_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// with runs one task with grants, whose guest is given as a function, and whose errors fail the test.
func with(t *testing.T, w *fake.World, n *grid.Node, g grid.Grants, guest func(ctx context.Context, g *grid.Guest) error) (grid.JobStatus, []grid.TaskEnd) {
	t.Helper()
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		if err := guest(ctx, g); err != nil {
			t.Error(err)
			return grid.Outcome{Exit: 1}, nil
		}
		return grid.Outcome{}, nil
	}
	r := request(w, 1)
	r.Stages[0].Grants = g
	r.NoCache = true
	return run(t, n, r)
}

func code(err error, want grid.Code, words ...string) error {
	if err == nil || grid.CodeOf(err) != want {
		return fmt.Errorf("error %v, code %v, want %v", err, grid.CodeOf(err), want)
	}
	for _, w := range words {
		if !strings.Contains(err.Error()+" "+grid.AdviceOf(err), w) {
			return fmt.Errorf("error %q (%s) does not say %q", err, grid.AdviceOf(err), w)
		}
	}
	return nil
}

func TestGrantedKeys(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	n := open(t, w.Config())
	put := func(key, value string) {
		if _, err := w.Ledger.Commit(within(t), grid.Txn{Put: []grid.Entry{{Key: key, Value: []byte(value)}}}); err != nil {
			t.Fatal(err)
		}
	}
	put(grid.UserKey("counters"), "beside")
	put(grid.UserKey("counters2"), "beside")
	put(grid.UserKey("config/threads"), "8")
	put(grid.RefKeys+"counters/x", "a ref")
	g := grid.Grants{KV: []string{"counters/", "config/:ro", "日本"}}
	st, ends := with(t, w, n, g, func(ctx context.Context, g *grid.Guest) error {
		kv := g.KV
		if e, err := kv.Get(ctx, "config/threads"); err != nil || e.Key != "config/threads" || string(e.Value) != "8" || e.Version == 0 {
			return fmt.Errorf("read %+v, %v", e, err)
		}
		_, err := kv.Get(ctx, "counters/none")
		if err := code(err, grid.NotFound, `"counters/none"`); err != nil {
			return err
		}
		rev, err := kv.Commit(ctx, grid.Txn{
			If:  []grid.Cond{{Key: "counters/a"}, {Key: "config/none"}},
			Put: []grid.Entry{{Key: "counters/a", Value: []byte("1")}, {Key: "counters/b"}, {Key: "日本語", Value: []byte("x")}},
		})
		if err != nil {
			return err
		}
		if e, err := kv.Get(ctx, "counters/a"); err != nil || e.Version != rev {
			return fmt.Errorf("written %+v, %v", e, err)
		}
		_, err = kv.Commit(ctx, grid.Txn{If: []grid.Cond{{Key: "counters/a"}}, Put: []grid.Entry{{Key: "counters/c"}}, Delete: []string{"counters/b"}})
		if err := code(err, grid.Conflict); err != nil {
			return err
		}
		list, more, err := kv.List(ctx, "counters/", "", 1)
		if err != nil || len(list) != 1 || list[0].Key != "counters/a" || !more {
			return fmt.Errorf("first of a list: %+v, %v, %v", list, more, err)
		}
		list, more, err = kv.List(ctx, "counters/", "counters/a", 10)
		if err != nil || len(list) != 1 || list[0].Key != "counters/b" || more {
			return fmt.Errorf("rest of a list: %+v, %v, %v", list, more, err)
		}
		if list, _, err = kv.List(ctx, "counters/", "a", 0); err != nil || len(list) != 2 {
			return fmt.Errorf("after what lies before: %+v, %v", list, err)
		}
		if list, _, err = kv.List(ctx, "counters/", "z", 0); err != nil || len(list) != 0 {
			return fmt.Errorf("after what lies behind: %+v, %v", list, err)
		}
		// A prefix is bytes, and nothing but: no path, no pattern, no word.
		for _, key := range []string{"counters", "counters2", "counter", "Counters/", "config", "日", "./counters/a", "/counters/a", "kv/counters/a",
			"\x00counters/", "ref/counters/x", "../counters/a", "*"} {
			_, err := kv.Get(ctx, key)
			if err := code(err, grid.Denied, "--allow-kv "); err != nil {
				return fmt.Errorf("get %q: %w", key, err)
			}
			if _, _, err := kv.List(ctx, key, "", 0); grid.CodeOf(err) != grid.Denied {
				return fmt.Errorf("list %q: %v", key, err)
			}
			for _, t := range []grid.Txn{{If: []grid.Cond{{Key: key, Version: 1}}}, {If: []grid.Cond{{Key: key, Prefix: true}}}, {Put: []grid.Entry{{Key: key}}}, {Delete: []string{key}}} {
				t.Put = append(t.Put, grid.Entry{Key: "counters/never"})
				if _, err := kv.Commit(ctx, t); grid.CodeOf(err) != grid.Denied {
					return fmt.Errorf("commit %q: %v", key, err)
				}
			}
		}
		if _, _, err := kv.List(ctx, "", "counters/", 0); grid.CodeOf(err) != grid.Denied {
			return fmt.Errorf("a list of everything: %v", err)
		}
		// Dots in keys mean nothing, nor do bytes that are odd.
		for _, key := range []string{"counters/../config/threads", "counters//", "counters/\x00\x01", "counters/\u202e", "counters/" + strings.Repeat("k", grid.MaxUserKey-9)} {
			if _, err := kv.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: key, Value: []byte("mine")}}}); err != nil {
				return fmt.Errorf("odd %q: %w", key, err)
			}
		}
		_, err = kv.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: "config/threads", Value: []byte("9")}}})
		if err := code(err, grid.Denied, "read only", "--allow-kv config/ in place of config/:ro"); err != nil {
			return err
		}
		if _, err = kv.Commit(ctx, grid.Txn{Delete: []string{"config/threads"}}); grid.CodeOf(err) != grid.Denied {
			return fmt.Errorf("delete what may be read: %v", err)
		}
		for _, bad := range []struct {
			txn  grid.Txn
			code grid.Code
		}{
			{grid.Txn{Put: []grid.Entry{{Key: "counters/\xff"}}}, grid.Invalid},
			{grid.Txn{Put: []grid.Entry{{Key: "counters/x", Session: "s"}}}, grid.Invalid},
			{grid.Txn{Put: []grid.Entry{{Key: ""}}}, grid.Invalid},
			{grid.Txn{Put: []grid.Entry{{Key: "counters/x"}}, Delete: []string{"counters/x"}}, grid.Invalid},
			{grid.Txn{Put: []grid.Entry{{Key: "counters/" + strings.Repeat("k", grid.MaxUserKey)}}}, grid.Invalid},
			{grid.Txn{Put: []grid.Entry{{Key: "counters/" + strings.Repeat("k", grid.MaxUserKey-8)}}}, grid.Limit},
			{grid.Txn{Put: []grid.Entry{{Key: "counters/x", Value: make([]byte, grid.MaxLedgerValue+1)}}}, grid.Limit},
			{grid.Txn{If: make([]grid.Cond, grid.MaxLedgerTxn+1)}, grid.Limit},
		} {
			if _, err := kv.Commit(ctx, bad.txn); grid.CodeOf(err) != bad.code {
				return fmt.Errorf("transaction %.100v: %v, want %v", bad.txn, err, bad.code)
			}
		}
		if _, _, err := kv.List(ctx, "counters/", "", -1); grid.CodeOf(err) != grid.Invalid {
			return fmt.Errorf("a list of less than nothing: %v", err)
		}
		return nil
	})
	if st.State != grid.Done || !ends[0].Impure {
		t.Errorf("%s, %+v", st.Error, ends)
	}
	for key, want := range map[string]string{"counters": "beside", "config/threads": "8"} {
		if e, err := w.Ledger.Get(within(t), grid.UserKey(key)); err != nil || string(e.Value) != want {
			t.Errorf("%s is %q, %v", key, e.Value, err)
		}
	}
	if _, err := w.Ledger.Get(within(t), grid.UserKey("counters/never")); grid.CodeOf(err) != grid.NotFound {
		t.Error("a transaction that was denied did something")
	}

	// Without a grant, a guest is told what it lacks; and it stays pure.
	_, ends = with(t, w, n, grid.Grants{}, func(ctx context.Context, g *grid.Guest) error {
		_, err := g.KV.Get(ctx, "a/b/c")
		return code(err, grid.Denied, "--allow-kv a/b/:ro")
	})
	if ends[0].Impure {
		t.Error("a task that was granted nothing is not pure")
	}
}

// TestLedgerAway: that a ledger cannot be reached is the node's failure, whatever it says.
func TestLedgerAway(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	n := open(t, w.Config())
	tries := 0
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		tries++
		w.Ledger.Fail(grid.Errorf(grid.Denied, "not of this realm any more"))
		_, err := g.KV.Get(ctx, "a")
		_, _, lerr := g.KV.List(ctx, "a", "", 0)
		_, cerr := g.KV.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: "a"}}})
		w.Ledger.Fail(nil)
		for _, err := range []error{err, lerr, cerr} {
			if err := code(err, grid.Unavailable, "any more"); err != nil {
				t.Error(err)
			}
		}
		if tries < 2 {
			return grid.Outcome{}, err
		}
		return grid.Outcome{}, nil
	}
	r := request(w, 1)
	r.Stages[0].KV = []string{"a"}
	if st, _ := run(t, n, r); st.State != grid.Done || tries != 2 {
		t.Errorf("%s after %d tries: %s", st.State, tries, st.Error)
	}
}

// eventually waits until a node's secrets are as wanted.
func eventually(t *testing.T, n *grid.Node, is func([]grid.Secret) bool) {
	t.Helper()
	ctx := within(t)
	err := n.Ledger.Watch(ctx, grid.SecretKeys, 0, func(grid.Changes) error {
		list, err := n.Secrets(ctx)
		if err == nil && is(list) {
			return io.EOF
		}
		return err
	})
	if err != io.EOF {
		t.Fatal(err)
	}
}

func TestSecrets(t *testing.T) {
	var hub fake.Hub
	w, wb := fake.NewWorld(&hub, "a"), fake.NewWorld(&hub, "b")
	wb.Ledger = w.Ledger
	a := open(t, w.Config())
	first, err := a.SetSecret(within(t), "token", []byte("hunter2-hunter2"))
	if err != nil || first.Version == 0 || first.By != w.ID.String() || first.Readers != 1 || !first.Here {
		t.Fatalf("set %+v, %v", first, err)
	}
	raw := func() []byte {
		e, err := w.Ledger.Get(within(t), grid.SecretKeys+"token")
		if err != nil {
			t.Fatal(err)
		}
		return e.Value
	}
	if bytes.Contains(raw(), []byte("hunter2")) {
		t.Error("the secret is in the ledger as it is")
	}
	want := func(value string) func(context.Context, *grid.Guest) error {
		return func(_ context.Context, g *grid.Guest) error {
			f, ok := g.Mounts[grid.GuestSecrets]
			if !ok {
				return errors.New("no secrets are mounted")
			}
			if data, err := fs.ReadFile(f, "token"); err != nil || string(data) != value {
				return fmt.Errorf("read %q, %v", data, err)
			}
			if info, err := fs.Stat(f, "token"); err != nil || info.Mode() != 0o400 || info.Size() != int64(len(value)) {
				return fmt.Errorf("stat %v, %v", info, err)
			}
			if _, err := f.Open("other"); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("another secret: %v", err)
			}
			return fstest.TestFS(f, "token")
		}
	}
	g := grid.Grants{Secrets: []string{"token"}}
	if st, ends := with(t, w, a, g, want("hunter2-hunter2")); st.State != grid.Done || !ends[0].Impure {
		t.Errorf("%s: %s", st.State, st.Error)
	}

	// A node that joins is let in on it, and the version stays.
	before := raw()
	b := open(t, wb.Config())
	eventually(t, b, func(list []grid.Secret) bool { return len(list) == 1 && list[0].Here && list[0].Readers == 2 })
	if list, _ := b.Secrets(within(t)); list[0].Version != first.Version || list[0].By != first.By || !list[0].Set.Equal(first.Set) {
		t.Errorf("shared %+v, was %+v", list, first)
	}
	if bytes.Equal(before, raw()) {
		t.Error("it was not encrypted anew")
	}
	if st, _ := with(t, wb, b, g, want("hunter2-hunter2")); st.State != grid.Done {
		t.Errorf("%s: %s", st.State, st.Error)
	}

	// Set anew, by the other.
	second, err := b.SetSecret(within(t), "token", []byte("new"))
	if err != nil || second.Version <= first.Version || second.Readers != 2 {
		t.Fatalf("set anew %+v, %v", second, err)
	}
	with(t, w, a, g, want("new"))

	// What is put under another name is not taken for that one's.
	if _, err := w.Ledger.Commit(within(t), grid.Txn{Put: []grid.Entry{{Key: grid.SecretKeys + "other", Value: raw()}}}); err != nil {
		t.Fatal(err)
	}
	never := func(context.Context, *grid.Guest) error { return errors.New("it was run") }
	st, _ := with(t, w, a, grid.Grants{Secrets: []string{"other"}}, never)
	if st.State != grid.Failed || !strings.Contains(st.Error, "another secret") || !strings.Contains(st.Error, "after 3 attempts") {
		t.Errorf("%s: %s", st.State, st.Error)
	}

	// One that is not there fails attempts, and says how to set it.
	if rev, err := a.RemoveSecret(within(t), "token"); err != nil || rev <= second.Version {
		t.Errorf("removed at %d, %v", rev, err)
	}
	_, err = a.RemoveSecret(within(t), "token")
	wantCode(t, err, grid.NotFound, "token")
	st, _ = with(t, w, a, g, never)
	if st.State != grid.Failed || !strings.Contains(st.Error, "`grid secret set token`") || !strings.Contains(st.Error, "after 3 attempts") {
		t.Errorf("%s: %s", st.State, st.Error)
	}

	for _, name := range []string{"", ".", "..", "a/b", "../token", "/token", ".hidden", "-x", "a b", "é", "a\x00", strings.Repeat("n", grid.MaxName+1)} {
		if _, err := a.SetSecret(within(t), name, []byte("x")); grid.CodeOf(err) != grid.Invalid {
			t.Errorf("set %q: %v", name, err)
		}
		if _, err := a.RemoveSecret(within(t), name); grid.CodeOf(err) != grid.Invalid {
			t.Errorf("remove %q: %v", name, err)
		}
	}
	_, err = a.SetSecret(within(t), "big", make([]byte, grid.MaxSecret+1))
	wantCode(t, err, grid.Limit, "65536")
	if _, err = a.SetSecret(within(t), "big", make([]byte, grid.MaxSecret)); err != nil {
		t.Error(err)
	}
}

// TestSecretDamage: an entry that is no secret is refused, harms no other, and can be removed.
func TestSecretDamage(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	n := open(t, w.Config())
	if _, err := n.SetSecret(within(t), "good", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Ledger.Commit(within(t), grid.Txn{Put: []grid.Entry{{Key: grid.SecretKeys + "bad", Value: []byte("garbage")}, {Key: grid.SecretKeys + "../x", Value: nil}}}); err != nil {
		t.Fatal(err)
	}
	if list, err := n.Secrets(within(t)); err != nil || len(list) != 1 || list[0].Name != "good" {
		t.Errorf("secrets %+v, %v", list, err)
	}
	st, _ := with(t, w, n, grid.Grants{Secrets: []string{"bad"}}, func(context.Context, *grid.Guest) error { return errors.New("it was run") })
	if st.State != grid.Failed || !strings.Contains(st.Error, "bad") {
		t.Errorf("%s: %s", st.State, st.Error)
	}
	if _, err := n.RemoveSecret(within(t), "bad"); err != nil {
		t.Error(err)
	}
}

func TestGrantedData(t *testing.T) {
	var hub fake.Hub
	w, other := fake.NewWorld(&hub, "a"), fake.NewWorld(&hub, "b")
	w.Fetcher.From = append(w.Fetcher.From, other.Blocks)
	n := open(t, w.Config())
	ctx := within(t)
	file := func(text string) grid.Link {
		c, _, err := other.Files.Add(ctx, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return grid.Link{Cid: c}
	}
	one, two, three := file("one"), file("two"), file("three")
	dir, _, err := other.Files.AddTree(ctx, []grid.FileInfo{{Name: "sub/two", Kind: grid.KindFile, CID: two, Size: 3}})
	if err != nil {
		t.Fatal(err)
	}
	tree := grid.Link{Cid: dir}
	odd := grid.NewBlock(cid.DagCBOR, []byte{0xff}) // no file
	if err := other.Blocks.Put(ctx, odd); err != nil {
		t.Fatal(err)
	}
	g := grid.Grants{Data: []string{one.String(), tree.String()}}
	for range 2 {
		w.Blocks.Delete(ctx, one.Cid)
		st, ends := with(t, w, n, g, func(ctx context.Context, g *grid.Guest) error {
			f := g.Mounts[grid.GuestData]
			if here, _ := w.Blocks.Has(ctx, one.Cid); here {
				return errors.New("data was brought before anybody looked")
			}
			for name, want := range map[string]string{one.String(): "one", tree.String() + "/sub/two": "two"} {
				if data, err := fs.ReadFile(f, name); err != nil || string(data) != want {
					return fmt.Errorf("%s: %q, %v", name, data, err)
				}
			}
			var names []string
			list, err := fs.ReadDir(f, ".")
			for _, e := range list {
				names = append(names, e.Name())
			}
			granted := []string{one.String(), tree.String()}
			slices.Sort(granted)
			if err != nil || !slices.Equal(names, granted) {
				return fmt.Errorf("list %q, %v", names, err)
			}
			for name, want := range map[string]error{
				three.String(): fs.ErrPermission, two.String(): fs.ErrPermission, two.String() + "/x": fs.ErrPermission,
				"nothing": fs.ErrNotExist, tree.String() + "/none": fs.ErrNotExist, one.String() + "/x": fs.ErrNotExist,
				tree.String() + "/../" + one.String(): fs.ErrInvalid, "..": fs.ErrInvalid, "/": fs.ErrInvalid,
			} {
				if _, err := f.Open(name); !errors.Is(err, want) {
					return fmt.Errorf("open %s: %v, want %v", name, err, want)
				}
				if _, err := fs.Stat(f, name); !errors.Is(err, want) {
					return fmt.Errorf("stat %s: %v, want %v", name, err, want)
				}
			}
			return fstest.TestFS(f, one.String(), tree.String()+"/sub/two")
		})
		if st.State != grid.Done || ends[0].Impure {
			t.Errorf("%s: %s; %+v", st.State, st.Error, ends)
		}
	}

	// With any data, all can be read, but not listed; and what is no file is an error of the guest's.
	with(t, w, n, grid.Grants{Data: []string{grid.AnyData}}, func(ctx context.Context, g *grid.Guest) error {
		f := g.Mounts[grid.GuestData]
		if data, err := fs.ReadFile(f, three.String()); err != nil || string(data) != "three" {
			return fmt.Errorf("any: %q, %v", data, err)
		}
		if _, err := f.Open(odd.CID().String()); !errors.Is(err, fs.ErrInvalid) {
			return fmt.Errorf("what is no file: %v", err)
		}
		if list, err := fs.ReadDir(f, "."); err != nil || len(list) != 0 {
			return fmt.Errorf("list of any: %v, %v", list, err)
		}
		return nil
	})

	// What cannot be had fails the attempt, whatever the guest makes of it.
	gone := link("nobody has it")
	tries := 0
	st, _ := with(t, w, n, grid.Grants{Data: []string{grid.AnyData}}, func(ctx context.Context, g *grid.Guest) error {
		tries++
		if _, err := g.Mounts[grid.GuestData].Open(gone.String()); err == nil || errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("what nobody has: %v", err)
		}
		return nil
	})
	if st.State != grid.Failed || tries != 3 || !strings.Contains(st.Error, gone.String()) {
		t.Errorf("%s after %d tries: %s", st.State, tries, st.Error)
	}
}

// TestManyData: a guest that looks at ever more data has no more of it held, and can read on what it has open.
func TestManyData(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	n := open(t, w.Config())
	data, held := n.DataFor(within(t), grid.AnyData)
	var first fs.File
	for i := range 2*grid.MaxDataTrees + 10 {
		c, _, err := w.Files.Add(within(t), strings.NewReader(fmt.Sprint("file ", i)))
		if err != nil {
			t.Fatal(err)
		}
		f, err := data.Open(c.String())
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = f
			continue
		}
		f.Close()
		if held() > grid.MaxDataTrees {
			t.Fatalf("%d are held", held())
		}
	}
	if text, err := io.ReadAll(first); err != nil || string(text) != "file 0" {
		t.Errorf("%q, %v", text, err)
	}
	first.Close()
}

// TestRemovedMember: who was removed from the realm reads no secrets that are set from then on, signs nothing, and has no say.
func TestRemovedMember(t *testing.T) {
	w, other := fake.NewWorld(new(fake.Hub), "a"), fake.NewWorld(new(fake.Hub), "gone")
	n := open(t, w.Config())
	for _, test := range []struct {
		removed bool
		readers int
		known   bool
	}{{false, 2, true}, {true, 1, false}} {
		value, err := grid.Marshal(map[string]any{"joined": time.Now(), "incarnation": 1, "start": 1, "removed": test.removed})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Ledger.Commit(within(t), grid.Txn{Put: []grid.Entry{{Key: grid.MemberKeys + other.ID.String(), Value: value}}}); err != nil {
			t.Fatal(err)
		}
		if s, err := n.SetSecret(within(t), "s", []byte("x")); err != nil || s.Readers != test.readers {
			t.Errorf("removed %v: %+v, %v", test.removed, s, err)
		}
		all, err := n.RealmNodes(within(t))
		if _, known := all[other.ID]; err != nil || known != test.known {
			t.Errorf("removed %v: it is of the realm: %v, %v", test.removed, known, err)
		}
	}
}

func TestProgress(t *testing.T) {
	var hub fake.Hub
	w, wb := fake.NewWorld(&hub, "a"), fake.NewWorld(&hub, "b")
	wb.Ledger = w.Ledger
	a, b := open(t, w.Config()), open(t, wb.Config())
	said, ending := make(chan struct{}, 2), make(chan struct{})
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		g.Progress(1, 10)
		if slices.Contains(g.Env, grid.EnvTask+"=1") {
			g.Progress(3, 10)
		} else {
			g.Progress(7, 0)
		}
		said <- struct{}{}
		<-ending
		return grid.Outcome{}, nil
	}
	id := submit(t, a, request(w, 2))
	<-said
	<-said
	for _, n := range []*grid.Node{a, b} { // b asks a
		x, err := n.Why(within(t), id)
		if err != nil || len(x.Tasks) != 2 {
			t.Fatalf("explained with %+v, %v", x.Tasks, err)
		}
		for i, want := range []grid.TaskProgress{{Said: true, Done: 7}, {Index: 1, Said: true, Done: 3, Total: 10}} {
			want.Node, want.Running = w.ID.String(), x.Tasks[i].Running
			if x.Tasks[i] != want || want.Running < 0 {
				t.Errorf("task %d: %+v, want %+v", i, x.Tasks[i], want)
			}
		}
	}
	close(ending)
	if st := end(t, a, id); st.State != grid.Done {
		t.Error(st.Error)
	}
	if x, err := a.Why(within(t), id); err != nil || len(x.Tasks) != 0 {
		t.Errorf("at its end %+v, %v", x.Tasks, err)
	}
}

func TestGuestMetrics(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	n := open(t, w.Config())
	var runs atomic.Int32
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		runs.Add(1)
		h := grid.Metric{Name: "took", Kind: grid.Histogram}
		h.Observe(2)
		h.Observe(0.25)
		return grid.Outcome{Metrics: []grid.Metric{h, {Name: "lines", Kind: grid.Counter, Count: 5}}}, nil
	}
	for range 2 { // the second time all is known, and counts as well
		st, ends := run(t, n, request(w, 10))
		got := st.Stages[0].Metrics
		if len(got) != 2 || got[0].Name != "lines" || got[0].Count != 50 || got[1].Count != 20 || got[1].Sum != 22.5 || len(got[1].Buckets) != 2 || got[1].Buckets[0].Count != 10 {
			t.Errorf("sum %+v", got)
		}
		for _, e := range ends {
			if len(e.Metrics) != 2 || e.Metrics[0].Count != 5 || e.Metrics[1].Count != 2 {
				t.Errorf("task %d: %+v", e.Index, e.Metrics)
			}
		}
	}
	all, dropped := n.GuestMetrics()
	if len(all) != 1 || all[0].Module != w.Module || len(all[0].Metrics) != 2 || all[0].Metrics[0].Count != 50 || dropped != 0 || runs.Load() != 10 {
		t.Errorf("the node's %+v, %d dropped", all, dropped)
	}

	// A stage's sum, and what a node counts, are bounded.
	var next atomic.Int32
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (out grid.Outcome, err error) {
		for range grid.MaxMetrics {
			out.Metrics = append(out.Metrics, grid.Metric{Name: fmt.Sprintf("m%05d", next.Add(1)), Kind: grid.Counter, Count: 1})
		}
		return out, nil
	}
	r := request(w, 40)
	r.Stages[0].Impure = true
	st, _ := run(t, n, r)
	if got := st.Stages[0].Metrics; st.State != grid.Done || len(got) != grid.MaxStageMetrics {
		t.Errorf("%s: %d names", st.Error, len(got))
	}
	all, dropped = n.GuestMetrics()
	if len(all) != 1 || len(all[0].Metrics) != 1000 || dropped != uint64(40*grid.MaxMetrics-998) {
		t.Errorf("the node has %d names, %d dropped", len(all[0].Metrics), dropped)
	}

	// What no guest can have counted is the engine's fault.
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (out grid.Outcome, err error) {
		return grid.Outcome{Metrics: []grid.Metric{{Name: "no name", Kind: grid.Counter}}}, nil
	}
	if st, _ := run(t, n, r); st.State != grid.Failed || !strings.Contains(st.Error, "no name") {
		t.Errorf("%s: %s", st.State, st.Error)
	}
}

// TestStaysInside: tasks that use a realm's keys or secrets are given to its nodes only, and taken from them only.
func TestStaysInside(t *testing.T) {
	var hub fake.Hub
	w, wb := fake.NewWorld(&hub, "a"), fake.NewWorld(&hub, "b")
	wb.Ledger = w.Ledger
	ours, c := watch(w, nil)
	c.Share = grid.Share{Slots: 2, Memory: 8 << 30, Scratch: 8 << 30}
	a := open(t, c)
	open(t, wb.Config())
	stranger := hub.Join(nodeID("stranger"))
	marshal := func(v any) []byte {
		data, err := grid.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	// Who asks is told apart.
	ctx := within(t)
	ask := func(who *fake.Network) bool {
		if _, err := who.Call(ctx, w.ID, grid.ProtoSteal, marshal(grid.StealMsg{Slots: 1})); err != nil {
			t.Fatal(err)
		}
		ours.mu.Lock()
		defer ours.mu.Unlock()
		for _, ev := range slices.Backward(ours.events) {
			if e, ok := ev.(grid.StealAsked); ok && e.From == who.Self() {
				return !e.Outside
			}
		}
		t.Fatal("nobody asked")
		return false
	}
	for !ask(wb.Net) && ctx.Err() == nil { // until a has heard of b
		runtime.Gosched()
	}
	if ask(stranger) {
		t.Error("a stranger is taken for one of the realm")
	}

	// A stranger gives leases: on a job of its own that reads our keys, and on one that it says is of a node of ours.
	spec := grid.Spec{Stages: []grid.Stage{{Module: w.Module, Tasks: 1}}}
	spec.Stages[0].Secrets = []string{"token"}
	if err := spec.Normalize(); err != nil {
		t.Fatal(err)
	}
	block, err := grid.EncodeBlock(spec)
	if err != nil {
		t.Fatal(err)
	}
	theirs := fake.NewBlocks()
	w.Fetcher.From = append(w.Fetcher.From, theirs)
	if err := theirs.Put(ctx, block); err != nil {
		t.Fatal(err)
	}
	id := grid.JobID("jbcdefghijklmnopqrstuvwxyz")
	lease := func(owner peer.ID, says bool) grid.Lease {
		return grid.Lease{Job: id, Owner: owner, Epoch: 1, Spec: grid.Link{Cid: block.CID()}, Class: grid.Class{Realm: says, Offload: true, Pure: true}, Span: grid.Span{Hi: 1}}
	}
	w.Engine.Guest = func(context.Context, *grid.Guest) (grid.Outcome, error) {
		t.Error("a stranger's task was run")
		return grid.Outcome{}, nil
	}
	reported := make(chan grid.ReportMsg, 16)
	report := func(_ context.Context, _ peer.ID, data []byte) ([]byte, error) {
		var m grid.ReportMsg
		if err := grid.UnmarshalSmall(data, &m); err != nil {
			return nil, err
		}
		reported <- m
		return grid.Marshal(grid.ReportReply{})
	}
	stranger.Serve(grid.ProtoReport, report)
	give := func(l grid.Lease) {
		stranger.Serve(grid.ProtoSteal, func(context.Context, peer.ID, []byte) ([]byte, error) {
			return grid.Marshal(grid.StealReply{Leases: []grid.Lease{l}})
		})
		a.Do(grid.AskSteal{Victim: stranger.Self(), Slots: 1, Outside: true})
	}
	count := func() (n int) {
		ours.mu.Lock()
		defer ours.mu.Unlock()
		for _, ev := range ours.events {
			if e, ok := ev.(grid.StealAnswered); ok && e.From == stranger.Self() {
				n++
				if slices.ContainsFunc(e.Leases, func(l grid.Lease) bool { return l.Class.Realm }) {
					t.Error("a stranger's lease was taken")
				}
			}
		}
		return n
	}
	for i, owner := range []peer.ID{stranger.Self(), wb.ID} {
		give(lease(owner, true))
		seen(t, ours, func(grid.StealAnswered) bool { return count() > i })
	}
	give(lease(stranger.Self(), false))
	select {
	case m := <-reported:
		if len(m.Done) != 0 || len(m.Failed) == 0 || m.Failed[0].Code != grid.Denied || !strings.Contains(m.Failed[0].Message, "realm") {
			t.Errorf("reported %+v", m)
		}
	case <-ctx.Done():
		t.Fatal("nothing was reported")
	}
}

// TestInsideReports: what only nodes of the realm may run, nobody else has run, whatever leases it says that it has.
func TestInsideReports(t *testing.T) {
	f := forgerOf(t, func(r *grid.Request) { r.Stages[0].KV = []string{"counters/"} })
	var reply grid.ReportReply
	wantCode(t, f.call(grid.ProtoReport, f.honest(1), &reply), grid.Denied)
	if st := f.status(); st.Done != 0 || st.Failed != 0 {
		t.Errorf("it had an effect: %+v", st)
	}
}

// TestInsideClass: such stages say so, and children inherit it with the grants.
func TestInsideClass(t *testing.T) {
	for _, tt := range []struct {
		g      grid.Grants
		inside bool
	}{{grid.Grants{}, false}, {grid.Grants{Net: []string{"example.org"}}, false}, {grid.Grants{Data: []string{"*"}}, false},
		{grid.Grants{KV: []string{"a:ro"}}, true}, {grid.Grants{Secrets: []string{"s"}}, true}, {grid.Grants{Decrypt: []string{"k"}}, true}} {
		w := fake.NewWorld(new(fake.Hub), "a")
		s, c := watch(w, nil)
		n := open(t, c)
		r := request(w, 1)
		r.Stages[0].Grants = tt.g
		if _, err := n.Submit(within(t), r); err != nil {
			t.Fatal(err)
		}
		if got := seen(t, s, every[grid.JobOpened]).Stages[0].Class; got.Realm != tt.inside || got.Pure == tt.g.Impure() {
			t.Errorf("%+v: class %+v", tt.g, got)
		}
		n.Close()
	}
}

// TestSecretsShared: whichever nodes come and go, all that are up can read a secret soon, and it stays what it was.
func TestSecretsShared(t *testing.T) {
	bubble(t, 4, func(r *realm) {
		info, err := r.all[0].n.SetSecret(context.Background(), "token", []byte("value"))
		if err != nil || info.Readers != 4 {
			t.Fatalf("set %+v, %v", info, err)
		}
		r.enroll(nodeID("newcomer"))
		r.pass(10 * time.Second)
		list, err := r.all[3].n.Secrets(context.Background())
		if err != nil || len(list) != 1 || list[0].Readers != 5 || list[0].Version != info.Version {
			t.Errorf("shared with a newcomer: %+v, %v", list, err)
		}
		before, _ := r.ledger.Get(context.Background(), grid.SecretKeys+"token")
		r.kill(r.all[0])
		r.pass(10 * time.Second)
		r.start(r.all[0])
		r.pass(10 * time.Second)
		if after, _ := r.ledger.Get(context.Background(), grid.SecretKeys+"token"); after.Version != before.Version {
			t.Error("it was encrypted again for nobody")
		}
	})
}

// TestChildrenAreGranted: what a task spawns may use what it may, stays inside as it does, and says how it fails.
func TestChildrenAreGranted(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	s, c := watch(w, nil)
	n := open(t, c)
	if _, err := n.SetSecret(within(t), "token", []byte("value")); err != nil {
		t.Fatal(err)
	}
	data, _, err := w.Files.Add(within(t), strings.NewReader("data"))
	if err != nil {
		t.Fatal(err)
	}
	w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		if g.Func == "" {
			child, err := g.Tasks.Spawn(ctx, grid.Call{Func: "child"})
			if err != nil {
				return grid.Outcome{}, err
			}
			text, err := await(ctx, g, child)
			fmt.Fprint(g.Stdout, text)
			return grid.Outcome{}, err
		}
		secret, err := fs.ReadFile(g.Mounts[grid.GuestSecrets], "token")
		if err != nil {
			return grid.Outcome{}, err
		}
		file, err := fs.ReadFile(g.Mounts[grid.GuestData], data.String())
		if err != nil {
			return grid.Outcome{}, err
		}
		_, err = g.KV.Commit(ctx, grid.Txn{Put: []grid.Entry{{Key: "a/child", Value: secret}}})
		_, denied := g.KV.Get(ctx, "b")
		fmt.Fprintf(g.Stdout, "%s %s %v", secret, file, grid.CodeOf(denied))
		return grid.Outcome{}, err
	}
	r := request(w, 1)
	r.Stages[0].Grants = grid.Grants{KV: []string{"a/"}, Secrets: []string{"token"}, Data: []string{data.String()}}
	st, ends := run(t, n, r)
	if st.State != grid.Done || string(ends[0].Stdout.Data) != "value data denied" {
		t.Errorf("%s: %s, %+v", st.State, st.Error, ends)
	}
	if e, err := w.Ledger.Get(within(t), grid.UserKey("a/child")); err != nil || string(e.Value) != "value" {
		t.Errorf("the child wrote %q, %v", e.Value, err)
	}
	opened := seen(t, s, func(e grid.JobOpened) bool { return strings.Contains(string(e.Lease.Job), ".") })
	if c := opened.Stages[0].Class; !c.Realm || c.Pure {
		t.Errorf("children are of class %+v", c)
	}
}

// TestWhyInside: a node of another realm is said to be left out, and why.
func TestWhyInside(t *testing.T) {
	bubble(t, 1, func(r *realm) {
		m := r.all[0]
		far := fake.NewWorld(new(fake.Hub), "far")
		net := r.world.Join(far.ID)
		defer net.Close()
		c := far.Config()
		c.Network = net
		n, err := grid.OpenNode(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		r.pass(100 * time.Millisecond)
		req := request(m.w, 50)
		req.Stages[0].KV = []string{"a"}
		id := r.submit(m, req)
		r.pass(50 * time.Millisecond)
		x, err := m.n.Why(context.Background(), id)
		if err != nil || len(x.Nodes) != 2 || !x.Stages[0].Class.Realm || x.Stages[0].Fit != 1 {
			t.Fatalf("%+v, %v", x, err)
		}
		for _, v := range x.Nodes {
			if out := v.Node == far.ID.String(); out != (v.State == grid.NodeUnfit) || out && !strings.Contains(v.Text, "of another realm") {
				t.Errorf("%+v", v)
			}
		}
		r.wait(id, "ended", func(rec grid.Record) bool { return rec.State.Final() })
	})
}

// TestMetricsSurvive: the sum is of every task once, also when another node has taken the job over.
func TestMetricsSurvive(t *testing.T) {
	bubble(t, 3, func(r *realm) {
		for _, m := range r.all {
			m.w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
				out, err := r.guest(ctx, g)
				out.Metrics = []grid.Metric{{Name: "tasks", Kind: grid.Counter, Count: 1}}
				return out, err
			}
		}
		const tasks = 200
		id := r.submit(r.all[0], request(r.all[0].w, tasks))
		r.pass(1500 * time.Millisecond)
		before, err := r.all[1].n.Job(context.Background(), id) // as its owner tells
		if s := before.Stages[0]; err != nil || len(s.Metrics) != 1 || s.Metrics[0].Count != uint64(s.Done) || s.Done == 0 || s.Done == tasks {
			t.Fatalf("%+v, %v", before, err)
		}
		r.kill(r.all[0])
		r.wait(id, "ended", func(rec grid.Record) bool { return rec.State.Final() })
		after, err := r.all[1].n.Job(context.Background(), id)
		if s := after.Stages[0]; err != nil || after.State != grid.Done || after.Epoch < 2 || len(s.Metrics) != 1 || s.Metrics[0].Count != tasks {
			t.Errorf("%+v, %v", after, err)
		}
	})
}

// TestProgressElsewhere: how far tasks are on other nodes is told, too.
func TestProgressElsewhere(t *testing.T) {
	bubble(t, 3, func(r *realm) {
		for _, m := range r.all {
			m.w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
				g.Progress(1, 4)
				return r.guest(ctx, g)
			}
		}
		id := r.submit(r.all[0], request(r.all[0].w, 100))
		r.pass(500 * time.Millisecond)
		x, err := r.all[2].n.Why(context.Background(), id)
		nodes := map[string]int{}
		for _, p := range x.Tasks {
			if nodes[p.Node]++; !p.Said || p.Done != 1 || p.Total != 4 || p.Running <= 0 {
				t.Errorf("%+v", p)
			}
		}
		if err != nil || len(nodes) < 2 {
			t.Errorf("tasks run on %v, %v", nodes, err)
		}
		r.wait(id, "ended", func(rec grid.Record) bool { return rec.State.Final() })
	})
}
