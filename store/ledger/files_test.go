package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
)

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	d, err := openFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openFiles(dir); !errors.Is(err, grid.Busy) {
		t.Errorf("opened twice: %v", err)
	}
	if err := d.Log.GetLog(1, new(raft.Log)); err != raft.ErrLogNotFound {
		t.Errorf("an entry that is not there: %v", err)
	}
	at := time.Unix(1, 2)
	for i := uint64(1); i <= 10; i += 2 {
		err := d.Log.StoreLogs([]*raft.Log{
			{Index: i, Term: 3, Type: raft.LogConfiguration, Data: []byte(fmt.Sprint(i)), Extensions: []byte("ext"), AppendedAt: at},
			{Index: i + 1, Term: 4},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if holds, err := raft.HasExistingState(d.Log, d.Stable, d.Snapshots); !holds || err != nil {
		t.Errorf("it holds something: %v, %v", holds, err)
	}
	if err := errors.Join(d.Stable.SetUint64([]byte("x"), 7), d.Log.DeleteRange(1, 2), d.Log.DeleteRange(9, 10), d.Close()); err != nil {
		t.Fatal(err)
	}
	if d, err = openFiles(dir); err != nil {
		t.Fatal(err)
	}
	first, _ := d.Log.FirstIndex()
	last, _ := d.Log.LastIndex()
	var e raft.Log
	err = d.Log.GetLog(3, &e)
	if first != 3 || last != 8 || err != nil || e.Term != 3 || e.Type != raft.LogConfiguration || string(e.Data) != "3" || string(e.Extensions) != "ext" || !e.AppendedAt.Equal(at) {
		t.Errorf("%d to %d; %+v, %v", first, last, e, err)
	}
	if n, err := d.Stable.GetUint64([]byte("x")); n != 7 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := d.Wipe(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was wiped is there: %v", err)
	}
}

// TestOnFiles restarts a replica on its folder, behind a snapshot, too.
func TestOnFiles(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, memnet.Config{}, func(c *Config) {
		patient(c)
		c.OpenDisk, c.Dir = nil, filepath.Join(dir, c.Network.Self().String())
	})
	n := w.cluster(1, 0)[0]
	wipe := n.wipe()
	wantCode(t, wipe, grid.Conflict)
	for round := range 3 {
		for i := range 20 {
			_, err := n.Commit(w.ctx, put(fmt.Sprintf("%d/%02d", round, i), "v"))
			w.must(err)
		}
		if round == 1 {
			w.must(n.replica().raft.Snapshot().Error())
		}
		w.crash(n)
		n = w.start(0)
		if holds, err := n.holds(); err != nil || !holds {
			t.Fatalf("it holds a replica: %v, %v", holds, err)
		}
		w.must(n.replicate(w.ctx, testRealm))
		p, err := n.Range(w.ctx, grid.Query{})
		w.must(err)
		if len(p.Entries) != 20*(round+1) {
			t.Errorf("%d entries after restart %d", len(p.Entries), round)
		}
	}
	w.crash(n)
	// A snapshot that is damaged is not believed.
	snaps, err := filepath.Glob(filepath.Join(dir, "*", "snapshots", "*", "state.bin"))
	if err != nil || len(snaps) == 0 {
		t.Fatal(snaps, err)
	}
	for _, file := range snaps {
		data, err := os.ReadFile(file)
		w.must(err)
		data[len(data)/2] ^= 1
		w.must(os.WriteFile(file, data, 0o600))
	}
	n = w.start(0)
	err = n.replicate(w.ctx, testRealm)
	wantCode(t, err, grid.Corrupt)
	if grid.AdviceOf(err) == "" {
		t.Errorf("the error does not help: %v", err)
	}
	w.must(n.wipe())
	if holds, err := n.holds(); err != nil || holds {
		t.Errorf("what was wiped is held: %v, %v", holds, err)
	}
	w.must(n.found(w.ctx, testRealm))
}
