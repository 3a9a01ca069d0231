//go:build linux

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/e2e/chaos"
	"github.com/wasmgrid/wasmgrid/grid"
)

// What TestChaos does. docs/chaos.md tells more.
//
//	go test ./e2e -run TestChaos -seed 42 -minutes 10 -timeout 1h -v
var (
	chaosSeed    = flag.Uint64("seed", 0, "the faults of TestChaos and TestSoak, and how many nodes there are; 0 draws a seed")
	chaosMinutes = flag.Float64("minutes", 0.3, "how long TestChaos has faults fall")
	chaosFaults  = flag.String("faults", "", "the kinds of faults that fall, such as kill,cut; empty: all")
	chaosNodes   = flag.Int("nodes", 0, "how many nodes TestChaos has, 5 or more; 0 leaves it to the seed, and takes 5 for less than a minute")
)

// stormQuota is how many bytes of blocks a node holds: little, so that it comes to that early, and twice what the load has kept.
const stormQuota = 64 << 20

// storm is faults that fall on a crew under load.
type storm struct {
	size, spared int // the first nodes are spared
	kinds        []chaos.Kind
	length       time.Duration
	before       func() // all load and faults; may be nil
	after        func() // each round; may be nil

	*crew
	*load
	seed  uint64
	net   *internet // nil: faults of the network are left out
	small bool      // homes are small disks
	other string    // the command of another version
}

// TestChaos has faults of all kinds fall on a swarm under load: what was acknowledged is there, what was answered is right, and nothing is left over.
func TestChaos(t *testing.T) {
	t.Parallel()
	long(t)
	s := &storm{seed: *chaosSeed, kinds: chaos.Kinds(), length: time.Duration(*chaosMinutes * float64(time.Minute))}
	if *chaosFaults != "" {
		s.kinds = nil
		for k := range strings.SplitSeq(*chaosFaults, ",") {
			if !slices.Contains(chaos.Kinds(), chaos.Kind(k)) {
				t.Fatalf("-faults: %q is none of %v", k, chaos.Kinds())
			}
			s.kinds = append(s.kinds, chaos.Kind(k))
		}
	}
	s.run(t)
}

// run is the test. What it is given decides all that happens, as far as this test does it.
func (s *storm) run(t *testing.T) {
	s.seed = cmp.Or(*chaosSeed, rand.Uint64N(1e6)+1)
	if s.length < time.Minute { // among other tests
		s.size = 5
	}
	s.size = cmp.Or(*chaosNodes, s.size, chaos.Size(s.seed))
	again := fmt.Sprintf("go test ./e2e -run '%s$' -seed %d", t.Name(), s.seed)
	flag.Visit(func(f *flag.Flag) {
		if slices.Contains([]string{"minutes", "faults", "nodes", "soak"}, f.Name) {
			again += fmt.Sprintf(" -%s %v", f.Name, f.Value)
		}
	})
	t.Logf("%d nodes, for %v: %s", s.size, s.length, again)
	nominal := time.Duration(0)
	for r := range s.rounds() {
		t.Logf("at %v: %v", nominal, r)
		if r.Faults[0].Kind == chaos.Upgrade && s.other == "" {
			s.other = nextBinary(t) // now, and not while faults fall
		}
		if nominal += r.Length(); nominal > s.length {
			break
		}
	}
	defer func() {
		if t.Failed() {
			t.Logf("the same faults fall again with:\n\t%s", again)
		}
	}()

	s.build(t)
	defer s.crew.tell()
	idle(t, s.nodes...)
	var fresh []footprint
	for _, n := range s.nodes {
		f, err := n.footprint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		fresh = append(fresh, f)
	}
	if s.before != nil {
		s.before()
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s.load = newLoad(ctx, s.crew, s.seed)
	defer s.wg.Wait() // before that, as it uses the nodes
	defer stop()

	began, number := time.Now(), 0
	var check func()
	var opened time.Time
	for r := range s.rounds() {
		if time.Since(began) > s.length || t.Failed() {
			break
		}
		if check == nil {
			opened, check = time.Now(), s.history(s.seed, fmt.Sprintf("history/%d/", number))
		}
		number++
		t.Logf("%v: round %d: %v", time.Since(began).Round(time.Second), number, r)
		s.fall(r)
		t.Logf("all nodes answered %v after its end", s.well().Round(time.Millisecond))
		if s.after != nil {
			s.after()
		}
		pause(ctx, r.Calm)
		if time.Since(opened) > 20*time.Second {
			check()
			check = nil
		}
	}
	if check != nil {
		check()
	}
	stop()
	s.wg.Wait()
	t.Logf("in %v and %d rounds: %v", time.Since(began).Round(time.Second), number, s.load)
	if d := &s.load.done; s.length >= time.Minute && (d.jobs.Load() == 0 || d.calls.Load() == 0 || d.files.Load() == 0 || d.reads.Load() == 0) {
		t.Error("of something nothing was done, so that nothing is proved of it")
	}
	if t.Failed() {
		return
	}
	realmOf(t, 5, s.nodes...)
	s.caughtUp()
	s.load.check()
	rest(t, fresh, s.nodes...)
	if left := s.w.processes(); len(left) != s.size {
		t.Errorf("%d nodes are processes %q", s.size, left)
	}
	var ends sync.WaitGroup
	for _, n := range s.nodes {
		ends.Go(func() { n.end() })
	}
	ends.Wait()
	if left := s.w.processes(); len(left) > 0 {
		t.Errorf("all nodes have ended, and these are left: %q", left)
	}
}

// rounds are the faults that fall.
func (s *storm) rounds() func(func(chaos.Round) bool) {
	return chaos.Rounds(s.seed, s.size, s.spared, s.kinds...)
}

// build starts the nodes, each in a network of its own and with a small disk for a home where the machine has that and there are faults of them.
func (s *storm) build(t *testing.T) {
	t.Helper()
	w := NewWorld(t)
	flags := []string{"--workers", "1", "--keep-jobs", "100", "--store-quota", strconv.Itoa(stormQuota)}
	names := make([]string, s.size)
	for i := range names {
		names[i] = "n" + strconv.Itoa(i)
	}
	any := func(kinds ...chaos.Kind) bool {
		return slices.ContainsFunc(kinds, func(k chaos.Kind) bool { return slices.Contains(s.kinds, k) })
	}
	if any(chaos.Cut, chaos.Deaf, chaos.Slow) {
		var err error
		if s.net, err = newInternet(t, "chaos"); err != nil {
			t.Logf("faults of the network are left out: %v", err)
		} else {
			w.within = make(map[string]string)
			for i, name := range names {
				w.within[name] = s.net.host(name, addressOf(i))
			}
		}
	}
	if any(chaos.Full) {
		s.small = true
		for _, name := range names {
			if err := w.disk(filepath.Join(w.dir, name), "192m"); err != nil {
				t.Logf("full disks are left out: %v", err)
				s.small = false
				break
			}
		}
	}
	s.crew = crewIn(t, w, s.size, flags...)
}

// addressOf is the one of a node in its network.
func addressOf(i int) string { return "10.83.0." + strconv.Itoa(i+1) }

// disk mounts a small disk for a folder that is made, until the test ends.
func (w *World) disk(dir, size string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "mode=0700,size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mount: %w: %s", err, out)
	}
	w.t.Cleanup(func() { // behind that of the node in it, which ends it
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			w.t.Errorf("umount: %v: %s", err, out)
		}
	})
	return nil
}

