package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// misfit tells of data that are no value of a type, as encoding/json found: what was to be there, and what is. It
// completes a sentence that begins with what the data are.
func misfit(data []byte, t reflect.Type, err error) error {
	var syntax *json.SyntaxError
	var typed *json.UnmarshalTypeError
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return fmt.Errorf("is empty: it should be %s", takes(t))
	case errors.As(err, &syntax):
		return fmt.Errorf("is not JSON: %w%s; it should be %s", err, near(data, syntax.Offset), takes(t))
	case errors.As(err, &typed) && typed.Field == "":
		return fmt.Errorf("is %s%s: it should be %s", came(typed.Value), near(data, typed.Offset), takes(t))
	case errors.As(err, &typed):
		return fmt.Errorf("has %s for %.100q%s: it should be %s", came(typed.Value), typed.Field, near(data, typed.Offset), takes(typed.Type))
	}
	return fmt.Errorf("cannot be read: %w; it is %.100q", err, data)
}

// near quotes what is around an offset.
func near(data []byte, offset int64) string {
	at := min(max(int(offset), 0), len(data))
	return fmt.Sprintf(" at byte %d, after %q", at, data[max(at-40, 0):at])
}

func came(value string) string {
	switch kind, _, _ := strings.Cut(value, " "); kind {
	case "array", "object":
		return "an " + kind
	case "number":
		return "the " + strings.ToValidUTF8(value[:min(len(value), 60)], "")
	case "bool":
		return "true or false"
	default:
		return "a " + kind
	}
}

// takes says what JSON a type is made of.
func takes(t reflect.Type) string {
	if simple(t) != "" {
		return "a " + t.String()
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return "an integer (" + t.Kind().String() + ")"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Pointer:
		return takes(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "a string in base64"
		}
		return "an array"
	case reflect.Array:
		return "an array"
	case reflect.Struct:
		fields := fieldsOf(t)
		var names []string
		for i, f := range fields {
			if i == 12 {
				names = append(names, "…")
				break
			}
			names = append(names, fmt.Sprintf("%.60s", f.name))
		}
		if names == nil {
			return "an object"
		}
		return "an object with " + strings.Join(names, ", ")
	case reflect.Map:
		return "an object"
	}
	return "a " + t.Kind().String()
}
