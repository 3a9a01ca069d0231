package grid

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A job that verifies has a jury, which is told of every result before it is booked. Only what it has decided is in
// the books, so all else goes as with other jobs. A new owner begins with what was saved, and hears anew what was not
// decided.

// StageCheck is what the verification of a stage has cost, and brought to light.
type StageCheck struct {
	Runs  uint32 `cbor:"runs" json:"runs"`                       // of tasks that have ended, besides those that count
	Fuel  uint64 `cbor:"fuel" json:"fuel"`                       // theirs
	Split uint32 `cbor:"split,omitempty" json:"split,omitempty"` // tasks of which nodes' results differed
	// Liars are nodes whose results others have refuted, with how many.
	Liars map[string]uint32 `cbor:"liars,omitempty" json:"liars,omitempty"`
}

const (
	// maxLies is of how many lies of a node a job's story tells.
	maxLies = 8
	// maxLiars bounds the nodes that are listed of one stage.
	maxLiars = 256
)

// judging is what the books of a job that verifies need besides.
type judging struct {
	*Jury                              // nil: what nodes say is believed
	sign  func(...*Receipt) error      // as this node
	told  map[peer.ID]int              // lies that the story tells of
	lying map[peer.ID]string           // who was found out since the scheduler was told last, and of what
	meet  func(stage uint32) []peer.ID // voices of nodes that can run tasks of a stage
	voice func(peer.ID) peer.ID        // by which a node's results count
	spent Usage                        // by checks that are not counted yet
}

// judges makes the jury of a job, if it has one.
func (n *Node) judges(j *job) {
	if !j.rec.Verify.On() {
		return
	}
	var seed [sha256.Size]byte
	_, _ = rand.Read(seed[:]) // it never fails
	j.judging = judging{
		Jury: NewJury(j.rec.Verify, n.self, seed, n.standings()),
		sign: func(r ...*Receipt) error { return Sign(n.Key, r...) },
		told: make(map[peer.ID]int),
	}
	j.meet = func(stage uint32) []peer.ID {
		list := n.able(&j.demands[stage])
		if j.spec.Stages[stage].offloads(&j.rec.Policy) {
			list = append(list, n.voicesBeyond()...)
		}
		return list
	}
	j.voice = n.outlets.voice
}

// judge tells the jury of a result. The completion is what is to be booked if the task has ended by that, which the
// outcome tells: Unproven or Withheld if not. j.mu is held.
func (j *job) judge(stage uint32, c Completion, data []byte) (Completion, []byte, TaskOutcome, error) {
	answer, err := c.Receipt.Answer()
	if err != nil {
		return c, nil, HostFailed, err
	}
	t := Testimony{Node: c.Receipt.Node, Voice: j.voice(c.Receipt.Node), Answer: answer, Lasting: c.Receipt.Lasting(), Fuel: c.Receipt.Fuel, Run: c.Receipt.Phases.Run - c.Receipt.Phases.Parked, Data: data}
	return j.carryOut(stage, c.Receipt.Key, j.Hear(stage, c.Index, t))
}

// carryOut is what is to be booked by a ruling on the invocation of that key.
func (j *job) carryOut(stage uint32, key Key, r Ruling) (c Completion, data []byte, outcome TaskOutcome, err error) {
	c.Index = r.Index
	if r.Outcome == Unproven || r.Outcome == Withheld {
		return c, nil, r.Outcome, nil
	}
	st := j.stages[stage].status.check()
	st.Runs += uint32(len(r.Said) - 1)
	for k := range r.Said {
		if r.Outcome != Succeeded || k != r.Winner {
			st.Fuel += r.Said[k].Fuel
		}
	}
	winner := -1
	if r.Outcome == Succeeded {
		winner = r.Winner
	}
	j.spent.Add(j.meter.checked(&j.spec.Stages[stage], r.Said, winner, r.Liars))
	if r.Outcome != Succeeded {
		st.Split++
		if err := Unmarshal(r.Said[0].Data, &c); err != nil {
			return c, nil, HostFailed, err
		}
		c.Cached = false
		c.Receipt = Receipt{Key: key, Node: j.rec.Owner, Started: c.Receipt.Started, Fault: &Fault{Code: Conflict, Message: j.split(r.Said)}}
		if err := j.sign(&c.Receipt); err != nil {
			return c, nil, HostFailed, err
		}
		data, err = Marshal(&c)
		return c, data, GuestFailed, err
	}
	data = r.Said[r.Winner].Data
	if err := Unmarshal(data, &c); err != nil {
		return c, nil, HostFailed, err
	}
	for _, k := range r.Liars {
		j.expose(st, stage, &c, &r.Said[k])
	}
	return c, data, outcomeOf(&c.Receipt), nil
}

// split says why no answer is believed.
func (j *job) split(said []Testimony) string {
	times := make(map[Answer]int)
	most := 0
	for k := range said {
		times[said[k].Answer]++
		most = max(most, times[said[k].Answer])
	}
	return fmt.Sprintf("%d nodes have run it and come to %d different results, at most %d to the same: none is to be believed (verification %s)",
		len(said), len(times), most, j.rec.Verify)
}

