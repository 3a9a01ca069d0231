package grid

import (
	"encoding/json"
	"fmt"
)

// ManifestSection is the name of the custom section of a module that holds its manifest, as JSON.
const ManifestSection = "grid.manifest"

// ManifestFormat is the only format of manifests there is.
const ManifestFormat = 1

// Bounds on a manifest.
const (
	MaxManifest  = 1 << 20 // bytes
	MaxFunctions = 256
	MaxPlainText = 4 << 10  // bytes of a description
	MaxDocs      = 64 << 10 // and of docs
)

// Manifest is what a plugin says of itself; see docs/plugins.md.
type Manifest struct {
	Format      int      `json:"format"`
	Name        string   `json:"name"`
	Version     string   `json:"version"` // semver.org, without a v
	ABI         uint     `json:"abi"`     // that it was built for; a node with an older one refuses it
	Description string   `json:"description,omitempty"`
	Docs        string   `json:"docs,omitempty"` // Markdown
	License     string   `json:"license,omitempty"`
	Authors     []string `json:"authors,omitempty"`
	Homepage    string   `json:"homepage,omitempty"`
	// Wants are what its functions use. It gets what a job grants, and a job that grants less than it wants is refused.
	Wants     Grants     `json:"wants,omitzero"`
	Functions []Function `json:"functions"`
}

// Function is one function of a plugin.
type Function struct {
	Name string       `json:"name"`
	Kind FunctionKind `json:"kind"`
	Doc  string       `json:"doc,omitempty"`
	// Input and Output are JSON schemas of what it takes and gives; empty when that is not JSON, or nothing is said of it.
	Input  json.RawMessage `json:"input,omitempty"`
	Output json.RawMessage `json:"output,omitempty"`
}

// FunctionKind is how a function takes its input and gives its output.
type FunctionKind string

// The kinds that stages run, and those with which nodes are extended.
const (
	TypedFunc  FunctionKind = "func"   // one JSON value in, one out
	StreamFunc FunctionKind = "stream" // JSON values in and out, one a line
	MapFunc    FunctionKind = "map"    // files in, records out
	ReduceFunc FunctionKind = "reduce" // records in, anything out
	TaskFunc   FunctionKind = "task"   // files and streams, as it likes

	SplitterFunc  FunctionKind = "splitter"  // says how files become tasks
	ScorerFunc    FunctionKind = "scorer"    // orders nodes that may run a task
	AdmissionFunc FunctionKind = "admission" // accepts or refuses jobs
	NotifierFunc  FunctionKind = "notifier"  // tells others of what happens to jobs
)

// Find gives a function by its name.
func (m *Manifest) Find(name string) (*Function, bool) {
	for i := range m.Functions {
		if m.Functions[i].Name == name {
			return &m.Functions[i], true
		}
	}
	return nil, false
}

// String is NAME@VERSION.
func (m *Manifest) String() string { return fmt.Sprintf("%s@%s", m.Name, m.Version) }
