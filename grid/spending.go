package grid

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// readUsage reads what the ledger says was used: sums, and entries of jobs that have not been folded into them.
func (n *Node) readUsage(ctx context.Context, stale bool) (sum spending, open map[JobID]jobUsage, err error) {
	sum, open = make(spending), make(map[JobID]jobUsage)
	_, err = RangeAll(ctx, n.Ledger, UsageKeys, stale, func(e Entry) error {
		switch {
		case strings.HasPrefix(e.Key, usageJobKeys):
			u, err := decodeJobUsage(e)
			if err != nil {
				n.log.Error("what a job has used is not counted", "err", err)
				return nil
			}
			open[JobID(strings.TrimPrefix(e.Key, usageJobKeys))] = u
		case strings.HasPrefix(e.Key, usageSumKeys):
			s, h, err := decodeSum(e)
			if err != nil {
				n.log.Error("what a submitter has used is not counted", "err", err)
				return nil
			}
			sum[s] = h
		}
		return nil
	})
	return sum, open, err
}

func decodeSum(e Entry) (s Submitter, h History, err error) {
	id, user, ok := strings.Cut(strings.TrimPrefix(e.Key, usageSumKeys), "/")
	node, err := peer.Decode(id)
	if err == nil && (!ok || len(user) > MaxName) {
		err = Errorf(Invalid, "it is of nobody")
	}
	if err == nil {
		err = UnmarshalMessage(e.Value, &h)
	}
	if err == nil {
		err = h.check()
	}
	if err != nil {
		return s, nil, Errorf(Corrupt, "ledger entry %.200q: %w", e.Key, err)
	}
	return Submitter{node, user}, h, nil
}

const (
	// foldEvery is how often the leader's node folds what jobs have used that have ended.
	foldEvery = 15 * time.Second
	// foldMany is how many of them are folded in one transaction.
	foldMany = 100
	// foldLeft is how many a command leaves for later.
	foldLeft = 64
	// maxUsers bounds the users of one node that have a sum of their own. What others use counts for the node, and
	// for the user "", so that a node that makes names up makes no more entries than that.
	maxUsers = 256
)

// keepUsage folds usage, if this node is its ledger's leader.
func (n *Node) keepUsage() {
	for n.sleep(foldEvery) {
		ctx, cancel := context.WithTimeout(n.ctx, ledgerTimeout)
		st, err := n.Ledger.Status(ctx)
		if err == nil && st.Role == Leader {
			_, err = n.FoldUsage(ctx, 1)
		}
		cancel()
		if err != nil && n.ctx.Err() == nil {
			n.log.Warn("usage is not folded", "err", err)
		}
	}
}

// foldBound folds what commands have left.
func (n *Node) foldBound() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.ctx), ledgerTimeout)
	defer cancel()
	if _, err := n.FoldUsage(ctx, foldLeft); err != nil {
		n.log.Warn("usage is not folded", "err", err)
	}
}

// FoldUsage adds what jobs have used that have ended to the sums of their submitters, if there are at least so many, and
// tells how many there were. Whoever else does the same, each job is added once.
func (n *Node) FoldUsage(ctx context.Context, least int) (folded int, err error) {
	running := make(map[JobID]bool)
	_, err = RangeAll(ctx, n.Ledger, OpenKeys, true, func(e Entry) error {
		running[JobID(strings.TrimPrefix(e.Key, OpenKeys))] = true
		return nil
	})
	if err != nil {
		return 0, err
	}
	var ended []Entry
	sums := make(map[string]Entry)
	users := make(map[peer.ID]int)
	_, err = RangeAll(ctx, n.Ledger, UsageKeys, true, func(e Entry) error {
		if strings.HasPrefix(e.Key, usageSumKeys) {
			if s, _, err := decodeSum(e); err == nil {
				sums[e.Key] = e
				users[s.Node]++
			}
		} else if id := JobID(strings.TrimPrefix(e.Key, usageJobKeys)); strings.HasPrefix(e.Key, usageJobKeys) && !running[id] {
			ended = append(ended, e)
		}
		return nil
	})
	if err != nil || len(ended) < least {
		return 0, err
	}
	for some := range slices.Chunk(ended, foldMany) {
		if err := n.fold(ctx, some, sums, users); err != nil {
			if CodeOf(err) == Conflict { // somebody else has, or a job was not over; the next time
				return folded, nil
			}
			return folded, err
		}
		folded += len(some)
	}
	return folded, nil
}

