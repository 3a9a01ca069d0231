// Package plugin is what an author of plugins works with: it makes folders for new ones, builds them, runs their golden
// cases in the real sandbox, and measures them. docs/plugins.md is the guide.
//
// A folder with a plugin.yaml is a [Project]. [Builder] makes a module of it, which carries its manifest. [Runner] runs
// what [ReadCases] finds in its folder cases. The package prints nothing and knows no node: it asks for a [Sandbox].
package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/wasmgrid/wasmgrid/cmd/grid/jobfile"
	"github.com/wasmgrid/wasmgrid/grid"
)

// File is the name of the file that makes a folder a plugin's.
const File = "plugin.yaml"

// Project is a folder with a plugin.yaml.
type Project struct {
	Dir      string
	Manifest grid.Manifest // what plugin.yaml says, docs included; the ABI, and what functions say themselves, are missing
	Command  []string      // to build it with; nil: by its language
	Output   string        // the module that Command makes
}

// Is reports whether a folder is a plugin's.
func Is(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, File))
	return err == nil && info.Mode().IsRegular()
}

// Open reads a folder's plugin.yaml. All that is wrong with it is in the error, by line.
func Open(dir string) (*Project, error) {
	name := filepath.Join(dir, File)
	text, err := readFile(name, jobfile.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, grid.Errorf(grid.NotFound, "%s is no plugin's folder: it has no %s", dir, File).Hint("`grid plugin new NAME` makes a folder with all that a plugin needs")
	}
	if err != nil {
		return nil, err
	}
	p := &Project{Dir: dir}
	docs, problems := p.read(text)
	if err := wrong(name, problems); err != nil {
		return nil, err
	}
	if err := p.readDocs(docs); err != nil {
		return nil, err
	}
	return p, nil
}

// read reads plugin.yaml, and gives the name of the file with the docs.
func (p *Project) read(text []byte) (docs string, problems []jobfile.Problem) {
	m := &p.Manifest
	m.Format = grid.ManifestFormat
	var named, versioned bool
	problems = jobfile.Read(text, File, func(r *jobfile.Reader) map[string]jobfile.Field {
		// checked reads text, and has it checked where it stands.
		checked := func(to *string, check func(string) error) jobfile.Field {
			return func(n *jobfile.Node) {
				before := *to
				if r.Text(to)(n); *to != before {
					if err := check(*to); err != nil {
						r.Problem(n, err, grid.AdviceOf(err))
					}
				}
			}
		}
		return map[string]jobfile.Field{
			"name": func(n *jobfile.Node) {
				named = true
				checked(&m.Name, grid.CheckPluginName)(n)
			},
			"version": func(n *jobfile.Node) {
				versioned = true
				checked(&m.Version, func(v string) error { _, err := grid.ParseVersion(v); return err })(n)
			},
			"description": r.Text(&m.Description),
			"docs":        r.Text(&docs),
			"license":     r.Text(&m.License),
			"authors":     r.Texts(&m.Authors),
			"homepage":    r.Text(&m.Homepage),
			"wants": func(n *jobfile.Node) {
				before := m.Wants
				r.Object("wants", grantFields(r, &m.Wants))(n)
				if err := m.Wants.Normalize(); err != nil {
					m.Wants = before
					r.Problem(n, err, grid.AdviceOf(err))
				}
			},
			"functions": r.Items(func(n *jobfile.Node) {
				if f, ok := readFunction(r, n); ok {
					if _, twice := m.Find(f.Name); twice {
						r.Problem(n, fmt.Errorf("the function %q is there twice", f.Name), "")
					}
					m.Functions = append(m.Functions, f)
				}
			}),
			"build": func(n *jobfile.Node) {
				r.Object("build", map[string]jobfile.Field{
					"command": r.Texts(&p.Command),
					"output":  checked(&p.Output, checkLocal),
				})(n)
				if (len(p.Command) == 0) != (p.Output == "") {
					r.Problem(n, errors.New("build needs both command and output"), "command makes the module, output is the file that it makes")
				}
			},
		}
	})
	if len(problems) == 0 && !(named && versioned) {
		problems = append(problems, jobfile.Problem{Message: "a plugin has a name and a version", Hint: "add the lines  name: my-plugin  and  version: 0.1.0"})
	}
	return docs, problems
}

