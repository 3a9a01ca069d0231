package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

func (f *file) mode() int64 {
	if f.exec {
		return 0o755
	}
	return 0o644
}

// sorted are files in order of their names.
func sorted(files []file) []file {
	return slices.SortedFunc(slices.Values(files), func(a, b file) int { return strings.Compare(a.name, b.name) })
}

func gzipped(data []byte, level int) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, level) // without a name and a time
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

// tarball is a tar.gz of files in a folder. Folders have entries of their own.
func tarball(dir string, files []file, when time.Time, level int) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	made := make(map[string]bool)
	var folder func(name string) error
	folder = func(name string) error {
		if made[name] || name == "." && dir != "." {
			return nil
		}
		made[name] = true
		if up := path.Dir(name); up != name {
			if err := folder(up); err != nil {
				return err
			}
		}
		if dir == "." && name != "." {
			name = "./" + name
		}
		return w.WriteHeader(&tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: when, Uname: "root", Gname: "root", Format: tar.FormatGNU})
	}
	for _, f := range sorted(files) {
		name := path.Join(dir, f.name)
		if err := folder(path.Dir(name)); err != nil {
			return nil, err
		}
		if dir == "." {
			name = "./" + name // as dpkg has it
		}
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: f.mode(), Size: int64(len(f.data)), ModTime: when, Uname: "root", Gname: "root", Format: tar.FormatGNU}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return gzipped(out.Bytes(), level)
}

// zipped is a zip of files in a folder.
func zipped(dir string, files []file, when time.Time) ([]byte, error) {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range sorted(files) {
		to, err := w.CreateHeader(&zip.FileHeader{Name: path.Join(dir, f.name), Method: zip.Deflate, Modified: when})
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(to, bytes.NewReader(f.data)); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}
