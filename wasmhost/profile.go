package wasmhost

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	pprof "github.com/google/pprof/profile"
	"github.com/ipfs/go-cid"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
)

// A guest is profiled by its fuel, not by the clock: it gets small slices, and each time one is used up,
// what it used is put down to the functions that are being called. So the profile is the same wherever
// and however often the guest runs, and adds up to the fuel of its outcome. Functions so short that their
// callers pay for them are part of their callers. That a call asks for fuel is seen by a listener on the
// function that gives it, in a second instance of the module that has it; other guests have nothing of
// it, and the guest's own code is what it always is.
//
// Slices vary in length, by a fixed sequence, so that a loop whose turns cost a divisor of a slice is not
// seen at the same place each time.
const (
	sampleEach = 10_000 // units on average
	sampleMost = sampleEach * 3 / 2
	sampleLess = sampleEach / 2
)

// Bounds on a profile. Deeper stacks lose their outer calls, and stacks for which there is no room are
// added up as one.
const (
	profileDepth = 28      // calls; the engine tells no more
	profileRoom  = 1 << 20 // bytes of one guest's profile, encoded but not compressed
	mergedRoom   = 8 << 20 // of merged ones
	profileSlack = 1 << 10 // bytes that an encoded profile has besides
	nameMost     = 256     // bytes of a function's name
)

// Names of what is not a function.
const (
	deeperName = "[outer calls]"
	otherName  = "[other stacks]"
)

// instantiateSampler makes a second module that gives fuel, with a listener to its function.
func instantiateSampler(ctx context.Context, rt wazero.Runtime) (api.Module, error) {
	var each experimental.FunctionListener = experimental.FunctionListenerFunc(sample)
	factory := experimental.FunctionListenerFactoryFunc(func(api.FunctionDefinition) experimental.FunctionListener { return each })
	return instantiateRefuel(experimental.WithFunctionListenerFactory(ctx, factory), rt, "")
}

// samplerOf is the module that gives fuel to the guest of ctx; nil when that is the usual one.
func samplerOf(ctx context.Context) api.Module {
	if s, ok := ctx.Value(sandboxKey{}).(*sandbox); ok && s.meter.profile != nil {
		return s.meter.profile.sampler
	}
	return nil
}

// sample is called before a guest is given fuel.
func sample(ctx context.Context, _ api.Module, _ api.FunctionDefinition, params []uint64, calls experimental.StackIterator) {
	m := &ctx.Value(sandboxKey{}).(*sandbox).meter
	used := m.profile.used
	if left := int64(params[0]); left != rewrite.StackFull {
		used = uint64(int64(m.given) - left)
		if m.limit > 0 {
			used = min(used, m.limit)
		}
	}
	m.profile.add(calls, used)
}

// profile is where a guest's fuel went. It is used from the guest's goroutine.
type profile struct {
	sampler api.Module
	module  string
	stacks  stacks
	frames  map[uint32]int32 // by the function's index
	calls   []int32          // of the last sample, innermost first
	last    *stack
	used    uint64 // fuel put down so far
	random  uint64
}

func newProfile(sampler api.Module, module cid.Cid) *profile {
	return &profile{sampler: sampler, module: module.String(), stacks: stacks{room: profileRoom}, frames: map[uint32]int32{}, random: 1}
}

// slice is how much fuel comes before the next sample.
func (p *profile) slice() uint64 {
	p.random ^= p.random << 13 // Marsaglia, Xorshift RNGs (2003)
	p.random ^= p.random >> 7
	p.random ^= p.random << 17
	return sampleLess + p.random%(sampleMost-sampleLess+1)
}

// add puts what was used since the last sample down to the calls under way.
func (p *profile) add(calls experimental.StackIterator, used uint64) {
	p.calls = p.calls[:0]
	for calls.Next() {
		def := calls.Function().Definition()
		if def.GoFunction() != nil {
			continue // an interpreter has the function that gives fuel among them
		}
		if len(p.calls) == profileDepth-1 {
			p.calls = append(p.calls, p.stacks.frame(frame{"", deeperName}))
			break
		}
		p.calls = append(p.calls, p.frame(def))
	}
	p.last = p.stacks.add(p.calls, 1, int64(used-p.used))
	p.used = used
}

