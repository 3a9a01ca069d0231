package api

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// object is a JSON object.
type object = map[string]any

// shapes makes JSON schemas of Go types, as encoding/json writes them. Structs that have a name are made once.
// Those of requests have names of their own, and no fields that are required: what is left out is zero.
type shapes struct {
	made  object                  // by name
	types map[string]reflect.Type // of these names
	says  func(of string) string  // the comment on a type or a field
	asked bool                    // it is for a request
}

func newShapes(says func(of string) string) *shapes {
	return &shapes{made: make(object), types: make(map[string]reflect.Type), says: says}
}

// known are types that write themselves, or that are texts of which there are few.
var known = map[reflect.Type]object{
	reflect.TypeFor[time.Time]():       {"type": "string", "format": "date-time"},
	reflect.TypeFor[time.Duration]():   {"type": "integer", "description": "nanoseconds"},
	reflect.TypeFor[json.RawMessage](): {},
	reflect.TypeFor[grid.Link]():       {"type": "string", "description": `a CID; "" for none`},
	reflect.TypeFor[peer.ID]():         {"type": "string", "description": "the ID of a node"},
	reflect.TypeFor[grid.Code]():       {"type": "integer", "minimum": 0, "description": "an error's code, by its number"},
	reflect.TypeFor[grid.JobID]():      {"type": "string", "description": "the ID of a job; its first letters will do in a request"},
	reflect.TypeFor[grid.State]():      oneOf(grid.Running, grid.Waiting, grid.Done, grid.Failed, grid.Cancelled),
	reflect.TypeFor[grid.FileKind]():   oneOf(grid.KindFile, grid.KindDir, grid.KindSymlink),
	reflect.TypeFor[grid.TokenRole]():  oneOf(grid.TokenViewer, grid.TokenSubmitter, grid.TokenAdmin),
	reflect.TypeFor[grid.Per]():        oneOf(grid.PerDay, grid.PerMonth, grid.PerTotal),
}

func oneOf[T ~string](values ...T) object { return object{"type": "string", "enum": values} }

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// of is the schema of a type. It panics at one that JSON cannot have, or that writes itself and is not known.
func (s *shapes) of(t reflect.Type) object {
	if k, ok := known[t]; ok {
		return k
	}
	switch {
	case t.Kind() == reflect.Pointer:
		return s.of(t.Elem())
	case t.Implements(marshaler):
		panic(fmt.Sprintf("api: the schema of %v, which writes itself, is not known", t))
	case t.Implements(textMarshaler):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		if t.PkgPath() == "" {
			return object{"type": "string"}
		}
		return s.component(t, t.Name(), func() object { return object{"type": "string"} })
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Interface:
		return object{}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Array:
		return object{"type": "array", "items": s.of(t.Elem()), "minItems": t.Len(), "maxItems": t.Len()}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		return s.named(t)
	}
	panic(fmt.Sprintf("api: JSON has no %v", t))
}

// named is a reference to a struct's schema.
func (s *shapes) named(t reflect.Type) object {
	switch {
	case t.Name() == "":
		return s.fields(t)
	case s.asked:
		return s.component(t, t.Name()+"Input", func() object { return s.fields(t) })
	}
	return s.component(t, t.Name(), func() object { return s.fields(t) })
}

// component is a reference to the schema of a type, which is made if it is not there yet.
func (s *shapes) component(t reflect.Type, name string, of func() object) object {
	r := []rune(name)
	r[0] = unicode.ToUpper(r[0])
	name = string(r)
	if was, ok := s.types[name]; ok && was != t {
		panic(fmt.Sprintf("api: %v and %v have one name", t, was))
	} else if !ok {
		s.types[name] = t // before its fields, which may hold it again
		s.made[name] = told(of(), s.says(t.String()))
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// told is a schema with what is said of it, before what its type says.
func told(shape object, text string) object {
	if text == "" {
		return shape
	}
	shape = maps.Clone(shape)
	if more, ok := shape["description"].(string); ok {
		text += "; " + more
	}
	shape["description"] = text
	return shape
}

// fields is the schema of a struct.
func (s *shapes) fields(t reflect.Type) object {
	properties, required := object{}, []string{}
	s.gather(t, properties, &required)
	out := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

// gather adds the fields of a struct, and those of structs that it embeds.
func (s *shapes) gather(t reflect.Type, properties object, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case tag == "-" || !f.IsExported() && !f.Anonymous:
			continue
		case f.Anonymous && tag == "" && f.Type.Kind() == reflect.Struct:
			s.gather(f.Type, properties, required)
			continue
		case tag == "":
			tag = f.Name
		}
		shape := s.of(f.Type)
		if empty := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero"); !empty && !s.asked {
			*required = append(*required, tag)
			shape = orNull(f.Type, shape)
		}
		properties[tag] = told(shape, s.says(t.String()+"."+f.Name))
	}
}

// orNull is the schema of a field that is written also when it is nil.
func orNull(t reflect.Type, shape object) object {
	switch t.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice:
		if len(shape) > 0 {
			return object{"anyOf": []object{shape, {"type": "null"}}}
		}
	}
	return shape
}
