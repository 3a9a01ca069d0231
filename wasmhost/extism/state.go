package extism

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/wasmhost/guestnet"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

// Config is what a plug-in is given. WASI, Memory and Linear are required, but for one that is Early.
type Config struct {
	WASI   *wasi.State     // which counts calls and fuel, and has the input on its stdin
	Env    []string        // NAME=value: the configuration, but for those of [Hidden] names
	Stderr io.Writer       // of the log; nil discards
	Net    *guestnet.State // nil: no requests can be made
	Limit  uint64          // bytes of memory, of the plug-in and for it, together
	// Memory gives memory of so many bytes, never fewer than before. What is new is zero, and the rest as it was; nil
	// refuses it.
	Memory interface{ Reallocate(size uint64) []byte }
	// Linear sets the limit of the plug-in's own memory, which shrinks by what it takes here.
	Linear func(limit uint64)
	// Early says that the plug-in is only being initialised, for whoever comes: it is ended at the first function that
	// gives or takes anything; see [State.Touched].
	Early bool
}

// Hidden is what the names of environment variables begin with that are the grid's, and no configuration.
const Hidden = "GRID_"

// EnvLog is the variable that says from which level on messages are logged: trace, debug, info, warn, error or off.
const EnvLog = "EXTISM_LOG"

const (
	varCost = 128      // bytes that a variable takes up besides its name and value
	maxLog  = 64 << 10 // bytes of a message that are kept
)

// State is all that the functions know of one plug-in. It is for one call into it at a time, and is reused by Reset.
type State struct {
	cfg     Config
	heap    heap
	linear  uint64 // bytes of the plug-in's memory at the last look
	taken   uint64 // bytes of the limit
	blocks  int    // for which there is room in taken
	refused uint64 // the most that was asked for in all, and refused

	read    bool // the input was
	inOff   uint64
	inLen   uint64
	output  result
	message result
	failed  bool // the message was set

	vars    map[string][]byte
	varSize uint64
	held    uint64 // bytes of results that were freed
	level   level
	status  int // of the last response
	headers http.Header
	touched bool
}

// result is a range of memory, or a copy of what was there when it was freed.
type result struct {
	off, n uint64
	copied []byte
}

// Reset makes the state that of a call that begins.
func (s *State) Reset(cfg Config) {
	h := &s.heap
	*s = State{cfg: cfg, heap: *h, level: levelOf(cfg.Env)}
	s.heap.reset(s.more)
}

// Release lets go of all that the plug-in was given.
func (s *State) Release() {
	s.Reset(Config{})
	s.heap.more = nil
}

// Touched reports whether a plug-in was ended since it was [Config.Early].
func (s *State) Touched() bool { return s.touched }

// Taken is how many bytes of its limit the plug-in has used here.
func (s *State) Taken() uint64 { return s.taken }

// Refused is how many bytes of memory the plug-in asked for in all, its own among them, and did not get; 0 when it got all.
func (s *State) Refused() uint64 { return s.refused }

// Result gives the output, and the message of an error when one is set. Both are void after the next Reset.
func (s *State) Result() (output, message []byte, failed bool) {
	return s.content(&s.output), s.content(&s.message), s.failed
}

func (s *State) content(r *result) []byte {
	if r.copied != nil || r.n == 0 {
		return r.copied
	}
	return s.heap.mem[r.off : r.off+r.n]
}

// more implements heap.more within the limit.
func (s *State) more(size uint64, blocks int) []byte {
	if !s.take(size, blocks, s.varSize+s.held) {
		return nil
	}
	if size == uint64(len(s.heap.mem)) {
		return s.heap.mem
	}
	return s.cfg.Memory.Reallocate(size)
}

// take has the limit cover so much in all; others are bytes of variables and such.
func (s *State) take(size uint64, blocks int, others uint64) bool {
	blocks = max(blocks, s.blocks)
	taken := size + uint64(blocks)*blockCost + others
	if taken > s.cfg.Limit || taken > s.cfg.Limit-min(s.linear, s.cfg.Limit) {
		s.refused = max(s.refused, s.linear+taken)
		return false
	}
	s.taken, s.blocks = taken, blocks
	s.cfg.Linear(s.cfg.Limit - taken)
	return true
}

// look finds how large the plug-in's memory is. It may have grown whenever the plug-in ran.
func (s *State) look(mod api.Module) {
	s.linear = 0
	if mem := mod.Memory(); mem != nil {
		pages, _ := mem.Grow(0) // Size would be 0 for 4 GiB
		s.linear = uint64(pages) * page
	}
}

type stateKey struct{}

type guestContext struct {
	context.Context
	state *State
}

func (c *guestContext) Value(key any) any {
	if _, ok := key.(stateKey); ok {
		return c.state
	}
	return c.Context.Value(key)
}

// Context gives the context for calls into the plug-in whose state this is, around that of its wasi.State. Calls are
// quicker when nothing is wrapped around it.
func (s *State) Context(ctx context.Context) context.Context { return &guestContext{ctx, s} }

func stateOf(ctx context.Context) *State {
	if c, ok := ctx.(*guestContext); ok {
		return c.state
	}
	s, ok := ctx.Value(stateKey{}).(*State)
	if !ok {
		trap("it calls Extism's functions while it is being instantiated, before there is anything to call them for")
	}
	return s
}

