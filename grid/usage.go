package grid

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// What tasks use is counted by the owner of their job, from the signed receipts that count, and written into the ledger
// in the very transactions that record what the job has come to: with a checkpoint what the tasks in it have used, with
// the end all the rest. So it is fenced as the job's record is, and a task is counted once, however often it was tried
// and whoever owned the job. The entry of a job that has ended is folded, at some time, into the sum of its submitter.
// Nothing is written for a task.

// Submitter is for whom a job runs: a user, by the name that the node gives which accepted the job. Who that node is is
// proven; the user is what it says.
type Submitter struct {
	Node peer.ID `cbor:"node" json:"node"`
	User string  `cbor:"user" json:"user"`
}

// Usage is what tasks have used. Times and numbers that do not fit stay at the greatest that do.
type Usage struct {
	Tasks  int64         `cbor:"tasks,omitempty" json:"tasks"`           // that were run, with those that they spawned
	Cached int64         `cbor:"cached,omitempty" json:"cached"`         // whose results were known, at no cost
	CPU    time.Duration `cbor:"cpu,omitempty" json:"cpu_ns"`            // running time of guests, times the slots of each
	Capped time.Duration `cbor:"capped,omitempty" json:"capped_cpu_ns"`  // claimed in receipts besides, and not believed
	Fuel   int64         `cbor:"fuel,omitempty" json:"fuel"`             // work
	Read   int64         `cbor:"read,omitempty" json:"read_bytes"`       // of inputs, as their tables say
	Wrote  int64         `cbor:"wrote,omitempty" json:"wrote_bytes"`     // to standard output and error, and to /out
	Checks int64         `cbor:"checks,omitempty" json:"check_runs"`     // of the same tasks by more nodes, to verify their results
	CheckT time.Duration `cbor:"checkcpu,omitempty" json:"check_cpu_ns"` // what these took, which is not in CPU
	CheckF int64         `cbor:"checkfuel,omitempty" json:"check_fuel"`  // nor this in Fuel
}

// Bytes are those that count against a quota.
func (u *Usage) Bytes() int64 { return sumOf(u.Read, u.Wrote) }

// Spent is the time that counts against a quota: of checks, too.
func (u *Usage) Spent() time.Duration { return time.Duration(sumOf(int64(u.CPU), int64(u.CheckT))) }

// sumOf adds without overflow.
func sumOf(a, b int64) int64 {
	switch {
	case b > 0 && a > math.MaxInt64-b:
		return math.MaxInt64
	case b < 0 && a < math.MinInt64-b:
		return math.MinInt64
	}
	return a + b
}

func (u *Usage) fields() [10]*int64 {
	return [...]*int64{&u.Tasks, &u.Cached, (*int64)(&u.CPU), (*int64)(&u.Capped), &u.Fuel, &u.Read, &u.Wrote, &u.Checks, (*int64)(&u.CheckT), &u.CheckF}
}

// Add adds what was used besides.
func (u *Usage) Add(o Usage) {
	mine, other := u.fields(), o.fields()
	for i := range mine {
		*mine[i] = sumOf(*mine[i], *other[i])
	}
}

// less is what u has more than o.
func (u Usage) less(o Usage) Usage {
	mine, other := u.fields(), o.fields()
	for i := range mine {
		if *other[i] == math.MinInt64 {
			*mine[i] = math.MaxInt64
		} else {
			*mine[i] = sumOf(*mine[i], -*other[i])
		}
	}
	return u
}

// Day counts the days since 1970, in UTC.
type Day int32

// DayOf is the day of a time.
func DayOf(t time.Time) Day { return Day(math.Floor(float64(t.Unix()) / 86400)) }

// Time is when the day begins.
func (d Day) Time() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// Month is the first day of the day's month.
func (d Day) Month() Day {
	y, m, _ := d.Time().Date()
	return DayOf(time.Date(y, m, 1, 0, 0, 0, 0, time.UTC))
}

// UsedOn is what was used on a day; or, long ago, in the month that begins with it.
type UsedOn struct {
	Day Day `cbor:"day" json:"day"`
	Usage
}

// History is what was used, by day, the oldest first: of this month by day, of months before by month.
type History []UsedOn

// maxMonths bounds the months that are told apart; what was before them is all in the first.
const maxMonths = 24

// maxHistory bounds the entries of one: the days of two months, for a clock that is behind, and months.
const maxHistory = 2*31 + maxMonths + 1

// Add counts what was used on a day. A day before the last one that was counted is taken for that: time does not run
// backwards. Of months that are over the days are folded.
func (h History) Add(day Day, u Usage) History {
	h = slices.Clone(h)
	if n := len(h); n == 0 || h[n-1].Day < day {
		h = append(h, UsedOn{Day: day})
	}
	h[len(h)-1].Usage.Add(u)
	return h.fold()
}

// Merge counts another history besides.
func (h History) Merge(o History) History {
	all := slices.Concat(h, o)
	slices.SortStableFunc(all, func(a, b UsedOn) int { return cmp.Compare(a.Day, b.Day) })
	return all.fold()
}

