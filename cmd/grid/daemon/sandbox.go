package daemon

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestnet"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
)

// Sandbox is an engine alone, over modules in memory, for commands that try plugins out: no node, no ledger, no blocks. It
// holds no home, so it runs beside a node.
type Sandbox struct {
	grid.Engine
	mu      sync.RWMutex
	modules map[cid.Cid][]byte
}

// OpenSandbox opens a sandbox that keeps compiled code where the node of a home does; with "" it keeps none. Closing it does not
// wait for code that is still being made: what is tried out is usually changed next.
func OpenSandbox(home string, log *slog.Logger) (*Sandbox, error) {
	s := &Sandbox{modules: map[cid.Cid][]byte{}}
	net, err := guestnet.New(guestnet.Config{Policy: guestnet.Named})
	if err != nil {
		return nil, err
	}
	c := wasmhost.Config{Load: s.load, Net: net, Logger: log}
	if home != "" {
		c.CacheDir = filepath.Join(home, compiledDir)
	}
	if s.Engine, err = wasmhost.Open(c); err != nil {
		return nil, err
	}
	return s, nil
}

// Add takes a module, whose bytes must not be changed afterwards.
func (s *Sandbox) Add(binary []byte) (cid.Cid, error) {
	if len(binary) > module.MaxSize {
		return cid.Undef, grid.Errorf(grid.Limit, "the module has %d bytes, at most %d are allowed", len(binary), module.MaxSize)
	}
	sum, err := multihash.Sum(binary, multihash.SHA2_256, -1)
	if err != nil {
		return cid.Undef, grid.Errorf(grid.Internal, "hash of the module: %w", err)
	}
	c := cid.NewCidV1(cid.Raw, sum)
	s.mu.Lock()
	s.modules[c] = binary
	s.mu.Unlock()
	return c, nil
}

func (s *Sandbox) load(_ context.Context, c cid.Cid) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, ok := s.modules[c]
	if !ok {
		return nil, grid.Errorf(grid.NotFound, "module %s", c)
	}
	return b, nil
}
