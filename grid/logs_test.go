package grid_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

// logReader gathers the lines of a job.
type logReader struct {
	mu   sync.Mutex
	all  []grid.LogLine
	wake chan struct{}
	done chan error
}

func readLogs(ctx context.Context, n *grid.Node, id grid.JobID, q grid.LogQuery) *logReader {
	r := &logReader{wake: make(chan struct{}, 1), done: make(chan error, 1)}
	go func() {
		r.done <- n.Logs(ctx, id, q, func(l grid.LogLine) error {
			r.mu.Lock()
			r.all = append(r.all, l)
			r.mu.Unlock()
			select {
			case r.wake <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	return r
}

func (r *logReader) lines() []grid.LogLine {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[:len(r.all):len(r.all)]
}

// until waits for a line.
func (r *logReader) until(t *testing.T, text string) grid.LogLine {
	t.Helper()
	ctx := within(t)
	for {
		for _, l := range r.lines() {
			if strings.Contains(l.Text, text) {
				return l
			}
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			t.Fatalf("no line %q: %+v", text, r.lines())
		}
	}
}

func (r *logReader) end(t *testing.T) []grid.LogLine {
	t.Helper()
	select {
	case err := <-r.done:
		if err != nil {
			t.Fatal(err)
		}
	case <-within(t).Done():
		t.Fatalf("the logs do not end: %+v", r.lines())
	}
	return r.lines()
}

// said is lines in short: stage.task, the stream, and the text.
func said(lines []grid.LogLine) (out []string) {
	for _, l := range lines {
		out = append(out, fmt.Sprintf("%d.%d %s %s", l.Stage, l.Task, l.Stream, l.Text))
	}
	return out
}

func wantLines(t *testing.T, lines []grid.LogLine, want ...string) {
	t.Helper()
	if got := said(lines); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("lines\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// talker is a guest that prints before and after it is let.
func talker(g *remoteGate) func(context.Context, *grid.Guest) (grid.Outcome, error) {
	return func(ctx context.Context, guest *grid.Guest) (grid.Outcome, error) {
		io.WriteString(guest.Stdout, "first\n\nhalf")
		io.WriteString(guest.Stderr, "warning\n")
		if guest.Impure {
			fmt.Fprintf(guest.Stderr, "at %d\n", time.Now().UnixNano())
		}
		return g.guest(ctx, guest)
	}
}

// TestLogsLive: what a running task prints is read on another node, each line once, whether one follows or not.
func TestLogsLive(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	r.share()
	a, b := r.all[0], r.all[1]
	g := newRemoteGate()
	a.w.Engine.Guest = talker(g)
	id := submit(t, a.Node, request(a.w, 1))
	f := readLogs(t.Context(), b.Node, id, grid.LogQuery{Follow: true})
	l := f.until(t, "warning")
	if !l.Live || l.Node != a.w.ID.String() || l.Stream != grid.StreamErr || time.Since(l.At) > time.Hour || time.Until(l.At) > time.Hour {
		t.Errorf("a line of a running task is %+v", l)
	}
	wantLines(t, readLogs(t.Context(), b.Node, id, grid.LogQuery{}).end(t), "0.0 stdout first", "0.0 stdout ", "0.0 stderr warning", "0.0 stdout half")
	wantLines(t, readLogs(t.Context(), b.Node, id, grid.LogQuery{Follow: true, Limit: 1, Stream: grid.StreamErr}).end(t), "0.0 stderr warning")
	g.let(1)
	wantLines(t, f.end(t), "0.0 stdout first", "0.0 stdout ", "0.0 stderr warning", "0.0 stdout halftask 0")
	for _, m := range r.all {
		wantLines(t, readLogs(t.Context(), m.Node, id, grid.LogQuery{}).end(t), "0.0 stdout first", "0.0 stdout ", "0.0 stdout halftask 0", "0.0 stderr warning")
	}
}

// TestLogsRunAgain: who follows is told that a task is run again. One that is pure goes on where it was, the output of
// another is given anew.
func TestLogsRunAgain(t *testing.T) {
	for _, impure := range []bool{false, true} {
		t.Run(fmt.Sprintf("impure=%v", impure), func(t *testing.T) {
			r := newRemoteRealm(t, "a", "b", "c")
			r.share()
			a, c := r.all[0], r.all[2]
			g := newRemoteGate()
			for _, m := range r.all {
				m.w.Engine.Guest = talker(g)
			}
			req := request(a.w, 1)
			req.Spec.Stages[0].Impure = impure
			id := submit(t, a.Node, req)
			f := readLogs(t.Context(), c.Node, id, grid.LogQuery{Follow: true})
			f.until(t, "warning")
			r.kill(a)
			r.expire(a)
			if impure {
				f.until(t, "does not count")
			} else {
				f.until(t, "it prints the same")
			}
			g.let(1)
			times, last := map[string]int{}, false
			for _, l := range f.end(t) {
				times[l.Text]++
				last = last || l.Text == "halftask 0"
			}
			want := map[bool]int{false: 1, true: 2}[impure]
			if times["first"] != want || times["warning"] != want || !last {
				t.Errorf("lines %q", said(f.lines()))
			}
		})
	}
}

// TestLogsBehind: a reader who is too slow is told how much he does not see.
func TestLogsBehind(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	r.share()
	a, b := r.all[0], r.all[1]
	const lines, each = 256 << 10, 128
	printed := make(chan struct{})
	a.w.Engine.Guest = func(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
		for i := range lines {
			fmt.Fprintf(g.Stdout, "%*d\n", each-1, i)
		}
		close(printed)
		<-ctx.Done()
		return grid.Outcome{}, ctx.Err()
	}
	id := submit(t, a.Node, request(a.w, 1))
	ctx, stop := context.WithCancel(within(t))
	last, left, given := fmt.Sprint(lines-1), 0, 0
	err := b.Logs(ctx, id, grid.LogQuery{Follow: true}, func(l grid.LogLine) error {
		switch {
		case l.Stream == grid.StreamNote:
			var n int
			if _, err := fmt.Sscanf(l.Text, "%d bytes of its stdout are left out", &n); err != nil {
				t.Errorf("note %q", l.Text)
			}
			left += n
		case len(l.Text) != each-1:
			t.Errorf("a line of %d bytes: %q", len(l.Text), l.Text)
			stop()
		default:
			given++
		}
		select {
		case <-printed:
		case <-ctx.Done():
		}
		if strings.TrimSpace(l.Text) == last {
			stop()
		}
		return nil
	})
	if ctx.Err() == nil || left == 0 || left+given*each != lines*each {
		t.Errorf("%v: %d lines given and %d bytes left out of %d", err, given, left, lines*each)
	}
	if err := a.Cancel(within(t), id); err != nil {
		t.Error(err)
	}
}

// TestLogsPicked: filters, on a job that has ended and left blocks.
func TestLogsPicked(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	r.share()
	a, b := r.all[0], r.all[1]
	long := strings.Repeat("x", grid.MaxLogText+10)
	a.w.Engine.Guest = func(_ context.Context, g *grid.Guest) (grid.Outcome, error) {
		i := g.Env[len(g.Env)-1]
		fmt.Fprintf(g.Stdout, "%s\n%s\n\xff\x1b[2J", i, long)
		fmt.Fprintf(g.Stderr, "said by %s\n", i)
		return grid.Outcome{}, nil
	}
	req := request(a.w, 3)
	req.Spec.Stages = append(req.Spec.Stages, grid.Stage{Module: a.w.Module, Tasks: 2})
	id := submit(t, a.Node, req)
	end(t, a.Node, id)
	number := func(n uint32) *uint32 { return &n }
	read := func(q grid.LogQuery) []grid.LogLine { return readLogs(t.Context(), b.Node, id, q).end(t) }
	if all := read(grid.LogQuery{}); len(all) != 5*5 {
		t.Errorf("%d lines: %.300q", len(all), said(all))
	}
	wantLines(t, read(grid.LogQuery{Stage: number(1), Task: number(1)}), "1.1 stdout GRID_TASK=1", "1.1 stdout "+long[:grid.MaxLogText], "1.1 stdout "+long[:10], "1.1 stdout \uFFFD\x1b[2J", "1.1 stderr said by GRID_TASK=1")
	wantLines(t, read(grid.LogQuery{Stage: number(0), Stream: grid.StreamErr}), "0.0 stderr said by GRID_TASK=0", "0.1 stderr said by GRID_TASK=1", "0.2 stderr said by GRID_TASK=2")
	wantLines(t, read(grid.LogQuery{Task: number(2)})[:1], "0.2 stdout GRID_TASK=2")
	wantLines(t, read(grid.LogQuery{Grep: "^said.*[12]$", Limit: 2}), "0.1 stderr said by GRID_TASK=1", "0.2 stderr said by GRID_TASK=2")
	wantLines(t, read(grid.LogQuery{Task: number(7)}))
	wantLines(t, read(grid.LogQuery{Since: time.Now().Add(time.Hour)}))
	wantLines(t, read(grid.LogQuery{Node: b.w.ID.String()}))
	if l := read(grid.LogQuery{Node: a.w.ID.String(), Limit: 1}); len(l) != 1 || l[0].Live || l[0].At.IsZero() {
		t.Errorf("lines of the node that ran it: %+v", l)
	}
	for _, q := range []grid.LogQuery{{Grep: "("}, {Grep: strings.Repeat("x", grid.MaxGrep+1)}, {Limit: -1}, {Stream: "stdin"}, {Node: "me"}} {
		if err := b.Logs(t.Context(), id, q, func(grid.LogLine) error { return nil }); grid.CodeOf(err) != grid.Invalid && grid.CodeOf(err) != grid.Limit {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// TestLogsOfStrangers: who is not of the realm is told nothing.
func TestLogsOfStrangers(t *testing.T) {
	r := newRemoteRealm(t, "a")
	a := r.all[0]
	w := fake.NewWorld(r.hub, "stranger")
	net := r.world.Join(w.ID)
	defer net.Close()
	s, err := net.Open(within(t), a.w.ID, grid.ProtoTaskLog)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	data, err := grid.AppendFrame(nil, map[string]any{"job": "jx", "follow": true})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = s.Write(data) // which is not waited for
	answer, _ := io.ReadAll(s)
	if !strings.Contains(string(answer), "is not of this realm") {
		t.Errorf("a stranger is told %q", answer)
	}
}

// TestLogsOfLiars: a node that says first what tasks print, which others run, does not hide what they did print.
func TestLogsOfLiars(t *testing.T) {
	r := newRemoteRealm(t, "a")
	a := r.all[0]
	liar := fake.NewWorld(r.hub, "liar")
	net := r.world.Join(liar.ID)
	defer net.Close()
	net.Handle(grid.ProtoTaskLog, func(ctx context.Context, _ peer.ID, s grid.Stream) {
		data, err := grid.AppendFrame(nil, grid.TaskLogFrame{Pieces: []grid.TaskPiece{
			{Index: 3, Began: 1, Data: []byte("forged")}, {Index: 4, Began: 1, From: 1 << 40, Data: []byte("far\n")},
		}})
		if err == nil {
			_, err = s.Write(data)
		}
		if err != nil {
			t.Error(err)
		}
		<-ctx.Done()
	})
	if _, err := r.ledger.Commit(within(t), grid.Txn{Put: []grid.Entry{{Key: grid.NodeKeys + liar.ID.String(), Value: []byte{0xa0}}}}); err != nil {
		t.Fatal(err)
	}
	g := newRemoteGate()
	a.w.Engine.Guest = g.guest // in two slots
	id := submit(t, a.Node, request(a.w, 5))
	f := readLogs(t.Context(), a.Node, id, grid.LogQuery{Follow: true})
	if l := f.until(t, "far"); l.Node != liar.ID.String() {
		t.Errorf("what the liar said is %+v", l)
	}
	g.let(5)
	var told []string
	for _, l := range f.end(t) {
		if l.Stream == grid.StreamOut && l.Node == a.w.ID.String() {
			told = append(told, l.Text)
		}
	}
	slices.Sort(told)
	if want := []string{"task 0", "task 1", "task 2", "task 3", "task 4"}; !slices.Equal(told, want) {
		t.Errorf("what a printed is %q: %q", told, said(f.lines()))
	}
}

// TestLogsResumed: who goes on from the place of any line is given what came after it, each line once, on another node: of a job that
// has ended, of tasks that run, and of one of which a part was given when it had ended.
func TestLogsResumed(t *testing.T) {
	r := newRemoteRealm(t, "a", "b")
	r.share()
	a, b := r.all[0], r.all[1]
	g := newRemoteGate()
	a.w.Engine.Guest = talker(g)
	id := submit(t, a.Node, request(a.w, 5))
	ctx, stop := context.WithCancel(within(t))
	f := readLogs(ctx, b.Node, id, grid.LogQuery{Follow: true, Places: true})
	g.let(2)
	f.until(t, "halftask")
	for len(f.lines()) < 3*2+1 {
		<-f.wake
	}
	stop()
	<-f.done
	before := f.lines()
	var rest []*logReader
	for _, l := range before {
		rest = append(rest, readLogs(within(t), a.Node, id, grid.LogQuery{Follow: true, After: l.Place}))
	}
	g.let(5)
	end(t, a.Node, id)
	whole := func(lines []grid.LogLine) []string {
		all := said(lines)
		slices.Sort(all)
		return all
	}
	want := whole(readLogs(t.Context(), b.Node, id, grid.LogQuery{}).end(t))
	if len(want) != 5*4 {
		t.Fatalf("the job has printed %q", want)
	}
	for i := range before {
		if got := whole(slices.Concat(before[:i+1], rest[i].end(t))); !slices.Equal(got, want) {
			t.Errorf("behind line %d, with what came before: %q", i, got)
		}
	}
	ended := readLogs(t.Context(), b.Node, id, grid.LogQuery{Places: true}).end(t)
	for i, l := range ended {
		for _, q := range []grid.LogQuery{{After: l.Place}, {After: l.Place, Follow: true}} {
			wantLines(t, readLogs(t.Context(), a.Node, id, q).end(t), said(ended[i+1:])...)
		}
		wantLines(t, readLogs(t.Context(), a.Node, id, grid.LogQuery{After: l.Place, Limit: i + 2}).end(t), said(ended[i+1:min(i+2, len(ended))])...)
	}
}

// TestLogsResumedElsewhere: a task of which a part was given, and that another attempt has run since, is given anew, with a note.
func TestLogsResumedElsewhere(t *testing.T) {
	r := newRemoteRealm(t, "a", "b", "c")
	r.share()
	a, c := r.all[0], r.all[2]
	g := newRemoteGate()
	for _, m := range r.all {
		m.w.Engine.Guest = talker(g)
	}
	id := submit(t, a.Node, request(a.w, 1))
	ctx, stop := context.WithCancel(within(t))
	f := readLogs(ctx, c.Node, id, grid.LogQuery{Follow: true, Places: true})
	place := f.until(t, "first").Place
	stop()
	r.kill(a)
	r.expire(a)
	again := readLogs(within(t), c.Node, id, grid.LogQuery{Follow: true, After: place})
	again.until(t, "what was printed before does not count")
	g.let(1)
	if lines := again.end(t); !slices.ContainsFunc(lines, func(l grid.LogLine) bool { return l.Text == "first" }) {
		t.Errorf("lines %q", said(lines))
	}
}

// TestLogPlaces: what is no place in the logs of a job is refused.
func TestLogPlaces(t *testing.T) {
	const job = grid.JobID("abcdefghijklmnopqrstuvwxyz")
	place := func(ended []uint32, open ...[5]uint64) string {
		return grid.LogPlace(job, ended, open...)
	}
	var many []uint32
	for i := range uint32(1000) {
		many = append(many, 0, 2*i, 2*i+1)
	}
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{"", true},
		{place(nil), true},
		{place([]uint32{0, 0, 5, 0, 7, 9, 1, 0, 1}, [5]uint64{1, 2, 3, 4, 5}), true},
		{place([]uint32{0, 0}), false},
		{place([]uint32{0, 5, 5}), false},
		{place([]uint32{0, 0, 5, 0, 5, 9}), false},
		{place([]uint32{1, 0, 5, 0, 7, 9}), false},
		{place([]uint32{grid.MaxStages, 0, 5}), false},
		{place([]uint32{0, 0, grid.MaxTasks + 1}), false},
		{place(nil, [5]uint64{grid.MaxStages}), false},
		{place(nil, [5]uint64{0, grid.MaxTasks}), false},
		{place(nil, [5]uint64{0, 0, 0, 1 << 63}), false},
		{place(nil, make([][5]uint64, 200)...), false},
		{place(many), false},
		{grid.LogPlace("zyxwvutsrqponmlkjihgfedcba", nil), false},
		{"yesterday", false},
		{strings.Repeat("A", 1<<20), false},
		{place(nil) + "=", false},
	} {
		q := grid.LogQuery{After: c.text}
		if err := q.Check(job); (err == nil) != c.ok || err != nil && grid.CodeOf(err) != grid.Invalid {
			t.Errorf("%.60q: %v", c.text, err)
		}
	}
}
