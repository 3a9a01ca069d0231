// Package wasmbytes assembles tiny Wasm modules for tests: a byte slice each, so that no toolchain
// is needed and each module does exactly one thing.
package wasmbytes

import "slices"

// Module is a command in the making: one _start function, one memory, and imports of WASI preview 1.
type Module struct {
	Imports  []Import
	MinPages uint32 // of memory; there always is one
	MaxPages uint32 // 0: no maximum
	Data     string // placed at address 0
	Code     []byte // the body of _start, without locals and the final end
	Start    string // the exported name, "" for _start
	NoMemory bool
	Table    bool   // a table of one funcref without a maximum
	Locals   uint32 // i32 locals
}

// Import is one imported function; Params and Results are value types, such as I32.
type Import struct {
	Module, Name    string
	Params, Results []byte
}

// Value types.
const (
	I32 = 0x7f
	I64 = 0x7e
)

// Preview1 imports a function of WASI preview 1 that takes n i32 and returns an errno.
func Preview1(name string, n int) Import {
	return Import{"wasi_snapshot_preview1", name, slices.Repeat([]byte{I32}, n), []byte{I32}}
}

// Bytes encodes the module.
func (m Module) Bytes() []byte {
	var types, imports, memory []byte
	types = U32(types, uint32(len(m.Imports)+1))
	types = append(types, 0x60, 0, 0) // type 0: of _start
	imports = U32(imports, uint32(len(m.Imports)))
	for i, f := range m.Imports {
		types = append(types, 0x60)
		types = vector(types, f.Params)
		types = vector(types, f.Results)
		imports = vector(imports, []byte(f.Module))
		imports = vector(imports, []byte(f.Name))
		imports = append(imports, 0)
		imports = U32(imports, uint32(i+1))
	}
	if m.MaxPages == 0 {
		memory = U32([]byte{1, 0}, m.MinPages)
	} else {
		memory = U32(U32([]byte{1, 1}, m.MinPages), m.MaxPages)
	}
	start := m.Start
	if start == "" {
		start = "_start"
	}
	export := append(vector([]byte{1}, []byte(start)), 0)
	export = U32(export, uint32(len(m.Imports)))

	body := []byte{0}
	if m.Locals > 0 {
		body = append(U32([]byte{1}, m.Locals), I32)
	}
	body = append(append(body, m.Code...), 0x0b)
	code := vector([]byte{1}, body)

	b := []byte("\x00asm\x01\x00\x00\x00")
	b = Section(b, 1, types)
	b = Section(b, 2, imports)
	b = Section(b, 3, []byte{1, 0})
	if m.Table {
		b = Section(b, 4, []byte{1, 0x70, 0, 1})
	}
	if !m.NoMemory {
		b = Section(b, 5, memory)
	}
	b = Section(b, 7, export)
	b = Section(b, 10, code)
	if m.Data != "" {
		b = Section(b, 11, vector([]byte{1, 0, 0x41, 0, 0x0b}, []byte(m.Data)))
	}
	return b
}

// Section appends one section to a module.
func Section(b []byte, id byte, body []byte) []byte { return vector(append(b, id), body) }

