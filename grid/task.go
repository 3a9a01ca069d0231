package grid

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// ABIVersion is the version of what a guest can see: paths, environment and their meaning, as
// specified in docs/abi.md. It is part of every invocation's key.
const ABIVersion = 2

// Task is one numbered task of a stage, ready to run.
type Task struct {
	Job   JobID
	Stage uint32
	Index uint32
	Invocation
}

// Invocation is everything that a guest can see. Its result is a pure function of it, unless Only is set.
type Invocation struct {
	ABI    uint     `cbor:"abi"`
	Module Link     `cbor:"module"`
	Func   string   `cbor:"func,omitempty"`
	Args   []string `cbor:"args,omitempty"` // after the program's name
	Env    []string `cbor:"env,omitempty"`
	Mounts []Mount  `cbor:"mounts,omitempty"`
	Stdin  Link     `cbor:"stdin,omitzero"`
	Feed   bool     `cbor:"feed,omitempty"`
	Inputs []Input  `cbor:"in,omitempty"`
	Limits Limits   `cbor:"limits"`
	Grants
	Salt  string `cbor:"salt,omitempty"` // the guest does not see it: it only tells results apart
	Merge bool   `cbor:"merge,omitempty"`
	Parts uint32 `cbor:"parts,omitempty"` // in which it leaves its output
	Split Split  `cbor:"split,omitempty"`
	// Only names the one task that an impure invocation is of. Its result is no function of what is above,
	// so it answers for no other task.
	Only string `cbor:"only,omitempty"`
}

// Key names the computation.
func (v *Invocation) Key() (Key, error) {
	data, err := Marshal(v)
	if err != nil {
		return Key{}, Errorf(Internal, "encode an invocation: %w", err)
	}
	return sha256.Sum256(data), nil
}

// Impure reports whether the guest also sees the real clock and real randomness.
func (v *Invocation) Impure() bool { return v.Only != "" }

// Environment variables that the grid sets for a guest.
const (
	EnvABI  = "GRID_ABI"  // ABIVersion
	EnvFunc = "GRID_FUNC" // the function of an SDK module
	EnvTask = "GRID_TASK" // the task's index, in stages that have neither inputs nor a sweep
	// EnvPartitions is in how many parts the task's output is to be.
	EnvPartitions = "GRID_PARTITIONS"
)

// placeholder in an argument stands for the task's input paths.
const placeholder = "{}"

// UsesPlaceholder reports whether any argument mentions the task's inputs.
func UsesPlaceholder(args []string) bool {
	for _, a := range args {
		if strings.Contains(a, placeholder) {
			return true
		}
	}
	return false
}

// expandArgs replaces {} by the inputs' paths: an argument that is just {} becomes one argument for
// each input; inside a longer argument it becomes the paths joined by spaces.
func expandArgs(args []string, inputs []Input) []string {
	if !UsesPlaceholder(args) {
		return args
	}
	paths := make([]string, len(inputs))
	for i, in := range inputs {
		paths[i] = path.Join(GuestIn, in.Name)
	}
	out := make([]string, 0, len(args)+len(paths))
	for _, a := range args {
		if a == placeholder {
			out = append(out, paths...)
		} else {
			out = append(out, strings.ReplaceAll(a, placeholder, strings.Join(paths, " ")))
		}
	}
	return out
}

// gatheredName is the name under which a later task finds the stdout of task i, and that of part i of an output.
func gatheredName(i uint32) string { return fmt.Sprintf("%07d", i) }

// CheckRow refuses inputs that could not be shown to a guest: bad or clashing names.
func CheckRow(row Row) error {
	if len(row) > MaxTaskInputs {
		return Errorf(Limit, "one task has %d inputs, at most %d are allowed", len(row), MaxTaskInputs)
	}
	seen := make(map[string]struct{}, len(row))
	for _, in := range row {
		if !fs.ValidPath(in.Name) || in.Name == "." || len(in.Name) > 4096 || strings.ContainsRune(in.Name, 0) {
			return Errorf(Invalid, "input name %q: want a clean relative path", in.Name)
		}
		if _, dup := seen[in.Name]; dup {
			return Errorf(Invalid, "two inputs of one task are named %q", in.Name)
		}
		seen[in.Name] = struct{}{}
		if err := CheckCID(in.CID.Cid); err != nil {
			return Errorf(Invalid, "input %s: %w", in.Name, err)
		}
	}
	return nil
}
