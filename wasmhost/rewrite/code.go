package rewrite

import "slices"

// point is a place in a function's body where something is put in or replaced.
type point struct {
	at, end int // offsets in the module; the bytes between are left out
	what    action
	arg     uint32
}

type action byte

const (
	charge    action = iota // arg units
	chargeLen               // by the length on the stack, shifted as arg says
	callFunc                // arg is the function
	refFunc                 // the same
	leave                   // a return; arg is the label of the whole body
	canonical               // NaNs of the topmost operand, of the shape arg
	choice                  // a select between values of the type arg
	label                   // arg is what it has become
	ring                    // begins what is put around a quiet loop, whose head is charged arg units
	turn                    // the same as charge, at the head of such a loop
	ringEnd                 // ends it
	nothing
)

// shiftLeft, in the argument of chargeLen, turns its shift to the right around.
const shiftLeft = 1 << 8

// frame is a block, loop, if or function body that is open.
type frame struct {
	kind   byte   // its opcode; 0 for the function
	region int    // that its label, and what follows its end, belong to
	join   uint32 // the dearest way to its label
	joined bool   // there is one
	start  uint32 // of an if: the dearest way to it
	dead   bool   // of an if: there is none

	params, results []byte  // types of the values it takes and gives
	height          int     // of the operand stack below it
	polymorphic     bool    // behind a jump: there are as many operands as are taken
	now, before     []int32 // what locals hold at its label; of an if: before it
	head            int32   // of a loop: what the first local holds at its label, and so on
	meeting         int32   // of values at its label
}

// region is what one charging point pays for: the code of a function outside loops, or that of a loop
// outside loops in it. Within a region code is only executed forwards.
type region struct {
	reach uint32 // the dearest way from the charging point to here, or to the loop being in
	most  uint32 // that reach has been
	point int    // in scanner.points; -1 for the function
	frame int    // of the loop
	quiet bool   // so far the loop has no loops and calls in it; see fuel.ring
}

// scanner reads the body of a function, and finds what to change in it.
type scanner struct {
	m       *module
	r       reader
	locals  int    // with parameters
	types   []byte // of locals
	points  []point
	frames  []frame
	regions []region
	dead    bool // what follows cannot be reached
	entry   bool // charge at the entry
	length  bool // some instruction is charged by length
	calls   bool // functions of the module
	weight  uint32
	flow    flow

	left, lengthLocal int            // locals that are added
	temp              [f64x2 + 1]int // the same, by shape
	other             [f64x2 + 1]int // the same, for choices
	condition         int            // the same
	jumps             bool           // NaNs are made canonical with jumps

	// What compiling takes time over.
	branches, labels, carried int
	part                      uint32   // of the code; a new one begins with every branch
	touched                   []uint32 // for every local, the part in which it was used last; carried once handed on
}

// body scans the instructions of a function of type typ, from r.off to the end of r.b. Locals are the types
// of its locals, parameters first.
func (s *scanner) body(r reader, typ uint32, locals []byte) error {
	s.r, s.locals, s.types, s.dead, s.entry, s.length, s.calls = r, len(locals), locals, false, false, false, false
	s.weight = frameWeight(len(locals), len(r.b)-r.off)
	s.branches, s.labels, s.carried, s.part = 0, 0, 0, 1
	s.touched = slices.Grow(s.touched[:0], len(locals))[:len(locals)]
	clear(s.touched)
	s.points = s.points[:0]
	s.frames = append(s.frames[:0], frame{results: s.m.results[typ]})
	s.regions = append(s.regions[:0], region{point: -1})
	s.begin(locals, len(s.m.params[typ]), len(r.b)-r.off)
	for len(s.frames) > 0 && s.r.err == nil {
		s.instruction()
	}
	s.r.end()
	s.settle()
	return s.r.err
}

// entryCost is what the entry of the function scanned last is charged, 0 for nothing.
func (s *scanner) entryCost() uint32 {
	most := s.regions[0].most
	if !s.entry && most <= costCall {
		return 0
	}
	return most + costPoint
}

// charged counts the charging points of the function scanned last.
func (s *scanner) charged() int {
	n := 0
	if s.entryCost() > 0 {
		n++
	}
	for i := range s.points {
		if w := s.points[i].what; w == charge || w == turn || w == chargeLen {
			n++
		}
	}
	return n
}

