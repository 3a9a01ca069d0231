package plugin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
)

// Sandbox runs modules that it was given.
type Sandbox interface {
	grid.Engine
	// Add takes a module, whose bytes stay as they are.
	Add(binary []byte) (cid.Cid, error)
}

// Builder builds folders.
type Builder struct {
	// Cache is the folder for what was built, and for what is known of it. What nobody asked for in keepBuilds goes.
	Cache string
	// Sandbox is asked for when a module has to be run to tell of its functions, which is once for each.
	Sandbox func() (Sandbox, error)
}

// Built is a module on disk, in the builder's cache.
type Built struct {
	Path     string
	Manifest *grid.Manifest // nil: the folder has a program, but no plugin
}

// BuildError is an error of the sources, or of the tools that they need: not of what is asked of a good build.
type BuildError struct{ Err error }

func (e *BuildError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *BuildError) Unwrap() error { return e.Err }

// keepBuilds is how long a built module stays that nobody asked for.
const keepBuilds = 30 * 24 * time.Hour

// Build builds a folder: a plugin, with its manifest, or any Go main package without one. Whether what was built before is up to date
// is for the tools of its language to say, so they are run each time. Equal sources give equal bytes.
func (b *Builder) Build(ctx context.Context, dir string) (Built, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Built{}, grid.Errorf(grid.Invalid, "build %s: %w", dir, err)
	}
	if err := os.MkdirAll(b.Cache, 0o700); err != nil {
		return Built{}, grid.Errorf(grid.Denied, "build %s: keep it in %s: %w", dir, b.Cache, err).Hint("set XDG_CACHE_HOME to a folder that you can write to")
	}
	prune(b.Cache, time.Now().Add(-keepBuilds))
	if !Is(abs) {
		path, err := b.compile(ctx, goLanguage, &source{name: dir, dir: abs})
		return Built{Path: path}, err
	}
	p, err := Open(dir)
	if err != nil {
		return Built{}, err
	}
	l, err := p.language()
	if err != nil {
		return Built{}, err
	}
	bare, err := b.compile(ctx, l, &source{name: dir, dir: abs, project: p})
	if err != nil {
		return Built{}, err
	}
	binary, err := readFile(bare, module.MaxSize)
	if err != nil {
		return Built{}, err
	}
	m, err := b.manifest(ctx, p, binary)
	if err != nil {
		return Built{}, grid.Errorf(grid.CodeOf(err), "build %s: %w", dir, err)
	}
	whole, err := module.PutManifest(binary, m)
	if err != nil {
		return Built{}, grid.Errorf(grid.CodeOf(err), "build %s: %w", dir, err)
	}
	path := strings.TrimSuffix(bare, moduleExt) + pluginExt
	if old, err := os.ReadFile(path); err != nil || !bytes.Equal(old, whole) {
		if err := WriteFile(path, whole); err != nil {
			return Built{}, grid.Errorf(grid.CodeOf(err), "build %s: %w", dir, err)
		}
	}
	return Built{Path: path, Manifest: m}, nil
}

// Names of what is in the cache, by what it was made of.
const (
	moduleExt   = ".wasm"
	pluginExt   = ".plugin.wasm"
	describeExt = ".json" // what a module says of itself, by the module's hash
)

// source is a folder to build.
type source struct {
	name    string // as it was given, for messages
	dir     string
	module  string   // in the cache, of the last build and the next
	project *Project // nil: a plain program
}

// compile runs the language's compiler, and gives the module in the cache.
//
// It works on a copy of the last build, moved into place whole, so that two commands can build at a time.
func (b *Builder) compile(ctx context.Context, l *language, s *source) (string, error) {
	key := sha256.Sum256([]byte(s.dir))
	path := filepath.Join(b.Cache, hex.EncodeToString(key[:16])+moduleExt)
	s.module = path
	tmp, err := os.CreateTemp(b.Cache, "new-*.wasm")
	if err != nil {
		return "", grid.Errorf(grid.Denied, "build %s: %w", s.name, err)
	}
	defer os.Remove(tmp.Name()) // fails when all went well
	if err := seed(tmp, path); err != nil {
		return "", grid.Errorf(grid.Unknown, "build %s: %w", s.name, err)
	}
	if err := l.build(ctx, s, tmp.Name()); err != nil {
		return "", err
	}
	if !isWasm(tmp.Name()) {
		return "", failed(grid.Errorf(grid.Invalid, "build %s: what came of it is no WebAssembly module", s.name), l.notWasm)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return "", grid.Errorf(grid.Unknown, "build %s: %w", s.name, err)
	}
	return path, nil
}

