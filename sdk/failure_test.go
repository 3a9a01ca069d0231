package sdk_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

type query struct {
	Text  string   `json:"text"`
	Min   int      `json:"min"`
	Share float64  `json:"share"`
	Tags  []string `json:"tags"`
	Deep  struct {
		Ok bool `json:"ok"`
	} `json:"deep"`
}

// What is wrong with an input is told in the author's words: the function, the field, what was to be there and what is.
func TestBadInput(t *testing.T) {
	f := sdk.Func("find", func(_ sdk.Context, q query) (int, error) { return q.Min, nil })
	const object = "an object with text, min, share, tags, deep"
	for in, want := range map[string]string{
		``:                            "find: the input is empty: it should be " + object,
		" \n":                         "find: the input is empty: it should be " + object,
		`{"text":`:                    `find: the input is not JSON: unexpected end of JSON input at byte 8, after "{\"text\":"; it should be ` + object,
		`[1]`:                         `find: the input is an array at byte 1, after "[": it should be ` + object,
		`{"min":"3"}`:                 `find: the input has a string for "min" at byte 10, after "{\"min\":\"3\"": it should be an integer (int)`,
		`{"min":3.5}`:                 `find: the input has the number 3.5 for "min" at byte 10, after "{\"min\":3.5": it should be an integer (int)`,
		`{"deep":{"ok":{}}}`:          `find: the input has an object for "deep.ok" at byte 15, after "{\"deep\":{\"ok\":{": it should be true or false`,
		`{"tags":[true]}`:             `find: the input has true or false for "tags" at byte 13, after "{\"tags\":[true": it should be a string`,
		strings.Repeat(" ", 99) + "x": `find: the input is not JSON: invalid character 'x' looking for beginning of value at byte 100, after "                                       x"; it should be ` + object,
	} {
		_, err := sdktest.Try(f, map[string]string{"stdin": in})
		if err == nil || err.Error() != want {
			t.Errorf("%q:\n%v\nwant\n%s", in, err, want)
		}
	}
	_, err := sdktest.Try(f, map[string]string{"stdin": `{"text":"` + strings.Repeat("x", 1<<20)})
	if err == nil || len(err.Error()) > 500 {
		t.Errorf("%.600v", err)
	}
}

//go:noinline
func fall(v []int, i int) int { return v[i] }

// A panic tells the author's own calls, and nothing of what is below and above them.
func TestPanic(t *testing.T) {
	f := sdk.Map("m", add, func(_ sdk.Context, in *sdk.Input, out *sdk.Emitter[int]) error {
		text, err := in.Bytes()
		sdk.Words(text, func(word []byte) {
			slices.SortFunc([]int{1, 2}, func(a, b int) int { return fall(nil, 3) })
		})
		return err
	})
	_, err := sdktest.Try(f, map[string]string{"f": "word"})
	if err == nil {
		t.Fatal("there is no panic")
	}
	lines := strings.Split(err.Error(), "\n")
	want := []string{"m: input f: panic: runtime error: index out of range [3] with length 0", "sdk_test.fall (failure_test.go:", "sdk_test.TestPanic."}
	for i, w := range want {
		if i >= len(lines) || !strings.HasPrefix(strings.TrimSpace(lines[i]), w) {
			t.Errorf("line %d is not %q...:\n%v", i, w, err)
		}
	}
	for _, word := range []string{"runtime.go", "sdk.go", "Map[", "sdktest", "tRunner", "goroutine", "0x"} {
		if strings.Contains(err.Error(), word) {
			t.Errorf("it tells of %s:\n%v", word, err)
		}
	}
	broken := errors.New("broken")
	if _, err := sdktest.Try(sdk.Do("d", func(sdk.Context) error { panic(broken) }), nil); !errors.Is(err, broken) {
		t.Errorf("%v does not wrap what was panicked with", err)
	}
	var deep func(int) int
	deep = func(n int) int {
		if n == 0 {
			panic("at the bottom")
		}
		return deep(n-1) + 1
	}
	_, err = sdktest.Try(sdk.Do("d", func(sdk.Context) error { deep(1000); return nil }), nil)
	if n := strings.Count(fmt.Sprint(err), "\n"); n != 32 {
		t.Errorf("%d lines of stack", n)
	}
}

