//go:build !unix

package wasmhost

import (
	"errors"
	"io"
	"io/fs"
)

var errLocked = errors.New("another process holds it")

// lockDir knows of no locks here, so that the folder of a host that crashed stays.
func lockDir(string) (io.Closer, error) { return nil, errors.ErrUnsupported }

// Folders are guarded by access lists here, which a new one inherits from the user's own.
func ownedByUs(fs.FileInfo) bool        { return true }
func ownedByUsOrRoot(fs.FileInfo) bool  { return true }
func writableByOthers(fs.FileInfo) bool { return false }