func (p *profile) frame(def api.FunctionDefinition) int32 {
	index := def.Index()
	f, ok := p.frames[index]
	if !ok {
		name := def.Name()
		if name == "" {
			name = fmt.Sprintf("func[%d]", index-1) // as in the module that was given; see rewrite
		}
		f = p.stacks.frame(frame{p.module, clip(name, nameMost)})
		p.frames[index] = f
	}
	return f
}

// encode gives the profile of a guest that has used so much fuel. What it used after the last sample is
// put down to the calls of that.
func (p *profile) encode(used uint64) ([]byte, error) {
	if p.last != nil {
		p.last.fuel += int64(used - p.used)
	}
	p.used = used
	return p.stacks.encode()
}

// frame is a function of a module.
type frame struct{ module, name string }

// stack is what was used under the same calls.
type stack struct {
	calls       []int32 // frames, innermost first
	count, fuel int64   // never more than math.MaxInt64 together
}

// stacks adds up samples.
type stacks struct {
	room   int // bytes that more may take, at most
	frames []frame
	number map[frame]int32
	stacks map[string]*stack // by calls
	key    []byte
}

// frame numbers a function. Names are not bounded in number by themselves: each comes with a stack.
func (s *stacks) frame(f frame) int32 {
	n, ok := s.number[f]
	if !ok {
		if s.number == nil {
			s.number = map[frame]int32{}
		}
		if s.room -= 2*len(f.name) + len(f.module) + 64; s.room < 0 && f.name != otherName && f.name != deeperName {
			return -1
		}
		n = int32(len(s.frames))
		s.frames = append(s.frames, f)
		s.number[f] = n
	}
	return n
}

// add adds a sample and returns where it went.
func (s *stacks) add(calls []int32, count, fuel int64) *stack {
	s.key = s.key[:0]
	for _, c := range calls {
		s.key = binary.LittleEndian.AppendUint32(s.key, uint32(c))
	}
	t, ok := s.stacks[string(s.key)]
	if !ok {
		if s.stacks == nil {
			s.stacks = map[string]*stack{}
		}
		size := 40 + 5*len(calls)
		other := s.room < size || slices.Contains(calls, -1)
		if other {
			s.room = min(s.room, 0) // for names, too
			calls = []int32{s.frame(frame{"", otherName})}
			s.key = binary.LittleEndian.AppendUint32(s.key[:0], uint32(calls[0]))
			t = s.stacks[string(s.key)]
		} else {
			s.room -= size
		}
		if t == nil {
			t = &stack{calls: slices.Clone(calls)}
			s.stacks[string(s.key)] = t
		}
	}
	t.count, t.fuel = sum(t.count, count), sum(t.fuel, fuel)
	return t
}

