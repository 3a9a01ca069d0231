package cli

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// placing says what may happen to what is there already.
type placing struct {
	force       bool // replace files
	unsafeLinks bool // keep symlinks that lead out of the folder
}

// extract writes an archive as the folder target, which may exist: entries are then added to it. All
// is written to a folder beside it and moved when whole. Names come from strangers, so nothing is
// written but below target: os.Root sees to that, whatever links there are.
func extract(archive io.Reader, target string, how placing) error {
	if real, err := filepath.EvalSymlinks(target); err == nil {
		target = real // the user's own link to a folder
	}
	target, err := filepath.Abs(target)
	if err != nil {
		return grid.Errorf(grid.Invalid, "write %s: %w", target, err)
	}
	parent, name := filepath.Split(target)
	if name == "" {
		return grid.Errorf(grid.Invalid, "write %s: it is the root folder", target)
	}
	if err := os.MkdirAll(parent, 0o777); err != nil {
		return grid.Errorf(codeOfOS(err), "write %s: %w", target, err)
	}
	staging, err := os.MkdirTemp(parent, ".grid-*")
	if err != nil {
		return grid.Errorf(codeOfOS(err), "write %s: %w", target, err)
	}
	defer os.RemoveAll(staging)
	root, err := os.OpenRoot(parent)
	if err != nil {
		return grid.Errorf(codeOfOS(err), "write %s: %w", target, err)
	}
	defer root.Close()
	whole := filepath.Join(filepath.Base(staging), "whole")
	if err := unpack(archive, root, whole, how); err != nil {
		return grid.Errorf(grid.CodeOf(err), "write %s: %w", target, err)
	}
	if err := place(root, whole, name, how); err != nil {
		return grid.Errorf(grid.CodeOf(err), "write %s: %w", target, err)
	}
	return nil
}

