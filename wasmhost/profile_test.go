package wasmhost_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	pprof "github.com/google/pprof/profile"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

// names is the name section of a module whose functions are numbered from first on.
func names(first uint32, names ...string) []byte {
	list := wasmbytes.U32(nil, uint32(len(names)))
	for i, n := range names {
		list = append(wasmbytes.U32(wasmbytes.U32(list, first+uint32(i)), uint32(len(n))), n...)
	}
	return append([]byte("\x04name"), wasmbytes.Section(nil, 1, list)...)
}

// counted does what parts do n times over, by a local.
func counted(local uint32, n int64, parts ...[]byte) []byte {
	op, code := wasmbytes.Op, wasmbytes.Code
	return code(wasmbytes.Const64(n), op(0x21, local), []byte{0x03, 0x40}, code(parts...),
		op(0x20, local), wasmbytes.Const64(1), op(0x7d), op(0x22, local), wasmbytes.Const64(0), op(0x52), op(0x0d, 0), []byte{0x0b})
}

// hotAndCold is a module whose function hot takes nine times as long as cold, called by two functions, and
// which moves some memory.
func hotAndCold() []byte {
	call, i32 := wasmbytes.Call, wasmbytes.Const
	return wasmbytes.Program{
		Imports: []wasmbytes.Import{wasmbytes.System("sched_yield")}, MinPages: 16,
		Funcs: []wasmbytes.Func{
			{Locals: 1, Code: counted(0, 90_000)},
			{Locals: 1, Code: counted(0, 10_000)},
			{Code: wasmbytes.Code(call(1), call(2))},
			{Locals: 1, Code: wasmbytes.Code(i32(0), i32(1), i32(1<<20), wasmbytes.Misc(11, 0))},
			{Code: wasmbytes.Code(call(3), call(0), wasmbytes.Drop(), call(1), call(4))},
		},
		Custom: names(0, "yield", "hot", "cold", "both", "fill", "main"),
	}.Bytes()
}

