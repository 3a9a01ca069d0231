package sdk

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
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
	return Function{
		name: name, kind: kind, fn: reflect.ValueOf(f).Pointer(), in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](),
		run: func(ctx Context) error {
			data, err := ctx.all()
			if err != nil {
				return err
			}
			in, err := decode[In](data)
			if err != nil {
				return err
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
	}
}

// Stream makes a function that gets many values, one after the other, and gives any number of them: a JSON value a line,
// in and out. It is called once for each task, with the values of all its inputs; nothing of them is kept in memory. A
// line that is not an In comes as an error, after which the function may go on. A []byte or string, as In or Out, stands
// for a line as it is, without its newline; a []byte is good until the next one.
func Stream[In, Out any](name string, f func(ctx Context, in iter.Seq2[In, error], emit func(Out) error) error) Function {
	warm[In, Out]()
	return Function{
		name: name, kind: kindStream, in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](),
		run: func(ctx Context) error {
			w := bufio.NewWriterSize(ctx.Stdout(), 64<<10)
			emit := func(v Out) error {
				data, err := encode(v)
				if err != nil {
					return err
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
	}
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
			s.Buffer(make([]byte, 64<<10), maxRecord)
			for n := 1; s.Scan(); n++ {
				v, err := decode[In](s.Bytes())
				if err != nil {
					err = fmt.Errorf("line %d: %w", n, err)
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

// decode makes a value of the bytes that stand for it.
func decode[T any](data []byte) (v T, err error) {
	switch p := any(&v).(type) {
	case *[]byte:
		*p = data
	case *string:
		*p = string(data)
	default:
		if quick(data, &v) {
			return v, nil
		}
		v = *new(T)
		if err = json.Unmarshal(data, &v); err != nil {
			err = fmt.Errorf("the input %.100q is not what it takes: %w", data, err)
		}
	}
	return v, err
}

// encode makes the bytes that stand for a value.
func encode[T any](v T) ([]byte, error) {
	switch v := any(v).(type) {
	case []byte:
		return v, nil
	case string:
		return []byte(v), nil
	}
	return json.Marshal(v)
}

// all reads all inputs, one after the other.
func (c Context) all() (all []byte, err error) {
	t := c.task()
	all = make([]byte, 0, 512)
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
