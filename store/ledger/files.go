package ledger

import "github.com/hashicorp/raft"

func openFiles(dir string) (Disk, error) {
	s := raft.NewInmemStore()
	return Disk{s, s, raft.NewInmemSnapshotStore(), func() error { return nil }, func() error { return nil }}, nil
}
