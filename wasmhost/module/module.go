// Package module looks at a Wasm binary before it is compiled. It says in a sentence what is wrong
// with a file that cannot run here and what to do about it, and it bounds what a binary makes the
// host allocate. It reads section headers and the few sections that matter; whether the code is
// valid is left to the compiler.
package module

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

// Bounds on a module.
const (
	MaxSize = 64 << 20 // bytes of binary

	maxImports   = 1 << 16
	maxTypes     = 1 << 20
	maxParams    = 1 << 10
	maxFunctions = 1 << 20
	maxTables    = 16
	maxElements  = 1 << 20 // of all tables, now or grown to; they are outside of linear memory
	maxNamed     = 3       // of several culprits, how many a message names
	maxShown     = 100     // bytes of a name in a message
)

// Page is the unit of linear memory, in bytes.
const Page = 64 << 10

// Preview1 is the import module of the only system interface that guests are given.
const Preview1 = "wasi_snapshot_preview1"

// Extism is the import module by which a plug-in for Extism is known. extismUser has what an application gives its own
// plug-ins, of which there is nothing here.
const (
	Extism     = "extism:host/env"
	extismUser = "extism:host/user"
)

// Exports by which a module is known.
const (
	Start      = "_start"      // of a command
	Initialize = "_initialize" // of a reactor, called once before its functions
	Call       = abi.Call      // of a reactor that runs the function named by its environment

	ctors       = "__wasm_call_ctors" // of a plug-in for Extism, instead of Initialize
	haskellInit = "hs_init"           // of one in Haskell, after Initialize; it takes two i32, which are 0
)

// Info is what the host needs to know of a module that passed.
type Info struct {
	Binary    []byte // the module to compile: as given, but with every table bounded
	MinMemory uint64 // bytes of linear memory at the start
	MaxMemory uint64 // bytes it may grow to by its own declaration
	Stubs     []Func // socket functions that it imports and preview 1 does not have, or has with other types

	Kind       grid.ModuleKind
	Initialize []string // exports by which a reactor is initialised, in order; they take nothing, or any number of 0
	Any        bool     // it finds its function itself: a reactor that exports Call, a program that mentions the variable
	Functions  []string // of a reactor, that can be called: they take nothing, and give nothing or an i32; sorted
	Imports    []string // module and name of functions, sorted
	Grid       bool     // it imports what the grid offers besides WASI
	Spawns     bool     // and may spawn tasks
	Map        bool     // and may use the realm's map
	Extism     bool     // it is a plug-in for Extism
	Names      bool     // it has a section of names
	Size       int      // of the binary as it was given

	Manifest *grid.Manifest // what it says of itself; nil when it is no plugin
	Signers  []peer.ID      // whose signatures it carries, which were all checked
}

// Entry is the export to call for a function that a stage names.
func (i *Info) Entry(function string) string {
	switch {
	case i.Kind == grid.Command:
		return Start
	case i.Any:
		return Call
	}
	return function
}

// Func is an imported function. Params and Results are value types as the binary format encodes them.
type Func struct {
	Module, Name    string
	Params, Results []byte
}

// Provider tells the signature of a function that the host offers.
type Provider func(module, name string) (params, results []byte, ok bool)

// Check tells whether the host can run a module. Its errors are Invalid, Unsupported or Limit. It
// does not keep or change binary, but Info.Binary may be the same slice.
func Check(binary []byte, provided Provider) (Info, error) {
	if err := sniff(binary); err != nil {
		return Info{}, err
	}
	p := parser{in: binary, info: Info{Binary: binary, Kind: grid.Reactor, Size: len(binary)}, exports: map[string]uint32{}}
	p.custom.body = len(binary)
	if err := p.sections(); err != nil {
		return Info{}, err
	}
	info, err := p.finish(provided)
	if err != nil {
		return Info{}, err
	}
	return info, p.describe(&info)
}

var magic = []byte("\x00asm")

