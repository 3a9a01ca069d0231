package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRemoveLeftovers: what killed processes left half written goes at the next start, but nothing young, and nothing else.
func TestRemoveLeftovers(t *testing.T) {
	home := t.TempDir()
	old := time.Now().Add(-2 * leftoverAge)
	for _, name := range []string{".tmp-1", ".new-2", ".doctor-3", ".tmp-young", "peers", ".hidden", ".tmp-folder/x"} {
		name = filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "young") {
			if err := os.Chtimes(name, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	d, err := Open(t.Context(), Config{Home: home, Embedded: true, NoMDNS: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for name, stays := range map[string]bool{
		".tmp-1": false, ".new-2": false, ".doctor-3": false, ".tmp-young": true, "peers": true, ".hidden": true, ".tmp-folder/x": true,
	} {
		if _, err := os.Stat(filepath.Join(home, name)); (err == nil) != stays {
			t.Errorf("%s: %v; is to stay: %v", name, err, stays)
		}
	}
}
