package grid

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/Masterminds/semver/v3"
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
	MaxSchema    = 64 << 10 // of one schema
	MaxAuthors   = 32
	MaxVersion   = 64 // bytes of a plugin's version
)

// Manifest is what a plugin says of itself; see docs/plugins.md.
type Manifest struct {
	Format      int      `json:"format"`                // of the manifest itself: 1
	Name        string   `json:"name"`                  // under which it is published
	Version     string   `json:"version"`               // semver.org, without a v
	ABI         uint     `json:"abi"`                   // that it was built for; a node with an older one refuses it
	Description string   `json:"description,omitempty"` // one line
	Docs        string   `json:"docs,omitempty"`        // Markdown
	License     string   `json:"license,omitempty"`     // an SPDX expression
	Authors     []string `json:"authors,omitempty"`     // for people
	Homepage    string   `json:"homepage,omitempty"`    // a URL
	// Wants are what its functions use. It gets what a job grants, and a job that grants less than it wants is refused.
	Wants     Grants     `json:"wants,omitzero"`
	Functions []Function `json:"functions"` // that stages may name
}

// Function is one function of a plugin.
type Function struct {
	Name string       `json:"name"`          // unique in the plugin
	Kind FunctionKind `json:"kind"`          // how it is called
	Doc  string       `json:"doc,omitempty"` // what it does, for people
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

// ParseManifest reads what EncodeManifest writes, or what others have written by docs/registry.md, and checks it.
// Fields that it does not know are passed over: what changes the meaning of others comes with another format.
func ParseManifest(data []byte) (*Manifest, error) {
	if len(data) > MaxManifest {
		return nil, Errorf(Limit, "the manifest has %d bytes, at most %d are allowed", len(data), MaxManifest).
			Hint("shorten its docs and schemas")
	}
	if !utf8.Valid(data) {
		return nil, Errorf(Invalid, "the manifest is not UTF-8").Hint(rebuildPlugin)
	}
	var first struct{ Format int }
	if err := json.Unmarshal(data, &first); err != nil {
		return nil, Errorf(Invalid, "the manifest is not JSON of the form that it should have: %w", err).Hint(rebuildPlugin)
	}
	if first.Format != ManifestFormat { // before fields that may have other types there
		return nil, formatError(first.Format)
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, Errorf(Invalid, "the manifest is not JSON of the form that it should have: %w", err).Hint(rebuildPlugin)
	}
	if err := m.Check(); err != nil {
		return nil, err
	}
	return &m, nil
}

const rebuildPlugin = "build the plugin again, with `grid plugin build`"

func formatError(format int) error {
	if format > ManifestFormat {
		return Errorf(Unsupported, "the manifest has format %d, this node knows %d", format, ManifestFormat).
			Hint("it was made for a newer grid: update this one, or build the plugin with this one")
	}
	return Errorf(Invalid, "the manifest has format %d, the first there is is %d", format, ManifestFormat).Hint(rebuildPlugin)
}

// Encode checks a manifest and writes it as the section of a module has it.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, Errorf(Invalid, "encode the manifest: %w", err)
	}
	if len(data) > MaxManifest {
		return nil, Errorf(Limit, "the manifest has %d bytes, at most %d are allowed", len(data), MaxManifest).
			Hint("shorten its docs and schemas")
	}
	return data, nil
}

// Check refuses a manifest that is not as it should be, and puts what it wants into canonical form. Whether its schemas
// are schemas is not looked at; package schema does that.
func (m *Manifest) Check() error {
	if m.Format != ManifestFormat {
		return formatError(m.Format)
	}
	if err := CheckPluginName(m.Name); err != nil {
		return err
	}
	if _, err := ParseVersion(m.Version); err != nil {
		return err
	}
	if err := m.check(); err != nil {
		return Errorf(CodeOf(err), "the manifest of %s: %w", m, err)
	}
	return nil
}

func (m *Manifest) check() error {
	switch {
	case m.ABI == 0:
		return Errorf(Invalid, "it names no ABI version").Hint("set abi to what it was built for, %d at most", ABIVersion)
	case m.ABI > ABIVersion:
		return Errorf(Unsupported, "it was built for ABI version %d, and this node offers %d", m.ABI, ABIVersion).
			Hint("update the grid of this node, or build the plugin with an older SDK")
	case len(m.Authors) > MaxAuthors:
		return Errorf(Limit, "it names %d authors, at most %d are allowed", len(m.Authors), MaxAuthors)
	case len(m.Functions) > MaxFunctions:
		return Errorf(Limit, "it has %d functions, at most %d are allowed", len(m.Functions), MaxFunctions).
			Hint("divide it into several plugins")
	}
	lines := [][2]string{{"license", m.License}, {"homepage", m.Homepage}}
	for _, a := range m.Authors {
		lines = append(lines, [2]string{"author", a})
	}
	for _, l := range lines {
		if err := checkProse(l[0], l[1], MaxName*2); err != nil {
			return err
		}
		if strings.ContainsAny(l[1], "\n\t") {
			return Errorf(Invalid, "the %s %q has more than one line", l[0], l[1])
		}
	}
	if err := cmp.Or(checkProse("description", m.Description, MaxPlainText), checkProse("docs", m.Docs, MaxDocs)); err != nil {
		return err
	}
	seen := make(map[string]bool, len(m.Functions))
	for i := range m.Functions {
		f := &m.Functions[i]
		if err := f.check(); err != nil {
			return Errorf(CodeOf(err), "function %d: %w", i, err)
		}
		if seen[f.Name] {
			return Errorf(Invalid, "it has two functions %s", f.Name).Hint("give each a name of its own")
		}
		seen[f.Name] = true
	}
	if err := m.Wants.Normalize(); err != nil {
		return Errorf(CodeOf(err), "what it wants: %w", err)
	}
	return nil
}

