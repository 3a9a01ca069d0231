package daemon

import (
	"context"
	"io"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

// talker writes 2 KiB of what is random for each task, too much for a receipt.
func talker() []byte {
	write := wasmbytes.Code(wasmbytes.Const(1), wasmbytes.Const(0), wasmbytes.Const(1), wasmbytes.Const(8), []byte{0x10, 1, 0x1a})
	return wasmbytes.Module{
		Imports:  []wasmbytes.Import{wasmbytes.Preview1("random_get", 2), wasmbytes.Preview1("fd_write", 4)},
		MinPages: 1,
		Code: wasmbytes.Code(
			wasmbytes.Const(1024), wasmbytes.Const(1024), []byte{0x10, 0, 0x1a},
			wasmbytes.Const(0), wasmbytes.Const(1024), []byte{0x36, 2, 0},
			wasmbytes.Const(4), wasmbytes.Const(1024), []byte{0x36, 2, 0},
			write, write,
		),
	}.Bytes()
}

// TestCollectWhileWorking collects all the time on two nodes that run jobs together, and finds all that the
// jobs left afterwards.
func TestCollectWhileWorking(t *testing.T) {
	dir := shortDir(t)
	a := up(t, filepath.Join(dir, "a"))
	b := up(t, filepath.Join(dir, "b"), a.Status().Addrs...)
	ca, cb := a.Client(), b.Client()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, c := range []*api.Client{ca, cb} {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := c.Collect(ctx, false); err != nil && ctx.Err() == nil {
					t.Errorf("collect: %v", err)
					return
				}
			}
		})
	}
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	defer stop()

	const tasks = 60
	talks, noop := add(t, ca, talker()), add(t, ca, wasmbytes.Noop())
	request := func(seed string) grid.Request {
		return grid.Request{Spec: grid.Spec{Stages: []grid.Stage{
			{Module: talks, Tasks: tasks, Args: []string{seed}},
			{Module: noop, From: []grid.Source{{Stage: 0}}},
		}}}
	}
	var jobs []grid.JobID
	for _, seed := range []string{"1", "2", "3", "1", "2", "3"} { // the last ones are known, or made again
		id, err := ca.Submit(t.Context(), request(seed))
		if err != nil {
			t.Fatal(err)
		}
		if st := wait(t, ca, id); st.State != grid.Done {
			t.Fatalf("job %s: %s: %s", seed, st.State, st.Error)
		}
		jobs = append(jobs, id)
	}
	stop()
	if _, err := ca.Collect(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	outputs := map[cid.Cid]bool{}
	for _, id := range jobs {
		err := ca.Tasks(t.Context(), id, false, func(e grid.TaskEnd) error {
			if e.Stage > 0 {
				return nil
			}
			outputs[e.Stdout.CID.Cid] = true
			if ok, err := a.store.Blocks().Has(t.Context(), e.Stdout.CID.Cid); err != nil || !ok {
				t.Errorf("an output of job %s is gone: %v", id, err)
			}
			r, err := ca.Cat(t.Context(), e.Stdout.CID.Cid, "")
			if err != nil {
				return err
			}
			defer r.Close()
			data, err := io.ReadAll(r)
			if len(data) != 2048 {
				t.Errorf("an output has %d bytes", len(data))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(outputs) != 3*tasks {
		t.Errorf("%d different outputs, want %d", len(outputs), 3*tasks)
	}
	// b keeps copies of what jobs need and left, if it is of a's realm by now. Once they are forgotten, all of it can go.
	for _, id := range jobs {
		if _, err := ca.RemoveJob(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "b lets go of everything", func() bool {
		if _, err := cb.Collect(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		u, err := cb.StoreUse(t.Context())
		return err == nil && u.Blocks == 0
	})
}
