// Package devnet runs a swarm of several nodes on this machine, to play and to test with. Each node is a process of its own, with a
// home of its own; none of them outlives the process that started it, however that ends: it ends when its standard input does.
package devnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasmgrid/wasmgrid/cmd/grid/config"
	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/p2p/member"
)

// MaxNodes is how many nodes a devnet may have: each is a process with tens of megabytes.
const MaxNodes = 50

// Config says what devnet to start.
type Config struct {
	Name    string // how it is called on this machine
	Dir     string // where the nodes' homes are; "": a folder that is removed at the end
	Nodes   int    // 1 to MaxNodes
	Private bool   // the swarm is a private one
	// Settings are those of each node, by the keys of `grid config`, besides what makes it one of the devnet.
	Settings map[string][]string
	Kill     time.Duration // kill a node every so often, not the first, and start it again; 0: never
	Seed     uint64        // of which is killed when
	Program  string        // the grid command
	Table    []config.Setting
	Logger   *slog.Logger // told what happens to nodes; nil: nobody is
}

// Net is a devnet that is up.
type Net struct {
	cfg     Config
	dir     string
	swarm   string
	fresh   bool   // there was nothing in dir
	token   string // to join a private swarm; "" in an open one
	nodes   []*node
	network string // what the swarm is called among nodes
	control *control
	ready   atomic.Bool
	ended   chan *node // processes that have ended
	fault   error      // of the first node that failed; owned by Run
}

// State is what a devnet tells of itself.
type State struct {
	Name    string      `json:"name"`
	Dir     string      `json:"dir"`
	PID     int         `json:"pid"`
	Swarm   string      `json:"swarm,omitempty"` // of an open one
	Private bool        `json:"private"`
	Ready   bool        `json:"ready"` // all nodes have been one realm
	Nodes   []NodeState `json:"nodes"`
}

// NodeState is a node of a devnet.
type NodeState struct {
	Name   string `json:"name"`
	Home   string `json:"home"`
	ID     string `json:"id,omitempty"`
	PID    int    `json:"pid,omitempty"`
	Starts int    `json:"starts"`          // 1: it was never started again
	Ended  string `json:"ended,omitempty"` // how, if it is not running
}

// How long nodes may take.
const (
	startTimeout = 2 * time.Minute // until one answers
	meetTimeout  = 3 * time.Minute // until all are one realm
	healTimeout  = time.Minute     // until they are one again after a kill
	stopTimeout  = 20 * time.Second
	poll         = 50 * time.Millisecond
	atOnce       = 4 // nodes that start at a time
)

// remembered is what a folder knows of the devnet that was in it.
type remembered struct {
	Swarm   string `json:"swarm"`
	Private bool   `json:"private"`
}

// Start starts a devnet and waits until its nodes are one realm. If one does not start, the error has what it said, and no node is
// left. ctx bounds the start alone.
func Start(ctx context.Context, c Config) (_ *Net, err error) {
	if c.Nodes < 1 || c.Nodes > MaxNodes {
		return nil, grid.Errorf(grid.Invalid, "devnet: %d nodes: want 1 to %d", c.Nodes, MaxNodes)
	}
	if c.Kill > 0 && c.Nodes < 2 {
		return nil, grid.Errorf(grid.Invalid, "devnet: there is no node to kill: the first is spared").Hint("have two nodes at least")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	n := &Net{cfg: c, dir: c.Dir, ended: make(chan *node, MaxNodes)}
	defer func() {
		if err != nil {
			_ = n.close()
		}
	}()
	if err := n.prepare(); err != nil {
		return nil, err
	}
	if n.control, err = listen(c.Name, n.State); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	started := make(chan struct{})
	defer close(started)
	go func() {
		select {
		case <-n.control.asked:
			cancel(grid.Errorf(grid.Canceled, "devnet: it was asked to end before it was ready"))
		case <-started:
		}
	}()
	if err := n.begin(ctx); err != nil {
		return nil, err
	}
	if err := n.meet(ctx); err != nil {
		return nil, err
	}
	n.ready.Store(true)
	return n, nil
}

// prepare makes the folder, and finds out what was in it.
func (n *Net) prepare() (err error) {
	if n.dir == "" {
		n.dir, err = os.MkdirTemp("", "grid-devnet-")
	} else if n.dir, err = filepath.Abs(n.dir); err == nil {
		err = os.MkdirAll(n.dir, 0o700)
	}
	if err != nil {
		return grid.Errorf(grid.Invalid, "devnet: %w", err)
	}
	file := filepath.Join(n.dir, "devnet.json")
	was := remembered{Private: n.cfg.Private}
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		n.fresh = true
		if was.Swarm, err = freshName(); err != nil {
			return err
		}
		text, err = json.Marshal(was)
		if err == nil {
			err = config.Write(file, text)
		}
	case err == nil:
		err = json.Unmarshal(text, &was)
	}
	if err != nil {
		return grid.Errorf(grid.Invalid, "devnet: %s: %w", file, err)
	}
	if was.Private != n.cfg.Private {
		return grid.Errorf(grid.Conflict, "devnet: the nodes in %s are of a swarm that is private, or open, and it was asked for the other", n.dir).
			Hint("give --private as before, or another folder")
	}
	n.swarm = was.Swarm
	for i := range n.cfg.Nodes {
		name := fmt.Sprintf("node-%d", i+1)
		n.nodes = append(n.nodes, &node{net: n, name: name, home: filepath.Join(n.dir, name), client: api.Dial(daemon.Socket(filepath.Join(n.dir, name)))})
	}
	return nil
}

