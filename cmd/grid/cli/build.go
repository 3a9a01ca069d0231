package cli

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/cmd/grid/plugin"
	"github.com/wasmgrid/wasmgrid/grid"
)

// workbench is where a command builds folders and tries out what it built. Its sandbox is opened when it is needed.
type workbench struct {
	e   *env
	box *daemon.Sandbox
}

func (e *env) workbench() *workbench { return &workbench{e: e} }

// sandbox opens the sandbox.
func (w *workbench) sandbox() (plugin.Sandbox, error) {
	if w.box == nil {
		home, err := w.e.homeDir()
		if err != nil {
			return nil, err
		}
		if err := os.MkdirAll(home, 0o700); err != nil {
			return nil, grid.Errorf(codeOfOS(err), "home: %w", err).Hint("name another with --home or GRID_HOME")
		}
		if w.box, err = daemon.OpenSandbox(home, slog.New(slog.DiscardHandler)); err != nil {
			return nil, err
		}
	}
	return w.box, nil
}

func (w *workbench) close() {
	if w.box != nil {
		w.box.Close()
	}
}

// build builds a folder: a plugin or any Go main package. The module is in a cache.
func (w *workbench) build(ctx context.Context, dir string) (plugin.Built, error) {
	cache, err := w.e.buildCache()
	if err != nil {
		return plugin.Built{}, err
	}
	m := w.e.startMeter(progress{what: "building " + dir, unit: ""})
	defer m.stop()
	built, err := (&plugin.Builder{Cache: cache, Sandbox: w.sandbox}).Build(ctx, dir)
	if bad := (*plugin.BuildError)(nil); errors.As(err, &bad) {
		err = &exitError{exitBuild, err}
	}
	return built, err
}

// buildFolder builds a folder, and gives its module.
func (e *env) buildFolder(ctx context.Context, dir string) (module string, err error) {
	w := e.workbench()
	defer w.close()
	built, err := w.build(ctx, dir)
	return built.Path, err
}

// buildCache is the folder that keeps built modules.
func (e *env) buildCache() (string, error) {
	if dir, _ := e.lookupEnv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "grid", "build"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", grid.Errorf(grid.Invalid, "where to keep built modules is unknown: %w", err).Hint("set XDG_CACHE_HOME")
	}
	return filepath.Join(dir, "grid", "build"), nil
}
