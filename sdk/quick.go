package sdk

import (
	"reflect"
	"strconv"
	"sync"
	"unicode/utf8"
	"unsafe"
)

// Reading JSON is most of what a small call costs in a guest, so the plainest of texts are read here, several times as
// fast: structs of numbers, booleans, strings, and slices, pointers and structs of such, by the exact names of their
// fields, without escapes and null. Whatever is not as plain as that is left to encoding/json, from its beginning, so
// that the outcome is always that of encoding/json.

// quick reads a value, and reports whether it could; if not, v may have been changed.
func quick[T any](data []byte, v *T) bool {
	p := planOf(reflect.TypeFor[T]())
	r := reader{data: data}
	if !p.plain || !p.read(&r, unsafe.Pointer(v)) {
		return false
	}
	r.space()
	return r.at == len(data)
}

// plan is how to read a type: read reads a value that comes next into memory of that type. A type that is not plain has
// parts that are always refused, so that trying is a waste.
type plan struct {
	plain bool
	read  func(r *reader, to unsafe.Pointer) bool
}

var plans = struct {
	sync.RWMutex
	of map[reflect.Type]*plan
}{of: map[reflect.Type]*plan{}}

func planOf(t reflect.Type) *plan {
	plans.RLock()
	p := plans.of[t]
	plans.RUnlock()
	if p == nil {
		plans.Lock()
		defer plans.Unlock()
		p = makePlan(t)
	}
	return p
}

// makePlan makes a plan, unless there is one. Types that contain themselves find the one that is being made.
func makePlan(t reflect.Type) *plan {
	p, ok := plans.of[t]
	if ok {
		return p
	}
	p = &plan{plain: true}
	plans.of[t] = p
	var read func(r *reader, to unsafe.Pointer) bool
	if simple(t) == "" {
		read = readerOf(t, p)
	}
	if read == nil {
		p.plain, read = false, func(*reader, unsafe.Pointer) bool { return false }
	}
	p.read = read
	return p
}

