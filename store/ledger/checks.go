package ledger

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Consumer is told at raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.checked }

// check keeps from raft what it would end the process for: it trusts whom it speaks with.
func (t *transport) check() {
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			if err := checkCommand(rpc.Command); err != nil {
				rpc.Respond(nil, err)
				continue
			}
			select {
			case t.checked <- rpc:
			case <-t.done:
				return
			}
		case <-t.done:
			return
		}
	}
}

func checkCommand(command any) error {
	switch c := command.(type) {
	case *raft.AppendEntriesRequest:
		for _, e := range c.Entries {
			if e == nil {
				return grid.Errorf(grid.Invalid, "ledger: an entry that is none")
			}
			switch e.Type {
			case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
			case raft.LogConfiguration:
				if _, err := decodeConfiguration(e.Data); err != nil {
					return err
				}
			default:
				return grid.Errorf(grid.Unsupported, "ledger: an entry of type %d", e.Type)
			}
		}
	case *raft.InstallSnapshotRequest:
		if c.SnapshotVersion != raft.SnapshotVersionMax {
			return grid.Errorf(grid.Unsupported, "ledger: a snapshot of version %d", c.SnapshotVersion)
		}
		_, err := decodeConfiguration(c.Configuration)
		return err
	}
	return nil
}

// decodeConfiguration is raft's, without its panic.
func decodeConfiguration(data []byte) (c raft.Configuration, err error) {
	defer func() {
		if recover() != nil {
			err = grid.Errorf(grid.Invalid, "ledger: %d bytes that are no configuration", len(data))
		}
	}()
	return raft.DecodeConfiguration(data), nil
}

// holdTick is how often hold looks.
const holdTick = 5 * time.Millisecond

// hold keeps an entry that takes the receiver's vote until it is committed, which needs nothing of the receiver. Where it is committed is for the
// others to say: should the leader die when only the receiver has it, that one refuses its vote to all who lack it, and does not stand itself,
// as raft is written, since it has no vote by what it knows. The protocol has it stand (Ongaro, Consensus: Bridging Theory and Practice, 4.2.2).
func (t *transport) hold(id raft.ServerID, req *raft.AppendEntriesRequest) {
	i := slices.IndexFunc(req.Entries, func(e *raft.Log) bool {
		return e.Type == raft.LogConfiguration && e.Index > t.committed() && !slices.ContainsFunc(raft.DecodeConfiguration(e.Data).Servers, func(s raft.Server) bool {
			return s.ID == id && s.Suffrage == raft.Voter
		})
	})
	if i < 0 {
		return
	}
	long := time.NewTimer(t.lease) // raft has more to do than to wait
	defer long.Stop()
	tick := time.NewTicker(holdTick)
	defer tick.Stop()
	for req.Entries[i].Index > t.committed() {
		select {
		case <-tick.C:
			continue
		case <-long.C:
		case <-t.done:
		}
		req.Entries = req.Entries[:i]
		return
	}
}
