package p2p

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
)

// The folder of nodes nearby. A node's file is named by its peer ID and begins with the line
// "grid nearby 1 SWARM"; a multiaddr on each further line says where it listens.
const (
	nearbyMagic   = "grid nearby 1 "
	nearbyEvery   = 2 * time.Second  // looking at the others
	nearbyRefresh = 5 * time.Second  // showing that we are alive
	nearbyDead    = 30 * time.Second // a file this old is of a node that is no more
	maxNearbyFile = 8 << 10
	maxNearby     = 256 // files looked at
	maxNearbyAddr = 32  // addresses of one node
)

// nearby is one node's view of the folder. One goroutine owns it.
type nearby struct {
	self    peer.ID
	swarm   string
	root    *os.Root
	folder  string
	log     *slog.Logger
	addrs   func() []ma.Multiaddr // where we listen
	known   func(peer.ID) bool    // no need to read that one's file
	found   func(peer.AddrInfo)
	written string // our file's content
	touched time.Time
}

// openNearby makes the folder if need be, and refuses one that others could write to: whoever can may
// choose whom this node connects to.
func openNearby(folder string) (*os.Root, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, grid.Errorf(grid.Denied, "p2p: make the folder of nearby nodes: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, grid.Errorf(grid.Denied, "p2p: open the folder of nearby nodes: %w", err)
	}
	info, err := root.Stat(".") // of what was opened, whatever its name points to by now
	switch {
	case err != nil:
		err = grid.Errorf(grid.Denied, "p2p: the folder of nearby nodes: %w", err)
	case !ownedByUs(info):
		err = grid.Errorf(grid.Denied, "p2p: the folder of nearby nodes %s belongs to somebody else", folder).
			Hint("choose another folder, or none")
	case !private(info, 0o022):
		err = grid.Errorf(grid.Denied, "p2p: the folder of nearby nodes %s can be written to by others (mode %04o)", folder, info.Mode().Perm()).
			Hint("chmod 700 %s", folder)
	}
	if err != nil {
		_ = root.Close()
		return nil, err
	}
	return root, nil
}

// run shows this node and finds the others until ctx ends; then it removes our file.
func (n *nearby) run(ctx context.Context) {
	defer n.root.Close()
	defer n.root.Remove(n.self.String())
	tick := time.NewTicker(nearbyEvery)
	defer tick.Stop()
	for {
		now := time.Now()
		if err := n.show(now); err != nil {
			n.log.Debug("cannot show this node to those nearby", "folder", n.folder, "err", err)
		}
		if err := n.look(now); err != nil {
			n.log.Debug("cannot look for nodes nearby", "folder", n.folder, "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// show writes our file when it is missing or out of date, and else touches it now and then.
func (n *nearby) show(now time.Time) error {
	name := n.self.String()
	content := string(formatNearby(n.swarm, n.addrs()))
	if content == n.written {
		if now.Sub(n.touched) < nearbyRefresh {
			return nil
		}
		if err := n.root.Chtimes(name, now, now); err == nil {
			n.touched = now
			return nil
		}
	}
	if err := n.write(name, content); err != nil {
		return err
	}
	n.written, n.touched = content, now
	return nil
}

func (n *nearby) write(name, content string) error {
	temp := tempPrefix + name
	f, err := n.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = n.root.Rename(temp, name)
	}
	return err
}

// look reads the files of nodes that are not known yet and removes those of the dead.
func (n *nearby) look(now time.Time) error {
	dir, err := n.root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(maxNearby)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for _, e := range entries {
		id, err := peer.Decode(strings.TrimPrefix(e.Name(), tempPrefix))
		if err != nil || id == n.self {
			continue // not ours to touch
		}
		if info, err := e.Info(); err != nil || now.Sub(info.ModTime()) > nearbyDead {
			if err == nil {
				_ = n.root.Remove(e.Name())
			}
			continue
		}
		if strings.HasPrefix(e.Name(), tempPrefix) || n.known(id) {
			continue
		}
		addrs, err := n.read(e.Name())
		if err != nil {
			n.log.Debug("skipped a file of a nearby node", "file", filepath.Join(n.folder, e.Name()), "err", err)
			continue
		}
		if len(addrs) > 0 {
			n.found(peer.AddrInfo{ID: id, Addrs: addrs})
		}
	}
	return nil
}

// read returns the addresses in a file; none when it is of another swarm or just went away.
func (n *nearby) read(name string) ([]ma.Multiaddr, error) {
	data, info, err := readSmall(n.root.OpenFile, name, maxNearbyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !ownedByUs(info) || !private(info, 0o022) {
		return nil, grid.Errorf(grid.Denied, "not ours alone")
	}
	swarm, addrs, err := parseNearby(data)
	if err != nil || swarm != n.swarm {
		return nil, err
	}
	return addrs, nil
}

func formatNearby(swarm string, addrs []ma.Multiaddr) []byte {
	lines := append([]string{nearbyMagic + swarm}, formatAddrs(addrs, maxNearbyAddr)...)
	return []byte(strings.Join(lines, "\n") + "\n")
}

// parseNearby reads what formatNearby wrote.
func parseNearby(data []byte) (swarm string, addrs []ma.Multiaddr, err error) {
	if len(data) > maxNearbyFile {
		return "", nil, grid.Errorf(grid.Limit, "%d bytes, at most %d are allowed", len(data), maxNearbyFile)
	}
	first, rest, _ := strings.Cut(string(data), "\n")
	swarm, ok := strings.CutPrefix(first, nearbyMagic)
	if !ok {
		return "", nil, grid.Errorf(grid.Invalid, "not a file of a nearby node")
	}
	if err := checkSwarm(swarm); err != nil {
		return "", nil, err
	}
	return swarm, parseAddrs(strings.Split(strings.TrimSuffix(rest, "\n"), "\n"), maxNearbyAddr), nil
}
