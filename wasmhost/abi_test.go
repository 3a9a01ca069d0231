package wasmhost_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost"
	"github.com/wasmgrid/wasmgrid/wasmhost/guestnet"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// This file states what docs/abi.md says of the module grid as guests see it, without an SDK: each case is a guest of its
// own that makes a few calls, and at its end shows all of its memory, of which every byte is accounted for.

// Where the guests have things in their memory, which ends at memEnd.
const (
	out    = 16    // a word that a function writes
	out2   = 24    // another
	req    = 1024  // a request
	iov    = 32768 // one buffer: buf, of bufLen bytes
	buf    = 4096
	bufLen = 8192
	errnos = 40960 // what each call gave, a word each
	show   = 49152 // the buffer that is all memory
	memEnd = 65536
	max32  = math.MaxUint32
)

// do is one call and the errno that it must give. Arguments are int for i32, int64 for i64 and float64 for f64.
type do struct {
	name string
	args []any
	want vfs.Errno
}

func call(want vfs.Errno, name string, args ...any) do { return do{name, args, want} }

// kvCall sends the request that is in memory.
func kvCall(want vfs.Errno, request string) do { return call(want, "kv", req, len(request), out) }

// read reads into buf what a descriptor gives at once.
func read(fd int) do { return call(0, "fd_read", fd, iov, 1, out2) }

var shut = call(0, "fd_close", 4)

// lastError asks for the message, into buf.
var lastError = call(0, "last_error", buf, bufLen, out2)

// gives is what read and lastError leave in memory.
func gives(text string) map[int]string { return map[int]string{buf: text, out2: u32(len(text))} }

func both(a, b map[int]string) map[int]string {
	a = maps.Clone(a)
	maps.Copy(a, b)
	return a
}

func u32(n int) string { return string(binary.LittleEndian.AppendUint32(nil, uint32(n))) }

func u64(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }

func word(s string) string { return u32(len(s)) + s }

// The requests of kv.
func get(key string) string { return "\x01" + word(key) }

func list(limit int, prefix, after string) string {
	return "\x02" + u32(limit) + word(prefix) + word(after)
}

func commit(conditions, puts, deletes []string) string {
	s := "\x03"
	for _, l := range [][]string{conditions, puts, deletes} {
		s += u32(len(l)) + strings.Join(l, "")
	}
	return s
}

func condition(key string, version uint64) string { return word(key) + u64(version) }

func put(key, value string) string { return word(key) + word(value) }

// item is an entry of a list.
func item(key string, version uint64, value string) string {
	return word(key) + u64(version) + word(value)
}

func spawnRequest(name, stdin string, args ...string) string {
	s := word(name) + u32(len(args))
	for _, a := range args {
		s += word(a)
	}
	return s + stdin
}

const descriptor4 = "\x04\x00\x00\x00"

// abiCase is a guest: what is in its memory, what it calls, and what must have become of its memory and of the world.
type abiCase struct {
	name    string
	memory  map[int]string // by address
	calls   []do
	changes map[int]string // of memory
	world   []string       // what the host was told
	metrics []grid.Metric
	without bool // nothing is granted, and nobody listens
	net     bool // HTTP to a.example:80 is granted
}

