package cli

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestUsage(t *testing.T) {
	tests := []struct {
		args string
		exit int
		out  string
		err  string
	}{
		{"", 0, "grid up -d --join", ""},
		{"help", 0, "Jobs", ""},
		{"help exit-codes", 0, "120  the guest trapped", ""},
		{"version", 0, "grid " + grid.Version, ""},
		{"rnu", exitUsage, "", "or `grid run`?"},
		{"frobnicate", exitUsage, "", "no command"},
		{"runn", exitUsage, "", "did you mean `grid run`?"},
		{"nodes", exitUsage, "", "did you mean `grid node ls`?"},
		{"stop", exitUsage, "", "did you mean `grid down` or `grid cancel`?"},
		{"help frobnicate", exitUsage, "", "no command"},
		{"help run", 0, "grid run MODULE", ""},
		{"--version", 0, "grid " + grid.Version, ""},
		{"run x --count -1", exitUsage, "", "want a whole number"},
		{"run x --timeout soon", exitUsage, "", "want a time such as 90s"},
		{"ps --al", exitUsage, "", "did you mean --all?"},
		{"job", exitUsage, "", "JOB is missing"},
		{"down now", exitUsage, "", "one argument too many"},
		{"job jab", 67, "", "4 or more"},
		{"job jzzzz", 66, "", "no job begins"},
		{"job jabc2", 67, "", "2 jobs begin"},
		{"up -d --join foo", 67, "", "neither a token nor an address"},
		{"up -d --join 192.0.2.1:4747", 67, "", "/ip4/192.0.2.1/tcp/4747/p2p/"},
		{"up -d --join grid-join-1-abc", 67, "", "the token is cut"},
		{"up -d --join grid-api-1-abc", exitUsage, "", "grid swarm invite"},
		{"up -d --api 4748", exitUsage, "", "no address with a port"},
		{"swarm invite --uses 0", exitUsage, "", "nobody could join"},
		{"member revoke nonsense", 67, "", "`grid member ls` lists them"},
		{"cat nonsense", 66, "", "not a CID"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			f := newFake(t)
			f.jobs = append(f.jobs,
				grid.JobStatus{ID: "jabc2efghijklmnopqrstuvwxy", State: grid.Running},
				grid.JobStatus{ID: "jabc2fghijklmnopqrstuvwxyz", State: grid.Running})
			r := f.grid(strings.Fields(tt.args)...)
			if r.exit != tt.exit {
				t.Errorf("exit %d, want %d", r.exit, tt.exit)
			}
			wantIn(t, "stdout", r.out, tt.out)
			wantIn(t, "stderr", r.err, tt.err)
			if n := strings.Count(r.err, "grid: "); n > 1 {
				t.Errorf("the error was told %d times", n)
			}
		})
	}
}

// TestReport: an error has the words of others in it, which are not to do anything to the terminal.
func TestReport(t *testing.T) {
	var out bytes.Buffer
	e := &env{ui: newUI(&bytes.Buffer{}, &out)}
	e.report(grid.Errorf(grid.Invalid, "missing property 'a\x1b[2J'\n\tat line 1\r").Hint("say \x1b]0;x\a"))
	want := "grid: missing property 'a\\x1b[2J'\n\tat line 1\\r\n  hint: say \\x1b]0;x\\a\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestPs(t *testing.T) {
	f := newFake(t)
	f.jobs[0].Name = "evil\x1b[2J"
	r := f.grid("ps")
	wantIn(t, "stderr", r.err, "no job is running")
	r = f.grid("ps", "-a")
	wantIn(t, "stdout", r.out, string(testJob), "done", "1/1", `evil\x1b[2J`)
	if r := f.grid("ps", "--json"); r.out != "[]\n" {
		t.Errorf("%q", r.out)
	}
}

// TestPsOwners: whose a job is, and why it waits, is told once there is more than one owner.
func TestPsOwners(t *testing.T) {
	f := newFake(t)
	f.jobs[0].Owner = "12D3KooWfake"
	if r := f.grid("ps", "-a"); strings.Contains(r.out, "OWNER") {
		t.Errorf("one owner:\n%s", r.out)
	}
	f.jobs = append(f.jobs, grid.JobStatus{
		ID: "jbbbbbbbbbbbbbbbbbbbbbbbbb", State: grid.Waiting, Owner: "12D3KooWelsewhere\x1b", Submitted: time.Now(), Note: "its owner does not \x1banswer",
	})
	r := f.grid("ps")
	wantIn(t, "stdout", r.out, "OWNER", "waiting", `…where\x1b`)
	wantIn(t, "stderr", r.err, `job jbbbbbbbbbbbbbbbbbbbbbbbbb: its owner does not \x1banswer`)
	r = f.grid("job", "jbbb")
	wantIn(t, "stdout", r.out, "note", "does not")
}

