package grid

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// maxScored is how many scores a node remembers, maxScoreAsks how many stages of others wait for theirs, and
	// maxCandidates how many nodes there are scores of. More do without.
	maxScored     = 1 << 14
	maxScoreAsks  = 256
	maxCandidates = 512
)

// Scoring is what a scorer is given: the document.
type Scoring struct {
	Version int         `json:"version"`
	Stage   StageInfo   `json:"stage"`
	Nodes   []Candidate `json:"nodes"`
}

// Scores is what it answers: a number for each node, in their order.
type Scores struct {
	Scores []float64 `json:"scores"`
}

// Candidate is what a scorer is told of a node.
type Candidate struct {
	ID      string  `json:"id"`
	Labels  Labels  `json:"labels,omitempty"`
	Slots   int     `json:"slots"`
	Memory  uint64  `json:"memory_bytes,omitempty"`
	Scratch uint64  `json:"scratch_bytes,omitempty"`
	RTT     float64 `json:"rtt_ms,omitempty"` // from the node that asks; 0: not known
	Self    bool    `json:"self,omitempty"`   // it is the node that asks
}

// scoring is what a node knows of scores.
type scoring struct {
	asks chan scoreAsk
	poke chan struct{} // nodes have come, or their labels have changed
	turn chan struct{} // holds something while the scorer is being asked, so that nothing is asked twice

	mu    sync.Mutex
	known map[Key]float64 // by what was asked
}

// scoreAsk is a stage of another owner's job, of which tasks are here.
type scoreAsk struct {
	work Work
	info StageInfo
}

// keepScores has scores found out for what comes here from others, and anew when nodes change. It is a goroutine's.
func (n *Node) keepScores() {
	for {
		select {
		case ask := <-n.scoring.asks:
			n.tellScores(n.ctx, nil, ask.work, &ask.info)
		case <-n.scoring.poke:
			for _, j := range n.running() {
				n.scoreJob(n.ctx, j)
			}
		case <-n.ctx.Done():
			return
		}
	}
}

// stir has scores found out anew, if there is a scorer.
func (s *scoring) stir() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// scoreLater has scores found out for a stage of another owner's job.
func (n *Node) scoreLater(of Work, st *Stage) {
	if n.extensions.get(string(RoleScorer)) == nil {
		return
	}
	select {
	case n.scoring.asks <- scoreAsk{of, stageInfo(st)}:
	default: // its scores stay as they are
	}
}

// scoreJob finds out how well nodes suit the stages of a job, and tells the scheduler. It is false if there are no scores.
func (n *Node) scoreJob(ctx context.Context, j *job) bool {
	if n.extensions.get(string(RoleScorer)) == nil || j.batch != nil {
		return false
	}
	for i := range j.spec.Stages {
		info := stageInfo(&j.spec.Stages[i])
		if !n.tellScores(ctx, j, Work{Job: j.rec.ID, Stage: uint32(i)}, &info) {
			return false // the others would fare no better
		}
	}
	return true
}

// tellScores tells the scheduler the scores of a stage; j is its job when it is owned here. It is false if there are none.
func (n *Node) tellScores(ctx context.Context, j *job, of Work, info *StageInfo) bool {
	x := n.extensions.get(string(RoleScorer))
	if x == nil {
		return false
	}
	nodes := n.candidates()
	scores, err := n.score(ctx, x, info, nodes)
	if err != nil {
		if j != nil && ctx.Err() == nil {
			j.mu.Lock()
			told := j.unscored
			j.unscored = true
			j.mu.Unlock()
			if !told {
				j.tell(JobEvent{Kind: EventPolicy, Stage: of.Stage, Text: "nodes have no scores, as the scorer is broken: " + err.Error()})
			}
		}
		return false
	}
	for i, c := range nodes {
		id, err := peer.Decode(c.ID)
		if err != nil {
			continue
		}
		n.post(Scored{Work: of, Peer: id, Score: scores[i]})
		if j == nil {
			continue
		}
		j.mu.Lock()
		if j.scores == nil || len(j.scores) > maxScored { // nodes come and go
			j.scores = make(map[stageNode]float64)
		}
		j.scores[stageNode{of.Stage, id}] = scores[i]
		j.mu.Unlock()
	}
	return true
}

// stageNode names a node's score for a stage.
type stageNode struct {
	stage uint32
	node  peer.ID
}

