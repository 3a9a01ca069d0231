package wasmhost

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/image"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
)

// OpenWay makes a host that puts instances back by that way, and never interprets.
func OpenWay(cfg Config, way image.Way) (*Host, error) {
	cfg.way, cfg.interpret = way, never
	return Open(cfg)
}

// OpenFresh makes a host that never reuses an instance.
func OpenFresh(cfg Config) (*Host, error) { return OpenWay(cfg, image.Copy+1) }

// Idle counts instances that wait for a guest, and tells how often one did not have to be made.
func Idle(h *Host) image.PoolStats {
	if h.pool == nil {
		return image.PoolStats{}
	}
	return h.pool.Stats()
}

// Images tells what the host's images take up.
func Images(h *Host) image.Stats {
	if h.images == nil {
		return image.Stats{}
	}
	return h.images.Stats()
}

// OpenInterpreter makes a host that interprets guests instead of compiling them.
func OpenInterpreter(cfg Config) (*Host, error) {
	cfg.interpret = always
	return Open(cfg)
}

// MaxModules is how many modules are held at most.
const MaxModules = maxModules

// Waiting reports whether a module has n users and waiters.
func Waiting(h *Host, id cid.Cid, n int) bool {
	h.modules.mu.Lock()
	defer h.modules.mu.Unlock()
	m := h.modules.byID[id]
	return m != nil && m.refs == n
}

// Held counts the modules in the cache.
func Held(h *Host) int {
	h.modules.mu.Lock()
	defer h.modules.mu.Unlock()
	return len(h.modules.byID)
}

// HasRoom reports whether a guest of that much memory could start now.
func HasRoom(h *Host, bytes int64) bool {
	if !h.room.TryAcquire(bytes) {
		return false
	}
	h.room.Release(bytes)
	return true
}

// OpenCompiled makes a host that never interprets.
func OpenCompiled(cfg Config) (*Host, error) {
	cfg.interpret = never
	return Open(cfg)
}

// CacheCounts tells how many modules were loaded from the cache, made for it, found damaged and evicted.
func CacheCounts(h *Host) (hits, made, damaged, evicted int) {
	h.cache.mu.Lock()
	defer h.cache.mu.Unlock()
	n := h.cache.counts
	return n.hits, n.made, n.damaged, n.evicted
}

// HasCache reports whether the host keeps native code.
func HasCache(h *Host) bool { return h.cache != nil }

// CacheWork is the folder that a host has within that of its cache.
func CacheWork(h *Host) string { return h.cache.work }

// SealLen is how many bytes of a cached file are not the engine's.
const SealLen = sealLen

// CheckSealed checks content as if it were that of the file at path.
func CheckSealed(dir, path string, content []byte) error {
	key, err := hex.DecodeString(filepath.Base(path))
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return err
	}
	c := &cache{load: dir, lent: map[string]bool{}}
	takeBack, err := c.lend(file, [sha256.Size]byte(key))
	if err == nil {
		takeBack()
	}
	return err
}

// Bounds on profiles.
const (
	ProfileDepth = profileDepth
	ProfileBytes = profileRoom + profileSlack
	MergedBytes  = mergedRoom + profileSlack
)

// ProfileOf is a guest's profile with one unit of fuel for each of these stacks of names, innermost first.
func ProfileOf(module string, all ...[]string) ([]byte, error) {
	s := stacks{room: profileRoom}
	for _, names := range all {
		var calls []int32
		for _, name := range names {
			calls = append(calls, s.frame(frame{module, name}))
		}
		s.add(calls, 1, 1)
	}
	return s.encode()
}

// Functions are the names of what the grid offers to guests besides WASI.
func Functions() (names []string) {
	for _, f := range functions() {
		names = append(names, f.Name)
	}
	return names
}

// Parked is how many bytes guests have that wait for others.
func (h *Host) Parked() int64 { return h.parked.Load() }

// Once tells whether a guest of a module that imports so much must not be begun twice.
func Once(info module.Info, g *grid.Guest) bool { return once(&info, g) }
