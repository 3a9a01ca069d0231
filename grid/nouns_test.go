package grid_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata; read the difference before committing it")

// golden compares bytes with a file of hexadecimal digits, 32 bytes a line.
func golden(t *testing.T, name string, data []byte) {
	t.Helper()
	var b strings.Builder
	for chunk := range slices.Chunk(data, 32) {
		b.WriteString(hex.EncodeToString(chunk) + "\n")
	}
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("%s: the encoding has changed, which breaks every stored record. Got\n%swant\n%s", name, b.String(), want)
	}
}

func link(s string) grid.Link { return grid.Link{Cid: grid.NewBlock(cid.Raw, []byte(s)).CID()} }

func nodeID(seed string) peer.ID {
	id, err := peer.IDFromPrivateKey(fake.Key(seed))
	if err != nil {
		panic(err)
	}
	return id
}

func sampleSpec() grid.Spec {
	s := grid.Spec{Name: "sample", Stages: []grid.Stage{
		{Module: link("module"), Func: "map", Args: []string{"-v", "{}"}, Env: []string{"A=1"}, Feed: true,
			Mounts: []grid.Mount{{Path: "/usr/share", CID: link("mount")}}, Inputs: link("table"), Tasks: 1000},
		{Module: link("module"), Func: "reduce", From: []grid.Source{{Stage: 0}}, Stdin: link("stdin"), Limits: grid.Limits{Wall: time.Second}, Grants: grid.Grants{Net: []string{"example.org"}}, Profile: true},
	}, KeepGoing: true}
	if err := s.Normalize(); err != nil {
		panic(err)
	}
	return s
}

func sampleReceipt() grid.Receipt {
	r := grid.Receipt{
		Key: grid.Key{1, 2, 3}, Node: nodeID("a"), Exit: 2, Fault: &grid.Fault{Code: grid.Trap, Message: "unreachable", Stack: "main"},
		Stdout: grid.Output{Size: 2, Inline: []byte("hi")}, Stderr: grid.Output{Size: 5000, CID: link("stderr")},
		Out: link("out"), OutSize: 77, Memory: 1 << 20, Fuel: 123456789, Started: 1700000000000000000, Phases: grid.Phases{Fetch: 1, Compile: 2, Queue: 6, Start: 3, Run: time.Second, Store: 5},
		Calls: 99, Spawned: 7, SpawnedRun: 5 * time.Second, SpawnedFuel: 1234, Impure: true, Metrics: []grid.Metric{{Name: "lines", Kind: grid.Counter, Count: 3}}, Profile: link("profile"),
	}
	if err := grid.Sign(fake.Key("a"), &r); err != nil {
		panic(err)
	}
	return r
}

func sampleCheckpoint() grid.Checkpoint {
	return grid.Checkpoint{Job: "jx", Before: link("before"), Parts: []grid.CheckpointPart{{Stage: 1, Table: link("table")}}}
}

func sampleRecord() grid.Record {
	return grid.Record{
		ID: "jabcdefghijklmnopqrstuvwxy", Spec: link("spec"), Owner: nodeID("a"), Epoch: 3, State: grid.Done, Fresh: true, Bound: true,
		Submitted: time.Unix(1700000000, 123456789).UTC(), Ended: time.Unix(1700000001, 5).UTC(), Result: link("result"), Error: "none",
		Stages: []grid.StageStatus{{Name: "main", Tasks: 2, Done: 1, Cached: 1, Failed: 1, Ran: time.Second, Nodes: map[string]uint32{"x": 1, "aa": 2}}},
	}
}

func sampleInvocation() grid.Invocation {
	st := sampleSpec().Stages[0]
	return grid.Invocation{ABI: 1, Module: st.Module, Func: "map", Args: []string{"-v", "/in/x"}, Env: []string{"A=1", "GRID_ABI=1"},
		Mounts: st.Mounts, Stdin: link("stdin"), Feed: true, Inputs: []grid.Input{{Name: "x", CID: link("x"), Size: 9}}, Limits: st.Limits,
		Grants: grid.Grants{Net: []string{"example.org:443"}}, Salt: "s1", Merge: true, Parts: 9, Split: grid.SplitLines, Only: "jabc/0/7"}
}