func abiCases() []abiCase {
	long := strings.Repeat("k", 1022)
	at := func(s string) map[int]string { return map[int]string{req: s} }
	cases := []abiCase{
		// kv
		{name: "kv get: version and value", memory: at(get("a")), calls: []do{kvCall(0, get("a")), read(4)},
			changes: both(map[int]string{out: descriptor4}, gives(u64(3)+"apple")), world: []string{"get a"}},
		{name: "kv: the response ends, and then its descriptor", memory: at(get("a")),
			calls:   []do{kvCall(0, get("a")), read(4), read(4), shut, call(vfs.EBADF, "fd_read", 4, iov, 1, out2)},
			changes: map[int]string{out: descriptor4, buf: u64(3) + "apple"}, world: []string{"get a"}},
		{name: "kv: a response cannot be written or sought", memory: at(get("a")),
			calls:   []do{kvCall(0, get("a")), call(vfs.ENOTCAPABLE, "fd_write", 4, iov, 1, out2), call(vfs.ESPIPE, "fd_seek", 4, int64(0), 0, buf), call(vfs.ESPIPE, "fd_pread", 4, iov, 1, int64(0), out2)},
			changes: map[int]string{out: descriptor4}, world: []string{"get a"}},
		{name: "kv get: an empty value", memory: at(get("empty")), calls: []do{kvCall(0, get("empty")), read(4)},
			changes: both(map[int]string{out: descriptor4}, gives(u64(5))), world: []string{"get empty"}},
		{name: "kv get: no such key", memory: at(get("x")), calls: []do{kvCall(vfs.ENOENT, get("x")), lastError},
			changes: gives(`there is no key "x"`), world: []string{"get x"}},
		{name: "kv get: not granted", memory: at(get("denied")), calls: []do{kvCall(vfs.ENOTCAPABLE, get("denied")), lastError},
			changes: gives(`no grant allows "denied"`), world: []string{"get denied"}},
		{name: "kv get: refused as invalid", memory: at(get("invalid")), calls: []do{kvCall(vfs.EINVAL, get("invalid"))}, world: []string{"get invalid"}},
		{name: "kv get: refused for a limit", memory: at(get("limit")), calls: []do{kvCall(vfs.ENOSPC, get("limit"))}, world: []string{"get limit"}},
		{name: "kv list: all", memory: at(list(0, "", "")), calls: []do{kvCall(0, list(0, "", "")), read(4)},
			changes: both(map[int]string{out: descriptor4}, gives("\x00"+item("a", 3, "apple")+item("b", 4, "bee")+item("empty", 5, ""))), world: []string{`list "" after "" limit 16384`}},
		{name: "kv list: a prefix, after a key, some", memory: at(list(1, "", "a")), calls: []do{kvCall(0, list(1, "", "a")), read(4)},
			changes: both(map[int]string{out: descriptor4}, gives("\x01"+item("b", 4, "bee"))), world: []string{`list "" after "a" limit 1`}},
		{name: "kv list: nothing", memory: at(list(max32, "zz", "")), calls: []do{kvCall(0, list(max32, "zz", "")), read(4)},
			changes: both(map[int]string{out: descriptor4}, gives("\x00")), world: []string{`list "zz" after "" limit 16384`}},
		{name: "kv commit: all three lists", memory: at(commit([]string{condition("a", 3), condition("n", 0)}, []string{put("n", "new"), put("e", "")}, []string{word("b")})),
			calls:   []do{kvCall(0, commit([]string{condition("a", 3), condition("n", 0)}, []string{put("n", "new"), put("e", "")}, []string{word("b")})), read(4)},
			changes: both(map[int]string{out: descriptor4}, gives(u64(6))), world: []string{`commit if a=3 n=0 put n="new" e="" delete b`}},
		{name: "kv commit: a condition does not hold", memory: at(commit([]string{condition("a", 2)}, []string{put("a", "x")}, nil)),
			calls:   []do{kvCall(vfs.EAGAIN, commit([]string{condition("a", 2)}, []string{put("a", "x")}, nil)), lastError},
			changes: gives(`"a" has version 3, not 2`), world: []string{`commit if a=2 put a="x"`}},
		{name: "kv commit: of nothing", memory: at(commit(nil, nil, nil)), calls: []do{kvCall(0, commit(nil, nil, nil)), read(4)},
			changes: both(map[int]string{out: descriptor4}, gives(u64(5))), world: []string{"commit"}},
		{name: "kv: the result lies in the request", memory: at(get("a")), calls: []do{call(0, "kv", req, 6, req+1), read(4)},
			changes: both(map[int]string{req + 1: descriptor4}, gives(u64(3)+"apple")), world: []string{"get a"}},
		{name: "kv: the request lies at the end of memory", memory: map[int]string{memEnd - 6: get("a")}, calls: []do{call(0, "kv", memEnd-6, 6, out)},
			changes: map[int]string{out: descriptor4}, world: []string{"get a"}},
		{name: "kv: the result lies at the end of memory", memory: at(get("a")), calls: []do{call(0, "kv", req, 6, memEnd-4)},
			changes: map[int]string{memEnd - 4: descriptor4}, world: []string{"get a"}},
		{name: "kv: not a map", memory: at(get("a")), without: true, calls: []do{kvCall(vfs.ENOTSUP, get("a"))}},
		{name: "kv: eight responses at a time", memory: at(get("a")),
			calls:   append(slices.Repeat([]do{kvCall(0, get("a"))}, 8), kvCall(vfs.EMFILE, get("a")), shut, kvCall(0, get("a"))),
			changes: map[int]string{out: descriptor4}, world: slices.Repeat([]string{"get a"}, 9)},

		// progress
		{name: "progress", calls: []do{call(0, "progress", int64(1), int64(2)), call(0, "progress", int64(5), int64(0)), call(0, "progress", int64(9), int64(2))},
			world: []string{"progress 1 of 2", "progress 5 of 0", "progress 2 of 2"}},
		{name: "progress: numbers have no sign", calls: []do{call(0, "progress", int64(-1), int64(-1))}, world: []string{"progress 18446744073709551615 of 18446744073709551615"}},
		{name: "progress: nobody listens", without: true, calls: []do{call(0, "progress", int64(1), int64(2))}},

		// count, observe
		{name: "count", memory: at("lines"), calls: []do{call(0, "count", req, 5, int64(2)), call(0, "count", req, 5, int64(3)), call(0, "count", req, 1, int64(0))},
			metrics: []grid.Metric{{Name: "l", Kind: grid.Counter}, {Name: "lines", Kind: grid.Counter, Count: 5}}},
		{name: "count: stays at the most", memory: at("n"), calls: []do{call(0, "count", req, 1, int64(-1)), call(0, "count", req, 1, int64(7))},
			metrics: []grid.Metric{{Name: "n", Kind: grid.Counter, Count: math.MaxUint64}}},
		{name: "observe", memory: at("size"), calls: []do{call(0, "observe", req, 4, 1.0), call(0, "observe", req, 4, 3.0), call(0, "observe", req, 4, 4.0), call(0, "observe", req, 4, -2.0)},
			metrics: []grid.Metric{{Name: "size", Kind: grid.Histogram, Count: 4, Sum: 6, Buckets: []grid.MetricBucket{{Exp: grid.MinMetricExp, Count: 1}, {Exp: 0, Count: 1}, {Exp: 2, Count: 2}}}}},
		{name: "observe: the sum stays a number", memory: at("v"), calls: []do{call(0, "observe", req, 1, math.MaxFloat64), call(0, "observe", req, 1, math.MaxFloat64)},
			metrics: []grid.Metric{{Name: "v", Kind: grid.Histogram, Count: 2, Sum: math.MaxFloat64, Buckets: []grid.MetricBucket{{Exp: grid.MaxMetricExp, Count: 2}}}}},
		{name: "observe: no number", memory: at("v"), calls: []do{call(vfs.EINVAL, "observe", req, 1, math.NaN()), call(vfs.EINVAL, "observe", req, 1, math.Inf(1)), call(vfs.EINVAL, "observe", req, 1, math.Inf(-1)), lastError},
			changes: gives("-Inf is no value for a histogram")},
		{name: "a name of another kind", memory: at("v"), calls: []do{call(0, "count", req, 1, int64(1)), call(vfs.EINVAL, "observe", req, 1, 1.0), lastError},
			changes: gives("v is a counter, not a histogram"), metrics: []grid.Metric{{Name: "v", Kind: grid.Counter, Count: 1}}},
		{name: "the longest name", memory: at(strings.Repeat("n", 65)), calls: []do{call(0, "count", req, 64, int64(1)), call(vfs.EINVAL, "count", req, 65, int64(1)), call(vfs.EINVAL, "count", req, memEnd-req, int64(1))},
			metrics: []grid.Metric{{Name: strings.Repeat("n", 64), Kind: grid.Counter, Count: 1}}},
		{name: "more names than there may be", memory: at(strings.Repeat("n", 40)),
			calls: func() (list []do) {
				for i := range 32 {
					list = append(list, call(0, "count", req, i+1, int64(1)))
				}
				return append(list, call(vfs.ENOSPC, "count", req, 33, int64(1)), call(vfs.ENOSPC, "observe", req, 34, 1.0), call(0, "count", req, 32, int64(1)), call(vfs.EINVAL, "count", req, 0, int64(1)))
			}(),
			metrics: func() (list []grid.Metric) {
				for i := range 32 {
					list = append(list, grid.Metric{Name: strings.Repeat("n", i+1), Kind: grid.Counter, Count: 1 + uint64(i/31)})
				}
				return list
			}()},

		// spawn, await
		{name: "spawn and await", memory: at(spawnRequest("f", "in", "x", "")),
			calls:   []do{call(0, "spawn", req, len(spawnRequest("f", "in", "x", "")), out), call(0, "await", 0, buf+bufLen, buf+bufLen+4), read(4), shut, call(vfs.ECHILD, "await", 0, buf+bufLen, buf+bufLen+4)},
			changes: both(map[int]string{out: u32(0), buf + bufLen: descriptor4, buf + bufLen + 4: u32(0)}, gives("f ended")), world: []string{`spawn f ["x" ""] "in"`, "await 0"}},
		{name: "await: an exit code and what was on stderr", memory: at(spawnRequest("exit", "")),
			calls:   []do{call(0, "spawn", req, 8+4, out), call(0, "await", 0, buf+bufLen, buf+bufLen+4), lastError},
			changes: both(map[int]string{out: u32(0), buf + bufLen: descriptor4, buf + bufLen + 4: u32(7)}, gives("on stderr")), world: []string{`spawn exit [] ""`, "await 0"}},
		{name: "await: a trap", memory: at(spawnRequest("trap", "")),
			calls:   []do{call(0, "spawn", req, 8+4, out), call(vfs.ECANCELED, "await", 0, out, out), lastError},
			changes: both(map[int]string{out: u32(0)}, gives("trap: unreachable")), world: []string{`spawn trap [] ""`, "await 0"}},
		{name: "await: nothing was spawned", calls: []do{call(vfs.ECHILD, "await", 0, out, out2), call(vfs.ECHILD, "await", max32, out, out2)}},
		{name: "spawn: nobody runs tasks", without: true, memory: at(spawnRequest("f", "")), calls: []do{call(vfs.ENOTSUP, "spawn", req, 9, out), call(vfs.ENOTSUP, "await", 0, out, out2)}},
		{name: "spawn: the result lies in the request", memory: at(spawnRequest("f", "")), calls: []do{call(0, "spawn", req, 9, req)},
			changes: map[int]string{req: u32(0)}, world: []string{`spawn f [] ""`}},

		// http_open
		{name: "http_open: no grant", memory: at("GET http://a.example/\n\n"), calls: []do{call(vfs.ENOTCAPABLE, "http_open", req, 23, out)}},
		{name: "http_open", net: true, memory: at("GET http://a.example/\n\n"), calls: []do{call(0, "http_open", req, 23, out), read(4), read(4), read(4)},
			changes: map[int]string{out: descriptor4, buf: "hello" + "200 OK\ncontent-length: 5\n\n"[5:]}},
		{name: "http_open: no request", net: true, calls: []do{call(vfs.EINVAL, "http_open", req, 0, out), lastError}, changes: gives("the request has no empty line, which ends its headers")},

		// last_error
		{name: "last_error: nothing has failed", calls: []do{lastError}, changes: gives("")},
		{name: "last_error: as much as there is room for", memory: at(get("x")), calls: []do{kvCall(vfs.ENOENT, get("x")), call(0, "last_error", buf, 8, out2), call(0, "last_error", memEnd, 0, out)},
			changes: map[int]string{buf: "there is", out2: u32(8), out: u32(0)}, world: []string{"get x"}},
		{name: "last_error: success leaves it", memory: at(get("x")), calls: []do{kvCall(vfs.ENOENT, get("x")), call(0, "progress", int64(1), int64(1)), call(vfs.EFAULT, "last_error", memEnd, 1, out2), lastError},
			changes: gives(`there is no key "x"`), world: []string{"get x", "progress 1 of 1"}},
		{name: "last_error: a pointer outside", calls: []do{call(vfs.EFAULT, "kv", memEnd, 1, out), lastError}, changes: gives("a pointer or a length leads out of memory")},
		{name: "last_error: buffer and length overlap", memory: at(get("x")), calls: []do{kvCall(vfs.ENOENT, get("x")), call(0, "last_error", buf, 100, buf+1)},
			changes: map[int]string{buf: "t" + u32(19) + ` is no key "x"`}, world: []string{"get x"}},
	}

	// Malformed and too large: nothing reaches the map.
	for what, c := range map[string]struct {
		request string
		want    vfs.Errno
	}{
		"empty":                 {"", vfs.EINVAL},
		"operation 0":           {"\x00", vfs.EINVAL},
		"operation 4":           {"\x04" + word("a"), vfs.EINVAL},
		"operation 255":         {"\xff", vfs.EINVAL},
		"get without a key":     {"\x01", vfs.EINVAL},
		"get, cut off":          {get("abc")[:6], vfs.EINVAL},
		"get, left over":        {get("abc") + "x", vfs.EINVAL},
		"get, the empty key":    {get(""), vfs.EINVAL},
		"get, a long key":       {get(long), vfs.EFBIG},
		"get, a length of 2^32": {"\x01" + u32(max32) + "a", vfs.EFBIG},
		"get, not UTF-8":        {get("\xff"), vfs.EINVAL},
		"list, cut off":         {list(1, "a", "b")[:9], vfs.EINVAL},
		"list, not UTF-8":       {list(1, "a\xc3", ""), vfs.EINVAL},
		"list, a long prefix":   {list(1, long, ""), vfs.EFBIG},
		"list, left over":       {list(1, "", "") + "\x00", vfs.EINVAL},
		"commit, cut off":       {commit(nil, []string{put("a", "b")}, nil)[:12], vfs.EINVAL},
		"commit, two lists":     {"\x03" + u32(0) + u32(0), vfs.EINVAL},
		"commit, many":          {"\x03" + u32(1025), vfs.EFBIG},
		"commit, 2^32-1":        {"\x03" + u32(max32), vfs.EFBIG},
		"commit, 2^31":          {"\x03" + u32(0) + u32(1<<31), vfs.EFBIG},
		"commit, more than fit": {"\x03" + u32(1000) + word("a"), vfs.EINVAL},
		"commit, a long value":  {"\x03" + u32(0) + u32(1) + word("a") + u32(1<<20+1) + "xxxx", vfs.EFBIG},
		"commit, no key":        {commit(nil, nil, []string{word("")}), vfs.EINVAL},
		"commit, not UTF-8":     {commit(nil, []string{put("\x80", "")}, nil), vfs.EINVAL},
		"commit, left over":     {commit(nil, nil, nil) + "x", vfs.EINVAL},
	} {
		cases = append(cases, abiCase{name: "kv, malformed: " + what, memory: at(c.request), calls: []do{kvCall(c.want, c.request)}})
	}
	for _, n := range []string{"", "1a", "a-b", "a b", "ä", "\xff", "a\x00", "a.b"} {
		cases = append(cases, abiCase{name: fmt.Sprintf("not a metric: %q", n), memory: at(n), calls: []do{call(vfs.EINVAL, "count", req, len(n), int64(1)), call(vfs.EINVAL, "observe", req, len(n), 1.0)}})
	}
	for _, r := range []string{"", "\x01", word("f"), word("f") + u32(1), word("f") + u32(max32), u32(max32) + "f"} {
		cases = append(cases, abiCase{name: fmt.Sprintf("not a spawn: %q", r), memory: at(r), calls: []do{call(vfs.EINVAL, "spawn", req, len(r), out)}})
	}

	// Pointers and lengths outside: nothing is done, and nothing written.
	for _, p := range [][2]int{{memEnd, 1}, {memEnd - 1, 2}, {0, memEnd + 1}, {max32, 1}, {max32, max32}, {0, max32}, {1 << 31, 1 << 31}, {memEnd + 1, 0}, {max32, 0}} {
		what := fmt.Sprintf("outside: %#x, %#x", p[0], p[1])
		c := abiCase{name: what, memory: at(get("a")), calls: []do{
			call(vfs.EFAULT, "kv", p[0], p[1], out), call(vfs.EFAULT, "count", p[0], p[1], int64(1)), call(vfs.EFAULT, "observe", p[0], p[1], 1.0),
			call(vfs.EFAULT, "observe", p[0], p[1], math.NaN()), call(vfs.EFAULT, "spawn", p[0], p[1], out),
			call(vfs.EFAULT, "http_open", p[0], p[1], out), call(vfs.EFAULT, "last_error", p[0], p[1], out),
		}}
		if p[1] != 0 || p[0] == max32 { // as the place of a word
			c.calls = append(c.calls, call(vfs.EFAULT, "kv", req, 6, max(p[0], memEnd-3)), call(vfs.EFAULT, "spawn", req, 6, max(p[0], memEnd-3)), call(vfs.EFAULT, "http_open", req, 6, max(p[0], memEnd-3)),
				call(vfs.EFAULT, "last_error", buf, 6, max(p[0], memEnd-3)), call(vfs.EFAULT, "await", 0, max(p[0], memEnd-3), out), call(vfs.EFAULT, "await", 0, out, max(p[0], memEnd-3)))
		}
		cases = append(cases, c)
	}
	return cases
}

