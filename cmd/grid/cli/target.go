package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/wasmgrid/wasmgrid/cmd/grid/config"
	"github.com/wasmgrid/wasmgrid/grid"
)

// target is the node that a command is about.
type target struct {
	api, token string // of a node that is used over the network, be it on this machine; "": that of home
	home       string // absolute. Keys lie here even if the node is elsewhere
	context    string // the name of the context that says so; "": none
	from       string // what says so, for people
}

// target finds the node that is meant. What is on the command line goes before what is in the environment, and that before the
// context in use; in each of these a node that is named goes before a context.
func (e *env) target() (t target, err error) {
	get := func(name string) string { v, _ := e.lookupEnv(name); return strings.TrimSpace(v) }
	home, from := get("GRID_HOME"), "$GRID_HOME"
	if e.home != "" {
		home, from = e.home, "--home"
	}
	switch remote := get("GRID_API"); {
	case e.context != "" && (e.home != "" || e.api != ""):
		return t, &exitError{exitUsage, grid.Errorf(grid.Invalid, "--context names a node, and so does --home or --api").Hint("leave one of them out")}
	case e.api != "":
		t.api, t.from = e.api, "--api"
	case e.home != "":
		t.from = from
	case e.context != "":
		return e.inContext(home, e.context, "--context")
	case remote != "":
		t.api, t.from = remote, "$GRID_API"
	case home != "":
		t.from = from
	case get("GRID_CONTEXT") != "":
		return e.inContext("", get("GRID_CONTEXT"), "$GRID_CONTEXT")
	default:
		return e.inContext("", "", "")
	}
	if t.api != "" {
		t.token = get("GRID_TOKEN")
	}
	t.home, err = e.absHome(home)
	return t, err
}

// inContext is the node of a context; "": that in use.
func (e *env) inContext(home, name, by string) (t target, err error) {
	file := e.contextsFile()
	all, err := config.LoadContexts(file)
	if err != nil {
		return t, err
	}
	if name == "" && all.Current != "" {
		name, by = all.Current, "`grid context use`"
	}
	if name == "" || name == config.Default {
		t.context, t.from = config.Default, "the default"
		t.home, err = e.absHome("")
		return t, err
	}
	c, err := all.Get(name)
	if err != nil {
		return t, grid.Errorf(grid.CodeOf(err), "%s: %w", by, err).Hint("%s", grid.AdviceOf(err))
	}
	t = target{api: c.API, token: c.Token, context: name, from: "the context " + name + ", of " + by}
	if c.Home != "" {
		home = c.Home
	}
	t.home, err = e.absHome(home)
	return t, err
}

// homeDir is the folder of the node that commands use.
func (e *env) homeDir() (string, error) {
	t, err := e.target()
	return t.home, err
}

// absHome is a home that was named, or the default one.
func (e *env) absHome(home string) (string, error) {
	if home == "" {
		dir, err := e.userDir("XDG_DATA_HOME", ".local", "share")
		if err != nil {
			return "", grid.Errorf(grid.Invalid, "where the node keeps its data is unknown: %w", err).Hint("give a folder with --home, or set GRID_HOME")
		}
		home = dir
	}
	abs, err := filepath.Abs(home)
	if err != nil {
		return "", grid.Errorf(grid.Invalid, "home %s: %w", home, err)
	}
	if info, err := os.Stat(abs); err == nil && !info.IsDir() || errors.Is(err, syscall.ENOTDIR) {
		return "", grid.Errorf(grid.Invalid, "the home %s is not a folder, nor can it become one: there is a file", abs).Hint("name another with --home or GRID_HOME")
	}
	return abs, nil
}

// userDir is the folder of grid in one of the user's: that which a variable names, else one below his home.
func (e *env) userDir(variable string, below ...string) (string, error) {
	if dir, _ := e.lookupEnv(variable); filepath.IsAbs(dir) { // its specification ignores relative ones
		return filepath.Join(dir, "grid"), nil
	}
	user, _ := e.lookupEnv("HOME")
	if user == "" {
		dir, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		user = dir
	}
	return filepath.Join(append(append([]string{user}, below...), "grid")...), nil
}

// contextsFile is where contexts are kept; "" when the user has no folder for it.
func (e *env) contextsFile() string { return e.userFile("contexts.json") }

// userFile is a file of this user's configuration; "" when there is no place for it.
func (e *env) userFile(name string) string {
	dir, err := e.userDir("XDG_CONFIG_HOME", ".config")
	if err != nil {
		return ""
	}
	return filepath.Join(dir, name)
}