// stable checks that a value survives coding and has one form.
func stable[T any](t *testing.T, v T) []byte {
	t.Helper()
	data, err := grid.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var back T
	if err := grid.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(v, back) {
		t.Errorf("%T came back as\n%+v, was\n%+v", v, back, v)
	}
	again, _ := grid.Marshal(back)
	if !bytes.Equal(data, again) {
		t.Errorf("%T: two encodings", v)
	}
	return data
}

func TestGolden(t *testing.T) {
	golden(t, "spec", stable(t, sampleSpec()))
	golden(t, "receipt", stable(t, sampleReceipt()))
	golden(t, "record", stable(t, sampleRecord()))
	golden(t, "checkpoint", stable(t, sampleCheckpoint()))
	golden(t, "completion", stable(t, grid.Completion{Index: 7, Input: "x", Inputs: 2, Cached: true, Receipt: sampleReceipt()}))
	golden(t, "lease", stable(t, grid.Lease{Job: "jx", Owner: nodeID("a"), Epoch: 1, Spec: link("spec"), Stage: 1, Table: link("table"), Fresh: true,
		Span: grid.Span{Lo: 5, Hi: 9}}))
	golden(t, "plugin", stable(t, samplePlugin()))
	golden(t, "plugin-policy", stable(t, grid.PluginPolicy{Require: grid.SignAll, Trust: []peer.ID{nodeID("a")}}))
	golden(t, "link", stable(t, link("hello")))
	v := sampleInvocation()
	golden(t, "invocation", stable(t, v))
	key, err := v.Key()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "key", key[:])
	w := fake.NewBlocks()
	tw := grid.NewTable[grid.Row](w)
	for i := range 3 {
		if err := tw.Add(within(t), grid.Row{{Name: fmt.Sprint(i), CID: link("x"), Size: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	root, err := tw.Close(within(t))
	if err != nil {
		t.Fatal(err)
	}
	data, _ := w.Get(within(t), root.Cid)
	golden(t, "table", data)
}

func TestKeySeesEverything(t *testing.T) {
	base := sampleInvocation()
	seen := map[grid.Key]string{}
	add := func(name string, v grid.Invocation) {
		k, err := v.Key()
		if err != nil {
			t.Fatal(err)
		}
		if other, dup := seen[k]; dup {
			t.Errorf("%s has the key of %s", name, other)
		}
		seen[k] = name
	}
	add("base", base)
	typ := reflect.TypeFor[grid.Invocation]()
	for i := range typ.NumField() {
		v := base
		f := reflect.ValueOf(&v).Elem().Field(i)
		if typ.Field(i).Name == "Module" {
			v.Module = link("other")
		} else if f.IsZero() {
			t.Fatalf("the sample has no %s", typ.Field(i).Name)
		} else if f.Kind() == reflect.Struct && typ.Field(i).Name == "Limits" {
			v.Limits.Wall++
		} else {
			f.SetZero()
		}
		add("without "+typ.Field(i).Name, v)
	}
}

func TestJobID(t *testing.T) {
	id, err := grid.NewJobID(rand.NewChaCha8([32]byte{1}))
	if err != nil || len(id) != 26 || id[0] != 'j' {
		t.Fatalf("%q, %v", id, err)
	}
	if back, err := grid.ParseJobID(string(id)); back != id || err != nil {
		t.Errorf("parsed %q, %v", back, err)
	}
	if _, err := grid.NewJobID(iotest.ErrReader(io.ErrUnexpectedEOF)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("without randomness: %v", err)
	}
	for _, s := range []string{"", "j", string(id[:25]), string(id) + "a", "k" + string(id[1:]), "j0" + string(id[2:]), "jA" + string(id[2:]), "j/" + string(id[2:])} {
		_, err := grid.ParseJobID(s)
		wantCode(t, err, grid.Invalid, "not a job ID")
		if grid.AdviceOf(err) == "" {
			t.Errorf("%q: no advice", s)
		}
	}
}

func TestLink(t *testing.T) {
	l := link("hello")
	data, err := grid.Marshal(l)
	if err != nil || !bytes.Equal(data[:5], []byte{0xd8, 42, 0x58, 37, 0}) || !bytes.Equal(data[5:], l.Bytes()) {
		t.Errorf("CBOR %x, %v", data, err)
	}
	if _, err := grid.Marshal(grid.Link{}); err == nil {
		t.Error("the zero link has a CBOR form")
	}
	for _, bad := range []string{"f6", "40", "d82a40", "d82a4100", "d82a420100", "d82b5825" + hex.EncodeToString(data[4:]), "d82a5825ff" + hex.EncodeToString(l.Bytes()), "d82a430001ff"} {
		raw, _ := hex.DecodeString(bad)
		var got grid.Link
		if err := grid.Unmarshal(raw, &got); err == nil {
			t.Errorf("%s gave %v", bad, got)
		}
	}
	for _, l := range []grid.Link{l, {}} {
		data, err := json.Marshal(l)
		var back grid.Link
		if err != nil || json.Unmarshal(data, &back) != nil || back != l {
			t.Errorf("JSON %s gave %v, %v", data, back, err)
		}
	}
	for _, bad := range []string{`"x"`, `12`, `"` + strings.Repeat("z", 1<<20) + `"`, `{}`} {
		var got grid.Link
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%.20s gave %v", bad, got)
		}
	}
	_, err = grid.ParseLink("nonsense")
	wantCode(t, err, grid.Invalid, "nonsense")
}

func TestKeyText(t *testing.T) {
	k := grid.Key{0xab, 31: 0xcd}
	text, _ := k.MarshalText()
	var back grid.Key
	if err := back.UnmarshalText(text); err != nil || back != k {
		t.Errorf("%s gave %s, %v", text, back, err)
	}
	for _, bad := range []string{"", "ab", string(text[1:]), string(text) + "00", strings.Repeat("x", 64)} {
		if err := new(grid.Key).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is taken for a key", bad)
		}
	}
	if err := grid.Unmarshal([]byte{0x41, 1}, &back); err == nil {
		t.Error("one byte is taken for a key")
	}
}

func TestVerifyBlock(t *testing.T) {
	b := grid.NewBlock(cid.Raw, []byte("data"))
	if _, err := grid.VerifyBlock(b.CID(), b.Data()); err != nil {
		t.Error(err)
	}
	_, err := grid.VerifyBlock(b.CID(), []byte("Data"))
	wantCode(t, err, grid.Corrupt, b.CID().String())
	_, err = grid.VerifyBlock(b.CID(), make([]byte, grid.MaxBlock+1))
	wantCode(t, err, grid.Limit)
	wantCode(t, grid.CheckCID(cid.Undef), grid.Invalid)
	identity, _ := cid.V1Builder{Codec: cid.Raw, MhType: mh.IDENTITY}.Sum([]byte("x"))
	wantCode(t, grid.CheckCID(identity), grid.Unsupported)
	sha512, _ := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_512}.Sum([]byte("x"))
	wantCode(t, grid.CheckCID(sha512), grid.Unsupported)
	_, err = grid.EncodeBlock(make([]byte, grid.MaxBlock))
	wantCode(t, err, grid.Limit)
}

