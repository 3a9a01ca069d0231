package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// report is a run.
type report struct {
	Machine    machine   `json:"machine"`
	Commit     string    `json:"commit"`
	Modified   bool      `json:"modified"` // files differed from the commit
	Date       time.Time `json:"date"`
	Took       string    `json:"took"`
	LoadBefore float64   `json:"load_before"`
	LoadAfter  float64   `json:"load_after"`
	Count      int       `json:"count"`
	Quick      bool      `json:"quick"`
	Peers      []peer    `json:"peers,omitempty"`
	Lines      []result  `json:"lines"`
	Compared   string    `json:"compared,omitempty"` // the commit of the run that this one is compared with
}

// peer is a tool that has done some of the work, too, or could not.
type peer struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Lacks   string `json:"lacks,omitempty"`
	Absent  string `json:"absent,omitempty"` // why it has no figures at all
}

// besides is what a peer came to, in the line's unit.
type besides struct {
	Values  []float64 `json:"values,omitempty"`
	Skipped string    `json:"skipped,omitempty"`
	Error   string    `json:"error,omitempty"`
}

// result is what came of a line. Values and Limits are in Unit, one for each time it was measured; Ratios is what the values are of their limits.
type result struct {
	Name    string    `json:"name"`
	Shows   string    `json:"shows"`
	Unit    string    `json:"unit"`
	Less    bool      `json:"less_is_better"`
	Values  []float64 `json:"values,omitempty"`
	LimitIs string    `json:"limit_is,omitempty"`
	Limits  []float64 `json:"limits,omitempty"`
	Ratios  []float64 `json:"ratios,omitempty"`
	Target  string    `json:"target,omitempty"`
	Verdict string    `json:"verdict,omitempty"` // whether the target was met or missed
	Skipped string    `json:"skipped,omitempty"` // why it was not measured
	Error   string    `json:"error,omitempty"`
	Than    string    `json:"than_before,omitempty"` // better, worse, same; too few, if there were not enough figures to tell
	Change  float64   `json:"change,omitempty"`      // what is compared, as a multiple of what it was

	Peers map[string]besides `json:"peers,omitempty"` // by name
}

// result makes what was measured into a line of the report.
func (l *line) result(outcomes map[*bench]outcome, beside []string) result {
	r := result{Name: l.name, Shows: l.shows, Unit: l.unit, Less: l.less, LimitIs: l.limitIs}
	if l.target != nil {
		r.Target = l.target.text(l)
	}
	for _, name := range beside {
		if s := l.by(name); s.bench != nil {
			p := besides{Values: s.of(outcomes)}
			if len(p.Values) == 0 {
				p.Skipped, p.Error = outcomes[s.bench].why(s)
			}
			if r.Peers == nil {
				r.Peers = map[string]besides{}
			}
			r.Peers[name] = p
		}
	}
	o := outcomes[l.value.bench]
	r.Values = l.value.of(outcomes)
	if len(r.Values) == 0 {
		r.Skipped, r.Error = o.why(l.value)
		return r
	}
	if why, ok := o.failed[l.value.full()]; ok { // some of the times
		r.Error = "not each time: failed: " + why
	}
	if l.ratio.bench != nil {
		r.Ratios = l.ratio.of(outcomes)
		for i := range min(len(r.Values), len(r.Ratios)) {
			if r.Ratios[i] != 0 {
				r.Limits = append(r.Limits, r.Values[i]/r.Ratios[i])
			}
		}
	} else if l.limit.bench != nil {
		r.Limits = l.limit.of(outcomes)
		for i := range min(len(r.Values), len(r.Limits)) {
			if r.Limits[i] != 0 {
				r.Ratios = append(r.Ratios, r.Values[i]/r.Limits[i])
			}
		}
	}
	if t := l.target; t != nil {
		list := r.Values
		if t.ofLimit {
			list = r.Ratios
		}
		if m := median(list); len(list) > 0 {
			r.Verdict = "missed"
			if m == t.bound || (m > t.bound) != l.less {
				r.Verdict = "met"
			}
		}
	}
	return r
}

