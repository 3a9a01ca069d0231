package sdk

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func fib(ctx Context, n int) (int, error) {
	switch {
	case n < 0:
		return 0, errors.New("negative")
	case n < 2:
		return n, nil
	}
	a, b := Go(ctx, fib, n-1), Go(ctx, fib, n-2)
	x, err := a.Await()
	if err != nil {
		return 0, err
	}
	y, err := b.Await()
	return x + y, err
}

func TestGo(t *testing.T) {
	upper := Do("upper", func(ctx Context) error {
		in, err := ctx.all()
		if err == nil {
			_, err = ctx.Stdout().Write(append(bytes.ToUpper(in), strings.Join(ctx.Args(), ",")...))
		}
		return err
	})
	ctx := Context{&task{host: Host{Functions: []Function{Func("fib", fib), upper}}}}
	p := Go(ctx, fib, 15)
	for range 2 {
		if n, err := p.Await(); n != 610 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if _, err := Go(ctx, fib, -1).Await(); err == nil || !strings.Contains(err.Error(), "fib: negative") {
		t.Error(err)
	}
	if _, err := Go(ctx, func(Context, int) (int, error) { return 0, nil }, 1).Await(); err == nil || !strings.Contains(err.Error(), "sdk.Func") {
		t.Error(err)
	}
	if out, err := Spawn(ctx, "upper", []byte("abc"), "x", "y").Await(); string(out) != "ABCx,y" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := Spawn(ctx, "lower", nil).Await(); err == nil || !strings.Contains(err.Error(), `no function "lower", only: fib, upper`) {
		t.Error(err)
	}
}

func TestFuncAsStage(t *testing.T) {
	f := Func("fib", fib)
	run := func(in string) (string, error) {
		var out bytes.Buffer
		err := f.Run(Host{Functions: []Function{f}, Stdout: &out, Stderr: io.Discard, Inputs: []File{{Name: "stdin", Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(in)), nil
		}}}})
		return out.String(), err
	}
	if out, err := run("10"); out != "55" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := run(`"ten"`); err == nil || !strings.Contains(err.Error(), `fib: the input is a string at byte 5, after "\"ten\"": it should be an integer (int)`) {
		t.Error(err)
	}
}

func TestEncodeCall(t *testing.T) {
	got := encodeCall("fib", []byte("in"), []string{"a", ""})
	want := "\x03\x00\x00\x00fib\x02\x00\x00\x00\x01\x00\x00\x00a\x00\x00\x00\x00in"
	if string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTaskFailed(t *testing.T) {
	for _, tt := range []struct{ stderr, want string }{
		{"", "task rec: exit code 1"},
		{"rec: too deep\n", "task rec: exit code 1: too deep"},
		{"something else", "task rec: exit code 1: something else"},
		{"rec: task rec: exit code 1: too deep", "task rec: exit code 1: too deep"},
		{"rec: task rec: exit code 1", "task rec: exit code 1"},
		{"rec: task rec: exit code 2: x", "task rec: exit code 1: task rec: exit code 2: x"},
		{"rec: task sum: exit code 1: x", "task rec: exit code 1: task sum: exit code 1: x"},
	} {
		if got := taskFailed("rec", 1, tt.stderr).Error(); got != tt.want {
			t.Errorf("%q makes %q, want %q", tt.stderr, got, tt.want)
		}
	}
}

// What Main is given is looked at before anything runs.
func TestRun(t *testing.T) {
	f := Do("same", func(Context) error { t.Error("it runs"); return nil })
	if err := run([]Function{f, f}, "same", nil); err == nil || !strings.Contains(err.Error(), `the same name, "same"`) {
		t.Error(err)
	}
	if err := run([]Function{f}, "other", nil); err == nil || !strings.Contains(err.Error(), `no function "other", only: same`) {
		t.Error(err)
	}
	if err := run(nil, "grid.describe", nil); err == nil || !strings.Contains(err.Error(), "no functions") {
		t.Error(err)
	}
}
