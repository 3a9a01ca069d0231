package rewrite

import "bytes"

// Options say what to change.
type Options struct {
	// Fuel has the module count. Without it the module is only checked and encoded anew, without
	// custom sections except for the names of functions.
	Fuel bool
	// NaN has arithmetic give the same NaN on every processor.
	NaN bool

	plain bool // without finding out where that makes no difference, and without jumps; for comparison
}

// Info is what there is to know of an instrumented module.
type Info struct {
	Functions int // it defines, without those added
	Points    int // charging points that were put in
	NaNs      int // places where a NaN is made canonical
}

// Instrument gives a module that does what binary does, and counts fuel. It keeps and changes nothing
// of binary. Errors are Invalid, Unsupported or Limit, with the position in binary.
func Instrument(binary []byte, opt Options) ([]byte, Info, error) {
	m := &module{opt: opt}
	if err := m.parse(binary); err != nil {
		return nil, Info{}, err
	}
	return m.encode(len(binary)), m.info, nil
}

// Section numbers of the binary format.
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
	sections
)

// order is where sections stand; custom ones are anywhere.
var order = [sections]int{
	secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secGlobal: 6, secExport: 7, secStart: 8, secElement: 9,
	secDataCount: 10, secCode: 11, secData: 12,
}

// list is a section that is a list: its elements as they are to be written, and their number.
type list struct {
	n    int
	body []byte
}

func (l *list) add(parts ...[]byte) {
	l.n++
	for _, p := range parts {
		l.body = append(l.body, p...)
	}
}

// module is a module being read, its sections already as they are to be written.
type module struct {
	opt  Options
	info Info

	params      [][]byte // of each type
	results     [][]byte
	imports     []uint32 // type of each imported function
	types       []uint32 // of each defined function
	globalTypes []byte
	imported    int // functions
	functions   int // imported and defined
	tables      int
	memories    int
	globals     int
	dataCount   int // as announced; -1 without
	locals      int // of all functions
	elements    int // of all element segments
	helpers     bool
	blocks      map[string]int // types that were added for blocks, by their results

	list  [sections]list
	start []byte // the section
	names []byte // its function names, to be written
}

// moved is the index that a function gets.
func (m *module) moved(f uint32) uint32 {
	if m.opt.Fuel && int(f) >= m.imported {
		return f + 1 // behind refuel
	}
	return f
}

// typeOf is the type of a function that the given module has.
func (m *module) typeOf(f uint32) uint32 {
	if int(f) < m.imported {
		return m.imports[f]
	}
	return m.types[int(f)-m.imported]
}

func (m *module) helper(which int) uint32 { return uint32(m.functions + 1 + which) }
func (m *module) fuel() fuel              { return fuel{global: uint32(m.globals), refuel: uint32(m.imported)} }

func (m *module) parse(binary []byte) error {
	r := reader{b: binary}
	if !bytes.Equal(r.bytes(8), header) {
		r.off = 0
		r.fail("not a Wasm module of version 1")
		return r.err
	}
	m.dataCount = -1
	last := 0
	for r.more() && r.err == nil {
		id := r.byte()
		s := r.sub()
		if r.err != nil {
			return r.err
		}
		if id != secCustom {
			if id >= sections {
				s.unsupported("an unknown section")
			} else if order[id] <= last {
				s.fail("section %d is not in its place", id)
			} else {
				last = order[id]
			}
		}
		m.section(id, &s)
		if id != secCustom {
			s.end()
		}
		if s.err != nil {
			return s.err
		}
	}
	switch {
	case r.err != nil:
	case m.list[secCode].n != len(m.types):
		r.fail("%d functions are announced, %d are defined", len(m.types), m.list[secCode].n)
	case m.dataCount >= 0 && m.list[secData].n != m.dataCount:
		r.fail("%d data segments are announced, %d are defined", m.dataCount, m.list[secData].n)
	}
	return r.err
}

var header = []byte("\x00asm\x01\x00\x00\x00")