// freshName is a swarm's that nobody else has.
func freshName() (string, error) {
	b := make([]byte, 5)
	if _, err := rand.Read(b); err != nil {
		return "", grid.Errorf(grid.Internal, "devnet: %w", err)
	}
	return "devnet-" + strings.ToLower(base32.StdEncoding.EncodeToString(b)), nil
}

// begin starts all nodes. In a private swarm those go first that are members already: together they are who can invite others.
func (n *Net) begin(ctx context.Context) error {
	if n.network = n.swarm; !n.cfg.Private {
		// The first of a new swarm has a realm by the time that the others come, so that they join it rather than merge many.
		if n.fresh {
			if err := n.start(ctx, n.nodes[:1]); err != nil {
				return err
			}
			return n.start(ctx, n.nodes[1:])
		}
		return n.start(ctx, n.nodes)
	}
	if err := n.found(ctx); err != nil {
		return err
	}
	var members, others []*node
	for _, x := range n.nodes {
		home, err := member.LoadHome(x.home)
		if err != nil {
			return err
		}
		if home != nil {
			members = append(members, x)
		} else {
			others = append(others, x)
		}
	}
	if err := n.start(ctx, members); err != nil || len(others) == 0 {
		return err
	}
	inv, err := n.nodes[0].client.Invite(ctx, grid.InviteRequest{Role: grid.RoleVoter, Expires: 24 * time.Hour, Uses: uint32(len(others))})
	if err != nil {
		return err
	}
	n.token = inv.Token
	return n.start(ctx, others)
}

// found makes the private swarm, with the first node as its first member, unless that is one.
func (n *Net) found(ctx context.Context) error {
	first := n.nodes[0]
	home, err := member.LoadHome(first.home)
	if err == nil && home == nil {
		if _, err = daemon.InitSwarm(ctx, first.home, n.swarm, first.name, false); err == nil {
			home, err = member.LoadHome(first.home)
		}
	}
	if err == nil {
		n.network = member.NetworkName(home.Swarm)
	}
	return err
}

// start starts nodes, a few at a time.
func (n *Net) start(ctx context.Context, nodes []*node) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, x := range nodes {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return
			}
			if err := x.start(ctx); err != nil {
				cancel(err) // the first such error; the others do not wait
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// settings are those of one node.
func (n *Net) settings() map[string][]string {
	s := map[string][]string{
		"up.listen": {"/ip4/127.0.0.1/tcp/0"}, "up.no-mdns": {"true"}, "up.no-upnp": {"true"}, "up.relay": {"off"},
	}
	switch {
	case !n.cfg.Private:
		s["up.swarm"] = []string{n.swarm}
	case n.token != "":
		s["up.join"] = []string{n.token}
	}
	for key, v := range n.cfg.Settings {
		s[key] = v
	}
	return s
}

// voters is how many nodes keep the ledger at least in a realm of three or more: with them, one may fail.
const voters = 3

// meet waits until every node has all of them in its realm, and the first says that they are up, and that one of them may fail.
func (n *Net) meet(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, meetTimeout, grid.Errorf(grid.Deadline, "devnet: the nodes did not become one realm within %v", meetTimeout).
		Hint("their logs are grid.log in %s/node-*", n.dir))
	defer cancel()
	for _, x := range n.nodes {
		for !n.met(ctx, x) {
			select {
			case gone := <-n.ended:
				return gone.failure()
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(poll):
			}
		}
	}
	return nil
}

