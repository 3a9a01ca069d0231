package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wasmgrid/wasmgrid/cmd/grid/config"
	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/cmd/grid/nodelog"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/p2p/member"
	"github.com/wasmgrid/wasmgrid/sched"
	"github.com/wasmgrid/wasmgrid/store/cache"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestnet"
)

// upFlags are the flags of grid up.
type upFlags struct {
	join, listen     []string
	swarm, realm     string
	noMDNS, noNearby bool
	announce         []string
	noUPnP           bool
	relay            string
	workers          int
	memory           sizeFlag
	quota            sizeFlag
	taskNet          string
	logLevel         string
	logFormat        string
	logFile          string
	zone             string
	labels           []string
	taskScratch      sizeFlag
	weights          []string
	maxJobs          int
	maxQueued        uint64
	replicas         int
	repairGrace      time.Duration
	repairRate       sizeFlag
	sendRate         sizeFlag
	gateway          string
	gatewayFetch     bool
	gatewayHosts     []string
	api              string
	apiCert, apiKey  string
	apiHosts         []string
	detach           bool
	show             output
	given            *pflag.FlagSet
	from             origins
	endWithStdin     bool
	slow             slowFlags
	ipfs             bool
	ipfsListen       []string
	ipfsPeers        []string
	keepJobs         int
	keepJobsFor      time.Duration
	trust            []string
	lend             shareFlags
	public           bool
	bootstrap        []string
	otlp             string
	grain            time.Duration
	cache            sizeFlag
}

func (e *env) upCommand() *cobra.Command { return e.upCommandOf(&upFlags{}) }

