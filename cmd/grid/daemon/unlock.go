package daemon

import (
	"filippo.io/age"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/crypt"
)

// unlock shows files as they were before they were encrypted to one of some keys.
func unlock(files grid.Files, keys [][]byte, lost func(error)) (grid.Files, error) {
	var ids []age.Identity
	for _, k := range keys {
		more, err := crypt.ParseIdentities(k)
		if err != nil {
			return nil, err
		}
		ids = append(ids, more...)
	}
	return crypt.View(files, ids, lost), nil
}
