package grid

import (
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Labels describe a node, such as zone=a. Every node also has os, arch and node, its peer ID.
type Labels map[string]string

// Bounds of labels and selectors.
const (
	MaxLabels     = 64 // that a node may have
	MaxLabelName  = 63 // bytes of a key, and of a value
	MaxTerms      = 32 // of a selector
	MaxTermValues = 32 // of one term
)

// The labels that every node gives itself.
const (
	LabelOS   = "os"
	LabelArch = "arch"
	LabelNode = "node"
)

// ParseLabels reads labels as a person gives them to a node: k=v, several of them joined by commas. Those that a node
// gives itself are refused, and so is a key that comes twice.
func ParseLabels(texts ...string) (Labels, error) {
	l := Labels{}
	for _, text := range texts {
		for pair := range strings.SplitSeq(text, ",") {
			k, v, ok := strings.Cut(strings.TrimSpace(pair), "=")
			if !ok {
				return nil, Errorf(Invalid, "label %q: want KEY=VALUE", clip(pair)).Hint("for example --label gpu=true,zone=a")
			}
			k, v = strings.TrimSpace(k), strings.TrimSpace(v)
			switch _, twice := l[k]; {
			case k == LabelOS || k == LabelArch || k == LabelNode:
				return nil, Errorf(Invalid, "label %q is the node's own: it says so itself", k).Hint("choose another key")
			case twice:
				return nil, Errorf(Invalid, "label %q is given twice, as %q and %q", clip(k), clip(l[k]), clip(v))
			}
			l[k] = v
			if err := checkLabel(k, v); err != nil {
				return nil, err
			}
		}
	}
	return l, l.Check()
}

// With is the labels and those that a node gives itself.
func (l Labels) With(self peer.ID) Labels {
	all := maps.Clone(l)
	if all == nil {
		all = Labels{}
	}
	all[LabelOS], all[LabelArch], all[LabelNode] = runtime.GOOS, runtime.GOARCH, self.String()
	return all
}

// Check refuses labels from outside that no node has.
func (l Labels) Check() error {
	if len(l) > MaxLabels {
		return Errorf(Limit, "%d labels, at most %d are allowed", len(l), MaxLabels)
	}
	for k, v := range l {
		if err := checkLabel(k, v); err != nil {
			return err
		}
	}
	return nil
}

// String lists the labels in order of their keys, as ParseLabels reads them.
func (l Labels) String() string {
	pairs := make([]string, 0, len(l))
	for _, k := range slices.Sorted(maps.Keys(l)) {
		pairs = append(pairs, k+"="+l[k])
	}
	return strings.Join(pairs, ",")
}

// Check refuses a capacity from outside that no node has.
func (c *Capacity) Check() error {
	if c.Slots < 0 || c.Slots > MaxSlots {
		return Errorf(Invalid, "a node of %d slots: want 0 to %d", c.Slots, MaxSlots)
	}
	return c.Labels.Check()
}

// MaxSlots is how many worker slots a node may have.
const MaxSlots = 1 << 14

func checkLabel(k, v string) error {
	if !labelName(k) {
		return Errorf(Invalid, "label key %q: want 1 to %d letters, digits and ._/-, the first a letter or digit", clip(k), MaxLabelName)
	}
	if !labelName(v) {
		return Errorf(Invalid, "label %s=%q: a value has 1 to %d letters, digits and ._/-, the first a letter or digit", k, clip(v), MaxLabelName)
	}
	return nil
}

func labelName(s string) bool {
	return s != "" && len(s) <= MaxLabelName && labelPrefix(s) == len(s) && strings.IndexByte("._/-", s[0]) < 0
}

// labelPrefix counts the bytes at the beginning of s that may be in a label.
func labelPrefix(s string) int {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._/-", c) >= 0) {
			return i
		}
	}
	return len(s)
}

// clip cuts what somebody gave us to a length that can be shown.
func clip(s string) string {
	if len(s) <= 80 {
		return s
	}
	return s[:80] + "…"
}

// Selector chooses nodes by their labels: those that match all its terms. The zero Selector chooses every node.
type Selector struct{ terms []term }

// term is one condition. Values are in order and differ.
type term struct {
	key    string
	op     termOp
	values []string
}

type termOp uint8

const (
	opHas termOp = iota // k
	opNot               // !k
	opIn                // k=v, k in (a,b)
	opOut               // k!=v, k notin (a,b): also where there is no k
)

// ParseSelector reads a selector: terms joined by commas, all of which a node must match. The terms are
//
//	k=v  k!=v  k in (a,b)  k notin (a,b)  k  !k
//
// A node without the label k matches k!=v and k notin (a,b), as it matches !k. "" chooses every node.
func ParseSelector(text string) (Selector, error) {
	var s Selector
	if len(text) > MaxSelector {
		return s, Errorf(Limit, "a selector of %d bytes, at most %d are allowed", len(text), MaxSelector)
	}
	rest := strings.TrimSpace(text)
	for more := rest != ""; more; {
		var t term
		var err error
		if t, rest, more, err = parseTerm(rest); err != nil {
			return Selector{}, Errorf(CodeOf(err), "selector %q: %w", clip(text), err).
				Hint("terms are k=v, k!=v, k in (a,b), k notin (a,b), k and !k, joined by commas")
		}
		s.terms = append(s.terms, t)
		if len(s.terms) > MaxTerms {
			return Selector{}, Errorf(Limit, "selector %q has more than %d terms", clip(text), MaxTerms)
		}
	}
	slices.SortFunc(s.terms, term.compare)
	s.terms = slices.CompactFunc(s.terms, func(a, b term) bool { return a.compare(b) == 0 })
	if n := len(s.String()); n > MaxSelector {
		return Selector{}, Errorf(Limit, "a selector of %d bytes when written out, at most %d are allowed", n, MaxSelector)
	}
	return s, nil
}

