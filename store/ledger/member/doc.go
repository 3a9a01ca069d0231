// Package member decides which nodes of a realm keep copies of its ledger, and which of these vote. The
// [Planner] is a state machine: the leader shows it how things are, and gets back one step at a time. It does
// no I/O, reads no clock, starts no goroutine and takes no lock. Making the change, and finding out who is up,
// is its caller's business.
//
// # Rules
//
// A change of one voter is what Raft allows at a time, and between two of them the number of voters may be even:
// then one more is needed for a majority, and nothing is won by it. So:
//
//  1. No step is proposed after which fewer voters are up than are a majority.
//  2. The number of voters rests at an odd number: 1, 3 and at most 5. A step that leads to an even one is
//     proposed only when the next one that leads away from it can follow at once.
//  3. A node becomes a learner first. It may become a voter when it has been up, and close behind the leader,
//     for some time: a voter that cannot be reached would count against the majority from the moment it is one.
//  4. A voter that is away for longer than a grace becomes a learner, if a learner that is ready takes its place,
//     or if fewer voters then have the better majority: of five of which two are away, the three others. It is
//     not if that only left fewer voters: of three of which one is away, two go on.
//  5. A voter that has lost some of what it had, as its disk is an old copy, becomes a learner at once.
//  6. Beside the voters there are some learners on standby.
//
// Where there is a choice, the step after which most voters can be lost is taken, and voters are spread over zones.
//
// # Two nodes
//
// A realm of two nodes has one voter and one learner. The learner has a copy, but may not take over by itself when
// it loses sight of the voter: the voter might be well and have lost sight of the learner. No way of counting
// majorities helps two nodes.
package member
