package p2p

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Bounds on the peer file.
const (
	peerFileVersion = 1
	maxPeerFile     = 256 << 10
	maxRemembered   = 64             // peers, the newest
	maxPeerAddrs    = 16             // of one peer
	relayedFor      = 24 * time.Hour // that an address through a relay is remembered: relays change
)

// remembered is a peer that was a member of the swarm.
type remembered struct {
	peer.AddrInfo
	seen time.Time // when it was connected last
}

// peerFile is the form on disk.
type peerFile struct {
	Version int          `json:"version"`
	Peers   []peerOnDisk `json:"peers"`
}

type peerOnDisk struct {
	ID    string    `json:"id"`
	Addrs []string  `json:"addrs"`
	Seen  time.Time `json:"seen"`
}

// parsePeerFile reads what formatPeerFile wrote, newest first. Entries that make no sense are left out.
func parsePeerFile(data []byte) ([]remembered, error) {
	if len(data) > maxPeerFile {
		return nil, grid.Errorf(grid.Limit, "%d bytes, at most %d are allowed", len(data), maxPeerFile)
	}
	var file peerFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, grid.Errorf(grid.Corrupt, "not a peer file: %w", err)
	}
	if file.Version != peerFileVersion {
		return nil, grid.Errorf(grid.Unsupported, "peer file of version %d, want %d", file.Version, peerFileVersion)
	}
	var peers []remembered
	seen := make(map[peer.ID]bool)
	for _, p := range file.Peers {
		id, err := peer.Decode(p.ID)
		if err != nil || seen[id] {
			continue
		}
		if addrs := parseAddrs(p.Addrs, maxPeerAddrs); len(addrs) > 0 {
			seen[id] = true
			peers = append(peers, remembered{peer.AddrInfo{ID: id, Addrs: addrs}, p.Seen})
		}
	}
	return newest(peers), nil
}

func formatPeerFile(peers []remembered) ([]byte, error) {
	file := peerFile{Version: peerFileVersion, Peers: []peerOnDisk{}}
	for _, p := range newest(peers) {
		file.Peers = append(file.Peers, peerOnDisk{
			ID:    p.ID.String(),
			Addrs: formatAddrs(p.Addrs, maxPeerAddrs),
			Seen:  p.seen.UTC().Truncate(time.Second),
		})
	}
	return json.MarshalIndent(file, "", "\t")
}

// newest sorts the peers and drops the oldest beyond maxRemembered.
func newest(peers []remembered) []remembered {
	slices.SortStableFunc(peers, func(a, b remembered) int { return b.seen.Compare(a.seen) })
	return peers[:min(len(peers), maxRemembered)]
}

// fresh drops addresses through relays of peers that were not seen for long, and peers without any other.
func fresh(peers []remembered, now time.Time) []remembered {
	var out []remembered
	for _, p := range peers {
		if now.Sub(p.seen) > relayedFor {
			p.Addrs = direct(p.Addrs)
		}
		if len(p.Addrs) > 0 {
			out = append(out, p)
		}
	}
	return out
}

// loadPeerFile returns no peers when there is no file, and also beside an error.
func loadPeerFile(name string) ([]remembered, error) {
	data, _, err := readSmall(os.OpenFile, name, maxPeerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		var peers []remembered
		if peers, err = parsePeerFile(data); err == nil {
			return fresh(peers, time.Now()), nil
		}
	}
	return nil, grid.Errorf(grid.CodeOf(err), "p2p: remembered peers in %s: %w", name, err)
}

// parseAddrs reads up to most multiaddrs and skips what is none.
func parseAddrs(texts []string, most int) []ma.Multiaddr {
	const maxText = 512
	var addrs []ma.Multiaddr
	for _, s := range texts[:min(len(texts), 4*most)] {
		if len(s) > maxText || len(addrs) == most {
			continue
		}
		if a, err := ma.NewMultiaddr(s); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

func formatAddrs(addrs []ma.Multiaddr, most int) []string {
	texts := make([]string, 0, min(len(addrs), most))
	for _, a := range addrs[:min(len(addrs), most)] {
		texts = append(texts, a.String())
	}
	return texts
}