func parseProfile(t testing.TB, b []byte) *pprof.Profile {
	t.Helper()
	p, err := pprof.Parse(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CheckValid(); err != nil {
		t.Fatal(err)
	}
	return p
}

// sums are the fuel and the samples of a profile, and its fuel by the innermost function.
func sums(p *pprof.Profile) (fuel, samples int64, flat map[string]int64) {
	flat = map[string]int64{}
	for _, s := range p.Sample {
		samples += s.Value[0]
		fuel += s.Value[1]
		flat[s.Location[0].Line[0].Function.Name] += s.Value[1]
	}
	return fuel, samples, flat
}

// profiled runs a guest with and without a profile, checks that nothing else differs, and that the
// profile adds up.
func profiled(t *testing.T, h *wasmhost.Host, g grid.Guest) ([]byte, grid.Outcome) {
	t.Helper()
	run := func(profile bool) (grid.Outcome, string) {
		var out bytes.Buffer
		g := g
		g.Stdout, g.Stderr, g.Profile = &out, &out, profile
		o, err := h.Run(t.Context(), &g)
		if err != nil {
			t.Fatal(err)
		}
		return o, out.String()
	}
	without, want := run(false)
	with, got := run(true)
	again, _ := run(true)
	if without.Profile != nil || with.Profile == nil {
		t.Error("a profile is there when it is not asked for, or is not")
	}
	if got != want || with.Fuel != without.Fuel || with.Exit != without.Exit || (with.Fault == nil) != (without.Fault == nil) || with.Memory != without.Memory {
		t.Errorf("profiled %+v and %q, else %+v and %q", with, got, without, want)
	}
	if !bytes.Equal(with.Profile, again.Profile) {
		t.Error("the second profile differs")
	}
	if fuel, _, _ := sums(parseProfile(t, with.Profile)); fuel != int64(with.Fuel) {
		t.Errorf("the profile adds up to %d, the guest used %d", fuel, with.Fuel)
	}
	return with.Profile, with
}

func TestProfile(t *testing.T) {
	var l loader
	id := l.add(hotAndCold())
	var first []byte
	for name, open := range map[string]func(wasmhost.Config) (*wasmhost.Host, error){
		"compiler": wasmhost.Open, "fresh": wasmhost.OpenFresh, "interpreter": wasmhost.OpenInterpreter,
	} {
		h := closing(t)(open(wasmhost.Config{Load: l.load}))
		b, out := profiled(t, h, grid.Guest{Module: id})
		if first == nil {
			first = b
		}
		if !bytes.Equal(b, first) {
			t.Errorf("%s: profiles differ", name)
		}
		p := parseProfile(t, b)
		fuel, samples, flat := sums(p)
		if samples < int64(out.Fuel)/12_000 || samples > int64(out.Fuel)/8_000 {
			t.Errorf("%d samples of %d fuel, want one each 10000", samples, fuel)
		}
		// hot is called twice, so it is 18 to 1; the rest is memory.fill, which 2^20/8 units are.
		if hot, cold, fill := flat["hot"], flat["cold"], flat["grid.fill"]; hot < 16*cold || hot > 20*cold || fill < 1<<17 || fill > 1<<17+20_000 {
			t.Errorf("%s: %v", name, flat)
		}
		var stacks []string
		for _, s := range p.Sample {
			var names []string
			for _, l := range s.Location {
				if l.Mapping == nil || l.Mapping.File != id.String() {
					t.Errorf("%v is of %v, want %s", l, l.Mapping, id)
				}
				names = append(names, l.Line[0].Function.Name)
			}
			stacks = append(stacks, strings.Join(names, " "))
		}
		for _, want := range []string{"hot both main", "cold both main", "hot main", "grid.fill fill main"} {
			if !slices.Contains(stacks, want) {
				t.Errorf("%s: no stack %q in %q", name, want, stacks)
			}
		}
		if strings.Contains(strings.Join(stacks, " "), "refuel") {
			t.Errorf("%s: the function that gives fuel is in %q", name, stacks)
		}
		if s := wasmhost.Idle(h); name == "compiler" && s.Count > 1 {
			t.Errorf("%d idle instances, want only that of the guest that was not profiled", s.Count)
		}
	}
}

func TestProfileWithoutNames(t *testing.T) {
	var l loader
	h := open(t, wasmhost.Config{Load: l.load})
	b, _ := profiled(t, h, grid.Guest{Module: l.add(wasmbytes.Program{
		Imports: []wasmbytes.Import{wasmbytes.System("sched_yield")},
		Funcs:   []wasmbytes.Func{{Locals: 1, Code: counted(0, 50_000)}, {Code: wasmbytes.Call(1)}},
	}.Bytes())})
	if _, _, flat := sums(parseProfile(t, b)); flat["func[1]"] < 100_000 {
		t.Errorf("%v, want func[1] on top", flat)
	}
}

// However a guest ends, its fuel is accounted for.
func TestProfileOfEndings(t *testing.T) {
	var l loader
	h := open(t, wasmhost.Config{Load: l.load})
	for name, g := range map[string]grid.Guest{
		"nothing": {Module: l.add(wasmbytes.Noop())}, "exit": {Module: l.add(wasmbytes.Exit(3))}, "trap": {Module: l.add(wasmbytes.Unreachable())},
		"fuel":      {Module: l.add(wasmbytes.Loop()), Limits: grid.Limits{Fuel: 1_234_567}},
		"one unit":  {Module: l.add(hotAndCold()), Limits: grid.Limits{Fuel: 1}},
		"recursion": {Module: l.add(wasmbytes.Recurse())},
		"stubs": {Module: l.add(wasmbytes.Program{
			Imports: []wasmbytes.Import{{Module: "wasi_snapshot_preview1", Name: "sock_open", Params: []byte{wasmbytes.I32}, Results: []byte{wasmbytes.I32}}},
			Funcs:   []wasmbytes.Func{{Locals: 1, Code: counted(0, 10_000)}},
		}.Bytes())},
	} {
		t.Run(name, func(t *testing.T) {
			b, out := profiled(t, h, g)
			p := parseProfile(t, b)
			if name == "fuel" && out.Fuel != 1_234_567 {
				t.Errorf("used %d", out.Fuel)
			}
			deepest := 0
			for _, s := range p.Sample {
				deepest = max(deepest, len(s.Location))
			}
			if name == "recursion" && deepest != wasmhost.ProfileDepth || deepest > wasmhost.ProfileDepth {
				t.Errorf("%d calls deep, want %d at most", deepest, wasmhost.ProfileDepth)
			}
		})
	}
}

// A Go program's profile, as go tool pprof shows it.
func TestProfileOfGo(t *testing.T) {
	binary, err := kernels()
	if err != nil {
		t.Fatal(err)
	}
	var l loader
	h := open(t, wasmhost.Config{Load: l.load})
	for kernel, hot := range map[string]string{"fib": "main.fib", "sha256": "sha256.block", "matmul": "main.matmul"} {
		t.Run(kernel, func(t *testing.T) {
			b, out := profiled(t, h, grid.Guest{Module: l.add(binary), Args: []string{"kernels", kernel, "8"}})
			t.Logf("%d fuel, %d bytes", out.Fuel, len(b))
			if testing.Short() {
				return
			}
			file := filepath.Join(t.TempDir(), "profile")
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			text, err := exec.Command("go", "tool", "pprof", "-top", "-nodecount=5", file).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			_, table, ok := strings.Cut(string(text), "cum%\n")
			if top, _, _ := strings.Cut(table, "\n"); !ok || !strings.Contains(top, hot) || !strings.Contains(string(text), "Type: fuel") {
				t.Errorf("%s is not on top:\n%s", hot, text)
			}
			raw, err := exec.Command("go", "tool", "pprof", "-raw", file).CombinedOutput()
			if err != nil || !bytes.Contains(raw, []byte("samples/count fuel/units[dflt]")) || !bytes.Contains(raw, []byte("main.main")) {
				t.Errorf("%v\n%.2000s", err, raw)
			}
		})
	}
}

func TestMergeProfiles(t *testing.T) {
	make := func(module string, all ...[]string) []byte {
		t.Helper()
		b, err := wasmhost.ProfileOf(module, all...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a := make("m1", []string{"f", "main"}, []string{"g", "main"}, []string{"f", "main"})
	b := make("m1", []string{"g", "main"}, []string{"g", "main"}, []string{"h"})
	c := make("m2", []string{"f", "main"})
	merge := func(in ...[]byte) []byte {
		t.Helper()
		out, err := wasmhost.MergeProfiles(in)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	want := merge(a, b, c)
	if !bytes.Equal(want, merge(c, nil, b, a)) {
		t.Error("the order matters")
	}
	if !bytes.Equal(merge(a, b), make("m1", []string{"g", "main"}, []string{"h"}, []string{"f", "main"}, []string{"g", "main"}, []string{"f", "main"}, []string{"g", "main"})) {
		t.Error("merging is not the same as counting together")
	}
	if !bytes.Equal(merge(a), a) || !bytes.Equal(merge(merge(a, b), c), want) {
		t.Error("merging one changes it")
	}
	fuel, samples, _ := sums(parseProfile(t, want))
	if fuel != 7 || samples != 7 || len(parseProfile(t, want).Sample) != 4 {
		t.Errorf("%d fuel, %d samples", fuel, samples)
	}
	if p := parseProfile(t, merge()); len(p.Sample) != 0 {
		t.Errorf("%d samples of nothing", len(p.Sample))
	}
	var sum wasmhost.Profiles
	for _, err := range []error{sum.Add(a), sum.Add(b), sum.Add(c)} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := sum.Add(a[:len(a)/2]); !errors.Is(err, grid.Invalid) {
		t.Errorf("half a profile: %v", err)
	}
	if got, err := sum.Bytes(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what was refused left traces: %v", err)
	}
}

// encodeProfile is a profile with one sample, changed.
func encodeProfile(t testing.TB, change func(*pprof.Profile)) []byte {
	t.Helper()
	fn := &pprof.Function{ID: 1, Name: "f"}
	loc := &pprof.Location{ID: 1, Line: []pprof.Line{{Function: fn}}}
	p := &pprof.Profile{
		SampleType: []*pprof.ValueType{{Type: "samples", Unit: "count"}, {Type: "fuel", Unit: "units"}},
		Sample:     []*pprof.Sample{{Location: []*pprof.Location{loc}, Value: []int64{1, 2}}},
		Location:   []*pprof.Location{loc}, Function: []*pprof.Function{fn},
	}
	change(p)
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compress(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

func TestMergeRefuses(t *testing.T) {
	good := encodeProfile(t, func(*pprof.Profile) {})
	if _, err := wasmhost.MergeProfiles([][]byte{good}); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"no gzip": []byte("profile"), "empty": compress(nil), "cut": good[:len(good)-5],
		"a bomb": compress(make([]byte, 100<<20)), "zeros": compress(make([]byte, 100)),
		"more than a guest's":  compress(bytes.Repeat([]byte{0x12, 0}, wasmhost.ProfileBytes/2+1)),
		"a million samples":    compress(bytes.Repeat([]byte{0x12, 0}, wasmhost.ProfileBytes/2-1)),
		"other values":         encodeProfile(t, func(p *pprof.Profile) { p.SampleType[1].Type = "cpu" }),
		"one value":            encodeProfile(t, func(p *pprof.Profile) { p.SampleType = p.SampleType[:1]; p.Sample[0].Value = []int64{1} }),
		"fewer values":         encodeProfile(t, func(p *pprof.Profile) { p.Sample[0].Value = []int64{1} }),
		"negative":             encodeProfile(t, func(p *pprof.Profile) { p.Sample[0].Value[1] = -1 }),
		"a long name":          encodeProfile(t, func(p *pprof.Profile) { p.Function[0].Name = strings.Repeat("x", 300) }),
		"a location of others": encodeProfile(t, func(p *pprof.Profile) { p.Location = nil }),
		"deep": encodeProfile(t, func(p *pprof.Profile) {
			p.Sample[0].Location = slices.Repeat(p.Sample[0].Location, wasmhost.ProfileDepth+1)
		}),
		"deep by inlining": encodeProfile(t, func(p *pprof.Profile) {
			p.Location[0].Line = slices.Repeat(p.Location[0].Line, wasmhost.ProfileDepth+1)
		}),
	} {
		if _, err := wasmhost.MergeProfiles([][]byte{good, b}); !errors.Is(err, grid.Invalid) || !strings.Contains(err.Error(), "2 of 2") {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
	most := encodeProfile(t, func(p *pprof.Profile) { p.Sample[0].Value[1] = math.MaxInt64 })
	b, err := wasmhost.MergeProfiles([][]byte{most, most, good})
	if err != nil {
		t.Fatal(err)
	}
	if p := parseProfile(t, b); p.Sample[0].Value[1] != math.MaxInt64 || p.Sample[0].Value[0] != 3 {
		t.Errorf("%v, want no overflow", p.Sample[0].Value)
	}
}

// Too many stacks or names are added up as one, within the bounds, and nothing gets lost.
func TestProfileBounds(t *testing.T) {
	noRaces(t)
	size := func(b []byte) int {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, z)
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	long := strings.Repeat("x", 240)
	var deep []string
	for range wasmhost.ProfileDepth - 1 {
		deep = append(deep, "r")
	}
	for name, stack := range map[string]func(i int) []string{
		"many names": func(i int) []string { return []string{fmt.Sprintf("%s%d", long, i)} },
		"many pairs": func(i int) []string { return []string{fmt.Sprint(i % 300), fmt.Sprint(i / 300)} },
		"many deep":  func(i int) []string { return append([]string{fmt.Sprint(i)}, deep...) },
	} {
		const n = 60_000
		all := make([][]string, n)
		for i := range all {
			all[i] = stack(i)
		}
		b, err := wasmhost.ProfileOf("m", all...)
		if err != nil {
			t.Fatal(err)
		}
		if fuel, _, flat := sums(parseProfile(t, b)); fuel != n || flat["[other stacks]"] == 0 || flat["[other stacks]"] == n {
			t.Errorf("%s: %d fuel, %d in other stacks", name, fuel, flat["[other stacks]"])
		}
		if s := size(b); s > wasmhost.ProfileBytes || s < wasmhost.ProfileBytes/10 {
			t.Errorf("%s: %d bytes, want at most %d", name, s, wasmhost.ProfileBytes)
		}
		var sum wasmhost.Profiles
		for i := range 20 {
			other, err := wasmhost.ProfileOf(fmt.Sprint("m", i), all...)
			if err == nil {
				err = sum.Add(other)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		merged, err := sum.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if fuel, _, _ := sums(parseProfile(t, merged)); fuel != 20*n {
			t.Errorf("%s: merged %d fuel, want %d", name, fuel, 20*n)
		}
		if s := size(merged); s > wasmhost.MergedBytes {
			t.Errorf("%s: merged %d bytes, want at most %d", name, s, wasmhost.MergedBytes)
		}
	}
}

// FuzzProfiles reads profiles of other nodes, compressed and not. What is accepted must add up to what
// can be read again.
func FuzzProfiles(f *testing.F) {
	raw := func(b []byte) []byte {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			f.Fatal(err)
		}
		out, err := io.ReadAll(z)
		if err != nil {
			f.Fatal(err)
		}
		return out
	}
	small, err := wasmhost.ProfileOf("module", []string{"f", "g", "main"}, []string{"g", "main"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(small)
	f.Add(raw(small))
	f.Add(raw(encodeProfile(f, func(*pprof.Profile) {})))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, compress(b)} {
			var p wasmhost.Profiles
			if err := p.Add(b); err != nil {
				if !errors.Is(err, grid.Invalid) {
					t.Fatal(err)
				}
				continue
			}
			once, err := p.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			again, err := wasmhost.MergeProfiles([][]byte{once})
			if err != nil || !bytes.Equal(once, again) {
				t.Fatalf("what was read cannot be read again: %v", err)
			}
		}
	})
}

// BenchmarkProfile compares profiled guests with others.
func BenchmarkProfile(b *testing.B) {
	binary, err := kernels()
	if err != nil {
		b.Fatal(err)
	}
	for _, kernel := range []string{"sha256", "sort", "fib", "json", "matmul"} {
		for _, profile := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/profile=%v", kernel, profile), func(b *testing.B) {
				f := &fixed{binary: binary}
				h := open(b, wasmhost.Config{Load: f.load})
				g := grid.Guest{Module: f.cid(), Args: []string{"kernels", kernel, "64"}, Stdout: io.Discard, Stderr: io.Discard, Profile: profile}
				run := func() {
					out, err := h.Run(b.Context(), &g)
					if err != nil || out.Fault != nil {
						b.Fatal(out, err)
					}
					b.ReportMetric(float64(len(out.Profile)), "bytes")
				}
				run()
				for b.Loop() {
					run()
				}
			})
		}
	}
}
