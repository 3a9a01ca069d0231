package jobfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Bounds on the text of a job file.
const (
	MaxBytes = 1 << 20
	maxNodes = 200_000 // values, where what aliases stand for counts each time
	maxDepth = 64
	enough   = 100 // problems, to look for no more
)

// reader turns YAML into our nouns, and gathers what is wrong with it. After a problem it goes on, with zero values.
type reader struct {
	problems []Problem
	params   map[string]*Param
	opaque   bool // ${} is not looked for
	nodes    int
	depth    int
	seen     func(kind string, keys []string) // tells a test which keys there are
}

func (r *reader) problem(n *yaml.Node, format string, args ...any) *Problem {
	p := Problem{Message: fmt.Sprintf(format, args...)}
	if n != nil {
		p.Line, p.Column = n.Line, n.Column
	}
	r.problems = append(r.problems, p)
	return &r.problems[len(r.problems)-1]
}

func (r *reader) warn(n *yaml.Node, format string, args ...any) {
	r.problem(n, format, args...).Warning = true
}

func (p *Problem) hint(format string, args ...any) { p.Hint = fmt.Sprintf(format, args...) }

// document parses the one document of a file.
func (r *reader) document(text []byte) *yaml.Node {
	if len(text) > MaxBytes {
		r.problem(nil, "the file has more than %d KiB", MaxBytes>>10)
		return nil
	}
	if !utf8.Valid(text) {
		r.problem(nil, "the file is not UTF-8")
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		r.problem(nil, "the file is empty")
		return nil
	case err != nil:
		r.syntax(text, err)
		return nil
	}
	if err := dec.Decode(&more); err == nil {
		r.problem(&more, "there is a second document, after ---").hint("give each job a file of its own")
	} else if !errors.Is(err, io.EOF) {
		r.syntax(text, err)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		r.problem(nil, "the file is empty")
		return nil
	}
	return doc.Content[0]
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntax tells of a text that is not YAML.
func (r *reader) syntax(text []byte, err error) {
	m := yamlLine.FindStringSubmatch(err.Error())
	at := &yaml.Node{}
	msg := err.Error()
	if m != nil {
		at.Line, _ = strconv.Atoi(m[1])
		msg = msg[len(m[0]):]
	}
	p := r.problem(at, "%s", msg)
	switch {
	case strings.Contains(msg, "cannot start any token") && bytes.Contains(text, []byte("\n\t")):
		p.hint("YAML takes no tabs at the beginning of a line: use spaces")
	case bytes.Contains(text, []byte("${")) && bytes.ContainsAny(text, "["):
		p.hint(`between [ and ], text with ${...} needs quotes: ["${name}"]`)
	}
}

// enter follows an alias and counts; false: there is too much, or it is too deep, and nothing may be read.
func (r *reader) enter(n *yaml.Node) (*yaml.Node, bool) {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	r.nodes++
	r.depth++
	switch {
	case r.nodes == maxNodes:
		r.problem(n, "the file comes to more than %d values, with what aliases stand for", maxNodes)
	case r.nodes < maxNodes && r.depth == maxDepth:
		r.problem(n, "values are nested more than %d deep", maxDepth)
	}
	return n, r.nodes < maxNodes && r.depth < maxDepth
}

func (r *reader) leave() { r.depth-- }

// field reads the value of one key.
type field func(n *yaml.Node)

// object reads a mapping whose keys are known. It reports which of them there were; nil: it is no mapping.
func (r *reader) object(n *yaml.Node, kind string, fields map[string]field) map[string]*yaml.Node {
	if r.seen != nil {
		r.seen(kind, slices.Sorted(maps.Keys(fields)))
	}
	got := map[string]*yaml.Node{}
	ok := r.pairs(n, kind, func(key, value *yaml.Node) {
		f := fields[key.Value]
		switch {
		case f != nil:
		case kind == top && strings.HasPrefix(key.Value, "x-"): // a place for anchors
			return
		default:
			p := r.problem(key, "%s has no key %q", kind, clip(key.Value))
			if near := grid.Nearest(key.Value, slices.Collect(maps.Keys(fields))); near != "" {
				p.hint("did you mean %s?", near)
			} else {
				p.hint("its keys: %s", strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
			}
			return
		}
		got[key.Value] = value
		f(value)
	})
	if !ok {
		return nil
	}
	return got
}

// pairs goes through a mapping in order, with what << merges into it behind.
func (r *reader) pairs(n *yaml.Node, kind string, each func(key, value *yaml.Node)) bool {
	return r.pairsBut(n, kind, map[string]bool{}, each)
}

func (r *reader) pairsBut(n *yaml.Node, kind string, seen map[string]bool, each func(key, value *yaml.Node)) bool {
	n, ok := r.enter(n)
	defer r.leave()
	if !ok {
		return false
	}
	if n.Kind != yaml.MappingNode {
		r.problem(n, "%s: want a mapping of keys to values, got %s", kind, describe(n))
		return false
	}
	own := map[string]bool{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content) && len(r.problems) < enough; i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode:
			r.problem(key, "%s: a key is text, not %s", kind, describe(key))
		case key.Tag == "!!merge":
			merges = append(merges, value)
		case own[key.Value]:
			r.problem(key, "%s: the key %q is there twice", kind, clip(key.Value))
		case !seen[key.Value]:
			own[key.Value], seen[key.Value] = true, true
			each(key, value)
		}
	}
	for _, m := range merges {
		list := []*yaml.Node{m}
		if m.Kind == yaml.SequenceNode {
			list = m.Content
		}
		for _, from := range list {
			r.pairsBut(from, "<<", seen, each)
		}
	}
	return true
}