func failed(err *grid.Error, hint string) error {
	if hint != "" {
		err = err.Hint("%s", hint)
	}
	return &BuildError{err}
}

// seed fills tmp with the last build, and closes it. Without one the file must be gone, or go would
// refuse to overwrite what is not its own.
func seed(tmp *os.File, module string) error {
	defer tmp.Close()
	old, err := os.ReadFile(module)
	if err != nil {
		return os.Remove(tmp.Name())
	}
	if _, err := tmp.Write(old); err != nil {
		return err
	}
	return tmp.Close()
}

func isWasm(name string) bool {
	data := make([]byte, 4)
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.Read(data)
	return err == nil && string(data) == "\x00asm"
}

// prune forgets what was built before the given time.
func prune(cache string, before time.Time) {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && info.ModTime().Before(before) {
			os.Remove(filepath.Join(cache, e.Name()))
		}
	}
}

// WriteFile writes a file whole or not at all.
func WriteFile(name string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return osError(err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	return osError(err)
}

// osError gives an error of the file system a code.
func osError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return grid.Errorf(grid.NotFound, "%w", err)
	case errors.Is(err, fs.ErrPermission):
		return grid.Errorf(grid.Denied, "%w", err)
	case errors.Is(err, fs.ErrExist):
		return grid.Errorf(grid.Conflict, "%w", err)
	}
	return grid.Errorf(grid.Invalid, "%w", err)
}

// manifest is all that is known of a plugin: what plugin.yaml says, and its own word on its functions.
func (b *Builder) manifest(ctx context.Context, p *Project, binary []byte) (*grid.Manifest, error) {
	d, err := b.describe(ctx, binary)
	if err != nil {
		return nil, err
	}
	m := p.Manifest
	m.ABI = d.ABI
	if m.Functions, err = d.merge(m.Functions); err != nil {
		return nil, grid.Errorf(grid.CodeOf(err), "%s: %w", filepath.Join(p.Dir, File), err)
	}
	if err := m.Check(); err != nil {
		return nil, err
	}
	return &m, m.CheckModule(&d.Module)
}

// merge adds what plugin.yaml says of functions to what they say themselves. A function that says nothing is as
// plugin.yaml has it.
func (d *description) merge(said []grid.Function) ([]grid.Function, error) {
	if !d.Itself {
		if len(said) == 0 {
			return nil, grid.Errorf(grid.Invalid, "the program does not tell which functions it has").
				Hint("list them below functions, each with a name and a kind, or use an SDK that tells")
		}
		for i := range said {
			if said[i].Kind == "" {
				return nil, grid.Errorf(grid.Invalid, "the function %s has no kind", said[i].Name).Hint("func, stream, map, reduce or task; see docs/plugins.md")
			}
		}
		return said, nil
	}
	functions := slices.Clone(d.Functions)
	var names []string
	for i := range functions {
		names = append(names, functions[i].Name)
	}
	for _, s := range said {
		at := -1
		for i := range functions {
			if functions[i].Name == s.Name {
				at = i
			}
		}
		if at < 0 {
			err := grid.Errorf(grid.Invalid, "the program has no function %q", s.Name)
			if near := grid.Nearest(s.Name, names); near != "" {
				return nil, err.Hint("did you mean %s?", near)
			}
			return nil, err.Hint("it has %s", strings.Join(names, ", "))
		}
		f := &functions[at]
		if s.Kind != "" && s.Kind != f.Kind {
			return nil, grid.Errorf(grid.Invalid, "the function %s is of the kind %s, not %s", s.Name, f.Kind, s.Kind).Hint("leave the kind out: the program tells it")
		}
		if s.Doc != "" {
			f.Doc = s.Doc
		}
		if s.Input != nil {
			f.Input = s.Input
		}
		if s.Output != nil {
			f.Output = s.Output
		}
	}
	return functions, nil
}
