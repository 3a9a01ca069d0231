package main

import (
	"regexp"
	"strings"
)

// bench is a benchmark, by its package, and how much of it is done each time: as long as everybody who measures has, and in a quick run, where "" is
// not at all.
type bench struct{ pkg, name, time, fast string }

func (b *bench) benchtime(quick bool) string {
	if quick {
		return b.fast
	}
	return b.time
}

// series is one figure of a part of a benchmark; scale is what one of it is in the line's unit, where 0 is 1.
type series struct {
	*bench
	part, unit string
	scale      float64
}

// target is what is aimed at for a figure, or for its ratio to the limit.
type target struct {
	bound   float64
	ofLimit bool
}

func (t *target) text(l *line) string {
	sign := "at least "
	if l.less {
		sign = "at most "
	}
	if t.ofLimit {
		return sign + digits(t.bound) + " of the limit"
	}
	return sign + amount(t.bound, l.unit)
}

// line is a row of the table. Its limit is a figure of its own, or follows from the ratio that the benchmark reports.
type line struct {
	name, shows string
	unit        string // s, B, B/s, tasks/s and so on; "" if it is a mere number
	less        bool   // is better
	value       series
	limitIs     string
	limit       series
	ratio       series
	target      *target
	peer        series // the same work by a peer, whose name its part begins with
}

// by is the line's figure of a peer. Its bench is nil if peers do nothing of the kind.
func (l *line) by(peer string) series {
	s := l.peer
	s.part = strings.TrimSuffix(peer+"/"+s.part, "/")
	return s
}

// quick reports whether all that the line needs can be had within seconds.
func (l *line) quick() bool {
	for _, s := range []series{l.value, l.limit, l.ratio} {
		if s.bench != nil && s.fast == "" {
			return false
		}
	}
	return true
}

// chosen are the lines to measure.
func chosen(match *regexp.Regexp, quick bool) (lines []*line) {
	for i := range table {
		if l := &table[i]; match.MatchString(l.name) && (l.quick() || !quick) {
			lines = append(lines, l)
		}
	}
	return lines
}

var (
	// Whole nodes, as processes.
	tasks     = &bench{"e2e", "Tasks", "5x", "1x"}
	tinyJob   = &bench{"e2e", "TinyJob", "2s", "100x"}
	embedded  = &bench{"e2e", "EmbeddedCommand", "20x", "5x"}
	skewed    = &bench{"e2e", "Skewed", "1x", ""}
	wordCount = &bench{"e2e", "WordCount", "1x", ""}
	firstWork = &bench{"e2e", "FirstSteal", "20x", "5x"}
	guests    = &bench{"e2e", "Guests", "3x", "1x"}
	sorting   = &bench{"e2e", "Sort", "3x", "1x"}
	failover  = &bench{"e2e", "Failover", "5x", "1x"}
	idle      = &bench{"e2e", "Idle", "4x", "1x"}
	add       = &bench{"e2e", "Add", "3x", "1x"}
	get       = &bench{"e2e", "Get", "3x", "1x"}

	// Rooms, alone or joined in a process.
	bareTasks  = &bench{"e2e", "BareTasks", "5x", "2x"}
	submit     = &bench{"cmd/grid/daemon", "Submit", "2s", "500x"}
	steal      = &bench{"cmd/grid/daemon", "FirstSteal", "30x", "10x"}
	transfer   = &bench{"cmd/grid/daemon", "Transfer", "5x", "1x"}
	firstByte  = &bench{"cmd/grid/daemon", "FirstByte", "1s", "100x"}
	takeOver   = &bench{"grid", "TakeOver", "5x", "2x"}
	imports    = &bench{"store", "ImportLarge", "3x", "1x"}
	smallFiles = &bench{"store", "Import10000", "3x", "1x"}
	commits    = &bench{"store/ledger", "Commit", "2s", "500x"}
	fsync      = &bench{"store/ledger", "Fsync", "2s", "500x"}
	newLeader  = &bench{"store/ledger", "Failover", "10x", "3x"}
	calls      = &bench{"p2p", "Call", "1s", "1000x"}
	bulk       = &bench{"p2p", "Bulk", "1s", "300x"}
	growth     = &bench{"sched", "Growth", "1x", "1x"}
	farGrowth  = &bench{"sched", "Growth", "1x", ""} // a minute, and more
	shares     = &bench{"sched", "Skewed", "10x", "3x"}
	million    = &bench{"sched", "MillionTasks", "3x", "1x"}

	// Other tools.
	peerTasks   = &bench{"e2e/bench/peers", "Tasks", "1x", "1x"}
	peerLatency = &bench{"e2e/bench/peers", "Latency", "1x", "1x"}
	peerSkewed  = &bench{"e2e/bench/peers", "Skewed", "1x", ""}
	peerWords   = &bench{"e2e/bench/peers", "Words", "1x", ""}
	peerIdle    = &bench{"e2e/bench/peers", "Idle", "1x", "1x"}

	// The host of guests.
	sandboxC  = &bench{"wasmhost/image", "C", "1s", "5000x"}
	sandboxGo = &bench{"wasmhost/image", "Go", "1s", "1000x"}
	parallel  = &bench{"wasmhost/image", "Parallel", "1s", "50000x"}
	reuse     = &bench{"wasmhost", "Reuse", "1s", "1000x"}
	unseen    = &bench{"wasmhost", "FirstAnswer", "10x", "2x"}
	versus    = &bench{"wasmhost", "Versus", "11x", "3x"}
	kill      = &bench{"wasmhost", "Kill", "100x", "20x"}
	stall     = &bench{"wasmhost", "Stall", "3x", "1x"}
)

