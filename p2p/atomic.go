package p2p

import (
	"io"
	"os"
	"path/filepath"

	"github.com/wasmgrid/wasmgrid/grid"
)

// ReplaceFile makes data the content of a file, readable by its owner only. Whoever opens the file sees all of the old
// content or all of the new, also after a crash.
func ReplaceFile(name string, data []byte) error { return replaceFile(name, data, true) }

// replaceFile makes data the content of the file, readable by its owner only. Whoever opens the file
// sees all of the old content or all of the new, also after a crash if durable is set.
func replaceFile(name string, data []byte, durable bool) error {
	temp, err := writeTemp(filepath.Dir(name), data, durable)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, name); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return nil
}

// tempPrefix begins the names of files that are being written.
const tempPrefix = ".tmp-"

func writeTemp(folder string, data []byte, durable bool) (name string, err error) {
	f, err := os.CreateTemp(folder, tempPrefix+"*") // with mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// readSmall reads a regular file of at most limit bytes. It does not wait for a writer at the other end
// of a named pipe.
func readSmall(open func(name string, flag int, perm os.FileMode) (*os.File, error), name string, limit int64) ([]byte, os.FileInfo, error) {
	f, err := open(name, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, grid.Errorf(grid.Invalid, "%s is not a regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, nil, err
	}
	if int64(len(data)) > limit {
		return nil, nil, grid.Errorf(grid.Limit, "%s has more than %d bytes", name, limit)
	}
	return data, info, nil
}
