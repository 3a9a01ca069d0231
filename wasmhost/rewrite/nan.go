package rewrite

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// shape is a set of the ways in which a value may hold NaNs whose bits depend on the processor; or
// given, when its bits are those that the program has made.
type shape uint8

const (
	given shape = 1 << iota
	f32
	f64
	f32x4
	f64x2
	number // in an effect: a result that is no NaN
	every  = 0xff
)

// effect is what an instruction does to the operand stack. It gives at most one value.
type effect struct {
	pops  uint8
	takes shape // whose NaNs' bits make no difference to it
	gives shape // 0 for nothing
}

// value is what an operand or local holds, followed through the code: a result of floating-point
// arithmetic, or one of several values, depending on the way that was taken.
type value struct {
	shapes  shape // of all the results that it may be
	atOnce  bool  // of a result: its NaNs are made canonical where it is made
	mixed   bool  // its bits are looked at, and it may be a given value as well
	looked  uint8 // at its bits, how often; up to 2
	dirty   bool  // it may be a result whose NaNs are not canonical
	loops   int32 // of a result: that it is made in
	at      int32 // of a result: behind the instruction
	join    int32 // of one of several: where they come together
	sources int32 // first of the edges from those
	uses    int32 // first of the edges to others
}

// What is known without following it.
const (
	valueGiven = iota
	valueNumber
	valuesKnown
)

// edge says that to may be from.
type edge struct {
	from, to            int32
	nextSource, nextUse int32 // of to, of from
}

// operand is a value on the stack. Behind the instruction that put it there, at, its NaNs can be made
// canonical.
type operand struct {
	value, at, loops int32
	typ              byte // 0 if it is not known, where code is not reached
}

// look is an operand whose bits are looked at, unless it has only NaNs of the shapes but.
type look struct {
	operand
	but shape
}

// flow follows values through a function. It costs no more than in proportion to the function: if that is
// not enough, every result is made canonical.
type flow struct {
	values   []value
	edges    []edge
	stack    []operand
	looks    []look
	index    []int32 // of every local, in locals; -1 if it is no floating-point number or vector
	locals   []int32 // their values
	spare    [][]int32
	joins    int32
	effort   int
	tooMuch  bool
	worklist []int32
	found    []point
}

// effortPerByte bounds how many values of locals are looked at where ways meet.
const effortPerByte = 16

// begin starts a function of size bytes with locals of the given types, the first of which are
// parameters.
func (s *scanner) begin(types []byte, params, size int) {
	w := &s.flow
	w.values = append(w.values[:0], value{shapes: given}, value{})
	w.edges = append(w.edges[:0], edge{}) // 0 is none
	w.stack, w.looks, w.index, w.locals, w.found = w.stack[:0], w.looks[:0], w.index[:0], w.locals[:0], w.found[:0]
	w.joins, w.effort, w.tooMuch = 0, effortPerByte*size, s.m.opt.plain
	for i, t := range types {
		switch t {
		case typeF32, typeF64, typeV128:
			w.index = append(w.index, int32(len(w.locals)))
			if i < params {
				w.locals = append(w.locals, valueGiven)
			} else {
				w.locals = append(w.locals, valueNumber)
			}
		default:
			w.index = append(w.index, -1)
		}
	}
}

// apply does what an instruction does.
func (s *scanner) apply(e effect, typ byte) {
	for range e.pops {
		s.look(s.pop(), e.takes)
	}
	switch e.gives {
	case 0:
	case given:
		s.push(valueGiven, typ)
	case number:
		s.push(valueNumber, typ)
	default:
		s.push(int32(len(s.flow.values)), typ)
		s.flow.values = append(s.flow.values, value{shapes: e.gives, at: int32(s.r.off), loops: int32(len(s.regions))})
	}
}

func (s *scanner) push(v int32, typ byte) {
	s.flow.stack = append(s.flow.stack, operand{v, int32(s.r.off), int32(len(s.regions)), typ})
}

// pop takes an operand off the stack. Behind a jump there are as many as it takes.
func (s *scanner) pop() operand {
	w, f := &s.flow, &s.frames[len(s.frames)-1]
	n := len(w.stack) - 1
	if n < f.height {
		if !f.polymorphic {
			s.r.fail("an instruction has fewer operands than it takes")
		}
		return operand{value: valueGiven}
	}
	o := w.stack[n]
	w.stack = w.stack[:n]
	return o
}

func (s *scanner) look(o operand, but shape) {
	if o.value >= valuesKnown && but != every {
		s.flow.looks = append(s.flow.looks, look{o, but})
	}
}

