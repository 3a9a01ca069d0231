package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"go/build"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// keepBuilds is how long a built module stays that nobody asked for.
const keepBuilds = 30 * 24 * time.Hour

// buildModule builds the Go main package in folder dir for WebAssembly, with the user's own go, and
// returns the module, which stays in the folder cache.
//
// What decides whether a build is up to date (sources, embedded files, modules, workspaces, toolchain,
// environment) only go knows for sure, so it is asked every time. Handed the module that it made
// before, whose build ID is a hash of all of that, it links nothing if the ID still fits: some 50 ms.
// It works on a copy, moved back into place whole, so that two commands can build at a time.
func buildModule(ctx context.Context, dir, cache string) (module string, err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", grid.Errorf(grid.Invalid, "build %s: %w", dir, err)
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", grid.Errorf(codeOfOS(err), "build %s: keep it in %s: %w", dir, cache, reason(err)).Hint("set XDG_CACHE_HOME to a folder that you can write to")
	}
	prune(cache, time.Now().Add(-keepBuilds))
	key := sha256.Sum256([]byte(abs))
	module = filepath.Join(cache, hex.EncodeToString(key[:16])+".wasm")
	tmp, err := os.CreateTemp(cache, "new-*.wasm")
	if err != nil {
		return "", grid.Errorf(codeOfOS(err), "build %s: %w", dir, err)
	}
	defer os.Remove(tmp.Name()) // fails when all went well
	if err := seed(tmp, module); err != nil {
		return "", grid.Errorf(codeOfOS(err), "build %s: %w", dir, err)
	}
	if err := goBuild(ctx, abs, tmp.Name()); err != nil {
		return "", err
	}
	if !isWasm(tmp.Name()) {
		return "", &exitError{exitBuild, grid.Errorf(grid.Invalid, "build %s: it is not a main package", dir).Hint("a program is `package main` with a func main")}
	}
	if err := os.Rename(tmp.Name(), module); err != nil {
		return "", grid.Errorf(codeOfOS(err), "build %s: %w", dir, err)
	}
	return module, nil
}

// seed fills tmp with the last build, and closes it. Without one the file must be gone, or go would
// refuse to overwrite what is not its own.
func seed(tmp *os.File, module string) error {
	defer tmp.Close()
	old, err := os.Open(module)
	if err != nil {
		return os.Remove(tmp.Name())
	}
	defer old.Close()
	if _, err := io.Copy(tmp, old); err != nil {
		return err
	}
	return tmp.Close()
}

// goBuild runs go build.
func goBuild(ctx context.Context, dir, out string) error {
	tool, err := exec.LookPath("go")
	if err != nil {
		return &exitError{exitBuild, grid.Errorf(grid.NotFound, "build %s: there is no go command: %w", dir, err).Hint("install Go from https://go.dev/dl, or give a .wasm file")}
	}
	// Without the version control's stamp, equal sources give equal modules, so that results stay known.
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-w", "-o", out}
	if usesSDK(dir) {
		args = append(args, "-buildmode=c-shared")
	}
	cmd := exec.CommandContext(ctx, tool, append(args, ".")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "PWD="+dir)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return grid.Errorf(grid.Canceled, "build %s: interrupted", dir)
	case err != nil && said.Len() > 0:
		return &exitError{exitBuild, grid.Errorf(grid.Invalid, "build %s failed:\n%s", dir, indent(strings.TrimSpace(said.String()))).Hint("MODULE is a .wasm file, or a folder with a Go main package")}
	case err != nil:
		return &exitError{exitBuild, grid.Errorf(grid.Invalid, "build %s failed: %w", dir, err)}
	}
	return nil
}

const sdkPath = "github.com/wasmgrid/wasmgrid/sdk"

// usesSDK tells whether a main package is written for the SDK. Then it may be built as a library, which is
// initialised once for many tasks.
func usesSDK(dir string) bool {
	target := build.Default
	target.GOOS, target.GOARCH, target.CgoEnabled = "wasip1", "wasm", false
	p, err := target.ImportDir(dir, 0) // go build will say what is wrong
	return err == nil && slices.Contains(p.Imports, sdkPath)
}

func isWasm(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [4]byte
	_, err = io.ReadFull(f, magic[:])
	return err == nil && string(magic[:]) == "\x00asm"
}

// prune forgets modules built before the given time.
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

// indent sets text off from the message around it.
func indent(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") }