// fold brings together equal days, the days of each month but the last, and the oldest months. It may use h up.
func (h History) fold() History {
	if len(h) == 0 {
		return h
	}
	month := h[len(h)-1].Day.Month()
	out := h[:0]
	for _, p := range h {
		if p.Day < month {
			p.Day = p.Day.Month()
		}
		if n := len(out); n > 0 && out[n-1].Day == p.Day {
			out[n-1].Usage.Add(p.Usage)
		} else {
			out = append(out, p)
		}
	}
	old, _ := slices.BinarySearchFunc(out, month, func(p UsedOn, d Day) int { return cmp.Compare(p.Day, d) })
	if extra := old - maxMonths; extra > 0 {
		for _, p := range out[:extra] {
			out[extra].Usage.Add(p.Usage)
		}
		out = slices.Delete(out, 0, extra)
	}
	return out
}

// Since sums up what was used on a day and after. Of months that were folded all of it counts that began then.
func (h History) Since(day Day) (u Usage) {
	for _, p := range h {
		if p.Day >= day {
			u.Add(p.Usage)
		}
	}
	return u
}

// Total sums up all.
func (h History) Total() Usage { return h.Since(math.MinInt32) }

func (h History) check() error {
	if len(h) > maxHistory || !slices.IsSortedFunc(h, func(a, b UsedOn) int { return cmp.Compare(a.Day, b.Day) }) {
		return Errorf(Corrupt, "a history of %d days is none", len(h))
	}
	return nil
}

// ran reports whether a node has run the task for this result, and not only said what became of it.
func (c *Completion) ran() bool { return (!c.Cached || c.Earlier) && c.Receipt.Phases != Phases{} }

// earlier reports whether a result that was known is of an attempt that was made for this very job, and that its last
// owner has not told of: what was begun since it was submitted. Only one that has been taken over asks for those.
func (j *job) earlier(c *Completion) bool {
	return c.Cached && j.inherited && c.Receipt.Started >= j.rec.Submitted.UnixNano()
}

// claims is what a completion says that its task has used, in a stage. Nothing but the receipt, and what the owner
// itself has noted of the task's inputs, goes into it, so it can be worked out again at any time.
func (c *Completion) claims(st *Stage) (u Usage) {
	if c.Cached && !c.Earlier {
		return Usage{Cached: 1}
	}
	if !c.ran() {
		return Usage{}
	}
	r := &c.Receipt
	u.Tasks = sumOf(1, clampInt(r.Spawned))
	u.CPU = r.slotTime(st)
	u.Fuel = sumOf(clampInt(r.Fuel), clampInt(r.SpawnedFuel))
	u.Read = max(c.Read, 0)
	u.Wrote = sumOf(sumOf(r.Stdout.Size, r.Stderr.Size), r.OutSize)
	return u
}

// slotTime is for how long the receipt says that slots were used: by its task, while it was not parked, and by those
// that it spawned and awaited, of each no more than its stage allows.
func (r *Receipt) slotTime(st *Stage) time.Duration {
	run := max(r.Phases.Run-r.Phases.Parked, 0)
	spawned := min(max(r.SpawnedRun, 0), mulOf(clampInt(r.Spawned), int64(st.Limits.Wall)))
	return mulOf(int64(max(st.Reserve.Cores, 1)), sumOf(int64(run), int64(spawned)))
}