// sniff recognises what people hand in by mistake.
func sniff(b []byte) error {
	invalid := func(format string, args ...any) *grid.Error { return grid.Errorf(grid.Invalid, format, args...) }
	const build = "build a WASI preview 1 command, as with `GOOS=wasip1 GOARCH=wasm go build -o prog.wasm`"
	switch {
	case len(b) == 0:
		return invalid("the module is an empty file").Hint("%s", build)
	case len(b) > MaxSize:
		return grid.Errorf(grid.Limit, "the module has %d bytes, at most %d are allowed", len(b), MaxSize).
			Hint("strip debug information, as with `go build -ldflags=-w` or `wasm-strip`")
	case bytes.HasPrefix(b, []byte("\x7fELF")):
		return invalid("not a Wasm module but a native ELF program").Hint("%s", build)
	case bytes.HasPrefix(b, []byte("MZ")), bytes.HasPrefix(b, []byte("\xcf\xfa\xed\xfe")), bytes.HasPrefix(b, []byte("\xca\xfe\xba\xbe")):
		return invalid("not a Wasm module but a native program").Hint("%s", build)
	case bytes.HasPrefix(b, []byte("\x1f\x8b")), bytes.HasPrefix(b, []byte("\x28\xb5\x2f\xfd")), bytes.HasPrefix(b, []byte("PK\x03\x04")):
		return invalid("not a Wasm module but a compressed file").Hint("unpack it first")
	case bytes.HasPrefix(b, []byte("#!")):
		return invalid("not a Wasm module but a script").Hint("run an interpreter built for Wasm, with the script as its input")
	case bytes.HasPrefix(bytes.TrimLeft(b[:min(len(b), 4096)], " \t\r\n"), []byte("(")):
		return invalid("not a Wasm module but its text form").Hint("assemble it first, as with `wat2wasm prog.wat`")
	case isText(b[:min(len(b), 512)]):
		return invalid("not a Wasm module but a text, such as the source of one").Hint("%s", build)
	case !bytes.HasPrefix(b, magic[:min(len(b), 4)]):
		return invalid("not a Wasm module: it begins with % x, not with 00 61 73 6d", b[:min(len(b), 8)]).Hint("%s", build)
	case len(b) < 8:
		return invalid("the module is truncated after %d bytes", len(b)).Hint("upload it again, or rebuild it")
	}
	version, layer := uint(b[4])|uint(b[5])<<8, uint(b[6])|uint(b[7])<<8
	switch {
	case version == 1 && layer == 0:
		return nil
	case layer == 1:
		return grid.Errorf(grid.Unsupported, "a Wasm component (preview 2); only preview 1 core modules run here").
			Hint("build for preview 1: target wasm32-wasip1 in Rust, GOOS=wasip1 in Go, wasm32-wasi in C; or extract the core module with `wasm-tools component unbundle` if it imports only %s", Preview1)
	}
	return grid.Errorf(grid.Unsupported, "Wasm binary version %d, layer %d; only version 1 runs here", version, layer).
		Hint("%s", build)
}

// isText is whether the beginning of a file could be typed.
func isText(b []byte) bool {
	return !bytes.ContainsFunc(b, func(r rune) bool { return unicode.IsControl(r) && !unicode.IsSpace(r) })
}

// Section numbers of the binary format.
const (
	secCustom, secType, secImport, secFunction, secTable, secMemory = 0, 1, 2, 3, 4, 5
	secExport, secTag, secMax                                       = 7, 13, 13
)

type parser struct {
	in   []byte
	info Info

	types     []signature
	imports   []importedFunc
	functions []uint32 // type of each defined function
	memories  int
	exports   map[string]uint32 // functions, by name
	custom    custom
}

type signature struct{ params, results []byte }

const typeI32 = 0x7f

type importedFunc struct {
	module, name string
	typ          uint32
}

func (p *parser) sections() error {
	r := reader{b: p.in, off: 8}
	for r.off < len(p.in) {
		header := r.off
		id := r.byte()
		body := r.bytes(r.u32())
		if r.failed {
			return truncated("section %d at byte %d", id, header)
		}
		s := reader{b: body}
		var err error
		if id != secCustom {
			p.custom.add("", nil, header, r.off)
		}
		switch id {
		case secCustom:
			name := s.name()
			p.info.Names = p.info.Names || name == "name"
			p.custom.add(name, body[s.off:], header, r.off)
			s.failed = false // nothing depends on it
		case secType:
			err = p.typeSection(&s)
		case secImport:
			err = p.importSection(&s)
		case secFunction:
			err = p.functionSection(&s)
		case secTable:
			err = p.tableSection(&s, header, r.off)
		case secMemory:
			err = p.memorySection(&s)
		case secExport:
			err = p.exportSection(&s)
		case secTag:
			err = unsupported("exception handling")
		default:
			if id > secMax {
				err = grid.Errorf(grid.Invalid, "unknown section %d at byte %d of the module", id, header).
					Hint("rebuild it with a current toolchain, for Wasm 2.0 without experimental features")
			}
		}
		if err != nil {
			return err
		}
		if s.failed {
			return truncated("section %d, which begins at byte %d", id, header)
		}
	}
	return nil
}

func truncated(format string, args ...any) error {
	return grid.Errorf(grid.Invalid, "the module is truncated or damaged in "+format, args...).
		Hint("upload it again, or rebuild it")
}

