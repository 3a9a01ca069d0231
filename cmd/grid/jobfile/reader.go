package jobfile

import (
	"math"
	"time"

	"go.yaml.in/yaml/v3"
)

// Reader reads other YAML files, such as plugin.yaml, as strictly as job files are read: keys that are not known, and
// values that do not fit, are problems with a line and, where one can be guessed, what was meant.
type Reader struct{ r reader }

// Node is a value in a file.
type Node = yaml.Node

// Field reads the value of one key.
type Field = func(*Node)

// Read reads a file that is one mapping. kind names it in messages, as in "plugin.yaml"; fields are its keys.
func Read(text []byte, kind string, fields func(r *Reader) map[string]Field) []Problem {
	r := &Reader{reader{opaque: true}}
	if doc := r.r.document(text); doc != nil {
		r.Object(kind, fields(r))(doc)
	}
	return inOrder(r.r.problems)
}

// Problem tells of something wrong with a value; the hint may be "".
func (r *Reader) Problem(n *Node, err error, hint string) {
	r.r.problem(n, "%v", err).Hint = hint
}

// Object reads a mapping with known keys.
func (r *Reader) Object(kind string, fields map[string]Field) Field {
	own := make(map[string]field, len(fields))
	for key, f := range fields {
		own[key] = f
	}
	return func(n *Node) { r.r.object(n, kind, own) }
}

// Pairs goes through a mapping with any keys.
func (r *Reader) Pairs(kind string, each func(key, value *Node)) Field {
	return func(n *Node) { r.r.pairs(n, kind, each) }
}

// Items goes through a list; what is no list is the only item of one.
func (r *Reader) Items(each Field) Field {
	return func(n *Node) { r.r.items(n, each) }
}

// String reads text. Numbers and the like are taken as they are written.
func (r *Reader) String(n *Node) string { return r.r.text(n) }

// Text reads text.
func (r *Reader) Text(to *string) Field { return r.r.toText(to) }

// Texts reads a list of texts, or one.
func (r *Reader) Texts(to *[]string) Field { return r.r.toTexts(to) }

// Bool reads true or false.
func (r *Reader) Bool(to *bool) Field { return r.r.toBool(to) }

// Uint32 reads a whole number.
func (r *Reader) Uint32(to *uint32, least int64) Field {
	return r.r.toUint32(to, least, math.MaxUint32)
}

// Uint64 reads a whole number.
func (r *Reader) Uint64(to *uint64, least int64) Field { return r.r.toUint64(to, least) }

// Size reads bytes, such as 64MiB.
func (r *Reader) Size(to *uint64) Field { return r.r.toSize(to) }

// Time reads a span of time, such as 90s.
func (r *Reader) Time(to *time.Duration) Field { return r.r.toTime(to) }

// Word reads one of a few words.
func (r *Reader) Word(to *string, words ...string) Field { return r.r.toWord(to, words...) }
