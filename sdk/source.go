//go:build !wasip1

package sdk

import (
	"embed"
	"io/fs"
	"slices"
	"strings"
)

//go:embed *.go *.s abi sdktest c/*.* rust/*.* assemblyscript/*.* */example
var files embed.FS

// Source gives the sources of this package, those below it, and the SDKs for other languages, by their paths below the
// folder sdk, without tests. It is for what hands them out to authors, so that plugins are built without a network. This
// file is not among them.
func Source() fs.FS { return sources{files} }

// sources hides what authors have no use for.
type sources struct{ fs embed.FS }

func hidden(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "source.go", "testdata", "node_modules", "target":
			return true
		}
	}
	return strings.HasSuffix(name, "_test.go")
}

// Open opens a file or folder.
func (s sources) Open(name string) (fs.File, error) {
	if hidden(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, err := s.fs.Open(name)
	if d, ok := f.(fs.ReadDirFile); ok {
		return folder{d}, err
	}
	return f, err
}

// ReadDir lists a folder.
func (s sources) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := s.fs.ReadDir(name)
	return visible(list), err
}

// folder is one that is open.
type folder struct{ fs.ReadDirFile }

// ReadDir lists on.
func (f folder) ReadDir(n int) ([]fs.DirEntry, error) {
	for {
		list, err := f.ReadDirFile.ReadDir(n)
		if list = visible(list); n <= 0 || err != nil || len(list) > 0 {
			return list, err
		}
	}
}

func visible(all []fs.DirEntry) []fs.DirEntry {
	return slices.DeleteFunc(all, func(e fs.DirEntry) bool { return hidden(e.Name()) })
}
