package grid

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Jury decides what to believe of what nodes say that a job's tasks come to. It is told of each result, and says
// whether the task has ended or must be run by another node, too; who runs it is for the [Scheduler] to see to. It is
// pure, and not safe for concurrent use.
//
// A task ends when as many nodes as it needs have given the same answer. Those who gave another lie, or are broken. If
// too many answers differ, the task fails.
//
// With VerifyQuorum each task needs N answers. With VerifyAudit one will do, but some are drawn of which a second one
// is asked for, by a secret, so that nobody knows beforehand which. All other results of a stage are withheld until
// those of its draws have come: of a node that was found to lie, all that is withheld is run again; of one of which
// nothing was drawn, something is. With VerifyAdaptive a task needs two answers, but one of a node that is trusted
// will do, unless it is drawn, too; see [Standing].
//
// What the owner of the job has run itself it believes, except in a quorum.
//
// Of those who speak with one voice, as nodes of one other realm do, whoever says something first has said it for all of
// them; the others are not heard. If it was a lie, none of them is believed without another voice for the rest of the job.
type Jury struct {
	verify Verify
	self   peer.ID
	seed   [sha256.Size]byte
	known  Standings
	stages map[uint32]*hearings
	liars  map[peer.ID]bool // voices
}

// Standings tells and remembers how far nodes are to be trusted. It may be nil.
type Standings interface {
	Standing(peer.ID) Standing
	// Judged tells that a node gave an answer that others have confirmed, or one that they have not.
	Judged(node peer.ID, good bool)
}

// Testimony is what a node says that a task comes to.
type Testimony struct {
	Node    peer.ID
	Voice   peer.ID // by which it counts: other testimonies with the same add nothing; "": the node's own
	Answer  Answer
	Lasting bool // else it may say so for its own reasons, and be honest
	Fuel    uint64
	Run     time.Duration // that it says it took
	Data    []byte        // the caller's: by what to book it
}

// Ruling is what to do about a task.
type Ruling struct {
	Index uint32
	// Outcome is Unproven, Withheld, Succeeded for a task that has ended as the winner says, and GuestFailed for one
	// of which no answer is to be believed.
	Outcome TaskOutcome
	Said    []Testimony // all of them, once it has ended
	Winner  int         // in Said
	Liars   []int       // in Said
}

// hearings are those of a stage.
type hearings struct {
	open   map[uint32]*hearing
	passed map[peer.ID]bool // whose results were audited, and right
}

// hearing is of a task that has not ended.
type hearing struct {
	said     []Testimony
	need     int
	withheld bool
}

// NewJury makes one for a job that self owns. Seed is secret.
func NewJury(v Verify, self peer.ID, seed [sha256.Size]byte, known Standings) *Jury {
	return &Jury{verify: v, self: self, seed: seed, known: known, stages: make(map[uint32]*hearings), liars: make(map[peer.ID]bool)}
}

// maxSaid is how many answers are heard of a task that needs so many equal ones.
func maxSaid(need int) int { return 3*need + 2 }

// Hear takes in what a node says of a task that has not ended. A voice that was heard before changes nothing.
func (j *Jury) Hear(stage, index uint32, t Testimony) Ruling {
	t.Voice = cmp.Or(t.Voice, t.Node)
	st := j.stage(stage)
	h := st.open[index]
	if h == nil {
		h = &hearing{need: j.need(stage, index, &t)}
		h.withheld = h.need == 0
		st.open[index] = h
	}
	if h.withheld && len(h.said) > 0 {
		return Ruling{Index: index, Outcome: Withheld}
	}
	if !h.heard(t.Voice) {
		h.said = append(h.said, t)
	}
	if h.withheld {
		return Ruling{Index: index, Outcome: Withheld}
	}
	return j.rule(stage, index, h)
}

func (h *hearing) heard(voice peer.ID) bool {
	return slices.ContainsFunc(h.said, func(t Testimony) bool { return t.Voice == voice })
}

func (j *Jury) stage(stage uint32) *hearings {
	st := j.stages[stage]
	if st == nil {
		st = &hearings{open: make(map[uint32]*hearing), passed: make(map[peer.ID]bool)}
		j.stages[stage] = st
	}
	return st
}

// need is how many equal answers a task needs of which that is the first; 0 says that it is to be withheld.
func (j *Jury) need(stage, index uint32, first *Testimony) int {
	switch j.verify.Mode {
	case VerifyQuorum:
		return int(j.verify.N)
	case VerifyAudit:
		switch {
		case first.Node == j.self:
			return 1
		case j.liars[first.Voice], j.draw(stage, index) < float64(j.verify.N)/100:
			return 2
		}
		return 0
	case VerifyAdaptive:
		if first.Node == j.self {
			return 1
		}
		if j.known == nil || j.liars[first.Voice] {
			return 2
		}
		if rate := j.known.Standing(first.Node).Rate(); j.draw(stage, index) < rate {
			return 2
		}
		return 1
	}
	return 1
}

// draw is a number of [0, 1) for a task, which nobody knows who does not know the seed.
func (j *Jury) draw(stage, index uint32) float64 {
	var b [sha256.Size + 8]byte
	copy(b[:], j.seed[:])
	binary.BigEndian.PutUint32(b[sha256.Size:], stage)
	binary.BigEndian.PutUint32(b[sha256.Size+4:], index)
	sum := sha256.Sum256(b[:])
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}

