package sdk

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// schemaOf gives the JSON schema (draft 2020-12) of the values that encoding/json makes of a type; nil for a []byte or
// string, which stand for bytes that need not be JSON. Fields without omitempty are required, unless they are pointers.
// It is written by hand, so that programs without typed functions do not come with encoding/json.
func schemaOf(t reflect.Type) ([]byte, error) {
	if t == bytesType || t == stringType {
		return nil, nil
	}
	s := schemer{uses: map[reflect.Type]int{}, defs: map[reflect.Type]string{}}
	s.count(t)
	b, err := s.append(nil, t, t.String(), false)
	if err != nil {
		return nil, err
	}
	// Definitions may need others.
	for done := 0; done < len(s.order); done++ {
		d := s.order[done]
		if done == 0 {
			b = append(b[:len(b)-1], `,"$defs":{`...)
		} else {
			b = append(b, ',')
		}
		b = append(appendString(b, s.defs[d]), ':')
		if b, err = s.appendType(b, d, d.String(), false); err != nil {
			return nil, err
		}
	}
	if len(s.order) > 0 {
		b = append(b, "}}"...)
	}
	return b, nil
}

// schemer writes one schema. Types with a name that are used more than once, such as those that contain themselves, are
// defined once, and referred to.
type schemer struct {
	uses  map[reflect.Type]int
	defs  map[reflect.Type]string // names of definitions
	order []reflect.Type          // of definitions
}

// count counts the uses of types.
func (s *schemer) count(t reflect.Type) {
	parts := t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array || t.Kind() == reflect.Map
	if simple(t) != "" || !parts && t.Kind() != reflect.Struct {
		return
	}
	if t.Name() != "" {
		if s.uses[t]++; s.uses[t] > 1 {
			return
		}
	}
	if parts {
		s.count(t.Elem())
		return
	}
	for _, f := range fieldsOf(t) {
		s.count(f.typ)
	}
}

// append writes a type, or a reference to its definition. path leads there, for errors. What is absent when it is empty
// is never null.
func (s *schemer) append(b []byte, t reflect.Type, path string, omit bool) ([]byte, error) {
	if s.uses[t] < 2 {
		return s.appendType(b, t, path, omit)
	}
	name, ok := s.defs[t]
	if !ok {
		name = s.nameOf(t)
		s.defs[t] = name
		s.order = append(s.order, t)
	}
	return append(appendString(append(b, `{"$ref":`...), "#/$defs/"+name), '}'), nil
}

// nameOf picks the name of a definition.
func (s *schemer) nameOf(t reflect.Type) string {
	base := strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && validName("_"+string(r)) || r == '.' {
			return r
		}
		return '_'
	}, t.Name())
	name := base
	for n := 2; ; n++ {
		taken := false
		for _, d := range s.defs {
			taken = taken || d == name
		}
		if !taken {
			return name
		}
		name = base + strconv.Itoa(n)
	}
}

// simple gives the schemas of types that say themselves how they are encoded, "" for others.
func simple(t reflect.Type) string {
	type marshalsJSON interface{ MarshalJSON() ([]byte, error) }
	type readsJSON interface{ UnmarshalJSON([]byte) error }
	type marshalsText interface{ MarshalText() ([]byte, error) }
	type readsText interface{ UnmarshalText([]byte) error }
	is := func(iface reflect.Type) bool {
		return t.Implements(iface) || t.Kind() != reflect.Interface && t.Kind() != reflect.Pointer && reflect.PointerTo(t).Implements(iface)
	}
	switch {
	case t.PkgPath() == "time" && t.Name() == "Time":
		return `{"type":"string","format":"date-time"}`
	case t.PkgPath() == "encoding/json" && t.Name() == "Number":
		return `{"type":"number"}`
	case t.Kind() == reflect.Interface:
		return `{}`
	case t.Kind() == reflect.Pointer:
		return "" // what it points to says it
	case is(reflect.TypeFor[marshalsJSON]()), is(reflect.TypeFor[readsJSON]()):
		return `{}`
	case is(reflect.TypeFor[marshalsText]()), is(reflect.TypeFor[readsText]()):
		return `{"type":"string"}`
	}
	return ""
}

