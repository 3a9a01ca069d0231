package swarm

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Shrink looks for a smaller world that still fails: with less of everything, and with what is left nearer to
// zero. Fails plays a world and tells what is wrong with it; it is called at most tries times, and must give the same
// for equal worlds. Hooks are left alone. Shrink returns the smallest world that it found, and what is wrong with
// that one: nil if nothing was wrong to begin with.
//
// It is the delta debugging of A. Zeller and R. Hildebrandt, Simplifying and Isolating Failure-Inducing Input (2002),
// over the fields of the world.
func Shrink(cfg Config, fails func(Config) error, tries int) (Config, error) {
	s := shrinker{best: cfg.clone(), fails: fails, tries: tries}
	if !s.failing() {
		return s.best, nil
	}
	for before := -1; s.kept != before && s.tries > 0; {
		before = s.kept
		s.reduce(reflect.ValueOf(&s.best).Elem())
	}
	return s.best, s.why
}

type shrinker struct {
	best  Config // changed in place; steps that do no good are taken back
	fails func(Config) error
	why   error
	tries int
	kept  int // steps that were good
}

func (s *shrinker) failing() bool {
	if s.tries--; s.tries < 0 {
		return false
	}
	err := s.fails(s.best.clone())
	if err != nil {
		s.why = err
	}
	return err != nil
}

// reduce makes what is in v smaller.
func (s *shrinker) reduce(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if t := v.Type().Field(i); t.IsExported() && t.Tag.Get("shrink") != "no" {
				s.reduce(v.Field(i))
			}
		}
	case reflect.Slice:
		s.replace(v, fewer)
		for i := range v.Len() {
			s.reduce(v.Index(i))
		}
	case reflect.Func, reflect.Pointer, reflect.Interface: // hooks
	default:
		s.replace(v, nearer)
	}
}

// replace puts ever smaller values in the place of v, as long as the world fails. The n-th that next names is tried
// when those before it were of no use.
func (s *shrinker) replace(v reflect.Value, next func(v reflect.Value, n int) (reflect.Value, bool)) {
	for n := 0; s.tries > 0; {
		smaller, ok := next(v, n)
		if !ok {
			return
		}
		if v.Comparable() && v.Equal(smaller) {
			n++
			continue
		}
		old := reflect.New(v.Type()).Elem()
		old.Set(v)
		v.Set(smaller)
		if s.failing() {
			s.kept++
		} else {
			v.Set(old)
			n++
		}
	}
}

// fewer drops half of a list, then quarters, then single elements, each in turn.
func fewer(v reflect.Value, skip int) (reflect.Value, bool) {
	n := v.Len()
	for size := (n + 1) / 2; size > 0; size /= 2 {
		parts := (n + size - 1) / size
		if skip >= parts {
			skip -= parts
			continue
		}
		lo := skip * size
		hi := min(lo+size, n)
		s := reflect.MakeSlice(v.Type(), 0, n)
		s = reflect.AppendSlice(s, v.Slice(0, lo))
		return reflect.AppendSlice(s, v.Slice(hi, n)), true
	}
	return v, false
}

// nearer is a value between v and zero: zero itself, then half, then a rounder one, then one less.
func nearer(v reflect.Value, n int) (reflect.Value, bool) {
	z := reflect.New(v.Type()).Elem()
	if v.IsZero() || n == 0 {
		return z, !v.IsZero()
	}
	less := func(old int64) int64 {
		switch n {
		case 1:
			return old / 2
		case 2:
			return round(old)
		case 3:
			return old - old/max(old, -old, 1) // towards zero, from either side
		}
		return old
	}
	switch {
	case v.CanInt():
		z.SetInt(less(v.Int()))
	case v.CanUint():
		z.SetUint(uint64(less(int64(v.Uint()))))
	case v.CanFloat() && n == 1 && math.Abs(v.Float()) > 0.01:
		z.SetFloat(v.Float() / 2)
	default:
		return v, false
	}
	return z, n <= 3
}

// round is a number with its last digit that is not zero taken away: 1234 becomes 1230, that 1200.
func round(n int64) int64 {
	for unit := int64(10); unit < n; unit *= 10 {
		if n%unit != 0 {
			return n - n%unit
		}
	}
	return n
}

// clone is a copy that shares nothing but hooks.
func (cfg Config) clone() Config {
	v := reflect.New(reflect.TypeFor[Config]()).Elem()
	deepCopy(v, reflect.ValueOf(cfg))
	return v.Interface().(Config)
}

func deepCopy(to, from reflect.Value) {
	to.Set(from)
	switch from.Kind() {
	case reflect.Struct:
		for i := range from.NumField() {
			if from.Type().Field(i).IsExported() {
				deepCopy(to.Field(i), from.Field(i))
			}
		}
	case reflect.Slice:
		if from.IsNil() {
			return
		}
		to.Set(reflect.MakeSlice(from.Type(), from.Len(), from.Len()))
		for i := range from.Len() {
			deepCopy(to.Index(i), from.Index(i))
		}
	case reflect.Map:
		if from.IsNil() {
			return
		}
		to.Set(reflect.MakeMap(from.Type()))
		for _, k := range from.MapKeys() {
			to.SetMapIndex(k, from.MapIndex(k))
		}
	}
}

// GoString is cfg as a Go literal, without its hooks.
func (cfg Config) GoString() string {
	var b strings.Builder
	literal(&b, reflect.ValueOf(cfg))
	return b.String()
}

func literal(b *strings.Builder, v reflect.Value) {
	if d, ok := v.Interface().(time.Duration); ok {
		fmt.Fprintf(b, "%d", int64(d))
		if d != 0 {
			fmt.Fprintf(b, " /* %v */", d)
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		b.WriteString(v.Type().String() + "{")
		sep := ""
		for i := range v.NumField() {
			f, t := v.Field(i), v.Type().Field(i)
			if t.IsExported() && !f.IsZero() && isData(f) {
				b.WriteString(sep + t.Name + ": ")
				literal(b, f)
				sep = ", "
			}
		}
		b.WriteString("}")
	case reflect.Slice:
		b.WriteString(v.Type().String() + "{")
		for i := range v.Len() {
			if i > 0 {
				b.WriteString(", ")
			}
			literal(b, v.Index(i))
		}
		b.WriteString("}")
	case reflect.String:
		b.WriteString(strconv.Quote(v.String()))
	default:
		fmt.Fprintf(b, "%#v", v.Interface())
	}
}

func isData(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Func, reflect.Pointer, reflect.Interface:
		return false
	}
	return true
}

// MarshalJSON writes cfg without its hooks and without what is zero, as [json.Unmarshal] reads it. Times are in
// nanoseconds.
func (cfg Config) MarshalJSON() ([]byte, error) { return json.Marshal(plain(reflect.ValueOf(cfg))) }

func plain(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Struct:
		m := map[string]any{}
		for i := range v.NumField() {
			f, t := v.Field(i), v.Type().Field(i)
			if t.IsExported() && !f.IsZero() && isData(f) {
				m[t.Name] = plain(f)
			}
		}
		return m
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = plain(v.Index(i))
		}
		return list
	}
	return v.Interface()
}
