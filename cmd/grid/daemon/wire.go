// Package daemon opens the rooms of one node and joins them: the only place that knows them all.
package daemon

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// Config says what node to open.
type Config struct {
	Home     string   // data folder; made when absent. One process at a time may hold it
	Embedded bool     // a node for one command: alone, without network or socket
	Swarm    string   // "" is "default"
	Listen   []string // multiaddrs; none: the defaults of package p2p
	Join     []string // multiaddrs, ending in /p2p/ID, of nodes to join
	NoMDNS   bool     // do not look for nodes on the local network
	NoNearby bool     // do not look for nodes on this machine
	Workers  int      // tasks run at once; 0: as many as there are cores
	Logger   *slog.Logger
}

// Socket is where the node of a home serves its API.
func Socket(home string) string { return filepath.Join(home, "api.sock") }

// Daemon is one open node.
type Daemon struct{}

// Open opens a node. The error is Busy when another process holds the home.
func Open(ctx context.Context, c Config) (*Daemon, error) { panic("not yet") }

// Client speaks to the node without a socket.
func (d *Daemon) Client() *api.Client { panic("not yet") }

// Status describes the node.
func (d *Daemon) Status() grid.NodeStatus { panic("not yet") }

// Done is closed when somebody asked the node to stop (grid down). Close it then.
func (d *Daemon) Done() <-chan struct{} { panic("not yet") }

// Close stops serving, ends running tasks, and closes the rooms in reverse order. It may be called twice.
func (d *Daemon) Close() error { panic("not yet") }
