package main

import (
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

func TestGrep(t *testing.T) {
	files := map[string]string{"a": "Fox\nthe fox, the foxes\ncat\n", "b": "no\n", "c/d": "fox without a newline"}
	for _, test := range []struct {
		flags map[*bool]bool
		most  uint64
		args  string
		want  string
	}{
		{nil, 0, "fox", "a:2:the fox, the foxes\nc/d:1:fox without a newline\n"},
		{map[*bool]bool{fold: true}, 1, "FOX", "a:1:Fox\nc/d:1:fox without a newline\n"},
		{map[*bool]bool{invert: true}, 0, "fox", "a:1:Fox\na:3:cat\nb:1:no\n"},
		{map[*bool]bool{invert: true, only: true}, 0, "[a-z]", ""},
		{map[*bool]bool{only: true, whole: true}, 0, "foxe?s|the", "a:2:the\na:2:the\na:2:foxes\n"},
		{map[*bool]bool{fixed: true}, 0, "fo.", ""},
		{map[*bool]bool{count: true, fold: true}, 0, "^fox", "a:1\nb:0\nc/d:1\n"},
		{map[*bool]bool{names: true}, 0, "fox", "a\nc/d\n"},
		{map[*bool]bool{names: true, count: true}, 0, "fox", "a\nc/d\n"},
	} {
		for f, v := range test.flags {
			*f = v
		}
		*most = test.most
		r := sdktest.Run(t, sdk.Do("grep", grep), files, sdktest.Args(test.args))
		if r.Stdout != test.want {
			t.Errorf("%s: %q, want %q", test.args, r.Stdout, test.want)
		}
		if *names == false && *most == 0 && r.Counters["lines"] != 5 {
			t.Errorf("%s: counters %v", test.args, r.Counters)
		}
		for f := range test.flags {
			*f = false
		}
	}
	*most = 0
}

func TestMisuse(t *testing.T) {
	long := map[string]string{"a": "short\n" + strings.Repeat("x", maxLine+1)}
	for _, test := range []struct {
		args   []string
		inputs map[string]string
		want   string
	}{
		{nil, nil, "want one, a pattern"},
		{[]string{"a", "b"}, nil, "2 arguments"},
		{[]string{"("}, nil, "missing closing"},
		{[]string{"x"}, long, "line 2 has more than"},
	} {
		if _, err := sdktest.Try(sdk.Do("grep", grep), test.inputs, sdktest.Args(test.args...)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v", test.args, err)
		}
	}
}