func unsupported(feature string) error {
	return grid.Errorf(grid.Unsupported, "the module uses %s, which does not run here", feature).
		Hint("rebuild it for Wasm 2.0 without that feature")
}

func (p *parser) typeSection(r *reader) error {
	n := r.count(maxTypes)
	for range n {
		switch form := r.byte(); {
		case r.failed:
			return nil
		case form != 0x60:
			return unsupported("garbage-collected types")
		}
		t := signature{params: r.bytes(r.count(maxParams)), results: r.bytes(r.count(maxParams))}
		if r.failed {
			return nil
		}
		p.types = append(p.types, t)
	}
	return nil
}

func (p *parser) importSection(r *reader) error {
	n := r.count(maxImports)
	for range n {
		module, name, kind := r.name(), r.name(), r.byte()
		if r.failed {
			return nil
		}
		if kind != 0 {
			return grid.Errorf(grid.Unsupported, "the module imports %s %q of %q; only functions are provided here", kindName(kind), cut(name), cut(module)).
				Hint("link it as a self-contained program; for C and Rust, without -shared and --import-memory")
		}
		p.imports = append(p.imports, importedFunc{module, name, r.u32()})
	}
	return nil
}

func kindName(kind byte) string {
	names := [...]string{"function", "table", "memory", "global", "tag"}
	if int(kind) < len(names) {
		return names[kind]
	}
	return fmt.Sprintf("kind %d", kind)
}

func (p *parser) functionSection(r *reader) error {
	n := r.u32()
	if n > maxFunctions {
		return grid.Errorf(grid.Limit, "the module has %d functions, at most %d are allowed", n, maxFunctions)
	}
	for i := uint32(0); i < n && !r.failed; i++ {
		p.functions = append(p.functions, r.u32())
	}
	return nil
}

// tableSection bounds tables: without a maximum, table.grow could take the host's memory. What they do
// not have at the beginning is shared equally between them. The specification allows table.grow to fail
// for lack of resources, so guests must be ready for that.
func (p *parser) tableSection(r *reader, from, to int) error {
	n := r.u32()
	if n > maxTables {
		return grid.Errorf(grid.Limit, "the module has %d tables, at most %d are allowed", n, maxTables)
	}
	type table struct {
		elem        byte
		least, most uint32
	}
	var tables [maxTables]table
	changed := false
	spare := uint32(maxElements) // what tables may grow by
	for i := range n {
		elem, flags := r.byte(), r.byte()
		if elem == 0x40 || elem == 0x63 || elem == 0x64 {
			return unsupported("typed function references")
		}
		if flags > 1 {
			return unsupported("shared or 64-bit tables")
		}
		t := table{elem, r.u32(), 1<<32 - 1}
		if flags == 1 {
			t.most = r.u32()
		}
		if r.failed {
			return nil
		}
		if t.least > spare {
			return grid.Errorf(grid.Limit, "the module has tables of %d elements and more, together at most %d are allowed",
				uint64(maxElements-spare)+uint64(t.least), maxElements).
				Hint("give its tables fewer elements")
		}
		spare -= t.least
		changed = changed || flags == 0
		tables[i] = t
	}
	out := appendU32(nil, n)
	for _, t := range tables[:n] {
		most := min(t.most, t.least+spare/n)
		changed = changed || most < t.most
		out = appendU32(appendU32(append(out, t.elem, 1), t.least), most)
	}
	if changed && !r.failed {
		b := make([]byte, 0, len(p.in)+len(out)+8)
		b = append(b, p.in[:from]...)
		b = append(b, secTable)
		b = appendU32(b, uint32(len(out)))
		b = append(b, out...)
		p.info.Binary = append(b, p.in[to:]...)
	}
	return nil
}

func (p *parser) memorySection(r *reader) error {
	n := r.u32()
	if n > 1 {
		return unsupported("several memories")
	}
	for range n {
		flags := r.byte()
		switch {
		case flags&4 != 0:
			return unsupported("64-bit memory (memory64)")
		case flags&2 != 0:
			return unsupported("shared memory (threads)")
		case flags&8 != 0:
			return unsupported("custom page sizes")
		}
		least, most := r.u32(), uint32(1<<16)
		if flags&1 != 0 {
			most = r.u32()
		}
		p.memories++
		p.info.MinMemory, p.info.MaxMemory = uint64(least)*Page, uint64(most)*Page
	}
	return nil
}

