//go:build unix

package daemon

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestRuntimeDir: a folder that somebody else may have made for us is not used.
func TestRuntimeDir(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("TMPDIR", temp)
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", "")
	ours := filepath.Join(temp, "grid-"+strconv.Itoa(os.Getuid()))
	if got := runtimeDir(); got != ours {
		t.Errorf("%s, not %s", got, ours)
	}
	if info, err := os.Stat(ours); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	for what, spoil := range map[string]func() error{
		"anybody's": func() error { return os.Chmod(ours, 0o777) },
		"a link":    func() error { return os.Symlink(t.TempDir(), ours) },
		"a file":    func() error { return os.WriteFile(ours, nil, 0o600) },
	} {
		if err := os.RemoveAll(ours); err != nil {
			t.Fatal(err)
		}
		runtimeDir()
		if what != "anybody's" {
			os.Remove(ours)
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if got := runtimeDir(); strings.HasPrefix(got, temp) {
			t.Errorf("%s is used: %s", what, got)
		}
	}
}