func TestWaitTellsOfOwners(t *testing.T) {
	f := newFake(t)
	f.seen = []grid.JobStatus{
		{ID: testJob, State: grid.Running, Epoch: 1, Owner: "first"},
		{ID: testJob, State: grid.Waiting, Epoch: 1, Owner: "first", Note: "its owner first does not answer"},
		{ID: testJob, State: grid.Waiting, Epoch: 1, Owner: "first", Note: "its owner first does not answer"},
		{ID: testJob, State: grid.Running, Epoch: 2, Owner: "second"},
		{ID: testJob, State: grid.Running, Epoch: 2, Owner: "second"},
	}
	f.jobs[0].Epoch = 2
	r := f.grid("wait", "jabc")
	if r.exit != 0 || strings.Count(r.err, "does not answer") != 1 || strings.Count(r.err, "node second has taken job "+string(testJob)+" over") != 1 {
		t.Errorf("exit %d:\n%s", r.exit, r.err)
	}
	if r := f.grid("wait", "-q", "jabc"); r.err != "" {
		t.Errorf("quiet: %q", r.err)
	}
}

func TestJobRemove(t *testing.T) {
	f := newFake(t)
	f.jobs = append(f.jobs, grid.JobStatus{ID: "jbbbbbbbbbbbbbbbbbbbbbbbbb", State: grid.Running})
	r := f.grid("job", "rm", "jabc", "jbbb", "jcccc")
	if r.exit == 0 || len(f.removed) != 1 || f.removed[0] != testJob {
		t.Errorf("exit %d, removed %v", r.exit, f.removed)
	}
	wantIn(t, "stderr", r.err, "job "+string(testJob)+" is forgotten", "remove jbbb: it has not ended", "remove jcccc: no job begins")
	if r := f.grid("job", "rm"); r.exit != exitUsage {
		t.Errorf("without a job: exit %d", r.exit)
	}
}

func TestRetentionFlags(t *testing.T) {
	for _, tt := range []struct {
		f    upFlags
		want grid.Retention
	}{
		{upFlags{keepJobs: 5, keepJobsFor: time.Hour}, grid.Retention{Jobs: 5, Age: time.Hour}},
		{upFlags{}, grid.Retention{Jobs: -1, Age: -1}},
	} {
		if got := tt.f.retention(); got != tt.want {
			t.Errorf("%+v gives %+v", tt.f, got)
		}
	}
	f := newFake(t)
	if r := f.grid("up", "--keep-jobs", "-1"); r.exit != exitUsage || !strings.Contains(r.err, "0 is no limit") {
		t.Errorf("exit %d: %s", r.exit, r.err)
	}
}

func TestCompleteJobs(t *testing.T) {
	f := newFake(t)
	wantIn(t, "stdout", f.grid("__complete", "logs", "jab").out, string(testJob))
	file := f.blob("hello")
	f.pin(grid.Pin{Root: file, Name: "a\tb"})
	f.refs = map[string]grid.Link{"data/x": file}
	for args, want := range map[string]string{
		"cat data/": "data/x", "ref rm d": "data/x", "run d": "data/x", "stat baf": file.String() + "\ta\\tb", "rm baf": file.String(),
		"replay jab": string(testJob), "token rm none": ":4", "secret rm none": ":4", "member show none": ":4",
	} {
		r := f.grid(append([]string{"__complete"}, strings.Fields(args)...)...)
		if wantIn(t, args, r.out, want); r.exit != 0 {
			t.Errorf("%s: exit %d, %s", args, r.exit, r.err)
		}
	}
	// Without a node nothing is offered, and nothing is said.
	if r := embedded(t, t.TempDir(), "", "__complete", "logs", "j"); r.exit != 0 || r.out != ":4\n" || strings.Contains(r.err, "no node") {
		t.Errorf("without a node: exit %d, %q, %q", r.exit, r.out, r.err)
	}
}

