package ledger

import "testing"

// TestNewVoter: the leader dies as soon as it is committed who else votes, and one of the others has not heard of it. Who has leads, with the vote
// of who takes it for a learner; and who takes itself for a learner has a vote.
func TestNewVoter(t *testing.T) {
	for name, late := range map[string]int{"the other voter": 1, "the new one": 2} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				w := newWorld(t, lan(1), nil)
				nodes := append(w.cluster(2, 0), w.start(2))
				leader, late, knows := nodes[0], nodes[late], nodes[3-late]
				w.must(nodes[2].replicate(w.ctx, testRealm))
				w.must(leader.addLearner(w.ctx, nodes[2].id))
				w.until("all know the learner", func() bool { return min(late.lastIndex(), knows.lastIndex()) >= leader.lastIndex() })
				w.cut(late, leader, knows)
				w.must(leader.promote(w.ctx, nodes[2].id))
				w.until("one knows the voter", func() bool { return knows.lastIndex() >= leader.lastIndex() })
				w.crash(leader)
				w.heal(late, knows)
				if got := w.leader(late, knows); got != knows {
					t.Error("who lacks an entry leads")
				}
				if _, err := late.Commit(w.ctx, put("a", "1")); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