func TestErrors(t *testing.T) {
	base := grid.Errorf(grid.NoSpace, "disk full").Hint("delete something")
	err := fmt.Errorf("outer: %w", grid.Errorf(grid.CodeOf(base), "store: put: %w", base))
	if !errors.Is(err, grid.NoSpace) || errors.Is(err, grid.Limit) || grid.CodeOf(err) != grid.NoSpace {
		t.Errorf("%v: code %v", err, grid.CodeOf(err))
	}
	if err.Error() != "outer: store: put: disk full" || grid.AdviceOf(err) != "delete something" {
		t.Errorf("%q, advice %q", err, grid.AdviceOf(err))
	}
	outer := grid.Errorf(grid.Invalid, "job: %w", base)
	if !errors.Is(outer, grid.NoSpace) || grid.CodeOf(outer) != grid.Invalid {
		t.Error("an outer code must win, and the inner still be found")
	}
	if grid.AdviceOf(grid.Errorf(grid.Invalid, "job: %w", base).Hint("nearer")) != "nearer" {
		t.Error("the advice nearest the surface must win")
	}
	for err, want := range map[error]grid.Code{
		nil: grid.Unknown, io.EOF: grid.Unknown, grid.Busy: grid.Busy, context.Canceled: grid.Canceled,
		fmt.Errorf("x: %w", context.DeadlineExceeded): grid.Deadline,
	} {
		if got := grid.CodeOf(err); got != want {
			t.Errorf("CodeOf(%v) = %v, want %v", err, got, want)
		}
	}
	if grid.AdviceOf(nil) != "" || grid.AdviceOf(io.EOF) != "" {
		t.Error("advice out of nothing")
	}
	if grid.Code(999).Error() != "code 999" || grid.Busy.Error() != "busy" {
		t.Error("names of codes")
	}
}