// upCommandOf is grid up with a place for its flags.
func (e *env) upCommandOf(f *upFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a node that others can join",
		Long: `Run a node until it is interrupted or ` + "`grid down`" + ` ends it. It serves all grid commands of this home, and
shares work with the nodes of its swarm. It finds those on this machine and on the local network by
itself; others are named with --join. With a token of a private swarm (` + "`grid swarm invite`" + `) it joins that, and its
home remembers it.

The node's peer ID, addresses and API socket are printed when it is ready, its log goes to standard error.
With --detach the node runs in the background, and logs to grid.log in its home, of which it keeps 16 MiB and two
older files (` + "`grid node logs`" + ` shows the last records of any node, ` + "`grid node log-level`" + ` has it say more or less).

Each flag but --detach, --format, --json, --quiet and --end-with-stdin can be set for good: in the environment, as GRID_UP_WORKERS for --workers, or in
a file, with ` + "`grid config set up.workers 4`" + `. What is on the command line goes before the environment, and that before the files.

With --ipfs the node exchanges data with IPFS nodes of the local network: what is added here they can fetch by
its CID, and a CID that no node of the swarm has is looked for there. Then whoever can reach the IPFS port
can read any block of this node whose CID they know, be the swarm private or not.`,
		Example: `  grid up
  grid up -d --join grid-join-1-...
  grid up -d --swarm lab
  grid up --label gpu=false,zone=a --label rack=r12
  grid up --join /ip4/192.0.2.7/udp/4747/quic-v1/p2p/12D3KooW...
  grid up --public --bootstrap /ip4/192.0.2.7/tcp/4747/p2p/12D3KooW... --share cpu=50%,mem=4GiB
  grid up --announce /ip4/203.0.113.7/udp/4747/quic-v1
  grid up --ipfs --ipfs-peer /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := e.homeOnly("`grid up`"); err != nil {
				return err
			}
			home, err := e.homeDir()
			if err != nil {
				return err
			}
			if f.from, err = e.configure(cmd, e.configFiles(home)); err != nil {
				return err
			}
			if err := f.from.explain(f.check(cmd)); err != nil {
				return err
			}
			if err := e.checkNotUp(cmd.Context(), home); err != nil {
				return err
			}
			if f.logFile != "" {
				if f.logFile, err = filepath.Abs(f.logFile); err != nil {
					return grid.Errorf(grid.Invalid, "--log-file: %w", err)
				}
			}
			if f.detach {
				return e.upDetached(cmd.Context(), f, home)
			}
			return e.up(cmd.Context(), f, home)
		},
	}
	fl := cmd.Flags()
	f.given = fl
	fl.StringArrayVar(&f.join, "join", nil, "the `ADDRESS` of a node to join, as that one prints it, or the token of a private swarm; may be repeated")
	fl.StringArrayVar(&f.listen, "listen", nil, "a `MULTIADDR` to listen on instead of the default; may be repeated")
	fl.StringVar(&f.swarm, "swarm", "", "the `NAME` of the swarm; nodes of another one are not seen")
	fl.StringVar(&f.realm, "realm", "", "the `NAME` of the realm; its nodes share one ledger (default that of the home, or \"default\")")
	fl.BoolVar(&f.noMDNS, "no-mdns", false, "do not look for nodes on the local network")
	fl.BoolVar(&f.noNearby, "no-nearby", false, "do not look for nodes on this machine")
	fl.StringArrayVar(&f.announce, "announce", nil, "a `MULTIADDR` at which others reach the node though it does not listen there, such as a port that a router forwards; may be repeated")
	fl.BoolVar(&f.noUPnP, "no-upnp", false, "do not ask the router to forward a port (UPnP, NAT-PMP)")
	fl.StringVar(&f.relay, "relay", "auto", "`WHEN` to carry connections between members that cannot reach each other: on, off, or auto, if nodes outside reach this one")
	fl.IntVar(&f.workers, "workers", 0, "run `N` tasks at a time (default one for each core)")
	fl.Var(&f.memory, "task-memory", "how much memory all tasks together may use (default three quarters of the machine's)")
	fl.DurationVar(&f.grain, "grain", sched.DefaultGrain, "give a worker small tasks of so much running `TIME` at once")
	fl.Var(&f.cache, "block-cache", "how much memory blocks that are read often may take (default "+formatSize(uint64(cache.DefaultSize))+")")
	fl.Var(&f.quota, "store-quota", "how much disk blocks may take (default 80% of what they take and what is free)")
	fl.Var(&f.taskScratch, "task-scratch", "how much disk tasks may reserve together, with --reserve-scratch (default any amount)")
	fl.StringArrayVar(&f.labels, "label", nil, "give the node labels, `KEY=VALUE,...`, for jobs to choose it by; may be repeated")
	fl.StringVar(&f.taskNet, "task-net", "public", "`WHAT` tasks that ask for it may reach by HTTP: none, public addresses, or whatever a job has named")
	fl.StringVar(&f.zone, "zone", "", "the `NAME` of the room, rack or site that this node shares with others; copies are spread over zones")
	fl.IntVar(&f.replicas, "replicas", 1, "keep what is pinned here on `N` nodes, unless it says otherwise")
	fl.DurationVar(&f.repairGrace, "repair-grace", 5*time.Minute, "how much `TIME` a node may be away before its copies are made anew elsewhere")
	fl.Var(&f.repairRate, "repair-rate", "how many bytes a second are fetched for that (default 64MiB)")
	fl.Var(&f.sendRate, "send-rate", "how many bytes a second one peer is sent of blocks, 16MiB at least (default as fast as they go)")
	fl.BoolVar(&f.ipfs, "ipfs", false, "exchange data with IPFS nodes; whoever reaches the IPFS port can read any block whose CID they know")
	fl.StringArrayVar(&f.ipfsListen, "ipfs-listen", nil, "a `MULTIADDR` to listen on for IPFS nodes instead of the default; may be repeated")
	fl.StringArrayVar(&f.ipfsPeers, "ipfs-peer", nil, "the `ADDRESS` of an IPFS node to stay connected to, ending in /p2p/ID; may be repeated")
	fl.StringVar(&f.gateway, "gateway", "", "let IPFS clients read this node's blocks by HTTP at an `ADDRESS` such as 127.0.0.1:8080")
	fl.StringSliceVar(&f.gatewayHosts, "gateway-host", nil, "let them call it by this `NAME`, too, beside localhost, this machine's name and IP addresses")
	fl.BoolVar(&f.gatewayFetch, "gateway-fetch", false, "let them have the node fetch blocks from others, too; do not, where strangers reach it")
	fl.StringVar(&f.api, "api", "", "serve the API by TLS at an `ADDRESS` such as 0.0.0.0:4748, to those who have a token of `grid token create`")
	fl.StringVar(&f.apiCert, "api-cert", "", "with the certificate of this PEM `FILE`, read again when it changes (default one of the node's own)")
	fl.StringVar(&f.apiKey, "api-key", "", "and with the key of this PEM `FILE`")
	fl.StringSliceVar(&f.apiHosts, "api-host", nil, "the `NAME` or address by which others call it, if it is none of this machine's own; may be repeated")
	fl.IntVar(&f.keepJobs, "keep-jobs", 10_000, "remember the last `N` jobs that have ended; 0: any number")
	fl.DurationVar(&f.keepJobsFor, "keep-jobs-for", 30*24*time.Hour, "remember jobs for so much `TIME` after their end; 0: for ever")
	fl.StringArrayVar(&f.weights, "weight", nil, "give a user a share of the node's time that is so many times another's, `USER=WEIGHT`; may be repeated")
	fl.IntVar(&f.maxJobs, "max-jobs-per-user", grid.DefaultQuota.Jobs, "accept no more than `N` jobs that run at a time from one user")
	fl.Uint64Var(&f.maxQueued, "max-queued-per-user", grid.DefaultQuota.Tasks, "accept no more than `N` tasks from one user that have not ended")
	fl.StringSliceVar(&f.trust, "trust", nil, "count results that this `NODE` of another realm signed, by its ID, as known; all: anybody's; may be repeated")
	f.lend.add(fl)
	f.slow.add(fl)
	f.addPublic(fl)
	fl.StringVar(&f.otlp, "otlp", "", "send traces of jobs to the OpenTelemetry collector at this `URL`, such as http://localhost:4318 (default $OTEL_EXPORTER_OTLP_ENDPOINT)")
	fl.StringVar(&f.logLevel, "log-level", "info", "log from this `LEVEL` on: debug, info, warn or error; with ,ROOM=LEVEL a part of the node from another one")
	fl.StringVar(&f.logFormat, "log-format", "text", "write the log as lines of `FORMAT`: text or json")
	fl.StringVar(&f.logFile, "log-file", "", "log to a `FILE`, of which 16MiB are kept and two older ones, instead of standard error")
	fl.BoolVarP(&f.detach, "detach", "d", false, "run in the background")
	f.show.prints(e, cmd, "{{.id}}")
	fl.BoolVar(&f.endWithStdin, "end-with-stdin", false, "end the node when its standard input ends, as it does with the program that started it")
	groupFlags(cmd, upGroups)
	completeFlag(cmd, "relay", "auto", "on", "off")
	completeFlag(cmd, "log-level", "debug", "info", "warn", "error")
	completeFlag(cmd, "log-format", "text", "json")
	completeFlag(cmd, "task-net", "none", "public", "named")
	return cmd
}

// check refuses flags that make no sense, before anything is started.
func (f *upFlags) check(cmd *cobra.Command) error {
	if _, err := nodelog.ParseLevels(f.logLevel); err != nil {
		return usageError(cmd, "--log-level: %v", err)
	}
	if f.logFormat != "text" && f.logFormat != "json" {
		return usageError(cmd, "--log-format %q: want text or json", f.logFormat)
	}
	if _, err := f.upTraces(); err != nil {
		return err
	}
	if f.given.Changed("grain") && (f.grain < minGrain || f.grain > maxGrain) {
		return usageError(cmd, "--grain %v: want %v to %v", f.grain, minGrain, maxGrain)
	}
	if _, err := guestnet.ParsePolicy(f.taskNet); err != nil {
		return usageError(cmd, "--task-net %q: want none, public or named", f.taskNet)
	}
	if _, err := p2p.ParseRelaying(f.relay); err != nil {
		return usageError(cmd, "--relay %q: want auto, on or off", f.relay)
	}
	if f.detach && f.endWithStdin {
		return usageError(cmd, "--detach and --end-with-stdin exclude each other: in the background there is no input")
	}
	if f.replicas < 1 || f.replicas > grid.MaxCopies {
		return usageError(cmd, "--replicas %d: want 1 to %d", f.replicas, grid.MaxCopies)
	}
	if f.repairGrace <= 0 {
		return usageError(cmd, "--repair-grace %v: want a time", f.repairGrace)
	}
	if !f.ipfs && len(f.ipfsListen)+len(f.ipfsPeers) > 0 {
		return usageError(cmd, "--ipfs-listen and --ipfs-peer need --ipfs")
	}
	if f.keepJobs < 0 || f.keepJobsFor < 0 {
		return usageError(cmd, "--keep-jobs %d and --keep-jobs-for %v: neither may be negative; 0 is no limit", f.keepJobs, f.keepJobsFor)
	}
	if _, err := parseTrust(f.trust); err != nil {
		return err
	}
	if _, _, _, err := f.lend.parse(); err != nil {
		return err
	}
	if _, err := f.slow.parse(); err != nil {
		return err
	}
	if err := f.checkPublic(cmd); err != nil {
		return err
	}
	if f.workers < 0 || f.workers > grid.MaxSlots {
		return usageError(cmd, "--workers %d: want 1 to %d, or 0 for one for each core", f.workers, grid.MaxSlots)
	}
	if f.memory > 0 {
		if err := grid.CheckTaskMemory(uint64(f.memory)); err != nil {
			return grid.Errorf(grid.CodeOf(err), "--task-memory: %w", err)
		}
	}
	if _, err := f.nodeLabels(); err != nil {
		return err
	}
	if _, err := parseWeights(f.weights); err != nil {
		return err
	}
	if f.maxJobs < 1 || f.maxQueued < 1 {
		return usageError(cmd, "--max-jobs-per-user %d and --max-queued-per-user %d: want at least 1", f.maxJobs, f.maxQueued)
	}
	if (f.gatewayFetch || len(f.gatewayHosts) > 0) && f.gateway == "" {
		return usageError(cmd, "--gateway-fetch and --gateway-host are nothing without --gateway")
	}
	if f.api == "" && (f.apiCert != "" || f.apiKey != "" || len(f.apiHosts) > 0) {
		return usageError(cmd, "--api-cert, --api-key and --api-host are nothing without --api")
	}
	if (f.apiCert == "") != (f.apiKey == "") {
		return usageError(cmd, "--api-cert and --api-key belong together")
	}
	if f.api != "" && (api.IsKey(f.api) || strings.Contains(f.api, "://")) {
		return usageError(cmd, "--api is where this node is to serve its API, an address such as 0.0.0.0:%s; for `grid up` it names no other node", api.DefaultPort)
	}
	return f.checkAddresses(cmd)
}

// checkAddresses refuses what cannot be an address, before anything is started.
func (f *upFlags) checkAddresses(cmd *cobra.Command) error {
	for _, a := range f.join {
		switch {
		case api.IsKey(a):
			return usageError(cmd, "--join is given a token for the API; one of a private swarm is made by `grid swarm invite`")
		case member.IsToken(a):
			if _, err := member.ParseToken(a); err != nil {
				return err
			}
		case !strings.HasPrefix(a, "/"):
			return grid.Errorf(grid.Invalid, "--join %.80q is neither a token nor an address of a node", a).
				Hint("write an address like /ip4/192.0.2.1/tcp/%d/p2p/12D3KooW..., as `grid status` prints it on that node; a token begins with grid-join-", p2p.DefaultPort)
		}
	}
	if f.api != "" {
		if _, _, err := net.SplitHostPort(f.api); err != nil {
			return usageError(cmd, "--api %.80q is no address with a port, such as 0.0.0.0:%s or [::1]:%s", f.api, api.DefaultPort, api.DefaultPort)
		}
	}
	return nil
}

// A grain that is shorter costs more than it gives, and one that is longer keeps others waiting.
const (
	minGrain = time.Millisecond
	maxGrain = time.Second
)

// defaultRepairRate leaves most of a fast network and disk to tasks.
const defaultRepairRate = 64 << 20

// checkNotUp refuses a second node for one home, in better words than the lock could.
func (e *env) checkNotUp(ctx context.Context, home string) error {
	client, err := dial(ctx, home)
	if client == nil {
		return err
	}
	defer client.Close()
	st, err := client.Node(ctx)
	if err != nil {
		return err
	}
	return grid.Errorf(grid.Busy, "a node is running in %s already, as process %d", home, st.PID).
		Hint("use it as it is, end it with `grid down`, or start another one with --home")
}

// up runs a node in this process.
func (e *env) up(ctx context.Context, f *upFlags, home string) error {
	if f.endWithStdin {
		var stop func()
		ctx, stop = e.endOfInput(ctx)
		defer stop()
	}
	policy, err := guestnet.ParsePolicy(f.taskNet)
	if err != nil {
		return err
	}
	labels, err := f.nodeLabels()
	if err != nil {
		return err
	}
	trust, err := parseTrust(f.trust)
	if err != nil {
		return err
	}
	weights, err := parseWeights(f.weights)
	if err != nil {
		return err
	}
	relay, err := p2p.ParseRelaying(f.relay)
	if err != nil {
		return err
	}
	share, allow, deny, err := f.lend.parse()
	if err != nil {
		return err
	}
	traces, err := f.upTraces()
	if err != nil {
		return err
	}
	slow, err := f.slow.parse()
	if err != nil {
		return err
	}
	log, err := e.openNodeLog(f)
	if err != nil {
		return err
	}
	defer log.Close()
	d, err := daemon.Open(ctx, daemon.Config{
		Slow:   slow,
		Traces: traces, Grain: f.grain, Cache: int64(f.cache), Announce: f.announce, NoUPnP: f.noUPnP, Relay: relay,
		Share: share, ShareAllow: allow, ShareDeny: deny, Public: f.public,
		Labels: labels, Scratch: uint64(f.taskScratch), Weights: weights, Users: grid.Quota{Jobs: f.maxJobs, Tasks: f.maxQueued},
		TaskNet: &policy, Trust: trust,
		Home: home, Member: hostName(), Swarm: f.swarm, Realm: f.realm, Listen: f.listen, Join: f.joining(), NoMDNS: f.noMDNS, NoNearby: f.noNearby, Workers: f.workers, Memory: uint64(f.memory), Quota: int64(f.quota),
		Zone: f.zone, Replicas: f.replicas, RepairGrace: f.repairGrace, RepairRate: int64(cmp.Or(f.repairRate, defaultRepairRate)), SendRate: int64(f.sendRate),
		IPFS: f.ipfs, IPFSListen: f.ipfsListen, IPFSPeers: f.ipfsPeers,
		API: f.api, APICert: f.apiCert, APIKey: f.apiKey, APIHosts: f.apiHosts,
		Gateway: f.gateway, GatewayFetch: f.gatewayFetch, GatewayHosts: f.gatewayHosts, Retention: f.retention(),
		Logger: log.Logger(), Log: log.Log,
	})
	if err != nil {
		return err
	}
	st := d.Status()
	if err := e.ready(&st, &f.show); err != nil {
		return errors.Join(err, d.Close())
	}
	e.tellManager("READY=1")
	select {
	case <-ctx.Done():
	case <-d.Done():
	}
	e.tellManager("STOPPING=1")
	return d.Close()
}

// nodeLabels are the labels of --label, and zone as --zone has it, unless they tell another.
func (f *upFlags) nodeLabels() (grid.Labels, error) {
	l, err := grid.ParseLabels(f.labels...)
	if err != nil {
		return nil, grid.Errorf(grid.CodeOf(err), "--label: %w", err)
	}
	if f.zone == "" || l["zone"] != "" || len(l) >= grid.MaxLabels {
		return l, nil
	}
	l["zone"] = f.zone
	if err := l.Check(); err != nil {
		return nil, grid.Errorf(grid.CodeOf(err), "--zone %.80q: %w", f.zone, err)
	}
	return l, nil
}

// parseTrust reads whose results count.
func parseTrust(list []string) (t grid.Trust, err error) {
	for _, who := range list {
		if who == "all" {
			t.All = true
			continue
		}
		id, err := parseNode(who, "peers")
		if err != nil {
			return t, grid.Errorf(grid.Invalid, "--trust: %w", err)
		}
		t.Nodes = append(t.Nodes, id)
	}
	return t, nil
}

// parseNode reads the ID of a node; a verb of grid lists those that may be meant.
func parseNode(text, lists string) (peer.ID, error) {
	id, err := peer.Decode(text)
	if err != nil {
		return "", grid.Errorf(grid.Invalid, "%.80q is not the ID of a node", text).Hint("it is like 12D3KooW…, all of it; `grid %s` lists them", lists)
	}
	return id, nil
}

// retention is what is to be remembered of jobs that have ended.
func (f *upFlags) retention() grid.Retention {
	r := grid.Retention{Age: f.keepJobsFor, Jobs: f.keepJobs}
	if r.Age == 0 {
		r.Age = -1
	}
	if r.Jobs == 0 {
		r.Jobs = -1
	}
	return r
}

// ready prints what others need to use and join the node.
func (e *env) ready(st *grid.NodeStatus, show *output) error {
	if show.formatted() {
		return show.print(st)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "peer    %s\n", st.ID)
	for _, a := range joinable(st) {
		fmt.Fprintf(&b, "address %s\n", a)
	}
	if st.IPFS != nil {
		for _, a := range st.IPFS.Addrs {
			fmt.Fprintf(&b, "ipfs    %s\n", a)
		}
	}
	fmt.Fprintf(&b, "api     %s\n", st.API)
	for _, at := range st.Remote {
		fmt.Fprintf(&b, "remote  %s\n", at)
	}
	if st.Gateway != "" {
		fmt.Fprintf(&b, "gateway %s\n", st.Gateway)
	}
	_, err := io.WriteString(e.out, b.String())
	return err
}

// joinable is the node's addresses in the form that --join takes.
func joinable(st *grid.NodeStatus) []string {
	out := make([]string, len(st.Addrs))
	for i, a := range st.Addrs {
		if out[i] = a; !strings.Contains(a, "/p2p/"+st.ID) {
			out[i] = a + "/p2p/" + st.ID
		}
	}
	return out
}

// How long a node may take to start in the background, and how much of its log tells why it did not.
const (
	startTimeout = time.Minute
	startPoll    = 50 * time.Millisecond
	maxLogTail   = 8 << 10
)

// upDetached starts this program again in the background, and waits until it serves.
func (e *env) upDetached(ctx context.Context, f *upFlags, home string) error {
	self, err := os.Executable()
	if err != nil {
		return grid.Errorf(grid.Internal, "start a node: this program's own file is unknown: %w", err)
	}
	log, start, err := openLog(cmp.Or(f.logFile, filepath.Join(home, logName)))
	if err != nil {
		return err
	}
	defer log.Close()
	args, vars := f.args(home)
	child := exec.Command(self, append(args, "--log-file="+log.Name())...) // not bound to ctx: it is to outlive us
	child.Env = append(os.Environ(), vars...)
	child.Dir = home
	child.Stdout, child.Stderr = log, log
	child.SysProcAttr = detached()
	if err := child.Start(); err != nil {
		return grid.Errorf(grid.Internal, "start a node: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- child.Wait() }() // ends with the child, or with us
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, grid.Errorf(grid.Deadline, "the node did not start within %v", startTimeout).Hint("see %s", log.Name()))
	defer cancel()
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for {
		select {
		case err := <-exited:
			return startFailure("the node", err, log.Name(), start)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), child.Process.Signal(os.Interrupt))
		case <-tick.C:
		}
		client, err := dial(ctx, home)
		if client == nil || err != nil {
			continue // not yet; if never, the child's end or the deadline tell
		}
		st, err := client.Node(ctx)
		client.Close()
		if err != nil || st.PID != child.Process.Pid {
			continue
		}
		if err := e.ready(&st, &f.show); err != nil || f.show.formatted() {
			return err
		}
		e.hintNode(&st)
		return nil
	}
}

// hintNode says what can be done with a node that has been started in the background.
func (e *env) hintNode(st *grid.NodeStatus) {
	command := "grid"
	if e.home != "" {
		command += " --home " + e.home
	}
	e.hint("`%s status` and `%s dash` show the node, `%s down` ends it", command, command, command)
	for _, a := range joinable(st) {
		if st.Private == nil && !st.Public && !strings.HasPrefix(a, "/ip4/127.") && !strings.HasPrefix(a, "/ip6/::1/") {
			e.hint("on another machine, `grid up -d --join %s` joins it", a)
			return
		}
	}
}

// args are the flags for the node in the background, which finds by itself what comes from the environment and from files. Others
// on this machine can read them, so what has a token in it goes into the environment.
func (f *upFlags) args(home string) (args, env []string) {
	args = []string{"up", "--home", home}
	f.given.VisitAll(func(fl *pflag.Flag) {
		from, set := f.from[fl.Name]
		path := isPath(fl)
		if !set || fl.Name == "log-file" || !from.flag && !(path && from.variable != "") { // the path of a variable is relative to our folder
			return
		}
		list, isList := fl.Value.(pflag.SliceValue)
		switch {
		case isList && slices.ContainsFunc(list.GetSlice(), isSecret):
			s := config.Setting{Command: "up", Flag: fl.Name}
			env = append(env, s.Variable()+"="+strings.Join(list.GetSlice(), ","))
		case isList:
			for _, v := range list.GetSlice() {
				args = append(args, "--"+fl.Name+"="+v)
			}
		default:
			v := fl.Value.String()
			if abs, err := filepath.Abs(v); path && v != "" && err == nil {
				v = abs
			}
			args = append(args, "--"+fl.Name+"="+v)
		}
	})
	return args, env
}

// openLog opens the log of a node in the background for appending, and tells where the new part begins.
func openLog(name string) (f *os.File, start int64, err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, 0, logError("the log's folder "+filepath.Dir(name), err)
	}
	if info, err := os.Stat(name); err == nil && info.Size() > nodelog.FileSize {
		if err := nodelog.Rotate(name); err != nil {
			return nil, 0, grid.Errorf(codeOfOS(err), "put the log aside: %w", err)
		}
	}
	f, err = os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, logError("log "+name, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, logError("log "+name, err)
	}
	return f, info.Size(), nil
}

func logError(what string, err error) error {
	return grid.Errorf(codeOfOS(err), "%s: %w", what, reason(err)).Hint("is it yours, and its disk neither full nor read-only? --home and --log-file name other places")
}

// startFailure says why what runs in the background did not start, in its own words.
func startFailure(what string, err error, log string, start int64) error {
	exit := exitFailure
	if x := (*exec.ExitError)(nil); errors.As(err, &x) && x.ExitCode() > 0 {
		exit = x.ExitCode()
	}
	said := crash(log, start)
	if said == "" {
		said = strings.TrimSpace(string(lastWords(logTail(log, start))))
	}
	if said == "" {
		said = fmt.Sprintf("%v, and nothing is in its log; perhaps the disk is full", err)
	}
	return &exitError{exit, grid.Errorf(grid.Unavailable, "%s did not start:\n%s", what, indent(said)).Hint("its log is %s", log)}
}

// lastWords are what a node said of its end, without the records of its log before that. When there is nothing else they are all.
func lastWords(tail []byte) []byte {
	if i := bytes.LastIndex(append([]byte{'\n'}, tail...), []byte("\ngrid: ")); i >= 0 {
		return tail[i:]
	}
	return tail
}

// crash is the line with which the trace of a program that crashed begins; "": none did. All that follows in the log is for those who mend it.
func crash(name string, start int64) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(io.NewSectionReader(f, start, math.MaxInt64-start))
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "panic: ") || strings.HasPrefix(lines.Text(), "fatal error: ") {
			return lines.Text()
		}
	}
	return ""
}

// logTail is the end of what was logged behind start, in whole lines.
func logTail(name string, start int64) []byte {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	from := max(start, info.Size()-maxLogTail)
	data, err := io.ReadAll(io.NewSectionReader(f, from, maxLogTail))
	if err != nil {
		return nil
	}
	if _, rest, ok := bytes.Cut(data, []byte{'\n'}); ok && from > start {
		data = rest
	}
	return data
}
