package peers

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/e2e/bench/work"
)

func TestNamed(t *testing.T) {
	list, err := Named("redis,dask")
	if err != nil || len(list) != 2 || list[0].Name != "redis" || list[1].Name != "dask" {
		t.Errorf("%v, %v", list, err)
	}
	for _, names := range []string{"", "nats", "dask,dask", "dask,", " dask"} {
		if list, err := Named(names); err == nil || !strings.Contains(err.Error(), "which are dask, parallel, redis") {
			t.Errorf("%q: %v, %v", names, list, err)
		}
	}
}

// TestMissing: what is not installed is told by its packages.
func TestMissing(t *testing.T) {
	for _, p := range []*Peer{
		{Name: "x", Packages: []string{"python3-x", "y"}, module: "no_such_module_at_all"},
		{Name: "x", Packages: []string{"python3-x", "y"}, module: "json", commands: []string{"no-such-command-at-all"}},
	} {
		if f, err := p.Find(t.Context()); err == nil || !strings.Contains(err.Error(), "no") || !strings.Contains(err.Error(), "apt-get install python3-x y") {
			t.Errorf("%v, %v", f, err)
		}
	}
}

func TestListen(t *testing.T) {
	for said, want := range map[string]answer{
		"seconds 1.5\n":                      {seconds: 1.5},
		"seconds 2e-05":                      {seconds: 2e-5},
		"pid 12\npid 13\nready 1\npid 14\nx": {pids: []int{12, 13}},
		"":                                   {},
	} {
		if got, err := listen(strings.NewReader(said)); err != nil || got.seconds != want.seconds || !slices.Equal(got.pids, want.pids) {
			t.Errorf("%q: %+v, %v", said, got, err)
		}
	}
	for _, said := range []string{
		"seconds\n", "seconds 0\n", "seconds -1\n", "seconds inf\n", "seconds nan\n", "pid 0\n", "pid -1\n", "pid x\n", "hello\n", "\n", strings.Repeat("pid 1\n", maxPIDs+1),
		"seconds 1" + strings.Repeat("0", maxSaid) + "\n",
	} {
		if got, err := listen(strings.NewReader(said)); err == nil {
			t.Errorf("%.20q was taken for %+v", said, got)
		}
	}
}

func FuzzListen(f *testing.F) {
	f.Add("seconds 1.5\n")
	f.Add("pid 12\npid 13\nready 1\n")
	f.Fuzz(func(t *testing.T, said string) {
		a, err := listen(strings.NewReader(said))
		if err == nil && (a.seconds < 0 || len(a.pids) > maxPIDs || slices.ContainsFunc(a.pids, func(pid int) bool { return pid < 1 })) {
			t.Errorf("%q was taken for %+v", said, a)
		}
	})
}

// TestDrivers has each peer that is installed do a little of all work, and looks at the answers, and that nothing of it is left.
func TestDrivers(t *testing.T) {
	text := t.TempDir()
	if err := work.Text(text, 5, 50_000); err != nil {
		t.Fatal(err)
	}
	counts, err := work.Count(text)
	if err != nil {
		t.Fatal(err)
	}
	want := work.Table(counts)
	for _, p := range All {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && p.Name == "dask" {
				t.Skip("its processes take a second of processor time each to start, and there are twenty")
			}
			f, err := p.Find(t.Context())
			if err != nil {
				t.Skip(err)
			}
			if f.Version == "" {
				t.Error("it has no version")
			}
			out := filepath.Join(t.TempDir(), "counts.tsv")
			for _, j := range []job{
				{Do: "tasks", Workers: 2, Tasks: 20}, {Do: "latency", Workers: 1, Tasks: 2}, {Do: "sleep", Workers: 2, MS: []int{10, 200, 10}},
				{Do: "words", Workers: 2, Files: text, Group: 2, Out: out},
			} {
				if took, err := f.drive(t.Context(), t.TempDir(), j, nil); err != nil || took <= 0 || j.Do == "sleep" && took < 0.2 {
					t.Errorf("%s took %v s: %v", j.Do, took, err)
				}
			}
			if got, err := work.Tabled(out); err != nil || !slices.Equal(got, want) {
				t.Errorf("%d words, want %d, or other counts: %v", len(got), len(want), err)
			}
			if _, err := f.drive(t.Context(), t.TempDir(), job{Do: "words", Workers: 1, Files: text, Group: 2, Out: "/nowhere/counts.tsv"}, nil); err == nil ||
				!strings.Contains(err.Error(), "/nowhere/counts.tsv") {
				t.Errorf("a file that cannot be written: %v", err)
			}
			if !f.idles {
				return
			}
			// Who gives up leaves nothing running.
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if _, err := f.drive(ctx, t.TempDir(), job{Do: "idle", Workers: 2}, func(pids []int) error {
				if len(pids) != 3 {
					t.Errorf("%d processes for two workers", len(pids))
				}
				cancel()
				for _, pid := range pids {
					for began := time.Now(); ; <-time.After(10 * time.Millisecond) {
						if _, err := work.Memory(pid); err != nil {
							break // there is no such process any more
						} else if time.Since(began) > gentle {
							return fmt.Errorf("process %d is still there", pid)
						}
					}
				}
				return nil
			}); err == nil || strings.Contains(err.Error(), "still there") {
				t.Errorf("what was given up ended with %v", err)
			}
		})
	}
}

// TestOrphan: a driver does not outlive who started it, whose end is that of its standard input, and nor does its server.
func TestOrphan(t *testing.T) {
	redis, err := Named("redis")
	if err != nil {
		t.Fatal(err)
	}
	f, err := redis[0].Find(t.Context())
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dir := t.TempDir()
	out, err := exec.CommandContext(ctx, f.python, "-B", "run_redis.py", `{"do":"sleep","workers":1,"ms":[3600000]}`, dir).CombinedOutput()
	if err == nil || ctx.Err() != nil || !strings.Contains(string(out), "interrupted") {
		t.Errorf("%v: %s", err, out)
	}
	if c, err := net.Dial("unix", filepath.Join(dir, "redis.sock")); err == nil {
		c.Close()
		t.Error("the server still listens")
	}
}