func TestNormalize(t *testing.T) {
	long := strings.Repeat("x", grid.MaxName+1)
	many := func(n int) []string { return slices.Repeat([]string{"A=1"}, n) }
	tests := []struct {
		name string
		edit func(s *grid.Spec)
		code grid.Code // Unknown: accepted
		word string
	}{
		{"as it is", func(s *grid.Spec) {}, grid.Unknown, ""},
		{"version", func(s *grid.Spec) { s.Version = 1 }, grid.Unsupported, "version 1"},
		{"name", func(s *grid.Spec) { s.Name = long }, grid.Invalid, "name has 129 bytes"},
		{"name's bytes", func(s *grid.Spec) { s.Name = "\xff" }, grid.Invalid, "UTF-8"},
		{"no stages", func(s *grid.Spec) { s.Stages = nil }, grid.Invalid, "1 to 64 stages"},
		{"stages", func(s *grid.Spec) { s.Stages = make([]grid.Stage, 65) }, grid.Invalid, "this one 65"},
		{"stage name", func(s *grid.Spec) { s.Stages[0].Name = long }, grid.Invalid, "more than 128"},
		{"stage name's bytes", func(s *grid.Spec) { s.Stages[0].Func = "\xff" }, grid.Invalid, "UTF-8"},
		{"function", func(s *grid.Spec) { s.Stages[0].Func, s.Stages[0].Name = long, "x" }, grid.Invalid, "more than 128"},
		{"module", func(s *grid.Spec) { s.Stages[0].Module = grid.Link{} }, grid.Invalid, "stage 0 (map): module: empty CID"},
		{"no tasks", func(s *grid.Spec) { s.Stages[0].Tasks = 0 }, grid.Invalid, "no tasks"},
		{"tasks", func(s *grid.Spec) { s.Stages[0].Tasks = grid.MaxTasks + 1 }, grid.Limit, "1048577 tasks"},
		{"most tasks", func(s *grid.Spec) { s.Stages[0].Tasks = grid.MaxTasks }, grid.Unknown, ""},
		{"feed and stdin", func(s *grid.Spec) { s.Stages[0].Stdin = link("s") }, grid.Invalid, "stdin is either"},
		{"arguments", func(s *grid.Spec) { s.Stages[0].Args = many(grid.MaxArgs + 1) }, grid.Limit, "4097 arguments"},
		{"argument bytes", func(s *grid.Spec) { s.Stages[0].Args = []string{strings.Repeat("x", grid.MaxArgBytes+1)} }, grid.Limit, "the arguments have"},
		{"argument zero", func(s *grid.Spec) { s.Stages[0].Args = []string{"a\x00b"} }, grid.Invalid, `argument "a\x00b"`},
		{"argument's bytes", func(s *grid.Spec) { s.Stages[0].Args = []string{"\xff"} }, grid.Invalid, "UTF-8"},
		{"environment", func(s *grid.Spec) { s.Stages[0].Env = many(grid.MaxArgs + 1) }, grid.Limit, "environment variables"},
		{"environment form", func(s *grid.Spec) { s.Stages[0].Env = []string{"=x"} }, grid.Invalid, `"=x": want NAME=value`},
		{"environment name", func(s *grid.Spec) { s.Stages[0].Env = []string{"x"} }, grid.Invalid, `"x": want NAME=value`},
		{"mounts", func(s *grid.Spec) { s.Stages[0].Mounts = make([]grid.Mount, 65) }, grid.Limit, "65 mounts"},
		{"mount twice", func(s *grid.Spec) {
			s.Stages[0].Mounts = slices.Repeat(s.Stages[0].Mounts, 2)
		}, grid.Invalid, `"/usr/share" is taken`},
		{"mount CID", func(s *grid.Spec) { s.Stages[0].Mounts = []grid.Mount{{Path: "/x"}} }, grid.Invalid, "mount /x"},
		{"time", func(s *grid.Spec) { s.Stages[0].Limits.Wall = 25 * time.Hour }, grid.Limit, "time limit"},
		{"negative time", func(s *grid.Spec) { s.Stages[0].Limits.Wall = -1 }, grid.Invalid, "negative time"},
		{"memory", func(s *grid.Spec) { s.Stages[0].Limits.Memory = 5 << 30 }, grid.Limit, "memory limit"},
		{"one byte of memory", func(s *grid.Spec) { s.Stages[0].Limits.Memory = 1 }, grid.Invalid, "memory limit: 1 B of memory: the least"},
		{"a page of memory", func(s *grid.Spec) { s.Stages[0].Limits.Memory = 64 << 10 }, grid.Unknown, ""},
		{"output", func(s *grid.Spec) { s.Stages[0].Limits.Output = 5 << 30 }, grid.Limit, "output limit"},
		{"scratch", func(s *grid.Spec) { s.Stages[0].Limits.Scratch = 5 << 30 }, grid.Limit, "scratch limit"},
		{"files", func(s *grid.Spec) { s.Stages[0].Limits.Files = 2e6 }, grid.Limit, "scratch file limit"},
	}
	for _, p := range []string{"", "x", "/", "/a/", "/a/../b", "//a", "/in", "/out", "/tmp", "/a\x00", "/\xff"} {
		tests = append(tests, struct {
			name string
			edit func(s *grid.Spec)
			code grid.Code
			word string
		}{"mount at " + p, func(s *grid.Spec) { s.Stages[0].Mounts[0].Path = p }, grid.Invalid, fmt.Sprintf("mount point %q", p)})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := sampleSpec()
			tt.edit(&s)
			err := s.Normalize()
			if tt.code == grid.Unknown {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantCode(t, err, tt.code, tt.word)
		})
	}
	s := grid.Spec{Stages: []grid.Stage{{Module: link("m"), Tasks: 1}, {Module: link("m"), From: []grid.Source{{}}}}}
	if err := s.Normalize(); err != nil {
		t.Fatal(err)
	}
	if s.Version != grid.SpecVersion || s.Stages[0].Name != "main" || s.Stages[1].Name != "stage1" || s.Stages[1].Tasks != 1 ||
		s.Stages[0].Limits != grid.DefaultLimits {
		t.Errorf("normalised to %+v", s)
	}
}

