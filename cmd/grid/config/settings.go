package config

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/wasmgrid/wasmgrid/cmd/grid/jobfile"
	"github.com/wasmgrid/wasmgrid/grid"
)

// FileName is what a file of settings is called, in whatever folder it is.
const FileName = "config.yaml"

// Setting is a flag of a command that can be given in a file or in the environment.
type Setting struct {
	Command, Flag string
	List          bool // it may have several values
}

// Key is its name in files: up.workers.
func (s *Setting) Key() string { return s.Command + "." + s.Flag }

// Variable is its name in the environment: GRID_UP_WORKERS.
func (s *Setting) Variable() string {
	return "GRID_" + strings.ToUpper(strings.ReplaceAll(s.Command+"_"+s.Flag, "-", "_"))
}

// Split cuts a text with the values of a list, which have commas between them.
func (s *Setting) Split(text string) (values []string) {
	if !s.List {
		return []string{text}
	}
	for v := range strings.SplitSeq(text, ",") {
		if v = strings.TrimSpace(v); v != "" {
			values = append(values, v)
		}
	}
	return values
}

// Find is the setting with a key. The error names the one that was probably meant.
func Find(all []Setting, key string) (*Setting, error) {
	keys := make([]string, len(all))
	for i := range all {
		if keys[i] = all[i].Key(); keys[i] == key {
			return &all[i], nil
		}
	}
	err := grid.Errorf(grid.NotFound, "there is no setting %.80q", key)
	if near := grid.Nearest(key, keys); near != "" {
		return nil, err.Hint("did you mean %s?", near)
	}
	for _, k := range keys {
		if strings.HasSuffix(k, "."+key) {
			return nil, err.Hint("did you mean %s?", k)
		}
	}
	return nil, err.Hint("`grid config show --all` lists them")
}

// Value is what a file says of a setting.
type Value struct {
	*Setting
	Texts []string // one, unless it is a list
	Line  int
}

// maxValues is how many values a list may have.
const maxValues = 1000

// Parse reads the text of a file. Values are worth something only if there are no problems.
func Parse(text []byte, all []Setting) (values []Value, problems []jobfile.Problem) {
	if blank(text) {
		return nil, nil
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		return nil, []jobfile.Problem{{Line: 1 + bytes.Count(text[:i], []byte("\n")), Message: "there is a zero byte: this is no text"}}
	}
	problems = jobfile.Read(text, FileName, func(r *jobfile.Reader) map[string]jobfile.Field {
		commands := map[string]jobfile.Field{}
		for _, s := range all {
			commands[s.Command] = func(n *jobfile.Node) {
				if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
					return // all that was below it is commented out
				}
				r.Object(s.Command, fields(r, s.Command, all, &values))(n)
			}
		}
		return commands
	})
	slices.SortFunc(values, func(a, b Value) int { return strings.Compare(a.Key(), b.Key()) })
	return values, problems
}

// blank reports whether a text has nothing in it but comments.
func blank(text []byte) bool {
	if bytes.ContainsFunc(text, func(r rune) bool {
		return r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f || r == utf8.RuneError
	}) {
		return false // YAML has no such comments
	}
	for line := range lines(text) {
		if line != "" && line[0] != '#' && line != "---" {
			return false
		}
	}
	return true
}

// breaks are what YAML 1.1 ends a line with (section 4.2), and so a comment, beside a line feed.
var breaks = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n")

// lines are those of a text as YAML sees them, without the space around them.
func lines(text []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(breaks.Replace(string(text))) {
			if !yield(strings.TrimSpace(line)) {
				return
			}
		}
	}
}

// fields read the flags of one command.
func fields(r *jobfile.Reader, command string, all []Setting, to *[]Value) map[string]jobfile.Field {
	flags := map[string]jobfile.Field{}
	for i := range all {
		s := &all[i]
		if s.Command != command {
			continue
		}
		flags[s.Flag] = func(n *jobfile.Node) {
			v := Value{Setting: s, Line: n.Line}
			switch {
			case !s.List || n.Kind == yaml.ScalarNode && n.Tag != "!!null":
				v.Texts = s.Split(r.String(n))
			default:
				r.Items(func(it *jobfile.Node) {
					if len(v.Texts) < maxValues {
						v.Texts = append(v.Texts, r.String(it))
					} else if len(v.Texts) == maxValues {
						v.Texts = append(v.Texts, "")
						r.Problem(it, fmt.Errorf("more than %d values", maxValues), "")
					}
				})(n)
			}
			*to = append(*to, v)
		}
	}
	return flags
}