// spend adds an instruction's cost to the way here.
func (s *scanner) spend(cost uint32) {
	if s.dead {
		return
	}
	r := &s.regions[len(s.regions)-1]
	r.reach += cost
	r.most = max(r.most, r.reach)
}

func (s *scanner) instruction() {
	at := s.r.off
	op := s.r.byte()
	ins, e, typ := instructions[op], effects[op], resultTypes[op]
	s.spend(uint32(ins.cost))
	switch ins.imm {
	case immNone:
		s.control(op, at)
	case immBlock:
		s.open(op, at)
	case immLabel:
		s.forks(1)
		label := s.label()
		if op == opBrIf {
			s.pop()
		}
		s.jump(label)
		s.branch(label)
		if op == opBr {
			s.gone()
		}
	case immLabels:
		n := s.r.count("labels", maxLabels, 1) + 1
		if s.labels += n; s.labels > maxLabels+1 {
			s.tooMuch("labels of br_table", s.labels, maxLabels)
			return
		}
		s.forks(1)
		s.pop()
		for i := range n {
			label := s.label()
			if s.r.err != nil {
				return
			}
			if i == 0 {
				s.jump(label) // they all take the same operands
			}
			s.branch(label)
		}
		s.gone()
	case immFunc:
		s.function(op, at)
	case immIndirect:
		typ := s.r.index("type", len(s.m.params))
		s.r.index("table", s.m.tables)
		s.entry, s.calls = true, true
		s.loud()
		if s.r.err == nil {
			s.pop()
			s.call(typ)
		}
	case immSelect:
		if n := s.r.byte(); n != 1 {
			s.r.fail("select with %d types", n)
		}
		s.valueType()
		s.choose(at)
	case immLocal:
		if i := s.r.index("local", s.locals); s.r.err == nil {
			s.use(i, op == opLocalGet)
			s.local(op, i)
		}
	case immGlobal:
		if i := s.r.index("global", s.m.globals); s.r.err == nil {
			typ = s.m.globalTypes[i]
		}
	case immTable:
		s.r.index("table", s.m.tables)
	case immMemory:
		s.memory()
	case immMemoryNo:
		s.zero()
		if op == opMemoryGrow {
			s.spend(costHost)
			s.loud()
		}
	case imm32:
		s.r.signed(32)
	case imm64:
		s.r.signed(64)
	case imm4:
		s.constant(s.r.bytes(4))
	case imm8:
		s.constant(s.r.bytes(8))
	case immRef:
		if t := s.r.byte(); !isRefType(t) {
			s.r.unsupported("a typed function reference")
		}
	case immPrefix:
		if op == opMisc {
			e, typ = s.misc(at)
		} else {
			e, typ = s.vector()
		}
	default:
		if s.r.err != nil {
			return
		}
		if p := proposal(op); p != "" {
			s.r.unsupported(p)
		} else {
			s.r.fail("unknown instruction %#x", op)
		}
	}
	s.apply(e, typ)
}

// control is an instruction without operands; some open and close blocks, or go elsewhere.
func (s *scanner) control(op byte, at int) {
	switch op {
	case opReturn:
		s.points = append(s.points, point{at, s.r.off, leave, uint32(len(s.frames) - 1)})
		s.forks(1)
		s.jump(uint32(len(s.frames) - 1))
		s.gone()
	case opUnreachable:
		s.gone()
	case opElse:
		f := &s.frames[len(s.frames)-1]
		if f.kind != opIf {
			s.r.fail("else without if")
			return
		}
		s.finish(f, f.params)
		s.branch(0)
		f.kind = opElse
		s.regions[f.region].reach, s.dead = f.start, f.dead
		s.flow.restore(f.before)
		f.before = nil
	case opEnd:
		s.close()
	case opSelect:
		s.choose(at)
	case opF32Abs, opF64Abs: // of a canonical NaN is that NaN
		s.push(s.pop().value, resultTypes[op])
	}
}

// gone notes that what follows in the block cannot be reached.
func (s *scanner) gone() {
	s.dead = true
	s.jumped()
}