// gridImports are all functions of the module grid.
func gridImports() (list []wasmbytes.Import) {
	for _, c := range wasmbytes.GridCalls() {
		list = append(list, c.Import())
	}
	return list
}

// invoke is code for a call, which leaves the errno on the stack.
func invoke(imports *[]wasmbytes.Import, d do) []byte {
	i := slices.IndexFunc(*imports, func(f wasmbytes.Import) bool { return f.Name == d.name })
	if i < 0 {
		i = len(*imports)
		*imports = append(*imports, wasmbytes.System(d.name))
	}
	var code []byte
	for _, a := range d.args {
		switch a := a.(type) {
		case int:
			code = append(code, wasmbytes.Const(int32(uint32(a)))...)
		case int64:
			code = append(code, wasmbytes.Const64(a)...)
		case float64:
			code = append(code, wasmbytes.ConstF64(a)...)
		}
	}
	return append(code, wasmbytes.Call(uint32(i))...)
}

// invokeAll is code for calls, which leaves what they gave in memory, a word each.
func invokeAll(imports *[]wasmbytes.Import, at int, calls []do) (code []byte) {
	for i, d := range calls {
		code = slices.Concat(code, wasmbytes.Const(int32(at+4*i)), invoke(imports, d), wasmbytes.Op(0x36, 2, 0)) // i32.store
	}
	return code
}

