package image

// Strip gives a module without its data segments, and the memory that an instance of it is to have at
// the start instead: make the first instance with a [Memory] of an image of that. It is worth it for
// modules with many segments, as the Go toolchain makes them: wazero copies each when it makes an instance,
// and remembers it for as long as the instance lives.
//
// Memory is nil, and the result is binary itself, when there are no segments, or they must stay: since
// where they go is not a constant or not within the memory, or the memory is empty or not there, or has more
// than most bytes. The
// errors are those of [Examine], but hidden globals are none.
func Strip(binary []byte, most uint64) (stripped, memory []byte, err error) {
	x, err := examine(binary)
	if err != nil {
		return nil, nil, err
	}
	memory, ok := x.content(binary, most)
	return x.assemble(binary, nil, ok), memory, nil
}

// content is what data segments make of the memory of a new instance. ok is false when they must stay.
func (x *examiner) content(binary []byte, most uint64) (memory []byte, ok bool) {
	size := uint64(x.pages) * wasmPage
	if x.data.end == 0 || size == 0 || size > most || size >= maxMemory {
		return nil, false
	}
	memory = make([]byte, size)
	r := reader{b: binary[:x.data.end], off: x.data.body}
	for range r.count() {
		flags := r.u32()
		if flags == 1 { // passive, and never used, for then the module would have been refused
			r.bytes(r.u32())
			continue
		}
		if flags == 2 && r.u32() != 0 || flags > 2 {
			return nil, false
		}
		at, ok := constant(&r)
		b := r.bytes(r.u32())
		if !ok || r.err != nil || uint64(at)+uint64(len(b)) > size {
			return nil, false
		}
		copy(memory[at:], b)
	}
	if r.err != nil || r.more() {
		return nil, false // the engine will say what is wrong
	}
	return memory, true
}

// constant reads an expression that is i32.const.
func constant(r *reader) (v uint32, ok bool) {
	if r.byte() != 0x41 {
		return 0, false
	}
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte()
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			if c&0x40 != 0 && shift < 28 {
				v |= ^uint32(0) << (shift + 7)
			}
			return v, r.byte() == opEnd
		}
	}
	return 0, false
}
