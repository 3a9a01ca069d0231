package nodelog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// How much a log takes on disk: files of about FileSize, of which the older ones are numbered from 1 on, up to OldFiles.
const (
	FileSize = 16 << 20
	OldFiles = 2
)

// File is a log on disk, which is put aside when it has become long, and the oldest part is removed. It is safe for
// concurrent use.
type File struct {
	name  string
	most  int64
	moved func(*os.File) // told when another file has taken its place

	mu   sync.Mutex
	f    *os.File // nil: it could not be opened; it is tried again
	size int64
}

// OpenFile opens a log for appending, of files of most bytes. What this process writes to standard error goes along, if that is the
// same file.
func OpenFile(name string, most int64) (*File, error) {
	l := &File{name: name, most: most}
	if err := l.open(); err != nil {
		return nil, err
	}
	if here, err := l.f.Stat(); err == nil {
		if stderr, err := os.Stderr.Stat(); err == nil && os.SameFile(here, stderr) {
			l.moved = takeStderr
		}
	}
	return l, nil
}

func (l *File) open() error {
	f, err := os.OpenFile(l.name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.size = f, info.Size()
	return nil
}

// Write appends whole lines. When there is no room for all of them there is none of them.
func (l *File) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil && l.size > 0 && l.size+int64(len(p)) > l.most {
		l.rotate()
	}
	if l.f == nil {
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	n, err := l.f.Write(p)
	if err != nil && n > 0 && l.f.Truncate(l.size) == nil {
		n = 0
	}
	if l.size += int64(n); err == nil && n < len(p) {
		err = fmt.Errorf("%s took %d of %d bytes", l.name, n, len(p))
	}
	return n, err
}

// rotate puts the file aside. What cannot be put aside is gone on with; that is tried again at the next line.
func (l *File) rotate() {
	if Rotate(l.name) != nil {
		return
	}
	old := l.f
	l.f = nil
	if l.open() == nil && l.moved != nil {
		l.moved(l.f)
	}
	old.Close()
}

// Close closes the file.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	return f.Close()
}

// Rotate puts a log aside, as its first old one, and removes the oldest.
func Rotate(name string) error {
	old := func(i int) string { return fmt.Sprint(name, ".", i) }
	for i := OldFiles; i > 1; i-- {
		if err := os.Rename(old(i-1), old(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Rename(name, old(1))
}