// showAll is code that writes all memory to stdout, if the buffer for it is in its place.
func showAll(imports *[]wasmbytes.Import) []byte {
	return append(invoke(imports, call(0, "fd_write", 1, show, 1, out)), wasmbytes.Drop()...)
}

// guest assembles the case's module, and what its memory is at the end.
func (c abiCase) guest() (module, end []byte) {
	mem := make([]byte, memEnd)
	place := func(m map[int]string) {
		for at, s := range m {
			copy(mem[at:], s)
		}
	}
	place(map[int]string{iov: u32(buf) + u32(bufLen), show: u32(0) + u32(memEnd)})
	place(c.memory)
	data := slices.Clone(mem)
	for i, d := range c.calls {
		place(map[int]string{errnos + 4*i: u32(int(d.want))})
	}
	place(c.changes)
	imports := gridImports()
	code := slices.Concat(invokeAll(&imports, errnos, c.calls), showAll(&imports))
	return wasmbytes.Program{Imports: imports, MinPages: 1, Data: data, Funcs: []wasmbytes.Func{{Code: code}}}.Bytes(), mem
}

// abiWorld is what guests are given, and remembers what it is told.
type abiWorld struct {
	told     []string
	children map[uint32]string
	spawned  uint32
}

func (w *abiWorld) tell(format string, args ...any) {
	w.told = append(w.told, fmt.Sprintf(format, args...))
}