// parseTerm reads the first term of s, and says what follows its comma, if there is one.
func parseTerm(s string) (t term, rest string, more bool, err error) {
	if after, ok := strings.CutPrefix(s, "!"); ok {
		t.op, s = opNot, strings.TrimLeft(after, blanks)
	}
	t.key, s = s[:labelPrefix(s)], s[labelPrefix(s):]
	if !labelName(t.key) {
		return t, "", false, Errorf(Invalid, "want a label's key at %q", clip(t.key+s))
	}
	after := strings.TrimLeft(s, blanks)
	if t.op == opNot || after == "" || after[0] == ',' {
		rest, more, err = endOfTerm(s)
		return t, rest, more, err
	}
	word := labelPrefix(after)
	switch {
	case after[:word] == "in":
		t.op = opIn
		t.values, s, err = parseValues(after[word:])
	case after[:word] == "notin":
		t.op = opOut
		t.values, s, err = parseValues(after[word:])
	default:
		op := ""
		for _, o := range []string{"==", "=", "!="} {
			if strings.HasPrefix(after, o) {
				op = o
				break
			}
		}
		if op == "" {
			return t, "", false, Errorf(Invalid, "want =, !=, in or notin after %q, not %q", t.key, clip(after))
		}
		t.op = opIn
		if op == "!=" {
			t.op = opOut
		}
		s = strings.TrimLeft(after[len(op):], blanks)
		v := s[:labelPrefix(s)]
		s = s[len(v):]
		t.values = []string{v}
		if !labelName(v) {
			err = Errorf(Invalid, "want a value after %s%s, not %q", t.key, op, clip(v+s))
		}
	}
	if err != nil {
		return t, "", false, err
	}
	rest, more, err = endOfTerm(s)
	return t, rest, more, err
}

const blanks = " \t\r\n"

// endOfTerm expects a comma or nothing.
func endOfTerm(s string) (rest string, more bool, err error) {
	s = strings.TrimLeft(s, blanks)
	if s == "" {
		return "", false, nil
	}
	if s[0] != ',' {
		return "", false, Errorf(Invalid, "want a comma at %q", clip(s))
	}
	return strings.TrimLeft(s[1:], blanks), true, nil
}

// parseValues reads (a,b), and says what follows.
func parseValues(s string) (values []string, rest string, err error) {
	s = strings.TrimLeft(s, blanks)
	inside, rest, ok := strings.Cut(strings.TrimPrefix(s, "("), ")")
	if !strings.HasPrefix(s, "(") || !ok {
		return nil, "", Errorf(Invalid, "want a list of values in parentheses at %q", clip(s))
	}
	for v := range strings.SplitSeq(inside, ",") {
		if v = strings.Trim(v, blanks); !labelName(v) {
			return nil, "", Errorf(Invalid, "%q cannot be a label's value", clip(v))
		}
		if values = append(values, v); len(values) > MaxTermValues {
			return nil, "", Errorf(Limit, "a list of more than %d values", MaxTermValues)
		}
	}
	slices.Sort(values)
	return slices.Compact(values), rest, nil
}

func (t term) compare(u term) int {
	if c := strings.Compare(t.key, u.key); c != 0 {
		return c
	}
	if t.op != u.op {
		return int(t.op) - int(u.op)
	}
	return slices.Compare(t.values, u.values)
}

func (t term) match(l Labels) bool {
	v, ok := l[t.key]
	switch t.op {
	case opHas:
		return ok
	case opNot:
		return !ok
	case opIn:
		return ok && slices.Contains(t.values, v)
	default:
		return !ok || !slices.Contains(t.values, v)
	}
}

func (t term) String() string {
	switch {
	case t.op == opHas:
		return t.key
	case t.op == opNot:
		return "!" + t.key
	case t.op == opIn && len(t.values) == 1:
		return t.key + "=" + t.values[0]
	case t.op == opIn:
		return t.key + " in (" + strings.Join(t.values, ",") + ")"
	case len(t.values) == 1:
		return t.key + "!=" + t.values[0]
	default:
		return t.key + " notin (" + strings.Join(t.values, ",") + ")"
	}
}

// String is the selector in its canonical form: terms in order, none twice. Selectors that are written differently but
// have the same terms are written the same.
func (s Selector) String() string {
	terms := make([]string, len(s.terms))
	for i, t := range s.terms {
		terms[i] = t.String()
	}
	return strings.Join(terms, ",")
}

// Match reports whether a node with these labels is chosen; if not, missing is the first term that it does not match.
func (s Selector) Match(l Labels) (ok bool, missing string) {
	for _, t := range s.terms {
		if !t.match(l) {
			return false, t.String()
		}
	}
	return true, ""
}

// Count tells how many of the terms a node with these labels matches.
func (s Selector) Count(l Labels) int {
	n := 0
	for _, t := range s.terms {
		if t.match(l) {
			n++
		}
	}
	return n
}
