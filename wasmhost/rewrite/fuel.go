package rewrite

// fuel writes the code that counts. It knows where the global and the import are.
type fuel struct{ global, refuel uint32 }

func (f fuel) depth() uint32 { return f.global + 1 }

// charge appends code that takes cost off the fuel; left is a local.
func (f fuel) charge(b []byte, cost uint32, left int) []byte {
	b = appendU32(append(b, opGlobalGet), f.global)
	b = appendS64(append(b, opI64Const), int64(cost))
	return f.settle(b, left)
}

// chargeLength is charge by the length in a local, shifted by op.
func (f fuel) chargeLength(b []byte, length int, op byte, shift uint32, left int) []byte {
	b = appendU32(append(b, opGlobalGet), f.global)
	b = appendU32(append(b, opLocalGet), uint32(length))
	b = append(b, opI64ExtendU, opI64Const, byte(shift), op)
	return f.settle(b, left)
}

// settle subtracts, and asks for more when that makes the fuel negative.
func (f fuel) settle(b []byte, left int) []byte {
	b = appendU32(append(b, opI64Sub, opLocalTee), uint32(left))
	b = appendU32(append(b, opGlobalSet), f.global)
	b = appendU32(append(b, opLocalGet), uint32(left))
	b = append(b, opI64Const, 0, opI64LtS, opIf, blockVoid)
	b = appendU32(append(b, opLocalGet), uint32(left))
	b = appendU32(append(b, opCall), f.refuel)
	b = appendU32(append(b, opGlobalSet), f.global)
	return append(b, opEnd)
}

// ring begins a loop around a quiet loop of that block type: one without loops and calls in it. Were a quiet loop
// charged like others, the call that asks for more fuel would be in it, and have the engine keep everything in
// memory from turn to turn that a call could change or would not save: that makes a short loop twice as slow. So it
// leaves for the ring when fuel runs out, which asks for more and begins it again. Since its head will be charged
// anew, the ring gives that back. What is counted is the same.
func (f fuel) ring(b, typ []byte, cost uint32) []byte {
	b = append(append(b, opLoop), typ...)
	b = appendU32(append(b, opGlobalGet), f.global)
	b = append(b, opI64Const, 0, opI64LtS, opIf, blockVoid)
	b = appendU32(append(b, opGlobalGet), f.global)
	b = appendU32(append(b, opCall), f.refuel)
	b = appendS64(append(b, opI64Const), int64(cost))
	b = appendU32(append(b, opI64Add, opGlobalSet), f.global)
	return append(b, opEnd)
}

// turn charges the head of a quiet loop, and leaves for the ring around it when that makes the fuel negative.
func (f fuel) turn(b []byte, cost uint32, left int) []byte {
	b = appendU32(append(b, opGlobalGet), f.global)
	b = appendS64(append(b, opI64Const), int64(cost))
	b = appendU32(append(b, opI64Sub, opLocalTee), uint32(left))
	b = appendU32(append(b, opGlobalSet), f.global)
	b = appendU32(append(b, opLocalGet), uint32(left))
	return append(b, opI64Const, 0, opI64LtS, opBrIf, 1)
}

// enter appends code that takes a call's weight off the depth that is left. When there is not that
// much, the guest says so and traps. (One test for fuel and depth together is slower: both values then
// live longer.)
func (f fuel) enter(b []byte, weight uint32, left int) []byte {
	b = appendU32(append(b, opGlobalGet), f.depth())
	b = appendS64(append(b, opI64Const), int64(weight))
	b = appendU32(append(b, opI64Sub, opLocalTee), uint32(left))
	b = appendU32(append(b, opGlobalSet), f.depth())
	b = appendU32(append(b, opLocalGet), uint32(left))
	b = append(b, opI64Const, 0, opI64LtS, opIf, blockVoid)
	b = appendS64(append(b, opI64Const), StackFull)
	b = appendU32(append(b, opCall), f.refuel)
	return append(b, opDrop, opUnreachable, opEnd)
}

// leave appends code that gives it back.
func (f fuel) leave(b []byte, weight uint32) []byte {
	b = appendU32(append(b, opGlobalGet), f.depth())
	b = appendS64(append(b, opI64Const), int64(weight))
	return appendU32(append(b, opI64Add, opGlobalSet), f.depth())
}

// frameWeight is what a call of a function counts for: one, and more when it has many locals or much
// code, of which the compiler may keep many values on the stack.
func frameWeight(locals, size int) uint32 {
	return uint32(1 + locals/weightLocals + size/weightCode)
}

// The functions that stand for memory.fill and memory.copy, in the order in which they are added.
const (
	helperFill = iota
	helperCopy
	helpers
)

var helperNames = [helpers]string{"grid.fill", "grid.copy"}

// maxPiece is how many bytes they write between two charging points.
const maxPiece = 1 << 20

// helperBody writes one of them. Its locals are the instruction's operands and what is left of the
// fuel:
//
//	loop
//	    if n > maxPiece {
//	        if d + n > size || s + n > size { do it all, which traps }
//	        charge for a piece
//	        do a piece, from the end that the rest does not need
//	        n -= maxPiece
//	        continue
//	    }
//	end
//	charge for n
//	do the rest
func (f fuel) helperBody(which int) []byte {
	const d, s, n, left = 0, 1, 2, 3 // s is the value of a fill
	do := []byte{opMisc, miscMemoryFill, 0}
	if which == helperCopy {
		do = []byte{opMisc, miscMemoryCopy, 0, 0}
	}
	code := func(b []byte, parts ...[]byte) []byte {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	get := func(locals ...byte) (b []byte) {
		for _, l := range locals {
			b = append(b, opLocalGet, l)
		}
		return b
	}
	piece := appendS64([]byte{opI32Const}, maxPiece)
	add := func(l byte) []byte { return code(get(l), piece, []byte{opI32Add, opLocalSet, l}) }
	tail := func(l byte) []byte { return code(get(l, n), []byte{opI32Add}, piece, []byte{opI32Sub}) } // l + n - maxPiece
	beyond := func(l byte) []byte {                                                                   // the end of the whole lies outside memory: let it trap
		return code(get(l), []byte{opI64ExtendU}, get(n), []byte{opI64ExtendU, opI64Add,
			opMemorySize, 0, opI64ExtendU, opI64Const, 16, opI64Shl, opI64GtU, opIf, blockVoid}, get(d, s, n), do, []byte{opEnd})
	}

	b := []byte{1, 1, typeI64} // the local left
	b = code(b, []byte{opLoop, blockVoid}, get(n), piece, []byte{opI32GtU, opIf, blockVoid}, beyond(d))
	if which == helperFill {
		b = f.charge(b, maxPiece>>bulkShift, left)
		b = code(b, get(d, s), piece, do, add(d))
	} else {
		b = code(b, beyond(s))
		b = f.charge(b, maxPiece>>bulkShift, left)
		b = code(b, get(d, s), []byte{opI32LeU, opIf, blockVoid},
			get(d, s), piece, do, add(d), add(s),
			[]byte{opElse}, tail(d), tail(s), piece, do, []byte{opEnd})
	}
	b = code(b, get(n), piece, []byte{opI32Sub, opLocalSet, n, opBr, 1, opEnd, opEnd})
	b = f.chargeLength(b, n, opI64ShrU, bulkShift, left)
	return code(b, get(d, s, n), do, []byte{opEnd})
}