func grantFields(r *jobfile.Reader, g *grid.Grants) map[string]jobfile.Field {
	return map[string]jobfile.Field{"net": r.Texts(&g.Net), "kv": r.Texts(&g.KV), "secrets": r.Texts(&g.Secrets), "data": r.Texts(&g.Data), "decrypt": r.Texts(&g.Decrypt)}
}

// kinds are those that plugin.yaml may name.
var kinds = []string{
	string(grid.TypedFunc), string(grid.StreamFunc), string(grid.MapFunc), string(grid.ReduceFunc), string(grid.TaskFunc),
	string(grid.SplitterFunc), string(grid.ScorerFunc), string(grid.AdmissionFunc), string(grid.NotifierFunc),
}

// readFunction reads one of functions.
func readFunction(r *jobfile.Reader, n *jobfile.Node) (f grid.Function, ok bool) {
	var kind string
	schema := func(to *json.RawMessage) jobfile.Field {
		return func(n *jobfile.Node) {
			var v any
			err := n.Decode(&v)
			if err == nil {
				*to, err = json.Marshal(v)
			}
			if err != nil {
				r.Problem(n, fmt.Errorf("a JSON schema: %w", err), "")
			}
		}
	}
	r.Object("a function", map[string]jobfile.Field{
		"name": r.Text(&f.Name), "kind": r.Word(&kind, kinds...), "doc": r.Text(&f.Doc),
		"input": schema(&f.Input), "output": schema(&f.Output),
	})(n)
	f.Kind = grid.FunctionKind(kind)
	if f.Name == "" {
		r.Problem(n, errors.New("the function has no name"), "")
		return f, false
	}
	return f, true
}

// checkLocal refuses a path that leads out of the folder.
func checkLocal(name string) error {
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return fmt.Errorf("%q is not a file below the plugin's folder", name)
	}
	return nil
}

// readDocs reads the docs: the file that was named, or else README.md, if there is one.
func (p *Project) readDocs(name string) error {
	named := name != ""
	if !named {
		name = "README.md"
	}
	if err := checkLocal(name); err != nil {
		return grid.Errorf(grid.Invalid, "%s: docs: %w", filepath.Join(p.Dir, File), err)
	}
	text, err := readWithin(p.Dir, filepath.FromSlash(name), grid.MaxDocs)
	switch {
	case err == nil:
		p.Manifest.Docs = string(text)
	case named || !errors.Is(err, fs.ErrNotExist):
		return grid.Errorf(grid.CodeOf(err), "docs of the plugin: %w", err)
	}
	return nil
}

// wrong makes one error of what is wrong with a file.
func wrong(file string, problems []jobfile.Problem) error {
	if !jobfile.Failed(problems) {
		return nil
	}
	var b strings.Builder
	advice := ""
	for i, p := range problems {
		if i > 0 {
			b.WriteString("\n  ")
		}
		fmt.Fprintf(&b, "%s: %s", p.Where(file), p.Message)
		switch {
		case p.Hint != "" && len(problems) == 1:
			advice = p.Hint
		case p.Hint != "":
			fmt.Fprintf(&b, " (%s)", p.Hint)
		}
	}
	err := grid.Errorf(grid.Invalid, "%s", b.String())
	if advice != "" {
		return err.Hint("%s", advice)
	}
	return err.Hint("docs/plugins.md tells what may be in it")
}

// readWithin is readFile of what is published: a file in a folder, and not one elsewhere that a link there leads to.
func readWithin(dir, name string, most int64) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, osError(err)
	}
	defer root.Close()
	if info, err := root.Stat(name); err == nil && !info.Mode().IsRegular() {
		return nil, grid.Errorf(grid.Invalid, "%s is not a file", filepath.Join(dir, name))
	}
	f, err := root.Open(name)
	return readOpened(f, err, filepath.Join(dir, name), most)
}

// readFile reads a file of a bounded size.
func readFile(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	return readOpened(f, err, name, most)
}

func readOpened(f *os.File, err error, name string, most int64) ([]byte, error) {
	if err != nil {
		code := grid.Invalid
		if errors.Is(err, fs.ErrNotExist) {
			code = grid.NotFound
		}
		return nil, grid.Errorf(code, "%w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "%w", err)
	}
	if int64(len(data)) > most {
		return nil, grid.Errorf(grid.Limit, "%s has more than %d KiB", name, most>>10)
	}
	return data, nil
}
