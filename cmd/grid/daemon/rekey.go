package daemon

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/p2p/member"
	"github.com/wasmgrid/wasmgrid/store"
)

// Folders in a home whose node is given another key.
const (
	rekeyDir  = "rekey"  // the new key, and the membership that goes with it, until they take the place of the old ones
	formerDir = "former" // by peer ID: the key that was the node's before, and what it kept of the ledger
)

// Rekeying reports whether a home has another key for its node, with a membership, which only have to take the places of the old ones.
func Rekeying(home string) bool {
	h, err := member.LoadHome(filepath.Join(home, rekeyDir))
	return err == nil && h != nil
}

// JoinAnew makes another key for the node of a home, which may be up, and joins a swarm by a token with it. What comes of it stays aside
// until Rekey. To call it again goes on where it was interrupted.
func JoinAnew(ctx context.Context, home, name, token string) (id peer.ID, err error) {
	dir := filepath.Join(home, rekeyDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", grid.Errorf(grid.Invalid, "home: %w", err)
	}
	key, err := p2p.LoadIdentity(filepath.Join(dir, identityFile))
	if err != nil {
		return "", err
	}
	if id, err = peer.IDFromPrivateKey(key); err != nil || Rekeying(home) {
		return id, err
	}
	old, err := member.LoadHome(home)
	if err != nil {
		return "", err
	}
	t, err := member.ParseToken(token)
	if err == nil && (old == nil || old.Swarm != t.Invitation.Swarm) {
		err = grid.Errorf(grid.Conflict, "the token is for the swarm %s, to which this node does not belong", t.Invitation.Swarm).Hint("use a token of the node's own swarm: `grid swarm show` names it")
	}
	if err != nil {
		return "", err
	}
	d := &Daemon{cfg: Config{Home: dir, Member: name}, log: slog.New(slog.DiscardHandler)}
	_, err = d.join(ctx, t, key)
	return id, err
}

// Rekey puts the key that JoinAnew has made into the place of that of a home's node, which must not run. What the node
// kept of the ledger is moved aside with the old key; blocks stay. To call it again goes on where it was interrupted.
func Rekey(ctx context.Context, home string) error {
	s, err := openStore(ctx, store.Config{Dir: filepath.Join(home, storeDir)})
	if grid.CodeOf(err) == grid.Busy {
		return grid.Errorf(grid.Busy, "a grid process is using %s", home).Hint("end it first; `grid down` if it is a node")
	}
	if err != nil {
		return err
	}
	defer s.Close()
	if !Rekeying(home) {
		return grid.Errorf(grid.NotFound, "there is no other key for the node of %s", home).Hint("`grid member rotate-key` makes one, while the node is up")
	}
	dir := filepath.Join(home, rekeyDir)
	identity := filepath.Join(home, identityFile)
	err = func() error {
		if _, err := os.Stat(filepath.Join(dir, identityFile)); err == nil {
			key, err := p2p.LoadIdentity(identity)
			if err != nil {
				return err
			}
			id, err := peer.IDFromPrivateKey(key)
			if err != nil {
				return err
			}
			former := filepath.Join(home, formerDir, id.String())
			if err := os.MkdirAll(former, 0o700); err != nil {
				return err
			}
			if err := move(filepath.Join(home, storeDir, ledgerDir), filepath.Join(former, ledgerDir)); err != nil {
				return err
			}
			data, err := os.ReadFile(identity)
			if err == nil {
				err = p2p.ReplaceFile(filepath.Join(former, identityFile), data)
			}
			if err == nil {
				err = os.Rename(filepath.Join(dir, identityFile), identity)
			}
			if err != nil {
				return err
			}
		}
		return member.Move(dir, home) // last: it is by this that it is known that there is something to do
	}()
	if err != nil {
		return grid.Errorf(grid.Internal, "give the node of %s its new key: %w", home, err).Hint("`grid member rotate-key` goes on with it")
	}
	_ = os.Remove(dir)
	return nil
}

// move renames what is there.
func move(from, to string) error {
	err := os.Rename(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}
