package extism

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

func TestInput(t *testing.T) {
	p := newPlugin(t, iotest.OneByteReader(strings.NewReader("0123456789abc")))
	off := p.call(t, "input_offset")
	if n := p.call(t, "input_length"); n != 13 || p.call(t, "length", off) != n || p.get(t, off) != "0123456789abc" {
		t.Errorf("the input is %d bytes, its block has %q", n, p.get(t, off))
	}
	for _, test := range []struct{ at, byte, word uint64 }{
		{0, '0', 0x3736353433323130}, {5, '5', 0x6362613938373635}, {9, '9', 'c'<<24 | 'b'<<16 | 'a'<<8 | '9'}, {12, 'c', 'c'},
		{13, 0, 0}, {1 << 32, 0, 0}, {math.MaxUint64, 0, 0}, {math.MaxUint64 - 7, 0, 0},
	} {
		if b, w := p.call(t, "input_load_u8", test.at), p.call(t, "input_load_u64", test.at); b != test.byte || w != test.word {
			t.Errorf("at %d are %#x and %#x, want %#x and %#x", test.at, b, w, test.byte, test.word)
		}
	}
	p.call(t, "free", off)
	if n := p.call(t, "input_length"); n != 0 || p.call(t, "input_load_u8", 0) != 0 || p.call(t, "length", off) != 0 {
		t.Error("a freed input has", n, "bytes")
	}
	for _, in := range []io.Reader{nil, strings.NewReader("")} {
		p = newPlugin(t, in)
		if p.call(t, "input_offset") != 0 || p.call(t, "input_length") != 0 || p.Taken() > page+64*blockCost {
			t.Error("an empty input is something")
		}
	}
}

// Input of any length is read whole, or not at all.
func TestInputLengths(t *testing.T) {
	for _, n := range []int{1, 15, 16, page - base - 1, page - base, page - base + 1, page, 3*page - base, 1 << 20, 3<<20 + 5} {
		text := strings.Repeat("x", n-1) + "y"
		p := newPlugin(t, strings.NewReader(text))
		if got := p.call(t, "input_length"); got != uint64(n) || p.call(t, "input_load_u64", got-1) != 'y' {
			t.Errorf("of %d bytes there are %d", n, got)
		}
		if least := uint64(n) / 8; p.fuel < least || p.fuel > least+2 {
			t.Errorf("%d bytes cost %d fuel", n, p.fuel)
		}
		if p.linear != limit-p.Taken() || p.Refused() != 0 {
			t.Errorf("the plug-in's memory may have %d bytes, while it has taken %d", p.linear, p.Taken())
		}
	}
	p := newPlugin(t, strings.NewReader(strings.Repeat("x", limit)))
	p.traps(t, "no memory for its input", "input_length")
	if p.Refused() <= limit {
		t.Error("it was refused", p.Refused())
	}
	p = newPlugin(t, iotest.ErrReader(errors.New("the disk is gone")))
	if _, err := p.try("input_length"); err == nil || p.wasi.Err() == nil {
		t.Error("a plug-in whose input fails goes on:", err)
	}
}

func TestMemory(t *testing.T) {
	p := newPlugin(t, nil)
	if p.call(t, "alloc", 0) != 0 || p.call(t, "length", 0) != 0 {
		t.Error("nothing is something")
	}
	a, b := p.call(t, "alloc", 5), p.call(t, "alloc", 100)
	if a == 0 || b <= a || b-a < 5 || p.call(t, "length", a) != 5 || p.call(t, "length_unsafe", b) != 100 || p.call(t, "length", a+1) != 0 {
		t.Errorf("blocks at %d and %d", a, b)
	}
	p.call(t, "store_u64", b+90, 0x1122334455667788)
	p.call(t, "store_u8", b+91, 0xfff99)
	if got := p.call(t, "load_u64", b+90); got != 0x1122334455669988 || p.call(t, "load_u8", b+97) != 0x11 {
		t.Errorf("%#x", got)
	}
	p.call(t, "free", a)
	p.call(t, "free", a) // again
	p.call(t, "free", a+1)
	p.call(t, "free", 1<<63)
	if p.call(t, "length", a) != 0 || p.call(t, "length", b) != 100 {
		t.Error("what is freed has", p.call(t, "length", a))
	}
	if c := p.call(t, "alloc", 7); c != a || p.call(t, "length", c) != 7 {
		t.Errorf("a block that was freed, at %d, is not given out again but %d", a, c)
	}
	if c := p.call(t, "alloc", 7); c == a || c == b {
		t.Error("a block was freed twice")
	}
}

