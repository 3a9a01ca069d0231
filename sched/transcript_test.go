package sched

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// TestTranscripts plays the scenarios of testdata. A line that begins in the first column is a
// comment (#), sets up the node (node slots=2 ...), moves the clock (at 300ms; or tick, which goes to
// when the next Tick is due and delivers it), or is an event. Below each event, indented, are its
// effects, and when the next Tick is due if that changed. Run with -update to rewrite what is
// indented, and read the difference before believing it.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got, err := play(string(want))
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("differs; run with -update and look at what changed. Got:\n%s", got)
			}
		})
	}
}

type player struct {
	core *Core
	now  time.Time
	next time.Time
	out  bytes.Buffer
}

var transcriptStart = time.Unix(1<<30, 0)

func play(script string) (string, error) {
	p := &player{now: transcriptStart}
	for i, line := range strings.Split(strings.TrimRight(script, "\n"), "\n") {
		if strings.HasPrefix(line, " ") {
			continue
		}
		fmt.Fprintln(&p.out, line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := p.line(strings.Fields(line)); err != nil {
			return "", fmt.Errorf("line %d: %q: %w", i+1, line, err)
		}
	}
	return p.out.String(), nil
}

func (p *player) line(words []string) error {
	a, err := parseArgs(words[1:])
	if err != nil {
		return err
	}
	switch words[0] {
	case "node":
		p.core = New(Config{Self: "me", Slots: a.num("slots"), MaxGrain: uint32(a.num("grain")), MaxWaiting: a.num("waiting"),
			MaxTrust: uint32(a.num("trust")), Tries: a.num("tries"), Attempts: a.num("attempts"), Rand: rand.New(rand.NewPCG(1, 1)),
			MaxPerUser: a.num("peruser"), Weights: a.weights(), Capacity: a.capacity(),
			Share: grid.Share{Slots: a.num("share"), Memory: uint64(a.num("sharemem")), Scratch: 100}})
		return nil
	case "at":
		d, err := time.ParseDuration(a.word(0))
		p.now = transcriptStart.Add(d)
		return err
	case "tick":
		if p.now = p.core.NextTick(); p.now.IsZero() {
			return fmt.Errorf("no Tick is due")
		}
		fmt.Fprintf(&p.out, "  now %v\n", p.now.Sub(transcriptStart))
	}
	ev, err := a.event(words[0])
	if err != nil {
		return err
	}
	for _, e := range p.core.Step(p.now, ev) {
		fmt.Fprintln(&p.out, " ", describe(e))
	}
	if t := p.core.NextTick(); !t.Equal(p.next) {
		p.next = t
		if t.IsZero() {
			fmt.Fprintln(&p.out, "  no tick due")
		} else {
			fmt.Fprintln(&p.out, "  tick due at", t.Sub(transcriptStart).Round(time.Microsecond))
		}
	}
	return p.core.Check()
}

// args are the words after the verb: plain ones, key=value, and spans.
type args struct {
	plain []string
	keyed map[string]string
	spans []grid.Span
}

func parseArgs(words []string) (*args, error) {
	a := &args{keyed: map[string]string{}}
	for _, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok {
			a.keyed[k] = v
		} else if w[0] == '[' {
			s, err := parseSpan(w)
			if err != nil {
				return nil, err
			}
			a.spans = append(a.spans, s)
		} else {
			a.plain = append(a.plain, w)
		}
	}
	return a, nil
}

func parseSpan(s string) (sp grid.Span, err error) {
	_, err = fmt.Sscanf(s, "[%d,%d)", &sp.Lo, &sp.Hi)
	return sp, err
}

func (a *args) word(i int) string {
	if i < len(a.plain) {
		return a.plain[i]
	}
	return ""
}

func (a *args) has(word string) bool {
	for _, w := range a.plain {
		if w == word {
			return true
		}
	}
	return false
}

func (a *args) num(key string) int {
	n, _ := strconv.Atoi(a.keyed[key])
	return n
}

// nums reads "tasks=20,1".
func (a *args) nums(key string) (list []uint32) {
	for _, w := range strings.Split(a.keyed[key], ",") {
		n, _ := strconv.Atoi(w)
		list = append(list, uint32(n))
	}
	return list
}