func TestStream(t *testing.T) {
	double := func(_ sdk.Context, in iter.Seq2[query, error], emit func(query) error) error {
		for q, err := range in {
			if err != nil {
				return err
			}
			q.Min *= 2
			if err := emit(q); err != nil {
				return err
			}
		}
		return nil
	}
	got := sdktest.Stream(t, double, []query{{Text: "a\nb", Min: 1}, {Min: 2}})
	if len(got) != 2 || got[0].Min != 2 || got[0].Text != "a\nb" || got[1].Min != 4 {
		t.Errorf("%+v", got)
	}
	f := sdk.Stream("double", double)
	r, err := sdktest.Try(f, map[string]string{"a": "{\"min\":1}\n{\"min\":2}", "b": "{}\n\n"})
	if err == nil || !strings.HasPrefix(err.Error(), "double: input b: line 2 is empty: it should be an object") || strings.Count(r.Stdout, "\n") != 3 {
		t.Errorf("%v, %q", err, r.Stdout)
	}
	// A function may pass over what is no value, and lines are bytes as they are.
	tolerant := sdk.Stream("tolerant", func(_ sdk.Context, in iter.Seq2[json.Number, error], emit func(string) error) error {
		for n, err := range in {
			if err == nil {
				emit("<" + n.String() + ">")
			}
		}
		return nil
	})
	if r := sdktest.Run(t, tolerant, map[string]string{"a": "1\nx\n2.50\n"}); r.Stdout != "<1>\n<2.50>\n" {
		t.Errorf("%q", r.Stdout)
	}
	emit := func(v any) func(sdk.Context, iter.Seq2[string, error], func(any) error) error {
		return func(_ sdk.Context, _ iter.Seq2[string, error], emit func(any) error) error { return emit(v) }
	}
	if r := sdktest.Run(t, sdk.Stream("s", emit(map[string]string{"<&>": "ü"})), nil); r.Stdout != `{"<&>":"ü"}`+"\n" {
		t.Errorf("%q", r.Stdout)
	}
	if _, err := sdktest.Try(sdk.Stream("s", emit(func() {})), nil); err == nil || !strings.Contains(err.Error(), "func()") {
		t.Error(err)
	}
	two := sdk.Stream("s", func(_ sdk.Context, _ iter.Seq2[string, error], emit func(string) error) error { return emit("a\nb") })
	if _, err := sdktest.Try(two, nil); err == nil || !strings.Contains(err.Error(), "newline") {
		t.Error(err)
	}
}

// Functions of nothing take an empty input, and bytes are as they are.
func TestRawFunc(t *testing.T) {
	if got := sdktest.Call(t, func(sdk.Context, struct{}) (string, error) { return "\x00 as it is\n", nil }, struct{}{}); got != "\x00 as it is\n" {
		t.Errorf("%q", got)
	}
	f := sdk.Func("nothing", func(sdk.Context, struct{}) ([]byte, error) { return nil, nil })
	for _, in := range []string{"", "{}"} {
		if r := sdktest.Run(t, f, map[string]string{"stdin": in}); r.Stdout != "" {
			t.Errorf("%q", r.Stdout)
		}
	}
	r := sdktest.Run(t, sdk.Do("all", func(ctx sdk.Context) error {
		for in, err := range ctx.Inputs() {
			if err == nil {
				_, err = io.Copy(ctx.Stdout(), in)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}), map[string]string{"a": "1", "b": "2"})
	if r.Stdout != "12" {
		t.Errorf("%q", r.Stdout)
	}
}
