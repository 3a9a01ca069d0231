package cli

import (
	"errors"

	"github.com/wasmgrid/wasmgrid/cmd/grid/nodelog"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

// logName is the log of a node in the background, in its home.
const logName = "grid.log"

// nodeLog is the log of a node that runs in this process.
type nodeLog struct {
	*nodelog.Log
	file *nodelog.File // nil: it goes to standard error
}

// openNodeLog opens the log that the flags of grid up ask for, and has libraries log to it.
func (e *env) openNodeLog(f *upFlags) (*nodeLog, error) {
	levels, err := nodelog.ParseLevels(f.logLevel)
	if err != nil {
		return nil, err
	}
	c := nodelog.Config{Out: e.err, JSON: f.logFormat == "json", Levels: levels}
	l := new(nodeLog)
	if f.logFile != "" {
		if l.file, err = nodelog.OpenFile(f.logFile, nodelog.FileSize); err != nil {
			return nil, grid.Errorf(grid.Invalid, "log: %w", err).Hint("--log-file names a file that can be written")
		}
		c.Out = l.file
	}
	if l.Log, err = nodelog.Open(c); err != nil {
		return nil, err
	}
	p2p.TakeLogs(l.Logger().With(nodelog.RoomKey, "libp2p"))
	return l, nil
}

// Close writes what is left.
func (l *nodeLog) Close() error {
	err := l.Log.Close()
	if l.file != nil && err == nil { // else it is being written to
		err = errors.Join(err, l.file.Close())
	}
	return err
}