// trap ends the plug-in with a sentence and its stack.
func trap(format string, args ...any) { panic(fmt.Errorf(format, args...)) }

// early ends a plug-in that there is no input for yet.
func (s *State) early() {
	s.touched = true
	panic(sys.NewExitError(wasi.ExitHostFailure))
}

// handle gives the content of the block that a function was handed.
func (s *State) handle(function, what string, off uint64) []byte {
	b := s.heap.find(off)
	if b == nil {
		trap("%s: there is no block of memory at %d, where the %s is to be", function, off, what)
	}
	return s.heap.bytes(b)
}

// give makes a block of what the plug-in asked for. It has no other way to learn that there is no memory.
func (s *State) give(ctx context.Context, function string, content []byte) uint64 {
	off := s.heap.alloc(uint64(len(content)))
	if off == 0 && len(content) > 0 {
		trap("%s: there is no memory for its result of %d bytes", function, len(content))
	}
	if off > 0 {
		copy(s.heap.mem[off:], content)
		s.cfg.WASI.Moved(ctx, len(content))
	}
	return off
}

// input reads stdin into a block, once.
func (s *State) input(ctx context.Context, mod api.Module) {
	if s.read {
		return
	}
	s.read = true
	s.look(mod)
	var ok bool
	s.inOff, s.inLen, ok, _ = s.fill(func(b []byte) (int, error) {
		n := s.cfg.WASI.ReadStdin(ctx, b)
		if n < len(b) {
			return n, io.EOF
		}
		return n, nil
	})
	if !ok {
		trap("there is no memory for its input")
	}
}

// set makes a range of memory a result.
func (s *State) set(r *result, off, n uint64) {
	s.held -= uint64(len(r.copied))
	*r = result{off: off, n: n}
}

// freed keeps a result that is in a block that is being freed.
func (s *State) freed(r *result, b *block) {
	end := uint64(b.off) + uint64(b.size)
	if r.copied != nil || r.n == 0 || r.off >= end || r.off+r.n <= uint64(b.off) {
		return
	}
	if !s.take(uint64(len(s.heap.mem)), 0, s.varSize+s.held+r.n) {
		trap("free: there is no memory to keep %d bytes of output that were in the block", r.n)
	}
	s.held += r.n
	r.copied = bytes.Clone(s.content(r))
}

// fill makes a block of all that can be read; ok is false when there is no memory for it.
func (s *State) fill(read func([]byte) (int, error)) (off, n uint64, ok bool, err error) {
	before := s.refused
	if off, n, ok, err = s.heap.fill(read); ok {
		s.refused = before // it may have tried for more than it took
	}
	return off, n, ok, err
}

// config looks up a variable of the environment. Of several the last one counts.
func (s *State) config(name string) (value string, ok bool) {
	if strings.HasPrefix(name, Hidden) {
		return "", false
	}
	for _, e := range s.cfg.Env {
		if k, v, _ := strings.Cut(e, "="); k == name {
			value, ok = v, true
		}
	}
	return value, ok
}

// setVar keeps a copy of a value, as far as there is memory.
func (s *State) setVar(name string, value []byte) bool {
	size := s.varSize
	old, had := s.vars[name]
	if had {
		size -= uint64(len(name)) + uint64(len(old)) + varCost
	}
	size += uint64(len(name)) + uint64(len(value)) + varCost
	if !s.take(uint64(len(s.heap.mem)), 0, size+s.held) {
		return false
	}
	if s.vars == nil {
		s.vars = map[string][]byte{}
	}
	s.vars[name], s.varSize = bytes.Clone(value), size
	return true
}

func (s *State) removeVar(name string) {
	if old, had := s.vars[name]; had {
		s.varSize -= uint64(len(name)) + uint64(len(old)) + varCost
		delete(s.vars, name)
	}
}

// level is how much a message matters, by Extism's numbers.
type level int32

const (
	trace level = iota
	debug
	info
	warn
	failure
	off level = 1<<31 - 1
)

var levels = [...]string{trace: "TRACE", debug: "DEBUG", info: "INFO", warn: "WARN", failure: "ERROR"}

// levelOf reads the level from an environment; it is info unless that says something else.
func levelOf(env []string) level {
	least := info
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if name != EnvLog {
			continue
		}
		least = info
		for l, text := range levels {
			if strings.EqualFold(value, text) {
				least = level(l)
			}
		}
		if strings.EqualFold(value, "off") {
			least = off
		}
	}
	return least
}

// log writes a message as one line, in the form of log/slog's text.
func (s *State) log(l level, message []byte) {
	if l < s.level || s.cfg.Stderr == nil {
		return
	}
	text := string(message[:min(len(message), maxLog)])
	if text == "" || strings.ContainsFunc(text, func(r rune) bool {
		return r == '"' || r == '=' || r == ' ' || r == unicode.ReplacementChar || !unicode.IsPrint(r)
	}) {
		text = strconv.Quote(text)
	}
	io.WriteString(s.cfg.Stderr, "level="+levels[l]+" msg="+text+"\n") // the writer keeps its own limit
}

// errMemory says that a response does not fit.
var errMemory = errors.New("there is no memory for the response")
