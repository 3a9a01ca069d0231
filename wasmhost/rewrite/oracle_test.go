package rewrite_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	wb "github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
)

// A node is a piece of a random program: code, and what it does in the eyes of an interpreter that adds
// up what each executed instruction costs. Its prices are those of the documentation, written down
// again. Programs decide by a random number in global 0, and global 1 bounds how often they go back.
type node struct {
	kind        kind
	n           int // how many, which, or how deep
	labels      []int
	body, other []node
}

type kind int

const (
	plain kind = iota // n instructions of one unit
	divide
	load
	store
	fill // n bytes
	grow
	nest // a block
	repeated
	choice
	leaveIf // a label, which may be a loop's
	leaveBy // one of some labels, none of a loop
	leaveTo // a label, not of a loop
	returns
	call
	callIndirect
	callSelf
	kinds
)

const (
	multiplier = 6364136223846793005
	increment  = 1442695040888963407
	budget     = 150
)

var (
	advance  = wb.Code(wb.Op(0x23, 0), wb.Const64(multiplier), []byte{0x7e}, wb.Const64(increment), []byte{0x7c}, wb.Op(0x24, 0)) // 6 units
	number   = wb.Code(advance, wb.Op(0x23, 0), wb.Const64(61), []byte{0x88, 0xa7})                                               // 10: 0 to 7
	coin     = wb.Code(number, one, []byte{0x71})                                                                                 // 12
	goesBack = wb.Code(wb.Op(0x23, 1), wb.Const64(1), []byte{0x7d}, wb.Op(0x24, 1), wb.Op(0x23, 1), wb.Const64(0), []byte{0x55}, coin, []byte{0x71})
)

const coinCost, numberCost, goesBackCost = 12, 10, 4 + 3 + 12 + 1

// generator makes bodies. loops tells of each open label whether it is a loop's, the innermost last.
type generator struct {
	*rand.Rand
	self int
}

func (g *generator) body(loops []bool, depth int) []node {
	list := make([]node, g.IntN(5))
	for i := range list {
		list[i] = g.node(loops, depth)
	}
	return list
}

func (g *generator) node(loops []bool, depth int) node {
	n := node{kind: kind(g.IntN(int(kinds)))}
	forward := func() int { // labels that lead on; the function's does
		for {
			if l := g.IntN(len(loops)); !loops[len(loops)-1-l] {
				return l
			}
		}
	}
	inside := func(loop bool) []bool { return append(loops[:len(loops):len(loops)], loop) }
	switch n.kind {
	case plain:
		n.n = g.IntN(12)
	case fill:
		n.n = g.IntN(3000)
	case nest, repeated:
		if depth == 0 {
			return node{kind: plain, n: 1}
		}
		n.body = g.body(inside(n.kind == repeated), depth-1)
	case choice:
		if depth == 0 {
			return node{kind: divide}
		}
		n.body = g.body(inside(false), depth-1)
		if g.IntN(2) == 0 {
			n.other = append(g.body(inside(false), depth-1), node{kind: plain, n: 1})
		}
	case leaveIf:
		n.n = g.IntN(len(loops))
	case leaveTo:
		n.n = forward()
	case leaveBy:
		for range 1 + g.IntN(6) {
			n.labels = append(n.labels, forward())
		}
	case call, callIndirect:
		if g.self == 0 {
			return node{kind: store}
		}
		n.n = g.IntN(g.self)
	case callSelf:
		n.n = g.self
	}
	return n
}

func encode(list []node) (b []byte) {
	add := func(parts ...[]byte) { b = append(b, wb.Code(parts...)...) }
	for _, n := range list {
		switch n.kind {
		case plain:
			add(weight(n.n))
		case divide:
			add(one, one, []byte{0x6d}, drop)
		case load:
			add(one, []byte{0x28, 2, 0}, drop)
		case store:
			add(wb.Const(8), one, []byte{0x36, 2, 0})
		case fill:
			add(wb.Const(64), one, wb.Const(int32(n.n)), wb.Misc(11, 0))
		case grow:
			add(wb.Const(0), []byte{0x40, 0}, drop)
		case nest:
			add(block, encode(n.body), end)
		case repeated:
			add(loop, encode(n.body), goesBack, brIf(0), end)
		case choice:
			add(coin, ifThen, encode(n.body))
			if n.other != nil {
				add(otherwise, encode(n.other))
			}
			add(end)
		case leaveIf:
			add(goesBack, brIf(byte(n.n)))
		case leaveTo:
			add(br(byte(n.n)))
		case leaveBy:
			add(number, wb.Op(0x0e, uint32(len(n.labels)-1)))
			for _, l := range n.labels {
				add([]byte{byte(l)})
			}
		case returns:
			add(ret)
		case call:
			add(wb.Call(uint32(n.n)))
		case callIndirect:
			add(wb.Const(int32(n.n)), wb.Op(0x11, 0, 0))
		case callSelf:
			add(goesBack, ifThen, wb.Call(uint32(n.n)), end)
		}
	}
	return b
}

// oracle interprets.
type oracle struct {
	functions [][]node
	random    uint64
	left      int64
	cost      int64
}

const on, gone = -1, math.MaxInt // how a list ended: by its end, by a return; or by a branch to a label

func (o *oracle) number() uint64 {
	o.random = o.random*multiplier + increment
	return o.random >> 61
}