func (m *module) section(id byte, r *reader) {
	switch id {
	case secCustom:
		if name := r.name(); r.err == nil && string(name) == "name" && m.names == nil {
			m.readNames(reader{b: r.b, off: r.off})
		}
	case secType:
		m.each(r, id, "types", maxTypes, 3, m.readType)
	case secImport:
		m.each(r, id, "imports", maxImports, 4, m.readImport)
		m.functions = m.imported
	case secFunction:
		m.each(r, id, "functions", maxFunctions, 1, func(r *reader) { m.types = append(m.types, r.index("type", len(m.params))) })
		m.functions += len(m.types)
	case secTable:
		m.each(r, id, "tables", maxTables, 3, m.readTable)
	case secMemory:
		m.each(r, id, "memories", 1, 2, m.readMemory)
	case secGlobal:
		// An initial value may only mention imported globals.
		imported := m.globals
		m.each(r, id, "globals", maxGlobals, 4, func(r *reader) {
			from := r.off
			m.globalType(r)
			m.list[secGlobal].body = append(m.list[secGlobal].body, r.b[from:r.off]...)
			m.constant(r, &m.list[secGlobal], imported)
		})
		m.globals += m.list[secGlobal].n
	case secExport:
		m.each(r, id, "exports", maxExports, 3, m.readExport)
	case secStart:
		m.start = appendU32(nil, m.moved(r.index("function", m.functions)))
	case secElement:
		m.each(r, id, "element segments", maxSegments, 3, m.readElements)
	case secDataCount:
		n := r.u32()
		if n > maxSegments {
			r.limit("data segments", uint64(n), maxSegments)
		}
		m.dataCount = int(n)
	case secCode:
		m.readCode(r)
	case secData:
		m.each(r, id, "data segments", maxSegments, 2, m.readData)
	}
}

// each reads a list, whose elements take size bytes at least. What read does not write itself is
// copied.
func (m *module) each(r *reader, id byte, what string, most uint32, size int, read func(*reader)) {
	l := &m.list[id]
	for range r.count(what, most, size) {
		from, written := r.off, len(l.body)
		read(r)
		if r.err != nil {
			return
		}
		l.n++
		if len(l.body) == written {
			l.body = append(l.body, r.b[from:r.off]...)
		}
	}
}

func (m *module) readType(r *reader) {
	if form := r.byte(); form != 0x60 {
		r.unsupported("a type of garbage collection")
		return
	}
	var types [2][]byte // parameters, results
	for i := range types {
		n := r.count("parameters or results", maxParams, 1)
		from := r.off
		for range n {
			valueType(r)
		}
		if r.err != nil {
			return
		}
		types[i] = r.b[from:r.off]
	}
	m.params, m.results = append(m.params, types[0]), append(m.results, types[1])
}

func valueType(r *reader) {
	if t := r.byte(); !isValueType(t) {
		r.fail("unknown value type %#x", t)
	}
}

func refType(r *reader) {
	if t := r.byte(); !isRefType(t) {
		r.unsupported("a typed function reference")
	}
}

func (m *module) readImport(r *reader) {
	mod := r.name()
	r.name()
	if string(mod) == ImportModule {
		r.fail("an import of %s, a name that is reserved", ImportModule)
	}
	switch kind := r.byte(); kind {
	case 0:
		m.imports = append(m.imports, r.index("type", len(m.params)))
		m.imported++
	case 1:
		m.readTable(r)
	case 2:
		m.readMemory(r)
	case 3:
		m.globalType(r)
		m.globals++
	default:
		r.unsupported("an import of an unknown kind")
	}
}

func (m *module) readTable(r *reader) {
	refType(r)
	m.limits(r)
	m.tables++
}

func (m *module) readMemory(r *reader) {
	m.limits(r)
	if m.memories++; m.memories > 1 {
		r.unsupported("several memories")
	}
}

func (m *module) limits(r *reader) {
	flags := r.byte()
	if flags > 1 {
		r.unsupported("a shared or 64-bit memory or table")
	}
	r.u32()
	if flags == 1 {
		r.u32()
	}
}

func (m *module) globalType(r *reader) {
	if r.more() {
		m.globalTypes = append(m.globalTypes, r.b[r.off])
	}
	valueType(r)
	if mutable := r.byte(); mutable > 1 {
		r.fail("a global is neither constant nor mutable")
	}
}

