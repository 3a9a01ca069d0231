package rewrite_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
)

// specTests finds the core test suite of WebAssembly 2.0 where the module cache has it, in the folder
// of wazero.
func specTests(t testing.TB) []string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Skip("no Go toolchain or module cache to take the WebAssembly test suite from: ", err)
	}
	files, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "internal/integration_test/spectest/v2/testdata/*.json"))
	if len(files) == 0 {
		t.Skip("the WebAssembly test suite is not where it was")
	}
	return files
}

type specCommand struct {
	Type       string
	Line       int
	Filename   string
	ModuleType string `json:"module_type"`
	Name, As   string
	Action     struct {
		Type, Module, Field string
		Args                []specValue
	}
	Expected []specValue
}

type specValue struct {
	Type     string
	LaneType string `json:"lane_type"`
	Value    any
}

// words are the value as the engine takes it.
func (v specValue) words() []uint64 {
	w, _ := v.parse()
	return w
}

// parse gives the words, and which of their bits belong to a NaN of arithmetic: those are canonical.
func (v specValue) parse() (words, nans []uint64) {
	number := func(v any, width int) (n, nan uint64) {
		s, _ := v.(string)
		if strings.HasPrefix(s, "nan:") {
			return map[int]uint64{32: 0x7fc00000, 64: 0x7ff8000000000000}[width], 1<<width - 1
		}
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			return n & (1<<width - 1), 0
		}
		signed, _ := strconv.ParseInt(s, 10, 64)
		return uint64(signed) & (1<<width - 1), 0
	}
	if v.Type != "v128" {
		width := 64
		if strings.HasSuffix(v.Type, "32") {
			width = 32
		}
		n, nan := number(v.Value, width)
		return []uint64{n}, []uint64{nan}
	}
	lanes := v.Value.([]any)
	width := 128 / len(lanes)
	words, nans = make([]uint64, 2), make([]uint64, 2)
	for i, l := range lanes {
		n, nan := number(l, width)
		words[i*width/64] |= n << (i * width % 64)
		nans[i*width/64] |= nan << (i * width % 64)
	}
	return words, nans
}

// world is one engine with the modules of a test, as they are or instrumented.
type world struct {
	t          *testing.T
	rt         wazero.Runtime
	instrument bool
	names      map[string]api.Module
	last       api.Module
	fuel       fuelTank
}

func newWorld(t *testing.T, config wazero.RuntimeConfig, instrument bool, spectest []byte) *world {
	w := &world{t: t, rt: wazero.NewRuntimeWithConfig(t.Context(), config), instrument: instrument, names: map[string]api.Module{}}
	w.fuel.provide(t, w.rt)
	w.load(spectest, "spectest")
	if w.last == nil {
		t.Fatal("spectest")
	}
	return w
}

func (w *world) load(binary []byte, as string) error {
	w.last = nil
	if w.instrument {
		var err error
		if binary, _, err = rewrite.Instrument(binary, fuelled); err != nil {
			return err
		}
	}
	mod, err := w.rt.InstantiateWithConfig(w.t.Context(), binary, wazero.NewModuleConfig().WithName(as))
	if err == nil {
		w.last = mod
	}
	return err
}

// act does what a command says: results, and an error without its stack.
func (w *world) act(c specCommand) ([]uint64, string) {
	mod := w.last
	if c.Action.Module != "" {
		mod = w.names[c.Action.Module]
	}
	if mod == nil {
		return nil, "no module"
	}
	if c.Action.Type == "get" {
		return []uint64{mod.ExportedGlobal(c.Action.Field).Get()}, ""
	}
	f := mod.ExportedFunction(c.Action.Field)
	var args []uint64
	for _, a := range c.Action.Args {
		args = append(args, a.words()...)
	}
	out, err := f.Call(w.t.Context(), args...)
	if g, ok := mod.ExportedGlobal(rewrite.ExportDepth).(api.MutableGlobal); ok && err != nil {
		g.Set(rewrite.MaxDepth) // those under way have ended
	}
	i := 0
	for _, t := range f.Definition().ResultTypes() {
		if i >= len(out) {
			break
		}
		switch t {
		case api.ValueTypeI32, api.ValueTypeF32:
			out[i] = uint64(uint32(out[i]))
		case 0x70: // a funcref is a pointer
			out[i] = min(out[i], 1)
		case 0x7b: // a vector has two words
			i++
		}
		i++
	}
	return slices.Clone(out), reason(err)
}

