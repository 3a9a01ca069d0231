package wasi

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/grid/gridtest"
)

//go:embed testdata/guest/main.go
var guestSource []byte

// run runs a module to its end.
func run(t testing.TB, binary []byte, state *State) uint32 {
	t.Helper()
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	b := r.NewHostModuleBuilder(moduleName)
	Export(b)
	if _, err := b.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	mod, err := r.InstantiateWithConfig(ctx, binary, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	_, err = mod.ExportedFunction("_start").Call(state.Context(ctx))
	var exit *sys.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if mod.IsClosed() {
		t.Error("the module was closed")
	}
	if exit != nil {
		return exit.ExitCode()
	}
	return 0
}

// TestGo runs a Go program that uses the standard library on all of this.
func TestGo(t *testing.T) {
	binary, err := gridtest.BuildGuest(guestSource)
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	s := new(State)
	input := strings.Repeat("0123456789", 300_000)
	s.Reset(Config{
		Args:   []string{"guest", "a", "", "b c"},
		Env:    []string{"KEY=value=x", "PWD=/"},
		Stdin:  strings.NewReader(input),
		Stdout: &stdout, Stderr: &stderr,
		Mounts: map[string]fs.FS{"/in": fstest.MapFS{"a": {Data: []byte("input a")}, "d/b": {Data: []byte("input b")}}},
		Bytes:  4 << 20, Files: 3000,
	})
	defer s.Reset(Config{})
	if exit := run(t, binary, s); exit != 0 || stdout.String() != "done\n" {
		t.Errorf("exit code %d, host %v\n%s\n%.2000s", exit, s.Err(), stdout.String(), stderr.String())
	}
	if stderr.String() != input {
		t.Errorf("%d bytes on stderr, want %d", stderr.Len(), len(input))
	}
	if s.Refused() != (Refused{}) || s.Out() != nil {
		t.Errorf("refused %v, out %v", s.Refused(), s.Out())
	}
}