// expose notes a node whose result was refuted. j.mu is held.
func (j *job) expose(st *StageCheck, stage uint32, right *Completion, liar *Testimony) {
	var wrong Completion
	if err := Unmarshal(liar.Data, &wrong); err != nil {
		return
	}
	name := liar.Node.String()
	if _, listed := st.Liars[name]; listed || len(st.Liars) < maxLiars {
		if st.Liars == nil {
			st.Liars = make(map[string]uint32)
		}
		st.Liars[name]++
	}
	text := fmt.Sprintf("its result was refuted by others: %s", wrong.Receipt.Differs(&right.Receipt))
	if j.told[liar.Node]++; j.told[liar.Node] <= maxLies {
		if j.told[liar.Node] == maxLies {
			text += "; more of the kind are not told, but counted"
		}
		j.tellLocked(JobEvent{Kind: EventAccused, Node: liar.Node, Stage: stage, Tasks: Span{right.Index, right.Index + 1}, Text: text})
	}
	if j.lying == nil {
		j.lying = make(map[peer.ID]string)
	}
	j.lying[liar.Node] = fmt.Sprintf("its result of task %d of stage %s was refuted by others", right.Index, j.stages[stage].status.Name)
}

// check is where the cost of verification is noted.
func (s *StageStatus) check() *StageCheck {
	if s.Check == nil {
		s.Check = &StageCheck{}
	}
	return s.Check
}

func (c *StageCheck) clone() *StageCheck {
	if c == nil {
		return nil
	}
	out := *c
	out.Liars = maps.Clone(c.Liars)
	return &out
}

// accuseLiars tells the scheduler who was found out.
func (n *Node) accuseLiars(j *job) {
	j.mu.Lock()
	lying := j.lying
	j.lying = nil
	j.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(lying)) {
		if id != n.self {
			n.accuse(id, j.rec.ID, lying[id])
		}
	}
}

// rest decides what was withheld of a stage, as nothing else is left of it.
func (n *Node) rest(w Work) {
	j := n.job(w.Job)
	if j == nil || j.Jury == nil || int(w.Stage) >= len(j.stages) {
		return
	}
	j.mu.Lock()
	epoch := j.rec.Epoch
	var fresh []Completion
	var results []TaskResult
	for _, r := range j.Rest(w.Stage) {
		c, data, outcome, err := j.carryOut(w.Stage, Key{}, r)
		if err != nil {
			n.log.Error("a withheld result is not booked", "job", w.Job, "stage", w.Stage, "task", r.Index, "err", err)
			outcome = Unproven
		}
		results = append(results, TaskResult{Index: r.Index, Outcome: outcome})
		if outcome != Unproven && !j.ending && j.enter(w.Stage, &c, data, false) {
			fresh = append(fresh, c)
		}
	}
	if len(fresh) > 0 {
		j.touch()
	}
	j.mu.Unlock()
	n.remember(fresh)
	n.post(Reported{From: n.self, Work: w, Epoch: epoch, Results: results})
}

// votes lists what nodes have said of tasks that have not ended.
func (j *job) votes(stage uint32, spans []Span) (list []Vote) {
	if j.Jury == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range spans {
		list = append(list, j.Votes(stage, s)...)
	}
	return list
}

// able lists the nodes that are up and can run what is asked, as far as they say.
func (n *Node) able(d *demand) (list []peer.ID) {
	if n.Capacity.CanRun(&d.class, d.require) {
		list = append(list, n.self)
	}
	if n.realm == nil {
		return list
	}
	for _, id := range n.realm.up() {
		if has, ok := n.realm.capacity(id); id != n.self && (!ok || has.CanRun(&d.class, d.require)) {
			list = append(list, id)
		}
	}
	return list
}

// tooFew says that a job waits for more nodes than there are to confirm what others have come to.
func (j *job) tooFew() (text string) {
	if j.Jury == nil {
		return ""
	}
	for i := range j.stages {
		j.mu.Lock()
		s := &j.stages[i].status
		name, ended := s.Name, s.Tasks > 0 && s.Done+s.Failed >= s.Tasks
		j.mu.Unlock()
		if ended {
			continue
		}
		able := j.meet(uint32(i))
		rule := ""
		if j.spec.Stages[i].offloads(&j.rec.Policy) {
			rule = "; all nodes of another realm count as one"
		}
		if need := j.rec.Verify.nodes(); len(able) < need {
			return fmt.Sprintf("%d nodes must come to the same result of each task of stage %s (verification %s), and %s that can run it %s up%s",
				need, name, j.rec.Verify, plural(len(able), "node"), isAre(len(able)), rule)
		}
		j.mu.Lock()
		tied := j.Tied(uint32(i), able)
		j.mu.Unlock()
		if tied > 0 {
			return fmt.Sprintf("%s of stage %s must be run by one more node (verification %s): all %d that are up and can have run %s%s",
				plural(tied, "task"), name, j.rec.Verify, len(able), cmp.Or(map[bool]string{tied == 1: "it"}[true], "them"), rule)
		}
	}
	return ""
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
