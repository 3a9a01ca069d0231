package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wasmgrid/wasmgrid/grid"
)

// topNode is a node as top shows it: its pulse, and what it did in a second since the one before.
type topNode struct {
	grid.Pulse
	Tasks   float64 `json:"tasks_per_s"`
	Fails   float64 `json:"tasks_failed_per_s"`
	Steals  float64 `json:"tasks_stolen_per_s"`
	In      float64 `json:"bytes_in_per_s"`
	Out     float64 `json:"bytes_out_per_s"`
	Working float64 `json:"busy"` // part of its slots' time in attempts
}

// topJob is a job as top shows it.
type topJob struct {
	grid.JobStatus
	Done  uint32        `json:"tasks_done"`
	Fails uint32        `json:"tasks_failed"`
	Total uint32        `json:"tasks"`
	Rate  float64       `json:"tasks_per_s"`      // smoothed
	Left  time.Duration `json:"left_ns,omitzero"` // at this rate; 0: not known
}

// topPicture is all that top shows.
type topPicture struct {
	At     time.Time  `json:"at"`
	Totals topTotals  `json:"totals"`
	Nodes  []*topNode `json:"nodes"`
	Jobs   []*topJob  `json:"jobs"`
}

type topTotals struct {
	Up      int     `json:"nodes_up"`
	Silent  int     `json:"nodes_silent"`
	Running int     `json:"slots_busy"`
	Slots   int     `json:"slots"`
	Queued  uint64  `json:"queued"`
	Jobs    int     `json:"jobs_running"`
	Tasks   float64 `json:"tasks_per_s"`
	Fails   float64 `json:"tasks_failed_per_s"`
	Steals  float64 `json:"tasks_stolen_per_s"`
	In      float64 `json:"bytes_in_per_s"`
	Out     float64 `json:"bytes_out_per_s"`
	Memory  uint64  `json:"memory_bytes"`
	Disk    uint64  `json:"disk_bytes"`
}

// topData gathers what comes in.
type topData struct {
	nodes map[string]*topNode
	jobs  map[grid.JobID]*topJob
	at    time.Time // of jobs
}

func newTopData() *topData {
	return &topData{nodes: make(map[string]*topNode), jobs: make(map[grid.JobID]*topJob)}
}

// heard takes in pulses. What was counted since the one before makes a rate, if it is of the same run of the node.
func (d *topData) heard(list []grid.Pulse) {
	for _, p := range list {
		n := topNode{Pulse: p}
		if was := d.nodes[p.Node]; was != nil && p.State != grid.PulseSilent && was.Started.Equal(p.Started) {
			if s := p.At.Sub(was.At).Seconds(); s > 0 {
				rate := func(now, before uint64) float64 {
					if now < before {
						return 0
					}
					return float64(now-before) / s
				}
				n.Tasks, n.Fails, n.Steals = rate(p.Ran, was.Ran), rate(p.Failed, was.Failed), rate(p.Stolen, was.Stolen)
				n.In, n.Out = rate(p.BytesIn, was.BytesIn), rate(p.BytesOut, was.BytesOut)
				if p.Load.Slots > 0 {
					n.Working = min(rate(uint64(max(p.Busy, 0)), uint64(max(was.Busy, 0)))/1e9/float64(p.Load.Slots), 1)
				}
			} else { // the same one again
				n.Tasks, n.Fails, n.Steals, n.In, n.Out, n.Working = was.Tasks, was.Fails, was.Steals, was.In, was.Out, was.Working
			}
		}
		d.nodes[p.Node] = &n
	}
}

// topEnded is how long a job is shown that has ended.
const topEnded = 30 * time.Second