// plans reads "tasks=8,2,1 needs=1:0*4,2:1": of three stages, tasks of the second need four each of the first, and
// the third needs all of the second. Without needs, each stage needs all of the one before it.
func (a *args) plans() ([]grid.StagePlan, error) {
	plans := stages(a.nums("tasks")...)
	for i := range plans {
		plans[i].Class, plans[i].Attempts = a.class(), a.num("tries")
		plans[i].Class.Pure = a.has("pure")
	}
	if a.keyed["needs"] == "" {
		return chain(plans, 0), nil
	}
	for _, w := range strings.Split(a.keyed["needs"], ",") {
		var of int
		var n grid.Need
		if _, err := fmt.Sscanf(w, "%d:%d*%d", &of, &n.Stage, &n.Fan); err != nil && n.Fan != 0 || of >= len(plans) {
			return nil, fmt.Errorf("need %q", w)
		}
		plans[of].Needs = append(plans[of].Needs, n)
	}
	return plans, nil
}

// list reads "known=[0,4),[5,6)".
func (a *args) list(key string) (list []grid.Span, err error) {
	for w := range strings.SplitAfterSeq(a.keyed[key], ")") {
		if w = strings.TrimPrefix(w, ","); w != "" {
			s, err := parseSpan(w)
			if err != nil {
				return nil, err
			}
			list = append(list, s)
		}
	}
	return list, nil
}

func (a *args) epoch() grid.Epoch {
	if e := a.num("epoch"); e != 0 {
		return grid.Epoch(e)
	}
	return 1
}

// work reads "j1/0".
func parseWork(s string) (w grid.Work) {
	job, stage, _ := strings.Cut(s, "/")
	n, _ := strconv.Atoi(stage)
	return grid.Work{Job: grid.JobID(job), Stage: uint32(n)}
}

// results reads ok=, guest=, host=, again= and held= spans, in this order.
func (a *args) results() (list []grid.TaskResult, err error) {
	for o, key := range []string{"ok", "guest", "host", "again", "held"} {
		if a.keyed[key] == "" {
			continue
		}
		s, err := parseSpan(a.keyed[key])
		if err != nil {
			return nil, err
		}
		for i := s.Lo; i < s.Hi; i++ {
			list = append(list, grid.TaskResult{Index: i, Outcome: grid.TaskOutcome(o)})
		}
	}
	return list, nil
}

// leases reads "A:j1/0[0,10)".
func (a *args) leases() (list []grid.Lease, err error) {
	for _, w := range a.plain {
		owner, rest, ok := strings.Cut(w, ":")
		if !ok {
			continue
		}
		i := strings.Index(rest, "[")
		work := parseWork(rest[:i])
		s, err := parseSpan(rest[i:])
		if err != nil {
			return nil, err
		}
		list = append(list, grid.Lease{Job: work.Job, Stage: work.Stage, Owner: peer.ID(owner), Epoch: a.epoch(), Span: s, Outside: a.has("lent"), Spec: a.spec(), Class: a.class()})
	}
	return list, nil
}

// class reads "user=ann prio=1 cores=2 memory=5 scratch=5 depth=1 require=zone=a prefer=zone=b offload memlimit=5".
func (a *args) class() grid.Class {
	return grid.Class{
		User: a.keyed["user"], Priority: a.num("prio"), Cores: uint32(a.num("cores")), Memory: uint64(a.num("memory")),
		Scratch: uint64(a.num("scratch")), Depth: uint32(a.num("depth")), Require: a.keyed["require"], Prefer: a.keyed["prefer"],
		Offload: a.has("offload"), MemoryLimit: uint64(a.num("memlimit")),
	}
}

// back reads "back=[0,4)".
func (a *args) back() []grid.Span {
	list, _ := a.list("back")
	return list
}

// capacity reads "has=4 memory=5 scratch=5 labels=zone=a,gpu=true".
func (a *args) capacity() grid.Capacity {
	can := grid.Capacity{Slots: a.num("has"), Memory: uint64(a.num("memory")), Scratch: uint64(a.num("scratch"))}
	if a.keyed["labels"] != "" {
		can.Labels, _ = grid.ParseLabels(a.keyed["labels"])
	}
	return can
}