var abiEntries = []grid.Entry{{Key: "a", Value: []byte("apple"), Version: 3}, {Key: "b", Value: []byte("bee"), Version: 4}, {Key: "empty", Version: 5}}

func (w *abiWorld) Get(_ context.Context, key string) (grid.Entry, error) {
	w.tell("get %s", key)
	switch key {
	case "denied":
		return grid.Entry{}, grid.Errorf(grid.Denied, "no grant allows %q", key)
	case "invalid":
		return grid.Entry{}, grid.Errorf(grid.Invalid, "invalid")
	case "limit":
		return grid.Entry{}, grid.Errorf(grid.Limit, "limit")
	}
	if i := slices.IndexFunc(abiEntries, func(e grid.Entry) bool { return e.Key == key }); i >= 0 {
		return abiEntries[i], nil
	}
	return grid.Entry{}, grid.Errorf(grid.NotFound, "there is no key %q", key)
}

func (w *abiWorld) List(_ context.Context, prefix, after string, limit int) (entries []grid.Entry, more bool, err error) {
	w.tell("list %q after %q limit %d", prefix, after, limit)
	for _, e := range abiEntries {
		if strings.HasPrefix(e.Key, prefix) && e.Key > after {
			entries = append(entries, e)
		}
	}
	n := min(limit, len(entries))
	return entries[:n], n < len(entries), nil
}

