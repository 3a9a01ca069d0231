// Kernels is the guest of this package's benchmarks: each command computes for a while and prints what
// only the work can tell.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/bits"
	"os"
	"slices"
	"strconv"
	"sync"
)

func main() {
	commands := map[string]func() any{
		"sha256": sha, "sort": sorted, "fib": func() any { return fib(20 + bits.Len(uint(scale()))) }, "json": encode, "matmul": matmul, "goroutines": goroutines,
		"stdin": stdin, "copy": copies,
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
