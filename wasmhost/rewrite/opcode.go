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
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opI32GtU       = 0x4b
	opI32LeU       = 0x4d
	opI64LtS       = 0x53
	opI64GtU       = 0x56
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64Shl       = 0x86
	opI64ShrU      = 0x88
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

	blockVoid = 0x40
)

// Value types.
const (
	typeI32       = 0x7f
	typeI64       = 0x7e
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
