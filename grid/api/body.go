package api

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
)

// readBody reads the body of a request: one JSON document of at most limit bytes, which errors call what.
func readBody(w http.ResponseWriter, r *http.Request, what string, limit int64, out any) error {
	return readDocument(http.MaxBytesReader(w, r.Body, limit), what, out)
}

// readDocument reads one JSON document to its end. A field that nobody knows is an error: it may be meant to forbid something.
func readDocument(body io.Reader, what string, out any) error {
	dec := json.NewDecoder(body)
	dec.DisallowUnknownFields()
	err := dec.Decode(out)
	if err == nil {
		if _, err = dec.Token(); err == io.EOF {
			return nil
		} else if err == nil {
			err = errors.New("there is more behind it")
		}
	} else if err == io.EOF {
		err = errors.New("there is nothing; it is to be a JSON document")
	} else if err == io.ErrUnexpectedEOF {
		err = errors.New("it ends too early")
	}
	if big := (*http.MaxBytesError)(nil); errors.As(err, &big) {
		return grid.Errorf(grid.Limit, "%s has more than %d bytes", what, big.Limit)
	}
	if text, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		var field string
		if json.Unmarshal([]byte(text), &field) != nil {
			field = text
		}
		err := grid.Errorf(grid.Invalid, "%s has no field %.80q", what, field)
		fields := fieldsOf(reflect.TypeOf(out))
		if slices.Contains(fields, field) {
			return grid.Errorf(grid.Invalid, "%s has no field %q where it stands", what, field).Hint("it belongs elsewhere in the document: GET /v1/openapi.json tells where")
		}
		if near := grid.Nearest(field, fields); near != "" {
			return err.Hint("did you mean %q? GET /v1/openapi.json tells all fields", near)
		}
		return err.Hint("GET /v1/openapi.json tells all fields")
	}
	if bad := (*json.UnmarshalTypeError)(nil); errors.As(err, &bad) {
		return grid.Errorf(grid.Invalid, "%s cannot be read: %s is to be %s, not %s", what, fieldPath(bad.Field), inJSON(bad.Type), bad.Value).
			Hint("GET /v1/openapi.json tells all fields")
	}
	code := grid.CodeOf(err)
	if code == grid.Unknown {
		code = grid.Invalid
	}
	return grid.Errorf(code, "%s cannot be read: %w", what, err)
}

// fieldPath is where in a document a field is, without the names of the types that are embedded in others: those are no part of it.
func fieldPath(path string) string {
	parts := slices.DeleteFunc(strings.Split(path, "."), func(p string) bool { return p == "" || 'A' <= p[0] && p[0] <= 'Z' })
	if len(parts) == 0 {
		return "it"
	}
	return strconv.Quote(strings.Join(parts, "."))
}

// inJSON says in the words of JSON what goes into a type.
func inJSON(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		return fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-t.Bits()))
	}
	return "a whole number"
}

var fromJSON, fromText = reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()

// fieldsOf are the names of the fields of a type and of what it is made of.
func fieldsOf(t reflect.Type) (names []string) {
	seen := make(map[reflect.Type]bool)
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			walk(t.Elem())
		case reflect.Struct:
			if p := reflect.PointerTo(t); seen[t] || p.Implements(fromJSON) || p.Implements(fromText) {
				return
			}
			seen[t] = true
			for i := range t.NumField() {
				f := t.Field(i)
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				if !f.IsExported() || name == "-" {
					continue
				}
				if name != "" { // every field of the API that is no part of an embedded type has a tag
					names = append(names, name)
				}
				walk(f.Type)
			}
		}
	}
	walk(t)
	return names
}
