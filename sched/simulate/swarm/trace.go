package swarm

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// trace writes an event and its effects, a line each.
func (w *world) trace(n *node, ev grid.Event, effects []grid.Effect) {
	fmt.Fprintf(w.cfg.Trace, "%12s %-5s %s\n", fmt.Sprintf("%.3fms", float64(w.now)/1e6), n.name(), describe(ev))
	for _, e := range effects {
		fmt.Fprintf(w.cfg.Trace, "%18s   -> %s\n", "", describe(e))
	}
}

// describe is an event or an effect in words: its name, and its fields that are not zero.
func describe(v any) string {
	r := reflect.ValueOf(v)
	var b strings.Builder
	b.WriteString(r.Type().Name())
	fields(&b, r)
	return b.String()
}

// most is how many elements of a list are written out.
const most = 6

func fields(b *strings.Builder, r reflect.Value) {
	for i := range r.NumField() {
		f, t := r.Field(i), r.Type().Field(i)
		if !t.IsExported() || f.IsZero() {
			continue
		}
		switch {
		case t.Anonymous && f.Kind() == reflect.Struct && f.Type() != reflect.TypeFor[grid.Span]():
			if work, ok := f.Interface().(grid.Work); ok {
				fmt.Fprintf(b, " %s/%d", work.Job, work.Stage)
			} else {
				fields(b, f)
			}
		case f.Kind() == reflect.Bool:
			fmt.Fprintf(b, " %s", strings.ToLower(t.Name))
		default:
			fmt.Fprintf(b, " %s=%s", strings.ToLower(t.Name), word(f))
		}
	}
}

// word is one value.
func word(f reflect.Value) string {
	switch v := f.Interface().(type) {
	case peer.ID:
		return string(v)
	case time.Duration:
		return v.String()
	case grid.Summary:
		return fmt.Sprintf("%dB", len(v))
	case grid.TaskResult:
		return fmt.Sprintf("%d%s", v.Index, [...]string{"", "!guest", "!host", "?", "!held"}[v.Outcome])
	case grid.Hint:
		return fmt.Sprintf("%04x:%d", v.Root&0xffff, v.Size)
	case grid.StagePlan:
		return fmt.Sprintf("{%d tasks, needs %v}", v.Tasks, v.Needs)
	case fmt.Stringer:
		return v.String()
	case error:
		return fmt.Sprintf("%q", v.Error())
	}
	switch f.Kind() {
	case reflect.Slice:
		var list []string
		for i := range min(f.Len(), most) {
			list = append(list, word(f.Index(i)))
		}
		if f.Len() > most {
			list = append(list, fmt.Sprintf("... %d in all", f.Len()))
		}
		return "[" + strings.Join(list, " ") + "]"
	case reflect.Struct:
		var b strings.Builder
		fields(&b, f)
		return "{" + strings.TrimSpace(b.String()) + "}"
	case reflect.String:
		return fmt.Sprintf("%q", f.String())
	}
	return fmt.Sprint(f.Interface())
}
