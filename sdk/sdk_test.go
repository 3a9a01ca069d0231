package sdk_test

import (
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

func add(a, b int) int { return a + b }

// letters counts letters.
var letters = sdk.Map("letters", add, func(_ sdk.Context, in *sdk.Input, out *sdk.Emitter[int]) error {
	text, err := in.Bytes()
	for i := range text {
		out.EmitBytes(text[i:i+1], 1)
	}
	return err
})

var print = sdk.Reduce("print", add, func(ctx sdk.Context, all iter.Seq2[string, int]) error {
	for k, n := range all {
		fmt.Fprintf(ctx.Stdout(), "%q %d\n", k, n)
	}
	return nil
})

func TestMapReduce(t *testing.T) {
	inputs := map[string]string{"a": "abc\t\n", "b": "b\\\r", "c": "", "d": strings.Repeat("z", 100_000)}
	if got, want := sdktest.Run(t, letters, inputs).Stdout, "\\t\t1\n\\n\t1\n\\r\t1\n\\\\\t1\na\t1\nb\t2\nc\t1\nz\t100000\n"; got != want {
		t.Errorf("map: %q, want %q", got, want)
	}
	want := "\"\\t\" 1\n\"\\n\" 1\n\"\\r\" 1\n\"\\\\\" 1\n\"a\" 1\n\"b\" 2\n\"c\" 1\n\"z\" 100000\n"
	if got := sdktest.MapReduce(t, letters, print, inputs).Stdout; got != want {
		t.Errorf("reduce: %q, want %q", got, want)
	}
	if got := sdktest.Run(t, print, nil).Stdout; got != "" {
		t.Errorf("reduce of nothing: %q", got)
	}
}

// Values may be of any type that JSON can carry.
func TestValues(t *testing.T) {
	type seen struct {
		Files []string
		Bytes float64
	}
	merge := func(a, b seen) seen {
		a.Files = append(a.Files, b.Files...)
		slices.Sort(a.Files)
		a.Bytes += b.Bytes
		return a
	}
	m := sdk.Map("m", merge, func(_ sdk.Context, in *sdk.Input, out *sdk.Emitter[seen]) error {
		text, err := io.ReadAll(in)
		out.Emit(string(text), seen{[]string{in.Name}, float64(len(text)) + 0.5})
		return err
	})
	r := sdk.Reduce("r", merge, func(ctx sdk.Context, all iter.Seq2[string, seen]) error {
		for k, v := range all {
			fmt.Fprintln(ctx.Stdout(), k, v.Files, v.Bytes)
		}
		return nil
	})
	got := sdktest.MapReduce(t, m, r, map[string]string{"1": "same", "2": "other", "x/3": "same"}).Stdout
	if want := "other [2] 5.5\nsame [1 x/3] 9\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name string
		f    sdk.Function
		in   string
		want string
	}{
		{"error", sdk.Map("m", add, func(sdk.Context, *sdk.Input, *sdk.Emitter[int]) error { return broken }), "x", "m: input f: broken"},
		{"panic", sdk.Map("m", add, func(sdk.Context, *sdk.Input, *sdk.Emitter[int]) error { panic("oops") }), "x", "m: input f: panic: oops\n"},
		{"do", sdk.Do("d", func(sdk.Context) error { return broken }), "x", "d: broken"},
		{"no record", print, "no tab", "print: input f: line 1 is no record"},
		{"value", print, "a\t1\nb\tx\n", "print: input f: line 2: value:"},
		{"key", print, "a\\x\t1\n", "print: input f: line 1: key"},
		{"key ends", print, "a\\\t1\n", "print: input f: line 1: key"},
		{"create", sdk.Do("d", func(ctx sdk.Context) error { _, err := ctx.Create("../x"); return err }), "", "d: create \"../x\""},
	} {
		_, err := sdktest.Try(test.f, map[string]string{"f": test.in})
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	if _, err := sdktest.Try(sdk.Do("d", func(sdk.Context) error { return broken }), nil); !errors.Is(err, broken) {
		t.Errorf("%v does not wrap its cause", err)
	}
}

func TestTask(t *testing.T) {
	f := sdk.Do("do", func(ctx sdk.Context) error {
		ctx.Logf("args %v", ctx.Args())
		for in, err := range ctx.Inputs() {
			if err != nil {
				return err
			}
			w, err := ctx.Create("copies/" + in.Name)
			if err != nil {
				return err
			}
			if _, err := io.Copy(w, in); err != nil {
				return err
			}
			if err := w.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	r := sdktest.Run(t, f, map[string]string{"a": "1", "b": "2"}, sdktest.Args("x"))
	if r.Stderr != "args [x]\n" || len(r.Out) != 2 || r.Out["copies/b"] != "2" {
		t.Errorf("%+v", r)
	}
}

// FuzzRecords: whatever the keys, they come out of reduce as they went into map.
func FuzzRecords(f *testing.F) {
	f.Add("key", "other\tkey\n\r\\", "")
	f.Add("\\", "\\\\", "\\t")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		want := map[string]int{}
		for _, k := range []string{a, b, c} {
			want[k]++
		}
		m := sdk.Map("m", add, func(_ sdk.Context, _ *sdk.Input, out *sdk.Emitter[int]) error {
			for _, k := range []string{a, b, c} {
				out.Emit(k, 1)
			}
			return nil
		})
		got := map[string]int{}
		r := sdk.Reduce("r", add, func(_ sdk.Context, all iter.Seq2[string, int]) error {
			for k, n := range all {
				got[k] = n
			}
			return nil
		})
		sdktest.MapReduce(t, m, r, map[string]string{"x": ""})
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// FuzzDecode: reduce refuses what is no record, and does not panic.
func FuzzDecode(f *testing.F) {
	f.Add("a\t1\n")
	f.Add("\\\t\n\t1")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := sdktest.Try(print, map[string]string{"f": text}); err != nil && strings.Contains(err.Error(), "panic") {
			t.Error(err)
		}
	})
}

func BenchmarkEmitBytes(b *testing.B) {
	words := strings.Fields(strings.Repeat("the quick brown fox jumps over the lazy dog ", 1000))
	f := sdk.Map("m", add, func(_ sdk.Context, _ *sdk.Input, out *sdk.Emitter[int]) error {
		for b.Loop() {
			for _, w := range words {
				out.EmitBytes([]byte(w), 1)
			}
		}
		return nil
	})
	b.ReportMetric(float64(len(words)), "words/op")
	sdktest.Run(b, f, map[string]string{"x": ""})
}
