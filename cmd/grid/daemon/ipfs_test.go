package daemon

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Nodes of two swarms that have nothing in common but a bridge to IPFS give one another what is asked for.
func TestIPFSBridge(t *testing.T) {
	home := shortDir(t)
	bridged := func(name string, peers ...string) *Daemon {
		d, err := Open(t.Context(), Config{
			Home: filepath.Join(home, name), Swarm: name, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoMDNS: true, NoNearby: true, Workers: 1,
			IPFS: true, IPFSListen: []string{"/ip4/127.0.0.1/tcp/0"}, IPFSPeers: peers,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for range 2 {
				if err := d.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}
		})
		return d
	}
	a := bridged("a")
	b := bridged("b", a.Status().IPFS.Addrs...)
	data := bytes.Repeat([]byte("data"), 1<<18)
	c := add(t, a.Client(), data)
	f, err := b.Client().Cat(t.Context(), c.Cid, "") // connects to a if it has not yet
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came, not the %d that were added: %v", len(got), len(data), err)
	}
	if st := b.Status().IPFS; st.BytesIn < uint64(len(data)) || st.ID == b.Status().ID || st.ID == a.Status().IPFS.ID {
		t.Errorf("status: %+v", st)
	}

	plain := up(t, filepath.Join(home, "plain"))
	if st := plain.Status().IPFS; st != nil {
		t.Errorf("a node without a bridge has %+v", st)
	}
	_, err = Open(t.Context(), Config{
		Home: filepath.Join(home, "bad"), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoMDNS: true, NoNearby: true,
		IPFS: true, IPFSListen: []string{"/ip4/127.0.0.1/tcp/0"}, IPFSPeers: []string{"nowhere"},
	})
	if grid.CodeOf(err) != grid.Invalid || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a bridge to nowhere: %v", err)
	}
}
