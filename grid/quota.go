package grid

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A realm may bound what its submitters use, all of them or some, in a day, a month or ever. The quotas are in the
// ledger, and every owner of jobs sees to it that they are kept, by what the ledger says was used: it accepts no job for
// whom one is used up, and pauses those that run until it begins anew or is raised.

// Per is for how long a quota is.
type Per string

// The times. Days and months are those of UTC.
const (
	PerDay   Per = "day"
	PerMonth Per = "month"
	PerTotal Per = "total" // for good
)

var allPer = []Per{PerDay, PerMonth, PerTotal}

// ParsePer reads one.
func ParsePer(s string) (Per, error) {
	if p := Per(s); slices.Contains(allPer, p) {
		return p, nil
	}
	return "", Errorf(Invalid, "a quota per %.40q", s).Hint("write day, month or total")
}

// since is the first day that counts on a day, again the time at which a quota begins anew, zero for never.
func (p Per) since(day Day) (first Day, again time.Time) {
	switch p {
	case PerDay:
		return day, (day + 1).Time()
	case PerMonth:
		return day.Month(), (day.Month() + 31).Month().Time()
	}
	return math.MinInt32, time.Time{}
}

// Allowance is a quota: what a submitter may use in a time. Zeros are no bounds.
type Allowance struct {
	// Subject is whom it is for. See [ParseSubject].
	Subject string        `cbor:"subject" json:"subject"`
	Per     Per           `cbor:"per" json:"per"`                           // the time that it is for
	Tasks   int64         `cbor:"tasks,omitempty" json:"tasks,omitempty"`   // attempts that were run
	CPU     time.Duration `cbor:"cpu,omitempty" json:"cpu_ns,omitempty"`    // of slots, checks of results with them
	Bytes   int64         `cbor:"bytes,omitempty" json:"bytes,omitempty"`   // that tasks read and write
	Stored  int64         `cbor:"stored,omitempty" json:"stored,omitempty"` // bytes pinned at a time, copies counted; of nodes
	Set     time.Time     `cbor:"set" json:"set"`                           // when it was set
	By      peer.ID       `cbor:"by" json:"by,omitempty"`                   // the node that set it
}

// The subjects that stand for all who have no quota of their own, for that time.
const (
	EveryUser = "default"
	EveryNode = "@default"
)

// ParseSubject reads whom a quota is for: USER, whichever node its jobs come from; @NODE, for all jobs that a node has
// accepted, whoever they are for; USER@NODE, for both; or [EveryUser] or [EveryNode], for each of those that have none of
// their own. A node is a peer ID.
func ParseSubject(text string) (user string, node peer.ID, err error) {
	bad := func(why string) error {
		return Errorf(Invalid, "a quota for %.100q: %s", text, why).
			Hint("write USER, @NODE, USER@NODE, or default or @default for each that has none of its own; `grid usage --by node` lists nodes")
	}
	if len(text) > 2*MaxName || !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\n") {
		return "", "", bad("that is no name")
	}
	i := strings.LastIndexByte(text, '@')
	switch {
	case text == "" || text == "@":
		return "", "", bad("whom is it for?")
	case text == EveryUser || text == EveryNode:
		return "", "", nil
	case i == 0:
		if node, err = peer.Decode(text[1:]); err != nil {
			return "", "", bad("no node has such an ID")
		}
		return "", node, nil
	case i > 0:
		if node, err = peer.Decode(text[i+1:]); err == nil {
			text = text[:i] // else the user is called so
		}
	}
	if len(text) > MaxName {
		return "", "", bad("no user has such a name")
	}
	return text, node, nil
}

// Check refuses a quota that makes no sense.
func (a *Allowance) Check() error {
	if _, err := ParsePer(string(a.Per)); err != nil {
		return err
	}
	_, node, err := ParseSubject(a.Subject)
	switch {
	case err != nil:
		return err
	case a.Tasks < 0 || a.CPU < 0 || a.Bytes < 0 || a.Stored < 0:
		return Errorf(Invalid, "the quota for %s: a bound is negative", a.Subject)
	case a.Tasks == 0 && a.CPU == 0 && a.Bytes == 0 && a.Stored == 0:
		return Errorf(Invalid, "the quota for %s bounds nothing", a.Subject).Hint("give --tasks, --cpu, --bytes or --stored; `grid quota rm` removes a quota")
	case a.Stored > 0 && a.Subject != EveryNode && (node == "" || a.Subject[0] != '@'):
		return Errorf(Invalid, "the quota for %s: what is pinned is only known by node, not by user", a.Subject).Hint("write @NODE or @default")
	}
	return nil
}

// QuotaKeys are where quotas are in a ledger, by time and subject: an [Allowance].
const QuotaKeys = "quota/"

func quotaKey(per Per, subject string) string { return QuotaKeys + string(per) + "/" + subject }