func (w *abiWorld) Commit(_ context.Context, t grid.Txn) (uint64, error) {
	s := "commit"
	var refused error
	for i, c := range t.If {
		s += []string{" if", ""}[min(i, 1)] + fmt.Sprintf(" %s=%d", c.Key, c.Version)
		if c.Key == "a" && c.Version != 3 {
			refused = grid.Errorf(grid.Conflict, "%q has version 3, not %d", c.Key, c.Version)
		}
	}
	for i, e := range t.Put {
		s += []string{" put", ""}[min(i, 1)] + fmt.Sprintf(" %s=%q", e.Key, e.Value)
	}
	for i, k := range t.Delete {
		s += []string{" delete", ""}[min(i, 1)] + " " + k
	}
	w.told = append(w.told, s)
	if len(t.Put)+len(t.Delete) == 0 {
		return 5, refused
	}
	return 6, refused
}

func (w *abiWorld) Spawn(_ context.Context, c grid.Call) (uint32, error) {
	w.tell("spawn %s %q %q", c.Func, c.Args, c.Stdin)
	if w.children == nil {
		w.children = map[uint32]string{}
	}
	w.children[w.spawned] = c.Func
	w.spawned++
	return w.spawned - 1, nil
}

func (w *abiWorld) Ended(uint32) bool { return false }