func clampInt(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// mulOf multiplies without overflow what is not negative.
func mulOf(n, d int64) time.Duration {
	if n > 0 && d > math.MaxInt64/n {
		return math.MaxInt64
	}
	return time.Duration(n * d)
}

// A node cannot have used more slots than it has for longer than its job lasts. What is claimed beyond is capped.
const (
	// capSlack is allowed besides, for clocks that differ.
	capSlack = 10 * time.Second
	// capSlots is how many slots a node is taken to have that does not say.
	capSlots = 256
)

// meter is what a job's owner knows of its usage. It is guarded by the job's mu.
type meter struct {
	all   Usage   // of all that is booked
	mine  Usage   // of what this owner has booked, and no checkpoint had before
	base  Usage   // what was counted before this owner
	wrote History // what is counted in the ledger

	submitted time.Time
	slots     func(peer.ID) int // that a node has; 0: it does not say
	nodes     map[peer.ID]*claimed
	last      peer.ID // one of them, mostly that of the next result, too
	lastUse   *claimed

	most   *Usage // mine may be so much until quotas are looked at again; nil: anything
	passed func() // it is more
}

// claimed is what one node has claimed.
type claimed struct{ cpu, limit time.Duration }

// count takes in what has just been booked; saved says that the ledger has it already.
func (m *meter) count(st *Stage, c *Completion, saved bool) Usage {
	u := c.claims(st)
	if u.CPU > 0 {
		u.CPU, u.Capped = m.cap(c.Receipt.Node, u.CPU)
	}
	m.note(u, saved)
	return u
}

func (m *meter) note(u Usage, saved bool) {
	m.all.Add(u)
	if saved {
		return
	}
	m.mine.Add(u)
	if l := m.most; l != nil && (m.mine.Tasks >= l.Tasks || m.mine.Spent() >= l.CPU || m.mine.Bytes() >= l.Read) {
		m.most = nil // once
		m.passed()
	}
}

// checked takes in what runs have cost that were made only to verify results.
func (m *meter) checked(st *Stage, said []Testimony, winner int, liars []int) (u Usage) {
	for k := range said {
		if k == winner || slices.Contains(liars, k) {
			continue
		}
		run, _ := m.cap(said[k].Node, mulOf(int64(max(st.Reserve.Cores, 1)), int64(max(said[k].Run, 0))))
		u.Add(Usage{Checks: 1, CheckT: run, CheckF: clampInt(said[k].Fuel)})
	}
	m.note(u, false)
	return u
}

// cap is how much of a claim of a node is believed.
func (m *meter) cap(node peer.ID, claim time.Duration) (believed, rest time.Duration) {
	if node != m.last || m.lastUse == nil {
		if m.nodes == nil {
			m.nodes = make(map[peer.ID]*claimed)
		}
		if m.last, m.lastUse = node, m.nodes[node]; m.lastUse == nil {
			m.lastUse = new(claimed)
			m.nodes[node] = m.lastUse
		}
	}
	n := m.lastUse
	if sumOf(int64(n.cpu), int64(claim)) > int64(n.limit) {
		slots := 0
		if m.slots != nil {
			slots = m.slots(node)
		}
		if slots <= 0 {
			slots = capSlots
		}
		n.limit = mulOf(int64(slots), int64(max(time.Since(m.submitted), 0)+capSlack))
	}
	believed = max(min(claim, n.limit-n.cpu), 0)
	n.cpu = time.Duration(sumOf(int64(n.cpu), int64(believed)))
	return believed, claim - believed
}

// jobUsage is the entry of a job.
type jobUsage struct {
	Submitter
	Used History `cbor:"used"`
}

// UsageKeys are where usage is in a ledger.
const (
	UsageKeys    = "usage/"
	usageJobKeys = UsageKeys + "job/" // by ID: a jobUsage, until the job has ended and it is folded
	usageSumKeys = UsageKeys + "sum/" // by node and user: a History
)

func usageJobKey(id JobID) string { return usageJobKeys + string(id) }

func usageSumKey(s Submitter) string { return usageSumKeys + s.Node.String() + "/" + s.User }

// by is for whom a job runs.
func (r *Record) by() Submitter {
	return Submitter{Node: r.origin(), User: r.User}
}

// countIn adds to a transaction that writes the job's record what was used besides what the ledger has, of which it
// returns all. now is when it was counted.
func (j *job) countIn(t *Txn, u Usage, now time.Time) (History, error) {
	j.mu.Lock()
	used := j.meter.wrote.Add(DayOf(now), u)
	by := j.rec.by()
	j.mu.Unlock()
	data, err := Marshal(jobUsage{by, used})
	if err != nil {
		return nil, Errorf(Internal, "encode the usage of job %s: %w", j.rec.ID, err)
	}
	t.Put = append(t.Put, Entry{Key: usageJobKey(j.rec.ID), Value: data})
	return used, nil
}

// counted notes what the ledger has.
func (j *job) counted(used History) {
	j.mu.Lock()
	j.meter.wrote = used
	j.mu.Unlock()
}

// readUsed reads what was counted of a job before this owner.
func (n *Node) readUsed(ctx context.Context, j *job) error {
	e, err := n.Ledger.Get(ctx, usageJobKey(j.rec.ID))
	if err != nil {
		if CodeOf(err) == NotFound {
			return nil
		}
		return err
	}
	u, err := decodeJobUsage(e)
	if err != nil {
		n.log.Error("what a job has used is not known; it is counted anew", "job", j.rec.ID, "err", err)
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.meter.wrote, j.meter.base = u.Used, u.Used.Total()
	return nil
}

func decodeJobUsage(e Entry) (u jobUsage, err error) {
	if err = UnmarshalMessage(e.Value, &u); err == nil {
		err = u.Used.check()
	}
	if err != nil {
		return jobUsage{}, Errorf(Corrupt, "ledger entry %.200q: %w", e.Key, err)
	}
	return u, nil
}

// slotsOf is how many slots a node has, as far as it says so; 0: not.
func (n *Node) slotsOf(id peer.ID) int {
	if id == n.self {
		return n.Slots
	}
	if n.realm != nil {
		if has, ok := n.realm.capacity(id); ok {
			return has.Slots
		}
	}
	return 0
}

// used is all that a job has used. When it is done, what is booked says it all; else something may have been lost that
// was counted before this owner.
func (j *job) used(state State) Usage {
	u := j.meter.base
	u.Add(j.meter.mine)
	if state == Done {
		checks := u
		u = j.meter.all
		u.Checks, u.CheckT, u.CheckF = checks.Checks, checks.CheckT, checks.CheckF
	}
	return u
}
