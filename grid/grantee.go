package grid

import (
	"context"
	"io/fs"
)

// grant gives a guest what its task was granted. An error is this node's failure. What is read of granted data is told
// to lost when it cannot be had.
func (n *Node) grant(ctx context.Context, t *Task, g *Guest, from *sources, keys [][]byte, lost func(error)) (*dataFS, error) {
	kv, err := newGranted(n.Ledger, t.KV)
	if err != nil {
		return nil, err
	}
	g.KV = kv
	if len(t.Secrets)+len(t.Data) > 0 && g.Mounts == nil {
		g.Mounts = make(map[string]fs.FS, 2)
	}
	if len(t.Secrets) > 0 {
		if g.Mounts[GuestSecrets], err = n.secretsFor(ctx, t.Secrets); err != nil {
			return nil, err
		}
	}
	data := n.dataFor(ctx, t.Data, from, keys, lost)
	if data != nil {
		g.Mounts[GuestData] = data
	}
	return data, nil
}