// jump has the operands looked at that a branch to a label takes along, since there they are not
// followed.
func (s *scanner) jump(label uint32) {
	if s.r.err != nil {
		return
	}
	f := &s.frames[len(s.frames)-1-int(label)]
	n := len(f.results)
	if f.kind == opLoop {
		n = len(f.params)
	}
	w := &s.flow
	for _, o := range w.stack[max(s.frames[len(s.frames)-1].height, len(w.stack)-n):] {
		s.look(o, 0)
	}
}

// pass takes operands that the instruction behind looks at, and gives others.
func (s *scanner) pass(params, results []byte) {
	for range params {
		s.look(s.pop(), 0)
	}
	for _, t := range results {
		s.push(valueGiven, t)
	}
}

func (s *scanner) call(typ uint32) { s.pass(s.m.params[typ], s.m.results[typ]) }

// constant puts a number on the stack.
func (s *scanner) constant(b []byte) {
	v := int32(valueNumber)
	if len(b) != 8 && hasNaN(b, 4) || len(b) != 4 && hasNaN(b, 8) {
		v = valueGiven
	}
	typ := byte(typeV128)
	switch len(b) {
	case 4:
		typ = typeF32
	case 8:
		typ = typeF64
	}
	s.push(v, typ)
}

// hasNaN tells whether a part of b of that size is a NaN, or infinite.
func hasNaN(b []byte, size int) bool {
	for ; len(b) >= size; b = b[size:] {
		if hi := uint16(b[size-1])<<8 | uint16(b[size-2]); size == 4 && hi&0x7f80 == 0x7f80 || size == 8 && hi&0x7ff0 == 0x7ff0 {
			return true
		}
	}
	return false
}

// jumped notes that what follows in this block is not reached.
func (s *scanner) jumped() {
	f := &s.frames[len(s.frames)-1]
	f.polymorphic = true
	s.flow.stack = s.flow.stack[:f.height]
}

// local reads or sets a local.
func (s *scanner) local(op byte, i uint32) {
	w := &s.flow
	n := w.index[i]
	if op == opLocalGet {
		if n < 0 {
			s.push(valueGiven, s.types[i])
		} else {
			s.push(w.locals[n], s.types[i])
		}
		return
	}
	o := s.pop()
	if n >= 0 {
		w.locals[n] = o.value
	}
	if op == opLocalTee {
		s.push(o.value, s.types[i])
	}
}

// choose is select, which begins at an offset: what it gives is one of two values.
func (s *scanner) choose(at int) {
	s.pop()
	second, first := s.pop(), s.pop()
	a, b, typ := second.value, first.value, max(second.typ, first.typ)
	if shapeOf(typ) != 0 {
		s.points = append(s.points, point{at, s.r.off, choice, uint32(typ)})
		s.forks(1)
	}
	if a != b {
		v := s.flow.several(0)
		s.flow.maybe(a, v)
		s.flow.maybe(b, v)
		a = v
	}
	s.push(a, typ)
}

// shapeOf is a shape of values of a type: one for floating-point numbers and vectors, else none.
func shapeOf(typ byte) shape {
	switch typ {
	case typeF32:
		return f32
	case typeF64:
		return f64
	case typeV128:
		return f32x4
	}
	return 0
}

// appendChoice appends code that does what select does with floating-point numbers or vectors. The compiler of
// wazero 1.12 gets that wrong on amd64 when it is short of registers: it does not know that its conditional move
// keeps what was there, and may put something else there before.
func (s *scanner) appendChoice(b []byte, sh shape) []byte {
	local := func(op byte, l int) { b = appendU32(append(b, op), uint32(l)) }
	first, second := s.temp[sh], s.other[sh]
	local(opLocalSet, s.condition)
	local(opLocalSet, second)
	local(opLocalSet, first)
	b = append(b, opBlock, blockVoid)
	local(opLocalGet, s.condition)
	b = append(b, opBrIf, 0)
	local(opLocalGet, second)
	local(opLocalSet, first)
	b = append(b, opEnd)
	local(opLocalGet, first)
	return b
}

// several makes a value that is one of several, which come together at a join.
func (w *flow) several(join int32) int32 {
	v := int32(len(w.values))
	w.values = append(w.values, value{join: join})
	return v
}

func (w *flow) maybe(from, to int32) {
	if from == to || from == valueNumber {
		return
	}
	e := int32(len(w.edges))
	f, t := &w.values[from], &w.values[to]
	w.edges = append(w.edges, edge{from, to, t.sources, f.uses})
	f.uses, t.sources = e, e
}

