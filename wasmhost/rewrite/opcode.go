package rewrite

// Opcodes that are more than operands and a price.
const (
	opUnreachable  = 0x00
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opDrop         = 0x1a
	opSelect       = 0x1b
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opI32GtU       = 0x4b
	opI32LeU       = 0x4d
	opI64LtS       = 0x53
	opI64GtU       = 0x56
	opF32Ge        = 0x60
	opF64Ge        = 0x66
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64Shl       = 0x86
	opI64ShrU      = 0x88
	opF32Abs       = 0x8b
	opF64Abs       = 0x99
	opI64ExtendU   = 0xad
	opRefNull      = 0xd0
	opRefFunc      = 0xd2
	opMisc         = 0xfc
	opVec          = 0xfd

	miscMemoryInit = 8
	miscDataDrop   = 9
	miscMemoryCopy = 10
	miscMemoryFill = 11
	miscTableInit  = 12
	miscElemDrop   = 13
	miscTableCopy  = 14
	miscTableGrow  = 15
	miscTableSize  = 16
	miscTableFill  = 17

	vecConst        = 0x0c
	vecF32x4Splat   = 0x13
	vecF64x2Splat   = 0x14
	vecF32x4Extract = 0x1f
	vecF64x2Extract = 0x21
	vecF32x4Eq      = 0x41
	vecF64x2Eq      = 0x47
	vecBitselect    = 0x52

	blockVoid = 0x40
)

// Value types.
const (
	typeI32       = 0x7f
	typeI64       = 0x7e
	typeF32       = 0x7d
	typeF64       = 0x7c
	typeV128      = 0x7b
	typeFuncref   = 0x70
	typeExternref = 0x6f
)

func isValueType(b byte) bool { return b >= typeV128 && b <= typeI32 || isRefType(b) }
func isRefType(b byte) bool   { return b == typeFuncref || b == typeExternref }

// imm is what follows an opcode.
type imm byte

const (
	immBad imm = iota
	immNone
	immBlock
	immLabel
	immLabels
	immFunc
	immIndirect // type and table
	immSelect   // one value type
	immLocal
	immGlobal
	immTable
	immMemory   // of a load or store
	immMemoryNo // a zero byte
	imm32       // signed
	imm64       // the same
	imm4        // bytes
	imm8        // the same
	immRef
	immPrefix // the opcode goes on
)

// instruction is what there is to know of an opcode.
type instruction struct {
	imm  imm
	cost uint8
}

// Costs above those in the table.
const (
	costCall   = 16
	costBulk   = 16
	costHost   = 256 // of leaving for the host
	costPoint  = 1
	bulkShift  = 3 // 8 bytes a unit
	tableShift = 1 // an element two units
)

var instructions = func() (t [256]instruction) {
	set := func(from, to int, i imm, cost uint8) {
		for op := from; op <= to; op++ {
			t[op] = instruction{i, cost}
		}
	}
	set(0x00, 0x01, immNone, 0) // unreachable, nop
	set(opBlock, opLoop, immBlock, 0)
	set(opIf, opIf, immBlock, 1)
	set(opElse, opElse, immNone, 0)
	set(opEnd, opEnd, immNone, 0)
	set(opBr, opBrIf, immLabel, 1)
	set(opBrTable, opBrTable, immLabels, 2)
	set(opReturn, opReturn, immNone, 1)
	set(opCall, opCall, immFunc, costCall)
	set(opCallIndirect, opCallIndirect, immIndirect, 20)
	set(opDrop, opDrop, immNone, 0)
	set(0x1b, 0x1b, immNone, 1) // select
	set(0x1c, 0x1c, immSelect, 1)
	set(opLocalGet, opLocalTee, immLocal, 1)
	set(opGlobalGet, opGlobalSet, immGlobal, 1)
	set(0x25, 0x26, immTable, 4)  // table.get, table.set
	set(0x28, 0x3e, immMemory, 2) // loads and stores
	set(opMemorySize, opMemorySize, immMemoryNo, 1)
	set(opMemoryGrow, opMemoryGrow, immMemoryNo, 0) // costHost, below
	set(opI32Const, opI32Const, imm32, 1)
	set(opI64Const, opI64Const, imm64, 1)
	set(0x43, 0x43, imm4, 1)    // f32.const
	set(0x44, 0x44, imm8, 1)    // f64.const
	set(0x45, 0xc4, immNone, 1) // comparisons, arithmetic, conversions, sign extension
	set(0x6d, 0x70, immNone, 8) // i32.div, rem
	set(0x7f, 0x82, immNone, 8) // i64.div, rem
	set(0x91, 0x91, immNone, 8) // f32.sqrt
	set(0x95, 0x95, immNone, 8) // f32.div
	set(0x9f, 0x9f, immNone, 8) // f64.sqrt
	set(0xa3, 0xa3, immNone, 8) // f64.div
	set(opRefNull, opRefNull, immRef, 1)
	set(0xd1, 0xd1, immNone, 1) // ref.is_null
	set(opRefFunc, opRefFunc, immFunc, 2)
	set(opMisc, opVec, immPrefix, 0)
	return t
}()

