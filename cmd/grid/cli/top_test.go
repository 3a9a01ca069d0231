package cli

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/wasmgrid/wasmgrid/grid"
)

var paint = regexp.MustCompile("\x1b\\[[0-9]*m")

// sample is a picture of so many nodes and jobs, after two rounds a second apart.
func sample(nodes, jobs int) *topData {
	d := newTopData()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for round := range 2 {
		var list []grid.Pulse
		for i := range nodes {
			list = append(list, grid.Pulse{
				Node: fmt.Sprintf("12D3KooWnode%06d", i), At: at.Add(time.Duration(round) * time.Second), Started: at.Add(-time.Hour), State: grid.PulseUp, Leader: i == 0,
				Load: grid.Load{Queued: uint64(i), Running: i % 3, Slots: 2 + i%3}, Ran: uint64(round * i), Failed: uint64(round), Busy: int64(round) * 1e9,
				P50: time.Millisecond, P99: time.Second, BytesIn: uint64(round) << 20, Memory: uint64(i) << 20, Disk: 1 << 30,
			})
		}
		d.heard(list)
		var running []grid.JobStatus
		for i := range jobs {
			running = append(running, grid.JobStatus{ID: grid.JobID(fmt.Sprintf("j%025d", i)), Name: "a\x1b[2J", State: grid.Running, Owner: "12D3KooWnode000000", Submitted: at,
				Stages: []grid.StageStatus{{Name: "main", Tasks: 100, Done: uint32(10 * round)}}})
		}
		d.listed(running, at.Add(time.Duration(round)*time.Second))
	}
	return d
}

// TestTopRates: what was counted makes rates, but not over a restart of the node.
func TestTopRates(t *testing.T) {
	d := sample(4, 2)
	p := d.picture(time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC))
	n := p.Nodes[3]
	if n.Tasks != 3 || n.Fails != 1 || n.In != 1<<20 || n.Working != 0.5 {
		t.Errorf("%+v", n)
	}
	j := p.Jobs[0]
	if j.Rate != 10 || j.Left != 9*time.Second || j.Done != 10 || j.Total != 100 {
		t.Errorf("%+v", j)
	}
	if tot := p.Totals; tot.Up != 4 || tot.Tasks != 6 || tot.Jobs != 2 || tot.Queued != 6 {
		t.Errorf("%+v", tot)
	}
	next := n.Pulse
	next.Started, next.At, next.Ran = next.Started.Add(time.Minute), next.At.Add(time.Second), 1
	silent := p.Nodes[2].Pulse
	silent.State, silent.Error = grid.PulseSilent, "gone"
	d.heard([]grid.Pulse{next, silent})
	p = d.picture(time.Now())
	if p.Nodes[3].Tasks != 0 || p.Nodes[2].Tasks != 0 || p.Totals.Silent != 1 {
		t.Errorf("%+v", p.Totals)
	}
	d.listed([]grid.JobStatus{{ID: "jold", State: grid.Done, Ended: time.Now().Add(-time.Hour)}, {ID: "jnew", State: grid.Done, Ended: time.Now()}}, time.Now())
	if p = d.picture(time.Now()); len(p.Jobs) != 1 || p.Jobs[0].ID != "jnew" {
		t.Errorf("%+v", p.Jobs)
	}
}