func (p *parser) exportSection(r *reader) error {
	n := r.u32()
	for i := uint32(0); i < n && !r.failed; i++ {
		name, kind, index := r.name(), r.byte(), r.u32()
		if kind == 0 && !r.failed {
			p.exports[name] = index
		}
	}
	return nil
}

// finish checks what takes more than one section to know.
func (p *parser) finish(provided Provider) (Info, error) {
	var unknown []string
	for _, f := range p.imports {
		p.info.Imports = append(p.info.Imports, f.module+"."+f.name)
		p.info.Grid = p.info.Grid || f.module == abi.Module
		p.info.Extism = p.info.Extism || f.module == Extism
		p.info.Spawns = p.info.Spawns || f.module == abi.Module && (f.name == abi.Spawn || f.name == abi.Await)
		p.info.Map = p.info.Map || f.module == abi.Module && f.name == abi.KV
		t, ok := p.signature(f.typ)
		if !ok {
			return Info{}, truncated("the import of %s.%s: it has no type", show(f.module), show(f.name))
		}
		params, results, ok := provided(f.module, f.name)
		switch {
		case ok && bytes.Equal(params, t.params) && bytes.Equal(results, t.results):
		case f.module == Preview1 && strings.HasPrefix(f.name, "sock_") && stubbable(t): // some engines have others by the same names
			p.info.Stubs = append(p.info.Stubs, Func{f.module, f.name, t.params, t.results})
		case ok:
			return Info{}, grid.Errorf(grid.Invalid, "the module imports %s.%s with another signature than it has", f.module, f.name).
				Hint("rebuild it with a current toolchain")
		case len(unknown) >= maxNamed: // one more, whatever its name
			unknown = append(unknown, "")
		default:
			unknown = append(unknown, show(f.module)+"."+show(f.name))
		}
	}
	if len(unknown) > 0 {
		return Info{}, unknownImports(unknown)
	}
	if err := p.entries(); err != nil {
		return Info{}, err
	}
	if p.memories == 0 && len(p.imports) > 0 {
		return Info{}, grid.Errorf(grid.Invalid, "the module imports functions but has no memory to talk to them through").
			Hint("declare a memory")
	}
	if p.info.MaxMemory < p.info.MinMemory {
		return Info{}, grid.Errorf(grid.Invalid, "the module's memory begins larger than its own maximum")
	}
	return p.info, nil
}

// describe reads what the module says of itself.
func (p *parser) describe(info *Info) (err error) {
	if info.Manifest, info.Signers, err = p.custom.read(p.in); err != nil || info.Manifest == nil {
		return err
	}
	return info.Manifest.CheckModule(&grid.Module{Kind: info.Kind, Functions: info.Functions, Any: info.Any})
}

// entries finds what the host may call.
func (p *parser) entries() error {
	slices.Sort(p.info.Imports)
	p.info.Imports = slices.Compact(p.info.Imports)
	nothing := func(t signature) bool { return len(t.params)+len(t.results) == 0 }
	for name, index := range p.exports {
		t, ok := p.function(int64(index))
		switch plain := ok && (nothing(t) || len(t.params) == 0 && bytes.Equal(t.results, []byte{typeI32})); {
		case name == Start && !(ok && nothing(t)), name == Initialize && !(ok && nothing(t)):
			return grid.Errorf(grid.Invalid, "the module's %s is not a function without parameters and results", name)
		case name == Call && !(plain && len(t.results) == 1):
			return grid.Errorf(grid.Invalid, "the module's %s is not a function that takes nothing and gives an i32", Call)
		case name == Start:
			p.info.Kind = grid.Command
		case name == Initialize, p.info.Extism && ok && (name == ctors && nothing(t) || name == haskellInit && string(t.params) == "\x7f\x7f"):
			p.info.Initialize = append(p.info.Initialize, name)
		case name == Call:
			p.info.Any = true
		case plain && !strings.HasPrefix(name, "_") && !(p.info.Extism && isRuntime(name)):
			p.info.Functions = append(p.info.Functions, name)
		}
	}
	slices.Sort(p.info.Functions)
	slices.Sort(p.info.Initialize) // which is the right order; the first one is only for who has no other
	if list := p.info.Initialize; len(list) > 1 && list[0] == ctors {
		p.info.Initialize = list[1:]
	}
	if p.info.Extism && len(p.info.Functions) > 0 {
		p.info.Kind = grid.Reactor // its _start is what its language wants there to be
	}
	switch {
	case p.info.Kind == grid.Command:
		p.info.Initialize, p.info.Any, p.info.Functions = nil, mentions(p.in, abi.EnvFunc), nil
	case !p.info.Any && len(p.info.Functions) == 0:
		return grid.Errorf(grid.Unsupported, "the module exports neither %s, as a program does, nor any function that takes nothing and gives nothing or an i32, as a library does", Start).
			Hint("build a program with a main function; in Go `GOOS=wasip1 GOARCH=wasm go build`, in Rust not as a cdylib, in C without -mexec-model=reactor")
	}
	return nil
}