// unpack writes an archive to the new folder dir of root. Symlinks come last, so that no entry is
// written through one.
func unpack(archive io.Reader, root *os.Root, dir string, how placing) error {
	if err := root.Mkdir(dir, 0o777); err != nil {
		return osError(dir, err)
	}
	sub, err := root.OpenRoot(dir)
	if err != nil {
		return osError(dir, err)
	}
	defer sub.Close()
	type link struct{ name, target string }
	var links []link
	made := "." // the last folder that was seen to be there
	for t := tar.NewReader(archive); ; {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return grid.Errorf(grid.CodeOf(err), "read the archive: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name, err := safeName(h.Name)
		if err != nil {
			return err
		}
		if parent := path.Dir(name); parent != "." && parent != made {
			if err := sub.MkdirAll(filepath.FromSlash(parent), 0o777); err != nil {
				return osError(name, err)
			}
			made = parent
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = sub.MkdirAll(filepath.FromSlash(name), 0o777)
		case tar.TypeReg:
			err = writeFile(sub, filepath.FromSlash(name), t, h.FileInfo().Mode())
		case tar.TypeSymlink:
			if !how.unsafeLinks && !insideLink(name, h.Linkname) {
				return grid.Errorf(grid.Denied, "symlink %q leads out of the folder, to %q", name, h.Linkname).
					Hint("`grid get --unsafe-links` keeps such links")
			}
			links = append(links, link{name, h.Linkname})
		default:
			return grid.Errorf(grid.Unsupported, "%q is neither file, folder nor symlink", name)
		}
		if err != nil {
			return osError(name, err)
		}
	}
	for _, l := range links {
		if err := sub.Symlink(filepath.FromSlash(l.target), filepath.FromSlash(l.name)); err != nil {
			return osError(l.name, err)
		}
	}
	return nil
}

// safeName checks a name in an archive, and cleans it of what tar allows.
func safeName(name string) (string, error) {
	clean := strings.TrimSuffix(strings.TrimPrefix(name, "./"), "/")
	if !fs.ValidPath(clean) || clean == "." || !filepath.IsLocal(filepath.FromSlash(clean)) || strings.ContainsRune(clean, 0) {
		return "", grid.Errorf(grid.Denied, "the archive names an entry %q: that is no path below its folder", name)
	}
	return clean, nil
}

// insideLink reports whether a symlink leads to somewhere below the archive's folder, going by names.
func insideLink(name, target string) bool {
	target = filepath.ToSlash(target)
	return target != "" && !path.IsAbs(target) && filepath.IsLocal(filepath.FromSlash(path.Join(path.Dir(name), target)))
}

func writeFile(dir *os.Root, name string, r io.Reader, mode fs.FileMode) error {
	perm := fs.FileMode(0o666)
	switch {
	case mode&0o111 != 0:
		perm = 0o777
	case mode == 0o600: // it is nobody else's
		perm = mode
	}
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

func osError(name string, err error) error {
	if code := grid.CodeOf(err); code != grid.Unknown {
		return err
	}
	return grid.Errorf(codeOfOS(err), "%s: %w", printable(name), reason(err))
}

// place moves the folder from to the name to, or its entries into the folder that is there. Whether
// all of them may be placed is seen before the first is.
func place(root *os.Root, from, to string, how placing) error {
	if _, err := root.Lstat(to); errors.Is(err, fs.ErrNotExist) {
		return osErrorOrNil(to, root.Rename(from, to))
	}
	var names []string
	dirs := map[string]bool{}
	err := fs.WalkDir(root.FS(), filepath.ToSlash(from), func(p string, d fs.DirEntry, err error) error {
		rel, rerr := filepath.Rel(from, filepath.FromSlash(p))
		if err = errors.Join(err, rerr); err != nil {
			return err
		}
		names = append(names, rel)
		dirs[rel] = d.IsDir()
		old, err := root.Lstat(filepath.Join(to, rel))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return osError(rel, err)
		case old.IsDir() != d.IsDir():
			return grid.Errorf(grid.Conflict, "%s is there already, and is not of the same kind", rel).Hint("remove it, or choose another place with -o")
		case !d.IsDir() && !how.force:
			return grid.Errorf(grid.Conflict, "%s is there already", rel).Hint("--force replaces files; -o gives another place")
		}
		return nil
	})
	if err != nil {
		return osError(to, err)
	}
	for _, rel := range names {
		dst := filepath.Join(to, rel)
		if dirs[rel] {
			err = root.MkdirAll(dst, 0o777)
		} else {
			err = root.Rename(filepath.Join(from, rel), dst)
		}
		if err != nil {
			return osError(rel, err)
		}
	}
	return nil
}

func osErrorOrNil(name string, err error) error {
	if err == nil {
		return nil
	}
	return osError(name, err)
}

// saveFile writes a file whole or not at all.
func saveFile(r io.Reader, target string, mode fs.FileMode, how placing) (err error) {
	if info, err := os.Lstat(target); err == nil {
		if info.IsDir() {
			return grid.Errorf(grid.Conflict, "write %s: a folder is there", target).Hint("choose another place with -o")
		}
		if !how.force {
			return grid.Errorf(grid.Conflict, "write %s: it exists already", target).Hint("--force replaces it; -o gives another place")
		}
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o777); err != nil {
		return grid.Errorf(codeOfOS(err), "write %s: %w", target, reason(err))
	}
	staging, err := os.MkdirTemp(filepath.Dir(target), ".grid-*") // a folder, as CreateTemp ignores the umask
	if err != nil {
		return grid.Errorf(codeOfOS(err), "write %s: %w", target, reason(err))
	}
	defer os.RemoveAll(staging)
	root, err := os.OpenRoot(staging)
	if err != nil {
		return grid.Errorf(codeOfOS(err), "write %s: %w", target, reason(err))
	}
	defer root.Close()
	if err := writeFile(root, "whole", r, mode); err != nil {
		return osError(target, err)
	}
	if err := os.Rename(filepath.Join(staging, "whole"), target); err != nil {
		return grid.Errorf(codeOfOS(err), "write %s: %w", target, err)
	}
	return nil
}

// fetchDir writes the folder that c names as target.
func fetchDir(ctx context.Context, s *session, c cid.Cid, p, target string, how placing) error {
	r, err := s.Tar(ctx, c, p)
	if err != nil {
		return err
	}
	defer r.Close()
	return extract(r, target, how)
}

// saveOutputs writes what the tasks left in /out below dir, and returns the folders it wrote: dir
// itself when there is one task, else a folder for each of several, named by the task's input when that tells tasks
// apart, or by its number.
func saveOutputs(ctx context.Context, s *session, tasks []grid.TaskEnd, several bool, dir string, how placing) ([]string, error) {
	var wrote []string
	names := outputNames(tasks, several)
	for i := range tasks {
		t := &tasks[i]
		if !t.Out.Defined() {
			continue
		}
		target := filepath.Join(dir, filepath.FromSlash(names[i]))
		if err := fetchDir(ctx, s, t.Out.Cid, "", target, how); err != nil {
			return wrote, grid.Errorf(grid.CodeOf(err), "outputs of task %s: %w", taskLabel(t), err)
		}
		wrote = append(wrote, target)
	}
	return wrote, nil
}

// outputNames gives each task's folder below the place of the outputs.
func outputNames(tasks []grid.TaskEnd, several bool) []string {
	names := make([]string, len(tasks))
	if !several {
		return names
	}
	inputs := make([]input, len(tasks))
	byInput := true
	for i := range tasks {
		names[i] = strconv.FormatUint(uint64(tasks[i].Index), 10)
		inputs[i].name = tasks[i].Input
		_, err := safeName(tasks[i].Input)
		byInput = byInput && tasks[i].Inputs <= 1 && err == nil
	}
	if byInput && !clash(inputs) {
		for i := range inputs {
			names[i] = inputs[i].name
		}
	}
	return names
}