// TestTopDraw: a picture is never larger than its window, and shows what it can.
func TestTopDraw(t *testing.T) {
	for _, many := range [][2]int{{0, 0}, {1, 0}, {3, 1}, {3, 40}, {1000, 500}} {
		p := sample(many[0], many[1]).picture(time.Now())
		for _, width := range []int{1, 20, 79, 80, 130, 300} {
			for _, height := range []int{1, 2, 5, 24, 60} {
				look := &topLook{key: 'l', colour: width%2 == 0, from: [2]int{1 << 20, 1 << 20}}
				lines := look.draw(p, width, height)
				if len(lines) != height {
					t.Fatalf("%v: %d lines in a window of %d", many, len(lines), height)
				}
				for _, line := range lines {
					plain := paint.ReplaceAllString(line, "")
					if utf8.RuneCountInString(plain) > width || strings.ContainsAny(plain, "\x1b\n\r") {
						t.Fatalf("%v in %d×%d: %q", many, width, height, line)
					}
				}
			}
		}
	}
	p := sample(5, 2).picture(time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC))
	lines := (&topLook{key: 'l'}).draw(p, 120, 20)
	all := strings.Join(lines, "\n")
	wantIn(t, "the picture", all, "5 nodes up", "2 jobs", "…000000 *", "QUEUE↓", "STEALS/S", "[=>", "10/100", "10", "9s", `a\x1b[2J`, "q quit")
	if first := slices.IndexFunc(lines, func(s string) bool { return strings.HasPrefix(s, "…") }); !strings.HasPrefix(lines[first], "…000004") {
		t.Errorf("not sorted by queue:\n%s", all)
	}
	if narrow := strings.Join((&topLook{key: 'n'}).draw(p, 60, 20), "\n"); !strings.Contains(narrow, "TASKS/S") || strings.Contains(narrow, "FAIL/S") {
		t.Errorf("narrow:\n%s", narrow)
	}
}

func TestTopKeys(t *testing.T) {
	l := &topLook{key: 'n'}
	for _, key := range splitKeys("tr\x1b[B\x1b[B\x1b[A\x1b[6~\x1bOB") {
		if !l.press(key, 10) {
			t.Fatalf("%q ends it", key)
		}
	}
	if l.key != 't' || !l.reverse || l.from[0] != 12 {
		t.Errorf("%+v", l)
	}
	l.press("\t", 10)
	l.press("\x1b[A", 10)
	if !l.jobs || l.from != [2]int{12, 0} {
		t.Errorf("%+v", l)
	}
	for _, key := range []string{"q", "\x03"} {
		if l.press(key, 1) {
			t.Errorf("%q does not end it", key)
		}
	}
}

func FuzzSplitKeys(f *testing.F) {
	f.Add("q\x1b[A\x1b[5~\x1b[")
	f.Fuzz(func(t *testing.T, text string) {
		if got := strings.Join(splitKeys(text), ""); got != text {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

func TestTopOnce(t *testing.T) {
	f := newFake(t)
	f.pulses = []grid.Pulse{{Node: "12D3KooWRdFFg3yTbTsDq5Z1yCvCWbqznEFro9jeVivo7rkayJ4D", State: grid.PulseUp, Load: grid.Load{Slots: 4}}}
	r := f.grid("top")
	if r.exit != 0 || strings.Contains(r.out, "\x1b") {
		t.Errorf("exit %d, %q, %s", r.exit, r.out, r.err)
	}
	wantIn(t, "the picture", r.out, "1 node up", "…kayJ4D", "0/4")
	f.pulses = append(f.pulses, grid.Pulse{Node: "12D3KooWnever", State: grid.PulseSilent})
	r = f.grid("top")
	if wantIn(t, "the picture", r.out, "1 silent"); strings.Contains(r.out, "0/0") {
		t.Errorf("a node that was never heard has slots:\n%s", r.out)
	}
	f.pulses = f.pulses[:1]
	r = f.grid("top", "--json")
	var p topPicture
	if err := json.Unmarshal([]byte(r.out), &p); err != nil || len(p.Nodes) != 1 || p.Totals.Slots != 4 {
		t.Errorf("%v, %s%s", err, r.out, r.err)
	}
	for _, args := range [][]string{{"--sort", "z"}, {"--every", "1ms"}} {
		if r := f.grid(append([]string{"top"}, args...)...); r.exit != exitUsage {
			t.Errorf("%q: exit %d, %s", args, r.exit, r.err)
		}
	}
}

func BenchmarkTopDraw(b *testing.B) {
	d := sample(1000, 100)
	look := &topLook{key: 't'}
	for b.Loop() {
		look.draw(d.picture(time.Time{}), 160, 50)
	}
}