func decodeAllowance(e Entry) (a Allowance, err error) {
	if err = UnmarshalMessage(e.Value, &a); err == nil {
		err = a.Check()
	}
	if err == nil && e.Key != quotaKey(a.Per, a.Subject) {
		err = Errorf(Corrupt, "it is for %s per %s", a.Subject, a.Per)
	}
	if err != nil {
		return Allowance{}, Errorf(CodeOf(err), "ledger entry %.200q: %w", e.Key, err)
	}
	return a, nil
}

// bounds are a realm's quotas, by their keys.
type bounds map[string]Allowance

// of lists the quotas that a submitter is under.
func (b bounds) of(s Submitter) (list []Allowance) {
	user, node, _ := ParseSubject(s.User)
	named := node == "" && user == s.User // else a quota with that subject is not for the user
	own := func(per Per, subject, otherwise string, named bool) {
		a, ok := b[quotaKey(per, subject)]
		if !ok || !named {
			a, ok = b[quotaKey(per, otherwise)]
		}
		if ok {
			list = append(list, a)
		}
	}
	for _, per := range allPer {
		own(per, s.User, EveryUser, named)
		own(per, "@"+s.Node.String(), EveryNode, true)
		if a, ok := b[quotaKey(per, s.User+"@"+s.Node.String())]; ok {
			list = append(list, a)
		}
	}
	return list
}

// covers is the submitters whose usage counts together under a quota that s is under.
func (a *Allowance) covers(s Submitter) func(Submitter) bool {
	user, node, _ := ParseSubject(a.Subject)
	switch {
	case a.Subject == EveryUser:
		user = s.User
	case a.Subject == EveryNode:
		node = s.Node
	}
	return func(o Submitter) bool {
		return (node == "" || o.Node == node) && (user == "" && node != "" || o.User == user)
	}
}

// who says in words whom it bounds.
func (a *Allowance) who(s Submitter) string {
	user, node, _ := ParseSubject(a.Subject)
	switch {
	case a.Subject == EveryUser || user != "" && node == "":
		return "user " + cmp.Or(user, s.User)
	case user == "":
		return "node " + cmp.Or(node, s.Node).String()
	}
	return fmt.Sprintf("user %s of node %s", user, node)
}

// instance is the subject that a quota of its own would have.
func (a *Allowance) instance(s Submitter) string {
	switch a.Subject {
	case EveryUser:
		return s.User
	case EveryNode:
		return "@" + s.Node.String()
	}
	return a.Subject
}

// spending is what was used, at one moment, by whom.
type spending map[Submitter]History

func (sp spending) under(a *Allowance, s Submitter, day Day) (u Usage) {
	first, _ := a.Per.since(day)
	in := a.covers(s)
	for o, h := range sp {
		if in(o) {
			u.Add(h.Since(first))
		}
	}
	return u
}

// excess is a quota that is used up.
type excess struct {
	Allowance
	who   string
	of    string    // its subject, of a quota of its own
	what  string    // that is used up
	again time.Time // zero: never
}

func (x *excess) Error() string {
	text := fmt.Sprintf("%s has used up %s, the quota %s", x.who, x.what, x.when())
	if x.Subject == EveryUser || x.Subject == EveryNode {
		text += " of all that have none of their own"
	}
	return text
}

func (x *excess) when() string {
	if x.Per == PerTotal {
		return "in all"
	}
	return "a " + string(x.Per)
}

// until says when that ends.
func (x *excess) until() string {
	if x.again.IsZero() {
		return "when it is raised"
	}
	return fmt.Sprintf("at %s, or when it is raised", x.again.Format(time.RFC3339))
}

// err refuses a job.
func (x *excess) err() error {
	return Errorf(Limit, "%s", x.Error()).Hint("jobs are accepted again %s; `grid quota show` tells how it stands, `grid quota set %s` raises it", x.until(), x.Subject)
}

// judge says which of the quotas of a submitter is used up, nil for none, and what is left until one is: of Tasks, CPU
// and, as Read, of bytes.
func (b bounds) judge(s Submitter, sp spending, day Day) (over *excess, left Usage) {
	left = Usage{Tasks: math.MaxInt64, CPU: math.MaxInt64, Read: math.MaxInt64}
	for _, a := range b.of(s) {
		u := sp.under(&a, s, day)
		what := ""
		if a.Tasks > 0 {
			if left.Tasks = min(left.Tasks, a.Tasks-u.Tasks); u.Tasks >= a.Tasks {
				what = plural(int(a.Tasks), "task")
			}
		}
		if a.CPU > 0 {
			if left.CPU = min(left.CPU, a.CPU-u.Spent()); u.Spent() >= a.CPU {
				what = fmt.Sprintf("%v of CPU time", a.CPU)
			}
		}
		if a.Bytes > 0 {
			if left.Read = min(left.Read, a.Bytes-u.Bytes()); u.Bytes() >= a.Bytes {
				what = sizeText(uint64(a.Bytes)) + " read and written"
			}
		}
		if what == "" {
			continue
		}
		_, again := a.Per.since(day)
		x := &excess{a, a.who(s), a.instance(s), what, again}
		if over == nil || x.again.IsZero() || !over.again.IsZero() && x.again.After(over.again) {
			over = x // the one that lasts longest
		}
	}
	return over, left
}
