package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// recoveryFile is where `grid swarm init` leaves the recovery key.
const recoveryFile = "swarm-recovery-key"

func checkSwarm(_ context.Context, w *World) (out []Finding) {
	if w.Node == nil || w.Node.Private == nil {
		return nil
	}
	p := w.Node.Private
	if len(p.Disputed) > 0 {
		out = append(out, found(Failure, "it is in dispute whose the key of the swarm's authority is: %s; one was stolen", strings.Join(p.Disputed, ", ")).
			fix("who has the recovery key ends it: `grid swarm rotate-key --recover`"))
	}
	if len(p.Twin) > 0 {
		out = append(out, found(Failure, "another node runs with this one's key, at %s: the home was copied", strings.Join(p.Twin, ", ")).
			fix("end one of the two, or give it a key of its own: `grid member rotate-key`"))
	}
	switch {
	case p.Ended != "":
		out = append(out, found(Failure, "the node is a member of its swarm no more: %s", p.Ended).
			fix("start it again with a new token: `grid up --join TOKEN`; or `grid member renew %s` where the authority's key is, if it has only expired", w.Node.ID))
	case p.Ending:
		level := Warning
		if time.Now().After(p.Expires) {
			level = Failure
		}
		out = append(out, found(level, "the node's membership ends at %s", p.Expires.Local().Format(time.DateTime)).
			fix("who has the authority's key makes it last longer: `grid member renew %s`", w.Node.ID))
	}
	if _, err := os.Stat(filepath.Join(w.Home, recoveryFile)); err == nil {
		out = append(out, found(Warning, "the swarm's recovery key is on this machine").
			fix("move %s to a safe place: whoever has it has the swarm", filepath.Join(w.Home, recoveryFile)))
	}
	if len(out) == 0 {
		return one(found(OK, "a member of %s as %s", p.ID, p.Role))
	}
	return out
}
