package grid

import "context"

// Request is what a job was submitted with. Submitted once more, it makes a job that does the same; what tells where a stage's inputs are is
// a table that is there already, in place of rows.
func (n *Node) Request(ctx context.Context, id JobID) (Request, error) {
	j, rec, err := n.find(ctx, id)
	if err != nil {
		return Request{}, err
	}
	if j != nil {
		if rec, _, err = n.readRecord(ctx, j.rec.ID); err != nil {
			return Request{}, err
		}
	}
	spec, err := n.readSpec(ctx, &rec)
	if err != nil {
		return Request{}, Errorf(CodeOf(err), "job %s: %w", rec.ID, err)
	}
	return Request{Spec: *spec, NoCache: rec.Fresh, Replicas: rec.Replicas, Copies: rec.Copies, Publish: rec.Publish, Policy: rec.Policy}, nil
}
