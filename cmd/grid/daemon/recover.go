package daemon

import (
	"context"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/store"
	"github.com/wasmgrid/wasmgrid/store/ledger"
	"github.com/wasmgrid/wasmgrid/store/ledger/local"
)

// ledgerOf is where a home keeps its part of a realm's ledger, and whose home it is.
func ledgerOf(home string) (dir string, self peer.ID, err error) {
	key, err := p2p.LoadIdentity(filepath.Join(home, identityFile))
	if err != nil {
		return "", "", err
	}
	self, err = peer.IDFromPrivateKey(key)
	if err != nil {
		return "", "", grid.Errorf(grid.Internal, "identity: %w", err)
	}
	return filepath.Join(home, storeDir, ledgerDir), self, nil
}

// lastKnown reads what the node of a home knew last of its realm; nil when it kept no copy. The home's lock is held.
func lastKnown(ctx context.Context, home string) (local.Reader, error) {
	dir, self, err := ledgerOf(home)
	if err != nil {
		return nil, err
	}
	m, err := ledger.LastKnown(ctx, dir, self)
	if m == nil || err != nil {
		return nil, err // not a Reader that is a nil Machine
	}
	return m, nil
}

// Recover makes a realm of one from the copy that a home keeps of its realm's ledger: see ledger.Recover. The home's node must not run.
func Recover(ctx context.Context, home string) (r ledger.Recovered, err error) {
	if _, err := os.Stat(filepath.Join(home, storeDir, ledgerDir)); err != nil {
		return r, grid.Errorf(grid.NotFound, "no node of a realm has run in %s", home).Hint("name its home with --home")
	}
	s, err := openStore(ctx, store.Config{Dir: filepath.Join(home, storeDir)})
	if grid.CodeOf(err) == grid.Busy {
		return r, grid.Errorf(grid.Busy, "a grid process is using %s", home).Hint("end it first; `grid down` if it is a node")
	}
	if err != nil {
		return r, err
	}
	defer s.Close()
	dir, self, err := ledgerOf(home)
	if err != nil {
		return r, err
	}
	return ledger.Recover(ctx, dir, self)
}