// spend tells whether there is effort left to look at all locals.
func (w *flow) spend() bool {
	w.effort -= len(w.locals)
	w.tooMuch = w.tooMuch || w.effort < 0
	return !w.tooMuch
}

// copy is what locals hold, for later.
func (w *flow) copy(locals []int32) []int32 {
	var c []int32
	if n := len(w.spare); n > 0 {
		c, w.spare = w.spare[n-1], w.spare[:n-1]
	}
	return append(c[:0], locals...)
}

func (w *flow) free(c []int32) {
	if c != nil {
		w.spare = append(w.spare, c)
	}
}

// restore goes on with what locals held elsewhere, and keeps the slice.
func (w *flow) restore(locals []int32) {
	if locals != nil {
		w.free(w.locals)
		w.locals = locals
	}
}

// enter begins an if or loop.
func (s *scanner) enter(f *frame) {
	w := &s.flow
	if f.kind == opBlock || !w.spend() {
		return
	}
	if f.kind == opIf {
		f.before = w.copy(w.locals)
		return
	}
	f.head = int32(len(w.values))
	for i, v := range w.locals {
		h := w.several(0)
		w.maybe(v, h)
		w.locals[i] = h
	}
}

// meet notes that locals may have these values at the label of a block.
func (w *flow) meet(f *frame, locals []int32) {
	if !w.spend() {
		return
	}
	switch {
	case f.kind == opLoop:
		for i, v := range locals {
			w.maybe(v, f.head+int32(i))
		}
	case f.now == nil:
		f.now = w.copy(locals)
		w.joins++
		f.meeting = w.joins
	default:
		for i, v := range locals {
			switch old := f.now[i]; {
			case old == v:
			case w.values[old].join == f.meeting:
				w.maybe(v, old)
			default:
				n := w.several(f.meeting)
				w.maybe(old, n)
				w.maybe(v, n)
				f.now[i] = n
			}
		}
	}
}

// finish ends a block, or the first arm of an if, behind which there are so many values.
func (s *scanner) finish(f *frame, values []byte) {
	w := &s.flow
	if n := len(w.stack) - f.height; n > len(f.results) || n < len(f.results) && !f.polymorphic {
		s.r.fail("a block that gives %d values ends with %d", len(f.results), n)
		return
	}
	for _, o := range w.stack[f.height:] {
		s.look(o, 0)
	}
	w.stack = w.stack[:f.height]
	f.polymorphic = false
	for _, t := range values {
		s.push(valueGiven, t)
	}
}

// settle finds where NaNs must be made canonical: where their bits are looked at, at the latest.
func (s *scanner) settle() {
	w := &s.flow
	if !s.m.opt.NaN || s.r.err != nil {
		return
	}
	defer s.bound()
	if w.tooMuch {
		for i := range w.values {
			w.values[i].atOnce = true
		}
		w.emit()
		return
	}
	// What everything may be.
	for i := range w.values {
		if w.values[i].shapes != 0 {
			w.worklist = append(w.worklist, int32(i))
		}
	}
	w.forward(func(from, to *value) bool {
		old := to.shapes
		to.shapes |= from.shapes
		return to.shapes != old
	})
	// Where results are looked at as they are, and where given values may be, too, so that it can only be
	// done where results are made.
	for _, l := range w.looks {
		v := &w.values[l.value]
		switch shapes := v.shapes; {
		case shapes&^(given|l.but) == 0:
		case shapes&(shapes-1) != 0:
			if !v.mixed {
				v.mixed = true
				w.worklist = append(w.worklist, l.value)
			}
		case v.at == 0:
		default:
			v.looked = min(v.looked+1, 2)
			v.atOnce = v.atOnce || l.at == v.at || v.looked == 2 && v.loops <= l.loops
		}
	}
	w.backward()
	for i := range w.values {
		if v := &w.values[i]; v.at != 0 && !v.atOnce {
			v.dirty = true
			w.worklist = append(w.worklist, int32(i))
		}
	}
	w.forward(func(from, to *value) bool {
		old := to.dirty
		to.dirty = true
		return !old
	})
	for _, l := range w.looks {
		v := &w.values[l.value]
		if v.dirty && v.shapes&^(given|l.but) != 0 {
			w.found = append(w.found, point{int(l.at), int(l.at), canonical, uint32(v.shapes)})
		}
	}
	w.emit()
}

