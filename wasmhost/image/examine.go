package image

import (
	"bytes"
	"fmt"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/grid"
)

// maxBinary bounds what is examined, in bytes.
const maxBinary = 64 << 20

// ExportPrefix begins the names under which [Expose] exports globals; their index follows.
const ExportPrefix = "grid.global."

// Reason is why instances of a module cannot be reused. It is an error, so that errors.Is finds it.
type Reason uint8

// The reasons.
const (
	StartFunction  Reason = iota + 1 // it would run on memory that it has changed before
	HiddenGlobal                     // a mutable global is not exported; Expose cures it
	WideGlobal                       // a mutable global of a type that cannot be set from outside: v128 or a reference
	ImportedState                    // memory, table or mutable global belongs to somebody else
	TableWrites                      // tables change at run time
	SegmentUse                       // data or element segments are read or dropped at run time
	Threads                          // shared memory or atomic instructions
	UnknownFeature                   // an instruction, section or type of which it is not known what it does
)

func (r Reason) Error() string {
	switch r {
	case StartFunction:
		return "it has a start function"
	case HiddenGlobal:
		return "a mutable global is not exported"
	case WideGlobal:
		return "a mutable global is a vector or a reference"
	case ImportedState:
		return "it imports a memory, a table or a mutable global"
	case TableWrites:
		return "it changes a table at run time"
	case SegmentUse:
		return "it reads or drops a segment at run time"
	case Threads:
		return "it uses threads"
	case UnknownFeature:
		return "it uses an experimental feature"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Layout is the state of a module's instances, as [Examine] found it.
type Layout struct {
	Memory  bool     // it has one
	Cells   int      // entries of its tables, globals and segments, or somewhat more: what else an instance holds
	Globals []Global // the mutable ones, with no values yet
}

// Global is a mutable global of an instance, by its exported name.
type Global struct {
	Name  string
	Type  api.ValueType // i32, i64, f32 or f64
	Value uint64        // encoded as api.Global.Get does
}

// Reusable tells whether instances of a module can be reset, as [Examine] does.
func Reusable(binary []byte) error {
	_, err := Examine(binary)
	return err
}

// Examine reads a module and lists the state of its instances. The error is Unsupported, and has a
// [Reason] in it, when there is state that could not be restored; it is Invalid or Limit for what does
// not look like a module. That the module is valid is left to the engine to check. Examine takes time
// proportional to the module's length, and keeps nothing of it.
func Examine(binary []byte) (*Layout, error) {
	x, err := examine(binary)
	if err != nil {
		return nil, err
	}
	return x.layout()
}

func (x *examiner) layout() (*Layout, error) {
	for i, g := range x.globals {
		if g.mutable && g.name == "" {
			return nil, x.refused(HiddenGlobal, fmt.Sprintf("number %d", i)).
				Hint("export all mutable globals, as Expose does, before the module is compiled")
		}
	}
	l := &Layout{Memory: x.memory, Cells: x.cells + len(x.globals)}
	for _, g := range x.globals {
		if g.mutable {
			l.Globals = append(l.Globals, Global{Name: g.name, Type: g.typ})
		}
	}
	return l, nil
}

// Prepare does what [Expose], [Strip] and [Examine] do one behind the other, but reads the module once.
func Prepare(binary []byte, most uint64) (code, memory []byte, l *Layout, err error) {
	x, err := examine(binary)
	if err != nil {
		return nil, nil, nil, err
	}
	exports, err := x.expose()
	if err != nil {
		return nil, nil, nil, err
	}
	if l, err = x.layout(); err != nil {
		return nil, nil, nil, err
	}
	memory, stripped := x.content(binary, most)
	if stripped {
		l.Cells -= x.segments
	}
	return x.assemble(binary, exports, stripped), memory, l, nil
}

// Expose gives the module with its mutable globals exported, each that was not under a name that begins
// with [ExportPrefix]; nothing else changes. The result is binary itself when there is nothing to do.
// Its errors are those of [Examine].
func Expose(binary []byte) ([]byte, error) {
	x, err := examine(binary)
	if err != nil {
		return nil, err
	}
	exports, err := x.expose()
	if err != nil {
		return nil, err
	}
	return x.assemble(binary, exports, false), nil
}

// expose names the mutable globals that have no name, and gives the section that exports them too; nil
// when all have one.
func (x *examiner) expose() (section []byte, err error) {
	var added []byte
	n := 0
	for i := range x.globals {
		g := &x.globals[i]
		if g.mutable && g.name == "" {
			g.name = fmt.Sprintf(ExportPrefix+"%d", i)
			added = append(appendU32(added, uint32(len(g.name))), g.name...)
			added = appendU32(append(added, byte(api.ExternTypeGlobal)), uint32(i))
			n++
		}
	}
	if n == 0 {
		return nil, nil
	}
	if x.reserved {
		return nil, grid.Errorf(grid.Invalid, "image: the module exports names that begin with %s, which are reserved", ExportPrefix).
			Hint("rename them")
	}
	body := appendU32(nil, uint32(x.exports+n))
	body = append(append(body, x.exported...), added...)
	return append(appendU32([]byte{secExport}, uint32(len(body))), body...), nil
}

// assemble gives the module with another export section, unless that is nil, and perhaps without its data
// segments. It is binary itself when nothing changes.
func (x *examiner) assemble(binary, exports []byte, strip bool) []byte {
	if exports == nil && !strip {
		return binary
	}
	out := make([]byte, 0, len(binary)+len(exports))
	at := 0
	leave := func(from, to int, instead []byte) {
		out = append(append(out, binary[at:from]...), instead...)
		at = to
	}
	if exports != nil {
		leave(x.exportLo, x.exportHi, exports)
	}
	if strip {
		if c := x.dataCount; c.end > 0 {
			leave(c.begin, c.end, nil)
		}
		leave(x.data.begin, x.data.end, nil)
	}
	return append(out, binary[at:]...)
}

func appendU32(b []byte, v uint32) []byte {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// Section numbers of the binary format.
const (
	secCustom, secType, secImport, secFunction, secTable, secMemory = 0, 1, 2, 3, 4, 5
	secGlobal, secExport, secStart, secElement, secCode, secData    = 6, 7, 8, 9, 10, 11
	secDataCount                                                    = 12
)

// place is where a section stands among the others; custom ones are anywhere, and 0 is unknown.
var place = [...]int{
	secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secGlobal: 6, secExport: 7, secStart: 8,
	secElement: 9, secDataCount: 10, secCode: 11, secData: 12,
}

// examiner is a module being read.
type examiner struct {
	r       reader // the section
	memory  bool
	pages   uint32 // of it, at the start
	globals []globalType

	cells    int // entries of tables and segments
	segments int // of data, among them

	exports            int    // how many
	exported           []byte // their encoding
	exportLo, exportHi int    // the section in the module, or where it would be
	reserved           bool   // one has a name of ours

	data, dataCount section
}

// section is where a section is in the module: header and body, and just the body.
type section struct{ begin, body, end int }

type globalType struct {
	mutable bool
	typ     api.ValueType
	name    string // of an export, "" without
}

var header = []byte("\x00asm\x01\x00\x00\x00")

func examine(binary []byte) (*examiner, error) {
	switch {
	case len(binary) > maxBinary:
		return nil, grid.Errorf(grid.Limit, "image: the module has %d bytes, at most %d are examined", len(binary), maxBinary).
			Hint("strip debug information")
	case !bytes.HasPrefix(binary, header):
		return nil, grid.Errorf(grid.Invalid, "image: not a Wasm module of version 1")
	}
	x := &examiner{}
	r := reader{b: binary, off: len(header)}
	x.exportLo = r.off
	last := 0
	for r.more() {
		begin := r.off
		id := r.byte()
		x.r = r.sub()
		body := x.r.off
		switch {
		case r.err != nil:
			return nil, wrap(r.err)
		case id == secCustom:
			continue // also behind the place of exports
		case int(id) >= len(place):
			return nil, x.refused(UnknownFeature, fmt.Sprintf("section %d", id))
		case place[id] <= last:
			x.r.fail(fmt.Sprintf("section %d is not in its place", id))
			return nil, wrap(x.r.err)
		}
		last = place[id]
		x.section(id)
		if id != secElement && id != secData && id != secDataCount && id != secFunction && x.r.more() {
			x.r.fail(fmt.Sprintf("section %d has bytes left over", id))
		}
		if x.r.err != nil {
			return nil, wrap(x.r.err)
		}
		switch {
		case id == secData:
			x.data = section{begin, body, r.off}
		case id == secDataCount:
			x.dataCount = section{begin, body, r.off}
		case id == secExport:
			x.exportLo, x.exportHi = begin, r.off
		case last < place[secExport]:
			x.exportLo, x.exportHi = r.off, r.off
		}
	}
	if x.exportHi == 0 {
		x.exportHi = x.exportLo
	}
	return x, nil
}

// wrap names the package in an error of the reader; its code and advice are found further inside.
func wrap(err error) error { return fmt.Errorf("image: %w", err) }

// refused is the error for a module that is sound, but not to be reused.
func (x *examiner) refused(why Reason, detail string) *grid.Error {
	return grid.Errorf(grid.Unsupported, "image: instances of the module cannot be reused, since %w (%s)", why, detail).
		Hint("use a new instance for every task")
}

// refuse ends reading with a Reason.
func (x *examiner) refuse(why Reason, detail string) {
	x.r.stop(grid.Errorf(grid.Unsupported, "instances of the module cannot be reused, since %w (%s, before byte %d)", why, detail, x.r.off).
		Hint("use a new instance for every task"))
}

func (x *examiner) section(id byte) {
	r := &x.r
	switch id {
	case secType:
		for range r.count() {
			x.funcType()
		}
	case secImport:
		for range r.count() {
			x.importation()
		}
	case secTable:
		for range r.count() {
			x.cells += int(x.table())
		}
	case secElement:
		x.cells += len(r.b) - r.off // a byte each, at least
	case secData:
		x.segments = r.count()
		x.cells += x.segments
	case secMemory:
		for range r.count() {
			x.pages = x.limits()
			if x.memory {
				x.refuse(UnknownFeature, "several memories")
			}
			x.memory = true
		}
	case secGlobal:
		for range r.count() {
			x.globals = append(x.globals, x.global())
			x.expression()
		}
	case secExport:
		x.exportSection()
	case secStart:
		r.u32()
		x.refuse(StartFunction, "a start section")
	case secCode:
		for range r.count() {
			x.function()
		}
	}
}

func (x *examiner) funcType() {
	r := &x.r
	if r.byte() != 0x60 {
		x.refuse(UnknownFeature, "a type that is not of a function")
	}
	for range 2 {
		for range r.count() {
			x.valueType()
		}
	}
}

func (x *examiner) valueType() byte {
	t := x.r.byte()
	switch t {
	case api.ValueTypeI32, api.ValueTypeI64, api.ValueTypeF32, api.ValueTypeF64, api.ValueTypeExternref, typeV128, typeFuncref:
	default:
		x.refuse(UnknownFeature, fmt.Sprintf("value type %#x", t))
	}
	return t
}

const (
	typeV128    = 0x7b
	typeFuncref = 0x70
)

func (x *examiner) importation() {
	r := &x.r
	module, name := r.name(), r.name()
	what := func() string { return fmt.Sprintf("%.64q.%.64q", module, name) }
	switch kind := r.byte(); kind {
	case api.ExternTypeFunc:
		r.u32()
	case api.ExternTypeTable:
		x.table()
		x.refuse(ImportedState, "table "+what())
	case api.ExternTypeMemory:
		x.limits()
		x.refuse(ImportedState, "memory "+what())
	case api.ExternTypeGlobal:
		g := x.global()
		if g.mutable {
			x.refuse(ImportedState, "global "+what())
		}
		x.globals = append(x.globals, g)
	default:
		x.refuse(UnknownFeature, fmt.Sprintf("an import of kind %d", kind))
	}
}

// table reads a table's type, and gives how many elements it begins with.
func (x *examiner) table() (least uint32) {
	if t := x.r.byte(); t != typeFuncref && t != api.ValueTypeExternref {
		x.refuse(UnknownFeature, fmt.Sprintf("a table of type %#x", t))
	}
	return x.limits()
}

// limits reads the size of a table or memory, and gives the least.
func (x *examiner) limits() (least uint32) {
	r := &x.r
	switch flags := r.byte(); flags {
	case 0:
		least = r.u32()
	case 1:
		least = r.u32()
		r.u32()
	case 2, 3:
		x.refuse(Threads, "a shared memory")
	default:
		x.refuse(UnknownFeature, "a 64-bit memory or table")
	}
	return least
}

func (x *examiner) global() globalType {
	g := globalType{typ: x.valueType()}
	switch x.r.byte() {
	case 0:
	case 1:
		g.mutable = true
		if g.typ == typeV128 || g.typ == typeFuncref || g.typ == api.ValueTypeExternref {
			x.refuse(WideGlobal, fmt.Sprintf("number %d", len(x.globals)))
		}
	default:
		x.r.fail("a global is neither constant nor mutable")
	}
	return g
}

func (x *examiner) exportSection() {
	r := &x.r
	n := r.count()
	begin := r.off
	for range n {
		name := r.name()
		x.reserved = x.reserved || bytes.HasPrefix(name, []byte(ExportPrefix))
		kind, index := r.byte(), r.u32()
		if kind == api.ExternTypeGlobal && r.err == nil {
			if int(index) >= len(x.globals) {
				r.fail("an export of a global that is not there")
				return
			}
			if g := &x.globals[index]; g.name == "" {
				g.name = string(name)
			}
		}
	}
	if r.err == nil {
		x.exports, x.exported = n, r.b[begin:r.off]
	}
}

func (x *examiner) function() {
	outer := x.r
	x.r = outer.sub()
	r := &x.r
	for range r.count() {
		r.u32()
		x.valueType()
	}
	x.expression()
	if r.more() {
		r.fail("a function goes on behind its end")
	}
	outer.err = r.err
	if outer.err != nil {
		outer.b = outer.b[:outer.off]
	}
	x.r = outer
}

// Opcodes, where they need to be told apart.
const (
	opBlock, opLoop, opIf, opEnd = 0x02, 0x03, 0x04, 0x0b
	opMisc, opVector, opAtomic   = 0xfc, 0xfd, 0xfe
)

// imm is what follows an opcode.
type imm byte

const (
	immUnknown imm = iota
	immNone
	immBlock  // a block's type
	immIndex  // one index
	immTwo    // two
	immLabels // of br_table
	immTypes  // of select
	immMemory // of a load or store
	immZero   // the number of the memory
	imm5      // a number of at most 5 bytes
	imm10     // 10
	imm4      // plain bytes
	imm8
	immRef   // a type of reference
	immTable // writes to a table
)

var immediates = func() (t [256]imm) {
	set := func(from, to int, i imm) {
		for op := from; op <= to; op++ {
			t[op] = i
		}
	}
	set(0x00, 0x01, immNone) // unreachable, nop
	set(opBlock, opIf, immBlock)
	set(0x05, 0x05, immNone) // else
	set(opEnd, opEnd, immNone)
	set(0x0c, 0x0d, immIndex) // br, br_if
	set(0x0e, 0x0e, immLabels)
	set(0x0f, 0x0f, immNone)  // return
	set(0x10, 0x10, immIndex) // call
	set(0x11, 0x11, immTwo)   // call_indirect
	set(0x12, 0x12, immIndex) // return_call
	set(0x13, 0x13, immTwo)   // return_call_indirect
	set(0x1a, 0x1b, immNone)  // drop, select
	set(0x1c, 0x1c, immTypes)
	set(0x20, 0x24, immIndex) // locals and globals
	set(0x25, 0x25, immIndex) // table.get
	set(0x26, 0x26, immTable) // table.set
	set(0x28, 0x3e, immMemory)
	set(0x3f, 0x40, immZero) // memory.size, memory.grow
	set(0x41, 0x41, imm5)    // i32.const
	set(0x42, 0x42, imm10)   // i64.const
	set(0x43, 0x43, imm4)
	set(0x44, 0x44, imm8)
	set(0x45, 0xc4, immNone) // comparison, arithmetic, conversion
	set(0xd0, 0xd0, immRef)
	set(0xd1, 0xd1, immNone)  // ref.is_null
	set(0xd2, 0xd2, immIndex) // ref.func
	return t
}()

// expression reads instructions up to the end of the outermost block.
func (x *examiner) expression() {
	r := &x.r
	for depth := 1; depth > 0 && r.err == nil; {
		op := r.byte()
		switch immediates[op] {
		case immNone:
			if op == opEnd {
				depth--
			}
		case immBlock:
			depth++
			r.leb(5)
		case immIndex:
			r.u32()
		case immTwo:
			r.u32()
			r.u32()
		case immLabels:
			for range r.count() {
				r.u32()
			}
			r.u32()
		case immTypes:
			for range r.count() {
				x.valueType()
			}
		case immMemory:
			x.memoryOperand()
		case immZero:
			x.memoryIndex()
		case imm5:
			r.leb(5)
		case imm10:
			r.leb(10)
		case imm4:
			r.bytes(4)
		case imm8:
			r.bytes(8)
		case immRef:
			if t := r.byte(); t != typeFuncref && t != api.ValueTypeExternref {
				x.refuse(UnknownFeature, "a typed reference")
			}
		case immTable:
			x.refuse(TableWrites, "table.set")
		case immUnknown:
			x.prefixed(op)
		}
	}
}

// memoryOperand reads the alignment and offset of a load or store.
func (x *examiner) memoryOperand() {
	if align := x.r.u32(); align > 31 { // bit 6 announces the number of a memory
		x.refuse(UnknownFeature, "several memories")
	}
	x.r.u32()
}

func (x *examiner) memoryIndex() {
	if x.r.byte() != 0 {
		x.refuse(UnknownFeature, "several memories")
	}
}

// prefixed reads the rest of an instruction of more than one byte, and refuses those unknown.
func (x *examiner) prefixed(op byte) {
	r := &x.r
	switch {
	case r.err != nil:
		return
	case op == opAtomic:
		x.refuse(Threads, "an atomic instruction")
	case op == opMisc:
		x.misc(r.u32())
	case op == opVector:
		x.vector(r.u32())
	default:
		x.refuse(UnknownFeature, fmt.Sprintf("opcode %#x", op))
	}
}

func (x *examiner) misc(op uint32) {
	r := &x.r
	switch op {
	case 0, 1, 2, 3, 4, 5, 6, 7: // saturating conversions
	case 8:
		x.refuse(SegmentUse, "memory.init")
	case 9:
		x.refuse(SegmentUse, "data.drop")
	case 10: // memory.copy
		x.memoryIndex()
		x.memoryIndex()
	case 11: // memory.fill
		x.memoryIndex()
	case 12:
		x.refuse(TableWrites, "table.init")
	case 13:
		x.refuse(SegmentUse, "elem.drop")
	case 14:
		x.refuse(TableWrites, "table.copy")
	case 15:
		x.refuse(TableWrites, "table.grow")
	case 16: // table.size
		r.u32()
	case 17:
		x.refuse(TableWrites, "table.fill")
	default:
		x.refuse(UnknownFeature, fmt.Sprintf("opcode %#x %d", opMisc, op))
	}
}

// maxVector is the last vector instruction, of those called relaxed.
const maxVector = 0x113

func (x *examiner) vector(op uint32) {
	r := &x.r
	switch {
	case op <= 11, op == 92, op == 93: // loads and stores
		x.memoryOperand()
	case op == 12, op == 13: // a constant; the lanes of a shuffle
		r.bytes(16)
	case op >= 21 && op <= 34: // the number of a lane
		r.byte()
	case op >= 84 && op <= 91: // both
		x.memoryOperand()
		r.byte()
	case op > maxVector:
		x.refuse(UnknownFeature, fmt.Sprintf("opcode %#x %d", opVector, op))
	}
}