// constant reads an expression of one constant instruction, and writes it with functions moved.
func (m *module) constant(r *reader, to *list, globals int) {
	from := r.off
	var f uint32
	op := r.byte()
	switch op {
	case opI32Const:
		r.signed(32)
	case opI64Const:
		r.signed(64)
	case 0x43:
		r.bytes(4)
	case 0x44:
		r.bytes(8)
	case opGlobalGet:
		r.index("global", globals)
	case opRefNull:
		refType(r)
	case opRefFunc:
		f = r.index("function", m.functions)
	case opVec:
		if op := r.byte(); op != 0x0c {
			r.fail("not a constant")
		}
		r.bytes(16)
	default:
		r.fail("not a constant")
	}
	if end := r.byte(); end != opEnd && r.err == nil {
		r.unsupported("an extended constant expression")
	}
	if r.err != nil {
		return
	}
	if op == opRefFunc {
		to.body = append(appendU32(append(to.body, opRefFunc), m.moved(f)), opEnd)
	} else {
		to.body = append(to.body, r.b[from:r.off]...)
	}
}

func (m *module) readExport(r *reader) {
	from := r.off
	if name := string(r.name()); m.opt.Fuel && (name == ExportFuel || name == ExportDepth) {
		r.fail("an export %s, a name that is reserved", name)
	}
	l := &m.list[secExport]
	count := [...]int{m.functions, m.tables, m.memories, m.globals}
	kind := r.byte()
	if int(kind) >= len(count) {
		r.unsupported("an export of an unknown kind")
		return
	}
	to := r.off
	i := r.index("export", count[kind])
	if r.err != nil {
		return
	}
	if kind == 0 {
		i = m.moved(i)
	}
	l.body = appendU32(append(l.body, r.b[from:to]...), i)
}

func (m *module) readElements(r *reader) {
	flags := r.u32()
	if flags > 7 {
		r.fail("an element segment of an unknown kind")
		return
	}
	l := &m.list[secElement]
	l.body = appendU32(l.body, flags)
	active, typed, exprs := flags&1 == 0, flags&3 != 0, flags&4 != 0
	if active {
		if flags&2 != 0 {
			l.body = appendU32(l.body, r.index("table", m.tables))
		}
		m.constant(r, l, m.globals)
	}
	if typed {
		kind := r.byte()
		if exprs && !isRefType(kind) || !exprs && kind != 0 {
			r.unsupported("a typed element segment")
		}
		l.body = append(l.body, kind)
	}
	n := r.count("elements", maxElements, 1)
	if m.elements += n; m.elements > maxElements {
		r.limit("elements", uint64(m.elements), maxElements)
	}
	l.body = appendU32(l.body, uint32(n))
	for range n {
		if r.err != nil {
			return
		}
		if exprs {
			m.constant(r, l, m.globals)
		} else {
			l.body = appendU32(l.body, m.moved(r.index("function", m.functions)))
		}
	}
}

func (m *module) readData(r *reader) {
	flags := r.u32()
	if flags > 2 {
		r.fail("a data segment of an unknown kind")
		return
	}
	from := r.off
	l := &m.list[secData]
	l.body = appendU32(l.body, flags)
	if flags == 2 {
		if r.u32() != 0 {
			r.unsupported("several memories")
		}
		from = r.off
		l.body = append(l.body, 0)
	}
	if flags != 1 {
		m.constant(r, l, m.globals)
		from = r.off
	}
	r.bytes(r.u32())
	if r.err == nil {
		l.body = append(l.body, r.b[from:r.off]...)
	}
}

func (m *module) readCode(r *reader) {
	n := r.count("function bodies", maxFunctions, 2)
	if n != len(m.types) {
		r.fail("%d functions are announced, %d are defined", len(m.types), n)
		return
	}
	l := &m.list[secCode]
	l.n = n
	l.body = make([]byte, 0, len(r.b)-r.off+(len(r.b)-r.off)/4)
	s := scanner{m: m}
	var body, types []byte
	for i := range n {
		start := r.off
		f := r.sub()
		if size := r.off - start; size > maxBody {
			f.limit("bytes in one function", uint64(size), maxBody)
		}
		if r.err != nil {
			return
		}
		types = append(types[:0], m.params[m.types[i]]...)
		var from, groups int
		from, groups, types = m.readLocals(&f, types)
		code := f.off
		if f.err == nil {
			f.err = s.body(f, m.types[i], types)
		}
		if f.err != nil {
			r.err = f.err
			return
		}
		body = m.writeBody(body[:0], &s, r.b[from:code], groups, code, m.types[i])
		l.body = append(appendU32(l.body, uint32(len(body))), body...)
		if m.info.Points > maxPoints {
			r.limit("loops and functions that are charged", uint64(m.info.Points), maxPoints)
			return
		}
	}
	m.info.Functions = n
}

