package grid

import (
	"cmp"
	"context"
	"encoding/json"
)

// verdict is what an admission policy has made of a job, in words: events for its story.
type verdict []JobEvent

// askPolicy asks the realm's admission policy, if there is one, about a job whose spec is complete. It may demand that
// the job be verified; nothing else of the job is its to change.
func (n *Node) askPolicy(ctx context.Context, r *Request, spec *Spec) (said verdict, err error) {
	if err := n.readExtensions(ctx); err != nil {
		return nil, err
	}
	x, err := n.admission(ctx)
	if x == nil || err != nil {
		return nil, err
	}
	info := n.jobInfo(r, spec)
	data, err := json.Marshal(info)
	if err != nil {
		return nil, Errorf(Internal, "encode what the admission policy is told of the job: %w", err)
	}
	if len(data) > MaxExtensionInput { // whatever the fallback: a job must not get by because it is big
		return nil, Errorf(Limit, "what the admission policy %s would have to be told of the job has %d bytes, at most %d are possible", x, len(data), MaxExtensionInput).
			Hint("grant its stages less, or divide it")
	}
	var d Decision
	var v Verify
	answer, err := n.extend(ctx, x, info)
	if err == nil {
		if d, v, err = parseDecision(answer); err != nil {
			n.broken(x, err)
			err = Errorf(CodeOf(err), "%s: %w", x, err)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if x.Fallback == FallbackAccept {
			return verdict{{Kind: EventPolicy, Text: "accepted without the admission policy's consent, as that is broken: " + err.Error()}}, nil
		}
		return nil, Errorf(Denied, "the job is refused, as this realm's admission policy is broken: %w", err).
			Hint("tell who looks after the realm: `grid plugin attached` shows the policy, `grid plugin detach admission` takes it away")
	}
	if !*d.Accept {
		n.extensions.counted(x.Key(), func(c *ExtensionCounts) { c.Refused++ })
		n.log.Info("a job was refused", "policy", x.String(), "user", info.User, "job", info.Name, "reason", d.Reason)
		return nil, Errorf(Denied, "this realm's admission policy %s refuses the job: %s", x, cmp.Or(d.Reason, "it gives no reason")).
			Hint("change the job accordingly, or ask who looks after the realm; `grid plugin show %s` tells of the policy", x.Plugin)
	}
	text := "accepted by the admission policy " + x.String()
	if stricter(v, r.Verify) {
		if err := n.checkVerify(spec, v); err != nil {
			return nil, Errorf(Denied, "this realm's admission policy %s wants the job verified (%s), which it cannot be: %w", x, v, err)
		}
		n.extensions.counted(x.Key(), func(c *ExtensionCounts) { c.Verified++ })
		r.Verify = v
		text += ", which has it verified: " + v.String()
	}
	if d.Reason != "" {
		text += ": " + d.Reason
	}
	return verdict{{Kind: EventPolicy, Text: text}}, nil
}

// broken counts an answer that is none.
func (n *Node) broken(x *Extension, err error) {
	n.log.Warn("an extension is broken", "extension", x.Key(), "plugin", x.String(), "err", err)
	n.extensions.counted(x.Key(), func(c *ExtensionCounts) {
		c.Broken++
		c.Last = clean(err.Error(), maxReason)
	})
}

// stricter reports whether a verification believes less than another: a quorum less than trust that is earned, that less
// than samples, and those less than nothing; among the same kind, the greater number.
func stricter(v, than Verify) bool {
	rank := func(v Verify) int {
		switch v.Mode {
		case VerifyAudit:
			return 1
		case VerifyAdaptive:
			return 2
		case VerifyQuorum:
			return 3
		}
		return 0
	}
	return cmp.Or(cmp.Compare(rank(v), rank(than)), cmp.Compare(v.N, than.N)) > 0
}

// jobInfo sums a job up for a policy.
func (n *Node) jobInfo(r *Request, spec *Spec) *JobInfo {
	info := &JobInfo{
		Version: ExtensionVersion, Node: n.self.String(), User: r.User, Name: spec.Name, Priority: r.Priority, Parallel: r.Parallel,
		DeadlineMS: r.Deadline.Milliseconds(), Verify: r.Verify.String(), Replicas: r.Replicas, Publish: append([]string{}, r.Publish...), Stages: []StageInfo{},
	}
	for i := range spec.Stages {
		st := &spec.Stages[i]
		s := stageInfo(st)
		if i < len(r.Rows) {
			for _, row := range r.Rows[i] {
				for _, in := range row {
					s.InputBytes += uint64(max(in.Size, 0))
				}
			}
		}
		info.Tasks += uint64(s.Tasks)
		info.InputBytes += s.InputBytes
		info.Stages = append(info.Stages, s)
	}
	return info
}
