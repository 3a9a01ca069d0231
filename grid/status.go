package grid

import "time"

// The types in this file are what people and programs see of a node: they are the JSON of the API.

// Version is the version of this software: a variable, so that a build can be given another one, by
// -ldflags "-X github.com/wasmgrid/wasmgrid/grid.Version=...".
var Version = "0.1.0"

// NodeStatus describes a running node.
type NodeStatus struct {
	ID       string     `json:"id"`
	Version  string     `json:"version"`
	Swarm    string     `json:"swarm"`
	Private  *SwarmInfo `json:"private,omitempty"` // nil in an open swarm
	Home     string     `json:"home"`
	Embedded bool       `json:"embedded"` // lives inside a command, alone, for as long as that runs
	Addrs    []string   `json:"addrs"`
	API      string     `json:"api"`
	Remote   []string   `json:"remote,omitempty"`  // the URLs at which the API is served over the network, with fingerprints
	Gateway  string     `json:"gateway,omitempty"` // the URL at which IPFS clients read from this node
	PID      int        `json:"pid"`
	Started  time.Time  `json:"started"`
	Peers    int        `json:"peers"`
	Load     Load       `json:"load"`
	Capacity Capacity   `json:"capacity"`        // what it has for tasks
	Public   bool       `json:"public"`          // the swarm is a public one
	Share    *ShareView `json:"share,omitempty"` // what it lends to other realms; nil: nothing
	Jobs     int        `json:"jobs_running"`
	Ran      uint64     `json:"tasks_ran"`    // by this node, for any owner
	Stolen   uint64     `json:"tasks_stolen"` // of those, taken from other nodes
	Store    StoreStats `json:"store"`
	// Ledger is nil for an embedded node of a home that shares its realm, or has none.
	Ledger *LedgerStatus `json:"ledger,omitempty"`
	// Reach is nil for an embedded node.
	Reach *Reach `json:"reach,omitempty"`
	// IPFS is nil for a node without the bridge.
	IPFS *IPFSStatus `json:"ipfs,omitempty"`
	// LogTrouble says why the node's log cannot be written, and LogsLost counts the records that were not, since it started.
	LogTrouble string `json:"log_trouble,omitempty"`
	LogsLost   uint64 `json:"logs_lost,omitempty"`
}

// IPFSStatus describes a node's bridge to IPFS and its traffic since the node started.
type IPFSStatus struct {
	ID        string   `json:"id"` // the peer ID that IPFS nodes see: not the node's own
	Addrs     []string `json:"addrs"`
	Peers     int      `json:"peers"`     // IPFS nodes that are connected
	Roots     int      `json:"roots"`     // to announce
	Announced int      `json:"announced"` // of those, known to other IPFS nodes
	BlocksIn  uint64   `json:"blocks_in"` // fetched from IPFS nodes
	BytesIn   uint64   `json:"bytes_in"`
	BlocksOut uint64   `json:"blocks_out"` // given to IPFS nodes
	BytesOut  uint64   `json:"bytes_out"`
}

// StoreStats describes a node's block store and its traffic since the node started.
type StoreStats struct {
	BlockBytes uint64 `json:"block_bytes"` // on disk
	MetaBytes  uint64 `json:"meta_bytes"`  // on disk: index, ledger, receipts
	BlocksIn   uint64 `json:"blocks_in"`   // fetched from other nodes
	BytesIn    uint64 `json:"bytes_in"`
	Wasted     uint64 `json:"blocks_wasted"` // blocks that came although they were here
	BlocksOut  uint64 `json:"blocks_out"`    // given to other nodes
	BytesOut   uint64 `json:"bytes_out"`
	// Nodes that were dropped for sending what is wrong or was not asked for, or too slowly.
	BadPeers uint64      `json:"bad_peers"`
	Speeds   []PeerSpeed `json:"peer_speeds,omitempty"` // of nodes that were asked for blocks, the fastest first
}

// PeerSpeed tells how fast another node sends blocks.
type PeerSpeed struct {
	Peer string  `json:"peer"`
	Rate float64 `json:"bytes_per_s"`          // smoothed; 0 when not measured yet
	Last bool    `json:"asked_last,omitempty"` // for what it did lately
}

// StoreUse describes what a node's block store holds.
type StoreUse struct {
	Disk         uint64 `json:"disk_bytes"`   // that blocks take on disk
	Live         uint64 `json:"live_bytes"`   // of these, of blocks that are here; a collection gets the others back
	Pinned       uint64 `json:"pinned_bytes"` // of live ones, what jobs, pins and whatever is under way need
	Cached       uint64 `json:"cached_bytes"` // of live ones, the others
	Quota        uint64 `json:"quota_bytes"`  // most that blocks may take on disk
	Blocks       uint64 `json:"blocks"`
	PinnedBlocks uint64 `json:"pinned_blocks"`
	Damaged      []Link `json:"damaged"` // blocks that are known to be
}

