//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wasmgrid/wasmgrid/e2e/chaos"
	"github.com/wasmgrid/wasmgrid/grid"
)

// begin has a fault begin; what it returns ends it. It is nil when the machine has no such faults, which is told at the start.
func (s *storm) begin(f chaos.Fault) (over func()) {
	each := func(do func(i int)) func() {
		return func() {
			for _, i := range f.Nodes {
				do(i)
			}
		}
	}
	switch f.Kind {
	case chaos.Kill, chaos.All:
		for _, i := range f.Nodes {
			s.away[i].Store(true)
		}
		s.kill(f.Nodes...)
		return each(s.restart)
	case chaos.End:
		each(func(i int) {
			s.away[i].Store(true)
			s.node(i).end()
		})()
		return each(s.restart)
	case chaos.Pause:
		each(func(i int) { s.signal(i, syscall.SIGSTOP) })()
		return each(func(i int) { s.signal(i, syscall.SIGCONT) })
	case chaos.Upgrade:
		s.w.program, s.other = s.other, s.w.program
		each(func(i int) {
			s.away[i].Store(true)
			s.node(i).end()
			s.restart(i)
			s.caughtUp()
		})()
		return func() {}
	case chaos.Rot:
		i := f.Nodes[0]
		s.away[i].Store(true)
		s.kill(i)
		return func() {
			n := s.rot(i)
			s.restart(i)
			s.repaired(i, n)
		}
	case chaos.Cut, chaos.Deaf, chaos.Slow:
		if s.net == nil {
			return nil
		}
		each(func(i int) { s.rules(i, s.filter(f)) })()
		return each(func(i int) { s.rules(i, "delete table ip chaos") })
	case chaos.Full:
		if !s.small {
			return nil
		}
		each(s.fill)()
		return each(s.room)
	case chaos.Clock:
		set := func(by int) func(i int) { return func(i int) { s.clock(i, time.Duration(by)*time.Second) } }
		each(set(f.Amount))()
		return each(set(0))
	}
	s.t.Errorf("%q is a fault that nobody knows how to do", f.Kind)
	return nil
}

// restart starts a node that has ended, once no command has its home.
func (s *storm) restart(i int) {
	s.busy[i].Lock()
	defer s.busy[i].Unlock()
	s.start(i)
	s.away[i].Store(false)
}

// clock has a node's clock be ahead of ours, and sees whether it is.
func (s *storm) clock(i int, ahead time.Duration) {
	n := s.node(i)
	if err := setClock(n.cmd.Process.Pid, ahead); err != nil {
		s.t.Logf("the clock of node %d is not set: %v", i, err)
		return
	}
	Eventually(s.t, fmt.Sprintf("node %d has the time that it was given", i), func(ctx context.Context) error {
		shows, err := n.gauge(ctx, "grid_time_seconds")
		if now := time.Now().Add(ahead); err == nil && now.Sub(time.Unix(int64(shows), 0)).Abs() > 10*time.Second {
			err = fmt.Errorf("it shows %v, want %v", time.Unix(int64(shows), 0), now)
		}
		return err
	})
}

func (s *storm) signal(i int, what syscall.Signal) {
	if err := s.node(i).cmd.Process.Signal(what); err != nil {
		s.t.Errorf("%v for node %d: %v", what, i, err)
	}
}

// filter is the rules of nftables that make a fault of the network, for one of its nodes.
func (s *storm) filter(f chaos.Fault) string {
	in, out := "", ""
	if f.Kind == chaos.Slow {
		in = fmt.Sprintf("numgen random mod 100 < %d drop", f.Amount)
		out = in + "; limit rate over 300 kbytes/second burst 100 kbytes drop"
	} else {
		var others []string
		for i := range s.size {
			if !slices.Contains(f.Nodes, i) {
				others = append(others, addressOf(i))
			}
		}
		far := "{ " + strings.Join(others, ", ") + " }"
		in, out = "ip saddr "+far+" drop", "ip daddr "+far+" drop"
		if f.Kind == chaos.Deaf {
			out = "accept"
		}
	}
	return "add table ip chaos\nadd chain ip chaos in { type filter hook input priority 0; }\n" +
		"add chain ip chaos out { type filter hook output priority 0; }\n" +
		rule("in", in) + rule("out", out)
}

// rule is the text that adds rules to a chain.
func rule(chain, rules string) (text string) {
	for r := range strings.SplitSeq(rules, "; ") {
		text += "add rule ip chaos " + chain + " " + r + "\n"
	}
	return text
}

// rules tells the network of a node what to do.
func (s *storm) rules(i int, text string) {
	cmd := exec.Command("ip", "netns", "exec", s.w.within["n"+strconv.Itoa(i)], "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Errorf("nft for node %d: %v: %s\n%s", i, err, out, text)
	}
}

func (s *storm) filler(i int) string { return filepath.Join(s.node(i).Home, "filler") }

// fill takes what is left of the disk of a node, but for what the node writes meanwhile.
func (s *storm) fill(i int) {
	f, err := os.OpenFile(s.filler(i), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Errorf("fill the disk of node %d: %v", i, err)
		return
	}
	defer f.Close()
	zeros, size := make([]byte, 1<<20), 0
	for n := len(zeros); n > 0; {
		got, err := f.Write(zeros[:n])
		if size += got; err != nil {
			n /= 2 // no room for that
		}
	}
	s.t.Logf("the disk of node %d is filled with %d MiB", i, size>>20)
}

// room makes room on the disk of a node. One that had none even for its index has ended, and said so; it is started again, as by a supervisor.
func (s *storm) room(i int) {
	if err := os.Remove(s.filler(i)); err != nil {
		s.t.Errorf("make room on the disk of node %d: %v", i, err)
	}
	n := s.node(i)
	said := n.log.String()
	if at := strings.LastIndex(said, "grid: the store cannot go on: "); at >= 0 && strings.Contains(said[at:], "no space left on device") {
		<-n.done
		s.t.Logf("node %d had no room for its index, and is started again", i)
		s.away[i].Store(true)
		s.restart(i)
	}
}

// rot changes a byte of each block of a file that other nodes have, too, in the home of a node that has ended, and tells how many.
func (s *storm) rot(i int) (changed int) {
	t := s.t
	segments, err := filepath.Glob(filepath.Join(s.w.dir, "n"+strconv.Itoa(i), "store", "blocks", "*.seg"))
	if err != nil {
		t.Error(err)
	}
	for _, name := range segments {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			return
		}
		for root, content := range s.files() {
			link, err := grid.ParseLink(root)
			if err != nil {
				t.Error(err)
				continue
			}
			// A record is its block's key and the bytes (see package store/block). Small files are one block.
			record := append(link.Cid.Hash(), content...)
			if at := bytes.Index(data, record); at >= 0 {
				data[at+len(record)/2] ^= 1
				changed++
			}
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Error(err)
		}
	}
	return changed
}

// repaired waits until a node has healed what was changed.
func (s *storm) repaired(i, changed int) {
	began := time.Now()
	Eventually(s.t, fmt.Sprintf("node %d has healed %d blocks", i, changed), func(ctx context.Context) error {
		if r := s.node(i).Grid("store", "verify", "--repair"); r.Exit != 0 {
			return fmt.Errorf("exit code %d: %s%s", r.Exit, r.Stdout, r.Stderr)
		}
		return nil
	})
	s.t.Logf("%d blocks of node %d were changed, and healed in %v", changed, i, time.Since(began).Round(time.Millisecond))
}