// of is the figures of a series.
func (s series) of(outcomes map[*bench]outcome) []float64 {
	var list []float64
	for _, v := range outcomes[s.bench].figures[s.full()][s.unit] {
		if s.scale != 0 {
			v *= s.scale
		}
		list = append(list, v)
	}
	return list
}

// full is the name of a series' benchmark as it is printed.
func (s series) full() string { return strings.TrimSuffix(s.bench.name+"/"+s.part, "/") }

// why says why there are no figures of a series.
func (o outcome) why(s series) (skipped, failed string) {
	for name := s.full(); ; {
		if why, ok := o.skipped[name]; ok {
			return "skipped: " + why, ""
		}
		if why, ok := o.failed[name]; ok {
			return "", "failed: " + why
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			break
		}
		name = name[:i]
	}
	if o.err != nil {
		return "", o.err.Error()
	}
	return "", fmt.Sprintf("Benchmark%s in %s reported no %s", s.full(), s.bench.pkg, s.unit)
}

func (r *report) failed() bool {
	for _, l := range r.Lines {
		if l.Error != "" {
			return true
		}
		for _, p := range l.Peers {
			if p.Error != "" {
				return true
			}
		}
	}
	return false
}

func (r *report) worse() bool {
	for _, l := range r.Lines {
		if l.Than == "worse" {
			return true
		}
	}
	return false
}

// compare says of each line what became of it. Of lines with limits it compares the ratios, which say less of what else the machine did, and
// more of Grid.
func (r *report) compare(old *report) {
	r.Compared = old.Commit
	before := map[string]result{}
	for _, l := range old.Lines {
		before[l.Name] = l
	}
	for i := range r.Lines {
		now := &r.Lines[i]
		was, ok := before[now.Name]
		if !ok || was.Unit != now.Unit || was.Less != now.Less {
			continue // of something else
		}
		a, b := was.Values, now.Values
		if len(was.Ratios) > 0 && len(now.Ratios) > 0 && was.LimitIs == now.LimitIs {
			a, b = was.Ratios, now.Ratios
		}
		now.Than = verdict(a, b, now.Less)
		if m := median(a); m != 0 && len(b) > 0 {
			now.Change = median(b) / m
		}
	}
}

// maxReport bounds a file to compare with.
const maxReport = 16 << 20

func readReport(name string) (*report, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := decodeReport(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: it has to be what --json prints", name, err)
	}
	return r, nil
}

func decodeReport(from io.Reader) (*report, error) {
	dec := json.NewDecoder(io.LimitReader(from, maxReport))
	dec.DisallowUnknownFields()
	r := new(report)
	if err := dec.Decode(r); err != nil {
		return nil, err
	}
	for _, l := range r.Lines {
		most := max(len(l.Values), len(l.Limits), len(l.Ratios))
		for _, p := range l.Peers {
			most = max(most, len(p.Values))
		}
		if most > maxCount {
			return nil, fmt.Errorf("%q has more than %d figures", short(l.Name), maxCount)
		}
	}
	return r, nil
}

func (r *report) json(out io.Writer) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// about says in lines where the figures come from.
func (r *report) about() []string {
	at := r.Commit
	if r.Modified {
		at += " and changes"
	}
	times := "once each"
	if r.Count > 1 {
		times = fmt.Sprintf("medians of %d", r.Count)
	}
	if r.Quick {
		times += ", quick"
	}
	lines := []string{
		r.Machine.String(),
		fmt.Sprintf("commit %s, %s, %s, took %s, load %.1f before and %.1f after", at, r.Date.Format("2006-01-02 15:04"), times, r.Took, r.LoadBefore, r.LoadAfter),
	}
	for _, p := range r.Peers {
		text := fmt.Sprintf("%s %s: %s", p.Name, p.Version, p.Lacks)
		if p.Absent != "" {
			text = fmt.Sprintf("%s is not measured: %s", p.Name, p.Absent)
		}
		lines = append(lines, text)
	}
	if r.Compared != "" {
		lines = append(lines, "compared with commit "+r.Compared)
	}
	return lines
}