// U32 appends an unsigned LEB128.
func U32(b []byte, v uint32) []byte {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// Const is the instruction i32.const v.
func Const(v int32) []byte { return signed([]byte{0x41}, int64(v)) }

// signed appends a number in signed LEB128.
func signed(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if (v == 0 && c&0x40 == 0) || (v == -1 && c&0x40 != 0) {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// Code joins instructions.
func Code(parts ...[]byte) []byte { return slices.Concat(parts...) }

func vector(b, content []byte) []byte { return append(U32(b, uint32(len(content))), content...) }

// Noop returns at once.
func Noop() []byte { return Module{MinPages: 1}.Bytes() }

// Exit ends with the given exit code.
func Exit(code int32) []byte {
	exit := Import{"wasi_snapshot_preview1", "proc_exit", []byte{I32}, nil}
	return Module{Imports: []Import{exit}, MinPages: 1, Code: Code(Const(code), []byte{0x10, 0})}.Bytes()
}

// Unreachable traps.
func Unreachable() []byte { return Module{MinPages: 1, Code: []byte{0x00}}.Bytes() }

// Divide divides by zero.
func Divide() []byte {
	return Module{MinPages: 1, Code: Code(Const(1), Const(0), []byte{0x6d, 0x1a})}.Bytes()
}

// OutOfBounds reads beyond its memory.
func OutOfBounds() []byte {
	return Module{MinPages: 1, Code: Code(Const(-8), []byte{0x28, 2, 0, 0x1a})}.Bytes()
}

// Loop never ends.
func Loop() []byte { return Module{MinPages: 1, Code: []byte{0x03, 0x40, 0x0c, 0, 0x0b}}.Bytes() }

// Spin counts to n, in a word of its memory, and returns.
func Spin(n int32) []byte {
	load := Code(Const(0), []byte{0x28, 2, 0})
	return Module{MinPages: 1, Code: Code(
		[]byte{0x03, 0x40},                                 // loop
		Const(0), load, Const(1), []byte{0x6a, 0x36, 2, 0}, // i32.add, i32.store
		load, Const(n), []byte{0x49, 0x0d, 0}, // i32.lt_u, br_if 0
		[]byte{0x0b})}.Bytes()
}

// Recurse calls itself until the stack is full.
func Recurse() []byte { return Module{MinPages: 1, Code: []byte{0x10, 0}}.Bytes() }

// Grow asks for one page after another until it is refused, then returns.
func Grow() []byte {
	return Module{MinPages: 1, Code: Code(
		[]byte{0x03, 0x40},        // loop
		Const(1), []byte{0x40, 0}, // memory.grow 1
		Const(-1), []byte{0x47, 0x0d, 0}, // i32.ne, br_if 0
		[]byte{0x0b})}.Bytes()
}

// GrowTable grows its table without end, and returns when it is refused.
func GrowTable() []byte {
	return Module{MinPages: 1, Table: true, Code: Code(
		[]byte{0x03, 0x40, 0xd0, 0x70}, Const(1<<20), // loop, ref.null func
		[]byte{0xfc, 15, 0}, // table.grow 0
		Const(-1), []byte{0x47, 0x0d, 0}, []byte{0x0b})}.Bytes()
}

// Random writes n random bytes (at most 1024) to stdout.
func Random(n int32) []byte {
	return Module{
		Imports:  []Import{Preview1("random_get", 2), Preview1("fd_write", 4)},
		MinPages: 1,
		Code: Code(
			Const(1024), Const(n), []byte{0x10, 0, 0x1a},
			Const(0), Const(1024), []byte{0x36, 2, 0}, // iovec at 0: address, length
			Const(4), Const(n), []byte{0x36, 2, 0},
			Const(1), Const(0), Const(1), Const(8), []byte{0x10, 1, 0x1a},
		),
	}.Bytes()
}

// Env counts to n, and writes its environment to stdout, each variable before a zero byte.
func Env(n int32) []byte {
	const count, size, iovec, written, counter, pointers, text = 0, 4, 8, 16, 20, 1024, 4096
	load := func(at int32) []byte { return Code(Const(at), []byte{0x28, 2, 0}) }
	store := []byte{0x36, 2, 0}
	return Module{
		Imports:  []Import{Preview1("environ_sizes_get", 2), Preview1("environ_get", 2), Preview1("fd_write", 4)},
		MinPages: 1,
		Code: Code(
			[]byte{0x03, 0x40}, // loop
			Const(counter), load(counter), Const(1), []byte{0x6a}, store,
			load(counter), Const(n), []byte{0x49, 0x0d, 0}, // i32.lt_u, br_if 0
			[]byte{0x0b},
			Const(count), Const(size), []byte{0x10, 0, 0x1a},
			Const(pointers), Const(text), []byte{0x10, 1, 0x1a},
			Const(iovec), Const(text), store,
			Const(iovec+4), load(size), store,
			Const(1), Const(iovec), Const(1), Const(written), []byte{0x10, 2, 0x1a},
		),
	}.Bytes()
}