func readerOf(t reflect.Type, p *plan) func(r *reader, to unsafe.Pointer) bool {
	switch t.Kind() {
	case reflect.Bool:
		return func(r *reader, to unsafe.Pointer) bool {
			v := r.literal("true")
			*(*bool)(to) = v
			return v || r.literal("false")
		}
	case reflect.String:
		return func(r *reader, to unsafe.Pointer) bool {
			s, ok := r.text()
			*(*string)(to) = string(s)
			return ok
		}
	case reflect.Int:
		return func(r *reader, to unsafe.Pointer) bool {
			n, ok := r.integer()
			*(*int)(to) = int(n)
			return ok && int64(int(n)) == n
		}
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(r *reader, to unsafe.Pointer) bool {
			n, ok := r.integer()
			v := reflect.NewAt(t, to).Elem()
			v.SetInt(n)
			return ok && v.Int() == n
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return func(r *reader, to unsafe.Pointer) bool {
			minus := r.next() == '-'
			n, ok := r.integer()
			v := reflect.NewAt(t, to).Elem()
			v.SetUint(uint64(n))
			return ok && !minus && v.Uint() == uint64(n)
		}
	case reflect.Float32:
		return func(r *reader, to unsafe.Pointer) bool {
			n, err := strconv.ParseFloat(string(r.number()), 32)
			*(*float32)(to) = float32(n)
			return err == nil
		}
	case reflect.Float64:
		return func(r *reader, to unsafe.Pointer) bool {
			n, err := strconv.ParseFloat(string(r.number()), 64)
			*(*float64)(to) = n
			return err == nil
		}
	case reflect.Pointer:
		elem := makePlan(t.Elem())
		p.plain = elem.plain
		return func(r *reader, to unsafe.Pointer) bool {
			v := reflect.New(t.Elem()).UnsafePointer()
			*(*unsafe.Pointer)(to) = v
			return elem.read(r, v)
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return nil // base64
		}
		elem := makePlan(t.Elem())
		p.plain = elem.plain
		return func(r *reader, to unsafe.Pointer) bool {
			v := reflect.NewAt(t, to).Elem()
			v.Set(reflect.MakeSlice(t, 0, 0))
			return r.list('[', ']', func() bool {
				n := v.Len()
				v.Grow(1)
				v.SetLen(n + 1)
				return elem.read(r, v.Index(n).Addr().UnsafePointer())
			})
		}
	case reflect.Struct:
		return structReader(t, p)
	}
	return nil
}

func structReader(t reflect.Type, p *plan) func(r *reader, to unsafe.Pointer) bool {
	type member struct {
		name   string
		offset uintptr
		plan   *plan
	}
	var members []member
	for _, f := range fieldsOf(t) {
		if len(f.index) > 1 || f.quoted || len(members) == 64 {
			return nil
		}
		m := member{f.name, t.Field(f.index[0]).Offset, makePlan(f.typ)}
		p.plain = p.plain && m.plan.plain
		members = append(members, m)
	}
	return func(r *reader, to unsafe.Pointer) bool {
		var seen uint64
		at := 0 // fields mostly come in order
		return r.list('{', '}', func() bool {
			name, ok := r.text()
			r.space()
			if !ok || !r.literal(":") {
				return false
			}
			for range members {
				if at == len(members) {
					at = 0
				}
				i := at
				at++
				if m := &members[i]; m.name == string(name) {
					first := seen&(1<<i) == 0 // the second time encoding/json merges
					seen |= 1 << i
					return first && m.plan.read(r, unsafe.Add(to, m.offset))
				}
			}
			return false
		})
	}
}

// reader reads plain JSON.
type reader struct {
	data  []byte
	at    int
	depth int
}

func (r *reader) space() {
	for r.at < len(r.data) {
		switch r.data[r.at] {
		case ' ', '\t', '\r', '\n':
			r.at++
		default:
			return
		}
	}
}

// next is the first byte of what comes after space, 0 at the end.
func (r *reader) next() byte {
	r.space()
	if r.at == len(r.data) {
		return 0
	}
	return r.data[r.at]
}

func (r *reader) literal(s string) bool {
	r.space()
	if len(r.data)-r.at < len(s) || string(r.data[r.at:r.at+len(s)]) != s {
		return false
	}
	r.at += len(s)
	return true
}

// text reads a string without escapes.
func (r *reader) text() ([]byte, bool) {
	if r.next() != '"' {
		return nil, false
	}
	from, ascii := r.at+1, true
	for i := from; i < len(r.data); i++ {
		switch c := r.data[i]; {
		case c == '"':
			r.at = i + 1
			return r.data[from:i], ascii || utf8.Valid(r.data[from:i])
		case c == '\\' || c < ' ':
			return nil, false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, false
}

func (r *reader) digits() (n int) {
	for r.at < len(r.data) && r.data[r.at] >= '0' && r.data[r.at] <= '9' {
		r.at++
		n++
	}
	return n
}

// number reads a number, and gives nothing if there is none.
func (r *reader) number() []byte {
	if r.next() == '-' {
		r.at++
	}
	from := r.at
	if n := r.digits(); n == 0 || n > 1 && r.data[from] == '0' {
		return nil
	}
	if from > 0 && r.data[from-1] == '-' {
		from--
	}
	if r.at < len(r.data) && r.data[r.at] == '.' {
		if r.at++; r.digits() == 0 {
			return nil
		}
	}
	if r.at < len(r.data) && r.data[r.at]|0x20 == 'e' {
		if r.at++; r.at < len(r.data) && (r.data[r.at] == '+' || r.data[r.at] == '-') {
			r.at++
		}
		if r.digits() == 0 {
			return nil
		}
	}
	return r.data[from:r.at]
}

// integer reads a number of at most 18 digits.
func (r *reader) integer() (n int64, ok bool) {
	minus := r.next() == '-'
	if minus {
		r.at++
	}
	from := r.at
	for r.at < len(r.data) && r.data[r.at] >= '0' && r.data[r.at] <= '9' && r.at-from < 19 {
		n = 10*n + int64(r.data[r.at]-'0')
		r.at++
	}
	if minus {
		n = -n
	}
	size := r.at - from
	return n, size > 0 && size < 19 && (size == 1 || r.data[from] != '0')
}

// list reads what is between brackets, with commas; each reads one item.
func (r *reader) list(open, end byte, each func() bool) bool {
	if r.next() != open || r.depth == 100 {
		return false
	}
	r.at++
	r.depth++
	if r.next() == end {
		r.at++
		r.depth--
		return true
	}
	for each() {
		switch r.next() {
		case ',':
			r.at++
		case end:
			r.at++
			r.depth--
			return true
		default:
			return false
		}
	}
	return false
}
