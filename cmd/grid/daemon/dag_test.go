package daemon

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
)

// sorters is nodes that sort records together, and counts of the tasks that each has run.
type sorters struct {
	all []*rig
	mu  sync.Mutex
	ran []map[string]int
}

func newSorters(t *testing.T, nodes int) *sorters {
	w := memnet.New(memnet.Config{})
	s := &sorters{}
	for i := range nodes {
		r := newRig(t, w, 2)
		ran := map[string]int{}
		s.all, s.ran = append(s.all, r), append(s.ran, ran)
		r.eng.guest = func(ctx context.Context, g *grid.Guest) error {
			s.mu.Lock()
			s.ran[i][g.Args[1]]++
			s.mu.Unlock()
			return sortGuest(ctx, g)
		}
	}
	oneRealm(t, s.all...)
	return s
}

// records is how many records one task makes.
const records = 5000

// sortGuest is the tools of a sort: it generates records of 100 bytes, passes on those that come in order, validates
// them, and adds up what validating them gave.
func sortGuest(ctx context.Context, g *grid.Guest) error {
	out := bufio.NewWriter(g.Stdout)
	defer out.Flush()
	switch g.Args[1] {
	case "generate":
		var task uint64
		for _, e := range g.Env {
			fmt.Sscanf(e, grid.EnvTask+"=%d", &task)
		}
		r := rand.New(rand.NewPCG(task, 1))
		for range records {
			fmt.Fprintf(out, "%010d\t%s\n", r.IntN(1e10), strings.Repeat("x", 88))
		}
		select { // so that others get some of them
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	case "sort":
		_, err := io.Copy(out, g.Stdin)
		return err
	case "validate": // each part by itself: how many records, their sum, and whether they are in order
		n, sum, last := 0, uint64(0), []byte{}
		lines := bufio.NewScanner(g.Stdin)
		for lines.Scan() {
			var key uint64
			if _, err := fmt.Sscanf(string(lines.Bytes()[:10]), "%d", &key); err != nil {
				return err
			}
			if bytes.Compare(lines.Bytes()[:10], last) < 0 || len(lines.Bytes()) != 99 {
				return fmt.Errorf("record %d is out of order, or broken: %q", n, lines.Text())
			}
			last = append(last[:0], lines.Bytes()[:10]...)
			n, sum = n+1, sum+key
		}
		fmt.Fprintln(out, n, sum)
	case "total":
		n, sum := 0, uint64(0)
		err := fs.WalkDir(g.Mounts[grid.GuestIn], ".", func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			var k int
			var s uint64
			data, err := fs.ReadFile(g.Mounts[grid.GuestIn], p)
			if err == nil {
				_, err = fmt.Sscan(string(data), &k, &s)
			}
			n, sum = n+k, sum+s
			return err
		})
		fmt.Fprintln(out, n, sum)
		return err
	}
	return nil
}

// TestSort sorts generated records on several nodes: by parts, each merged of what all tasks have left of it, and checks
// them as they come. All of it is then merged once more, into one sorted file.
func TestSort(t *testing.T) {
	s := newSorters(t, 3)
	a := s.all[0]
	const tasks, parts = 40, 16
	module := a.add(t, []byte("module"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	id, err := a.node.Submit(ctx, grid.Request{Spec: grid.Spec{Stages: []grid.Stage{
		{Name: "generate", Module: module, Args: []string{"generate"}, Tasks: tasks, Partitions: parts, Split: grid.SplitLines},
		{Name: "sort", Module: module, Args: []string{"sort"}, From: []grid.Source{{Part: true}}, Merge: true},
		{Name: "validate", Module: module, Args: []string{"validate"}, From: []grid.Source{{Stage: 1, Fan: 1}}, Feed: true},
		{Name: "total", Module: module, Args: []string{"total"}, From: []grid.Source{{Stage: 2}}},
		{Name: "all", Module: module, Args: []string{"sort"}, From: []grid.Source{{Stage: 1}}, Merge: true},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	var st grid.JobStatus
	if err := a.node.Watch(ctx, id, func(now grid.JobStatus) error { st = now; return nil }); err != nil || st.State != grid.Done {
		t.Fatalf("%+v, %v", st, err)
	}
	var want []uint64
	sum := uint64(0)
	for task := range uint64(tasks) {
		r := rand.New(rand.NewPCG(task, 1))
		for range records {
			k := uint64(r.IntN(1e10))
			want, sum = append(want, k), sum+k
		}
	}
	slices.Sort(want)
	var total string
	var all grid.TaskOutput
	if err := a.node.Tasks(ctx, id, false, func(e grid.TaskEnd) error {
		switch e.Stage {
		case 3:
			total = string(e.Stdout.Data)
		case 4:
			all = e.Stdout
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if total != fmt.Sprintln(len(want), sum) {
		t.Errorf("validated %q, want %d records with sum %d", total, len(want), sum)
	}
	f, err := a.Files().Open(ctx, all.CID.Cid)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for i, k := range want {
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), fmt.Sprintf("%010d\t", k)) {
			t.Fatalf("record %d of all is %q, want %d", i, lines.Text(), k)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	others := 0
	for _, ran := range s.ran[1:] {
		others += ran["generate"] + ran["sort"] + ran["validate"]
	}
	if others == 0 {
		t.Errorf("the others ran nothing: %v", s.ran)
	}
	t.Logf("tasks by node: %v", s.ran)
}
