package extism

import (
	"context"
	"encoding/binary"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// function is one that plug-ins import. Its parameters are i for i32 and I for i64, as is its result; p are the
// parameters, and p[0] is the result.
type function struct {
	name, params, result string
	call                 func(ctx context.Context, s *State, mod api.Module, p []uint64)
}

var le = binary.LittleEndian

// functions are those that the development kits import. Those that move a few bytes are called for every few bytes: they
// are only counted, since the call itself costs fuel, which ends the plug-in in time. Others look at the context, too.
func functions() []function {
	return []function{
		{"alloc", "I", "I", alloc},
		{"free", "I", "", free},
		{"length", "I", "I", length},
		{"length_unsafe", "I", "I", length},
		{"load_u8", "I", "i", loadU8},
		{"load_u64", "I", "I", loadU64},
		{"store_u8", "Ii", "", storeU8},
		{"store_u64", "II", "", storeU64},
		{"input_offset", "", "I", inputOffset},
		{"input_length", "", "I", inputLength},
		{"input_load_u8", "I", "i", inputLoadU8},
		{"input_load_u64", "I", "I", inputLoadU64},
		{"output_set", "II", "", outputSet},
		{"error_set", "I", "", errorSet},
		{"config_get", "I", "I", configGet},
		{"var_get", "I", "I", varGet},
		{"var_set", "II", "", varSet},
		{"http_request", "II", "I", httpRequest},
		{"http_status_code", "", "i", httpStatusCode},
		{"http_headers", "", "I", httpHeaders},
		{"log_trace", "I", "", logAt(trace)},
		{"log_debug", "I", "", logAt(debug)},
		{"log_info", "I", "", logAt(info)},
		{"log_warn", "I", "", logAt(warn)},
		{"log_error", "I", "", logAt(failure)},
		{"get_log_level", "", "i", getLogLevel},
	}
}

// Call implements api.GoModuleFunction.
func (f function) Call(ctx context.Context, mod api.Module, stack []uint64) {
	s := stateOf(ctx)
	if s.cfg.Early {
		s.early()
	}
	s.cfg.WASI.Count()
	f.call(ctx, s, mod, stack)
}

// Export adds the functions to a host module, which is to be instantiated as extism:host/env.
func Export(b wazero.HostModuleBuilder) {
	types := map[rune]api.ValueType{'i': api.ValueTypeI32, 'I': api.ValueTypeI64}
	for _, f := range functions() {
		var params, results []api.ValueType
		for _, p := range f.params {
			params = append(params, types[p])
		}
		for _, r := range f.result {
			results = append(results, types[r])
		}
		b.NewFunctionBuilder().WithGoModuleFunction(f, params, results).Export(f.name)
	}
}

func alloc(ctx context.Context, s *State, mod api.Module, p []uint64) {
	s.cfg.WASI.Proceed(ctx)
	s.look(mod)
	p[0] = s.heap.alloc(p[0])
}

func free(_ context.Context, s *State, mod api.Module, p []uint64) {
	b := s.heap.find(p[0])
	if b == nil {
		return
	}
	s.look(mod)
	s.freed(&s.output, b)
	s.freed(&s.message, b)
	if p[0] == s.inOff {
		s.inLen = 0
	}
	s.heap.release(b)
}

func length(_ context.Context, s *State, _ api.Module, p []uint64) {
	b := s.heap.find(p[0])
	if p[0] = 0; b != nil {
		p[0] = uint64(b.used)
	}
}

func loadU8(_ context.Context, s *State, _ api.Module, p []uint64) {
	off := p[0]
	if p[0] = 0; s.heap.within(off, 1) {
		p[0] = uint64(s.heap.mem[off])
	}
}

func loadU64(_ context.Context, s *State, _ api.Module, p []uint64) {
	off := p[0]
	if p[0] = 0; s.heap.within(off, 8) {
		p[0] = le.Uint64(s.heap.mem[off:])
	}
}

func storeU8(_ context.Context, s *State, _ api.Module, p []uint64) {
	if s.heap.within(p[0], 1) {
		s.heap.mem[p[0]] = byte(p[1])
	}
}

func storeU64(_ context.Context, s *State, _ api.Module, p []uint64) {
	if s.heap.within(p[0], 8) {
		le.PutUint64(s.heap.mem[p[0]:], p[1])
	}
}

func inputOffset(ctx context.Context, s *State, mod api.Module, p []uint64) {
	s.input(ctx, mod)
	p[0] = s.inOff
}

func inputLength(ctx context.Context, s *State, mod api.Module, p []uint64) {
	s.input(ctx, mod)
	p[0] = s.inLen
}

func inputLoadU8(ctx context.Context, s *State, mod api.Module, p []uint64) {
	s.input(ctx, mod)
	at := p[0]
	if p[0] = 0; at < s.inLen {
		p[0] = uint64(s.heap.mem[s.inOff+at])
	}
}

// inputLoadU64 gives what there is of eight bytes, and zeros behind it.
func inputLoadU64(ctx context.Context, s *State, mod api.Module, p []uint64) {
	s.input(ctx, mod)
	at := p[0]
	if p[0] = 0; at >= s.inLen {
		return
	}
	if b := s.heap.mem[s.inOff+at : s.inOff+s.inLen]; len(b) >= 8 {
		p[0] = le.Uint64(b)
	} else {
		for i, c := range b {
			p[0] |= uint64(c) << (8 * i)
		}
	}
}

func outputSet(ctx context.Context, s *State, _ api.Module, p []uint64) {
	off, n := p[0], p[1]
	if n > 0 && !s.heap.within(off, n) {
		trap("output_set: %d bytes at %d are not within the memory that was allocated", n, off)
	}
	s.set(&s.output, off, n)
	s.cfg.WASI.Moved(ctx, int(n))
	s.cfg.WASI.Proceed(ctx)
}

func errorSet(ctx context.Context, s *State, _ api.Module, p []uint64) {
	s.set(&s.message, 0, 0)
	if s.failed = p[0] != 0; s.failed {
		n := len(s.handle("error_set", "message", p[0]))
		s.set(&s.message, p[0], uint64(n))
		s.cfg.WASI.Moved(ctx, n)
	}
}

// name gives a name that is in a block.
func (s *State) name(ctx context.Context, function string, off uint64) string {
	b := s.handle(function, "name", off)
	s.cfg.WASI.Moved(ctx, len(b))
	return string(b)
}

func configGet(ctx context.Context, s *State, mod api.Module, p []uint64) {
	s.cfg.WASI.Proceed(ctx)
	s.look(mod)
	value, _ := s.config(s.name(ctx, "config_get", p[0]))
	p[0] = s.give(ctx, "config_get", []byte(value))
}

func varGet(ctx context.Context, s *State, mod api.Module, p []uint64) {
	s.cfg.WASI.Proceed(ctx)
	s.look(mod)
	p[0] = s.give(ctx, "var_get", s.vars[s.name(ctx, "var_get", p[0])])
}

func varSet(ctx context.Context, s *State, mod api.Module, p []uint64) {
	s.cfg.WASI.Proceed(ctx)
	s.look(mod)
	name := s.name(ctx, "var_set", p[0])
	if p[1] == 0 {
		s.removeVar(name)
		return
	}
	value := s.handle("var_set", "value", p[1])
	if !s.setVar(name, value) {
		trap("var_set: there is no memory for a value of %d bytes", len(value))
	}
	s.cfg.WASI.Moved(ctx, len(value))
}

func httpRequest(ctx context.Context, s *State, mod api.Module, p []uint64) {
	s.cfg.WASI.Proceed(ctx)
	s.look(mod)
	in := s.handle("http_request", "request", p[0])
	s.cfg.WASI.Moved(ctx, len(in))
	var body []byte
	if p[1] != 0 {
		body = s.handle("http_request", "body", p[1])
		s.cfg.WASI.Moved(ctx, len(body))
	}
	head, err := decode(in)
	if err == nil {
		p[0], err = s.fetch(ctx, head, body)
	}
	s.cfg.WASI.Proceed(ctx)
	if err != nil {
		trap("http_request: %v", err)
	}
}

func httpStatusCode(_ context.Context, s *State, _ api.Module, p []uint64) { p[0] = uint64(s.status) }

func httpHeaders(ctx context.Context, s *State, mod api.Module, p []uint64) {
	s.cfg.WASI.Proceed(ctx)
	s.look(mod)
	b, err := s.encodeHeaders()
	if err != nil {
		trap("http_headers: %v", err)
	}
	p[0] = s.give(ctx, "http_headers", b)
}

func logAt(l level) func(context.Context, *State, api.Module, []uint64) {
	name := "log_" + map[level]string{trace: "trace", debug: "debug", info: "info", warn: "warn", failure: "error"}[l]
	return func(ctx context.Context, s *State, _ api.Module, p []uint64) {
		s.cfg.WASI.Proceed(ctx)
		b := s.handle(name, "message", p[0])
		s.cfg.WASI.Moved(ctx, len(b))
		s.log(l, b)
	}
}

func getLogLevel(_ context.Context, s *State, _ api.Module, p []uint64) { p[0] = uint64(s.level) }
