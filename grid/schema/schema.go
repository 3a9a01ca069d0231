// Package schema checks JSON values against the JSON schemas that plugins have for what their functions take and give,
// and says in one sentence which field is wrong. A schema stands alone: what it refers to is within it, and nothing is
// fetched or read.
package schema

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Schema is a compiled JSON schema, of draft 2020-12 unless it names another.
type Schema struct{ s *jsonschema.Schema }

// where a schema is said to be; nothing is ever read from there.
const where = "grid:///schema"

// nothing refuses to load what a schema refers to.
type nothing struct{}

func (nothing) Load(url string) (any, error) {
	return nil, fmt.Errorf("it refers to %.200s, outside of itself", url)
}

// Compile reads a schema. Errors are Invalid or Limit.
func Compile(data []byte) (*Schema, error) { return compile(data, &patterns{maxSteps}) }

func compile(data []byte, p *patterns) (*Schema, error) {
	if len(data) > grid.MaxSchema {
		return nil, grid.Errorf(grid.Limit, "the schema has %d bytes, at most %d are allowed", len(data), grid.MaxSchema)
	}
	if err := shallow(data); err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "the schema is not JSON: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(nothing{})
	c.UseRegexpEngine(p.compile)
	if err := c.AddResource(where, doc); err != nil {
		return nil, grid.Errorf(grid.Invalid, "not a JSON schema: %w", err)
	}
	s, err := c.Compile(where)
	if err != nil {
		if bad := (*jsonschema.SchemaValidationError)(nil); errors.As(err, &bad) {
			err = bad.Err
		}
		return nil, grid.Errorf(grid.Invalid, "not a JSON schema: %s", sentence(err)).
			Hint("see json-schema.org; a schema may refer only to what is within it")
	}
	return &Schema{s}, nil
}

// Bounds on patterns: the bytes of one, and the steps of the machines that match all that are in a schema, or in those of a
// manifest. Each is compiled twice.
const (
	maxPattern = 512
	maxSteps   = 16 << 10
	maxAll     = 64 << 10
)

// patterns compiles regular expressions, by the rules of Go rather than those of JavaScript, which most patterns keep to.
// Short ones can ask for a lot of memory and time by repeating themselves.
type patterns struct{ steps int } // that are left

func (p *patterns) compile(s string) (jsonschema.Regexp, error) {
	if len(s) > maxPattern {
		return nil, fmt.Errorf("the pattern %.40q… has %d bytes, at most %d are allowed", s, len(s), maxPattern)
	}
	if p.steps < 0 {
		return nil, errSteps
	}
	tree, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, err
	}
	if p.steps -= len(prog.Inst); p.steps < 0 {
		return nil, errSteps
	}
	return regexp.Compile(s)
}

var errSteps = errors.New("the patterns take more steps to match than are allowed")

// maxDepth bounds how deep values lie in one another: both compiling and checking go down by recursion.
const maxDepth = 256

// shallow refuses JSON that is too deep.
func shallow(data []byte) error {
	depth, text, escaped := 0, false, false
	for _, b := range data {
		switch {
		case escaped:
			escaped = false
		case text && b == '\\':
			escaped = true
		case b == '"':
			text = !text
		case text:
		case b == '{' || b == '[':
			if depth++; depth > maxDepth {
				return grid.Errorf(grid.Limit, "values lie in one another more than %d deep", maxDepth)
			}
		case b == '}' || b == ']':
			depth--
		}
	}
	return nil
}

// maxTime is how long one value is checked. A short schema that refers to itself can ask for more steps than anybody has time for.
var maxTime = 5 * time.Second

// Check says what is wrong with a value, naming the first field of which something is wrong. Errors are Invalid or Limit.
// A check that is given up for want of time goes on, unheard.
func (s *Schema) Check(value []byte) error {
	if err := shallow(value); err != nil {
		return err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err != nil {
		return grid.Errorf(grid.Invalid, "not JSON: %w", jsonError(value, err))
	}
	done := make(chan error, 1)
	go func() { done <- s.s.Validate(doc) }()
	timer := time.NewTimer(maxTime)
	defer timer.Stop()
	select {
	case err = <-done:
	case <-timer.C:
		return grid.Errorf(grid.Limit, "to check the value against its schema takes more than %v", maxTime).
			Hint("the schema is at fault: it asks the same of the same value over and over")
	}
	if err != nil {
		return grid.Errorf(grid.Invalid, "%s", sentence(err))
	}
	return nil
}

// jsonError adds the line to an error of syntax, if there are several.
func jsonError(value []byte, err error) error {
	if e := (*json.SyntaxError)(nil); errors.As(err, &e) && bytes.Contains(bytes.TrimSpace(value), []byte("\n")) {
		before := value[:min(max(int(e.Offset), 0), len(value))]
		return fmt.Errorf("%w (line %d)", err, 1+bytes.Count(before, []byte("\n")))
	}
	return err
}

var printer = message.NewPrinter(language.English)

// sentence is the message of the deepest cause, behind the field that it is about.
func sentence(err error) string {
	var v *jsonschema.ValidationError
	if !errors.As(err, &v) {
		return strings.ReplaceAll(err.Error(), where, "the schema")
	}
	for len(v.Causes) > 0 {
		v = slices.MinFunc(v.Causes, func(a, b *jsonschema.ValidationError) int {
			return cmp.Or(cmp.Compare(len(b.InstanceLocation), len(a.InstanceLocation)), slices.Compare(a.InstanceLocation, b.InstanceLocation))
		})
	}
	what := v.ErrorKind.LocalizedString(printer)
	if at := field(v.InstanceLocation); at != "" {
		return at + ": " + what
	}
	return what
}

// field writes the way to a value as people do: items[3].price.
func field(way []string) string {
	var b strings.Builder
	for _, w := range way {
		switch {
		case w != "" && strings.Trim(w, "0123456789") == "":
			b.WriteString("[" + w + "]")
		case b.Len() > 0:
			b.WriteString("." + w)
		default:
			b.WriteString(w)
		}
	}
	return b.String()
}

// CheckManifest compiles all schemas of a manifest.
func CheckManifest(m *grid.Manifest) error {
	p := &patterns{maxAll}
	for _, f := range m.Functions {
		for _, s := range [2]struct {
			what string
			data []byte
		}{{"input", f.Input}, {"output", f.Output}} {
			if len(s.data) == 0 {
				continue
			}
			if _, err := compile(s.data, p); err != nil {
				return grid.Errorf(grid.CodeOf(err), "the %s of %s.%s: %w", s.what, m.Name, f.Name, err)
			}
		}
	}
	return nil
}
