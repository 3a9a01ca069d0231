package doctor

import (
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
)

// Bounds on looking.
const (
	askTimeout    = 15 * time.Second
	engineTimeout = 30 * time.Second
	toolTimeout   = 5 * time.Second
)

// Look makes the world of a home as it is. client speaks to the running node; nil: none runs, or err says why it does
// not answer.
func Look(ctx context.Context, home string, client *api.Client, err error) *World {
	w := &World{
		Home: home, Socket: daemon.Socket(home), NodeErr: err,
		Disk: diskOf, Owner: owned, Listen: listen, Mcast: multicast, Files: openFiles, Memory: daemon.MachineMemory,
		Engine: runTiny, Fast: fastWay, Version: version,
	}
	w.Nearby = daemon.Nearby(p2p.DefaultSwarm)
	if client == nil {
		w.InUse = daemon.InUse(home)
		return w
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	st, err := client.Node(ctx)
	if err != nil {
		w.NodeErr = err
		return w
	}
	w.Node, w.Ledger, w.InUse = &st, st.Ledger, true
	w.Nearby = daemon.Nearby(st.Swarm)
	if c, err := client.Checkup(ctx); err == nil {
		w.Checkup = &c
	} else {
		w.NodeErr = err
	}
	if u, err := client.StoreUse(ctx); err == nil {
		w.Use = &u
	}
	return w
}

// listen finds out whether a port could be listened on.
func listen(network, address string) error {
	if network == "udp" {
		c, err := net.ListenPacket(network, address)
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	return l.Close()
}

// multicast lists the network interfaces that are up and can do multicast, but for the machine's own.
func multicast() (names []string, err error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range list {
		if i.Flags&(net.FlagUp|net.FlagMulticast) == net.FlagUp|net.FlagMulticast && i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	return names, nil
}

// tiny is a module with a memory, whose function _start does nothing.
var tiny = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" + // one type, () -> ()
	"\x03\x02\x01\x00" + // one function of it
	"\x05\x03\x01\x00\x01" + // a memory of one page
	"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x00" +
	"\x0a\x04\x01\x02\x00\x0b")

// runTiny runs it, without leaving anything behind, and tells how instances come to be.
func runTiny(ctx context.Context) (way string, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	box, err := daemon.OpenSandbox("", nil)
	if err != nil {
		return "", 0, err
	}
	defer box.Close()
	began := time.Now()
	c, err := box.Add(tiny)
	if err != nil {
		return "", 0, err
	}
	out, err := box.Run(ctx, &grid.Guest{Module: c, Args: []string{"tiny"}, Limits: grid.DefaultLimits})
	if err != nil {
		return "", 0, err
	}
	if out.Fault != nil || out.Exit != 0 {
		return "", 0, grid.Errorf(grid.Internal, "it ended with code %d: %v", out.Exit, out.Fault)
	}
	took = time.Since(began)
	m, err := box.Inspect(ctx, c, true)
	return m.Way, took, err
}

// fastWay finds out how memories are put back to their images here.
func fastWay() (string, error) {
	s, err := image.Open(image.Config{})
	if err != nil {
		return "", err
	}
	return s.Way().String(), s.Close()
}

// version asks a tool for its own.
func version(ctx context.Context, tool string, args ...string) (string, error) {
	path, err := exec.LookPath(tool)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Clean(path), args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	return string(out), err
}
