package cli

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/wasmgrid/wasmgrid/cmd/grid/jobfile"
	"github.com/wasmgrid/wasmgrid/grid"
)

// input is a file on this machine that becomes an input of a task.
type input struct {
	name string // slash-separated, as the guest sees it
	path string
	size int64
}

// finding is how files are looked for.
type finding struct {
	base string // the folder that patterns are relative to; "": the current one
	what string // says of the patterns where they were given
}

// ofEach is for the patterns of --each.
var ofEach = finding{what: "--each"}

// inputs expands patterns. Its result is sorted by name, and each file is in it once.
//
// A name is the path below the part of the pattern that has no wildcards. If two patterns would give
// two files names that clash, all names are taken relative to the folder that the patterns share.
func (f finding) inputs(patterns []string) ([]input, error) {
	var all []input
	var bases []string
	seen := map[string]bool{} // absolute paths
	for _, p := range patterns {
		base, found, err := f.expand(p)
		if err != nil {
			return nil, err
		}
		bases = append(bases, base)
		for _, in := range found {
			if !seen[in.path] {
				seen[in.path] = true
				all = append(all, in)
			}
		}
	}
	if clash(all) {
		shared := commonFolder(bases)
		for i := range all {
			rel, err := filepath.Rel(shared, all[i].path)
			if err != nil {
				return nil, grid.Errorf(grid.Invalid, "input %s: no path from %s leads there: %w", all[i].path, shared, err)
			}
			all[i].name = filepath.ToSlash(rel)
		}
	}
	for _, in := range all {
		if !fs.ValidPath(in.name) {
			return nil, grid.Errorf(grid.Invalid, "input %q: its name is not UTF-8", in.path).Hint("rename it, or leave it out with a narrower pattern")
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].name < all[j].name })
	return all, nil
}

// expand finds the files of one pattern, and the absolute folder that it was looked for in.
func (f finding) expand(pattern string) (base string, found []input, err error) {
	slashed := filepath.ToSlash(pattern)
	if !doublestar.ValidatePattern(slashed) {
		return "", nil, grid.Errorf(grid.Invalid, "%s %q is not a pattern: a bracket or brace has no end", f.what, pattern).Hint(`a backslash before [ or { takes it literally`)
	}
	dir, rest := doublestar.SplitPattern(path.Clean(slashed))
	base, err = filepath.Abs(below(f.base, filepath.FromSlash(dir)))
	if err != nil {
		return "", nil, grid.Errorf(grid.Invalid, "%s %q: %w", f.what, pattern, err)
	}
	opts := []doublestar.GlobOption{doublestar.WithFailOnIOErrors()}
	if strings.Contains(rest, "**") {
		opts = append(opts, doublestar.WithNoFollow()) // a link to a folder above would never end
	}
	skipped := 0
	err = doublestar.GlobWalk(os.DirFS(base), rest, func(name string, _ fs.DirEntry) error {
		full := filepath.Join(base, filepath.FromSlash(name))
		info, err := os.Stat(full) // what a link leads to
		if err != nil {
			return grid.Errorf(codeOfOS(err), "input %s: %w", full, reason(err))
		}
		if !info.Mode().IsRegular() {
			skipped++
			return nil
		}
		found = append(found, input{name: name, path: full, size: info.Size()})
		return nil
	}, opts...)
	var ge *grid.Error
	switch {
	case errors.As(err, &ge):
		return "", nil, err
	case err != nil:
		return "", nil, grid.Errorf(codeOfOS(err), "%s %q, below %s: %w", f.what, pattern, base, err)
	case len(found) == 0 && skipped > 0:
		return "", nil, grid.Errorf(grid.NotFound, "%s %q matches no files in %s, only folders or special files", f.what, pattern, base).
			Hint("%q gives every file below", path.Join(slashed, "**"))
	case len(found) == 0:
		return "", nil, grid.Errorf(grid.NotFound, "%s %q matches nothing in %s", f.what, pattern, base).
			Hint("a pattern on the command line needs quotes, as in '*.csv'; ** matches folders within folders")
	}
	return base, found, nil
}

// below is where a path leads that is relative to a folder.
func below(base, p string) string {
	if base == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(base, p)
}

// clash reports whether two names are equal, or one is a folder of the other.
func clash(all []input) bool {
	names := make(map[string]bool, len(all))
	for _, in := range all {
		if names[in.name] {
			return true
		}
		names[in.name] = true
	}
	for _, in := range all {
		for dir := path.Dir(in.name); dir != "."; dir = path.Dir(dir) {
			if names[dir] {
				return true
			}
		}
	}
	return false
}

// commonFolder is the deepest folder that holds all of the given absolute folders.
func commonFolder(dirs []string) string {
	common := dirs[0]
	for _, d := range dirs[1:] {
		for {
			rel, err := filepath.Rel(common, d)
			if err == nil && filepath.IsLocal(rel) || common == filepath.Dir(common) {
				break
			}
			common = filepath.Dir(common)
		}
	}
	return common
}

// grouping says how many inputs a task gets: a count, or as many as have so many bytes together.
type grouping struct {
	count int
	bytes int64
}

// parseGrouping reads --group: digits alone are a count, digits with a unit bytes.
func parseGrouping(s string) (grouping, error) {
	wrong := grid.Errorf(grid.Invalid, "--group %q: want a count such as 10, or bytes such as 1MiB", s)
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 {
			return grouping{}, wrong
		}
		if n > grid.MaxTaskInputs {
			return grouping{}, grid.Errorf(grid.Invalid, "--group %d: one task has at most %d inputs", n, grid.MaxTaskInputs)
		}
		return grouping{count: n, bytes: math.MaxInt64}, nil
	}
	n, err := parseSize(s)
	if err != nil || n == 0 {
		return grouping{}, wrong
	}
	return grouping{count: grid.MaxTaskInputs, bytes: int64(n)}, nil
}

// group deals inputs out to tasks in order. A task has at least one, however big.
func (g grouping) group(inputs []grid.Input) []grid.Row {
	var rows []grid.Row
	for _, row := range jobfile.Deal(inputs, g.count, g.bytes, func(in grid.Input) int64 { return in.Size }) {
		rows = append(rows, grid.Row(row))
	}
	return rows
}

// codeOfOS classifies an error of the operating system.
func codeOfOS(err error) grid.Code {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return grid.NotFound
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return grid.Denied
	case errors.Is(err, fs.ErrExist):
		return grid.Conflict
	case errors.Is(err, syscall.ENOSPC):
		return grid.NoSpace
	}
	return grid.Invalid
}

// reason is an error of the operating system without the path, which our message names itself.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
