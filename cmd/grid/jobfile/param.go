package jobfile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Param is a parameter of a job file: ${NAME} in any text stands for its value.
type Param struct {
	Name        string `json:"name"`
	Type        string `json:"type,omitempty"` // string, int, number, bool, size or duration
	Description string `json:"description,omitempty"`
	Default     string `json:"default,omitempty"`
	Optional    bool   `json:"optional,omitempty"` // it has a default, be it the empty text

	value string
	has   bool // a value
	used  bool
	at    *yaml.Node
}

var paramTypes = []string{"string", "int", "number", "bool", "size", "duration"}

// readParams reads the section params, and puts in the values that were set.
func (r *reader) readParams(n *yaml.Node, set map[string]string) []Param {
	r.params, r.opaque = map[string]*Param{}, true // a default names no other parameter
	defer func() { r.opaque = false }()
	if n != nil {
		r.pairs(n, "params", func(key, value *yaml.Node) {
			p := &Param{Name: key.Value, at: key}
			if err := grid.CheckParameter(p.Name); err != nil {
				r.problem(key, "%v", err)
			}
			r.params[p.Name] = p
			body, ok := r.enter(value)
			r.leave()
			switch {
			case !ok:
			case isNull(body):
			case body.Kind == yaml.ScalarNode: // NAME: DEFAULT
				p.Default, p.Optional = r.text(value), true
			default:
				got := r.object(value, "a param", map[string]field{
					"default":     r.toText(&p.Default),
					"description": r.toText(&p.Description),
					"type":        r.toWord(&p.Type, paramTypes...),
				})
				p.Optional = got["default"] != nil
				if err := p.check(p.Default); p.Optional && err != "" {
					r.problem(got["default"], "the default of %s: %s", p.Name, err)
				}
			}
		})
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		p := r.params[name]
		if p == nil {
			pr := r.problem(nil, "there is no param %q to set", clip(name))
			switch near := grid.Nearest(name, slices.Collect(maps.Keys(r.params))); {
			case near != "":
				pr.hint("did you mean --set %s=...?", near)
			case len(r.params) == 0:
				pr.hint("the file has no params")
			default:
				pr.hint("its params: %s", strings.Join(slices.Sorted(maps.Keys(r.params)), ", "))
			}
			continue
		}
		if p.value, p.has = set[name], true; p.check(p.value) != "" {
			r.problem(p.at, "--set %s: %s", name, p.check(p.value))
		}
	}
	var list []Param
	for _, name := range slices.Sorted(maps.Keys(r.params)) {
		p := r.params[name]
		switch {
		case p.has:
		case p.Optional:
			p.value, p.has = p.Default, true
		default:
			r.problem(p.at, "the param %s has no value", name).hint("give it one, --set %s=VALUE, or a default", name)
		}
		list = append(list, *p)
	}
	return list
}

// check says what is wrong with a value, or "".
func (p *Param) check(v string) string {
	var err error
	switch p.Type {
	case "int":
		_, err = strconv.ParseInt(strings.ReplaceAll(v, "_", ""), 10, 64)
	case "number":
		_, err = strconv.ParseFloat(v, 64)
	case "bool":
		if v != "true" && v != "false" {
			return fmt.Sprintf("want true or false, got %q", clip(v))
		}
	case "size":
		_, err = ParseSize(v)
	case "duration":
		_, err = time.ParseDuration(v)
	}
	if err != nil {
		return fmt.Sprintf("want a value of type %s, got %q", p.Type, clip(v))
	}
	return ""
}

// expand puts parameters into a text: ${NAME}; $${ stands for ${ itself. put tells that there were any.
func (r *reader) expand(n *yaml.Node) (text string, put, ok bool) {
	if r.opaque || !strings.Contains(n.Value, "${") {
		return n.Value, false, true
	}
	var b strings.Builder
	rest := n.Value
	for {
		i := strings.Index(rest, "${")
		if i < 0 {
			break
		}
		if i > 0 && rest[i-1] == '$' {
			b.WriteString(rest[:i-1] + "${")
			rest = rest[i+2:]
			continue
		}
		b.WriteString(rest[:i])
		name, after, closed := strings.Cut(rest[i+2:], "}")
		if !closed {
			r.problem(n, "${ has no }").hint("write $${ for ${ itself")
			return "", false, false
		}
		p := r.params[name]
		if p == nil {
			pr := r.problem(n, "there is no param %q", clip(name))
			if near := grid.Nearest(name, slices.Collect(maps.Keys(r.params))); near != "" {
				pr.hint("did you mean ${%s}?", near)
			} else {
				pr.hint("declare it below params, or write $${ for ${ itself")
			}
			return "", false, false
		}
		p.used = true
		if !p.has {
			return "", false, false // which was told
		}
		b.WriteString(p.value)
		if rest = after; b.Len() > MaxBytes {
			r.problem(n, "with its params, the text has more than %d KiB", MaxBytes>>10)
			return "", false, false
		}
	}
	return b.String() + rest, true, true
}

// unused warns of parameters that nothing names.
func (r *reader) unused() {
	for _, name := range slices.Sorted(maps.Keys(r.params)) {
		if p := r.params[name]; !p.used {
			r.warn(p.at, "the param %s is not used", name)
		}
	}
}