// reason is an error without its stack.
func reason(err error) string {
	if err == nil {
		return ""
	}
	s, _, _ := strings.Cut(err.Error(), "\nwasm stack trace")
	return s
}

// TestSpec runs the test suite on original and instrumented modules, and compares what they do, NaNs of
// arithmetic with the canonical one; the instrumented ones also by interpreter, and compares the fuel.
func TestSpec(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	for _, file := range specTests(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			t.Parallel()
			runSpec(t, file)
		})
	}
}

func runSpec(t *testing.T, file string) {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(file), name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var test struct{ Commands []specCommand }
	if err := json.Unmarshal(read(filepath.Base(file)), &test); err != nil {
		t.Fatal(err)
	}
	spectest := read("../../testdata/spectest.wasm")
	compiler, interpreter := wazero.NewRuntimeConfigCompiler(), wazero.NewRuntimeConfigInterpreter()
	worlds := []*world{
		newWorld(t, compiler, false, spectest), newWorld(t, compiler, true, spectest), newWorld(t, interpreter, true, spectest),
	}
	defer func() {
		for _, w := range worlds {
			w.rt.Close(context.Background())
		}
	}()
	for i, c := range test.Commands {
		switch c.Type {
		case "module":
			as := ""
			if i+1 < len(test.Commands) && test.Commands[i+1].Type == "register" {
				as = test.Commands[i+1].As
			}
			for _, w := range worlds {
				if err := w.load(read(c.Filename), as); err != nil {
					t.Errorf("line %d: %v", c.Line, err)
				}
				if c.Name != "" {
					w.names[c.Name] = w.last
				}
			}
		case "assert_invalid", "assert_malformed", "assert_unlinkable", "assert_uninstantiable":
			if c.ModuleType == "text" {
				continue
			}
			// A module that fails to start may have changed others by then, so all try it.
			binary := read(c.Filename)
			var refused [3]bool
			for i, w := range worlds {
				last := w.last
				refused[i] = w.load(binary, "") != nil
				w.last = last
			}
			if refused != [3]bool{true, true, true} && refused != [3]bool{} {
				t.Errorf("line %d: %s: refused as it is, instrumented, interpreted: %v", c.Line, c.Type, refused)
			}
		case "assert_return", "assert_trap", "assert_exhaustion", "action":
			want, wantErr := worlds[0].act(c)
			at := 0
			for _, v := range c.Expected {
				if c.Type != "assert_return" {
					break // the value is not there
				}
				words, nans := v.parse()
				for i := range words {
					if at < len(want) && !strings.HasSuffix(c.Action.Field, "_neg_canon") { // that is the other one
						want[at] = want[at]&^nans[i] | words[i]&nans[i]
					}
					at++
				}
			}
			var fuel [3]int64
			for i, w := range worlds[1:] {
				if w == worlds[2] && c.Type == "assert_exhaustion" {
					continue // how deep the stack is depends on the engine
				}
				before := w.fuel.used()
				got, gotErr := w.act(c)
				fuel[i] = w.fuel.used() - before
				if strings.Contains(wantErr, "stack overflow") && w.fuel.full > 0 {
					gotErr, w.fuel.full = wantErr, 0
				}
				if wantErr != gotErr || !slices.Equal(want, got) {
					t.Errorf("line %d: %s %v %v: %x %q, want %x %q", c.Line, c.Type, c.Action.Field, c.Action.Args, got, gotErr, want, wantErr)
				}
			}
			if fuel[0] != fuel[1] && c.Type != "assert_exhaustion" {
				t.Errorf("line %d: %v used %d fuel compiled, %d interpreted", c.Line, c.Action.Field, fuel[0], fuel[1])
			}
		}
	}
}