func (o *oracle) back() bool {
	o.left--
	o.cost += goesBackCost
	return o.number()&1 == 1 && o.left > 0
}

func (o *oracle) run(list []node) int {
	for _, n := range list {
		if way := o.step(n); way != on {
			return way
		}
	}
	return on
}

// outside is where a branch leads when the innermost block has been left.
func outside(way int) int {
	switch way {
	case on, gone:
		return way
	}
	return way - 1 // on, for its own label
}

// call runs a function. Of one that neither loops nor calls, the price of the call covers 16 units.
func (o *oracle) call(f int) {
	before := o.cost
	o.run(o.functions[f])
	if short(o.functions[f]) {
		o.cost = max(before, o.cost-16)
	}
}

func short(list []node) bool {
	for _, n := range list {
		switch n.kind {
		case repeated, call, callIndirect, callSelf, fill:
			return false
		case nest, choice:
			if !short(n.body) || !short(n.other) {
				return false
			}
		}
	}
	return true
}

func (o *oracle) step(n node) int {
	switch n.kind {
	case plain:
		o.cost += int64(n.n)
	case divide:
		o.cost += 1 + 1 + 8
	case load:
		o.cost += 1 + 2
	case store:
		o.cost += 1 + 1 + 2
	case fill:
		o.cost += 3 + 16 + int64(n.n/8)
	case grow:
		o.cost += 1 + 256
	case nest:
		return outside(o.run(n.body))
	case repeated:
		for {
			way := o.run(n.body)
			if way == on {
				again := o.back()
				if o.cost++; !again {
					return on
				}
				continue
			}
			if way != 0 {
				return outside(way)
			}
		}
	case choice:
		o.cost += coinCost + 1
		if o.number()&1 == 1 {
			return outside(o.run(n.body))
		}
		return outside(o.run(n.other))
	case leaveIf:
		jump := o.back()
		if o.cost++; jump {
			return n.n
		}
	case leaveTo:
		o.cost++
		return n.n
	case leaveBy:
		o.cost += numberCost + 2
		return n.labels[min(int(o.number()), len(n.labels)-1)]
	case returns:
		o.cost++
		return gone
	case call:
		o.cost += 16
		o.call(n.n)
	case callIndirect:
		o.cost += 1 + 20
		o.call(n.n)
	case callSelf:
		again := o.back()
		if o.cost++; again {
			o.cost += 16
			o.call(n.n)
		}
	}
	return on
}

// oracle runs the random program of a seed, compiled and interpreted, and checks that it is charged the same by
// both, and at least what the oracle finds that it executes.
func (e engines) oracle(t testing.TB, seed uint64) (executed, charged int64) {
	g := generator{Rand: rand.New(rand.NewPCG(seed, 1))}
	o := oracle{left: budget}
	p := wb.Program{MinPages: 1, Globals: 2, Tables: []uint32{4}}
	for g.self = range 4 {
		body := g.body([]bool{false}, 4)
		o.functions = append(o.functions, body)
		p.Funcs = append(p.Funcs, wb.Func{Code: encode(body)})
		p.Elements = append(p.Elements, uint32(g.self))
	}
	p.Funcs = append(p.Funcs, wb.Func{Code: wb.Code(wb.Const64(budget), wb.Op(0x24, 1), wb.Call(3), // 18
		wb.Const(0), wb.Op(0x23, 0), []byte{0x37, 3, 0}, wb.Const(8), wb.Op(0x23, 1), []byte{0x37, 3, 0})}) // and 8
	o.call(3)
	o.cost += 18 + 8

	run := func(s *sandbox) int64 {
		before := s.fuel.used()
		mod := s.start(t, p.Bytes(), true)
		defer mod.Close(t.Context())
		if _, err := mod.ExportedFunction("_start").Call(t.Context()); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		used := s.fuel.used() - before
		delete(s.fuel.given, mod)
		state, _ := mod.Memory().Read(0, 16)
		if r, left := binary.LittleEndian.Uint64(state), int64(binary.LittleEndian.Uint64(state[8:])); r != o.random || left != o.left {
			t.Fatalf("seed %d: ended at %x with %d left, the oracle at %x with %d", seed, r, left, o.random, o.left)
		}
		if left := depthOf(mod); left != rewrite.MaxDepth {
			t.Errorf("seed %d: depth %d at the end", seed, left)
		}
		return used
	}
	charged = run(e.compiler)
	if charged < o.cost {
		t.Errorf("seed %d: charged %d, executed %d", seed, charged, o.cost)
	}
	if interpreted := run(e.interpreter); interpreted != charged {
		t.Errorf("seed %d: charged %d compiled, %d interpreted", seed, charged, interpreted)
	}
	return o.cost, charged
}

func TestOracle(t *testing.T) {
	programs := 2000
	if testing.Short() {
		programs = 200
	}
	e := newEngines(t)
	var executed, charged int64
	for seed := range uint64(programs) {
		x, c := e.oracle(t, seed)
		executed, charged = executed+x, charged+c
	}
	t.Logf("%d programs executed %d units and were charged %d", programs, executed, charged)
}

func FuzzOracle(f *testing.F) {
	f.Add(uint64(1))
	e := newEngines(f)
	f.Fuzz(func(t *testing.T, seed uint64) { e.oracle(t, seed) })
}
