package sdktest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

func TestOptions(t *testing.T) {
	type seen struct {
		Args                  []string
		Number, Env, None     string
		Secret, File, Refused string
	}
	look := func(ctx sdk.Context, in []string) (s seen, err error) {
		s.Args, s.Number, s.Env, s.None = ctx.Args(), ctx.Number(), ctx.Env("A"), ctx.Env("C")
		secret, err := ctx.Secret("s")
		if err != nil {
			return s, err
		}
		_, err = ctx.Secret("other")
		s.Secret, s.Refused = string(secret), err.Error()
		f, err := ctx.Open("bafy")
		if err != nil {
			return s, err
		}
		defer f.Close()
		_, err = fmt.Fscan(f, &s.File)
		w, _ := ctx.Create("left")
		fmt.Fprint(w, "behind")
		ctx.Logf("one\n")
		ctx.Logf("two")
		ctx.Observe("size", 2)
		return s, err
	}
	var r sdktest.Result
	got := sdktest.Call(t, look, nil, sdktest.Args("x", "y"), sdktest.Number(3), sdktest.Env("A", "1"), sdktest.Env("B", "2"), sdktest.Secret("s", "hush"),
		sdktest.Data("bafy", "", "content"), sdktest.Into(&r))
	want := seen{[]string{"x", "y"}, "3", "1", "", "hush", "content", `secret "other": not granted: give sdktest.Secret`}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v", got)
	}
	if strings.Join(r.Log(), ",") != "one,two" || r.Out["left"] != "behind" || r.Histograms["size"][0] != 2 {
		t.Errorf("%+v", r)
	}
	if _, err := sdktest.TryCall(look, nil); err == nil || !strings.Contains(err.Error(), "sdktest.Secret") {
		t.Error(err)
	}
	if _, err := sdktest.TryCall(look, nil, sdktest.Secret("s", "")); err == nil || !strings.Contains(err.Error(), "sdktest.Data") {
		t.Error(err)
	}
}

// What is spawned runs in this process, with the same map, metrics and log.
func TestSpawn(t *testing.T) {
	child := sdk.Do("child", func(ctx sdk.Context) error {
		ctx.Count("children", 1)
		ctx.Logf("child %v", ctx.Args())
		if len(ctx.Args()) == 0 {
			return errors.New("no arguments")
		}
		return ctx.KV().Put("by", []byte(ctx.Args()[0]))
	})
	parent := sdk.Do("parent", func(ctx sdk.Context) error {
		if _, err := sdk.Spawn(ctx, "child", nil, "x").Await(); err != nil {
			return err
		}
		it, err := ctx.KV().Get("by")
		fmt.Fprintf(ctx.Stdout(), "%s", it.Value)
		if _, err := sdk.Spawn(ctx, "child", nil).Await(); err == nil || err.Error() != "task child: child: no arguments" {
			t.Error(err)
		}
		return err
	})
	r := sdktest.Run(t, parent, nil, sdktest.Functions(child))
	if r.Stdout != "x" || r.Counters["children"] != 2 || r.Stderr != "child [x]\nchild []\n" {
		t.Errorf("%+v", r)
	}
}

// failing takes what a test says, and goes on.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Helper()                           {}
func (f *failing) Errorf(format string, args ...any) { f.said = fmt.Sprintf(format, args...) }

func TestGolden(t *testing.T) {
	name := filepath.Join(t.TempDir(), "testdata", "golden.txt")
	t.Setenv("GRID_UPDATE", "1")
	sdktest.Golden(t, name, "one\ntwo\n")
	os.Unsetenv("GRID_UPDATE")
	sdktest.Golden(t, name, "one\ntwo\n")
	for _, got := range []string{"one\n2\n", "one\ntwo", "one\ntwo\nthree", "", "one\n"} {
		f := &failing{TB: t}
		sdktest.Golden(f, name, got)
		if !strings.Contains(f.said, "differs first in line") {
			t.Errorf("%q: %q", got, f.said)
		}
	}
}