func (n *Net) met(ctx context.Context, x *node) bool {
	st, err := x.client.LedgerStatus(ctx)
	if err != nil {
		return false
	}
	there, keep := map[string]bool{}, 0
	for _, m := range st.Members {
		there[m.ID.String()] = m.Up || x != n.nodes[0]
		if m.Up && (m.Role == grid.Voter || m.Role == grid.Leader) {
			keep++
		}
	}
	if len(n.nodes) >= voters && keep < voters {
		return false
	}
	for _, other := range n.nodes {
		if !there[other.state().ID] {
			return false
		}
	}
	return true
}

// Run looks after the nodes until ctx ends or somebody asks the devnet to end, and then ends them all. The error is that of a node
// that failed by itself.
func (n *Net) Run(ctx context.Context) error {
	var kill <-chan time.Time
	if n.cfg.Kill > 0 {
		kill = time.After(n.cfg.Kill)
	}
	random := mathrand.New(mathrand.NewPCG(n.cfg.Seed, 0))
	running := len(n.nodes)
	for running > 0 {
		select {
		case <-ctx.Done():
			return errors.Join(n.fault, n.close())
		case <-n.control.asked:
			return errors.Join(n.fault, n.close())
		case x := <-n.ended:
			if x.state().Ended == "" {
				continue // it was started again since
			}
			running--
			n.cfg.Logger.Warn("a node has ended", "node", x.name, "how", x.state().Ended)
			if n.fault == nil && x.failed() {
				n.fault = x.failure()
			}
		case <-kill:
			x := n.nodes[1+random.IntN(len(n.nodes)-1)]
			if x.state().Ended == "" { // else somebody else did that
				if err := n.again(ctx, x); err != nil && ctx.Err() == nil {
					return errors.Join(err, n.close())
				}
			}
			kill = time.After(n.cfg.Kill)
		}
	}
	n.cfg.Logger.Warn("no node is left")
	return errors.Join(n.fault, n.close())
}

// again kills a node, starts it again, and waits for a while until the realm is whole: else the next kill could be one too many.
func (n *Net) again(ctx context.Context, x *node) error {
	was := x.state().PID
	x.kill()
	n.cfg.Logger.Info("killed a node", "node", x.name, "pid", was)
	began := time.Now()
	if err := x.start(ctx); err != nil {
		return err
	}
	n.cfg.Logger.Info("the node is up again", "node", x.name, "pid", x.state().PID, "after", time.Since(began).Round(time.Millisecond))
	wait, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	for !n.met(wait, n.nodes[0]) {
		select {
		case <-wait.Done():
			if ctx.Err() == nil {
				n.cfg.Logger.Warn("the realm is not whole yet", "after", healTimeout)
			}
			return nil
		case <-n.control.asked:
			return nil
		case <-time.After(poll):
		}
	}
	return nil
}

// State tells what runs.
func (n *Net) State() State {
	s := State{Name: n.cfg.Name, Dir: n.dir, PID: os.Getpid(), Private: n.cfg.Private, Ready: n.ready.Load(), Nodes: []NodeState{}}
	if !s.Private {
		s.Swarm = n.swarm
	}
	for _, x := range n.nodes {
		s.Nodes = append(s.Nodes, x.state())
	}
	return s
}

// close ends all nodes: at once if their folder goes with them, else one after the other, so that each hands over what it has to the
// next, and the first, which has all in the end, is last.
func (n *Net) close() error {
	temporary := n.cfg.Dir == "" && n.dir != ""
	for _, x := range slices.Backward(n.nodes) {
		if temporary {
			x.kill()
		} else {
			x.stop()
		}
		x.client.Close()
		_ = os.Remove(daemon.Socket(x.home))
	}
	var errs []error
	if temporary {
		errs = append(errs, os.RemoveAll(n.dir))
		if n.network != "" {
			errs = append(errs, os.RemoveAll(daemon.Nearby(n.network)))
		}
	}
	if n.control != nil { // last: who waits for the end waits for this
		errs = append(errs, n.control.close())
	}
	return errors.Join(errs...)
}

// tail is the end of a file.
func tail(name string, most int64) string {
	f, err := os.Open(name)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(bytes.ToValidUTF8(text, []byte("?"))))
}
