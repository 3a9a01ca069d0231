package grid

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// UsageCheck compares what the ledger says that a job has used with what its receipts say.
type UsageCheck struct {
	Job      JobID   `json:"job"`      // whose it is
	State    State   `json:"state"`    // of the job
	User     string  `json:"user"`     // for whom it ran
	Node     peer.ID `json:"node"`     // that accepted it
	Ledger   Usage   `json:"ledger"`   // without checks of results, whose receipts are not kept
	Receipts Usage   `json:"receipts"` // worked out anew; the time in CPU is as claimed
	Count    int     `json:"count"`    // receipts, those of tasks whose results were known with them
	// Forged are receipts that their nodes have not signed, the first of them.
	Forged []string `json:"forged,omitempty"`
	// Differs says in what ledger and receipts differ. Notes are no reason for doubt.
	Differs []string `json:"differs,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// OK reports whether nothing speaks against the ledger.
func (c *UsageCheck) OK() bool { return len(c.Forged) == 0 && len(c.Differs) == 0 }

// maxForged is how many forged receipts are listed.
const maxForged = 16

// RecountUsage works out anew, from the receipts that a job has left, what it has used, checks that each is signed by
// the node that it says has run its task, and compares that with the ledger.
func (n *Node) RecountUsage(ctx context.Context, id JobID) (c UsageCheck, err error) {
	j, rec, err := n.find(ctx, id)
	if err == nil && j != nil { // it may just have ended
		rec, _, err = n.readRecord(ctx, j.rec.ID)
	}
	if err != nil {
		return c, err
	}
	if !rec.State.Final() {
		return c, Errorf(Conflict, "job %s has not ended: what it uses is still counted", id).Hint("`grid wait %s` waits for it", id)
	}
	if rec.Used == nil {
		return c, Errorf(NotFound, "the ledger does not say what job %s has used: it was ended without its owner", rec.ID).
			Hint("what was counted until then is in `grid usage`")
	}
	spec, err := n.readSpec(ctx, &rec)
	if err != nil {
		return c, Errorf(CodeOf(err), "job %s: %w", rec.ID, err)
	}
	c = UsageCheck{Job: rec.ID, State: rec.State, User: rec.User, Node: rec.by().Node, Ledger: *rec.Used}
	var v verifier
	seen := make(map[taskRef]bool)
	err = n.storedTasks(ctx, &rec, taskPick{}, func(stage uint32, d *Completion) error {
		ref := taskRef{stage, d.Index}
		if int(stage) >= len(spec.Stages) || d.Index >= spec.Stages[stage].Tasks || seen[ref] {
			return Errorf(Corrupt, "job %s has a result of task %d of stage %d twice, or too many", rec.ID, d.Index, stage)
		}
		seen[ref] = true
		c.Count++
		c.Receipts.Add(d.claims(&spec.Stages[stage]))
		if err := v.verify(&d.Receipt); err != nil && len(c.Forged) < maxForged {
			c.Forged = append(c.Forged, fmt.Sprintf("task %d of stage %s: %v", d.Index, spec.Stages[stage].Name, err))
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	c.compare()
	return c, nil
}

// compare says in what the two differ.
func (c *UsageCheck) compare() {
	l, r := &c.Ledger, &c.Receipts
	checks := Usage{Checks: l.Checks, CheckT: l.CheckT, CheckF: l.CheckF}
	if checks != (Usage{}) {
		c.Notes = append(c.Notes, fmt.Sprintf("besides, %s for the verification of results took %v and %d of fuel: their receipts are not kept",
			plural(int(l.Checks), "run"), l.CheckT, l.CheckF))
	}
	if l.Capped > 0 {
		c.Notes = append(c.Notes, fmt.Sprintf("%v that receipts claim were not counted, as their nodes cannot have had so much time", l.Capped))
	}
	lost := false
	for _, f := range []struct {
		what            string
		ledger, receipt int64
		time            bool
	}{
		{"tasks", l.Tasks, r.Tasks, false}, {"tasks known before", l.Cached, r.Cached, false},
		{"CPU time", sumOf(int64(l.CPU), int64(l.Capped)), int64(r.CPU), true},
		{"fuel", l.Fuel, r.Fuel, false}, {"bytes read", l.Read, r.Read, false}, {"bytes written", l.Wrote, r.Wrote, false},
	} {
		if f.ledger == f.receipt {
			continue
		}
		if f.ledger > f.receipt && c.State != Done {
			lost = true
			continue
		}
		say := func(n int64) string {
			if f.time {
				return time.Duration(n).String()
			}
			return fmt.Sprint(n)
		}
		c.Differs = append(c.Differs, fmt.Sprintf("%s: the ledger says %s, the receipts %s", f.what, say(f.ledger), say(f.receipt)))
	}
	if lost {
		c.Notes = append(c.Notes, "the ledger says more than the receipts that are left: the job did not end well, and some were lost with an owner")
	}
}
