package wal

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// childDir makes the test binary the process that is killed.
const childDir = "WAL_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		appendForEver(dir)
	}
	os.Exit(m.Run())
}

func entryText(i uint64) string { return strings.Repeat(strconv.FormatUint(i, 10)+" ", int(i%97)) }

// appendForEver writes entries, now and then deletes some at either end, and tells what is acknowledged.
func appendForEver(dir string) {
	l, err := Open(dir, "crash")
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	last, _ := l.LastIndex()
	for i := last + 1; ; i++ {
		var batch []*raft.Log
		for range 1 + i%5 {
			batch = append(batch, &raft.Log{Index: i + uint64(len(batch)), Term: 1, Data: []byte(entryText(i + uint64(len(batch))))})
		}
		if err := l.StoreLogs(batch); err != nil {
			fmt.Println("store:", err)
			os.Exit(1)
		}
		i = batch[len(batch)-1].Index
		if first, _ := l.FirstIndex(); i%50 == 0 && i > first+200 {
			if err := l.DeleteRange(first, i-100); err != nil {
				fmt.Println("delete:", err)
				os.Exit(1)
			}
		}
		fmt.Println(i)
	}
}

// TestKilled kills a process that writes, again and again: whatever it had acknowledged is there, and whole.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 8 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acked := uint64(0)
		lines := bufio.NewScanner(out)
		for range 20 + r.IntN(300) {
			if !lines.Scan() {
				break
			}
			n, err := strconv.ParseUint(lines.Text(), 10, 64)
			if err != nil {
				t.Fatalf("round %d: the child says %s", round, lines.Text())
			}
			acked = n
		}
		_ = cmd.Process.Kill()
		for lines.Scan() { // what it said before it died
			if n, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil {
				acked = n
			}
		}
		_ = cmd.Wait()
		l, err := Open(dir, "crash")
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		first, _ := l.FirstIndex()
		last, _ := l.LastIndex()
		if last < acked {
			t.Fatalf("round %d: entry %d was acknowledged, the last one there is %d", round, acked, last)
		}
		for i := first; i <= last; i++ {
			var e raft.Log
			if err := l.GetLog(i, &e); err != nil || string(e.Data) != entryText(i) {
				t.Fatalf("round %d: entry %d of %d to %d: %q, %v", round, i, first, last, e.Data, err)
			}
		}
		var e raft.Log
		if err := l.GetLog(last+1, &e); !errors.Is(err, raft.ErrLogNotFound) {
			t.Fatalf("round %d: entry %d: %v", round, last+1, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRefusingDisk: after a write that failed, and could not be taken back, nothing more is written until the log is
// opened again; what was acknowledged is there then.
func TestRefusingDisk(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	store(t, l, 1, 10, "kept")
	s := l.segments[len(l.segments)-1]
	good := s.file
	bad, err := os.Open(good.Name()) // for reading only
	if err != nil {
		t.Fatal(err)
	}
	s.file = bad
	for range 2 {
		if err := l.StoreLog(&raft.Log{Index: 11, Term: 1}); err == nil {
			t.Fatal("a write to a file that takes none succeeded")
		}
		s.file = good // too late: who knows what is on disk
	}
	bad.Close()
	var e raft.Log
	if err := l.GetLog(10, &e); err != nil || string(e.Data) != "kept" {
		t.Errorf("GetLog = %+v, %v", e, err)
	}
	if err := l.Close(); err != nil {
		t.Log(err)
	}
	l = open(t, dir)
	if last, _ := l.LastIndex(); last != 10 {
		t.Errorf("%d entries are there, want 10", last)
	}
	store(t, l, 11, 12, "new")
}