// proposal names the feature that an unknown opcode belongs to.
func proposal(op byte) string {
	switch {
	case op == 0x06 || op == 0x07 || op == 0x08 || op == 0x09 || op == 0x0a || op == 0x18 || op == 0x19 || op == 0x1f:
		return "an instruction of exception handling"
	case op == 0x12 || op == 0x13:
		return "a tail call"
	case op >= 0x14 && op <= 0x17, op >= 0xd3 && op <= 0xd6:
		return "a typed function reference"
	case op == 0xfb:
		return "an instruction of garbage collection"
	case op == 0xfe:
		return "an atomic instruction (threads)"
	}
	return ""
}

// Effects on the operand stack of the instructions that have the same one always, and of control
// instructions nothing.
var (
	effects = func() (t [256]effect) {
		set := func(from, to int, pops uint8, takes, gives shape) {
			for op := from; op <= to; op++ {
				t[op] = effect{pops, takes, gives}
			}
		}
		set(opDrop, opDrop, 1, every, 0)
		set(opGlobalGet, opGlobalGet, 0, 0, given)
		set(opGlobalSet, opGlobalSet, 1, 0, 0)
		set(0x25, 0x25, 1, 0, given) // table.get
		set(0x26, 0x26, 2, 0, 0)     // table.set
		set(0x28, 0x35, 1, 0, given) // loads
		set(0x36, 0x3e, 2, 0, 0)     // stores
		set(opMemorySize, opMemorySize, 0, 0, given)
		set(opMemoryGrow, opMemoryGrow, 1, 0, given)
		set(opI32Const, opI64Const, 0, 0, given)
		set(0x45, 0x45, 1, 0, given)   // i32.eqz
		set(0x46, 0x4f, 2, 0, given)   // comparisons
		set(0x50, 0x50, 1, 0, given)   // i64.eqz
		set(0x51, 0x5a, 2, 0, given)   // comparisons
		set(0x5b, 0x60, 2, f32, given) // the same, of f32
		set(0x61, 0x66, 2, f64, given) // and f64
		set(0x67, 0x69, 1, 0, given)   // i32.clz, ctz, popcnt
		set(0x6a, 0x78, 2, 0, given)
		set(0x79, 0x7b, 1, 0, given) // i64.clz, ctz, popcnt
		set(0x7c, 0x8a, 2, 0, given)
		for op, sh := range map[int]shape{opF32Abs: f32, opF64Abs: f64} { // abs has none
			set(op+1, op+1, 1, 0, given)   // neg
			set(op+2, op+6, 1, sh, sh)     // ceil, floor, trunc, nearest, sqrt
			set(op+7, op+12, 2, sh, sh)    // add, sub, mul, div, min, max
			set(op+13, op+13, 2, 0, given) // copysign
		}
		set(0xa7, 0xa7, 1, 0, given)   // i32.wrap
		set(0xa8, 0xa9, 1, f32, given) // i32.trunc
		set(0xaa, 0xab, 1, f64, given)
		set(0xac, 0xad, 1, 0, given)   // i64.extend
		set(0xae, 0xaf, 1, f32, given) // i64.trunc
		set(0xb0, 0xb1, 1, f64, given)
		set(0xb2, 0xb5, 1, 0, number) // f32.convert
		set(0xb6, 0xb6, 1, f64, f32)  // demote
		set(0xb7, 0xba, 1, 0, number) // f64.convert
		set(0xbb, 0xbb, 1, f32, f64)  // promote
		set(0xbc, 0xc4, 1, 0, given)  // reinterpret, sign extension
		set(opRefNull, opRefNull, 0, 0, given)
		set(0xd1, 0xd1, 1, 0, given) // ref.is_null
		set(opRefFunc, opRefFunc, 0, 0, given)
		return t
	}()
	miscEffects = [...]effect{
		{1, f32, given}, {1, f32, given}, {1, f64, given}, {1, f64, given}, {1, f32, given}, {1, f32, given}, {1, f64, given}, {1, f64, given},
		miscMemoryInit: {3, 0, 0}, miscDataDrop: {}, miscMemoryCopy: {3, 0, 0}, miscMemoryFill: {3, 0, 0},
		miscTableInit: {3, 0, 0}, miscElemDrop: {}, miscTableCopy: {3, 0, 0}, miscTableGrow: {2, 0, given}, miscTableSize: {0, 0, given}, miscTableFill: {3, 0, 0},
	}
	vectorEffects = func() (t [256]effect) {
		for op := range t { // most take two operands
			t[op] = effect{2, 0, given}
		}
		set := func(pops uint8, takes, gives shape, ops ...int) {
			for _, op := range ops {
				t[op] = effect{pops, takes, gives}
			}
		}
		for op := range 11 { // loads
			set(1, 0, given, op)
		}
		set(2, 0, 0, 0x0b)                 // store
		set(0, 0, 0, vecConst)             // a constant is looked at by itself
		for op := 0x0f; op <= 0x14; op++ { // splats
			set(1, 0, given, op)
		}
		set(1, 0, given, 0x15, 0x16, 0x18, 0x19, 0x1b, 0x1d, 0x1f, 0x21) // extract_lane
		for op := range 6 {                                              // comparisons
			set(2, f32x4, given, vecF32x4Eq+op)
			set(2, f64x2, given, vecF64x2Eq+op)
		}
		set(1, 0, given, 0x4d, 0x53) // not, any_true
		set(3, 0, given, vecBitselect)
		set(2, 0, 0, 0x58, 0x59, 0x5a, 0x5b) // store_lane
		set(1, 0, given, 0x5c, 0x5d)         // load_zero
		set(1, f64x2, f32x4, 0x5e)           // demote
		set(1, f32x4, f64x2, 0x5f)           // promote
		// abs, neg, popcnt, all_true, bitmask, extend
		set(1, 0, given, 0x60, 0x61, 0x62, 0x63, 0x64, 0x7c, 0x7d, 0x7e, 0x7f)
		set(1, 0, given, 0x80, 0x81, 0x83, 0x84, 0x87, 0x88, 0x89, 0x8a)
		set(1, 0, given, 0xa0, 0xa1, 0xa3, 0xa4, 0xa7, 0xa8, 0xa9, 0xaa)
		set(1, 0, given, 0xc0, 0xc1, 0xc3, 0xc4, 0xc7, 0xc8, 0xc9, 0xca)
		set(1, 0, given, 0xe0, 0xe1, 0xec, 0xed)
		// ceil, floor, trunc, nearest, sqrt; add, sub, mul, div, min, max
		set(1, f32x4, f32x4, 0x67, 0x68, 0x69, 0x6a, 0xe3)
		set(2, f32x4, f32x4, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9)
		set(1, f64x2, f64x2, 0x74, 0x75, 0x7a, 0x94, 0xef)
		set(2, f64x2, f64x2, 0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5)
		set(1, f32x4, given, 0xf8, 0xf9) // trunc_sat
		set(1, f64x2, given, 0xfc, 0xfd)
		set(1, 0, number, 0xfa, 0xfb, 0xfe, 0xff) // convert
		return t
	}()
)

