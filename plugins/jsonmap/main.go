// Jsonmap transforms JSON objects, one a line: it filters them by their fields, and selects, renames and drops fields.
//
// It is the lesson on streams: a function that takes any number of typed values and gives any number of them, and holds one
// at a time.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"iter"
	"regexp"
	"strconv"
	"strings"

	"github.com/wasmgrid/wasmgrid/sdk"
)

var (
	skip = flag.Bool("skip", false, "pass over lines that are no JSON objects, and count them as skipped, in place of failing")
	keep []field     // nil: all fields
	drop []string    // names
	move []field     // renamed
	all  []condition // must hold
)

// Flags may do more than set a variable: flag.Func is called for each use of one, here to understand what it says.
func init() {
	list := func(to *[]field) func(string) error {
		return func(text string) error { return parseFields(text, to) }
	}
	flag.Func("select", "keep only these fields: `NAME or NAME=PATH`, with commas; a.b is field b of what field a has", list(&keep))
	flag.Func("rename", "rename fields: `NEW=OLD`, with commas", list(&move))
	flag.Func("drop", "leave out fields: `NAMES`, with commas", func(text string) error {
		drop = append(drop, strings.Split(text, ",")...)
		return nil
	})
	flag.Func("where", "pass on only objects of which `PATH OP VALUE` holds; OP is = != < <= > >= or ~, for a regular expression; may be repeated", func(text string) error {
		c, err := parseCondition(text)
		all = append(all, c)
		return err
	})
}

func main() {
	sdk.Main(sdk.Stream("map", transform).Doc("Filters JSON objects, one a line, and selects, renames and drops their fields."))
}

// object is one line. Its values stay the text that they are, so that numbers keep all their digits.
type object map[string]json.RawMessage

func transform(ctx sdk.Context, in iter.Seq2[object, error], emit func(object) error) error {
	// Counting asks the host each time. What is counted once for each of millions of lines had better be added up here.
	var seen, passed, skipped uint64
	defer func() {
		ctx.Count("objects", seen)
		ctx.Count("passed", passed)
		ctx.Count("skipped", skipped)
	}()
	for o, err := range in {
		switch {
		case err != nil && *skip:
			skipped++
			ctx.Log().Warn("passed over", "why", err)
			continue
		case err != nil:
			return err
		}
		if seen++; !holds(o) {
			continue
		}
		passed++
		if err := emit(o.shape()); err != nil {
			return err
		}
	}
	return nil
}

// shape is the object with the fields that are asked for.
func (o object) shape() object {
	if keep != nil {
		kept := object{}
		for _, f := range keep {
			if v, ok := o.at(f.path); ok {
				kept[f.name] = v
			}
		}
		o = kept
	}
	for _, f := range move {
		if v, ok := o[f.path]; ok {
			delete(o, f.path)
			o[f.name] = v
		}
	}
	for _, name := range drop {
		delete(o, name)
	}
	return o
}

// at is the value at a path.
func (o object) at(path string) (json.RawMessage, bool) {
	if v, ok := o[path]; ok { // also of names with dots in them
		return v, true
	}
	name, rest, more := strings.Cut(path, ".")
	if !more {
		return nil, false
	}
	var inner object
	if json.Unmarshal(o[name], &inner) != nil {
		return nil, false
	}
	return inner.at(rest)
}

// field is a name for what is at a path.
type field struct{ name, path string }

func parseFields(text string, to *[]field) error {
	for part := range strings.SplitSeq(text, ",") {
		name, path, ok := strings.Cut(part, "=")
		if !ok {
			path = name
		}
		if name == "" || path == "" {
			return fmt.Errorf("%q: a name is missing", part)
		}
		*to = append(*to, field{name, path})
	}
	return nil
}

// condition is one of -where.
type condition struct {
	path, op, value string
	number          float64
	numeric         bool // value is a number
	re              *regexp.Regexp
}

var conditionForm = regexp.MustCompile(`^\s*([^=!<>~]+?)\s*(!=|<=|>=|=|<|>|~)\s*(.*?)\s*$`)

func parseCondition(text string) (c condition, err error) {
	m := conditionForm.FindStringSubmatch(text)
	if m == nil {
		return c, fmt.Errorf("want PATH OP VALUE, such as status>=400")
	}
	c = condition{path: m[1], op: m[2], value: m[3]}
	if c.op == "~" {
		c.re, err = regexp.Compile(c.value)
		return c, err
	}
	c.number, err = strconv.ParseFloat(c.value, 64)
	c.numeric = err == nil
	return c, nil
}

// holds says whether all conditions do.
func holds(o object) bool {
	for _, c := range all {
		v, ok := o.at(c.path)
		if !ok || !c.holds(v) {
			return false
		}
	}
	return true
}

// holds compares with a number only what is one, and all else as text.
func (c *condition) holds(v json.RawMessage) bool {
	text := string(v)
	if strings.HasPrefix(text, `"`) {
		json.Unmarshal(v, &text) // it is JSON: an object of it was read
	}
	switch n, err := strconv.ParseFloat(text, 64); {
	case c.re != nil:
		return c.re.MatchString(text)
	case !c.numeric:
		return c.ordered(strings.Compare(text, c.value))
	case err != nil:
		return c.op == "!="
	default:
		return c.ordered(cmp.Compare(n, c.number))
	}
}

func (c *condition) ordered(sign int) bool {
	switch c.op {
	case "=":
		return sign == 0
	case "!=":
		return sign != 0
	case "<":
		return sign < 0
	case "<=":
		return sign <= 0
	case ">":
		return sign > 0
	}
	return sign >= 0
}
