package wasmbytes

import (
	"cmp"
	"math"
	"slices"
)

// More value types.
const (
	F64     = 0x7c
	FuncRef = 0x70
)

// Program is a module of as many functions, globals and table elements as it takes.
type Program struct {
	Imports  []Import // functions 0 to len(Imports)-1
	Funcs    []Func   // numbered after the imports; the last one is exported as _start
	Globals  int      // mutable i64 globals, which begin at 0
	Tables   []uint32 // of funcref without a maximum: how many elements each has
	Elements []uint32 // functions that table 0 begins with
	Refs     []uint32 // functions that ref.func may name
	MinPages uint32   // of memory; there always is one
	Data     []byte   // placed at address 0
	Passive  []byte   // one more data segment, for memory.init
	Begin    bool     // _start is the start function, too, and so runs while the module is instantiated
	Custom   []byte   // a custom section's content, put last
	Exports  []Export // of functions, instead of _start
}

// Export is a function's name, and its number.
type Export struct {
	Name string
	Func uint32
}

// Func is a function of a Program.
type Func struct {
	Params, Results []byte
	Locals          uint32 // of type i64
	Code            []byte // without the final end
}

// Bytes encodes the program.
func (p Program) Bytes() []byte {
	byType := map[string]uint32{}
	var types, list []byte
	number := func(params, results []byte) uint32 {
		t := vector(vector([]byte{0x60}, params), results)
		i, ok := byType[string(t)]
		if !ok {
			i = uint32(len(byType))
			byType[string(t)] = i
			list = append(list, t...)
		}
		return i
	}
	number(nil, nil) // type 0, for call_indirect
	imports := U32(nil, uint32(len(p.Imports)))
	for _, f := range p.Imports {
		imports = append(vector(vector(imports, []byte(f.Module)), []byte(f.Name)), 0)
		imports = U32(imports, number(f.Params, f.Results))
	}
	functions, code := U32(nil, uint32(len(p.Funcs))), U32(nil, uint32(len(p.Funcs)))
	for _, f := range p.Funcs {
		functions = U32(functions, number(f.Params, f.Results))
		body := []byte{0}
		if f.Locals > 0 {
			body = append(U32([]byte{1}, f.Locals), I64)
		}
		code = vector(code, append(append(body, f.Code...), 0x0b))
	}
	types = append(U32(nil, uint32(len(byType))), list...)
	start := U32(nil, uint32(len(p.Imports)+len(p.Funcs)-1))

	b := Section([]byte(Header), 1, types)
	b = Section(b, 2, imports)
	b = Section(b, 3, functions)
	if len(p.Tables) > 0 {
		tables := U32(nil, uint32(len(p.Tables)))
		for _, n := range p.Tables {
			tables = U32(append(tables, FuncRef, 0), n)
		}
		b = Section(b, 4, tables)
	}
	b = Section(b, 5, U32([]byte{1, 0}, p.MinPages))
	if p.Globals > 0 {
		b = Section(b, 6, append(U32(nil, uint32(p.Globals)), slices.Repeat([]byte{I64, 1, 0x42, 0, 0x0b}, p.Globals)...))
	}
	exports := p.Exports
	if exports == nil {
		exports = []Export{{"_start", uint32(len(p.Imports) + len(p.Funcs) - 1)}}
	}
	list = U32(nil, uint32(len(exports)))
	for _, e := range exports {
		list = U32(append(vector(list, []byte(e.Name)), 0), e.Func)
	}
	b = Section(b, 7, list)
	if p.Begin {
		b = Section(b, 8, start)
	}
	if len(p.Elements)+len(p.Refs) > 0 {
		segments := []byte{2, 3, 0} // two of them; the first is declarative
		segments = functionIndices(segments, p.Refs)
		if len(p.Elements) == 0 {
			segments[0] = 1
		} else {
			segments = functionIndices(append(segments, 0, 0x41, 0, 0x0b), p.Elements)
		}
		b = Section(b, 9, segments)
	}
	segments := U32(nil, 2)
	if p.Passive != nil {
		b = Section(b, 12, segments)
	}
	b = Section(b, 10, code)
	switch data := vector([]byte{0, 0x41, 0, 0x0b}, p.Data); {
	case p.Passive != nil:
		b = Section(b, 11, vector(append(append(segments, data...), 1), p.Passive))
	case len(p.Data) > 0:
		b = Section(b, 11, append(U32(nil, 1), data...))
	}
	if p.Custom != nil {
		b = Section(b, 0, p.Custom)
	}
	return b
}

func functionIndices(b []byte, functions []uint32) []byte {
	b = U32(b, uint32(len(functions)))
	for _, f := range functions {
		b = U32(b, f)
	}
	return b
}

// Header is what every module begins with.
const Header = "\x00asm\x01\x00\x00\x00"

// Op is an instruction with its immediates.
func Op(op byte, immediates ...uint32) []byte {
	b := []byte{op}
	for _, v := range immediates {
		b = U32(b, v)
	}
	return b
}