// fold adds the entries of jobs to sums, in one transaction.
func (n *Node) fold(ctx context.Context, jobs []Entry, sums map[string]Entry, users map[peer.ID]int) error {
	t := Txn{ID: NewRequestID()}
	next := make(map[string]History)
	var keys []string
	for _, e := range jobs {
		id := JobID(strings.TrimPrefix(e.Key, usageJobKeys))
		t.If = append(t.If, Cond{Key: e.Key, Version: e.Version}, Cond{Key: openKey(id)})
		t.Delete = append(t.Delete, e.Key)
		u, err := decodeJobUsage(e)
		if err != nil || u.Node.Validate() != nil || len(u.User) > MaxName {
			n.log.Error("what a job has used is not counted", "job", id, "err", err)
			continue
		}
		key := usageSumKey(u.Submitter)
		if _, known := sums[key]; !known && next[key] == nil {
			if users[u.Node] >= maxUsers {
				key = usageSumKey(Submitter{Node: u.Node})
			}
			if _, known := sums[key]; !known && next[key] == nil {
				users[u.Node]++
			}
		}
		if next[key] == nil {
			keys = append(keys, key)
			next[key] = History{}
			if old, ok := sums[key]; ok {
				_, next[key], _ = decodeSum(old)
			}
		}
		next[key] = next[key].Merge(u.Used)
	}
	for _, key := range keys {
		value, err := Marshal(next[key])
		if err != nil {
			return Errorf(Internal, "encode usage: %w", err)
		}
		t.If = append(t.If, Cond{Key: key, Version: sums[key].Version})
		t.Put = append(t.Put, Entry{Key: key, Value: value})
	}
	rev, err := n.Ledger.Commit(ctx, t)
	if err != nil {
		return err
	}
	for _, e := range t.Put {
		e.Version = rev
		sums[e.Key] = e
	}
	return nil
}

// UsageBy says whose usage is added up.
type UsageBy string

// The ways.
const (
	ByUser UsageBy = "user"
	ByNode UsageBy = "node" // that accepted the jobs
	ByJob  UsageBy = "job"  // of those whose records are kept
)

// Used is what somebody, or a job, has used.
type Used struct {
	User  string  `json:"user,omitempty"`  // absent when it is not by user
	Node  peer.ID `json:"node,omitempty"`  // that accepted the jobs
	Job   JobID   `json:"job,omitempty"`   // absent when it is not by job
	State State   `json:"state,omitempty"` // of the job
	Usage
	// Quotas are those that bound the user or node, with what counts against them.
	Quotas []QuotaStatus `json:"quotas,omitempty"`
}

// QuotaStatus is a quota, and how it stands for one submitter.
type QuotaStatus struct {
	Allowance
	For    string    `json:"for,omitempty"`        // whom it bounds: the subject of a quota of its own; "": each of many
	Used   *Usage    `json:"used,omitempty"`       // of it
	Over   string    `json:"over,omitempty"`       // what is used up
	Again  time.Time `json:"again,omitzero"`       // when it begins anew; zero: never
	Pinned int64     `json:"stored_now,omitempty"` // bytes pinned now, if they are bounded
}

// Usage tells what was used since a day, of all that the realm knows; who has used most comes first. By ByJob it is
// what jobs have used in all that were submitted since.
func (n *Node) Usage(ctx context.Context, by UsageBy, since Day) ([]Used, error) {
	var list []Used
	switch by {
	case ByJob:
		var err error
		if list, err = n.usedByJob(ctx, since); err != nil {
			return nil, err
		}
	case ByUser, ByNode:
		now := time.Now()
		b, err := n.quotas(ctx)
		if err != nil {
			return nil, err
		}
		sp, err := n.spendingNow(ctx, now)
		if err != nil {
			return nil, err
		}
		list = usedBy(sp, b, by, since, DayOf(now))
	default:
		return nil, Errorf(Invalid, "usage by %.40q", by).Hint("write user, node or job")
	}
	slices.SortStableFunc(list, func(a, b Used) int {
		return cmp.Or(cmp.Compare(b.Spent(), a.Spent()), cmp.Compare(b.Tasks, a.Tasks), strings.Compare(a.User, b.User), strings.Compare(string(a.Node), string(b.Node)))
	})
	return list, nil
}

