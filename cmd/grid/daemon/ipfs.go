package daemon

import (
	"context"
	"path/filepath"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
	"github.com/wasmgrid/wasmgrid/store/ipfs"
)

// ipfsPort is beside the swarm's, and is not 4001, where an IPFS node on this machine would be.
const ipfsPort = p2p.DefaultPort + 1

// openIPFS opens the bridge, on a host of its own, and gives the network and the fetcher that use it.
func (d *Daemon) openIPFS(swarm grid.Network) (grid.Network, grid.Fetcher, error) {
	key, err := p2p.LoadIdentity(filepath.Join(d.cfg.Home, ipfsKeyFile))
	if err != nil {
		return nil, nil, err
	}
	host, err := p2p.OpenOutside(key, d.cfg.IPFSListen, ipfsPort, d.cfg.room("ipfs"))
	if err != nil {
		return nil, nil, err
	}
	d.opened(host)
	d.ipfs, err = ipfs.Open(ipfs.Config{Host: host, Blocks: d.store.Blocks(), Peers: d.cfg.IPFSPeers, Logger: d.cfg.room("ipfs")})
	if err != nil {
		return nil, nil, err
	}
	d.opened(d.ipfs)
	alone := func() bool { return len(swarm.Peers()) == 0 }
	return bridged{swarm, d.ipfs}, d.ipfs.Fetcher(d.exchange, alone), nil
}

// bridged is a swarm whose announcements IPFS nodes get, too.
type bridged struct {
	grid.Network
	ipfs *ipfs.Bridge
}

func (b bridged) Provide(ctx context.Context, root cid.Cid) error {
	if err := b.ipfs.Announce(root); err != nil {
		return err
	}
	return b.Network.Provide(ctx, root)
}

func (d *Daemon) describeIPFS() *grid.IPFSStatus {
	if d.ipfs == nil {
		return nil
	}
	st := d.ipfs.Stats()
	return &grid.IPFSStatus{
		ID: d.ipfs.ID().String(), Addrs: d.ipfs.Addrs(), Peers: st.Peers, Roots: st.Roots, Announced: st.Announced,
		BlocksIn: st.BlocksIn, BytesIn: st.BytesIn, BlocksOut: st.BlocksOut, BytesOut: st.BytesOut,
	}
}
