package api

import (
	"encoding"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
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
		if near := grid.Nearest(field, fieldsOf(reflect.TypeOf(out))); near != "" {
			return err.Hint("did you mean %q? GET /v1/openapi.json tells all fields", near)
		}
		return err.Hint("GET /v1/openapi.json tells all fields")
	}
	code := grid.CodeOf(err)
	if code == grid.Unknown {
		code = grid.Invalid
	}
	return grid.Errorf(code, "%s cannot be read: %w", what, err)
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