// shunned says why a node is given nothing of a stage though it could run it; nil: it is.
func (j *job) shunned(stage int, node peer.ID) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.scores[stageNode{uint32(stage), node}]; s < 0 {
		return Errorf(Denied, "its score is %g, by the scorer of this realm, and so it is given none of them", s)
	}
	return nil
}

// candidates are this node and those of its realm, in order of their IDs.
func (n *Node) candidates() []Candidate {
	has := map[peer.ID]Capacity{n.self: n.Capacity}
	if n.realm != nil {
		for _, id := range n.realm.up() {
			if c, ok := n.realm.capacity(id); ok && id != n.self && len(has) < maxCandidates {
				has[id] = c
			}
		}
	}
	trip := map[peer.ID]float64{}
	for _, p := range n.Network.Peers() {
		trip[p.ID] = float64(p.RTT.Microseconds()) / 1000
	}
	out := make([]Candidate, 0, len(has))
	for _, id := range slices.Sorted(maps.Keys(has)) {
		c := has[id]
		out = append(out, Candidate{ID: id.String(), Labels: c.Labels, Slots: c.Slots, Memory: c.Memory, Scratch: c.Scratch, RTT: trip[id], Self: id == n.self})
	}
	return out
}

// score asks a scorer about nodes that it was not asked about before, all at once.
func (n *Node) score(ctx context.Context, x *Extension, info *StageInfo, nodes []Candidate) ([]float64, error) {
	select {
	case n.scoring.turn <- struct{}{}:
		defer func() { <-n.scoring.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	keys := make([]Key, len(nodes))
	out := make([]float64, len(nodes))
	var open []int
	n.scoring.mu.Lock()
	for i, c := range nodes {
		c.RTT = 0 // which is never twice the same
		data, err := json.Marshal(Scoring{ExtensionVersion, *info, []Candidate{c}})
		if err != nil {
			n.scoring.mu.Unlock()
			return nil, Errorf(Internal, "encode what a scorer is given: %w", err)
		}
		keys[i] = hashOf(append([]byte(x.Module.String()+" "+x.Func+" "), data...))
		var known bool
		if out[i], known = n.scoring.known[keys[i]]; !known {
			open = append(open, i)
		}
	}
	n.scoring.mu.Unlock()
	if len(open) == 0 {
		return out, nil
	}
	ask := Scoring{Version: ExtensionVersion, Stage: *info}
	for _, i := range open {
		ask.Nodes = append(ask.Nodes, nodes[i])
	}
	answer, err := n.extend(ctx, x, ask)
	if err != nil {
		return nil, err
	}
	scores, err := parseScores(answer, len(open))
	if err != nil {
		n.broken(x, err)
		return nil, Errorf(CodeOf(err), "%s: %w", x, err)
	}
	n.scoring.mu.Lock()
	defer n.scoring.mu.Unlock()
	if n.scoring.known == nil || len(n.scoring.known)+len(open) > maxScored {
		n.scoring.known = make(map[Key]float64)
	}
	for k, i := range open {
		out[i] = scores[k]
		n.scoring.known[keys[i]] = scores[k]
	}
	return out, nil
}

// parseScores reads a scorer's answer about so many nodes.
func parseScores(data []byte, nodes int) ([]float64, error) {
	var s Scores
	if err := parseAnswer(data, &s); err != nil {
		return nil, err
	}
	if len(s.Scores) != nodes {
		return nil, Errorf(Invalid, "it answers %d scores for %d nodes", len(s.Scores), nodes)
	}
	for _, v := range s.Scores {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, Errorf(Invalid, "a score is no number")
		}
	}
	return s.Scores, nil
}

// stageInfo sums a stage up for an extension.
func stageInfo(st *Stage) StageInfo {
	list := func(l []string) []string { return append([]string{}, l...) } // never null
	return StageInfo{
		Name: st.Name, Plugin: st.Plugin, Module: st.Module.String(), Func: st.Func, Tasks: st.Tasks, Impure: st.Impure,
		Net: list(st.Net), KV: list(st.KV), Secrets: list(st.Secrets), Data: list(st.Data),
		TimeoutMS: st.Limits.Wall.Milliseconds(), Memory: cmp.Or(st.Limits.Memory, DefaultLimits.Memory), Output: st.Limits.Output, Scratch: st.Limits.Scratch,
		Fuel: st.Limits.Fuel, Cores: max(st.Reserve.Cores, 1), Require: st.Require, Prefer: st.Prefer,
	}
}
