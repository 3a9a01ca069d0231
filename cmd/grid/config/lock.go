package config

import (
	"os"
	"path/filepath"
)

// lock waits until no other process has a file locked, and locks it. What holds it writes a small file, so it is not held for long.
func lock(name string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, failed(filepath.Dir(name), err)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, failed(name, err)
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, failed(name, err)
	}
	return func() { f.Close() }, nil
}
