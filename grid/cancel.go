package grid

import "context"

var errCancelled = Errorf(Canceled, "cancelled by request")

// Cancel ends a job: nothing more of it runs. What has been completed stays readable. A job that has
// ended before is a Conflict.
func (n *Node) Cancel(ctx context.Context, id JobID) error {
	j := n.job(id)
	if j == nil {
		st, err := n.Job(ctx, id)
		if err != nil {
			return err
		}
		switch {
		case st.State.Final():
			return Errorf(Conflict, "job %s is not running: it is %s", st.ID, st.State)
		case !n.Bound:
			return Errorf(Busy, "job %s is just being started", st.ID).Hint("try again")
		}
		return n.cancelIdle(ctx, st.ID)
	}
	n.post(JobEnded{Job: id})
	if !n.end(j, Cancelled, errCancelled) {
		return Errorf(Conflict, "job %s has just ended", id)
	}
	return nil
}

// cancelIdle cancels a job that this node has not taken up, as one that lives for one command does not:
// its record is all there is of it.
func (n *Node) cancelIdle(ctx context.Context, id JobID) error {
	page, err := n.Ledger.Range(ctx, Query{Prefix: jobKey(id), Limit: 1})
	if err != nil {
		return err
	}
	entries := page.Entries
	if len(entries) == 0 {
		return Errorf(NotFound, "no job %s on this node", id)
	}
	rec, err := decodeRecord(entries[0])
	if err != nil {
		return err
	}
	if rec.State.Final() {
		return Errorf(Conflict, "job %s has just ended", id)
	}
	rec.finish(Cancelled, errCancelled)
	_, err = n.putRecord(ctx, rec, entries[0].Version)
	return err
}
