package grid_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestSelectors(t *testing.T) {
	l := grid.Labels{"gpu": "true", "zone": "a", "example.com/disk": "ssd"}
	for _, tt := range []struct {
		text, canonical, missing string
		count                    int
	}{
		{"", "", "", 0},
		{"  ", "", "", 0},
		{"gpu", "gpu", "", 1},
		{"gpu=true", "gpu=true", "", 1},
		{"gpu == true", "gpu=true", "", 1},
		{"zone=b , gpu=true", "gpu=true,zone=b", "zone=b", 1},
		{"zone!=b", "zone!=b", "", 1},
		{"zone != a", "zone!=a", "zone!=a", 0},
		{"rack!=1", "rack!=1", "", 1},
		{"!rack,!gpu", "!gpu,!rack", "!gpu", 1},
		{"! rack", "!rack", "", 1},
		{"zone in (b, a,b)", "zone in (a,b)", "", 1},
		{"zone in(a)", "zone=a", "", 1},
		{"zone in (b,c)", "zone in (b,c)", "zone in (b,c)", 0},
		{"zone notin (b,c)", "zone notin (b,c)", "", 1},
		{"zone notin (a)", "zone!=a", "zone!=a", 0},
		{"rack notin (a,b)", "rack notin (a,b)", "", 1},
		{"in in (in)", "in=in", "in=in", 0},
		{"in", "in", "in", 0},
		{"gpu,gpu,gpu", "gpu", "", 1},
		{"example.com/disk=ssd", "example.com/disk=ssd", "", 1},
	} {
		s, err := grid.ParseSelector(tt.text)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		ok, missing := s.Match(l)
		if s.String() != tt.canonical || missing != tt.missing || ok != (missing == "") || s.Count(l) != tt.count {
			t.Errorf("%q: %q, matches %v but for %q, %d terms; want %q, %q, %d",
				tt.text, s, ok, missing, s.Count(l), tt.canonical, tt.missing, tt.count)
		}
		if again, err := grid.ParseSelector(s.String()); err != nil || again.String() != s.String() {
			t.Errorf("%q: its canonical form %q gives %q, %v", tt.text, s, again, err)
		}
	}
}

func TestBadSelectors(t *testing.T) {
	many := func(n int, format string) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = fmt.Sprintf(format, i)
		}
		return strings.Join(parts, ",")
	}
	for text, want := range map[string]string{
		",":                             "want a label's key",
		"a,":                            "want a label's key",
		"a,,b":                          "want a label's key",
		"=b":                            "want a label's key",
		"-a":                            "want a label's key",
		"a=":                            "want a value after a=",
		"a!=,b":                         "want a value after a!=",
		"a b":                           "want =, !=, in or notin",
		"a>1":                           "want =, !=, in or notin",
		"!a=b":                          "want a comma",
		"a=b c":                         "want a comma",
		"a in b":                        "in parentheses",
		"a in (b":                       "in parentheses",
		"a in ()":                       "cannot be a label's value",
		"a in (b,)":                     "cannot be a label's value",
		"a in (b))":                     "want a comma",
		"é=1":                           "want a label's key",
		strings.Repeat("k", 64):         "want a label's key",
		"k=" + strings.Repeat("v", 64):  "want a value",
		many(33, "k%d"):                 "more than 32 terms",
		"k in (" + many(33, "%d") + ")": "more than 32 values",
		strings.Repeat(" ", 1025):       "a selector of 1025 bytes",
	} {
		if _, err := grid.ParseSelector(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}

func TestLabels(t *testing.T) {
	l, err := grid.ParseLabels("zone=a, gpu=false", "rack=r-1/2")
	if err != nil || l.String() != "gpu=false,rack=r-1/2,zone=a" {
		t.Errorf("%v, %v", l, err)
	}
	all := l.With("me")
	if len(all) != 6 || len(l) != 3 || all["os"] == "" || all["arch"] == "" || all["node"] == "" {
		t.Errorf("with its own: %v", all)
	}
	for text, want := range map[string]string{
		"gpu":         "want KEY=VALUE",
		"":            "want KEY=VALUE",
		"gpu=":        "a value has",
		"=a":          "label key",
		"os=linux":    "the node's own",
		"node=x":      "the node's own",
		"a=1,a=2":     "given twice",
		"a=b=c":       "a value has",
		"a b=c":       "label key",
		"zone=a;b":    "a value has",
		".hidden=yes": "label key",
	} {
		if _, err := grid.ParseLabels(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
	many := grid.Labels{}
	for i := range grid.MaxLabels + 1 {
		many[fmt.Sprint("k", i)] = "v"
	}
	c := grid.Capacity{Labels: many, Slots: 1}
	if err := c.Check(); grid.CodeOf(err) != grid.Limit {
		t.Errorf("%d labels: %v", len(many), err)
	}
	c = grid.Capacity{Slots: -1}
	if err := c.Check(); grid.CodeOf(err) != grid.Invalid {
		t.Errorf("negative slots: %v", err)
	}
}

func FuzzSelector(f *testing.F) {
	for _, text := range []string{"", "a=b,c", "a in (b,c),!d", "x notin (y, z) , a!=b", "in in (in)", "a==b"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := grid.ParseSelector(text)
		if err != nil {
			return
		}
		again, err := grid.ParseSelector(s.String())
		if err != nil || again.String() != s.String() {
			t.Fatalf("%q: canonical form %q gives %q, %v", text, s, again, err)
		}
		for _, l := range []grid.Labels{nil, {"a": "b"}, {"in": "in", "x": "y"}} {
			ok, missing := s.Match(l)
			if ok2, missing2 := again.Match(l); ok != ok2 || missing != missing2 || ok != (missing == "") || s.Count(l) != again.Count(l) {
				t.Fatalf("%q and %q do not match the same: %v %q, %v %q", text, s, ok, missing, ok2, missing2)
			}
		}
	})
}

func FuzzLabels(f *testing.F) {
	f.Add("a=b,c=d")
	f.Add("zone = a")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := grid.ParseLabels(text)
		if err != nil {
			return
		}
		again, err := grid.ParseLabels(l.String())
		if err != nil || again.String() != l.String() {
			t.Fatalf("%q: %q gives %q, %v", text, l, again, err)
		}
	})
}