func TestExitCodesAreDistinct(t *testing.T) {
	seen := map[int]bool{}
	for _, x := range exits {
		if seen[x.exit] {
			t.Errorf("exit code %d twice", x.exit)
		}
		seen[x.exit] = true
	}
}

func testEnv(home string) (*env, *bytes.Buffer) {
	var errs bytes.Buffer
	return &env{ui: newUI(&bytes.Buffer{}, &errs), home: home, lookupEnv: os.LookupEnv, connect: openSession, pause: pauseFor}, &errs
}

// TestStaleSocket: a socket that a killed node left behind is as good as none.
func TestStaleSocket(t *testing.T) {
	home := t.TempDir()
	socket := daemon.Socket(home)
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	defer os.Remove(socket)
	for _, verb := range []string{"peers", "down"} {
		e, errs := testEnv(home)
		if exit := e.main(t.Context(), []string{"--home", home, verb}); exit != exitNoNode {
			t.Errorf("%s: exit %d", verb, exit)
		}
		wantIn(t, "stderr", errs.String(), "no node is running in "+home, "grid up")
	}
}

func TestHomeDir(t *testing.T) {
	vars := map[string]string{"HOME": "/u"}
	e := &env{lookupEnv: func(n string) (string, bool) { v, ok := vars[n]; return v, ok }}
	for _, step := range []struct{ set, value, want string }{
		{"HOME", "/u", "/u/.local/share/grid"},
		{"XDG_DATA_HOME", "relative", "/u/.local/share/grid"},
		{"XDG_DATA_HOME", "/x", "/x/grid"},
		{"GRID_HOME", "/g", "/g"},
	} {
		vars[step.set] = step.value
		if got, err := e.homeDir(); err != nil || got != step.want {
			t.Errorf("%s=%s: %s, %v; want %s", step.set, step.value, got, err, step.want)
		}
	}
	if e.home = "/h"; true {
		if got, _ := e.homeDir(); got != "/h" {
			t.Error(got)
		}
	}
}

func TestRender(t *testing.T) {
	tests := []struct {
		p       progress
		elapsed time.Duration
		width   int
		want    string
	}{
		{progress{what: "map", unit: "tasks", done: 45, total: 90}, 9 * time.Second, 62, "map [==============>              ] 45/90 tasks  5/s  9s left"},
		{progress{what: "map", unit: "tasks", done: 90, total: 90, free: 80, failed: 1}, 2 * time.Second, 48, "map [==============] 90/90 tasks, 1 failed  5/s"},
		{progress{what: "map", unit: "tasks", done: 5, total: 10}, 0, 30, "map [======>     ] 5/10 tasks"},
		{progress{what: "map", unit: "tasks", done: 5, total: 10}, 0, 10, "map 5/10 "},
		{progress{what: "adding", done: 3 << 20}, time.Second, 60, "adding 3.0 MiB  3.0 MiB/s"},
		{progress{what: "adding", done: 1 << 20, total: 3 << 20}, time.Second, 40, "adding 1.0 MiB/3.0 MiB  1.0 MiB/s  2s l"},
		{progress{}, 0, 0, ""},
	}
	for _, tt := range tests {
		if got := tt.p.render(tt.elapsed, tt.width); got != tt.want || len(got) >= max(tt.width, 1) {
			t.Errorf("%+v in %d columns:\n got %q\nwant %q", tt.p, tt.width, got, tt.want)
		}
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]uint64{"0": 0, "512": 512, "1k": 1024, "64 MiB": 64 << 20, "2GB": 2e9, "3ti": 3 << 40} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "k", "-1", "1x", "1kk", "99999999999T", "1.5G"} {
		if n, err := parseSize(s); err == nil {
			t.Errorf("parseSize(%q) = %d", s, n)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 20: "1.0 MiB", 1<<20 - 1: "1.0 MiB"} {
		if got := formatSize(n); got != want {
			t.Errorf("formatSize(%d) = %s", n, got)
		}
	}
	for d, want := range map[time.Duration]string{1500 * time.Millisecond: "1.5s", 2 * time.Minute: "2m", time.Hour: "1h0m", 90 * time.Second: "1m30s"} {
		if got := formatTime(d); got != want {
			t.Errorf("formatTime(%d) = %s, want %s", d, got, want)
		}
	}
}
