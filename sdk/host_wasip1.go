package sdk

import (
	"io/fs"
	"os"
	"syscall"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

func hostSecret(name string) ([]byte, error) { return os.ReadFile(abi.Secrets + "/" + name) }

func hostOpen(name string) (fs.File, error) { return os.Open(abi.Data + "/" + name) }

// noKV is a map that nobody keeps.
type noKV struct{}

func (noKV) Get(string) (Item, error)                      { return Item{}, syscall.ENOTSUP }
func (noKV) List(_, _ string, _ int) ([]Item, bool, error) { return nil, false, syscall.ENOTSUP }
func (noKV) Commit(Commit) (uint64, error)                 { return 0, syscall.ENOTSUP }

func hostKV() Store { return noKV{} }

func hostProgress(done, total uint64) error    { return nil }
func hostCount(name string, n uint64) error    { return nil }
func hostObserve(name string, v float64) error { return nil }