// processes are the command lines of those that run in this world.
func (w *World) processes() (lines []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if line, err := os.ReadFile(f); err == nil && bytes.Contains(line, []byte(w.dir+"/")) {
			lines = append(lines, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return lines
}

// fall has the faults of a round fall, and returns when they are over.
func (s *storm) fall(r chaos.Round) {
	s.t.Helper()
	var all sync.WaitGroup
	for _, f := range r.Faults {
		all.Go(func() {
			pause(s.ctx, f.After)
			if over := s.begin(f); over != nil {
				pause(s.ctx, f.For)
				over()
			}
		})
	}
	all.Wait()
	if s.t.Failed() { // somebody else's goroutine cannot end the test
		s.t.FailNow()
	}
}

// well waits until all nodes are up and have an answer of the ledger's, and tells how long that took.
func (s *storm) well() time.Duration {
	t := s.t
	t.Helper()
	began := time.Now()
	for _, n := range s.nodes {
		Eventually(t, n.Home+" answers, as all faults are over", func(ctx context.Context) error {
			select {
			case <-n.done:
				t.Fatalf("%s has ended by itself: %v\n%s", n.Home, n.cmd.ProcessState, n.log)
			default:
			}
			one, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			if _, err := n.KVGet(one, "nothing", false); grid.CodeOf(err) != grid.NotFound {
				return fmt.Errorf("%w", err)
			}
			return nil
		})
	}
	took := time.Since(began)
	if took > slow {
		for _, n := range s.nodes {
			t.Logf("that took %v, in which %s said:\n%s", took.Round(time.Millisecond), n.Home, n.log.since(began.Add(-slow)))
		}
	}
	return took
}

// slow is how long it takes to be well until one wants to know why.
const slow = 30 * time.Second

// since is the end of a log that was written from a moment on.
func (b *syncBuffer) since(moment time.Time) string {
	log, from := b.String(), "time="+moment.UTC().Format("2006-01-02T15:04:05")
	for at := 0; at < len(log); {
		line, _, _ := strings.Cut(log[at:], "\n")
		if strings.HasPrefix(line, "time=") && line >= from {
			return log[at:]
		}
		at += len(line) + 1
	}
	return ""
}
