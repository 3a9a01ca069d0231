package daemon

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// vitals fills in what the rooms know of a pulse.
func (d *Daemon) vitals(ctx context.Context, p *grid.Pulse) {
	p.Zone = d.cfg.Zone
	if d.swarm != nil {
		p.Name = d.swarm.OwnName()
	}
	p.Leader = d.realm != nil && d.realm.Leads()
	moved := d.exchange.Stats()
	p.BytesIn, p.BytesOut = moved.BytesIn, moved.BytesOut
	if held, err := d.store.Stat(ctx); err == nil {
		p.Disk = held.BlockBytes
	}
	if st, err := d.store.Keeper().Stats(); err == nil {
		p.Quota = st.Quota
	}
}

const (
	// lookEvery is how often a node looks at its rooms for what is worth an event; at its pins and its disk, which costs more, only one time
	// in lookClosely.
	lookEvery   = 2 * time.Second
	lookClosely = 5
	// lowDisk is how much of the disk is free when it is called full.
	lowDisk = 64 << 20
)

// condition is something that is told when it begins and when it ends. What has lasted for one look only is not told, as a
// pin that was just made.
type condition struct {
	seen, told bool
}

// changed takes in whether it is so now, and reports whether that is to be told.
func (c *condition) changed(now bool) bool {
	steady := now == c.seen
	c.seen = now
	if !steady || now == c.told {
		return false
	}
	c.told = now
	return true
}

// startObserver tells the realm of what befalls this node's rooms, until it is closed.
func (d *Daemon) startObserver() io.Closer {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		leads := false
		var short, full condition
		for i := 0; ; i++ {
			if now := d.realm != nil && d.realm.Leads(); now != leads {
				if leads = now; leads {
					d.node.Happened(grid.RoomLedger, grid.KindLeader, d.node.Network.Self(), "leads the ledger from now on")
				}
			}
			if i%lookClosely == 0 {
				d.lookClosely(&short, &full)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return closerFunc(func() error { cancel(); <-done; return nil })
}

func (d *Daemon) lookClosely(short, full *condition) {
	self := d.node.Network.Self()
	if st := d.pins.Stats(); short.changed(st.Short > 0) {
		if st.Short > 0 {
			d.node.Happened(grid.RoomData, grid.KindShort, self, fmt.Sprintf("%d of the %d pins of which it keeps a part have fewer copies than were promised", st.Short, st.Pins))
		} else {
			d.node.Happened(grid.RoomData, grid.KindWhole, self, fmt.Sprintf("all %d pins of which it keeps a part have the copies that were promised", st.Pins))
		}
	}
	st, err := d.store.Keeper().Stats()
	if err != nil {
		return // which the log tells of when something is written
	}
	if now := st.Free < lowDisk || st.Pinned >= st.Quota; full.changed(now) {
		if now {
			d.node.Happened(grid.RoomNode, grid.KindFull, self, fmt.Sprintf("its disk is full: %d MiB are free on it, and %d of %d MiB of its quota are pinned", st.Free>>20, st.Pinned>>20, st.Quota>>20))
		} else {
			d.node.Happened(grid.RoomNode, grid.KindRoom, self, "it has room for blocks again")
		}
	}
}