// weights reads "weights=ann:2,bob:0.5".
func (a *args) weights() map[string]float64 {
	m := map[string]float64{}
	for w := range strings.SplitSeq(a.keyed["weights"], ",") {
		user, weight, _ := strings.Cut(w, ":")
		m[user], _ = strconv.ParseFloat(weight, 64)
	}
	return m
}

func (a *args) event(verb string) (grid.Event, error) {
	from := peer.ID(a.word(0))
	switch verb {
	case "tick":
		return grid.Tick{}, nil
	case "up", "down":
		return grid.PeerChanged{PeerEvent: grid.PeerEvent{Peer: from, Up: verb == "up"}, Outside: a.has("outside")}, nil
	case "job":
		plans, err := a.plans()
		return grid.JobOpened{Lease: grid.Lease{Job: grid.JobID(a.word(0)), Epoch: a.epoch()},
			Stages: plans, KeepGoing: a.has("keep"), Allow: uint32(a.num("allow")), Parallel: uint32(a.num("parallel")),
			Deadline: a.time("deadline"), Start: a.time("start"), Paused: a.has("paused")}, err
	case "prepared":
		known, err := a.list("known")
		if err != nil {
			return nil, err
		}
		bad, err := a.list("bad")
		ev := grid.Prepared{Work: parseWork(a.word(0)), Ready: a.spans, Done: known}
		if by := a.keyed["by"]; by != "" { // of all that is ready there is a result by that node
			for _, s := range ev.Ready {
				for i := s.Lo; i < s.Hi; i++ {
					ev.Votes = append(ev.Votes, grid.Vote{Index: i, Nodes: []peer.ID{peer.ID(by)}})
				}
			}
		}
		for _, s := range bad {
			for i := s.Lo; i < s.Hi; i++ {
				ev.Failed = append(ev.Failed, i)
			}
		}
		return ev, err
	case "pause", "resume":
		return grid.Paused{Job: grid.JobID(a.word(0)), On: verb == "pause"}, nil
	case "end":
		return grid.JobEnded{Job: grid.JobID(a.word(0))}, nil
	case "done":
		slot, err := strconv.Atoi(a.word(0))
		if err != nil {
			return nil, err
		}
		took, err := time.ParseDuration(a.keyed["took"])
		if err != nil {
			return nil, err
		}
		results, err := a.results()
		ran := len(results)
		if a.keyed["ran"] != "" {
			ran = a.num("ran")
		}
		return grid.GrainDone{Slot: slot, Took: took, Ran: ran, Results: results,
			Fetched: uint64(a.num("fetched")) << 20, Fetching: a.time("fetching")}, err
	case "park":
		slot, err := strconv.Atoi(a.word(0))
		return grid.Parked{Slot: slot, Ticket: uint64(a.num("ticket"))}, err
	case "unpark":
		return grid.Unparked{Ticket: uint64(a.num("ticket")), Gone: a.has("gone")}, nil
	case "report":
		results, err := a.results()
		return grid.Reported{From: from, Work: parseWork(a.word(1)), Epoch: a.epoch(), Results: results}, err
	case "doubted":
		ev := grid.Doubted{From: from, Work: parseWork(a.word(1)), Call: uint64(a.num("call")), Epoch: a.epoch()}
		for _, s := range a.spans {
			for i := s.Lo; i < s.Hi; i++ {
				ev.Tasks = append(ev.Tasks, i)
			}
		}
		return ev, nil
	case "asked":
		return grid.StealAsked{From: from, Call: uint64(a.num("call")), Slots: a.num("slots"),
			Holds: a.summary("holds"), Here: a.summary("here"), Can: a.capacity(), Outside: a.has("outside"), Realm: peer.ID(a.keyed["realm"])}, nil
	case "answered":
		leases, err := a.leases()
		return grid.StealAnswered{From: from, Leases: leases, Failed: a.has("failed"), Try: a.peers("try"), Took: a.time("took")}, err
	case "claimed":
		return grid.Claimed{From: from, Work: parseWork(a.word(1)), Epoch: a.epoch(), Spans: a.spans, Back: a.back()}, nil
	case "revoked":
		return grid.Revoked{From: from, Work: parseWork(a.word(1)), Epoch: a.epoch(), Spans: a.spans, Queued: a.has("queued")}, nil
	case "woken":
		return grid.Woken{From: from}, nil
	case "score":
		score, err := strconv.ParseFloat(a.word(2), 64)
		return grid.Scored{Work: parseWork(a.word(0)), Peer: peer.ID(a.word(1)), Score: score}, err
	case "dropped":
		return grid.Dropped{From: from, Job: grid.JobID(a.word(1)), Epoch: a.epoch()}, nil
	}
	return a.nearEvent(verb)
}