// Misc is one of the instructions with the prefix 0xfc.
func Misc(op uint32, immediates ...uint32) []byte {
	return Op(0xfc, append([]uint32{op}, immediates...)...)
}

// Call is the instruction call f.
func Call(f uint32) []byte { return Op(0x10, f) }

// Drop is the instruction drop.
func Drop() []byte { return []byte{0x1a} }

// Const64 is the instruction i64.const v.
func Const64(v int64) []byte { return signed([]byte{0x42}, v) }

// ConstF64 is the instruction f64.const with the bits of v.
func ConstF64(v float64) []byte {
	bits := math.Float64bits(v)
	b := []byte{0x44}
	for i := range 8 {
		b = append(b, byte(bits>>(8*i)))
	}
	return b
}

// Forever repeats what parts do, which leaves nothing on the stack.
func Forever(parts ...[]byte) []byte {
	return Code([]byte{0x03, 0x40}, Code(parts...), []byte{0x0c, 0, 0x0b})
}

// If does what parts do when the top of the stack is not 0.
func If(parts ...[]byte) []byte {
	return Code([]byte{0x04, 0x40}, Code(parts...), []byte{0x0b})
}

// SystemCall is a function that hosts provide.
type SystemCall struct {
	Name string
	// Params says what each parameter is for: f a descriptor, p a pointer, n a length or count, i
	// another i32, I an i64, F an f64.
	Params string
	Module string // "" is WASI preview 1
}

// SystemCalls are all 46 of WASI preview 1.
func SystemCalls() []SystemCall {
	return []SystemCall{
		{"args_get", "pp", ""}, {"args_sizes_get", "pp", ""}, {"clock_res_get", "ip", ""}, {"clock_time_get", "iIp", ""},
		{"environ_get", "pp", ""}, {"environ_sizes_get", "pp", ""}, {"fd_advise", "fIIi", ""}, {"fd_allocate", "fII", ""},
		{"fd_close", "f", ""}, {"fd_datasync", "f", ""}, {"fd_fdstat_get", "fp", ""}, {"fd_fdstat_set_flags", "fi", ""},
		{"fd_fdstat_set_rights", "fII", ""}, {"fd_filestat_get", "fp", ""}, {"fd_filestat_set_size", "fI", ""},
		{"fd_filestat_set_times", "fIIi", ""}, {"fd_pread", "fpnIp", ""}, {"fd_prestat_dir_name", "fpn", ""},
		{"fd_prestat_get", "fp", ""}, {"fd_pwrite", "fpnIp", ""}, {"fd_read", "fpnp", ""}, {"fd_readdir", "fpnIp", ""},
		{"fd_renumber", "ff", ""}, {"fd_seek", "fIip", ""}, {"fd_sync", "f", ""}, {"fd_tell", "fp", ""}, {"fd_write", "fpnp", ""},
		{"path_create_directory", "fpn", ""}, {"path_filestat_get", "fipnp", ""}, {"path_filestat_set_times", "fipnIIi", ""},
		{"path_link", "fipnfpn", ""}, {"path_open", "fipniIIip", ""}, {"path_readlink", "fpnpnp", ""},
		{"path_remove_directory", "fpn", ""}, {"path_rename", "fpnfpn", ""}, {"path_symlink", "pnfpn", ""},
		{"path_unlink_file", "fpn", ""}, {"poll_oneoff", "ppnp", ""}, {"proc_exit", "i", ""}, {"proc_raise", "i", ""},
		{"random_get", "pn", ""}, {"sched_yield", "", ""}, {"sock_accept", "fip", ""}, {"sock_recv", "fpnipp", ""},
		{"sock_send", "fpnip", ""}, {"sock_shutdown", "fi", ""},
	}
}

// GridCalls are those that the grid offers besides.
func GridCalls() []SystemCall {
	const grid = "grid"
	return []SystemCall{
		{"http_open", "pnp", grid}, {"spawn", "pnp", grid}, {"await", "ipp", grid}, {"kv", "pnp", grid}, {"progress", "II", grid},
		{"count", "pnI", grid}, {"observe", "pnF", grid}, {"last_error", "pnp", grid},
	}
}

// Import is the call as a module imports it.
func (c SystemCall) Import() Import {
	f := Import{Module: cmp.Or(c.Module, "wasi_snapshot_preview1"), Name: c.Name, Results: []byte{I32}}
	for _, p := range c.Params {
		switch p {
		case 'I':
			f.Params = append(f.Params, I64)
		case 'F':
			f.Params = append(f.Params, F64)
		default:
			f.Params = append(f.Params, I32)
		}
	}
	if c.Name == "proc_exit" {
		f.Results = nil
	}
	return f
}

// System is the import of the system call with a name, which must exist.
func System(name string) Import {
	calls := SystemCalls()
	return calls[slices.IndexFunc(calls, func(c SystemCall) bool { return c.Name == name })].Import()
}
