package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// leftovers begin the names of files that are written beside those whose place they take: by this node, by its identity's
// and its membership's writers, by `grid config` and by `grid doctor`.
var leftovers = []string{".tmp-", ".new-", ".doctor-"}

// leftoverAge is how old such a file is at least whose writer has surely ended: to write one takes moments, and commands
// may do it while the node starts.
const leftoverAge = time.Hour

// removeLeftovers removes from a home, which is held, what processes that were killed have left half written; they may hold
// keys. What cannot be removed stays.
func removeLeftovers(home string, now time.Time) (removed int) {
	entries, err := os.ReadDir(home)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || now.Sub(info.ModTime()) < leftoverAge ||
			!slices.ContainsFunc(leftovers, func(p string) bool { return strings.HasPrefix(e.Name(), p) }) {
			continue
		}
		if os.Remove(filepath.Join(home, e.Name())) == nil {
			removed++
		}
	}
	return removed
}