// Set gives a setting a value in the text of a file, which has been read without problems, and keeps the comments.
func Set(text []byte, s *Setting, values []string) ([]byte, error) {
	if blank(text) { // YAML would lose comments that belong to nothing
		var comments []byte
		for line := range lines(text) {
			if line != "---" {
				comments = append(append(comments, line...), '\n')
			}
		}
		fresh, err := encode(mapping(s.Command, mapping(s.Flag, value(s, values))))
		return append(comments, fresh...), err
	}
	doc, err := decode(text)
	if err != nil {
		return nil, err
	}
	top := doc.Content[0]
	flags := child(top, s.Command)
	switch {
	case flags == nil:
		top.Content = append(top.Content, mapping(s.Command, mapping(s.Flag, value(s, values))).Content...)
	case flags.Kind == yaml.ScalarNode: // nothing
		*flags = *mapping(s.Flag, value(s, values))
	case flags.Kind != yaml.MappingNode:
		return nil, anchored(s.Command)
	default:
		if old := child(flags, s.Flag); old != nil {
			v := value(s, values)
			v.HeadComment, v.LineComment, v.FootComment = old.HeadComment, old.LineComment, old.FootComment
			*old = *v
		} else {
			flags.Content = append(flags.Content, mapping(s.Flag, value(s, values)).Content...)
		}
	}
	return encode(doc)
}

// Unset takes a setting out of the text of a file, with the comments on it. It reports whether it was there.
func Unset(text []byte, s *Setting) ([]byte, bool, error) {
	if blank(text) {
		return text, false, nil
	}
	doc, err := decode(text)
	if err != nil {
		return nil, false, err
	}
	flags := child(doc.Content[0], s.Command)
	if flags == nil || flags.Kind == yaml.ScalarNode {
		return text, false, nil
	}
	if flags.Kind != yaml.MappingNode {
		return nil, false, anchored(s.Command)
	}
	if child(flags, s.Flag) == nil {
		return text, false, nil
	}
	remove(flags, s.Flag)
	if len(flags.Content) == 0 {
		flags.Kind, flags.Tag, flags.Value = yaml.ScalarNode, "!!null", ""
	}
	text, err = encode(doc)
	return text, true, err
}

func anchored(command string) error {
	return grid.Errorf(grid.Unsupported, "what is below %s is an alias of something else in the file", command).Hint("change it with an editor, and see `grid config check`")
}

func decode(text []byte) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, grid.Errorf(grid.Invalid, "%w", err)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, grid.Errorf(grid.Invalid, "the file is no mapping of keys to values")
	}
	return &doc, nil
}

func encode(n *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(n), enc.Close()); err != nil {
		return nil, grid.Errorf(grid.Internal, "write YAML: %w", err)
	}
	return b.Bytes(), nil
}

func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func remove(n *yaml.Node, key string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = slices.Delete(n.Content, i, i+2)
			return
		}
	}
}

func mapping(key string, v *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, v}}
}

// value is what the values of a setting look like in a file.
func value(s *Setting, values []string) *yaml.Node {
	scalar := func(text string) *yaml.Node {
		n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Style: yaml.DoubleQuotedStyle}
		var plain yaml.Node
		if yaml.Unmarshal([]byte(text), &plain) == nil && len(plain.Content) == 1 && plain.Content[0].Kind == yaml.ScalarNode && plain.Content[0].Value == text &&
			slices.Contains([]string{"!!str", "!!int", "!!bool", "!!float"}, plain.Content[0].Tag) {
			n.Tag, n.Style = plain.Content[0].Tag, 0 // it needs no quotes
		}
		return n
	}
	if !s.List {
		return scalar(values[0])
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, v := range values {
		list.Content = append(list.Content, scalar(v))
	}
	return list
}
