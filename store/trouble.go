package store

import (
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// InUse reports whether some process has opened the store of a folder.
func InUse(dir string) bool {
	l, err := pebble.LockDirectory(filepath.Join(dir, metaDir), vfs.Default)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	return l.Close() != nil
}

// trouble is what the database of small things has with its disk. What it cannot write down it tries again at once,
// and says so each time: a full disk, or a folder that was removed, would cost a core and fill the log.
type trouble struct {
	log *slog.Logger
	any chan struct{} // has something when there was a failure; of capacity 1

	mu    sync.Mutex
	last  time.Time // of the last failure
	pause time.Duration
	told  time.Time // when the log was
	times int       // since then
}

const (
	// calm is after what time without a failure the next one counts as the first.
	calm = 10 * time.Second
	// minPause and maxPause bound the wait after a failure. The database holds up its writers meanwhile, who could not
	// have written either.
	minPause = 2 * time.Millisecond
	maxPause = 256 * time.Millisecond
	// tellEvery is how often the log is told of failures that go on.
	tellEvery = time.Minute
)

// failed takes in a failure, and returns when the next try is due.
func (t *trouble) failed(err error) {
	t.mu.Lock()
	now := time.Now()
	if now.Sub(t.last) > calm {
		t.pause, t.told = 0, time.Time{}
	}
	t.last = now
	t.times++
	if now.Sub(t.told) >= tellEvery {
		t.log.Error("the index on disk cannot be written; it is tried again until it can: free space, or look at the disk", "err", err, "times", t.times)
		t.told, t.times = now, 0
	}
	t.pause = min(max(2*t.pause, minPause), maxPause)
	pause := t.pause
	t.mu.Unlock()
	select {
	case t.any <- struct{}{}:
	default:
	}
	time.Sleep(pause)
}
