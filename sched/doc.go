// Package sched decides who runs what. [Core] is the scheduler of one node: a state machine that is
// given events and returns effects (see [grid.Scheduler]), and that does no I/O, reads no clock, starts
// no goroutine and takes no lock. Equal seeds and equal events give equal effects. What tasks compute,
// how messages travel and where results are kept is not its business; nor is taking over the jobs of
// an owner that died, which begins with a JobOpened of a higher epoch.
//
// # Tasks
//
// The owner of a job keeps a book of its open stage. Tasks are moved as spans of their numbers, so a
// million of them cost a bitmap and a few entries. A task is in one of these places:
//
//	              Prepared                 Run
//	not ready ---------------> queued ----------------> running here
//	                            |  ^                      |  |
//	                   AnswerSteal |  lease ran out,      |  | given back
//	                            v  |  stolen back         |  +--------> queued
//	                            lent                      |
//	                             |     host failure       |
//	                             +----------+-------------+
//	                             |          v             |
//	                             |       waiting -------> queued, when the back-off is over
//	                             |                        |
//	                             +-----> settled <--------+
//	                                 success, guest's failure, one host failure too many
//
// Queued tasks are in the node's deque: one queue for each work (a stage of a job), own workers taking
// the newest and thieves the oldest. Works take turns, so a small job does not wait behind a huge one;
// shares weighted by user are for a later version. Grains, the spans that slots run, are sized by the
// measured time of a work's tasks.
//
// # Parked tasks
//
// A task that waits for other tasks is parked: it leaves its slot to them, or to whatever else is queued,
// while its grain stays booked as running here. When what it waits for is there it wants a slot again, and
// gets the next one before anything new is run, so what has begun is finished first. A slot it was given
// ends by GrainDone, also when the word that it is gone crosses the GiveSlot. How many may be parked at a
// time is for the node to bound.
//
// # Leases
//
// A node that steals claims at once what it got, to the owner, and again three times in each time-to-live,
// until it is done or given away: a claim lists what is held now. The newest claim says who holds a
// task. A lease that is not renewed runs out and its tasks are queued again, so whatever is lost on the
// way, be it an answer, a claim, a report or a node, costs time but no task. The price is that a
// task may run twice; as tasks are pure, the second result is simply not counted. Claims may arrive
// late, so one may only move a lease that is out, or take back what was queued because it ran out.
//
// A lease of our own begins with a quarter of the time, as its first claim is under way already.
// A lease keeps its owner when it is stolen again, so leases are stolen from thieves as from owners.
//
// # Stealing
//
// A node with an idle slot, or one that soon will have, asks one peer at a time: who woke it, who gave
// last, then some at random. The victim gives half of what it has queued, or remembers the thief and
// wakes it when more is queued than its own slots take. A thief that asked in vain sleeps until it is
// woken; a timer that doubles makes up for lost messages. So an idle swarm is nearly silent, and new
// work spreads like a rumour: who gets some wakes those who asked it.
//
// # Invariants
//
// They hold after every Step, and tests check them there.
//
//  1. While a slot is idle nothing is queued.
//  2. The ring lists exactly the works that have something queued; their spans are not empty and do
//     not overlap; the count of queued tasks is their sum.
//  3. A task that is ready is in exactly one place: settled, queued, or under one hold (running, lent,
//     waiting). One that is not ready may only be settled.
//  4. Every hold ends: at a time no earlier than the core's next Tick, or, running here, by a GrainDone.
//  5. A task booked as running here is in the grain of a slot, or in a parked one.
//  6. The open stage of a job has tasks left; once it has none, the job moves on in the same Step.
//  7. Of other owners' work, no task is here twice.
//  8. What is held of another owner will be claimed.
//  9. What others can fill is bounded: ranges held for them, thieves that wait, peers by those present.
//  10. A hungry node is asking somebody, or asleep.
//  12. While a slot is idle no parked grain wants one.
package sched