// rule decides a hearing after its last testimony.
func (j *Jury) rule(stage, index uint32, h *hearing) Ruling {
	for k := range h.said {
		if h.count(h.said[k].Answer) >= h.need {
			return j.end(stage, index, h, k)
		}
	}
	if len(h.said) < maxSaid(h.need) {
		return Ruling{Index: index, Outcome: Unproven}
	}
	delete(j.stages[stage].open, index)
	return Ruling{Index: index, Outcome: GuestFailed, Said: h.said}
}

func (h *hearing) count(a Answer) (n int) {
	for i := range h.said {
		if h.said[i].Answer == a {
			n++
		}
	}
	return n
}

func (j *Jury) end(stage, index uint32, h *hearing, winner int) Ruling {
	st := j.stages[stage]
	delete(st.open, index)
	r := Ruling{Index: index, Outcome: Succeeded, Said: h.said, Winner: winner}
	if len(h.said) < 2 {
		return r
	}
	for k := range h.said {
		t := &h.said[k]
		good := t.Answer == h.said[winner].Answer
		switch {
		case good:
			st.passed[t.Node] = true
		case t.Lasting:
			r.Liars = append(r.Liars, k)
			j.liars[t.Voice] = true
		default:
			continue
		}
		if j.known != nil {
			j.known.Judged(t.Node, good)
		}
	}
	return r
}

// Rest says what is to become of what was withheld of a stage, now that nothing else is left of it: tasks that are to
// be run again first, or else the end of all.
func (j *Jury) Rest(stage uint32) (list []Ruling) {
	st := j.stage(stage)
	drawn := make(map[peer.ID]uint32) // of those who passed no audit, the task to be audited
	for i, h := range st.open {
		if node := h.said[0].Node; h.withheld && !j.liars[h.said[0].Voice] && !st.passed[node] {
			if k, some := drawn[node]; !some || j.draw(stage, i) < j.draw(stage, k) {
				drawn[node] = i
			}
		}
	}
	for i, h := range st.open {
		if !h.withheld {
			continue
		}
		node := h.said[0].Node
		k, some := drawn[node]
		switch {
		case j.liars[h.said[0].Voice] || some && k == i:
			h.withheld, h.need = false, 2
			list = append(list, Ruling{Index: i, Outcome: Unproven})
		case !some:
			h.withheld, h.need = false, 1
			list = append(list, j.end(stage, i, h, 0))
		}
	}
	slices.SortFunc(list, func(a, b Ruling) int { return cmp.Compare(a.Index, b.Index) })
	return list
}

// Forget drops what was said of a task that has ended without a ruling.
func (j *Jury) Forget(stage, index uint32) { delete(j.stage(stage).open, index) }

// Votes lists what was said so far of tasks of a span that have not ended.
func (j *Jury) Votes(stage uint32, s Span) (list []Vote) {
	st := j.stages[stage]
	if st == nil || len(st.open) == 0 {
		return nil
	}
	for i := s.Lo; i < s.Hi; i++ {
		if h := st.open[i]; h != nil {
			v := Vote{Index: i, Withheld: h.withheld}
			for k := range h.said {
				v.Nodes = append(v.Nodes, h.said[k].Node)
			}
			list = append(list, v)
		}
	}
	return list
}

// testimonies yields the Data of all that was said and is not decided.
func (j *Jury) testimonies(yield func(data []byte) bool) {
	for _, st := range j.stages {
		for _, h := range st.open {
			for k := range h.said {
				if !yield(h.said[k].Data) {
					return
				}
			}
		}
	}
}

// Tied is how many tasks of a stage need a voice that is none of those, as far as it is looked at.
func (j *Jury) Tied(stage uint32, voices []peer.ID) (tasks int) {
	st := j.stages[stage]
	if st == nil {
		return 0
	}
	looked := 0
	for _, h := range st.open {
		if looked++; looked > maxTied {
			break
		}
		if !h.withheld && !slices.ContainsFunc(voices, func(id peer.ID) bool { return !h.heard(id) }) {
			tasks++
		}
	}
	return tasks
}

const maxTied = 4096

// Standing is how a node has done where its results were compared with those of others.
type Standing struct {
	Good uint32 `cbor:"good" json:"good"` // in a row, since the last bad one
	Bad  uint32 `cbor:"bad" json:"bad"`   // in all
}

const (
	// trustAfter is how many good results in a row make a node trusted.
	trustAfter = 10
	// leastRate is how often one that is trusted is looked at in the end.
	leastRate = 0.05
)

// Trusted reports whether the node's word is taken alone, most times.
func (s Standing) Trusted() bool { return s.Good >= trustAfter }

// Rate is how often results of the node are to be confirmed: always at first, and ever more rarely once it is trusted.
func (s Standing) Rate() float64 {
	if !s.Trusted() {
		return 1
	}
	return max(leastRate, 1/float64(s.Good-trustAfter+2))
}

// Judged is the standing after one more result.
func (s Standing) Judged(good bool) Standing {
	switch {
	case !good:
		s.Good = 0
		s.Bad += min(1, math.MaxUint32-s.Bad)
	case s.Good < math.MaxUint32:
		s.Good++
	}
	return s
}

func hashOf(data []byte) Key { return sha256.Sum256(data) }

// name names what a guest wrote, by its CID also when it is short.
func (o *Output) name() string {
	if o.CID.Defined() {
		return o.CID.String()
	}
	return NewBlock(cid.Raw, o.Inline).CID().String()
}

func linkName(l Link) string {
	if !l.Defined() {
		return "nothing"
	}
	return l.String()
}