// readLocals reads the declarations of locals: where they begin behind their number, that, and the types
// of the locals, appended to those given.
func (m *module) readLocals(r *reader, types []byte) (from, groups int, _ []byte) {
	groups = r.count("groups of locals", maxLocals, 2)
	from = r.off
	locals := 0
	for range groups {
		n := r.u32()
		valueType(r)
		if n > maxLocals || locals+int(n) > maxLocals {
			r.limit("locals in one function", uint64(locals)+uint64(n), maxLocals)
		}
		if r.err != nil {
			return
		}
		locals += int(n)
		for range n {
			types = append(types, r.b[r.off-1])
		}
	}
	if m.locals += locals; m.locals > maxAllLocals {
		r.limit("locals in all functions", uint64(m.locals), maxAllLocals)
	}
	return from, groups, types
}

// writeBody writes the function that was scanned last, whose instructions begin at code.
func (m *module) writeBody(b []byte, s *scanner, locals []byte, groups, code int, typ uint32) []byte {
	if m.opt.Fuel {
		m.info.Points += s.charged()
	}
	m.info.NaNs += len(s.flow.found)
	added, more := s.addedLocals(nil)
	b = append(appendU32(b, uint32(groups+more)), locals...)
	b = append(b, added...)
	return s.emit(b, code, typ)
}

// blockType appends the type of a block that gives what functions of a type give.
func (m *module) blockType(b []byte, typ uint32) []byte {
	switch results := m.results[typ]; len(results) {
	case 0:
		return append(b, blockVoid)
	case 1:
		return append(b, results[0])
	default:
		i, ok := m.blocks[string(results)]
		if !ok {
			if m.blocks == nil {
				m.blocks = map[string]int{}
			}
			i = m.list[secType].n
			m.blocks[string(results)] = i
			m.list[secType].add([]byte{0x60, 0}, appendU32(nil, uint32(len(results))), results)
		}
		return appendS64(b, int64(i))
	}
}

// encode writes the module.
func (m *module) encode(size int) []byte {
	if m.opt.Fuel {
		m.addFuel()
	}
	out := append(make([]byte, 0, size+size/4+1024), header...)
	for _, id := range [...]byte{secType, secImport, secFunction, secTable, secMemory, secGlobal, secExport, secStart, secElement, secDataCount, secCode, secData} {
		l := &m.list[id]
		switch {
		case id == secStart && m.start != nil:
			out = append(appendU32(append(out, id), uint32(len(m.start))), m.start...)
		case id == secDataCount && m.dataCount >= 0:
			n := appendU32(nil, uint32(m.dataCount))
			out = append(appendU32(append(out, id), uint32(len(n))), n...)
		case l.n > 0:
			n := appendU32(nil, uint32(l.n))
			out = appendU32(append(out, id), uint32(len(n)+len(l.body)))
			out = append(append(out, n...), l.body...)
			l.body = nil
		}
	}
	if m.names != nil {
		content := appendName(nil, "name")
		content = appendU32(append(content, nameFunctions), uint32(len(m.names)))
		out = appendU32(append(out, secCustom), uint32(len(content)+len(m.names)))
		out = append(append(out, content...), m.names...)
	}
	return out
}

// addFuel adds what counting needs: the import, the global and its export, and the helpers.
func (m *module) addFuel() {
	refuelType := uint32(m.list[secType].n)
	m.list[secType].add([]byte{0x60, 1, typeI64, 1, typeI64})
	m.list[secImport].add(appendName(nil, ImportModule), appendName(nil, ImportRefuel), appendU32([]byte{0}, refuelType))
	m.list[secGlobal].add([]byte{typeI64, 1, opI64Const, 0, opEnd})
	m.list[secGlobal].add(append(appendS64([]byte{typeI64, 1, opI64Const}, MaxDepth), opEnd))
	m.list[secExport].add(appendName(nil, ExportFuel), appendU32([]byte{3}, m.fuel().global))
	m.list[secExport].add(appendName(nil, ExportDepth), appendU32([]byte{3}, m.fuel().depth()))
	if !m.helpers {
		return
	}
	m.list[secType].add([]byte{0x60, 3, typeI32, typeI32, typeI32, 0})
	for which := range helpers {
		m.list[secFunction].add(appendU32(nil, refuelType+1))
		body := m.fuel().helperBody(which)
		m.list[secCode].add(appendU32(nil, uint32(len(body))), body)
	}
}
