package schema

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Bounds on what Text tells.
const (
	maxText   = 400 // bytes
	textDepth = 6
)

// Text writes a schema as people read types: {name: string, age?: integer}, [number], "a" | "b". What it has no words for
// it leaves out; it is no schema any more.
func Text(data []byte) string {
	var root any
	if err := json.Unmarshal(data, &root); err != nil {
		return "anything"
	}
	t := text{root: root}
	s := t.of(root, textDepth)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

type text struct {
	root any
	size int // of what was written, to end schemas that refer to themselves many times
}

func (t *text) of(s any, depth int) string {
	out := t.write(s, depth)
	t.size += len(out)
	return out
}

func (t *text) write(s any, depth int) string {
	m, ok := s.(map[string]any)
	if s == false {
		return "nothing"
	}
	if !ok || len(m) == 0 {
		return "anything"
	}
	if depth == 0 || t.size > 4*maxText {
		return "…"
	}
	if ref, ok := m["$ref"].(string); ok {
		return t.of(t.find(ref), depth-1)
	}
	if c, ok := m["const"]; ok {
		return value(c)
	}
	if list, ok := m["enum"].([]any); ok {
		var out []string
		for _, v := range list {
			out = append(out, value(v))
		}
		return strings.Join(out, " | ")
	}
	for _, key := range [...]string{"anyOf", "oneOf"} {
		if list, ok := m[key].([]any); ok {
			return t.either(list, depth)
		}
	}
	switch kind := m["type"].(type) {
	case []any:
		var list []any
		for _, k := range kind {
			one := maps.Clone(m)
			one["type"] = k
			list = append(list, one)
		}
		return t.either(list, depth)
	case string:
		return t.typed(kind, m, depth)
	}
	if m["properties"] != nil {
		return t.typed("object", m, depth)
	}
	return "anything"
}

func (t *text) either(list []any, depth int) string {
	var out []string
	for _, s := range list {
		if one := t.of(s, depth-1); !slices.Contains(out, one) {
			out = append(out, one)
		}
	}
	return strings.Join(out, " | ")
}

func (t *text) typed(kind string, m map[string]any, depth int) string {
	switch kind {
	case "array":
		if m["items"] == nil {
			return "[anything]"
		}
		return "[" + t.of(m["items"], depth-1) + "]"
	case "object":
		props, _ := m["properties"].(map[string]any)
		required, _ := m["required"].([]any)
		var fields []string
		for _, name := range slices.Sorted(maps.Keys(props)) {
			mark := "?"
			if slices.Contains(required, any(name)) {
				mark = ""
			}
			fields = append(fields, name+mark+": "+t.of(props[name], depth-1))
		}
		if rest, ok := m["additionalProperties"].(map[string]any); ok {
			fields = append(fields, "…: "+t.of(rest, depth-1))
		}
		return "{" + strings.Join(fields, ", ") + "}"
	case "string":
		if m["contentEncoding"] == "base64" {
			return "base64"
		}
		if f, ok := m["format"].(string); ok {
			return "string (" + f + ")"
		}
	}
	return kind
}

// find follows a reference within the schema, by JSON Pointer (RFC 6901); nil: it leads elsewhere.
func (t *text) find(ref string) any {
	way, ok := strings.CutPrefix(ref, "#")
	if !ok {
		return nil
	}
	at := t.root
	for _, word := range strings.Split(strings.TrimPrefix(way, "/"), "/") {
		if way == "" {
			break
		}
		m, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(word)]
	}
	return at
}

func value(v any) string {
	data, _ := json.Marshal(v)
	return string(data)
}