// sum is a+b, of which neither is negative, or the most there is.
func sum(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// The two values of a sample.
var (
	countType = pprof.ValueType{Type: "samples", Unit: "count"}
	fuelType  = pprof.ValueType{Type: "fuel", Unit: "units"}
)

// encode gives the stacks as a compressed pprof profile, the dearest first. Equal stacks give equal bytes.
func (s *stacks) encode() ([]byte, error) {
	all := make([]*stack, 0, len(s.stacks))
	for _, t := range s.stacks {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *stack) int {
		return cmp.Or(cmp.Compare(b.fuel, a.fuel), cmp.Compare(b.count, a.count), slices.CompareFunc(a.calls, b.calls, func(a, b int32) int {
			x, y := s.frames[a], s.frames[b]
			return cmp.Or(strings.Compare(x.name, y.name), strings.Compare(x.module, y.module))
		}))
	})
	count, fuel, period := countType, fuelType, fuelType
	p := &pprof.Profile{SampleType: []*pprof.ValueType{&count, &fuel}, DefaultSampleType: fuel.Type, PeriodType: &period, Period: sampleEach}
	mappings := map[string]*pprof.Mapping{}
	locations := make([]*pprof.Location, len(s.frames))
	locate := func(n int32) *pprof.Location {
		if l := locations[n]; l != nil {
			return l
		}
		f := s.frames[n]
		m := mappings[f.module]
		if m == nil && f.module != "" {
			// Addresses are of no use, but modules must not overlap.
			id := uint64(len(p.Mapping) + 1)
			m = &pprof.Mapping{ID: id, Start: id << 32, Limit: (id + 1) << 32, File: f.module, HasFunctions: true}
			mappings[f.module] = m
			p.Mapping = append(p.Mapping, m)
		}
		id := uint64(len(p.Function) + 1)
		fn := &pprof.Function{ID: id, Name: f.name, SystemName: f.name}
		p.Function = append(p.Function, fn)
		l := &pprof.Location{ID: id, Mapping: m, Line: []pprof.Line{{Function: fn}}}
		p.Location = append(p.Location, l)
		locations[n] = l
		return l
	}
	for _, t := range all {
		x := &pprof.Sample{Value: []int64{t.count, t.fuel}}
		for _, c := range t.calls {
			x.Location = append(x.Location, locate(c))
		}
		p.Sample = append(p.Sample, x)
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Profiles adds up profiles of guests, of any number of modules. The zero value has none. It may not be
// used concurrently.
type Profiles struct {
	stacks *stacks
}

// Add adds the Profile of an [grid.Outcome], which may come from a node that is not trusted: reading one
// takes bounded time and at most some 100 MiB. Anything else is Invalid, and adds nothing.
func (p *Profiles) Add(profile []byte) error {
	in, err := readProfile(profile)
	if err != nil {
		return grid.Errorf(grid.Invalid, "wasmhost: read a profile of %d bytes: %w", len(profile), err)
	}
	if p.stacks == nil {
		p.stacks = &stacks{room: mergedRoom}
	}
	var calls []int32
	for _, s := range in.Sample {
		calls = calls[:0]
		for _, l := range s.Location {
			module := ""
			if l.Mapping != nil {
				module = l.Mapping.File
			}
			for _, line := range l.Line {
				calls = append(calls, p.stacks.frame(frame{module, line.Function.Name}))
			}
		}
		p.stacks.add(calls, s.Value[0], s.Value[1])
	}
	return nil
}

// Bytes is the sum, compressed, of at most about 8 MiB before compression. Without profiles it has no
// samples. In whatever order profiles are added, it is the same, unless there are more stacks than fit.
func (p *Profiles) Bytes() ([]byte, error) {
	s := p.stacks
	if s == nil {
		s = &stacks{}
	}
	b, err := s.encode()
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "wasmhost: write a profile: %w", err)
	}
	return b, nil
}

// MergeProfiles is the sum of some profiles, of which those without a byte are left out. The first that
// is no profile is the error; see [Profiles] to go on without it.
func MergeProfiles(profiles [][]byte) ([]byte, error) {
	var p Profiles
	for i, b := range profiles {
		if len(b) == 0 {
			continue
		}
		if err := p.Add(b); err != nil {
			return nil, grid.Errorf(grid.Invalid, "profile %d of %d: %w", i+1, len(profiles), err)
		}
	}
	return p.Bytes()
}

// readProfile reads what stacks.encode may have written for a guest.
func readProfile(b []byte) (*pprof.Profile, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(z, profileRoom+profileSlack+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > profileRoom+profileSlack {
		return nil, fmt.Errorf("it has more than %d bytes when decompressed", profileRoom+profileSlack)
	}
	p, err := pprof.ParseUncompressed(raw)
	if err != nil {
		return nil, err
	}
	if err := p.CheckValid(); err != nil {
		return nil, err
	}
	is := func(t *pprof.ValueType, want pprof.ValueType) bool { return t.Type == want.Type && t.Unit == want.Unit }
	if len(p.SampleType) != 2 || !is(p.SampleType[0], countType) || !is(p.SampleType[1], fuelType) {
		return nil, fmt.Errorf("its samples are not of %s and %s", countType.Type, fuelType.Type)
	}
	for i, s := range p.Sample {
		if s.Value[0] < 0 || s.Value[1] < 0 {
			return nil, fmt.Errorf("sample %d has a negative value", i)
		}
		depth := 0
		for _, l := range s.Location {
			depth += len(l.Line)
		}
		if depth > profileDepth {
			return nil, fmt.Errorf("sample %d has %d calls, want at most %d", i, depth, profileDepth)
		}
	}
	for _, f := range p.Function {
		if len(f.Name) > nameMost {
			return nil, fmt.Errorf("a function's name has %d bytes, want at most %d", len(f.Name), nameMost)
		}
	}
	for _, m := range p.Mapping {
		if len(m.File) > nameMost {
			return nil, fmt.Errorf("a module's name has %d bytes, want at most %d", len(m.File), nameMost)
		}
	}
	return p, nil
}