// What is out of bounds is not there, and changes nothing.
func TestOutOfBounds(t *testing.T) {
	p := newPlugin(t, nil)
	off := p.put(t, "0123456789abcdef")
	for _, at := range []uint64{0, 1, base - 1, off + 16, page - 8, page, 1 << 31, 1<<32 + off, 1 << 63, math.MaxUint64, math.MaxUint64 - 7} {
		p.call(t, "store_u8", at, 7)
		if p.call(t, "load_u8", at) != 0 {
			t.Error("there is something at", at)
		}
	}
	for _, at := range []uint64{0, base - 1, base - 8, off + 9, off + 16, page - 4, page, 1 << 31, 1<<32 + off, 1 << 63, math.MaxUint64, math.MaxUint64 - 6} {
		p.call(t, "store_u64", at, 7)
		if p.call(t, "load_u64", at) != 0 {
			t.Error("there is something at", at)
		}
	}
	if got := p.get(t, off); got != "0123456789abcdef" {
		t.Errorf("it became %q", got)
	}
	taken := p.Taken()
	for _, n := range []uint64{limit, 1<<31 + 1, 1<<32 - 1, 1 << 32, 1 << 63, math.MaxUint64} {
		if p.call(t, "alloc", n) != 0 {
			t.Error("there is a block of", n, "bytes")
		}
	}
	if p.Taken() != taken || p.Refused() == 0 {
		t.Errorf("what was refused, %d, took %d bytes", p.Refused(), p.Taken()-taken)
	}
}

// However a plug-in goes about it, it is given no more than its limit, nor is there more behind it.
func TestLimit(t *testing.T) {
	for _, size := range []uint64{1, 16, 1000, page, 1 << 20} {
		p := newPlugin(t, nil)
		n := uint64(0)
		for p.call(t, "alloc", size) != 0 {
			n++
		}
		used := uint64(len(p.memory.b)) + uint64(p.heap.room)*blockCost
		if p.Taken() > limit-page || used > p.Taken() || n*size > p.Taken() || n*max(size, 48)*5/4 < limit/2 {
			t.Errorf("%d blocks of %d bytes take %d, which is said to be %d", n, size, used, p.Taken())
		}
		if p.linear != limit-p.Taken() {
			t.Error("the plug-in's memory may have", p.linear)
		}
		// All of them again, and no more.
		for range n {
			p.call(t, "free", uint64(p.heap.blocks[0].off))
			if p.call(t, "alloc", size) == 0 {
				t.Fatal("a block that was freed is gone")
			}
		}
	}
	p := newPlugin(t, nil, func(c *Config, _ *wasi.Config) { c.Limit = page })
	if p.call(t, "alloc", 1) != 0 {
		t.Error("the plug-in's own memory takes no room")
	}
}

func TestOutput(t *testing.T) {
	p := newPlugin(t, nil)
	output := func() string { b, _, _ := p.Result(); return string(b) }
	if output() != "" {
		t.Error("there is output")
	}
	off := p.put(t, "some output")
	p.call(t, "output_set", off, 4)
	p.call(t, "store_u8", off, 'S')
	if got := output(); got != "Some" {
		t.Errorf("it is %q", got)
	}
	p.call(t, "output_set", off+5, 6)
	p.call(t, "free", off)
	if again := p.put(t, "another word"); again != off {
		t.Fatal("the block is not used again")
	}
	if got := output(); got != "output" {
		t.Errorf("once its block is used again it is %q", got)
	}
	p.call(t, "output_set", 0, 0)
	if output() != "" {
		t.Error("empty output is not empty")
	}
	for _, bad := range [][2]uint64{{0, 1}, {off, 100}, {off, 1 << 63}, {off, math.MaxUint64}, {math.MaxUint64, 2}, {1 << 63, 1 << 63}, {1 << 32, 1}, {base - 1, 2}, {page, 1}} {
		p.traps(t, "output_set: ", "output_set", bad[0], bad[1])
	}
	p.call(t, "output_set", math.MaxUint64, 0)
	if output() != "" {
		t.Error("no bytes at all are some")
	}
}

