package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

// TestBackup makes a backup of a realm with something of everything, and a new realm of it, in another home.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	at := func(home string) func(exit int, stdin string, args ...string) result {
		return func(exit int, stdin string, args ...string) result {
			t.Helper()
			r := embedded(t, filepath.Join(dir, home), stdin, args...)
			if r.exit != exit {
				t.Fatalf("in %s, grid %s: exit %d, want %d: %s%s", home, strings.Join(args, " "), r.exit, exit, r.out, r.err)
			}
			r.out = strings.TrimSpace(r.out)
			return r
		}
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, data []byte) string {
		t.Helper()
		if err := os.WriteFile(path(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path(name)
	}
	restored := func(r result) (done grid.Restored) {
		t.Helper()
		if err := json.Unmarshal([]byte(r.out), &done); err != nil {
			t.Fatal(err)
		}
		return done
	}

	old := at("old")
	file := old(0, "", "add", "-q", write("f", []byte(strings.Repeat("content ", 100_000)))).out
	old(0, "", "ref", "set", "some/name", file)
	old(0, "", "kv", "put", "a", "1")
	old(0, "hush", "secret", "set", "token")
	old(0, "", "run", write("m.wasm", wasmbytes.Noop()))
	var jobs []grid.JobStatus
	if err := json.Unmarshal([]byte(old(0, "", "ps", "-a", "--json").out), &jobs); err != nil || len(jobs) != 1 {
		t.Fatal(jobs, err)
	}
	whole, bare := path("whole"), path("bare")
	old(0, "", "backup", "--data", whole)
	if r := old(0, "", "backup", "-"); !strings.HasPrefix(r.out, "grid backup 1\n") || r.err != "" {
		t.Errorf("to standard output: %.20q, %s", r.out, r.err)
	}
	old(68, "", "backup", bare[:len(bare)-4]+"whole")
	old(0, "", "backup", bare)
	if st, err := os.Stat(whole); err != nil || st.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		t.Errorf("%v, %v", st, err)
	}
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}

	// What is no backup, or not all of one, changes nothing.
	fresh := at("fresh")
	damaged := append([]byte(nil), data...)
	damaged[len("grid backup 1\n")+20]++
	for name, bad := range map[string]struct {
		data []byte
		exit int
		says string
	}{
		"none":    {nil, 67, "no backup"},
		"other":   {[]byte("hello, this is some other file\n"), 67, "no backup"},
		"line":    {data[:8], 69, "cut short"},
		"version": {append([]byte("grid backup 2\n"), data[14:]...), 67, "format 2, and this grid reads 1"},
		"frame":   {data[:40], 69, "cut short"},
		"half":    {data[:len(data)/2], 69, "cut short"},
		"cut":     {data[:len(data)-1], 69, "cut short"},
		"longer":  {append(data[:len(data):len(data)], 'x'), 69, "behind its end"},
		"damaged": {damaged, 69, ""},
	} {
		r := embedded(t, path("fresh"), "", "restore", write("bad", bad.data))
		if r.exit == 0 || !strings.Contains(r.err, bad.says) {
			t.Errorf("%s: exit %d, %s", name, r.exit, r.err)
		}
	}
	fresh(66, "", "kv", "get", "a")
	fresh(66, "", "restore", path("missing"))

	done := restored(fresh(0, "", "restore", "--json", whole))
	if done.Put != done.Held.Entries || done.Put < 5 || done.Pinned != done.Held.Pins || done.Pinned == 0 || done.Unpinned != 0 || done.Sealed != 1 || !done.Header.Data {
		t.Errorf("restored: %+v", done)
	}
	if got := fresh(0, "", "cat", "some/name").out; got != strings.TrimSpace(strings.Repeat("content ", 100_000)) {
		t.Errorf("the file has %d bytes", len(got))
	}
	if got := fresh(0, "", "kv", "get", "a").out; got != "1" {
		t.Errorf("the key is %q", got)
	}
	if got := fresh(0, "", "secret", "ls").out; !strings.Contains(got, "token") {
		t.Errorf("the secrets are %q", got)
	}
	if got := fresh(0, "", "audit").out; !strings.Contains(got, "realm.restore") {
		t.Errorf("the audit log is %q", got)
	}
	fresh(0, "", "store", "gc")
	fresh(0, "", "job", string(jobs[0].ID))
	fresh(0, "", "get", string(jobs[0].ID), "-o", path("out"))

	// A realm in use is left alone, unless that is meant; then what is here stays.
	if r := fresh(68, "", "restore", whole); !strings.Contains(r.err, "is in use") || !strings.Contains(r.err, "--merge") {
		t.Errorf("in use: %s", r.err)
	}
	if done := restored(fresh(0, "", "restore", "--merge", "--json", whole)); done.Put != 0 || done.Same+done.Kept != done.Held.Entries {
		t.Errorf("again: %+v", done)
	}
	used := at("used")
	used(0, "", "kv", "put", "a", "2")
	used(0, "", "kv", "put", "b", "2")
	if r := used(68, "", "restore", "--merge", whole); !strings.Contains(r.err, "the key a") || strings.Contains(r.err, "the key b") {
		t.Errorf("a conflict: %s", r.err)
	}
	used(66, "", "ref", "get", "some/name")
	used(0, "", "kv", "del", "a")
	used(0, "", "restore", "--merge", whole)
	if a, b := used(0, "", "kv", "get", "a").out, used(0, "", "kv", "get", "b").out; a != "1" || b != "2" {
		t.Errorf("merged: %q, %q", a, b)
	}

	// Without data, what is not to be had is told. With the identity of the old home, secrets are.
	if err := os.Mkdir(path("moved"), 0o700); err != nil {
		t.Fatal(err)
	}
	identity, err := os.ReadFile(path("old/identity"))
	if err != nil {
		t.Fatal(err)
	}
	write("moved/identity", identity)
	done = restored(at("moved")(0, "", "restore", "--json", bare))
	if done.Sealed != 0 || done.Unpinned != done.Held.Pins || done.Unpinned == 0 || done.Why == "" || done.Header.Data {
		t.Errorf("restored without data: %+v", done)
	}
}