// listed takes in how jobs stand.
func (d *topData) listed(list []grid.JobStatus, now time.Time) {
	jobs := make(map[grid.JobID]*topJob)
	for _, j := range list {
		if j.State.Final() && now.Sub(j.Ended) > topEnded {
			continue
		}
		t := &topJob{JobStatus: j}
		t.Done, t.Total, t.Fails = countTasks(&j)
		if was := d.jobs[j.ID]; was != nil && !j.State.Final() {
			if s := now.Sub(d.at).Seconds(); s > 0 && t.Done >= was.Done {
				t.Rate = float64(t.Done-was.Done) / s
				if was.Rate > 0 {
					t.Rate = (t.Rate + 2*was.Rate) / 3
				}
			}
			if left := t.Total - min(t.Total, t.Done+t.Fails); t.Rate > 1e-6 && left > 0 {
				t.Left = time.Duration(min(float64(left)/t.Rate*1e9, 1e18))
			}
		}
		jobs[j.ID] = t
	}
	d.jobs, d.at = jobs, now
}

func (d *topData) picture(now time.Time) *topPicture {
	p := &topPicture{At: now.UTC(), Nodes: []*topNode{}, Jobs: []*topJob{}}
	t := &p.Totals
	for _, n := range d.nodes {
		p.Nodes = append(p.Nodes, n)
		if n.State == grid.PulseSilent {
			t.Silent++
			continue
		}
		t.Up++
		t.Running, t.Slots, t.Queued = t.Running+n.Load.Running, t.Slots+n.Load.Slots, t.Queued+n.Load.Queued
		t.Tasks, t.Fails, t.Steals, t.In, t.Out = t.Tasks+n.Tasks, t.Fails+n.Fails, t.Steals+n.Steals, t.In+n.In, t.Out+n.Out
		t.Memory, t.Disk = t.Memory+n.Memory, t.Disk+n.Disk
	}
	for _, j := range d.jobs {
		p.Jobs = append(p.Jobs, j)
		if !j.State.Final() {
			t.Jobs++
		}
	}
	slices.SortFunc(p.Nodes, func(a, b *topNode) int { return cmp.Compare(a.Node, b.Node) })
	slices.SortFunc(p.Jobs, func(a, b *topJob) int {
		return cmp.Or(boolCompare(a.State.Final(), b.State.Final()), b.Submitted.Compare(a.Submitted), cmp.Compare(a.ID, b.ID))
	})
	return p
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// topColumn is a column of a table.
type topColumn[T any] struct {
	title string
	left  bool // aligned
	drop  int  // where there is no room, columns go by this, the greatest first; 0: never
	key   byte // sorts by it; 0: none does
	text  func(*T) string
	order func(a, b *T) int // the greatest first, but for text
}

func perSecond(f float64) string {
	switch {
	case f == 0:
		return "-"
	case f < 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.0f", f)
}

func bytesPerSecond(f float64) string {
	if f < 1 {
		return "-"
	}
	return formatSize(uint64(f))
}

func dashZero(d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	return formatTime(d)
}

func most[T cmp.Ordered](of func(*topNode) T) func(a, b *topNode) int {
	return func(a, b *topNode) int { return cmp.Compare(of(b), of(a)) }
}

// known tells something of a node, but for one that has never answered.
func known(text func(*topNode) string) func(*topNode) string {
	return func(n *topNode) string {
		if n.State == grid.PulseSilent && n.Started.IsZero() {
			return "-"
		}
		return text(n)
	}
}

var nodeColumns = []topColumn[topNode]{
	{title: "NODE", left: true, key: 'n', text: func(n *topNode) string {
		name := printable(shortNode(n.Node))
		if n.Name != "" {
			name = truncate(printable(n.Name), 24) + " " + name
		}
		if n.Leader {
			name += " *"
		}
		return name
	}, order: func(a, b *topNode) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Node, b.Node)) }},
	{title: "STATE", left: true, text: func(n *topNode) string { return printable(n.State) }},
	{title: "SLOTS", key: 's', text: known(func(n *topNode) string { return fmt.Sprintf("%d/%d", n.Load.Running, n.Load.Slots) }), order: most(func(n *topNode) int { return n.Load.Running })},
	{title: "BUSY", key: 'b', drop: 4, text: known(func(n *topNode) string { return fmt.Sprintf("%.0f%%", 100*n.Working) }), order: most(func(n *topNode) float64 { return n.Working })},
	{title: "QUEUE", key: 'l', drop: 1, text: known(func(n *topNode) string { return fmt.Sprint(n.Load.Queued) }), order: most(func(n *topNode) uint64 { return n.Load.Queued })},
	{title: "TASKS/S", key: 't', text: func(n *topNode) string { return perSecond(n.Tasks) }, order: most(func(n *topNode) float64 { return n.Tasks })},
	{title: "FAIL/S", key: 'f', drop: 9, text: func(n *topNode) string { return perSecond(n.Fails) }, order: most(func(n *topNode) float64 { return n.Fails })},
	{title: "STEALS/S", key: 'x', drop: 3, text: func(n *topNode) string { return perSecond(n.Steals) }, order: most(func(n *topNode) float64 { return n.Steals })},
	{title: "P50", drop: 8, text: func(n *topNode) string { return dashZero(n.P50) }},
	{title: "P99", key: 'p', drop: 5, text: func(n *topNode) string { return dashZero(n.P99) }, order: most(func(n *topNode) time.Duration { return n.P99 })},
	{title: "IN/S", key: 'i', drop: 7, text: func(n *topNode) string { return bytesPerSecond(n.In) }, order: most(func(n *topNode) float64 { return n.In })},
	{title: "OUT/S", key: 'o', drop: 7, text: func(n *topNode) string { return bytesPerSecond(n.Out) }, order: most(func(n *topNode) float64 { return n.Out })},
	{title: "MEMORY", key: 'm', drop: 2, text: known(func(n *topNode) string { return formatSize(n.Memory) }), order: most(func(n *topNode) uint64 { return n.Memory })},
	{title: "DISK", key: 'd', drop: 6, text: known(func(n *topNode) string { return formatSize(n.Disk) }), order: most(func(n *topNode) uint64 { return n.Disk })},
}