func (s *schemer) appendType(b []byte, t reflect.Type, path string, omit bool) ([]byte, error) {
	orNull := func(name string) string {
		if omit {
			return `{"type":"` + name + `"`
		}
		return `{"type":["` + name + `","null"]`
	}
	if text := simple(t); text != "" {
		return append(b, text...), nil
	}
	switch k := t.Kind(); k {
	case reflect.Bool:
		return append(b, `{"type":"boolean"}`...), nil
	case reflect.String:
		return append(b, `{"type":"string"}`...), nil
	case reflect.Float32, reflect.Float64:
		return append(b, `{"type":"number"}`...), nil
	case reflect.Int8, reflect.Int16, reflect.Int32:
		top := int64(1)<<(t.Bits()-1) - 1
		return fmt.Appendf(b, `{"type":"integer","minimum":%d,"maximum":%d}`, -top-1, top), nil
	case reflect.Int, reflect.Int64:
		return append(b, `{"type":"integer"}`...), nil
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return fmt.Appendf(b, `{"type":"integer","minimum":0,"maximum":%d}`, int64(1)<<t.Bits()-1), nil
	case reflect.Uint, reflect.Uint64, reflect.Uintptr:
		return append(b, `{"type":"integer","minimum":0}`...), nil
	case reflect.Pointer:
		if omit {
			return s.append(b, t.Elem(), path, true)
		}
		b, err := s.append(append(b, `{"anyOf":[`...), t.Elem(), path, true)
		return append(b, `,{"type":"null"}]}`...), err
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 && simple(t.Elem()) == "" {
			return append(append(b, orNull("string")...), `,"contentEncoding":"base64"}`...), nil
		}
		b, err := s.append(append(append(b, orNull("array")...), `,"items":`...), t.Elem(), path+"[]", false)
		return append(b, '}'), err
	case reflect.Array:
		b, err := s.append(append(b, `{"type":"array","items":`...), t.Elem(), path+"[]", false)
		return fmt.Appendf(b, `,"minItems":%d,"maxItems":%[1]d}`, t.Len()), err
	case reflect.Map:
		b = append(b, orNull("object")...)
		switch key := t.Key(); {
		case key.Kind() == reflect.String || simple(key) == `{"type":"string"}`:
		case key.Kind() >= reflect.Int && key.Kind() <= reflect.Uintptr:
			b = append(b, `,"propertyNames":{"pattern":"^-?[0-9]+$"}`...)
		default:
			return nil, fmt.Errorf("%s is a map with keys of the type %s, which JSON does not have: use strings or integers", path, key)
		}
		b, err := s.append(append(b, `,"additionalProperties":`...), t.Elem(), path+"{}", false)
		return append(b, '}'), err
	case reflect.Struct:
		return s.appendStruct(b, t, path)
	default:
		return nil, fmt.Errorf("%s is a %s, which JSON does not have: leave it out with the tag `json:\"-\"`", path, k)
	}
}

func (s *schemer) appendStruct(b []byte, t reflect.Type, path string) (_ []byte, err error) {
	b = append(b, `{"type":"object"`...)
	fields := fieldsOf(t)
	var required []byte
	for i, f := range fields {
		if i == 0 {
			b = append(b, `,"properties":{`...)
		} else {
			b = append(b, ',')
		}
		b = append(appendString(b, f.name), ':')
		if f.quoted {
			b = append(b, `{"type":"string"}`...)
		} else if b, err = s.append(b, f.typ, path+"."+f.name, f.omit); err != nil {
			return nil, err
		}
		if f.doc != "" {
			b = b[:len(b)-1]
			if b[len(b)-1] != '{' {
				b = append(b, ',')
			}
			b = append(appendString(append(b, `"description":`...), f.doc), '}')
		}
		if !f.omit && f.typ.Kind() != reflect.Pointer {
			if required = append(required, ','); len(required) == 1 {
				required = required[:0]
			}
			required = appendString(required, f.name)
		}
	}
	if len(fields) > 0 {
		b = append(b, '}')
	}
	if len(required) > 0 {
		b = append(append(append(b, `,"required":[`...), required...), ']')
	}
	return append(b, '}'), nil
}

// field is a field of a JSON object.
type field struct {
	name, doc    string
	typ          reflect.Type
	omit, quoted bool
	tagged       bool
	index        []int
}

// fieldsOf lists the fields that encoding/json has for a struct, in order: those of embedded structs among them; of
// several that have one name, the one that is embedded least deep, then one whose name is from a tag, or else none.
func fieldsOf(t reflect.Type) []field {
	type level struct {
		typ   reflect.Type
		index []int
		maybe bool // behind a pointer
	}
	var all []field
	seen := map[reflect.Type]bool{}
	for now := []level{{typ: t}}; len(now) > 0; {
		var next []level
		for _, l := range now {
			if seen[l.typ] {
				continue
			}
			for i := range l.typ.NumField() {
				sf := l.typ.Field(i)
				name, options, _ := strings.Cut(sf.Tag.Get("json"), ",")
				under, pointer := sf.Type, false
				if sf.Anonymous && under.Kind() == reflect.Pointer {
					under, pointer = under.Elem(), true
				}
				if !sf.IsExported() && !(sf.Anonymous && under.Kind() == reflect.Struct) || sf.Tag.Get("json") == "-" {
					continue
				}
				index := append(slices.Clone(l.index), i)
				if sf.Anonymous && name == "" && under.Kind() == reflect.Struct && simple(under) == "" {
					next = append(next, level{under, index, l.maybe || pointer})
					continue
				}
				f := field{name: name, doc: sf.Tag.Get("doc"), typ: sf.Type, tagged: name != "", index: index, omit: l.maybe}
				if name == "" {
					f.name = sf.Name
				}
				for o := range strings.SplitSeq(options, ",") {
					f.omit = f.omit || o == "omitempty" || o == "omitzero"
					f.quoted = f.quoted || o == "string" && quotable(sf.Type)
				}
				all = append(all, f)
			}
		}
		for _, l := range now {
			seen[l.typ] = true
		}
		now = next
	}
	var list []field
	for i, f := range all {
		wins := true
		for k, g := range all {
			if k == i || g.name != f.name {
				continue
			}
			deeper := len(g.index) > len(f.index)
			wins = wins && (deeper || len(g.index) == len(f.index) && f.tagged && !g.tagged)
		}
		if wins {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(a, b field) int { return slices.Compare(a.index, b.index) })
	return list
}

// quotable reports whether the option "string" of a tag means something for a type.
func quotable(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() >= reflect.Bool && t.Kind() <= reflect.Float64 || t.Kind() == reflect.String
}

// appendString writes a string as JSON has it.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s { // what is no UTF-8 becomes U+FFFD
		switch {
		case r == '"', r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < ' ':
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