func TestError(t *testing.T) {
	p := newPlugin(t, nil)
	off := p.put(t, "wrong")
	p.call(t, "error_set", off)
	p.call(t, "free", off)
	p.put(t, "right")
	if _, message, failed := p.Result(); !failed || string(message) != "wrong" {
		t.Errorf("%q, %v", message, failed)
	}
	p.call(t, "error_set", 0)
	if _, message, failed := p.Result(); failed || len(message) > 0 {
		t.Errorf("%q, %v", message, failed)
	}
	for _, bad := range []uint64{1, off + 1, 1 << 63, math.MaxUint64} {
		p.traps(t, "error_set: there is no block of memory at", "error_set", bad)
	}
}

// What is kept of a result is within the limit, and let go with it.
func TestKeptResults(t *testing.T) {
	p := newPlugin(t, nil)
	half := p.call(t, "alloc", limit/2)
	p.call(t, "output_set", half, limit/2)
	p.traps(t, "free: there is no memory to keep", "free", half)
	p.call(t, "output_set", half, limit/4)
	before := p.Taken()
	p.call(t, "free", half)
	if p.Taken() != before+limit/4 {
		t.Error("what is kept is not counted")
	}
	p.call(t, "output_set", 0, 0)
	p.put(t, strings.Repeat("x", 100))
	if p.call(t, "alloc", limit/2-page) != half || p.held != 0 {
		t.Error("what was kept is still counted")
	}
}

func TestConfig(t *testing.T) {
	p := newPlugin(t, nil, func(c *Config, _ *wasi.Config) {
		c.Env = []string{"GRID_ABI=2", "name=value", "empty=", "twice=1", "twice=2", "eq=a=b"}
	})
	for name, want := range map[string]string{"name": "value", "empty": "", "twice": "2", "eq": "a=b", "GRID_ABI": "", "other": "", "": ""} {
		off := uint64(0)
		key := p.call(t, "alloc", 1)
		if name != "" {
			key = p.put(t, name)
		}
		if off = p.call(t, "config_get", key); (off != 0) != (want != "") || off != 0 && p.get(t, off) != want {
			t.Errorf("%s is at %d, want %q", name, off, want)
		}
		if name != "" && p.get(t, key) != name {
			t.Error("the name's block is gone")
		}
	}
	for _, bad := range []uint64{0, 1, 1 << 63} {
		p.traps(t, "config_get: there is no block of memory at", "config_get", bad)
	}
}

func TestVars(t *testing.T) {
	p := newPlugin(t, nil)
	name, value := p.put(t, "name"), p.put(t, "value")
	if p.call(t, "var_get", name) != 0 {
		t.Error("there is a variable")
	}
	p.call(t, "var_set", name, value)
	p.call(t, "store_u8", value, 'V') // it is a copy
	first, second := p.call(t, "var_get", name), p.call(t, "var_get", name)
	if p.get(t, first) != "value" || first == second {
		t.Errorf("%q at %d and %d", p.get(t, first), first, second)
	}
	p.call(t, "var_set", name, p.put(t, "more"))
	if p.get(t, p.call(t, "var_get", name)) != "more" {
		t.Error("it is not set again")
	}
	p.call(t, "var_set", name, 0)
	p.call(t, "var_set", name, 0)
	if p.call(t, "var_get", name) != 0 || p.varSize != 0 {
		t.Error("it is not removed")
	}
	p.traps(t, "where the name is to be", "var_set", 1, value)
	p.traps(t, "where the value is to be", "var_set", name, value+1)
	p.traps(t, "where the name is to be", "var_get", 0)

	// They are within the limit.
	big := p.call(t, "alloc", 1<<18)
	var err error
	n := 0
	for err == nil {
		_, err = p.try("var_set", p.put(t, fmt.Sprint(n)), big)
		n++
	}
	if !strings.Contains(err.Error(), "var_set: there is no memory") || n < 12 || n > 16 || p.Taken() > limit || p.varSize > limit {
		t.Errorf("after %d of them, with %d: %v", n, p.Taken(), err)
	}
}

