package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

// Identity reads the private key of the home's node, which is made if there is none yet.
func Identity(home string) (crypto.PrivKey, error) {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, grid.Errorf(grid.Invalid, "home: %w", err)
	}
	return p2p.LoadIdentity(filepath.Join(home, identityFile))
}

// Key reads a private key from a file of the form that the identities of nodes have.
func Key(file string) (crypto.PrivKey, error) {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) { // LoadIdentity would make one
		return nil, grid.Errorf(grid.NotFound, "there is no key file %s", file).
			Hint("make one with `openssl genpkey -algorithm ed25519 -out %s`, and keep it to yourself", file)
	}
	return p2p.LoadIdentity(file)
}
