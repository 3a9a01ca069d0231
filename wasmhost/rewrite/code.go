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
}

// region is what one charging point pays for: the code of a function outside loops, or that of a loop
// outside loops in it. Within a region code is only executed forwards.
type region struct {
	reach uint32 // the dearest way from the charging point to here, or to the loop being in
	most  uint32 // that reach has been
	point int    // in scanner.points; -1 for the function
}

// scanner reads the body of a function, and finds what to change in it.
type scanner struct {
	m       *module
	r       reader
	locals  int // with parameters
	points  []point
	frames  []frame
	regions []region
	dead    bool // what follows cannot be reached
	entry   bool // charge at the entry
	length  bool // some instruction is charged by length
	calls   bool // functions of the module
	weight  uint32

	// What compiling takes time over.
	branches, labels, carried int
	part                      uint32   // of the code; a new one begins with every branch
	touched                   []uint32 // for every local, the part in which it was used last; carried once handed on
}

// body scans a function's instructions, from r.off to the end of r.b.
func (s *scanner) body(r reader, locals int) error {
	s.r, s.locals, s.dead, s.entry, s.length, s.calls = r, locals, false, false, false, false
	s.weight = frameWeight(locals, len(r.b)-r.off)
	s.branches, s.labels, s.carried, s.part = 0, 0, 0, 1
	s.touched = slices.Grow(s.touched[:0], locals)[:locals]
	clear(s.touched)
	s.points = s.points[:0]
	s.frames = append(s.frames[:0], frame{})
	s.regions = append(s.regions[:0], region{point: -1})
	for len(s.frames) > 0 && s.r.err == nil {
		s.instruction()
	}
	s.r.end()
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
		if w := s.points[i].what; w == charge || w == chargeLen {
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
	ins := instructions[op]
	s.spend(uint32(ins.cost))
	switch ins.imm {
	case immNone:
		s.control(op, at)
	case immBlock:
		s.blockType()
		s.open(op)
	case immLabel:
		s.forks(1)
		s.branch(s.r.index("label", len(s.frames)))
		s.dead = s.dead || op == opBr
	case immLabels:
		n := s.r.count("labels", maxLabels, 1) + 1
		if s.labels += n; s.labels > maxLabels+1 {
			s.tooMuch("labels of br_table", s.labels, maxLabels)
			return
		}
		s.forks(1)
		for range n {
			s.branch(s.r.index("label", len(s.frames)))
			if s.r.err != nil {
				return
			}
		}
		s.dead = true
	case immFunc:
		s.function(op, at)
	case immIndirect:
		s.r.index("type", len(s.m.params))
		s.r.index("table", s.m.tables)
		s.entry, s.calls = true, true
	case immSelect:
		if n := s.r.byte(); n != 1 {
			s.r.fail("select with %d types", n)
		}
		s.valueType()
	case immLocal:
		if i := s.r.index("local", s.locals); s.r.err == nil {
			s.use(i, op == opLocalGet)
		}
	case immGlobal:
		s.r.index("global", s.m.globals)
	case immTable:
		s.r.index("table", s.m.tables)
	case immMemory:
		s.memory()
	case immMemoryNo:
		s.zero()
		if op == opMemoryGrow {
			s.spend(costHost)
		}
	case imm32:
		s.r.signed(32)
	case imm64:
		s.r.signed(64)
	case imm4:
		s.r.bytes(4)
	case imm8:
		s.r.bytes(8)
	case immRef:
		if t := s.r.byte(); !isRefType(t) {
			s.r.unsupported("a typed function reference")
		}
	case immPrefix:
		if op == opMisc {
			s.misc(at)
		} else {
			s.vector()
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
}

// control is an instruction without operands; some open and close blocks, or go elsewhere.
func (s *scanner) control(op byte, at int) {
	switch op {
	case opReturn:
		s.points = append(s.points, point{at, s.r.off, leave, uint32(len(s.frames) - 1)})
		s.forks(1)
		s.dead = true
	case opUnreachable:
		s.dead = true
	case opElse:
		f := &s.frames[len(s.frames)-1]
		if f.kind != opIf {
			s.r.fail("else without if")
			return
		}
		s.branch(0)
		f.kind = opElse
		s.regions[f.region].reach, s.dead = f.start, f.dead
	case opEnd:
		s.close()
	}
}

// open begins a block, loop or if.
func (s *scanner) open(op byte) {
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
	f := frame{kind: op, region: here, start: s.regions[here].reach, dead: s.dead}
	if op == opLoop {
		s.entry = true
		s.regions = append(s.regions, region{point: len(s.points)})
		s.points = append(s.points, point{at: s.r.off, end: s.r.off, what: charge})
	}
	s.frames = append(s.frames, f)
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
	switch f.kind {
	case opLoop:
		last := s.regions[len(s.regions)-1]
		s.points[last.point].arg = last.most + costPoint
		s.regions = s.regions[:len(s.regions)-1]
		// Its label is its head, where there is another charge, so nothing joins here.
	case opIf:
		s.join(f, f.start, f.dead)
		fallthrough
	default:
		s.branch(0)
		s.regions[f.region].reach, s.dead = f.join, !f.joined
	}
	s.frames = s.frames[:len(s.frames)-1]
}

// branch notes a way from here to a label.
func (s *scanner) branch(label uint32) {
	if s.r.err != nil {
		return
	}
	if f := &s.frames[len(s.frames)-1-int(label)]; f.kind != opLoop {
		s.join(f, s.regions[f.region].reach, s.dead)
	}
}

func (s *scanner) join(f *frame, reach uint32, dead bool) {
	if !dead {
		f.join, f.joined = max(f.join, reach), true
	}
}

func (s *scanner) function(op byte, at int) {
	f := s.r.index("function", s.m.functions)
	if op == opRefFunc {
		s.points = append(s.points, point{at, s.r.off, refFunc, s.m.moved(f)})
		return
	}
	s.points = append(s.points, point{at, s.r.off, callFunc, s.m.moved(f)})
	s.entry = true
	if int(f) < s.m.imported {
		s.spend(costHost - costCall)
	} else {
		s.calls = true
	}
}

func (s *scanner) blockType() {
	switch b := s.r.byte(); {
	case b == blockVoid || isValueType(b) || s.r.err != nil:
		return
	}
	s.r.off--
	if t := s.r.signed(33); t < 0 || t >= int64(len(s.m.params)) {
		s.r.fail("block of type %d, but there are %d", t, len(s.m.params))
	}
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
func (s *scanner) misc(at int) {
	op := s.r.u32()
	if op < miscMemoryInit { // saturating conversions
		s.spend(1)
		return
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
	}
}

// byLength has an instruction whose last operand is a length charged by that.
func (s *scanner) byLength(at int, shift uint32) {
	s.entry, s.length = true, true
	s.points = append(s.points, point{at, at, chargeLen, shift})
}

// vector is an instruction behind the prefix 0xfd. An opcode from 128 on takes two bytes, the second
// of them 1.
func (s *scanner) vector() {
	op := s.r.byte()
	if op >= 0x80 && s.r.byte() != 1 {
		s.r.unsupported("a relaxed vector instruction, or one that is not encoded as it should be")
		return
	}
	cost := uint32(2)
	switch {
	case op <= 0x0b || op == 0x5c || op == 0x5d:
		s.memory()
		cost = 4
	case op == 0x0c || op == 0x0d:
		s.r.bytes(16)
	case op >= 0x15 && op <= 0x22:
		s.r.byte()
	case op >= 0x54 && op <= 0x5b:
		s.memory()
		s.r.byte()
		cost = 4
	}
	s.spend(cost)
}

// addedLocals appends the declarations of the locals that emit uses behind the function's own: what is
// left, and a length.
func (s *scanner) addedLocals(b []byte) (_ []byte, groups int) {
	if s.charged() == 0 {
		return b, 0
	}
	if b = append(b, 1, typeI64); !s.length {
		return b, 1
	}
	return append(b, 1, typeI32), 2
}

// emit appends the scanned body of a function of type typ, changed.
func (s *scanner) emit(b []byte, from int, typ uint32) []byte {
	fuel := s.m.fuel()
	left := s.locals
	length := left + 1
	if cost := s.entryCost(); cost > 0 {
		b = fuel.charge(b, cost, left)
	}
	if s.calls {
		b = fuel.enter(b, s.weight, left)
		// Within the block, the label that was the function's is the block's.
		b = s.m.blockType(append(b, opBlock), typ)
	}
	in := s.r.b
	for i := range s.points {
		p := &s.points[i]
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
		}
	}
	b = append(b, in[from:]...)
	if s.calls {
		b = append(fuel.leave(b, s.weight), opEnd)
	}
	return b
}
