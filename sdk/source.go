//go:build !wasip1

package sdk

import (
	"embed"
	"io/fs"
	"strings"
)

//go:embed *.go *.s abi sdktest c/*.* rust/*.* assemblyscript/*.*
var files embed.FS

// Source gives the sources of this package, those below it, and the SDKs for other languages, by their paths below the
// folder sdk, without tests. It is for what hands them out to authors, so that plugins are built without a network. This
// file is not among them.
func Source() fs.FS { return sources{files} }

// sources hides what authors have no use for.
type sources struct{ fs embed.FS }

func hidden(name string) bool { return name == "source.go" || strings.HasSuffix(name, "_test.go") }

// Open opens a file or folder.
func (s sources) Open(name string) (fs.File, error) {
	if hidden(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return s.fs.Open(name)
}

// ReadDir lists a folder.
func (s sources) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := s.fs.ReadDir(name)
	list := all[:0]
	for _, e := range all {
		if !hidden(e.Name()) {
			list = append(list, e)
		}
	}
	return list, err
}