// items goes through a list. What is no list is the only item of one.
func (r *reader) items(n *yaml.Node, each func(*yaml.Node)) {
	n, ok := r.enter(n)
	defer r.leave()
	switch {
	case !ok:
	case n.Kind == yaml.SequenceNode:
		for _, it := range n.Content {
			if each(it); len(r.problems) >= enough {
				break
			}
		}
	case isNull(n):
		r.empty(n)
	default:
		each(n)
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (r *reader) empty(n *yaml.Node) {
	r.problem(n, "there is no value").hint(`give one, or leave the key out; empty text is ""`)
}

// scalar is the text of a value, with parameters put in. free tells that it was not written as text: it has no quotes,
// or comes out of a parameter.
func (r *reader) scalar(n *yaml.Node, want string) (text string, free, ok bool) {
	n, ok = r.enter(n)
	defer r.leave()
	if !ok {
		return "", false, false
	}
	switch {
	case isNull(n):
		r.empty(n)
		return "", false, false
	case n.Kind != yaml.ScalarNode:
		p := r.problem(n, "want %s, got %s", want, describe(n))
		if name := braced(n); name != "" {
			p.hint(`put quotes around it: "{%s}"`, name)
		}
		return "", false, false
	}
	switch n.Tag {
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp":
	default:
		r.problem(n, "tags such as %s have no meaning here", clip(n.Tag))
		return "", false, false
	}
	if strings.ContainsRune(n.Value, 0) {
		r.problem(n, "the text contains a zero byte")
		return "", false, false
	}
	text, put, ok := r.expand(n)
	return text, put || n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0, ok
}

// braced recognises {name} without quotes, which YAML takes for a mapping.
func braced(n *yaml.Node) string {
	if n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle != 0 && len(n.Content) == 2 && isNull(n.Content[1]) {
		return n.Content[0].Value
	}
	return ""
}

// describe names the kind of a value.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	}
	return strconv.Quote(clip(n.Value))
}

// clip keeps messages short.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// text reads text. Numbers and the like are taken as they are written.
func (r *reader) text(n *yaml.Node) string {
	s, _, _ := r.scalar(n, "text")
	return s
}

func (r *reader) toText(to *string) field { return func(n *yaml.Node) { *to = r.text(n) } }

// texts reads a list of texts, or one.
func (r *reader) texts(n *yaml.Node) []string {
	list := []string{}
	r.items(n, func(it *yaml.Node) { list = append(list, r.text(it)) })
	return list
}

func (r *reader) toTexts(to *[]string) field { return func(n *yaml.Node) { *to = r.texts(n) } }

// whole reads a whole number.
func (r *reader) whole(n *yaml.Node, least, most int64) int64 {
	want := fmt.Sprintf("a whole number from %d to %d", least, most)
	if most == math.MaxInt64 {
		want = fmt.Sprintf("a whole number, %d or more", least)
	}
	s, free, ok := r.scalar(n, want)
	if !ok {
		return least
	}
	v, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64)
	switch {
	case err == nil && !free:
		r.problem(n, "want %s, got text", want).hint("take the quotes away")
	case err != nil || v < least || v > most:
		r.problem(n, "want %s, got %q", want, clip(s))
	default:
		return v
	}
	return least
}

func (r *reader) toUint32(to *uint32, least, most int64) field {
	return func(n *yaml.Node) { *to = uint32(r.whole(n, least, min(most, math.MaxUint32))) }
}

func (r *reader) toUint64(to *uint64, least int64) field {
	return func(n *yaml.Node) { *to = uint64(r.whole(n, least, math.MaxInt64)) }
}

func (r *reader) toInt(to *int, least, most int64) field {
	return func(n *yaml.Node) { *to = int(r.whole(n, least, most)) }
}

func (r *reader) toBool(to *bool) field {
	return func(n *yaml.Node) {
		const want = "true or false"
		s, free, ok := r.scalar(n, want)
		switch {
		case !ok:
		case free && s == "true", free && s == "false":
			*to = s == "true"
		default:
			r.problem(n, "want %s, got %q", want, clip(s))
		}
	}
}

func (r *reader) toSize(to *uint64) field {
	return func(n *yaml.Node) {
		s, _, ok := r.scalar(n, "a size such as 64MiB")
		if !ok {
			return
		}
		v, err := ParseSize(s)
		if err != nil {
			r.problem(n, "%v", err)
		} else if v == 0 {
			r.problem(n, "the size is 0").hint("leave the key out for the default")
		}
		*to = v
	}
}

func (r *reader) toTime(to *time.Duration) field {
	return func(n *yaml.Node) {
		const want = "a time such as 90s, 5m or 1h30m"
		s, _, ok := r.scalar(n, want)
		if !ok {
			return
		}
		v, err := time.ParseDuration(s)
		if err != nil || v <= 0 {
			p := r.problem(n, "want %s, got %q", want, clip(s))
			if _, err := strconv.ParseFloat(s, 64); err == nil {
				p.hint("a number needs a unit: %ss", s)
			}
		}
		*to = v
	}
}

// toWord reads one of a few words.
func (r *reader) toWord(to *string, words ...string) field {
	return func(n *yaml.Node) {
		want := strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
		s, _, ok := r.scalar(n, want)
		if ok && !slices.Contains(words, s) {
			p := r.problem(n, "want %s, got %q", want, clip(s))
			if near := grid.Nearest(s, words); near != "" {
				p.hint("did you mean %s?", near)
			}
			return
		}
		*to = s
	}
}
