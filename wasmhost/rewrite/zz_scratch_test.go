package rewrite_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	wb "github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost/rewrite"
)

func TestScratchBombs(t *testing.T) {
	if os.Getenv("SCRATCH") == "" { t.Skip() }
	type p = wb.Program
	type fn = wb.Func
	nest := func(n int, open ...byte) []byte { return wb.Code(bytes.Repeat(open, n), bytes.Repeat([]byte{0x0b}, n)) }
	nestc := func(n int, close []byte, open ...byte) []byte { return wb.Code(bytes.Repeat(open, n), bytes.Repeat(close, n)) }
	try := func(name string, funcs ...fn) {
		b := p{MinPages: 1, Funcs: funcs}.Bytes()
		out, _, err := rewrite.Instrument(b, rewrite.Options{Fuel: true})
		if err != nil { fmt.Println(name, err); return }
		rt := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigCompiler().WithDebugInfoEnabled(false))
		defer rt.Close(context.Background())
		ctx, c := context.WithTimeout(experimental.WithCompilationWorkers(context.Background(), 2), 4*time.Second)
		defer c()
		var m0, m1 runtime.MemStats
		runtime.ReadMemStats(&m0)
		s := time.Now()
		_, err = rt.CompileModule(ctx, out)
		took := time.Since(s)
		runtime.ReadMemStats(&m1)
		es := ""
		if err != nil { es = err.Error(); if len(es) > 80 { es = es[:80] } }
		fmt.Printf("%-40s %8d %10v %6d MiB %s\n", name, len(out), took.Round(time.Millisecond), (m1.TotalAlloc-m0.TotalAlloc)>>20, es)
	}
	phis := func(loops, locals int) fn {
		var change, some []byte
		for i := range locals {
			if i == 20 { some = bytes.Clone(change) }
			change = append(change, wb.Code(wb.Op(0x20, uint32(i)), wb.Const64(1), []byte{0x7c}, wb.Op(0x21, uint32(i)))...)
		}
		loop := wb.Code([]byte{0x03, 0x40}, some, wb.Op(0x20, 0), []byte{0xa7, 0x0d, 0, 0x0b})
		return fn{Locals: uint32(locals), Code: wb.Code(bytes.Repeat(loop, loops), change)}
	}
	switch os.Getenv("SCRATCH") {
	case "1":
		for _, n := range []int{500, 1000, 2000, 4000} {
			try(fmt.Sprint("blocks ", n), fn{Code: nest(n, 0x02, 0x40)})
			try(fmt.Sprint("blocks used ", n), fn{Code: nest(n, 0x02, 0x40, 0x41, 0, 0x0d, 0)})
			try(fmt.Sprint("blocks used end ", n), fn{Code: nestc(n, []byte{0x41, 0, 0x0d, 0, 0x0b}, 0x02, 0x40)})
			try(fmt.Sprint("loops ", n), fn{Code: nest(n, 0x03, 0x40)})
			try(fmt.Sprint("loops used ", n), fn{Code: nestc(n, []byte{0x41, 0, 0x0d, 0, 0x0b}, 0x03, 0x40)})
			try(fmt.Sprint("ifs ", n), fn{Code: nest(n, 0x41, 0, 0x04, 0x40)})
			try(fmt.Sprint("ifelse ", n), fn{Code: nestc(n, []byte{0x05, 0x0b}, 0x41, 0, 0x04, 0x40)})
		}
	case "2":
		for _, n := range []int{4096, 16384, 65536} {
			try(fmt.Sprint("br_table ", n), fn{Code: wb.Code([]byte{0x02, 0x40}, wb.Const(0), wb.Op(0x0e, uint32(n)), make([]byte, n+1), []byte{0x0b})})
		}
		for _, n := range []int{512, 1024, 4096} { // distinct targets
			var tgt []byte
			for i := range n { tgt = wb.U32(tgt, uint32(i)) }
			tgt = wb.U32(tgt, 0)
			try(fmt.Sprint("br_table distinct ", n), fn{Code: wb.Code(bytes.Repeat([]byte{0x02, 0x40}, n), wb.Const(0), wb.Op(0x0e, uint32(n)), tgt, bytes.Repeat([]byte{0x0b}, n))})
			try(fmt.Sprint("many br_table distinct ", n), fn{Code: wb.Code(bytes.Repeat([]byte{0x02, 0x40}, n), bytes.Repeat(wb.Code([]byte{0x41,0,0x04,0x40},wb.Const(0), wb.Op(0x0e, uint32(n)), tgt, []byte{0x0b}),20), bytes.Repeat([]byte{0x0b}, n))})
		}
		for _, n := range []int{4096, 16384, 65536} {
			try(fmt.Sprint("many br_tables, labels ", n*64), fn{Code: bytes.Repeat(wb.Code([]byte{0x02, 0x40}, wb.Const(0), wb.Op(0x0e, 63), make([]byte, 64), []byte{0x0b}), n/16)})
		}
	case "3":
		for _, n := range []int{1000, 4000, 16000, 50000} {
			try(fmt.Sprint("flat blocks ", n), fn{Code: bytes.Repeat(wb.Code([]byte{0x02, 0x40}, wb.Const(0), []byte{0x0d, 0, 0x0b}), n)})
			try(fmt.Sprint("flat loops ", n), fn{Code: bytes.Repeat([]byte{0x03, 0x40, 0x0b}, n)})
			try(fmt.Sprint("flat ifs ", n), fn{Code: bytes.Repeat([]byte{0x41, 0, 0x04, 0x40, 0x0b}, n)})
		}
		for _, n := range []int{100_000, 400_000} {
			try(fmt.Sprint("straight ", n*3), fn{Code: bytes.Repeat(wb.Code(wb.Const(1), []byte{0x1a}), n)})
			try(fmt.Sprint("loads ", n), fn{Code: bytes.Repeat(wb.Code(wb.Const(1), []byte{0x28, 2, 0, 0x1a}), n/2)})
			try(fmt.Sprint("stores ", n), fn{Code: bytes.Repeat(wb.Code(wb.Const(1), wb.Const(1), []byte{0x36, 2, 0}), n/3)})
			try(fmt.Sprint("expr ", n), fn{Code: wb.Code(bytes.Repeat(wb.Const(1), n), bytes.Repeat([]byte{0x6a}, n-1), wb.Drop())})
			try(fmt.Sprint("expr loads ", n), fn{Code: wb.Code(bytes.Repeat(wb.Code(wb.Const(1), []byte{0x28, 2, 0}), n/4), bytes.Repeat([]byte{0x6a}, n/4-1), wb.Drop())})
			try(fmt.Sprint("calls ", n), fn{}, fn{Code: bytes.Repeat(wb.Call(0), n/2)})
		}
	case "4":
		for _, x := range [][2]int{{100, 100}, {100, 300}, {300, 300}, {1000, 100}, {100, 1000}, {1000, 300}, {300, 1000},{3000,100},{100,3000}} {
			try(fmt.Sprint("phis ", x), phis(x[0], x[1]))
		}
		for _, n := range []int{10_000, 50_000} {
			try(fmt.Sprint("locals ", n), fn{Locals: uint32(n)})
			try(fmt.Sprint("locals flat loops 100 ", n), fn{Locals: uint32(n), Code: bytes.Repeat([]byte{0x03, 0x40, 0x0b}, 100)})
		}
		try("locals everywhere", func() []fn { f := make([]fn, 160); for i := range f { f[i].Locals = 50000 }; return f }()...)
		try("functions", make([]fn, 100_000)...)
	}
}
