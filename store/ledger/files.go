package ledger

import "github.com/hashicorp/raft"

func openFiles(dir string) (Disk, error) {
	s := raft.NewInmemStore()
	return Disk{s, s, raft.NewInmemSnapshotStore(), func() error { return nil }}, nil
}
func wipeFiles(dir string) error              { return nil }
func (l *Ledger) holdsReplica() (bool, error) { return false, nil }
