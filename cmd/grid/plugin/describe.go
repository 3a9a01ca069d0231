package plugin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

// description is what a module says of itself.
type description struct {
	ABI       uint            `json:"abi"`
	Functions []grid.Function `json:"functions"`
	Itself    bool            `json:"itself"` // it does say something; else the ABI is guessed from its imports
	Module    grid.Module     `json:"module"`
}

// describeLimits are for a function that prints what it was compiled with.
var describeLimits = grid.Limits{Wall: time.Minute, Memory: 512 << 20, Output: grid.MaxManifest, Scratch: 1 << 20, Files: 16, Open: 16}

// describe has a module tell of its functions, in the sandbox, or recalls what it told.
func (b *Builder) describe(ctx context.Context, binary []byte) (*description, error) {
	sum := sha256.Sum256(append([]byte(grid.Version+"\x00"), binary...)) // another version may ask in another way
	known := filepath.Join(b.Cache, hex.EncodeToString(sum[:16])+describeExt)
	d := new(description)
	if text, err := os.ReadFile(known); err == nil && json.Unmarshal(text, d) == nil && d.ABI > 0 {
		now := time.Now()
		os.Chtimes(known, now, now) // lest it is pruned; it can be made again
		return d, nil
	}
	box, err := b.Sandbox()
	if err != nil {
		return nil, err
	}
	if d, err = ask(ctx, box, binary); err != nil {
		return nil, err
	}
	text, err := json.Marshal(d)
	if err == nil {
		err = WriteFile(known, text)
	}
	return d, err
}

func ask(ctx context.Context, box Sandbox, binary []byte) (*description, error) {
	id, err := box.Add(binary)
	if err != nil {
		return nil, err
	}
	info, err := box.Inspect(ctx, id, false)
	if err != nil {
		return nil, err
	}
	d := &description{ABI: leastABI(info.Imports), Module: info}
	if info.Extism || !info.Any && !slices.Contains(info.Functions, abi.Describe) {
		return d, nil
	}
	var stdout, stderr bytes.Buffer
	out, err := box.Run(ctx, &grid.Guest{
		Module: id, Func: abi.Describe, Args: []string{"main"}, Env: guestEnv(abi.Describe, nil),
		Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Limits: describeLimits,
	})
	if err != nil {
		return nil, err
	}
	if out.Fault != nil || out.Exit != 0 {
		if info.Kind == grid.Command {
			return d, nil // a program that knows nothing of functions
		}
		why := ending(&out, stderr.Bytes())
		if log := strings.TrimSpace(stderr.String()); out.Fault != nil && log != "" {
			why += "\n" + indent(log[:min(len(log), maxSaid)])
		}
		return nil, grid.Errorf(grid.Invalid, "the program failed to tell of its functions (%s): %s", abi.Describe, why)
	}
	var said description
	if err := json.Unmarshal(stdout.Bytes(), &said); err != nil || said.ABI == 0 {
		if info.Kind == grid.Command {
			return d, nil
		}
		return nil, grid.Errorf(grid.Invalid, "what the program tells of its functions (%s) is not of the form that it should have: %.200q", abi.Describe, stdout.String()).
			Hint("renew the SDK, with `grid plugin new --update-sdk`")
	}
	said.Itself, said.Module = true, info
	return &said, nil
}

// maxSaid is how much is told of what a program says that fails to describe itself: a panic comes first.
const maxSaid = 1 << 10

// guestEnv is the environment of a guest.
func guestEnv(function string, more []string) []string {
	env := append(slices.Clone(more), abi.EnvABI+"="+strconv.Itoa(abi.Version))
	if function != "" {
		env = append(env, abi.EnvFunc+"="+function)
	}
	return env
}

// leastABI is the version that offers all that is imported.
func leastABI(imports []string) uint {
	for _, name := range []string{abi.KV, abi.Progress, abi.Count, abi.Observe, abi.LastError} {
		if slices.Contains(imports, abi.Module+"."+name) {
			return 2
		}
	}
	return 1
}
