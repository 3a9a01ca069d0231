package sdk

import (
	"fmt"
	"strconv"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

// Bounds on what a program may say of itself.
const (
	maxFunctions = 256
	maxDoc       = 4 << 10  // bytes of a function's
	maxSchema    = 64 << 10 // and of each schema
)

// check refuses functions that nobody could call: without a proper name, or two of the same.
func check(funcs []Function) error {
	if len(funcs) == 0 {
		return fmt.Errorf("sdk: this program has no functions: give sdk.Main some")
	}
	if len(funcs) > maxFunctions {
		return fmt.Errorf("sdk: this program has %d functions, at most %d are allowed", len(funcs), maxFunctions)
	}
	for i, f := range funcs {
		switch {
		case f.function == nil:
			return fmt.Errorf("sdk: function %d of this program is an empty sdk.Function: make it with sdk.Func, sdk.Stream, sdk.Map, sdk.Reduce or sdk.Do", i+1)
		case !f.named:
			return fmt.Errorf("sdk: function %d of this program has the name %.80q: use letters, digits, '_' and '-', at most 64, a letter or '_' first", i+1, f.name)
		}
		for k := range i {
			if funcs[k].name == f.name {
				return fmt.Errorf("sdk: functions %d and %d of this program have the same name, %q: rename one of them", k+1, i+1, f.name)
			}
		}
	}
	return nil
}

func validName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || i > 0 && (c >= '0' && c <= '9' || c == '-')) {
			return false
		}
	}
	return name != "" && len(name) <= 64
}

// Describe tells of functions what the grid's tools want to know, as the JSON document that a program prints when it is
// run with the function grid.describe: names, kinds and docs, and JSON schemas of what typed functions take and give. It
// fails when the functions are not fit for [Main], or JSON cannot carry a value's type.
func Describe(funcs ...Function) ([]byte, error) {
	if err := check(funcs); err != nil {
		return nil, err
	}
	b := append([]byte(`{"abi":`), strconv.Itoa(abi.Version)...)
	b = append(b, `,"functions":[`...)
	for i, f := range funcs {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"name":`...), f.name)
		b = appendString(append(b, `,"kind":`...), f.kind)
		if len(f.doc) > maxDoc {
			return nil, fmt.Errorf("sdk: the doc of function %q has %d bytes, at most %d are allowed", f.name, len(f.doc), maxDoc)
		}
		if f.doc != "" {
			b = appendString(append(b, `,"doc":`...), f.doc)
		}
		if f.in != nil {
			in, err := schemaOf(f.in)
			if err != nil {
				return nil, fmt.Errorf("sdk: what function %q takes: %w", f.name, err)
			}
			out, err := schemaOf(f.out)
			if err != nil {
				return nil, fmt.Errorf("sdk: what function %q gives: %w", f.name, err)
			}
			if len(in) > maxSchema || len(out) > maxSchema {
				return nil, fmt.Errorf("sdk: the schemas of function %q have %d and %d bytes, at most %d are allowed: hide what is not needed behind json.RawMessage", f.name, len(in), len(out), maxSchema)
			}
			if in != nil {
				b = append(append(b, `,"input":`...), in...)
			}
			if out != nil {
				b = append(append(b, `,"output":`...), out...)
			}
		}
		b = append(b, '}')
	}
	return append(b, "]}\n"...), nil
}