const (
	ms = 1e-3
	us = 1e-6
	ns = 1e-9
	mb = 1e6
)

// table lists all lines, in the order in which they are shown. Each target is one that was set before anything was built, as what others reach or
// what prototypes have shown.
var table = []line{
	{name: "tasks-1", shows: "tasks that do nothing, submitted, run in sandboxes and recorded, by one node", unit: "tasks/s",
		value: series{tasks, "", "one-tasks/s", 0}, target: &target{bound: 10e3}, peer: series{peerTasks, "1", "tasks/s", 0}},
	{name: "tasks-2", shows: "the same by two nodes of one slot each on the same processors", unit: "tasks/s",
		value: series{tasks, "", "two-tasks/s", 0}, limitIs: "by one node", limit: series{tasks, "", "one-tasks/s", 0}, peer: series{peerTasks, "2", "tasks/s", 0}},
	{name: "tasks-4", shows: "the same by four nodes on the same processors", unit: "tasks/s",
		value: series{tasks, "", "four-tasks/s", 0}, limitIs: "by one node", limit: series{tasks, "", "one-tasks/s", 0}, peer: series{peerTasks, "4", "tasks/s", 0}},
	{name: "task-cpu", shows: "processor time of such a task", unit: "s", less: true,
		value: series{tasks, "", "one-cpu-us/task", us}, limitIs: "without sandbox and store", limit: series{bareTasks, "", "cpu-ns/task", ns}},
	{name: "task-book", shows: "the scheduler's part of it, among a million", unit: "s", less: true,
		value: series{million, "", "ns/task", ns}},
	{name: "tasks-c", shows: "tasks in C that say a word, by one node", unit: "tasks/s",
		value: series{guests, "c", "tasks/s", 0}, limitIs: "by the host of guests alone", limit: series{guests, "c", "host-tasks/s", 0}},
	{name: "tasks-rust", shows: "the same in Rust", unit: "tasks/s",
		value: series{guests, "rust", "tasks/s", 0}, limitIs: "by the host of guests alone", limit: series{guests, "rust", "host-tasks/s", 0}},
	{name: "tasks-go", shows: "the same in Go", unit: "tasks/s",
		value: series{guests, "go", "tasks/s", 0}, limitIs: "by the host of guests alone", limit: series{guests, "go", "host-tasks/s", 0}},
	{name: "latency", shows: "from the submission of a job of one task to its result", unit: "s", less: true,
		value: series{tinyJob, "", "ns/op", ns}, limitIs: "an fsync", limit: series{fsync, "", "p50-us", us}, target: &target{bound: 10 * ms},
		peer: series{peerLatency, "", "s", 0}},
	{name: "submit-1", shows: "accepting a job, by one caller", unit: "s", less: true,
		value: series{submit, "one", "ns/op", ns}, limitIs: "an fsync", limit: series{fsync, "", "p50-us", us}},
	{name: "submit-8", shows: "the same, by eight callers together", unit: "s", less: true,
		value: series{submit, "eight", "ns/op", ns}, limitIs: "an fsync", limit: series{fsync, "", "p50-us", us}},
	{name: "run", shows: "grid run of a module without a node, the whole process", unit: "s", less: true,
		value: series{embedded, "", "ns/op", ns}},

	{name: "sandbox-c", shows: "a guest in C: start, call and reset, isolated", unit: "s", less: true,
		value: series{sandboxC, "scan", "ns/op", ns}, limitIs: "a new instance", limit: series{sandboxC, "fresh", "ns/op", ns}, target: &target{bound: 3 * us}},
	{name: "sandbox-go", shows: "a guest in Go: start, call and reset, isolated", unit: "s", less: true,
		value: series{sandboxGo, "scan", "ns/op", ns}, limitIs: "a new instance", limit: series{sandboxGo, "fresh", "ns/op", ns}, target: &target{bound: 10 * us}},
	{name: "sandboxes-go", shows: "guests in Go by all processors, the host alone", unit: "tasks/s",
		value: series{parallel, "go", "tasks/s", 0}, target: &target{bound: 80e3}},
	{name: "guest-c", shows: "a whole program in C, with its standard streams", unit: "s", less: true,
		value: series{reuse, "c/reused/one", "ns/op", ns}, limitIs: "in a new instance", limit: series{reuse, "c/fresh/one", "ns/op", ns}},
	{name: "guest-rust", shows: "a whole program in Rust", unit: "s", less: true,
		value: series{reuse, "rust/reused/one", "ns/op", ns}, limitIs: "in a new instance", limit: series{reuse, "rust/fresh/one", "ns/op", ns}},
	{name: "guest-go", shows: "a whole program in Go", unit: "s", less: true,
		value: series{reuse, "go/reused/one", "ns/op", ns}, limitIs: "in a new instance", limit: series{reuse, "go/fresh/one", "ns/op", ns}},
	{name: "unseen", shows: "the first answer of a Go module that was never seen", unit: "s", less: true,
		value: series{unseen, "tiered", "ns/op", ns}, limitIs: "compiled first", limit: series{unseen, "compiled", "ns/op", ns}, target: &target{bound: 150 * ms}},
	{name: "fuel", shows: "sha256 in a Go guest whose instructions are counted, a multiple of what wazero takes by itself", less: true,
		value: series{versus, "fuel/go/sha256", "×wazero", 0}, target: &target{bound: 1.15}},
	{name: "kill", shows: "until a guest ends that is to end, while others spin on all processors", unit: "s", less: true,
		value: series{kill, "", "µs/kill", us}},
	{name: "stall", shows: "the latest timer while guests spin on all processors", unit: "s", less: true,
		value: series{stall, "loop", "ms/worst", ms}, target: &target{bound: 12 * ms}},

	{name: "skewed-mixed", shows: "400 tasks of 10 ms and 10 of 1 s, mixed, on four nodes of one slot", unit: "s", less: true,
		value: series{skewed, "mixed", "ns/op", ns}, limitIs: "never idle", ratio: series{skewed, "mixed", "of-ideal", 0}, target: &target{1.1, true},
		peer: series{peerSkewed, "mixed", "s", 0}},
	{name: "skewed-last", shows: "the same, the long ones last", unit: "s", less: true,
		value: series{skewed, "long-last", "ns/op", ns}, limitIs: "one queue", ratio: series{skewed, "long-last", "of-one-queue", 0}, target: &target{1.1, true},
		peer: series{peerSkewed, "long-last", "s", 0}},
	{name: "skewed-simulated", shows: "the same as mixed, in the simulator: a multiple of the ideal", less: true,
		value: series{shares, "400x10ms+10x1s", "x-ideal", 0}},
	{name: "steal", shows: "from one node's first task to the first that an idle one steals", unit: "s", less: true,
		value: series{steal, "", "µs/steal", us}, limitIs: "a call between nodes", limit: series{calls, "grid", "ns/op", ns}},
	{name: "first-work", shows: "from a submission to the first task on another, idle node, processes", unit: "s", less: true,
		value: series{firstWork, "", "ms-from-call", ms}, limitIs: "an fsync", limit: series{fsync, "", "p50-us", us}},
	{name: "words", shows: "counting the words of 512 MB in 1,000 files, adding them included", unit: "s", less: true,
		value: series{wordCount, "8MiB", "run-s", 0}, limitIs: "plain Go", limit: series{wordCount, "8MiB", "plain-s", 0}, peer: series{peerWords, "", "s", 0}},
	{name: "sort", shows: "making, sorting and checking 400,000 records of 100 bytes, by a job of eight stages", unit: "s", less: true,
		value: series{sorting, "", "sort-s", 0}, limitIs: "plain Go", limit: series{sorting, "", "plain-s", 0}},

	{name: "call", shows: "a request of 64 bytes to another node and its reply", unit: "s", less: true,
		value: series{calls, "grid", "ns/op", ns}, limitIs: "over an open TCP connection", limit: series{calls, "tcp", "ns/op", ns}},
	{name: "bulk", shows: "bytes by a stream from node to node, encrypted", unit: "B/s",
		value: series{bulk, "grid", "MB/s", mb}, limitIs: "libp2p by itself", limit: series{bulk, "libp2p", "MB/s", mb}},
	{name: "fetch", shows: "256 MiB from disk to disk of another node, each block hashed", unit: "B/s",
		value: series{transfer, "big/disk", "MB/s", mb}, limitIs: "a raw stream", ratio: series{transfer, "big/disk", "of-raw", 0}, target: &target{0.9, true}},
	{name: "fetch-memory", shows: "the same from memory", unit: "B/s",
		value: series{transfer, "big/memory", "MB/s", mb}, limitIs: "a raw stream and a hash", ratio: series{transfer, "big/memory", "of-raw+sha256", 0}, target: &target{0.9, true}},
	{name: "fetch-small", shows: "10,000 blocks of 10 KB", unit: "B/s",
		value: series{transfer, "small/disk", "MB/s", mb}, limitIs: "a raw stream", ratio: series{transfer, "small/disk", "of-raw", 0}},
	{name: "first-byte", shows: "a block of 4 KiB from a node that is known to have it", unit: "s", less: true,
		value: series{firstByte, "", "ns/op", ns}, target: &target{bound: 1 * ms}},
	{name: "import", shows: "adding a file of 512 MiB durably", unit: "B/s",
		value: series{imports, "", "MB/s", mb}, limitIs: "one sha256", ratio: series{imports, "", "of-sha256", 0}, target: &target{0.8, true}},
	{name: "import-disk", shows: "the same", unit: "B/s",
		value: series{imports, "", "MB/s", mb}, limitIs: "the disk", ratio: series{imports, "", "of-disk", 0}},
	{name: "import-small", shows: "adding 10,000 files of 10 KB durably", unit: "files/s",
		value: series{smallFiles, "", "files/s", 0}, target: &target{bound: 5000}},
	{name: "add", shows: "grid add of 256 MiB to a node, the whole command", unit: "B/s",
		value: series{add, "", "MB/s", mb}, limitIs: "the disk", ratio: series{add, "", "of-disk", 0}},
	{name: "get", shows: "grid get of 256 MiB", unit: "B/s",
		value: series{get, "", "MB/s", mb}, limitIs: "the disk", ratio: series{get, "", "of-disk", 0}},

	{name: "commit-1", shows: "a transaction of the ledger, three voters on this disk, one client", unit: "s", less: true,
		value: series{commits, "files/voters=3/clients=1/batch=256", "p50-us", us}, limitIs: "an fsync", limit: series{fsync, "", "p50-us", us}, target: &target{5, true}},
	{name: "commits-64", shows: "transactions by 64 clients, three voters", unit: "commits/s",
		value: series{commits, "files/voters=3/clients=64/batch=256", "ops/s", 0}},
	{name: "commits-unbatched", shows: "the same, each an entry of its own", unit: "commits/s",
		value: series{commits, "files/voters=3/clients=64/batch=1", "ops/s", 0}, target: &target{bound: 10e3}},

	{name: "leader-dies", shows: "from the death of the ledger's leader to the next commit, a network in memory", unit: "s", less: true,
		value: series{newLeader, "", "p50-ms", ms}},
	{name: "owner-dies", shows: "from the death of a job's owner to the next finished task, a network in memory", unit: "s", less: true,
		value: series{takeOver, "", "ms/takeover", ms}, target: &target{bound: 2}},
	{name: "leader-killed", shows: "from kill -9 of the leader's process to the next commit, three nodes", unit: "s", less: true,
		value: series{failover, "leader", "ms", ms}},
	{name: "owner-killed", shows: "from kill -9 of a job's owner to the next finished task, three nodes", unit: "s", less: true,
		value: series{failover, "owner", "ms", ms}, target: &target{bound: 2}},
	{name: "worker-killed", shows: "from kill -9 of a node to when its task has begun on another", unit: "s", less: true,
		value: series{failover, "worker", "ms", ms}},

	{name: "idle-memory", shows: "memory of a node that has nothing to do", unit: "B", less: true,
		value: series{idle, "alone", "bytes/node", 0}, peer: series{peerIdle, "", "bytes", 0}},
	{name: "idle-memory-3", shows: "the same of each of three voters", unit: "B", less: true,
		value: series{idle, "of-three", "bytes/node", 0}},
	{name: "idle-cpu", shows: "its processor time, in percent of one processor", unit: "", less: true,
		value: series{idle, "alone", "%core/node", 0}, peer: series{peerIdle, "", "%core", 0}},
	{name: "idle-cpu-3", shows: "the same of each of three voters", unit: "", less: true,
		value: series{idle, "of-three", "%core/node", 0}},

	{name: "nodes-10", shows: "messages for each task among 10 simulated nodes", unit: "", less: true,
		value: series{growth, "10", "messages/task", 0}},
	{name: "nodes-1000", shows: "the same among 1,000", unit: "", less: true,
		value: series{growth, "1000", "messages/task", 0}, limitIs: "among 10", limit: series{growth, "10", "messages/task", 0}},
	{name: "nodes-10000", shows: "the same among 10,000", unit: "", less: true,
		value: series{farGrowth, "10000", "messages/task", 0}, limitIs: "among 10", limit: series{growth, "10", "messages/task", 0}},
	{name: "stretch-1000", shows: "makespan among 1,000 simulated nodes, a multiple of the ideal", less: true,
		value: series{growth, "1000", "x-ideal", 0}, limitIs: "among 10", limit: series{growth, "10", "x-ideal", 0}},
	{name: "stretch-10000", shows: "the same among 10,000", unit: "", less: true,
		value: series{farGrowth, "10000", "x-ideal", 0}, limitIs: "among 10", limit: series{growth, "10", "x-ideal", 0}},
}