func TestCheckRow(t *testing.T) {
	ok := grid.Row{{Name: "a", CID: link("a")}, {Name: "b/c", CID: link("a")}}
	if err := grid.CheckRow(ok); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"", ".", "..", "/a", "a/", "a/../b", "a//b", "a\x00", "\xff", strings.Repeat("x", 4097)} {
		wantCode(t, grid.CheckRow(grid.Row{{Name: name, CID: link("a")}}), grid.Invalid, "input name")
	}
	wantCode(t, grid.CheckRow(grid.Row{ok[0], ok[0]}), grid.Invalid, `named "a"`)
	wantCode(t, grid.CheckRow(grid.Row{{Name: "a"}}), grid.Invalid, "input a")
	wantCode(t, grid.CheckRow(make(grid.Row, grid.MaxTaskInputs+1)), grid.Limit)
}

func TestExpandArgs(t *testing.T) {
	in := []grid.Input{{Name: "a"}, {Name: "d/b"}}
	for _, tt := range []struct {
		args, want []string
	}{
		{nil, nil},
		{[]string{"x"}, []string{"x"}},
		{[]string{"-f", "{}", "-g"}, []string{"-f", "/in/a", "/in/d/b", "-g"}},
		{[]string{"--in={}", "{}{}"}, []string{"--in=/in/a /in/d/b", "/in/a /in/d/b/in/a /in/d/b"}},
	} {
		if got := grid.ExpandArgs(tt.args, in); !slices.Equal(got, tt.want) {
			t.Errorf("%q became %q, want %q", tt.args, got, tt.want)
		}
	}
	if got := grid.ExpandArgs([]string{"{}"}, nil); len(got) != 0 {
		t.Errorf("no inputs: %q", got)
	}
}

