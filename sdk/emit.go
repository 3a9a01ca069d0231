package sdk

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
)

// Emitter collects values under keys. A key is any string.
type Emitter[V any] struct {
	combine func(a, b V) V
	table   table
	values  []V // of the table's keys
}

func newEmitter[V any](combine func(a, b V) V) *Emitter[V] {
	return &Emitter[V]{combine: combine, table: newTable()}
}

// Emit adds a value under a key.
func (e *Emitter[V]) Emit(key string, v V) {
	i, ok := find(&e.table, key)
	e.put(i, ok, v)
}

// EmitBytes is Emit for a key that is part of some buffer; it is copied only when it is new.
func (e *Emitter[V]) EmitBytes(key []byte, v V) {
	// A short key that is first in its place is found here, for a call would cost as much again. What
	// lies behind the key in its buffer is masked out.
	if n := len(key); n <= 8 && cap(key) >= 8 {
		head := binary.LittleEndian.Uint64(key[:8]) & (1<<(8*n) - 1)
		slots := e.table.slots
		s := &slots[place(head, n)&uint64(len(slots)-1)]
		if s.head == head && s.size == n {
			v0 := &e.values[s.key]
			*v0 = e.combine(*v0, v)
			return
		}
	}
	i, ok := find(&e.table, key)
	e.put(i, ok, v)
}

func (e *Emitter[V]) put(i int, ok bool, v V) {
	if ok {
		e.values[i] = e.combine(e.values[i], v)
	} else {
		e.values = append(e.values, v)
	}
}

// all gives every key once, in order.
func (e *Emitter[V]) all() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, k := range e.table.sorted() {
			if !yield(e.table.keys[k], e.values[k]) {
				return
			}
		}
	}
}

// Records travel between stages as lines: the key, a tab, and the value in JSON. In a key, backslash,
// tab, newline and carriage return are written \\, \t, \n and \r.

var escapeKey = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`)

// appendKey appends a key as it is written in a record.
func appendKey(line []byte, key string) []byte {
	for i := range len(key) {
		switch key[i] {
		case '\\', '\t', '\n', '\r':
			return append(line, escapeKey.Replace(key)...)
		}
	}
	return append(line, key...)
}

func (e *Emitter[V]) encode(w *bufio.Writer) error {
	var line []byte
	for k, v := range e.all() {
		line = append(appendKey(line[:0], k), '\t')
		switch v := any(v).(type) {
		case int:
			line = strconv.AppendInt(line, int64(v), 10)
		case int64:
			line = strconv.AppendInt(line, v, 10)
		default:
			text, err := json.Marshal(v)
			if err != nil {
				return fmt.Errorf("encode the value of key %q: %w", k, err)
			}
			line = append(line, text...)
		}
		line = append(line, '\n')
		if _, err := w.Write(line); err != nil { // a Writer keeps its first error
			return err
		}
	}
	return nil
}

// maxRecord bounds one line of records, in bytes.
const maxRecord = 64 << 20

func (e *Emitter[V]) decode(r io.Reader) error {
	buf := make([]byte, 64<<10)
	v, none := new(V), *new(V) // one for all: a new one for each line would cost more than the rest
	kept := 0                  // bytes at the beginning, of a line that has not ended
	for n, end := 1, false; !end; {
		more, err := io.ReadFull(r, buf[kept:])
		if end = err == io.EOF || err == io.ErrUnexpectedEOF; err != nil && !end {
			return err
		}
		data := buf[:kept+more]
		if end && len(data) > 0 && data[len(data)-1] != '\n' {
			data = append(data, '\n')
		}
		for {
			tab, escaped := 0, false
			for ; tab < len(data) && data[tab] != '\t' && data[tab] != '\n'; tab++ {
				escaped = escaped || data[tab] == '\\'
			}
			stop := tab
			for stop < len(data) && data[stop] != '\n' {
				stop++
			}
			if stop == len(data) {
				break
			}
			if stop == tab {
				return fmt.Errorf("line %d is no record of a map function: it has no tab", n)
			}
			*v = none
			if err := decodeValue(data[tab+1:stop], v); err != nil {
				return fmt.Errorf("line %d: value: %w", n, err)
			}
			key := data[:tab]
			if escaped {
				if key, err = unescapeKey(key); err != nil {
					return fmt.Errorf("line %d: %w", n, err)
				}
			}
			e.EmitBytes(key, *v)
			data = data[stop+1:]
			n++
		}
		if len(data) == len(buf) {
			if len(buf) >= maxRecord {
				return fmt.Errorf("line %d has more than %d bytes", n, maxRecord)
			}
			buf = make([]byte, 2*len(buf))
		}
		kept = copy(buf, data)
	}
	return nil
}

func decodeValue(text []byte, v any) (err error) {
	switch v := v.(type) {
	case *int:
		*v, err = strconv.Atoi(string(text))
	case *int64:
		*v, err = strconv.ParseInt(string(text), 10, 64)
	default:
		err = json.Unmarshal(text, v)
	}
	return err
}

func unescapeKey(key []byte) ([]byte, error) {
	out := make([]byte, 0, len(key))
	for i := 0; i < len(key); i++ {
		if key[i] != '\\' {
			out = append(out, key[i])
			continue
		}
		i++
		at := -1
		if i < len(key) {
			at = strings.IndexByte(`\tnr`, key[i])
		}
		if at < 0 {
			return nil, fmt.Errorf("key %q: a backslash that stands for nothing", key)
		}
		out = append(out, "\\\t\n\r"[at])
	}
	return out, nil
}
