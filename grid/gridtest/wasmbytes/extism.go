package wasmbytes

// Extism is a function that Extism's plug-ins import, by its name and types: i for i32, I for i64.
func Extism(name, params, results string) Import {
	types := func(s string) (list []byte) {
		for _, c := range s {
			if c == 'I' {
				list = append(list, I64)
			} else {
				list = append(list, I32)
			}
		}
		return list
	}
	return Import{Module: "extism:host/env", Name: name, Params: types(params), Results: types(results)}
}

// Plugin is a plug-in for Extism. Its function echo gives its input, the way development kits do it: eight bytes at a
// time, then one at a time. config gives what the configuration has as "key". fail sets its input as the message of an
// error, and returns 3; log logs it as a warning. rest does nothing.
func Plugin() []byte {
	const inputLength, load8, load64, alloc, store8, store64, outputSet, errorSet, configGet, length, logWarn = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
	get, set := func(i uint32) []byte { return Op(0x20, i) }, func(i uint32) []byte { return Op(0x21, i) }
	const n, off, at = 0, 1, 2
	add := []byte{0x7c}
	// copies moves what is left in units of so many bytes.
	copies := func(unit int64, load, store uint32) []byte {
		return Code([]byte{0x02, 0x40, 0x03, 0x40},
			get(at), Const64(unit), add, get(n), []byte{0x56}, Op(0x0d, 1), // no more of them: leave
			get(off), get(at), add, get(at), Call(load), Call(store),
			get(at), Const64(unit), add, set(at), Op(0x0c, 0), []byte{0x0b, 0x0b})
	}
	input := Code(Call(inputLength), set(n), get(n), Call(alloc), set(off), copies(8, load64, store64), copies(1, load8, store8))
	letter := func(i int64, c int32) []byte { return Code(get(off), Const64(i), add, Const(c), Call(store8)) }
	function := func(code ...[]byte) Func { return Func{Results: []byte{I32}, Locals: 3, Code: Code(code...)} }
	return Program{
		Imports: []Import{
			Extism("input_length", "", "I"), Extism("input_load_u8", "I", "i"), Extism("input_load_u64", "I", "I"), Extism("alloc", "I", "I"),
			Extism("store_u8", "Ii", ""), Extism("store_u64", "II", ""), Extism("output_set", "II", ""), Extism("error_set", "I", ""),
			Extism("config_get", "I", "I"), Extism("length", "I", "I"), Extism("log_warn", "I", ""),
		},
		MinPages: 1,
		Funcs: []Func{
			function(input, get(off), get(n), Call(outputSet), Const(0)),
			function(Const64(3), Call(alloc), set(off), letter(0, 'k'), letter(1, 'e'), letter(2, 'y'),
				get(off), Call(configGet), set(off), get(off), get(off), Call(length), Call(outputSet), Const(0)),
			function(input, get(off), Call(errorSet), Const(3)),
			function(input, get(off), Call(logWarn), Const(0)),
			function(Const(0)),
		},
		Exports: []Export{{"echo", 11}, {"config", 12}, {"fail", 13}, {"log", 14}, {"rest", 15}},
	}.Bytes()
}
