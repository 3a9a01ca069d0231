// Kernels is the guest of this package's benchmarks: each command computes for a while and prints what
// only the work can tell. Five of them are in c and rust, too, and print the same there.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"slices"
	"strconv"
	"sync"
	"unsafe"
)

func main() {
	commands := map[string]func() any{
		"sha256": sha, "sort": sorted, "fib": func() any { return fib(20 + bits.Len(uint(scale()))) }, "json": encode, "matmul": matmul, "goroutines": goroutines,
		"stdin": stdin, "copy": copies, "nbody": nbody, "store": store, "trap": trap,
		"words": words,
	}
	fmt.Println(commands[os.Args[1]]())
}

// scale is how much to do.
func scale() int {
	n, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	return n
}

func sha() any {
	sum := sha256.Sum256(nil)
	block := make([]byte, 64<<10)
	for range scale() { // of 64 KiB
		copy(block, sum[:])
		sum = sha256.Sum256(block)
	}
	return fmt.Sprintf("%x", sum)
}

// numbers is a linear congruential generator.
func numbers(n int) []uint32 {
	out, x := make([]uint32, n), uint32(1)
	for i := range out {
		x = x*1664525 + 1013904223
		out[i] = x
	}
	return out
}

func sorted() any {
	n := numbers(3000 * scale())
	slices.Sort(n)
	return n[len(n)/2]
}

func fib(n int) int {
	if n < 2 {
		return n
	}
	return fib(n-1) + fib(n-2)
}

func matmul() any {
	n := 16 * bits.Len(uint(scale()))
	a, b, c := make([]float64, n*n), make([]float64, n*n), make([]float64, n*n)
	for i := range a {
		a[i], b[i] = float64(i%7), float64(i%5)
	}
	for i := range n {
		for j := range n {
			sum := 0.0
			for k := range n {
				sum += a[i*n+k] * b[k*n+j]
			}
			c[i*n+j] = sum
		}
	}
	return c[n+1]
}

func encode() any {
	type record struct {
		ID   uint32
		Name string
		Tags map[string]int
	}
	size := 0
	for _, n := range numbers(30 * scale()) {
		text, err := json.Marshal(record{n, fmt.Sprint("name", n%100), map[string]int{"a": int(n % 3), "b": 2}})
		if err != nil {
			return err
		}
		var back record
		if err := json.Unmarshal(text, &back); err != nil {
			return err
		}
		size += len(text) + len(back.Tags)
	}
	return size
}

// words counts those of a text whose vocabulary is of 10,000, the first of them frequent.
func words() any {
	var text []byte
	for _, n := range numbers(1000 * scale()) {
		square := uint64(n>>16) * uint64(n>>16) >> 16 // is small more often than great
		text = append(strconv.AppendUint(text, (square*10_000>>16)*1_000_003, 36), ' ')
	}
	counts := map[string]int{}
	for word := range bytes.FieldsSeq(text) {
		counts[string(word)]++
	}
	most := 0
	for _, n := range counts {
		most = max(most, n)
	}
	return fmt.Sprint(len(counts), most)
}

func goroutines() any {
	var mu sync.Mutex
	var wg sync.WaitGroup
	total := 0
	in := make(chan int)
	for range 100 {
		wg.Go(func() {
			for n := range in {
				mu.Lock()
				total += n
				mu.Unlock()
			}
		})
	}
	for i := range 200 * scale() {
		in <- i
	}
	close(in)
	wg.Wait()
	return total
}

func stdin() any {
	n, err := io.Copy(io.Discard, os.Stdin)
	if err != nil {
		return err
	}
	return n
}

// nbody moves the Sun and four planets, and gives the energy before and after.
func nbody() any {
	type body struct{ x, y, z, vx, vy, vz, mass float64 }
	const sun, year = 4 * math.Pi * math.Pi, 365.24
	bodies := []body{
		{mass: sun},
		{4.84143144246472090, -1.16032004402742839, -0.103622044471123109, 0.00166007664274403694 * year, 0.00769901118419740425 * year, -0.0000690460016972063023 * year, 0.000954791938424326609 * sun},
		{8.34336671824457987, 4.12479856412430479, -0.403523417114321381, -0.00276742510726411228 * year, 0.00499852801234917238 * year, 0.0000230417297573763929 * year, 0.000285885980666130812 * sun},
		{12.8943695621391310, -15.1111514016986312, -0.223307578892655734, 0.00296460137564761618 * year, 0.00237847173959480950 * year, -0.0000296589568540237556 * year, 0.0000436624404335156298 * sun},
		{15.3796971148509165, -25.9193146099879641, 0.179258772950371181, 0.00268067772490389322 * year, 0.00162824170038242295 * year, -0.0000951592254519715870 * year, 0.0000515138902046611451 * sun},
	}
	for _, b := range bodies {
		bodies[0].vx -= b.vx * b.mass / sun
		bodies[0].vy -= b.vy * b.mass / sun
		bodies[0].vz -= b.vz * b.mass / sun
	}
	energy := func() (e float64) {
		for i, b := range bodies {
			e += b.mass * (b.vx*b.vx + b.vy*b.vy + b.vz*b.vz) / 2
			for _, c := range bodies[i+1:] {
				x, y, z := b.x-c.x, b.y-c.y, b.z-c.z
				e -= b.mass * c.mass / math.Sqrt(x*x+y*y+z*z)
			}
		}
		return e
	}
	before := energy()
	const step = 0.01
	for range 1000 * scale() {
		for i := range bodies {
			b := &bodies[i]
			for j := i + 1; j < len(bodies); j++ {
				c := &bodies[j]
				x, y, z := b.x-c.x, b.y-c.y, b.z-c.z
				square := x*x + y*y + z*z
				mag := step / (square * math.Sqrt(square))
				b.vx -= x * c.mass * mag
				b.vy -= y * c.mass * mag
				b.vz -= z * c.mass * mag
				c.vx += x * b.mass * mag
				c.vy += y * b.mass * mag
				c.vz += z * b.mass * mag
			}
		}
		for i := range bodies {
			b := &bodies[i]
			b.x += step * b.vx
			b.y += step * b.vy
			b.z += step * b.vz
		}
	}
	return fmt.Sprintf("%.9f %.9f", before, energy())
}

func trap() any { return theCaller(uintptr(len(os.Args)) << 28) }

//go:noinline
func theCaller(at uintptr) byte { return theInnermost(at) + 1 }

//go:noinline
func theInnermost(at uintptr) byte { return *(*byte)(unsafe.Add(unsafe.Pointer(&os.Args), at)) }

// copies moves and clears large memory.
func copies() any {
	a := make([]byte, 4<<20)
	for i := range scale() {
		a[i*1000%len(a)] = byte(i)
		copy(a[3:], a)
		copy(a, a[1:])
		clear(a[2<<20:])
	}
	return sha256.Sum256(a[:20<<10])
}

// store writes numbers that it calculates, and does little else.
func store() any {
	a := make([]float64, 4096)
	for r := range 20 * scale() {
		for i := range a {
			a[i] = a[i]*0.5 + float64(r)
		}
	}
	return a[9]
}
