package daemon

import "path/filepath"

// Devnets is the folder in which the devnets of this user on this machine can be asked.
func Devnets() string { return filepath.Join(runtimeDir(), "devnets") }