func usedBy(sp spending, b bounds, by UsageBy, since, day Day) []Used {
	all := make(map[Submitter]*Used)
	var list []*Used
	for s, h := range sp {
		key := Submitter{User: s.User}
		subject := s.User
		if by == ByNode {
			key, subject = Submitter{Node: s.Node}, "@"+s.Node.String()
		}
		u := all[key]
		if u == nil {
			u = &Used{User: key.User, Node: key.Node}
			for _, a := range b.of(s) {
				if a.instance(s) == subject {
					u.Quotas = append(u.Quotas, sp.stands(&a, s, day))
				}
			}
			all[key] = u
			list = append(list, u)
		}
		u.Usage.Add(h.Since(since))
	}
	out := make([]Used, len(list))
	for i, u := range list {
		out[i] = *u
	}
	return out
}

// TopUsers tells what was used in all, as far as this node knows without asking others: by those users who have used
// most, so many of them, and last by all others together, whose user is "".
func (n *Node) TopUsers(ctx context.Context, most int) ([]Used, error) {
	now := time.Now()
	sp, err := n.spending(ctx, now)
	if err != nil {
		return nil, err
	}
	list := usedBy(sp, nil, ByUser, math.MinInt32, DayOf(now))
	slices.SortFunc(list, func(a, b Used) int {
		return cmp.Or(cmp.Compare(b.Spent(), a.Spent()), strings.Compare(a.User, b.User))
	})
	var top []Used
	var others Used
	for _, u := range list {
		if u.User == "" || len(top) >= most {
			others.Usage.Add(u.Usage)
		} else {
			top = append(top, u)
		}
	}
	return append(top, others), nil
}

// stands tells how a quota stands for a submitter who is under it.
func (sp spending) stands(a *Allowance, s Submitter, day Day) QuotaStatus {
	u := sp.under(a, s, day)
	q := QuotaStatus{Allowance: *a, For: a.instance(s), Used: &u}
	_, q.Again = a.Per.since(day)
	if over, _ := (bounds{quotaKey(a.Per, a.Subject): *a}).judge(s, sp, day); over != nil {
		q.Over = over.what
	}
	return q
}

func (n *Node) usedByJob(ctx context.Context, since Day) (list []Used, err error) {
	_, open, err := n.readUsage(ctx, false)
	if err != nil {
		return nil, err
	}
	_, err = RangeAll(ctx, n.Ledger, JobKeys, false, func(e Entry) error {
		rec, err := decodeRecord(e)
		if err != nil || DayOf(rec.Submitted) < since {
			return nil
		}
		u := Used{User: rec.User, Node: rec.by().Node, Job: rec.ID, State: rec.State}
		switch j := n.own(rec.ID); {
		case rec.Used != nil:
			u.Usage = *rec.Used
		case j != nil:
			_, h := j.usedNow(time.Now())
			u.Usage = h.Total()
		default:
			u.Usage = open[rec.ID].Used.Total()
		}
		list = append(list, u)
		return nil
	})
	return list, err
}