var jobColumns = []topColumn[topJob]{
	{title: "JOB", left: true, text: func(j *topJob) string { return printable(truncate(string(j.ID), 8)) }},
	{title: "NAME", left: true, drop: 2, text: func(j *topJob) string { return truncate(orDash(printable(j.Name)), 24) }},
	{title: "STATE", left: true, text: func(j *topJob) string { return printable(string(j.State)) }},
	{title: "PROGRESS", left: true, drop: 4, text: func(j *topJob) string {
		return "[" + bar(uint64(min(j.Done, j.Total)), uint64(max(j.Total, 1)), 16) + "]"
	}},
	{title: "TASKS", text: func(j *topJob) string { return fmt.Sprintf("%d/%d", j.Done, j.Total) }},
	{title: "FAILED", drop: 5, text: func(j *topJob) string { return fmt.Sprint(j.Fails) }},
	{title: "TASKS/S", drop: 1, text: func(j *topJob) string { return perSecond(j.Rate) }},
	{title: "LEFT", text: func(j *topJob) string { return dashZero(j.Left.Round(time.Second)) }},
	{title: "AGE", drop: 3, text: func(j *topJob) string { return "" }}, // see ages
	{title: "OWNER", left: true, drop: 6, text: func(j *topJob) string { return printable(shortNode(j.Owner)) }},
}

// topLook is how somebody looks at a picture.
type topLook struct {
	key     byte // of the column by which nodes are sorted
	reverse bool
	jobs    bool   // the arrows move the table of jobs
	from    [2]int // the first row that is shown: of nodes, of jobs
	colour  bool
}

// topKeys is what the last line says.
var topKeys = []string{"q quit", "↑↓ pgup pgdn move", "tab nodes/jobs", "n s b l t f x p i o m d sort", "r reverse"}