// resultTypes are the types of what instructions give, 0 for nothing, or where it depends.
var resultTypes = func() (t [256]byte) {
	set := func(from, to int, typ byte) {
		for op := from; op <= to; op++ {
			t[op] = typ
		}
	}
	set(0x28, 0x28, typeI32) // loads
	set(0x29, 0x29, typeI64)
	set(0x2a, 0x2a, typeF32)
	set(0x2b, 0x2b, typeF64)
	set(0x2c, 0x2f, typeI32)
	set(0x30, 0x35, typeI64)
	set(opMemorySize, opMemoryGrow, typeI32)
	set(opI32Const, opI32Const, typeI32)
	set(opI64Const, opI64Const, typeI64)
	set(0x45, 0x66, typeI32) // comparisons
	set(0x67, 0x78, typeI32) // arithmetic
	set(0x79, 0x8a, typeI64)
	set(0x8b, 0x98, typeF32)
	set(0x99, 0xa6, typeF64)
	set(0xa7, 0xab, typeI32) // conversions
	set(0xac, 0xb1, typeI64)
	set(0xb2, 0xb6, typeF32)
	set(0xb7, 0xbb, typeF64)
	set(0xbc, 0xbc, typeI32)
	set(0xbd, 0xbd, typeI64)
	set(0xbe, 0xbe, typeF32)
	set(0xbf, 0xbf, typeF64)
	set(0xc0, 0xc1, typeI32)
	set(0xc2, 0xc4, typeI64)
	set(0xd1, 0xd1, typeI32) // ref.is_null
	return t
}()

// vectorResult is the same for an instruction behind the prefix 0xfd.
func vectorResult(op byte) byte {
	switch op {
	case 0x15, 0x16, 0x18, 0x19, 0x1b, 0x53, 0x63, 0x64, 0x83, 0x84, 0xa3, 0xa4, 0xc3, 0xc4: // extract_lane, any_true, all_true, bitmask
		return typeI32
	case 0x1d:
		return typeI64
	case 0x1f:
		return typeF32
	case 0x21:
		return typeF64
	}
	return typeV128
}