func TestReceiptSignature(t *testing.T) {
	r := sampleReceipt()
	if err := r.Verify(); err != nil {
		t.Fatal(err)
	}
	typ := reflect.TypeFor[grid.Receipt]()
	for i := range typ.NumField() {
		r := sampleReceipt()
		f := reflect.ValueOf(&r).Elem().Field(i)
		f.SetZero() // the sample has no zero fields
		if err := r.Verify(); err == nil {
			t.Errorf("without its %s the receipt still verifies", typ.Field(i).Name)
		}
	}
	r.Node = nodeID("b")
	wantCode(t, r.Verify(), grid.Denied, nodeID("b").String())
	for _, id := range []peer.ID{"", "x", peer.ID(strings.Repeat("x", 100))} {
		r.Node = id
		wantCode(t, r.Verify(), grid.Invalid)
	}
}

func TestClean(t *testing.T) {
	for _, tt := range []struct {
		in   string
		most int
		want string
	}{{"abc", 9, "abc"}, {"abc", 2, "ab"}, {"a\xffb", 9, "a?b"}, {"aé", 2, "a?"}} {
		if got := grid.Clean(tt.in, tt.most); got != tt.want {
			t.Errorf("Clean(%q, %d) = %q, want %q", tt.in, tt.most, got, tt.want)
		}
	}
}

