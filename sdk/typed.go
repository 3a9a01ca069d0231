package sdk

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"reflect"
	"unsafe"
)

// Func makes a function that gets a value and gives one, such as a user calls, or another task with [Go]. The values
// travel as JSON: it reads its value from the task's input and prints what it gives. A []byte or string, as In or Out,
// stands for the bytes as they are. An In that is struct{} is for functions that take nothing.
func Func[In, Out any](name string, f func(ctx Context, in In) (Out, error)) Function {
	return typed(kindFunc, name, f)
}

// typed makes a function of one value, of any kind.
func typed[In, Out any](kind, name string, f func(ctx Context, in In) (Out, error)) Function {
	warm[In, Out]()
	return makeFunction(function{
		name: name, kind: kind, fn: reflect.ValueOf(f).Pointer(), in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](),
		run: func(ctx Context) error {
			data, err := ctx.all()
			if err != nil {
				return err
			}
			in, err := decode[In](data)
			if err != nil {
				return fmt.Errorf("the input %w", err)
			}
			out, err := f(ctx, in)
			if err != nil {
				return err
			}
			if data, err = encode(out); err != nil {
				return err
			}
			_, err = ctx.Stdout().Write(data)
			return err
		},
	})
}

// Stream makes a function that gets many values, one after the other, and gives any number of them: a JSON value a line,
// in and out. It is called once for each task, with the values of all its inputs; nothing of them is kept in memory. A
// line that is not an In comes as an error, after which the function may go on. A []byte or string, as In or Out, stands
// for a line as it is, without its newline; a []byte is good until the next one.
func Stream[In, Out any](name string, f func(ctx Context, in iter.Seq2[In, error], emit func(Out) error) error) Function {
	warm[In, Out]()
	return makeFunction(function{
		name: name, kind: kindStream, in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](),
		run: func(ctx Context) error {
			w := bufio.NewWriterSize(ctx.Stdout(), 32<<10)
			enc := newEncoder(w)
			emit := func(v Out) error {
				data, raw := bytesOf(&v)
				if !raw {
					return enc.Encode(v)
				}
				if bytes.IndexByte(data, '\n') >= 0 {
					return fmt.Errorf("emit %.100q: a line with a newline in it", data)
				}
				w.Write(data)
				return w.WriteByte('\n') // a Writer keeps its first error
			}
			if err := f(ctx, lines[In](ctx), emit); err != nil {
				w.Flush()
				return err
			}
			return w.Flush()
		},
	})
}

// lines decodes the lines of all inputs.
func lines[In any](ctx Context) iter.Seq2[In, error] {
	return func(yield func(In, error) bool) {
		var none In
		for in, err := range ctx.Inputs() {
			if err != nil {
				yield(none, err)
				return
			}
			s := bufio.NewScanner(in)
			s.Buffer(make([]byte, 32<<10), maxRecord)
			for n := 1; s.Scan(); n++ {
				v, err := decode[In](s.Bytes())
				if err != nil {
					err = fmt.Errorf("line %d %w", n, err)
				}
				if !yield(v, err) {
					return
				}
			}
			if err := s.Err(); err != nil {
				yield(none, err)
				return
			}
		}
	}
}

// warm has encoding/json learn of the types now, when a library starts, since it takes as long as a small task does. For
// that a function must be made then, as package variables are.
func warm[In, Out any]() {
	if !starting() {
		return
	}
	defer func() { recover() }() // of methods that a zero value is too little for
	var in In
	if data, err := encode(in); err == nil {
		decode[In](data)
		json.Unmarshal(data, &in)
	}
	var out Out
	encode(out)
}

// decode makes a value of the bytes that stand for it. Its errors go on from the words that say what the bytes are. Where
// there is nothing to say, nothing is taken for it.
func decode[T any](data []byte) (T, error) {
	t := reflect.TypeFor[T]()
	switch t {
	case bytesType:
		return *(*T)(unsafe.Pointer(&data)), nil // a T is a []byte
	case stringType:
		s := string(data)
		return *(*T)(unsafe.Pointer(&s)), nil
	}
	var v T
	if quick(data, &v) || len(data) == 0 && t.Size() == 0 {
		return v, nil
	}
	v = *new(T)
	if err := json.Unmarshal(data, &v); err != nil {
		return v, misfit(data, t, err)
	}
	return v, nil
}

var bytesType, stringType = reflect.TypeFor[[]byte](), reflect.TypeFor[string]()

// encode makes the bytes that stand for a value.
func encode[T any](v T) ([]byte, error) {
	if data, raw := bytesOf(&v); raw {
		return data, nil
	}
	var b bytes.Buffer
	if err := newEncoder(&b).Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes()[:b.Len()-1], nil // without the newline
}

// newEncoder is for JSON that browsers do not take for HTML.
func newEncoder(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

// bytesOf gives the bytes of what stands for bytes.
func bytesOf[T any](v *T) (data []byte, raw bool) {
	switch reflect.TypeFor[T]() {
	case bytesType:
		return *(*[]byte)(unsafe.Pointer(v)), true
	case stringType:
		return []byte(*(*string)(unsafe.Pointer(v))), true
	}
	return nil, false
}

// all reads all inputs, one after the other.
func (c Context) all() (all []byte, err error) {
	t := c.task()
	all = inputRoom()
	if t.host.stdin != nil {
		if all, err = readAll(t.host.stdin, all); err != nil || len(all) > 0 {
			return all, err
		}
	}
	for in, err := range c.Inputs() {
		if err != nil {
			return nil, err
		}
		if all, err = readAll(in, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}
