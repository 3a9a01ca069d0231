package grid

import "time"

// The types in this file are what people and programs see of a node: they are the JSON of the API.

// Version is the version of this software: a variable, so that a build can be given another one, by
// -ldflags "-X github.com/wasmgrid/wasmgrid/grid.Version=...".
var Version = "0.1.0"

// NodeStatus describes a running node.
type NodeStatus struct {
	ID       string     `json:"id"`                // its peer ID
	Version  string     `json:"version"`           // of grid
	Swarm    string     `json:"swarm"`             // its name
	Private  *SwarmInfo `json:"private,omitempty"` // nil in an open swarm
	Home     string     `json:"home"`              // the folder of its files
	Embedded bool       `json:"embedded"`          // lives inside a command, alone, for as long as that runs
	Addrs    []string   `json:"addrs"`             // multiaddrs at which it listens
	API      string     `json:"api"`               // the path of its unix socket
	Remote   []string   `json:"remote,omitempty"`  // the URLs at which the API is served over the network, with fingerprints
	Gateway  string     `json:"gateway,omitempty"` // the URL at which IPFS clients read from this node
	PID      int        `json:"pid"`               // of its process
	Started  time.Time  `json:"started"`           // when its process was
	Peers    int        `json:"peers"`             // nodes that are connected
	Load     Load       `json:"load"`              // what it has to do now
	Capacity Capacity   `json:"capacity"`          // what it has for tasks
	Public   bool       `json:"public"`            // the swarm is a public one
	Share    *ShareView `json:"share,omitempty"`   // what it lends to other realms; nil: nothing
	Jobs     int        `json:"jobs_running"`      // that it owns and that have not ended
	Ran      uint64     `json:"tasks_ran"`         // by this node, for any owner
	Stolen   uint64     `json:"tasks_stolen"`      // of those, taken from other nodes
	Store    StoreStats `json:"store"`             // its blocks, and their traffic
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
	ID        string   `json:"id"`         // the peer ID that IPFS nodes see: not the node's own
	Addrs     []string `json:"addrs"`      // multiaddrs at which IPFS nodes reach it
	Peers     int      `json:"peers"`      // IPFS nodes that are connected
	Roots     int      `json:"roots"`      // to announce
	Announced int      `json:"announced"`  // of those, known to other IPFS nodes
	BlocksIn  uint64   `json:"blocks_in"`  // fetched from IPFS nodes
	BytesIn   uint64   `json:"bytes_in"`   // of the blocks fetched
	BlocksOut uint64   `json:"blocks_out"` // given to IPFS nodes
	BytesOut  uint64   `json:"bytes_out"`  // of the blocks given
}

// StoreStats describes a node's block store and its traffic since the node started.
type StoreStats struct {
	BlockBytes uint64 `json:"block_bytes"`   // on disk
	MetaBytes  uint64 `json:"meta_bytes"`    // on disk: index, ledger, receipts
	BlocksIn   uint64 `json:"blocks_in"`     // fetched from other nodes
	BytesIn    uint64 `json:"bytes_in"`      // of the blocks fetched
	Wasted     uint64 `json:"blocks_wasted"` // blocks that came although they were here
	BlocksOut  uint64 `json:"blocks_out"`    // given to other nodes
	BytesOut   uint64 `json:"bytes_out"`     // of the blocks given
	// Nodes that were dropped for sending what is wrong or was not asked for, or too slowly.
	BadPeers uint64      `json:"bad_peers"`
	Speeds   []PeerSpeed `json:"peer_speeds,omitempty"` // of nodes that were asked for blocks, the fastest first
}

// PeerSpeed tells how fast another node sends blocks.
type PeerSpeed struct {
	Peer string  `json:"peer"`                 // its peer ID
	Rate float64 `json:"bytes_per_s"`          // smoothed; 0 when not measured yet
	Last bool    `json:"asked_last,omitempty"` // for what it did lately
}

// StoreUse describes what a node's block store holds.
type StoreUse struct {
	Disk         uint64 `json:"disk_bytes"`    // that blocks take on disk
	Live         uint64 `json:"live_bytes"`    // of these, of blocks that are here; a collection gets the others back
	Pinned       uint64 `json:"pinned_bytes"`  // of live ones, what jobs, pins and whatever is under way need
	Cached       uint64 `json:"cached_bytes"`  // of live ones, the others
	Quota        uint64 `json:"quota_bytes"`   // most that blocks may take on disk
	Blocks       uint64 `json:"blocks"`        // that are here
	PinnedBlocks uint64 `json:"pinned_blocks"` // of these, what jobs, pins and whatever is under way need
	Damaged      []Link `json:"damaged"`       // blocks that are known to be
}