// rows are the table's, the heads first.
func (r *report) rows() [][]string {
	head := []string{"LINE", "VALUE", "LIMIT", "OF LIMIT", "TARGET"}
	var columns []string
	for _, p := range r.Peers {
		if p.Absent == "" {
			columns = append(columns, p.Name)
			head = append(head, strings.ToUpper(p.Name))
		}
	}
	if r.Compared != "" {
		head = append(head, "THAN BEFORE")
	}
	rows := [][]string{head}
	for _, l := range r.Lines {
		row := []string{l.Name, cell(l.Values, l.Unit, l.Skipped, l.Error), "", "", l.Target}
		if len(l.Limits) > 0 {
			row[2] = amount(median(l.Limits), l.Unit) + " " + l.LimitIs
		} else if len(l.Values) > 0 && l.LimitIs != "" {
			row[2] = "not measured: " + l.LimitIs
		}
		if len(l.Ratios) > 0 {
			row[3] = digits(median(l.Ratios))
		}
		if l.Verdict != "" {
			row[4] = l.Verdict + ": " + l.Target
		}
		for _, name := range columns {
			p := l.Peers[name]
			row = append(row, cell(p.Values, l.Unit, p.Skipped, p.Error))
		}
		if r.Compared != "" {
			than := l.Than
			if l.Change != 0 {
				than += " (x" + digits(l.Change) + ")"
			}
			row = append(row, than)
		}
		rows = append(rows, row)
	}
	return rows
}

// cell shows figures, or why there are none; it is empty if nobody was to have any.
func cell(values []float64, unit, skipped, failed string) string {
	switch {
	case len(values) == 0 && failed != "":
		return failed
	case len(values) == 0:
		return skipped
	}
	v := amount(median(values), unit)
	if len(values) > 1 {
		v += fmt.Sprintf(" ±%.0f%%", 100*spread(values))
	}
	if failed != "" {
		v += "; " + failed
	}
	return v
}

func (r *report) text(out io.Writer) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range r.rows() {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "\n%s\n", strings.Join(r.about(), "\n"))
	return err
}

func (r *report) markdown(out io.Writer) error {
	var b strings.Builder
	rows := r.rows()
	for i, row := range rows {
		if i > 0 {
			row[0] = r.Lines[i-1].Shows
		}
		for k, cell := range row {
			row[k] = strings.NewReplacer("|", `\|`, "\n", " ").Replace(cell)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(row)) + "|\n")
		}
	}
	fmt.Fprintf(&b, "\n%s.\n", strings.Join(r.about(), "; "))
	_, err := io.WriteString(out, b.String())
	return err
}

func printList(out io.Writer, lines []*line) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LINE\tSHOWS\tLIMIT\tTARGET\tMEASURED BY\tQUICK")
	for _, l := range lines {
		target, quick := "", "no"
		if l.target != nil {
			target = l.target.text(l)
		}
		if l.quick() {
			quick = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s Benchmark%s\t%s\n", l.name, l.shows, l.limitIs, target, l.value.bench.pkg, l.value.full(), quick)
	}
	_ = w.Flush()
}

// prefixes of units, from the greatest down.
var prefixes = []struct {
	factor float64
	name   string
}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}, {1e-3, "m"}, {1e-6, "µ"}, {1e-9, "n"}}

// amount is a figure with its unit, to read.
func amount(v float64, unit string) string {
	switch unit {
	case "":
		return digits(v)
	case "s", "B", "B/s":
	default: // a number of things
		return digits(v) + " " + unit
	}
	for _, p := range prefixes {
		if p.factor > 1 && unit == "s" {
			continue // nobody counts in kiloseconds
		}
		if math.Abs(v) >= p.factor || p.factor == 1 && unit != "s" {
			return digits(v/p.factor) + " " + p.name + unit
		}
	}
	return digits(v) + " " + unit
}

// digits rounds to three digits.
func digits(v float64) string {
	if a := math.Abs(v); a >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	} else if a >= 10 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
