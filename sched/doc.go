// Package sched decides who runs what. [Core] is the scheduler of one node: a state machine that is
// given events and returns effects (see [grid.Scheduler]), and that does no I/O, reads no clock, starts
// no goroutine and takes no lock. Equal seeds and equal events give equal effects. What tasks compute,
// how messages travel and where results are kept is not its business; nor is taking over the jobs of
// an owner that died, which begins with a JobOpened of a higher epoch.
//
// # Tasks
//
// The owner of a job keeps a book of each of its stages. Tasks are moved as spans of their numbers, so a
// million of them cost a few bitmaps and entries. A task is asked for, by a Prepare, in the step in which the
// last of what it needs has ended: all of an earlier stage, or so many of its tasks. From then on it is in one
// of these places:
//
//	         Prepared          there is room            Run
//	asked for ------> kept ---------------> queued ----------------> running here
//	                                         |  ^                      |  |
//	                                AnswerSteal |  lease ran out,      |  | given back
//	                                         v  |  stolen back         |  +--------> queued
//	                                         lent                      |
//	                                          |     host failure       |
//	                                          +----------+-------------+
//	                                          |          v             |
//	                                          |       waiting -------> offered ----> lent, queued
//	                                          |                        |
//	                                          +-----> settled <--------+
//	                                 success, guest's failure, one host failure too many
//
// Withheld are also tasks of which there is a result that is not believed yet. Kept are only tasks of a job of which no more than so many may be handed out at a time, or none. When there is room,
// those of later stages go first.
//
// A task that failed for good has ended like any other as long as the job is allowed so many. After one more,
// the job is closed, or if it is to keep going, all runs that does not need that task.
//
// # Retries
//
// A task that failed on a node for that node's reasons waits for a back-off, which doubles. Then it is offered,
// for a while, to nodes on which it has not failed, of which this may be one, and after that to all. Every
// stage says how many failures are too many. A node on which everything fails would be always idle, take one
// task after another, and use up their attempts: after some failures in a row it is given nothing for a
// while, or runs nothing if it is this one, as long as another is known to work.
//
// # Tasks that several nodes run
//
// A job may want what its tasks come to confirmed. Whether a result is enough is not the core's business: the node
// reports a task as Unproven until it is, and the core has it run by one node after the other that has not run it.
// Meanwhile it is offered, or in a queue of which thieves get nothing, or under a lease that is not passed on. A task
// that is Withheld was run and waits for the node's word, which is asked for when nothing else is left of its stage,
// or under way of its job.
//
// # Pauses
//
// Of a job that is paused what runs goes on to its end, here and on thieves, and nothing else is handed out. What is
// queued here is kept; thieves are asked to drop what they have queued, and again whenever they claim some, and the leases
// on it run out. So a pause costs no work that was done, and a job that goes on soon waits for no more than those leases.
//
// # Stragglers
//
// When all of a pure stage that is ready is running or lent, tasks of which nothing was heard for much longer
// than they take are run a second time elsewhere, a few at a time. The first result counts, and who runs the
// other copy is told to stop. So the last tasks of a stage do not wait for the slowest node.
//
// # Shares
//
// Queued tasks are in the node's deque: one queue for each work (a stage of a job), own workers taking
// the newest and thieves the oldest. Which work is next is decided by the time that slots have spent: first
// the user who has used least, over the weight that the node gives to users, and of that user's jobs the one
// that has, over its priority's weight, which doubles with each step. Whoever comes anew begins where the one
// that is next stands: it gets nothing for the time it was away, and keeps nobody waiting who was next. No
// weight makes a share smaller than a 256th of an equal one. So a job of ten tasks does not wait
// behind one of a million, and nothing that is queued waits for ever, whatever comes. As leases say for whom
// they are, this holds on thieves, too.
//
// What a job's tasks spawn, jobs of their own whose names begin with that of the first, is on its account. Of
// one account our own slots take the deepest first, then later stages before earlier ones, and the newest, so
// that little is begun and not ended; thieves get the least deep and the oldest, as most hangs on it.
//
// Grains, the spans that slots run, are sized by the measured time of a work's tasks.
//
// # Places
//
// What a task needs, of labels, cores, memory and scratch, is compared with what a node has, once when it
// is queued: what this node can never run it keeps for thieves that can, and after a while tells the user. What
// it can run, and has no room for when its turn comes, has what is free kept for it until it has. One task has as many
// slots as it needs cores. The memory of a parked task stays its own, and a node of which no slot is busy has
// room for any.
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
// last, whom those named that had nothing, then some others. Of a few random ones it asks the nearest, by how
// long answers have taken; now and then any, so that work gets everywhere. Soon means before more could be
// here: the time of one answer, and of one fetch of what tasks read. The victim gives half of what it has
// queued, or names peers that it believes to have work, remembers the thief, and wakes it when more is queued
// than its own slots take. A thief that asked in vain sleeps until it is woken; a timer that doubles makes up
// for lost messages. So an idle swarm is nearly silent, and new work spreads like a rumour: who gets some
// wakes those who asked it.
//
// # Data
//
// Hints tell what tasks read most of, if that is large, and summaries what a thief and this node hold. Of a
// work with hints a thief is given first what it holds the inputs of, then what nobody has to move, then the
// rest; but only tasks that it can begin sooner than a slot here, counting how long their inputs are on the
// way, at the rate that was measured, one behind the other, from here behind all that others were given. A
// thief that has the inputs and no idle slot yet gets tasks that this node would have to fetch for. What slots
// will run next is named to the node in a Prefetch, so that its inputs are here by then.
//
// # Lending
//
// Nodes of other realms are given what is to be offloaded and nothing else, and their tasks run here within
// Config.Share. They have turns of their own, when nothing else can run. A node asks strangers when it has an idle slot
// to lend and, in this round, nobody of its realm to ask; it does not pass on what they give. When work of the realm waits,
// what is queued of strangers' is given back to its owner, who queues it again. A stranger's failures do not
// count among the attempts of a task.
//
// # Peers that misbehave
//
// Everything said is checked against what it can do harm to. Whose leases run out though it is present has
// stolen and not claimed: each time it gets a sixteenth of what it could get before, and from the third time on nothing
// for a time that doubles. Who is accused by the node, of a receipt that cannot be or of a message that is
// none, is left alone for such a time as well: it is neither asked nor given anything, its claims count for
// nothing, and what it held is queued again. And whoever claims what it never does holds no more than
// Config.MaxTrust tasks, or four times what it has done of late. What it has done is not forgotten when it goes and comes
// back. The user of the job is told.
//
// # Invariants
//
// They hold after every Step, and tests check them there.
//
//  1. While a slot is idle nothing is queued that could run here, unless idle slots are kept for what is next and
//     needs more than there is, its user may use no more of them, or this node is left alone as everything
//     fails on it. No user uses more slots than one may.
//  2. The ring lists exactly the works that have something queued; their spans are not empty and do
//     not overlap; the count of queued tasks is their sum. Users and jobs are in turn if, and only if, they have
//     something queued that can run here.
//  3. A task that is ready is in exactly one place: settled, queued, or under one hold (running, lent,
//     waiting, offered, kept, withheld). One that is not ready may only be settled. A task that is running or lent may
//     have one copy, on another node.
//  4. Every hold ends: at a time no earlier than the core's next Tick; running here, by a GrainDone; kept, when
//     there is room. So do jobs that have until some time.
//  5. A task, or copy, booked as running here is in the grain of a slot, or in a parked one.
//  6. A stage that has no tasks left is cleared away in the same Step, and a job without any, or with more
//     failures than it may have, is closed.
//  7. Of other owners' work, no task is here twice.
//  8. What is held of another owner will be claimed.
//  9. What others can fill is bounded: ranges held for them, thieves that wait, hints, names of peers; and
//     peers by those present.
//  10. A hungry node is asking somebody, or asleep.
//  11. A task was asked for if, and only if, all that it needs has ended well enough, or it is settled.
//  12. What is offered, thieves are given.
//  13. No more tasks of a job are handed out than may be, none while it is paused, and none is kept while there may
//     be more.
//  14. While a slot is idle no parked grain wants one.
//  15. Nothing is expected of, or kept for, a peer that is left alone.
//  16. A task that nodes have run and others must run is in no queue that thieves are given of. If all that is left
//     of a stage, or under way of a job, is withheld, the node has been asked for more.
//  17. Strangers' tasks use no more than the share, but for those that others, parked, wait for. None is queued
//     beside work of the realm that could run.
package sched