func TestInputs(t *testing.T) {
	ctx := within(t)
	files := fake.Files{Blocks: fake.NewBlocks()}
	file := func(s string) grid.Link {
		c, _, err := files.Add(ctx, strings.NewReader(s))
		if err != nil {
			t.Fatal(err)
		}
		return grid.Link{Cid: c}
	}
	tree, _, err := files.AddTree(ctx, []grid.FileInfo{{Name: "p/q", Kind: grid.KindFile, CID: file("quux"), Size: 4}, {Name: "r", Kind: grid.KindFile, CID: file("")}})
	if err != nil {
		t.Fatal(err)
	}
	row := grid.Row{{Name: "a", CID: file("one")}, {Name: "d/e/b", CID: file("two")}, {Name: "d/t", CID: grid.Link{Cid: tree}}, {Name: "empty", CID: file("")}}
	in, err := grid.NewInputFS(ctx, files, row)
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(in, "a", "d/e/b", "d/t/p/q", "d/t/r", "empty"); err != nil {
		t.Error(err)
	}
	for _, row := range []grid.Row{
		{{Name: "a"}, {Name: "a"}}, {{Name: "a"}, {Name: "a/b"}}, {{Name: "a/b"}, {Name: "a"}}, {{Name: "."}}, {{Name: "/x"}},
		{{Name: "a"}, {Name: "a/b/c"}},
	} {
		if _, err := grid.NewInputFS(ctx, files, row); err == nil {
			t.Errorf("%v is accepted", row)
		}
	}

	r := grid.NewInputReader(ctx, files, grid.Row{row[0], row[3], row[1]})
	if data, err := io.ReadAll(iotest.OneByteReader(r)); err != nil || string(data) != "onetwo" {
		t.Errorf("read %q, %v", data, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	r = grid.NewInputReader(ctx, files, grid.Row{row[0], {Name: "lost", CID: link("lost")}})
	if _, err := io.ReadAll(r); grid.CodeOf(err) != grid.NotFound || !strings.Contains(err.Error(), "lost") {
		t.Errorf("a lost input: %v", err)
	}
}

func TestTable(t *testing.T) {
	ctx := within(t)
	for _, n := range []int{0, 1, 2, 1000, 40000} {
		rng := rand.New(rand.NewPCG(1, uint64(n)))
		b := fake.NewBlocks()
		w := grid.NewTable[string](b)
		rows := make([]string, n)
		for i := range rows {
			size := rng.IntN(40)
			if n <= 2 {
				size = grid.TablePart + 1 // alone in its part
			}
			rows[i] = strings.Repeat("x", size)
			if err := w.Add(ctx, rows[i]); err != nil {
				t.Fatal(err)
			}
		}
		root, err := w.Close(ctx)
		if err != nil {
			t.Fatal(err)
		}
		tab, err := grid.OpenTable[string](ctx, b.Get, root)
		if err != nil || int(tab.Len()) != n {
			t.Fatalf("%d rows came back as %d, %v", n, tab.Len(), err)
		}
		before := b.Gets()
		for i, want := range rows {
			if got, err := tab.Row(ctx, uint32(i)); err != nil || got != want {
				t.Fatalf("row %d: %d bytes, %v", i, len(got), err)
			}
		}
		if n == 40000 {
			if reads := b.Gets() - before; reads != 4 {
				t.Errorf("%d rows in order took %d reads", n, reads)
			}
		}
		for range min(n, 200) {
			i := rng.IntN(n)
			if got, err := tab.Row(ctx, uint32(i)); err != nil || got != rows[i] {
				t.Fatalf("row %d: %d bytes, %v", i, len(got), err)
			}
		}
		_, err = tab.Row(ctx, uint32(n))
		wantCode(t, err, grid.NotFound)
	}
}

func TestHostileTable(t *testing.T) {
	ctx := within(t)
	b := fake.NewBlocks()
	put := func(v any) grid.Link {
		block, err := grid.EncodeBlock(v)
		if err != nil {
			t.Fatal(err)
		}
		_ = b.Put(ctx, block)
		return grid.Link{Cid: block.CID()}
	}
	two := put([]string{"a", "b"})
	type parts = []grid.TableRef
	for name, x := range map[string]grid.TableIndex{
		"no parts":      {Rows: 1},
		"late start":    {Rows: 3, Parts: parts{{First: 1, CID: two}}},
		"overlap":       {Rows: 4, Parts: parts{{First: 0, CID: two}, {First: 0, CID: two}}},
		"backwards":     {Rows: 9, Parts: parts{{First: 0, CID: two}, {First: 4, CID: two}, {First: 2, CID: two}}},
		"beyond":        {Rows: 2, Parts: parts{{First: 0, CID: two}, {First: 2, CID: two}}},
		"empty part":    {Rows: 0, Parts: parts{{First: 0, CID: two}}},
		"too few rows":  {Rows: 3, Parts: parts{{First: 0, CID: two}}},
		"too many rows": {Rows: 3, Parts: parts{{First: 0, CID: two}, {First: 1, CID: two}}},
		"huge":          {Rows: 1<<32 - 1, Parts: parts{{First: 0, CID: two}, {First: 2, CID: two}}},
		"not rows":      {Rows: 1, Parts: parts{{First: 0, CID: put("text")}}},
		"lost part":     {Rows: 1, Parts: parts{{First: 0, CID: link("lost")}}},
	} {
		t.Run(name, func(t *testing.T) {
			tab, err := grid.OpenTable[string](ctx, b.Get, put(x))
			for i := uint32(0); err == nil && i < min(tab.Len(), 10); i++ {
				_, err = tab.Row(ctx, i)
			}
			if err == nil {
				t.Error("accepted")
			} else if c := grid.CodeOf(err); c != grid.Invalid && c != grid.NotFound {
				t.Error(err)
			}
		})
	}
	_, err := grid.OpenTable[string](ctx, b.Get, link("nowhere"))
	wantCode(t, err, grid.NotFound, "table "+link("nowhere").String())
}

func TestCoding(t *testing.T) {
	for _, s := range []string{"1+1", "4+2", "30+2", "1+31"} {
		if c, err := grid.ParseCoding(s); err != nil || c.String() != s {
			t.Errorf("ParseCoding(%q) = %v, %v", s, c, err)
		}
	}
	for _, s := range []string{"", "4", "4+", "+2", "4+0", "0+2", "0+0", "-1+2", "04+2", "4+2+1", " 4+2", "31+2", "4 + 2", strings.Repeat("9", 100) + "+1"} {
		if c, err := grid.ParseCoding(s); grid.CodeOf(err) != grid.Invalid || len(err.Error()) > 200 {
			t.Errorf("ParseCoding(%q) = %v, %v", s, c, err)
		}
	}
}