func describe(e grid.Effect) string {
	lease := func(l grid.Lease) string {
		s := string(l.Owner) + ":" + l.String()
		if l.Class.Pinned {
			s += " pinned"
		}
		return s
	}
	work := func(w grid.Work) string { return fmt.Sprintf("%s/%d", w.Job, w.Stage) }
	switch e := e.(type) {
	case grid.Run:
		return fmt.Sprintf("run in slot %d: %s", e.Slot, lease(e.Lease))
	case grid.GiveSlot:
		return fmt.Sprintf("go on in slot %d: ticket %d", e.Slot, e.Ticket)
	case grid.Prepare:
		return fmt.Sprintf("prepare %s %v", work(e.Work), e.Spans)
	case grid.CloseJob:
		s := fmt.Sprintf("close job %s", e.Job)
		if e.Bad {
			s += " badly"
		}
		if e.Why != nil {
			s += fmt.Sprintf(", %v: %v", grid.CodeOf(e.Why), e.Why)
		}
		for _, f := range e.Failed {
			s += fmt.Sprintf(", %s task %d failed (attempts %d)", work(f.Work), f.Index, f.Attempts)
		}
		return s
	case grid.StopJob:
		return fmt.Sprintf("stop job %s here", e.Job)
	case grid.Revoke:
		s := fmt.Sprintf("revoke from %s: %s epoch %d %v", string(e.To), work(e.Work), e.Epoch, e.Spans)
		if e.Queued {
			s += " unless they run"
		}
		return s
	case grid.Note:
		s := fmt.Sprintf("note %s, %s: stage %d", e.Job, e.Event.Kind, e.Event.Stage)
		if e.Event.Tasks.Len() > 0 {
			s += " " + e.Event.Tasks.String()
		}
		if e.Event.Node != "" {
			s += " on " + string(e.Event.Node)
		}
		return s + ": " + e.Event.Text
	case grid.StopGrain:
		return fmt.Sprintf("stop slot %d", e.Slot)
	case grid.TellDropped:
		return fmt.Sprintf("tell %s: job %s is over, epoch %d", string(e.To), e.Job, e.Epoch)
	case grid.AskSteal:
		s := fmt.Sprintf("ask %s for work, slots %d", string(e.Victim), e.Slots)
		if e.Outside {
			s += ", to lend"
		}
		return s
	case grid.AnswerSteal:
		s := fmt.Sprintf("answer call %d:", e.Call)
		for _, l := range e.Leases {
			s += " " + lease(l)
		}
		if len(e.Leases) == 0 {
			s += " nothing"
		}
		for i, p := range e.Try {
			s += []string{", try ", " "}[min(i, 1)] + string(p)
		}
		return s
	case grid.AnswerDoubted:
		if len(e.Refused) > 0 {
			return fmt.Sprintf("answer call %d: not %v", e.Call, e.Refused)
		}
		return fmt.Sprintf("answer call %d: believed", e.Call)
	case grid.SendClaim:
		s := fmt.Sprintf("claim to %s: %s epoch %d %v", string(e.To), work(e.Work), e.Epoch, e.Spans)
		if len(e.Back) > 0 {
			s += fmt.Sprintf(", gives back %v", e.Back)
		}
		return s
	case grid.AskWithheld:
		return fmt.Sprintf("ask for what is withheld of %s", work(e.Work))
	case grid.Wake:
		return fmt.Sprintf("wake %s", string(e.To))
	}
	return describeNear(e)
}
