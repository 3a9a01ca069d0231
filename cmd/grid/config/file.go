package config

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/wasmgrid/wasmgrid/cmd/grid/jobfile"
	"github.com/wasmgrid/wasmgrid/grid"
)

// Read reads a file that is small. One that is not there is empty. closed tells whether nobody but its owner can read it.
func Read(name string) (text []byte, closed bool, err error) {
	switch info, err := os.Stat(name); { // before it is opened: that of a pipe may last
	case errors.Is(err, fs.ErrNotExist):
		return nil, true, nil
	case err == nil && !info.Mode().IsRegular():
		return nil, false, grid.Errorf(grid.Invalid, "%s is no file", name).Hint("move it away")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, false, failed(name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, failed(name, err)
	}
	text, err = io.ReadAll(io.LimitReader(f, jobfile.MaxBytes+1))
	if err != nil {
		return nil, false, failed(name, err)
	}
	if len(text) > jobfile.MaxBytes {
		return nil, false, grid.Errorf(grid.Limit, "%s has more than %d KiB", name, jobfile.MaxBytes>>10).Hint("is it the right file?")
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o002 != 0 {
		return nil, false, grid.Errorf(grid.Denied, "anybody on this machine can change %s: it is not used", name).Hint("see that it says what you want, and chmod o-w %s", name)
	}
	// On Windows modes say nothing, and what is in a user's folders is the user's.
	return text, runtime.GOOS == "windows" || info.Mode().Perm()&0o077 == 0, nil
}

// Write replaces a file in one step. A new one is for its owner alone, as is the folder if it has to be made; an old one keeps its mode.
func Write(name string, text []byte) error {
	if at, err := filepath.EvalSymlinks(name); err == nil {
		name = at // where somebody keeps it
	}
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return failed(dir, err)
	}
	f, err := os.CreateTemp(dir, ".new-*") // 0600
	if err != nil {
		return failed(name, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if info, serr := os.Stat(name); serr == nil && err == nil {
		err = f.Chmod(info.Mode().Perm())
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return failed(name, err)
	}
	return nil
}

// failed says what the operating system said of a file.
func failed(name string, err error) error {
	code := grid.Invalid
	switch {
	case errors.Is(err, fs.ErrPermission):
		code = grid.Denied
	case errors.Is(err, fs.ErrNotExist):
		code = grid.NotFound
	}
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		err = pe.Err
	}
	return grid.Errorf(code, "%s: %w", name, err).Hint("is it yours, and the folder that it is in?")
}