// open begins a block, loop or if.
func (s *scanner) open(op byte, at int) {
	params, results := s.blockType()
	if s.r.err != nil {
		return
	}
	if len(s.frames) > maxNesting {
		s.tooMuch("nested blocks", len(s.frames), maxNesting)
		return
	}
	switch op {
	case opLoop:
		s.forks(6)
	case opIf:
		s.forks(2)
	default:
		s.forks(1)
	}
	here := len(s.regions) - 1
	f := frame{kind: op, region: here, start: s.regions[here].reach, dead: s.dead, params: params, results: results}
	if op == opIf {
		s.pop()
	}
	s.pass(params, params)
	f.height = len(s.flow.stack) - len(params)
	if op == opLoop {
		s.entry = true
		s.loud()
		s.points = append(s.points, point{at, at, nothing, 0})
		s.regions = append(s.regions, region{point: len(s.points), frame: len(s.frames), quiet: len(params) == 0})
		s.points = append(s.points, point{at: s.r.off, end: s.r.off, what: charge})
	}
	s.enter(&f)
	s.frames = append(s.frames, f)
}

// loud notes that the loop around here is not a quiet one.
func (s *scanner) loud() { s.regions[len(s.regions)-1].quiet = false }

// label reads a label. What leads out of a loop is noted, since there may be a ring around that.
func (s *scanner) label() uint32 {
	at := s.r.off
	l := s.r.index("label", len(s.frames))
	if r := s.regions[len(s.regions)-1]; r.point >= 0 && len(s.frames)-1-int(l) < r.frame && s.r.err == nil {
		s.points = append(s.points, point{at, s.r.off, label, l})
	}
	return l
}

// encircle puts a ring around a quiet loop, which has just ended. There are no other loops in it, so that all
// labels that lead out of a loop there lead out of this one, and over the ring.
func (s *scanner) encircle(head int, cost uint32) {
	s.points[head-1].what, s.points[head-1].arg = ring, cost
	s.points[head].what = turn
	for i := head + 1; i < len(s.points); i++ {
		if p := &s.points[i]; p.what == label || p.what == leave {
			p.arg++
		}
	}
	s.points = append(s.points, point{s.r.off, s.r.off, ringEnd, 0})
}

// forks notes that the way through the code splits or joins, and counts it n times.
func (s *scanner) forks(n int) {
	s.part++
	if s.branches += n; s.branches > maxBranches {
		s.tooMuch("branches (loops count as six, ifs as two)", s.branches, maxBranches)
	}
	s.checkWays()
}

// carriedOn marks a local that was used in more than one part.
const carriedOn = 1<<32 - 1

// use notes that a local is read or set. All locals have values at the entry, which is part 1.
func (s *scanner) use(local uint32, read bool) {
	switch t := &s.touched[local]; {
	case *t == s.part || *t == carriedOn:
	case *t == 0 && (!read || s.part == 1):
		*t = s.part
	default:
		*t = carriedOn
		s.carried++
		s.checkWays()
	}
}

func (s *scanner) checkWays() {
	if s.carried > maxCarried {
		s.tooMuch("locals used across branches", s.carried, maxCarried)
	}
	if n := s.branches * s.carried; n > maxWays {
		s.tooMuch("branches times locals used across them", n, maxWays)
	}
}

// tooMuch refuses a function.
func (s *scanner) tooMuch(what string, n, most int) {
	s.r.limit(what+" in one function", uint64(n), uint64(most))
}

// close ends the innermost block. What follows is reached from its last instruction, from branches to
// its label, and past an if without else.
func (s *scanner) close() {
	f := &s.frames[len(s.frames)-1]
	s.finish(f, f.results)
	switch f.kind {
	case opLoop:
		last := s.regions[len(s.regions)-1]
		cost := last.most + costPoint
		s.points[last.point].arg = cost
		if s.regions = s.regions[:len(s.regions)-1]; last.quiet {
			s.encircle(last.point, cost)
		}
		// Its label is its head, where there is another charge, so nothing joins here.
	case opIf:
		s.join(f, f.start, f.dead, f.before)
		s.flow.free(f.before)
		fallthrough
	default:
		s.branch(0)
		s.regions[f.region].reach, s.dead = f.join, !f.joined
		s.flow.restore(f.now)
	}
	s.frames = s.frames[:len(s.frames)-1]
}

// branch notes a way from here to a label.
func (s *scanner) branch(label uint32) {
	if s.r.err != nil {
		return
	}
	f := &s.frames[len(s.frames)-1-int(label)]
	s.join(f, s.regions[f.region].reach, s.dead, s.flow.locals)
}