// fitting are the words that fit into so many columns, from the first on; 0: all.
func fitting(width int, words ...string) string {
	line := words[0]
	for _, w := range words[1:] {
		if next := line + "  " + w; width == 0 || utf8.RuneCountInString(next) <= width {
			line = next
		}
	}
	if width > 0 {
		line = truncate(line, width)
	}
	return line
}

// draw draws a picture in so many columns and lines, of which none is longer or comes beyond; 0: as many as it takes. It puts right where the
// look would begin beyond the end.
func (l *topLook) draw(p *topPicture, width, height int) []string {
	nodes, jobs := slices.Clone(p.Nodes), p.Jobs
	for _, c := range nodeColumns {
		if c.key == l.key && c.order != nil {
			slices.SortStableFunc(nodes, c.order)
		}
	}
	if l.reverse {
		slices.Reverse(nodes)
	}
	t := &p.Totals
	up := plural(t.Up, "node") + " up"
	if t.Silent > 0 {
		up += fmt.Sprintf(", %d silent", t.Silent)
	}
	head := []string{
		fitting(width, "grid top", p.At.Local().Format(time.TimeOnly), up, plural(t.Jobs, "job")),
		fitting(width, fmt.Sprintf("slots %d/%d", t.Running, t.Slots), fmt.Sprintf("queue %d", t.Queued), "tasks "+perSecond(t.Tasks)+"/s", "failed "+perSecond(t.Fails)+"/s",
			"stolen "+perSecond(t.Steals)+"/s", "memory "+formatSize(t.Memory), "disk "+formatSize(t.Disk), "in "+bytesPerSecond(t.In)+"/s", "out "+bytesPerSecond(t.Out)+"/s"),
		"",
	}
	nodeRoom, jobRoom := len(nodes), len(jobs)
	foot := []string(nil)
	if height > 0 {
		foot = []string{fitting(width, topKeys...)}
		nodeRoom, jobRoom = shareLines(height-len(head)-len(foot)-3, len(nodes), len(jobs)) // two headings, a line between
	}
	l.from[0], l.from[1] = within(l.from[0], len(nodes), nodeRoom), within(l.from[1], len(jobs), jobRoom)
	nodes, jobs = nodes[l.from[0]:], jobs[l.from[1]:]
	lines := head
	lines = append(lines, l.table(layOut(nodes[:min(len(nodes), nodeRoom)], width, func(n *topNode) style {
		switch {
		case n.State == grid.PulseSilent:
			return red
		case n.Load.Running == 0:
			return dim
		}
		return ""
	}, nodeColumns, l.key), !l.jobs)...)
	if len(p.Jobs) > 0 {
		cols := slices.Clone(jobColumns)
		for i := range cols {
			if cols[i].title == "AGE" {
				cols[i].text = func(j *topJob) string { return formatTime(jobTime(&j.JobStatus, p.At).Round(time.Second)) }
			}
		}
		lines = append(lines, "")
		lines = append(lines, l.table(layOut(jobs[:min(len(jobs), jobRoom)], width, func(j *topJob) style {
			switch {
			case j.State == grid.Failed:
				return red
			case j.State.Final():
				return dim
			}
			return ""
		}, cols, 0), l.jobs)...)
	}
	if height > 0 {
		lines = lines[:min(len(lines), max(height-len(foot), 0))]
		for len(lines) < height-len(foot) {
			lines = append(lines, "")
		}
		lines = append(lines, foot[:min(len(foot), height)]...)
	}
	return lines
}

// shareLines shares lines between nodes and jobs: both have what they need, or jobs a third.
func shareLines(lines, nodes, jobs int) (forNodes, forJobs int) {
	lines = max(lines, 0)
	forJobs = min(jobs, max(lines/3, lines-nodes))
	return min(nodes, lines-forJobs), forJobs
}