func TestLog(t *testing.T) {
	with := func(env ...string) *plugin { return newPlugin(t, nil, func(c *Config, _ *wasi.Config) { c.Env = env }) }
	all := func(p *plugin) string {
		for _, l := range []string{"trace", "debug", "info", "warn", "error"} {
			p.call(t, "log_"+l, p.put(t, l+"!"))
		}
		return p.stderr.String()
	}
	const some = "level=INFO msg=info!\nlevel=WARN msg=warn!\nlevel=ERROR msg=error!\n"
	for _, test := range []struct {
		env   string
		level uint64
		want  string
	}{
		{"A=b", 2, some}, {"EXTISM_LOG=what", 2, some}, {"EXTISM_LOG=trace", 0, "level=TRACE msg=trace!\nlevel=DEBUG msg=debug!\n" + some},
		{"EXTISM_LOG=ERROR", 4, "level=ERROR msg=error!\n"}, {"EXTISM_LOG=off", math.MaxInt32, ""},
	} {
		p := with(test.env)
		if got := p.call(t, "get_log_level"); got != test.level {
			t.Errorf("%s: the level is %d", test.env, got)
		}
		if got := all(p); got != test.want {
			t.Errorf("%s: the log is %q", test.env, got)
		}
	}
	for message, want := range map[string]string{
		"two words": `"two words"`, "a\nb\x00": `"a\nb\x00"`, "=": `"="`, "ü": "ü", "\xff": `"\xff"`, `"`: `"\""`,
		strings.Repeat("x", maxLog+1): strings.Repeat("x", maxLog),
	} {
		p := with()
		p.call(t, "log_info", p.put(t, message))
		if got := p.stderr.String(); got != "level=INFO msg="+want+"\n" {
			t.Errorf("%.40q becomes %.80q", message, got)
		}
	}
	p := with()
	p.traps(t, "log_info: there is no block of memory at 9, where the message is to be", "log_info", 9)
	p.traps(t, "log_trace: ", "log_trace", 1<<63)
}

// A call that is one too many, or whose context is over, ends the plug-in.
func TestEnds(t *testing.T) {
	p := newPlugin(t, nil, func(_ *Config, w *wasi.Config) { w.Calls = 3 })
	for range 3 {
		p.call(t, "length", 0)
	}
	var exit *sys.ExitError
	if _, err := p.try("load_u8", 0); !errors.As(err, &exit) || !p.wasi.CallsSpent() {
		t.Error(err)
	}
	p = newPlugin(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.ctx = p.Context(p.wasi.Context(ctx))
	if _, err := p.try("alloc", 1); !errors.As(err, &exit) || !p.wasi.Stopped() {
		t.Error(err)
	}
}

// A plug-in that is only being initialised is ended by any function.
func TestEarly(t *testing.T) {
	for _, f := range functions() {
		p := newPlugin(t, nil, func(c *Config, _ *wasi.Config) { *c = Config{Early: true} })
		_, err := p.try(f.name, make([]uint64, len(f.params))...)
		var exit *sys.ExitError
		if !errors.As(err, &exit) || !p.Touched() {
			t.Errorf("%s: %v", f.name, err)
		}
	}
	p := newPlugin(t, nil)
	p.ctx = p.wasi.Context(context.Background())
	p.traps(t, "while it is being instantiated", "alloc", 1)
}

// A state that is used again has nothing of the call before.
func TestReset(t *testing.T) {
	p := newPlugin(t, strings.NewReader("the first input"))
	first := p.call(t, "input_offset")
	p.call(t, "var_set", p.put(t, "name"), p.put(t, "value"))
	p.call(t, "error_set", p.put(t, "error"))
	p.call(t, "free", p.put(t, "something"))
	for range 500 {
		p.put(t, "x")
	}
	p.Release()
	p.memory = moving{}
	p.wasi.Reset(wasi.Config{Stdin: strings.NewReader("the second input")})
	p.Reset(Config{WASI: &p.wasi, Limit: limit, Memory: &p.memory, Linear: func(uint64) {}})
	if off := p.call(t, "input_offset"); off != first || p.get(t, off) != "the second input" {
		t.Errorf("the input, %q, is at %d, and was at %d", p.get(t, off), off, first)
	}
	if p.call(t, "var_get", p.put(t, "name")) != 0 {
		t.Error("a variable is left")
	}
	if p.Taken() != page+64*blockCost {
		t.Error("it takes", p.Taken())
	}
	if out, message, failed := p.Result(); len(out)+len(message) > 0 || failed {
		t.Errorf("there is %q, %q", out, message)
	}
}