// join notes a way to the label of a block, with what locals then hold. The dearest way to a loop does not
// matter, since it is charged anew.
func (s *scanner) join(f *frame, reach uint32, dead bool, locals []int32) {
	if !dead {
		f.join, f.joined = max(f.join, reach), true
		s.flow.meet(f, locals)
	}
}

func (s *scanner) function(op byte, at int) {
	f := s.r.index("function", s.m.functions)
	if s.r.err != nil {
		return
	}
	if op == opRefFunc {
		s.points = append(s.points, point{at, s.r.off, refFunc, s.m.moved(f)})
		return
	}
	s.points = append(s.points, point{at, s.r.off, callFunc, s.m.moved(f)})
	s.entry = true
	s.loud()
	if int(f) < s.m.imported {
		s.spend(costHost - costCall)
	} else {
		s.calls = true
	}
	s.call(s.m.typeOf(f))
}

// blockType reads a block's type: the types of the values that it takes and gives.
func (s *scanner) blockType() (params, results []byte) {
	switch b := s.r.byte(); {
	case b == blockVoid || s.r.err != nil:
		return nil, nil
	case isValueType(b):
		return nil, s.r.b[s.r.off-1 : s.r.off]
	}
	s.r.off--
	t := s.r.signed(33)
	if t < 0 || t >= int64(len(s.m.params)) {
		s.r.fail("block of type %d, but there are %d", t, len(s.m.params))
		return nil, nil
	}
	return s.m.params[t], s.m.results[t]
}

func (s *scanner) valueType() {
	if t := s.r.byte(); !isValueType(t) {
		s.r.fail("unknown value type %#x", t)
	}
}

// memory reads the alignment and offset of a load or store.
func (s *scanner) memory() {
	if align := s.r.u32(); align > 4 {
		s.r.fail("alignment 2^%d", align)
	}
	s.r.u32()
}

func (s *scanner) zero() {
	if b := s.r.byte(); b != 0 {
		s.r.unsupported("several memories")
	}
}

// misc is an instruction behind the prefix 0xfc.
func (s *scanner) misc(at int) (effect, byte) {
	op := s.r.u32()
	if op < miscMemoryInit { // saturating conversions
		s.spend(1)
		if op < 4 {
			return miscEffects[op], typeI32
		}
		return miscEffects[op], typeI64
	}
	s.spend(costBulk)
	switch op {
	case miscMemoryInit:
		s.r.index("data segment", s.m.dataCount)
		s.zero()
		s.byLength(at, bulkShift)
	case miscDataDrop:
		s.r.index("data segment", s.m.dataCount)
	case miscMemoryCopy, miscMemoryFill:
		s.zero()
		helper := helperFill
		if op == miscMemoryCopy {
			s.zero()
			helper = helperCopy
		}
		s.entry, s.m.helpers = true, true
		s.loud()
		s.points = append(s.points, point{at, s.r.off, callFunc, s.m.helper(helper)})
	case miscTableInit:
		s.r.u32()
		s.r.index("table", s.m.tables)
		s.byLength(at, shiftLeft|tableShift)
	case miscElemDrop:
		s.r.u32()
	case miscTableCopy:
		s.r.index("table", s.m.tables)
		s.r.index("table", s.m.tables)
		s.byLength(at, shiftLeft|tableShift)
	case miscTableGrow, miscTableFill:
		s.r.index("table", s.m.tables)
		s.byLength(at, shiftLeft|tableShift)
	case miscTableSize:
		s.r.index("table", s.m.tables)
	default:
		s.r.fail("unknown instruction 0xfc %#x", op)
		return effect{}, 0
	}
	return miscEffects[op], typeI32
}

// byLength has an instruction whose last operand is a length charged by that.
func (s *scanner) byLength(at int, shift uint32) {
	s.entry, s.length = true, true
	s.loud()
	s.points = append(s.points, point{at, at, chargeLen, shift})
}

// vector is an instruction behind the prefix 0xfd. An opcode from 128 on takes two bytes, the second
// of them 1.
func (s *scanner) vector() (effect, byte) {
	op := s.r.byte()
	if op >= 0x80 && s.r.byte() != 1 {
		s.r.unsupported("a relaxed vector instruction, or one that is not encoded as it should be")
		return effect{}, 0
	}
	cost := uint32(2)
	switch {
	case op <= 0x0b || op == 0x5c || op == 0x5d:
		s.memory()
		cost = 4
	case op == vecConst:
		s.constant(s.r.bytes(16))
	case op == 0x0d:
		s.r.bytes(16)
	case op >= 0x15 && op <= 0x22:
		s.r.byte()
	case op >= 0x54 && op <= 0x5b:
		s.memory()
		s.r.byte()
		cost = 4
	}
	s.spend(cost)
	return vectorEffects[op], vectorResult(op)
}