// within is where to begin with rows so that the room is used.
func within(from, rows, room int) int { return max(min(from, rows-room), 0) }

// topLine is a line of a table that is not painted yet.
type topLine struct {
	text  string
	style style
}

func (l *topLook) table(rows []topLine, active bool) []string {
	out := make([]string, len(rows))
	for i, r := range rows {
		st := r.style
		if i == 0 && active {
			st = bold
		}
		if out[i] = r.text; l.colour && st != "" {
			out[i] = "\x1b[" + string(st) + "m" + r.text + "\x1b[0m"
		}
	}
	return out
}

// layOut lays rows out in columns that fit, with a heading; sorted marks the column by whose key they are sorted.
func layOut[T any](rows []*T, width int, styled func(*T) style, cols []topColumn[T], sorted byte) []topLine {
	cells := make([][]string, len(cols))
	wide := make([]int, len(cols))
	for c := range cols {
		title := cols[c].title
		if sorted != 0 && cols[c].key == sorted {
			title += "↓"
		}
		cells[c] = append(cells[c], title)
		for i := range rows {
			cells[c] = append(cells[c], cols[c].text(rows[i]))
		}
		for _, text := range cells[c] {
			wide[c] = max(wide[c], utf8.RuneCountInString(text))
		}
	}
	shown := make([]bool, len(cols))
	total := -2
	for c := range cols {
		shown[c] = true
		total += wide[c] + 2
	}
	for width > 0 && total > width {
		worst := -1
		for c := range cols {
			if shown[c] && cols[c].drop > 0 && (worst < 0 || cols[c].drop >= cols[worst].drop) {
				worst = c
			}
		}
		if worst < 0 {
			break
		}
		shown[worst] = false
		total -= wide[worst] + 2
	}
	out := make([]topLine, len(rows)+1)
	for i := range out {
		var b strings.Builder
		for c := range cols {
			if !shown[c] {
				continue
			}
			if b.Len() > 0 {
				b.WriteString("  ")
			}
			pad := strings.Repeat(" ", wide[c]-utf8.RuneCountInString(cells[c][i]))
			if cols[c].left {
				b.WriteString(cells[c][i] + pad)
			} else {
				b.WriteString(pad + cells[c][i])
			}
		}
		out[i].text = strings.TrimRight(b.String(), " ")
		if width > 0 {
			out[i].text = truncate(out[i].text, width)
		}
		if i > 0 {
			out[i].style = styled(rows[i-1])
		}
	}
	return out
}

// press changes the look as a key says. It is false for the key that ends it.
func (l *topLook) press(key string, page int) bool {
	at := &l.from[0]
	if l.jobs {
		at = &l.from[1]
	}
	switch key {
	case "q", "\x03", "\x04":
		return false
	case "r":
		l.reverse = !l.reverse
	case "\t":
		l.jobs = !l.jobs
	case "\x1b[A", "\x1bOA", "k":
		*at--
	case "\x1b[B", "\x1bOB", "j":
		*at++
	case "\x1b[5~":
		*at -= page
	case "\x1b[6~", " ":
		*at += page
	case "\x1b[H", "\x1b[1~":
		*at = 0
	case "\x1b[F", "\x1b[4~":
		*at = 1 << 30
	default:
		for _, c := range nodeColumns {
			if c.key != 0 && key == string(c.key) {
				l.key, l.from[0] = c.key, 0
			}
		}
	}
	*at = max(*at, 0)
	return true
}

// splitKeys cuts what a terminal sends into keys.
func splitKeys(text string) (keys []string) {
	for text != "" {
		n := 1
		if strings.HasPrefix(text, "\x1b[") || strings.HasPrefix(text, "\x1bO") {
			n = 2
			for n < len(text) && (text[n] < '@' || text[n] > '~') {
				n++
			}
			n = min(n+1, len(text))
		}
		keys, text = append(keys, text[:n]), text[n:]
	}
	return keys
}