// Collected is what a garbage collection came to.
type Collected struct {
	DryRun       bool          `json:"dry_run,omitempty"` // it only counted
	Kept         uint64        `json:"kept_blocks"`       // how many blocks stay
	KeptBytes    uint64        `json:"kept_bytes"`        // of the blocks that stay
	Deleted      uint64        `json:"deleted_blocks"`    // how many blocks went, or would go
	DeletedBytes uint64        `json:"deleted_bytes"`     // of the blocks that went, or would go
	Reclaimed    int64         `json:"reclaimed_bytes"`   // by which the files on disk have become smaller
	Lost         []Link        `json:"lost,omitempty"`    // blocks found damaged, that could not be had from elsewhere
	Took         time.Duration `json:"took_ns"`           // how long it took
}

// Verified is what reading all blocks came to.
type Verified struct {
	Blocks  uint64         `json:"blocks"`  // that were read
	Bytes   uint64         `json:"bytes"`   // that were read
	Damaged []DamagedBlock `json:"damaged"` // those that are wrong
	Took    time.Duration  `json:"took_ns"` // how long it took
}

// DamagedBlock is one that no longer matches its CID. The codec of the CID is raw where no root leads to it.
type DamagedBlock struct {
	CID      Link   `json:"cid"`             // that its bytes should have
	Repaired bool   `json:"repaired"`        // it was had from another node
	Error    string `json:"error,omitempty"` // why it was not
}

// JobStatus describes a job.
type JobStatus struct {
	ID        JobID     `json:"id"`              // drawn when it was submitted
	Name      string    `json:"name,omitempty"`  // for people; of the spec
	State     State     `json:"state"`           // whether it runs, and else how it ended
	Error     string    `json:"error,omitempty"` // why it failed
	Code      Code      `json:"code,omitempty"`  // of Error
	Owner     string    `json:"owner"`           // the node that drives it
	Epoch     Epoch     `json:"epoch"`           // how many owners it has had
	Note      string    `json:"note,omitempty"`  // why it is Waiting, or cannot run
	Copies    int       `json:"copies"`          // nodes that had all it needs when it was accepted
	Spec      Link      `json:"spec"`            // of its spec, a block
	Result    Link      `json:"result,omitzero"` // of the folder of what it came to; none until it is done
	Trace     string    `json:"trace"`           // the ID of its trace, for nodes that make some
	Submitted time.Time `json:"submitted"`       // by the clock of the node that accepted it
	Ended     time.Time `json:"ended,omitzero"`  // zero while it runs
	Policy
	Stages []StageStatus `json:"stages"` // in the order of the spec
}

// StageStatus counts a stage's tasks.
type StageStatus struct {
	Name   string `cbor:"name" json:"name"`                         // as in the spec
	Plugin string `cbor:"plugin,omitempty" json:"plugin,omitempty"` // NAME@VERSION that it runs, if it was named so
	Tasks  uint32 `cbor:"tasks" json:"tasks"`                       // how many it has
	Done   uint32 `cbor:"done" json:"done"`                         // ended well, Cached among them
	Cached uint32 `cbor:"cached" json:"cached"`                     // known from earlier runs
	Failed uint32 `cbor:"failed" json:"failed"`                     // ended without success, for good
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
	Stage  uint32     `json:"stage"`            // counted from 0
	Index  uint32     `json:"index"`            // its number in the stage, counted from 0
	Input  string     `json:"input,omitempty"`  // name of the first of its inputs
	Inputs int        `json:"inputs,omitempty"` // how many it has
	Node   string     `json:"node"`             // that ran it
	Cached bool       `json:"cached,omitempty"` // its result was known from an earlier run
	Exit   uint32     `json:"exit"`             // its exit code; 0 also where there is a fault
	Fault  *Fault     `json:"fault,omitempty"`  // why it came to an end other than exiting; absent when it exited
	Stdout TaskOutput `json:"stdout"`           // what it wrote to standard output
	Stderr TaskOutput `json:"stderr"`           // what it wrote to standard error
	Out    Link       `json:"out,omitzero"`     // of the folder that it left in /out; none: it left nothing
	// Started is when its attempt began, by the clock of its node; the phases follow.
	Started time.Time `json:"started,omitzero"`
	Phases  Phases    `json:"phases"`           // where its time went
	Memory  uint64    `json:"memory_bytes"`     // most that its linear memory came to
	Fuel    uint64    `json:"fuel"`             // that it used, in units of docs/abi.md
	Calls   uint64    `json:"calls"`            // of host functions
	Impure  bool      `json:"impure,omitempty"` // another run may come to something else
	// Profile is where its fuel went, in pprof's format, when that was asked for.
	Profile Link `json:"profile,omitzero"`
	// Metrics are what it counted and measured.
	Metrics []Metric `json:"metrics,omitempty"`
}

// OK reports whether the task succeeded.
func (t *TaskEnd) OK() bool { return t.Fault == nil && t.Exit == 0 }

// TaskOutput is what a task wrote: the bytes themselves when short, else a CID to read.
type TaskOutput struct {
	Size int64  `json:"size"`           // in bytes
	Data []byte `json:"data,omitempty"` // base64 in JSON
	CID  Link   `json:"cid,omitzero"`   // of the bytes, when they are not in Data
}