// mentions tells whether a binary has a name in its data, as languages with strings of bytes or of UTF-16 write it. What
// does not have the name of a variable does not ask for it, unless it is an interpreter whose script does.
func mentions(binary []byte, name string) bool {
	wide := make([]byte, 0, 2*len(name))
	for _, c := range []byte(name) {
		wide = append(wide, c, 0)
	}
	return bytes.Contains(binary, []byte(name)) || bytes.Contains(binary, wide)
}

// isRuntime tells whether a plug-in's export is of its language's runtime, and no function of its own.
func isRuntime(name string) bool {
	return strings.HasPrefix(name, "asyncify_") || strings.HasPrefix(name, "hs_")
}

func (p *parser) signature(typ uint32) (signature, bool) {
	if uint64(typ) >= uint64(len(p.types)) {
		return signature{}, false
	}
	return p.types[typ], true
}

func (p *parser) function(index int64) (signature, bool) {
	if index < int64(len(p.imports)) {
		return p.signature(p.imports[index].typ)
	}
	if index -= int64(len(p.imports)); index < int64(len(p.functions)) {
		return p.signature(p.functions[index])
	}
	return signature{}, false
}

// stubbable tells whether a stub can answer with an error number: numbers in, one i32 out.
func stubbable(t signature) bool {
	for _, v := range t.params {
		if v < 0x7c || v > 0x7f { // f64, f32, i64, i32
			return false
		}
	}
	return len(t.results) == 1 && t.results[0] == 0x7f
}

func unknownImports(names []string) error {
	list := strings.Join(names[:min(len(names), maxNamed)], ", ")
	if more := len(names) - maxNamed; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	if i := slices.IndexFunc(names, func(name string) bool { return strings.HasPrefix(name, abi.Module+".") }); i >= 0 {
		if name := names[i][len(abi.Module)+1:]; name == "http_error" || name == "task_error" {
			return grid.Errorf(grid.Unsupported, "the module imports %s, which is not in the ABI since version 2: it was built for version 1", names[i]).
				Hint("rebuild it with a current SDK")
		}
		return grid.Errorf(grid.Unsupported, "the module imports %s, which is not in version %d of the ABI, the one of this node: it was built for a newer one", names[i], abi.Version).
			Hint("update this node, or build the module with an SDK for version %d", abi.Version)
	}
	err := grid.Errorf(grid.Unsupported, "the module imports %d %s that %s not provided here: %s",
		len(names), plural(len(names), "function"), verb(len(names)), list)
	switch module, name, _ := strings.Cut(names[0], "."); {
	case module == extismUser:
		return err.Hint("functions of %s are those that an application gives its own Extism plug-ins; the grid has none, and gives plug-ins input, output, configuration, variables, logs and, if granted, HTTP", extismUser)
	case module == Extism:
		return err.Hint("it was built with an Extism PDK that is newer than this node, or calls what is for hosts only; use a PDK of version 1")
	case module == "extism:env", module == "env" && strings.HasPrefix(name, "extism_"):
		return err.Hint("it was built with an Extism PDK from before version 1.0; rebuild it with a current one")
	case module == "wasi_unstable":
		return err.Hint("it was built for WASI preview 0 (wasi_unstable); rebuild it with a toolchain that knows %s", Preview1)
	case module == "env":
		return err.Hint("symbols were left undefined when it was linked, or it was built for Emscripten or a browser; build it for WASI")
	case module == "gojs" || module == "go":
		return err.Hint("it was built with GOOS=js; build it with GOOS=wasip1 GOARCH=wasm")
	case strings.HasPrefix(module, "wasi:"):
		return err.Hint("it was built for preview 2; build it for preview 1 (wasm32-wasip1)")
	case strings.HasPrefix(module, "wbg") || strings.HasPrefix(module, "__wbindgen"):
		return err.Hint("it was built with wasm-bindgen for JavaScript; build it for the target wasm32-wasip1")
	}
	return err.Hint("guests are given only the functions of %s and of %s", Preview1, abi.Module)
}

// show gives a name as messages tell it: cut, and quoted if it does not show as it is.
func show(name string) string {
	name = cut(name)
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	return name
}

func cut(name string) string {
	if len(name) <= maxShown {
		return name
	}
	return strings.ToValidUTF8(name[:maxShown], "") + "…"
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

func verb(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