// check leaves out schemas that say nothing.
func (f *Function) check() error {
	if err := CheckFunctionName(f.Name); err != nil {
		return err
	}
	if !slices.Contains(functionKinds, f.Kind) {
		var names []string
		for _, k := range functionKinds {
			names = append(names, string(k))
		}
		return Errorf(Unsupported, "%s is of the kind %.40q, which this node does not know", f.Name, f.Kind).
			Hint("kinds are %s; a newer grid may know more", strings.Join(names, ", "))
	}
	if err := checkProse("doc of "+f.Name, f.Doc, MaxPlainText); err != nil {
		return err
	}
	for _, s := range []struct {
		what   string
		schema *json.RawMessage
	}{{"input", &f.Input}, {"output", &f.Output}} {
		data := bytes.TrimSpace(*s.schema)
		if len(data) == 0 || string(data) == "null" {
			*s.schema = nil
			continue
		}
		if len(data) > MaxSchema {
			return Errorf(Limit, "the schema of the %s of %s has %d bytes, at most %d are allowed", s.what, f.Name, len(data), MaxSchema)
		}
		if !json.Valid(data) || data[0] != '{' && data[0] != 't' && data[0] != 'f' {
			return Errorf(Invalid, "the schema of the %s of %s is no JSON schema: it is neither an object nor true or false", s.what, f.Name).
				Hint("see json-schema.org, or leave it out")
		}
	}
	return nil
}

// functionKinds are all there are.
var functionKinds = []FunctionKind{TypedFunc, StreamFunc, MapFunc, ReduceFunc, TaskFunc, SplitterFunc, ScorerFunc, AdmissionFunc, NotifierFunc}

// checkProse refuses text that could not be shown.
func checkProse(what, text string, most int) error {
	if len(text) > most {
		return Errorf(Limit, "the %s has %d bytes, at most %d are allowed", what, len(text), most)
	}
	odd := func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' }
	if !utf8.ValidString(text) || strings.ContainsFunc(text, odd) {
		return Errorf(Invalid, "the %s is not plain text in UTF-8", what).Hint("remove control characters from it")
	}
	return nil
}

// CheckPluginName refuses what is no name for a plugin: a letter, then letters, digits and '-', all in lower case, 64 at most.
func CheckPluginName(name string) error {
	ok := name != "" && len(name) <= 64 && name[0] >= 'a' && name[0] <= 'z'
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
	}
	if !ok {
		return Errorf(Invalid, "%.80q is not a name for a plugin", name).
			Hint("begin with a letter, and use at most 64 letters in lower case, digits and '-', such as word-count")
	}
	return nil
}

// CheckFunctionName refuses what is no name for a plugin's function: a letter or '_', then letters, digits, '_' and '-', 64 at most.
func CheckFunctionName(name string) error {
	ok := name != "" && len(name) <= 64 && name[0] != '-' && (name[0] < '0' || name[0] > '9')
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
	}
	if !ok {
		return Errorf(Invalid, "%.80q is not a name for a function", name).
			Hint("begin with a letter, and use at most 64 letters, digits, '_' and '-', such as countLines")
	}
	return nil
}

// ParseVersion reads the version of a plugin: semver.org's, in full, without build metadata, for two versions that differ
// in nothing else are the same one there.
func ParseVersion(s string) (*semver.Version, error) {
	if len(s) <= MaxVersion {
		if v, err := semver.StrictNewVersion(s); err == nil && v.Metadata() == "" {
			return v, nil
		}
	}
	return nil, Errorf(Invalid, "%.80q is not a version of a plugin", s).
		Hint("write MAJOR.MINOR.PATCH, as in 1.2.0 or 2.0.0-rc.1, with no v before it and no + after it")
}

// CheckModule refuses a manifest that names functions which the module does not have. A program finds its functions itself.
func (m *Manifest) CheckModule(is *Module) error {
	if is.Kind == Command || is.Any {
		return nil
	}
	for _, f := range m.Functions {
		if !slices.Contains(is.Functions, f.Name) {
			return Errorf(Invalid, "the manifest of %s names the function %s, which the module does not export", m, f.Name).
				Hint("it exports %s; take the function out of plugin.yaml, or export it", is.list())
		}
	}
	return nil
}