// addedLocals appends the declarations of the locals that emit uses behind the function's own: what is
// left, a length, and a value of each type whose NaNs are made canonical.
func (s *scanner) addedLocals(b []byte) (_ []byte, groups int) {
	add := func(typ byte) (local int) {
		b = append(b, 1, typ)
		groups++
		return s.locals + groups - 1
	}
	if s.m.opt.Fuel && s.charged() > 0 {
		s.left = add(typeI64)
		if s.length {
			s.lengthLocal = add(typeI32)
		}
	}
	shapes := shape(0)
	for _, p := range s.flow.found {
		shapes |= shape(p.arg)
	}
	chosen := shape(0)
	if s.m.opt.Fuel {
		for i := range s.points {
			if s.points[i].what == choice {
				chosen |= shapeOf(byte(s.points[i].arg))
			}
		}
	}
	if chosen != 0 {
		s.condition = add(typeI32)
	}
	if !s.jumps && shapes != 0 {
		shapes |= f32x4
	}
	for _, t := range []struct {
		shapes shape
		typ    byte
	}{{f32, typeF32}, {f64, typeF64}, {f32x4 | f64x2, typeV128}} {
		if (shapes|chosen)&t.shapes != 0 {
			local := add(t.typ)
			for sh := range s.temp {
				if shape(sh)&t.shapes != 0 {
					s.temp[sh] = local
				}
			}
		}
		if chosen&t.shapes != 0 {
			s.other[chosen&t.shapes] = add(t.typ)
		}
	}
	return b, groups
}

// emit appends the scanned body of a function of type typ, changed.
func (s *scanner) emit(b []byte, from int, typ uint32) []byte {
	if !s.m.opt.Fuel {
		for _, p := range s.flow.found {
			b = s.appendCanonical(append(b, s.r.b[from:p.at]...), shape(p.arg))
			from = p.at
		}
		return append(b, s.r.b[from:]...)
	}
	fuel := s.m.fuel()
	left, length := s.left, s.lengthLocal
	if cost := s.entryCost(); cost > 0 {
		b = fuel.charge(b, cost, left)
	}
	if s.calls {
		b = fuel.enter(b, s.weight, left)
		// Within the block, the label that was the function's is the block's.
		b = s.m.blockType(append(b, opBlock), typ)
	}
	in, found := s.r.b, s.flow.found
	for i := 0; i < len(s.points) || len(found) > 0; {
		var p *point
		if len(found) > 0 && (i == len(s.points) || found[0].at <= s.points[i].at) {
			p, found = &found[0], found[1:]
		} else {
			p = &s.points[i]
			i++
		}
		b = append(b, in[from:p.at]...)
		from = p.end
		switch p.what {
		case charge:
			b = fuel.charge(b, p.arg, left)
		case chargeLen:
			shift, op := p.arg, byte(opI64ShrU)
			if shift&shiftLeft != 0 {
				shift, op = shift&^shiftLeft, opI64Shl
			}
			b = appendU32(append(b, opLocalTee), uint32(length))
			b = fuel.chargeLength(b, length, op, shift, left)
		case callFunc:
			b = appendU32(append(b, opCall), p.arg)
		case refFunc:
			b = appendU32(append(b, opRefFunc), p.arg)
		case leave:
			if s.calls {
				b = appendU32(append(b, opBr), p.arg)
			} else {
				b = append(b, opReturn)
			}
		case canonical:
			b = s.appendCanonical(b, shape(p.arg))
		case choice:
			b = s.appendChoice(b, shapeOf(byte(p.arg)))
		case label:
			b = appendU32(b, p.arg)
		case ring:
			b = fuel.ring(b, in[p.at+1:s.points[i].at], p.arg) // the head comes next
		case turn:
			b = fuel.turn(b, p.arg, left)
		case ringEnd:
			b = append(b, opEnd)
		}
	}
	b = append(b, in[from:]...)
	if s.calls {
		b = append(fuel.leave(b, s.weight), opEnd)
	}
	return b
}
