package config

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Default is the context of the home that is used if nothing else is said. It is in no file.
const Default = "default"

// Context is a grid: a node to speak to by its API, or one of this machine by its home.
type Context struct {
	API   string `json:"api,omitempty"`   // a token that names its node, or a URL
	Token string `json:"token,omitempty"` // for a URL
	Home  string `json:"home,omitempty"`  // absolute
}

// Contexts are the grids that a user has given names, and which of them is meant if none is named.
type Contexts struct {
	Current  string             `json:"current,omitempty"` // "": Default
	Contexts map[string]Context `json:"contexts"`
}

const (
	maxContexts = 1000
	maxText     = 8 << 10 // bytes of what a context says
	maxName     = 64
)

// CheckName says what is wrong with the name of a context.
func CheckName(name string) error {
	if name == "" || len(name) > maxName || name[0] == '-' || name[0] == '.' || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return grid.Errorf(grid.Invalid, "%.80q is no name for a context", name).Hint("want 1 to %d lower-case letters, digits, dashes, dots and underscores", maxName)
	}
	return nil
}

// Names are those of all contexts, sorted, without Default.
func (c *Contexts) Names() []string { return slices.Sorted(maps.Keys(c.Contexts)) }

// Get is the context of a name.
func (c *Contexts) Get(name string) (Context, error) {
	if name == Default {
		return Context{}, nil
	}
	if x, ok := c.Contexts[name]; ok {
		return x, nil
	}
	err := grid.Errorf(grid.NotFound, "there is no context %.80q", name)
	if near := grid.Nearest(name, append(c.Names(), Default)); near != "" {
		return Context{}, err.Hint("did you mean %s?", near)
	}
	return Context{}, err.Hint("`grid context ls` lists them, `grid context add` makes one")
}

// check says what is wrong with what was read.
func (c *Contexts) check() error {
	if len(c.Contexts) > maxContexts {
		return grid.Errorf(grid.Limit, "more than %d contexts", maxContexts)
	}
	for name, x := range c.Contexts {
		if err := CheckName(name); err != nil {
			return err
		}
		switch {
		case name == Default:
			return grid.Errorf(grid.Invalid, "%s is no name for a context in a file", Default)
		case (x.API == "") == (x.Home == ""):
			return grid.Errorf(grid.Invalid, "context %s has to have either an API or a home", name)
		case len(x.API)+len(x.Token)+len(x.Home) > maxText:
			return grid.Errorf(grid.Limit, "context %s has more than %d bytes", name, maxText)
		}
	}
	return nil
}

// LoadContexts reads a file of contexts. There are none in one that is not there.
func LoadContexts(name string) (Contexts, error) {
	c := Contexts{}
	text, closed, err := Read(name)
	if err != nil {
		return c, err
	}
	if !closed {
		return c, grid.Errorf(grid.Denied, "%s holds tokens, and others can read it: it is not used", name).
			Hint("chmod 600 %s, and make new tokens if somebody may have read it", name)
	}
	if len(text) > 0 {
		if c, err = parseContexts(text); err != nil {
			return c, grid.Errorf(grid.CodeOf(err), "%s: %w", name, err).Hint("mend it, or move it away")
		}
	}
	if c.Contexts == nil {
		c.Contexts = map[string]Context{}
	}
	return c, nil
}

func parseContexts(text []byte) (c Contexts, err error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return Contexts{}, grid.Errorf(grid.Invalid, "%w", err)
	}
	if dec.More() {
		return Contexts{}, grid.Errorf(grid.Invalid, "there is more in it than one JSON document")
	}
	return c, c.check()
}

// UpdateContexts changes a file of contexts, of which only one process at a time can be at it.
func UpdateContexts(name string, change func(*Contexts) error) error {
	unlock, err := lock(name + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	c, err := LoadContexts(name)
	if err != nil {
		return err
	}
	if err := change(&c); err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return grid.Errorf(grid.Internal, "%s: %w", name, err)
	}
	return Write(name, append(text, '\n'))
}