// bound refuses what would make the function too large. Where the jumps that make NaNs canonical would be too
// many for the compiler, it is done without.
func (s *scanner) bound() {
	n := len(s.flow.found)
	if n > maxResults {
		s.tooMuch("floating-point results that are stored, passed on or looked at", n, maxResults)
	}
	all := n + s.branches
	s.jumps = !s.m.opt.plain && n <= maxJumps && all <= maxBranches && all*s.carried <= maxWays
}

// forward follows edges until nothing changes any more.
func (w *flow) forward(change func(from, to *value) bool) {
	for len(w.worklist) > 0 {
		from := w.worklist[len(w.worklist)-1]
		w.worklist = w.worklist[:len(w.worklist)-1]
		for e := w.values[from].uses; e != 0; e = w.edges[e].nextUse {
			if to := w.edges[e].to; change(&w.values[from], &w.values[to]) {
				w.worklist = append(w.worklist, to)
			}
		}
	}
}

// backward has all results made canonical at once that mixed values may be.
func (w *flow) backward() {
	for len(w.worklist) > 0 {
		to := &w.values[w.worklist[len(w.worklist)-1]]
		w.worklist = w.worklist[:len(w.worklist)-1]
		if to.at != 0 {
			to.atOnce = true
		}
		for e := to.sources; e != 0; e = w.edges[e].nextSource {
			i := w.edges[e].from
			if from := &w.values[i]; !from.mixed && i >= valuesKnown {
				from.mixed = true
				w.worklist = append(w.worklist, i)
			}
		}
	}
}

// emit adds the results that are made canonical at once, and sorts.
func (w *flow) emit() {
	for i := range w.values {
		if v := &w.values[i]; v.atOnce && v.at != 0 {
			w.found = append(w.found, point{int(v.at), int(v.at), canonical, uint32(v.shapes)})
		}
	}
	byPlace := func(a, b point) int { return cmp.Compare(a.at, b.at) }
	slices.SortFunc(w.found, byPlace)
	w.found = slices.CompactFunc(w.found, func(a, b point) bool { return a.at == b.at })
}

// appendCanonical appends code that makes the NaNs of the topmost operand canonical. For a number it jumps over
// the NaN, unless there are too many jumps: then the number becomes a vector for the while. (It is not select:
// that is slower, and wazero 1.12 has compiled some programs with it to something else than it interprets.
// That x >= x takes a test less than x == x.)
func (s *scanner) appendCanonical(b []byte, sh shape) []byte {
	temp := s.temp[sh]
	local := func(op byte) { b = appendU32(append(b, op), uint32(temp)) }
	nan := func() {
		switch sh {
		case f32:
			b = binary.LittleEndian.AppendUint32(append(b, opF32Const), nan32)
		case f64:
			b = binary.LittleEndian.AppendUint64(append(b, opF64Const), nan64)
		case f32x4:
			b = binary.LittleEndian.AppendUint64(append(b, opVec, vecConst), nan32<<32|nan32)
			b = binary.LittleEndian.AppendUint64(b, nan32<<32|nan32)
		case f64x2:
			b = binary.LittleEndian.AppendUint64(append(b, opVec, vecConst), nan64)
			b = binary.LittleEndian.AppendUint64(b, nan64)
		}
	}
	compare := func() {
		local(opLocalGet)
		local(opLocalGet)
		switch sh {
		case f32:
			b = append(b, opF32Ge)
		case f64:
			b = append(b, opF64Ge)
		case f32x4:
			b = append(b, opVec, vecF32x4Eq)
		case f64x2:
			b = append(b, opVec, vecF64x2Eq)
		}
	}
	switch {
	case sh&(f32x4|f64x2) != 0:
		local(opLocalTee)
		nan()
		compare()
		return append(b, opVec, vecBitselect)
	case !s.jumps && sh == f32:
		b = s.appendCanonical(append(b, opVec, vecF32x4Splat), f32x4)
		return append(b, opVec, vecF32x4Extract, 0)
	case !s.jumps:
		b = s.appendCanonical(append(b, opVec, vecF64x2Splat), f64x2)
		return append(b, opVec, vecF64x2Extract, 0)
	}
	local(opLocalSet)
	b = append(b, opBlock, blockVoid)
	compare()
	b = append(b, opBrIf, 0)
	nan()
	local(opLocalSet)
	b = append(b, opEnd)
	local(opLocalGet)
	return b
}

// The canonical NaNs.
const (
	nan32 = 0x7fc00000
	nan64 = 0x7ff8000000000000
)
