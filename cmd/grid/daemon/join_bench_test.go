package daemon

import (
	"context"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// BenchmarkJoin is a node's way into a private swarm, from its token to its first read of the swarm's ledger; and that of a node that starts alone
// in the open swarm and reads its own. What a connection of bare libp2p hosts takes is measured in package p2p.
func BenchmarkJoin(b *testing.B) {
	open := func(dir string, join ...string) *Daemon {
		d, err := Open(b.Context(), Config{Home: dir, Join: join, NoMDNS: true, NoNearby: true, Workers: 1, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
		if err != nil {
			b.Fatal(err)
		}
		return d
	}
	b.Run("token", func(b *testing.B) {
		root := b.TempDir()
		if _, err := InitSwarm(b.Context(), filepath.Join(root, "first"), "bench", "", false); err != nil {
			b.Fatal(err)
		}
		first := open(filepath.Join(root, "first"))
		defer first.Close()
		if _, err := first.Client().KVPut(b.Context(), "k", []byte("v"), api.KVCond{}); err != nil {
			b.Fatal(err)
		}
		inv, err := first.Client().Invite(b.Context(), grid.InviteRequest{Role: grid.RoleWorker, Expires: time.Hour, Uses: 10_000})
		if err != nil {
			b.Fatal(err)
		}
		for i := 0; b.Loop(); i++ {
			d := open(filepath.Join(root, strconv.Itoa(i)), inv.Token)
			ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
			for {
				if e, err := d.Client().KVGet(ctx, "k", false); err == nil && string(e.Value) == "v" {
					break
				} else if ctx.Err() != nil {
					b.Fatal(err)
				}
			}
			cancel()
			b.StopTimer()
			_ = d.Close()
			b.StartTimer()
		}
	})
	b.Run("alone", func(b *testing.B) {
		root := b.TempDir()
		for i := 0; b.Loop(); i++ {
			d := open(filepath.Join(root, strconv.Itoa(i)))
			_, _ = d.Client().KVGet(b.Context(), "k", false)
			b.StopTimer()
			_ = d.Close()
			b.StartTimer()
		}
	})
}
