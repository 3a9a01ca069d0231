package daemon

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

// homeFormat numbers the form of all that is in a home together. Who changes how something is written there, so that the version before
// would not read it or misread it, adds one.
const homeFormat = 1

const (
	formatFile    = "format" // who wrote the home last, and in what format
	maxFormatFile = 4 << 10
)

// written is what a home says of who wrote it.
type written struct {
	Format  int    `json:"format"`
	Version string `json:"version"`
}

// checkFormat refuses a home that a newer version has written, before anything in it is opened. A home that does not say is new, or of
// the first format.
func checkFormat(home string) (w written, err error) {
	name := filepath.Join(home, formatFile)
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return written{}, nil
	}
	if err != nil {
		return w, grid.Errorf(grid.Invalid, "home: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFormatFile))
	if err == nil {
		err = json.Unmarshal(data, &w)
	}
	if err != nil || w.Format < 1 {
		return w, grid.Errorf(grid.Corrupt, "%s, which says what format the home has, makes no sense", name).
			Hint("the disk has changed it: check the disk; if no other version of grid than %s has used the home, remove the file", grid.Version)
	}
	if w.Format > homeFormat {
		return w, grid.Errorf(grid.Unsupported, "home %s was written by a newer version, grid %.40q, in format %d; this is grid %s, which reads up to %d. Nothing was changed",
			home, w.Version, w.Format, grid.Version, homeFormat).
			Hint("install that version again; or restore a backup into another home: `grid --home NEW restore FILE`")
	}
	return w, nil
}

// noteFormat writes down that this version has written the home. The home is held.
func noteFormat(home string, before written) error {
	now := written{homeFormat, grid.Version}
	if before == now {
		return nil
	}
	name := filepath.Join(home, formatFile)
	data, err := json.Marshal(now)
	if err != nil {
		return grid.Errorf(grid.Internal, "home: %w", err)
	}
	if err := p2p.ReplaceFile(name, append(data, '\n')); err != nil {
		return grid.Errorf(grid.Internal, "home: %w", err)
	}
	return nil
}
