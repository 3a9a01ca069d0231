package grid

import "time"

// The types in this file are what those see who look on while a realm works: the dashboard, `grid top`, `grid events`. A node makes
// its part of it only when somebody asks.

// Pulse is how a node is at a moment, as it says itself. Counts are since it started: two pulses make a rate.
type Pulse struct {
	Node    string    `cbor:"node" json:"node"`                         // its peer ID
	Name    string    `cbor:"name,omitempty" json:"name,omitempty"`     // of the member of a private swarm
	Version string    `cbor:"version" json:"version"`                   // of grid
	At      time.Time `cbor:"at" json:"at"`                             // by its clock
	Started time.Time `cbor:"started" json:"started"`                   // by its clock; another one: it was started anew
	State   string    `cbor:"state" json:"state"`                       // "up", "draining", or "silent": no answer, and the rest is what was known last
	Error   string    `cbor:"error,omitempty" json:"error,omitempty"`   // why it is silent
	Zone    string    `cbor:"zone,omitempty" json:"zone,omitempty"`     // the value of its label "zone"
	Leader  bool      `cbor:"leader,omitempty" json:"leader,omitempty"` // of the ledger

	Load   Load   `cbor:"load" json:"load"`               // what it has to do now
	Jobs   int    `cbor:"jobs" json:"jobs"`               // that it owns
	Ran    uint64 `cbor:"ran" json:"tasks_ran"`           // attempts that came to an end
	Failed uint64 `cbor:"failed" json:"tasks_failed"`     // of these, by a fault or another exit code than 0
	Busy   int64  `cbor:"busy" json:"busy_ns"`            // time of all its slots together in attempts
	Stolen uint64 `cbor:"stolen" json:"tasks_stolen"`     // that it took from others
	Steals []Flow `cbor:"steals,omitempty" json:"steals"` // from whom, the most first, at most MaxFlows
	// P50 and P99 are how long attempts took of late: half of them and 99 of 100 no longer, 0 if there were none.
	P50 time.Duration `cbor:"p50,omitempty" json:"p50_ns"`
	P99 time.Duration `cbor:"p99,omitempty" json:"p99_ns"`

	BytesIn    uint64 `cbor:"bytes_in" json:"bytes_in"`     // of blocks, from other nodes
	BytesOut   uint64 `cbor:"bytes_out" json:"bytes_out"`   // of blocks, to other nodes
	Disk       uint64 `cbor:"disk" json:"disk_bytes"`       // that blocks take
	Quota      uint64 `cbor:"quota" json:"quota_bytes"`     // most that blocks may take
	Memory     uint64 `cbor:"memory" json:"memory_bytes"`   // of the process, as the Go runtime counts
	Goroutines int    `cbor:"goroutines" json:"goroutines"` // of the process

	Links []PulseLink `cbor:"links,omitempty" json:"links"` // connections to others, the nearest first, at most MaxLinks
}

// Flow counts tasks that went from one node to another.
type Flow struct {
	From  string `cbor:"from" json:"from"`   // the node that gave them
	Tasks uint64 `cbor:"tasks" json:"tasks"` // how many
}

// PulseLink is a connection to another node.
type PulseLink struct {
	Node      string        `cbor:"node" json:"node"`            // at the other end
	RTT       time.Duration `cbor:"rtt,omitempty" json:"rtt_ns"` // smoothed; 0 when not measured yet
	Transport string        `cbor:"transport" json:"transport"`  // as in PeerInfo
}

// Bounds on a pulse.
const (
	MaxFlows = 32
	MaxLinks = 64
)

// Stretch is a stretch of time in which one worker slot ran tasks of one stage: one attempt, or, where a picture would be too fine, several
// with gaps between them that are too short to see.
type Stretch struct {
	Node    string    `cbor:"node" json:"node"`                           // its peer ID
	Slot    int       `cbor:"slot" json:"slot"`                           // of the node, counted from 0
	Job     JobID     `cbor:"job" json:"job"`                             // the one at the top, of tasks that others have spawned
	Stage   uint32    `cbor:"stage" json:"stage"`                         // of the job, counted from 0; of what was spawned, the one whose task did
	Spawned bool      `cbor:"spawned,omitempty" json:"spawned,omitempty"` // by a task of the stage, or by what that has spawned: Lo and Hi are of those spawned together
	Lo      uint32    `cbor:"lo" json:"lo"`                               // the least and
	Hi      uint32    `cbor:"hi" json:"hi"`                               // one more than the greatest of its tasks
	Tasks   uint32    `cbor:"tasks" json:"tasks"`                         // how many attempts it stands for
	Failed  uint32    `cbor:"failed,omitempty" json:"failed,omitempty"`   // of these attempts, by a fault or another exit code than 0
	From    time.Time `cbor:"from" json:"from"`                           // by the asked node's clock
	To      time.Time `cbor:"to" json:"to"`                               // by the same clock
	Phases  Phases    `cbor:"phases" json:"phases"`                       // of all its attempts together
	Stolen  bool      `cbor:"stolen,omitempty" json:"stolen,omitempty"`   // the node took them from another one
	Code    Code      `cbor:"code,omitempty" json:"code,omitempty"`       // of the last fault among them
}

// RealmEvent is something that happened in the realm: to a job (a JobEvent), or to nodes, data and the ledger.
type RealmEvent struct {
	At    time.Time `cbor:"at" json:"at"`                           // by the clock of the node that tells it
	From  string    `cbor:"from" json:"from"`                       // the node that tells it
	Room  string    `cbor:"room" json:"room"`                       // "job", "node", "ledger", "data", "swarm"
	Kind  string    `cbor:"kind" json:"kind"`                       // of "job" an EventKind; else a word such as "up", "gone", "leader", "full"
	Job   JobID     `cbor:"job,omitempty" json:"job,omitempty"`     // that it is about, if it is about one
	Name  string    `cbor:"name,omitempty" json:"name,omitempty"`   // of the job
	Node  string    `cbor:"node,omitempty" json:"node,omitempty"`   // it is about
	Stage *uint32   `cbor:"stage,omitempty" json:"stage,omitempty"` // of the job, counted from 0; nil when it is about none
	Tasks Span      `cbor:"tasks,omitzero" json:"tasks,omitzero"`   // of the stage; empty when it is about none
	Text  string    `cbor:"text" json:"text"`                       // what happened, for people
}