// Collected is what a garbage collection came to.
type Collected struct {
	DryRun       bool          `json:"dry_run,omitempty"` // it only counted
	Kept         uint64        `json:"kept_blocks"`
	KeptBytes    uint64        `json:"kept_bytes"`
	Deleted      uint64        `json:"deleted_blocks"`
	DeletedBytes uint64        `json:"deleted_bytes"`
	Reclaimed    int64         `json:"reclaimed_bytes"` // by which the files on disk have become smaller
	Lost         []Link        `json:"lost,omitempty"`  // blocks found damaged, that could not be had from elsewhere
	Took         time.Duration `json:"took_ns"`
}

// Verified is what reading all blocks came to.
type Verified struct {
	Blocks  uint64         `json:"blocks"`
	Bytes   uint64         `json:"bytes"`
	Damaged []DamagedBlock `json:"damaged"`
	Took    time.Duration  `json:"took_ns"`
}

// DamagedBlock is one that no longer matches its CID. The codec of the CID is raw where no root leads to it.
type DamagedBlock struct {
	CID      Link   `json:"cid"`
	Repaired bool   `json:"repaired"`
	Error    string `json:"error,omitempty"` // why it was not
}

// JobStatus describes a job.
type JobStatus struct {
	ID        JobID     `json:"id"`
	Name      string    `json:"name,omitempty"`
	State     State     `json:"state"`
	Error     string    `json:"error,omitempty"` // why it failed
	Code      Code      `json:"code,omitempty"`  // of Error
	Owner     string    `json:"owner"`
	Epoch     Epoch     `json:"epoch"`          // how many owners it has had
	Note      string    `json:"note,omitempty"` // why it is Waiting, or cannot run
	Copies    int       `json:"copies"`         // nodes that had all it needs when it was accepted
	Spec      Link      `json:"spec"`
	Result    Link      `json:"result,omitzero"`
	Trace     string    `json:"trace"` // the ID of its trace, for nodes that make some
	Submitted time.Time `json:"submitted"`
	Ended     time.Time `json:"ended,omitzero"`
	Policy
	Stages []StageStatus `json:"stages"`
}

// StageStatus counts a stage's tasks.
type StageStatus struct {
	Name   string `cbor:"name" json:"name"`
	Plugin string `cbor:"plugin,omitempty" json:"plugin,omitempty"` // NAME@VERSION that it runs, if it was named so
	Tasks  uint32 `cbor:"tasks" json:"tasks"`
	Done   uint32 `cbor:"done" json:"done"`     // ended well, Cached among them
	Cached uint32 `cbor:"cached" json:"cached"` // known from earlier runs
	Failed uint32 `cbor:"failed" json:"failed"`
	// Blocked are those whose turn has not come: what they take from other stages is not there yet.
	Blocked uint32            `cbor:"blocked,omitempty" json:"blocked,omitempty"`
	Ran     time.Duration     `cbor:"ran_ns" json:"ran_ns"`                       // time that guests ran, summed
	Nodes   map[string]uint32 `cbor:"nodes" json:"nodes"`                         // tasks ended, by the node that ran them; without the cached ones
	Spawned uint64            `cbor:"spawned,omitempty" json:"spawned,omitempty"` // by tasks that have ended, while they ran
	Metrics []Metric          `cbor:"metrics,omitempty" json:"metrics,omitempty"` // what they counted and measured, added up
	// Check is what verification has cost so far; nil when there was none.
	Check *StageCheck `cbor:"check,omitempty" json:"verification,omitempty"`
}

// TaskEnd tells how one task ended.
type TaskEnd struct {
	Stage  uint32     `json:"stage"`
	Index  uint32     `json:"index"`
	Input  string     `json:"input,omitempty"` // name of the first of its inputs
	Inputs int        `json:"inputs,omitempty"`
	Node   string     `json:"node"`
	Cached bool       `json:"cached,omitempty"`
	Exit   uint32     `json:"exit"`
	Fault  *Fault     `json:"fault,omitempty"`
	Stdout TaskOutput `json:"stdout"`
	Stderr TaskOutput `json:"stderr"`
	Out    Link       `json:"out,omitzero"`
	// Started is when its attempt began, by the clock of its node; the phases follow.
	Started time.Time `json:"started,omitzero"`
	Phases  Phases    `json:"phases"`
	Memory  uint64    `json:"memory_bytes"`
	Fuel    uint64    `json:"fuel"`
	Calls   uint64    `json:"calls"` // of host functions
	Impure  bool      `json:"impure,omitempty"`
	// Profile is where its fuel went, in pprof's format, when that was asked for.
	Profile Link `json:"profile,omitzero"`
	// Metrics are what it counted and measured.
	Metrics []Metric `json:"metrics,omitempty"`
}

// OK reports whether the task succeeded.
func (t *TaskEnd) OK() bool { return t.Fault == nil && t.Exit == 0 }

// TaskOutput is what a task wrote: the bytes themselves when short, else a CID to read.
type TaskOutput struct {
	Size int64  `json:"size"`
	Data []byte `json:"data,omitempty"` // base64 in JSON
	CID  Link   `json:"cid,omitzero"`
}