// Quotas lists the realm's quotas, with how each stands that is for one submitter; or, with a subject, those that bound
// it. For a user all that the user does counts, and for a node all that it accepts.
func (n *Node) Quotas(ctx context.Context, subject string) ([]QuotaStatus, error) {
	b := make(bounds)
	_, err := RangeAll(ctx, n.Ledger, QuotaKeys, false, func(e Entry) error {
		if a, err := decodeAllowance(e); err == nil {
			b[e.Key] = a
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	now := time.Now()
	sp, err := n.spendingNow(ctx, now)
	if err != nil {
		return nil, err
	}
	day := DayOf(now)
	var list []QuotaStatus
	if subject != "" && subject != EveryUser && subject != EveryNode {
		user, node, err := ParseSubject(subject)
		if err != nil {
			return nil, err
		}
		s := Submitter{node, user}
		for _, a := range b.of(s) {
			if (user != "" || a.Subject[0] == '@') && (node != "" || !strings.Contains(a.Subject, "@") || a.Subject == user) {
				list = append(list, n.withStored(ctx, sp.stands(&a, s, day)))
			}
		}
		return list, nil
	}
	for _, a := range b {
		if subject != "" && a.Subject != subject {
			continue
		}
		q := QuotaStatus{Allowance: a}
		if a.Subject != EveryUser && a.Subject != EveryNode {
			user, node, _ := ParseSubject(a.Subject)
			q = n.withStored(ctx, sp.stands(&a, Submitter{node, user}, day))
		}
		list = append(list, q)
	}
	slices.SortFunc(list, func(a, b QuotaStatus) int {
		return cmp.Or(strings.Compare(a.Subject, b.Subject), cmp.Compare(slices.Index(allPer, a.Per), slices.Index(allPer, b.Per)))
	})
	return list, nil
}

// The acts of the audit log that are about quotas.
const (
	ActSetQuota    AuditAct = "quota.set"
	ActRemoveQuota AuditAct = "quota.remove"
)

// MaxQuotas bounds a realm's quotas.
const MaxQuotas = 1 << 12

// SetQuota sets a quota, in place of one for the same subject and time. It is kept from then on, of jobs that run as of
// new ones.
func (n *Node) SetQuota(ctx context.Context, a Allowance) (Allowance, error) {
	a.Set, a.By = time.Now().UTC(), n.self
	if err := a.Check(); err != nil {
		return a, err
	}
	value, err := Marshal(a)
	if err != nil {
		return a, Errorf(Internal, "encode a quota: %w", err)
	}
	page, err := n.Ledger.Range(ctx, Query{Prefix: QuotaKeys, Limit: MaxQuotas})
	if err != nil {
		return a, err
	}
	key := quotaKey(a.Per, a.Subject)
	if len(page.Entries) >= MaxQuotas && !slices.ContainsFunc(page.Entries, func(e Entry) bool { return e.Key == key }) {
		return a, Errorf(Limit, "the realm has %d quotas, as many as it may", MaxQuotas).Hint("remove some with `grid quota rm`, or use default")
	}
	_, err = Update(ctx, n.Ledger, func(tx *Tx) error {
		if _, _, err := tx.Get(key); err != nil {
			return err
		}
		tx.Put(key, value)
		return n.auditIn(tx, AuditFact{Act: ActSetQuota, Subject: a.Subject, Note: a.String()})
	})
	return a, err
}

// RemoveQuota removes a quota. The error is NotFound when there is none.
func (n *Node) RemoveQuota(ctx context.Context, subject string, per Per) error {
	if _, err := ParsePer(string(per)); err != nil {
		return err
	}
	if _, _, err := ParseSubject(subject); err != nil {
		return err
	}
	key := quotaKey(per, subject)
	_, err := Update(ctx, n.Ledger, func(tx *Tx) error {
		if _, ok, err := tx.Get(key); err != nil || !ok {
			return cmp.Or(err, error(Errorf(NotFound, "%s has no quota per %s", subject, per).Hint("`grid quota ls` lists the quotas")))
		}
		tx.Delete(key)
		return n.auditIn(tx, AuditFact{Act: ActRemoveQuota, Subject: subject, Note: "per " + string(per)})
	})
	return err
}

// String tells what a quota allows.
func (a *Allowance) String() string {
	var parts []string
	if a.Tasks > 0 {
		parts = append(parts, plural(int(a.Tasks), "task"))
	}
	if a.CPU > 0 {
		parts = append(parts, a.CPU.String()+" of CPU time")
	}
	if a.Bytes > 0 {
		parts = append(parts, sizeText(uint64(a.Bytes))+" read and written")
	}
	text := strings.Join(parts, ", ")
	if text != "" {
		text += map[Per]string{PerDay: " a day", PerMonth: " a month", PerTotal: " in all"}[a.Per]
	}
	if a.Stored > 0 {
		if text != "" {
			text += "; "
		}
		text += sizeText(uint64(a.Stored)) + " stored"
	}
	return text
}