func (w *abiWorld) Await(_ context.Context, child uint32) (grid.Ending, error) {
	name, ok := w.children[child]
	if !ok {
		return grid.Ending{}, grid.Errorf(grid.NotFound, "there is no task %d to await", child)
	}
	delete(w.children, child)
	w.tell("await %d", child)
	stdout := io.NopCloser(strings.NewReader(name + " ended"))
	switch name {
	case "trap":
		return grid.Ending{Fault: &grid.Fault{Code: grid.Trap, Message: "unreachable"}}, nil
	case "exit":
		return grid.Ending{Exit: 7, Stdout: stdout, Stderr: []byte("on stderr")}, nil
	}
	return grid.Ending{Stdout: stdout}, nil
}

// abiNet answers every request to a.example with hello.
func abiNet(t testing.TB) *guestnet.Net {
	n, err := guestnet.New(guestnet.Config{
		Policy: guestnet.Public,
		Resolve: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("93.184.216.34")}, nil
		},
		Dial: func(context.Context, netip.AddrPort) (net.Conn, error) {
			here, there := net.Pipe()
			go func() { // ends with the connection, which the guest's end closes
				defer there.Close()
				if _, err := http.ReadRequest(bufio.NewReader(there)); err == nil {
					io.WriteString(there, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
				}
			}()
			return here, nil
		},
		Own: func() ([]netip.Addr, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// loads gives the modules that it is made of.
type loads map[cid.Cid][]byte

func (l loads) load(_ context.Context, id cid.Cid) ([]byte, error) { return l[id], nil }

func (l loads) add(binary []byte) cid.Cid {
	id := grid.NewBlock(cid.Raw, binary).CID()
	l[id] = binary
	return id
}

func TestHostFunctions(t *testing.T) {
	modules := loads{}
	h := open(t, wasmhost.Config{Load: modules.load, Net: abiNet(t)})
	for _, c := range abiCases() {
		t.Run(c.name, func(t *testing.T) {
			binary, end := c.guest()
			id := modules.add(binary)
			for range 2 { // the second one in the same instance
				w := new(abiWorld)
				var stdout bytes.Buffer
				g := &grid.Guest{Module: id, Stdout: &stdout, KV: w, Tasks: w, Limits: grid.Limits{Wall: time.Minute}}
				g.Progress = func(done, total uint64) { w.tell("progress %d of %d", done, total) }
				if c.without {
					g.KV, g.Tasks, g.Progress = nil, nil, nil
				}
				if c.net {
					g.Net = []string{"a.example:80"}
				}
				got, err := h.Run(t.Context(), g)
				if err != nil || got.Fault != nil || got.Exit != 0 {
					t.Fatalf("%+v, %v", got.Fault, err)
				}
				if !slices.Equal(w.told, c.world) {
					t.Errorf("the host was told %q, want %q", w.told, c.world)
				}
				if !reflect.DeepEqual(got.Metrics, c.metrics) {
					t.Errorf("metrics %+v, want %+v", got.Metrics, c.metrics)
				}
				if want := uint64(len(c.calls) + 1); got.Calls != want {
					t.Errorf("%d calls were counted, want %d", got.Calls, want)
				}
				compareMemory(t, stdout.Bytes(), end, c.calls)
			}
		})
	}
}

// The table of functions in docs/abi.md has what there is.
func TestFunctionsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/abi.md")
	if err != nil {
		t.Fatal(err)
	}
	types := map[byte]string{wasmbytes.I32: "i32", wasmbytes.I64: "i64", wasmbytes.F64: "f64"}
	for _, f := range gridImports() {
		var params []string
		for _, p := range f.Params {
			params = append(params, types[p])
		}
		if row := fmt.Sprintf("\n| `%s` | %s | ", f.Name, strings.Join(params, ", ")); !bytes.Contains(text, []byte(row)) {
			t.Errorf("no line %q", row)
		}
	}
}

func compareMemory(t *testing.T, got, want []byte, calls []do) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d bytes of memory", len(got))
	}
	for i, d := range calls {
		at := errnos + 4*i
		if errno := binary.LittleEndian.Uint32(got[at:]); errno != uint32(d.want) {
			t.Errorf("call %d, %s%v: %v, want %v", i, d.name, d.args, vfs.Errno(errno), d.want)
		}
	}
	for at := range want {
		if got[at] != want[at] {
			end := min(at+100, len(want))
			t.Fatalf("memory at %d: %q, want %q", at, got[at:end], want[at:end])
		}
	}
}
