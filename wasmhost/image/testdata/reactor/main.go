// Command reactor is a guest for tests of instance reuse: it keeps state in every place that Go has.
package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"runtime"
	"sort"
	"strings"
	"sync"
	"unsafe"
)

var (
	table   = map[string]int{}
	history []string
	heap    [][]byte
	canary  [4096]byte
	input   [4096]byte
)

func init() {
	for i := range 1000 {
		table[fmt.Sprintf("key%d", i)] = i
	}
}

func main() {}

//go:wasmexport buffer
func buffer() uint32 { return uint32(uintptr(unsafe.Pointer(&input[0]))) }

// noop is the least that a call can do.
//
//go:wasmexport noop
func noop(x uint32) uint32 { return x + 1 }

// task does one of several kinds of work on n bytes of input, and gives a hash of what came of it and of
// all that it can see of earlier tasks.
//
//go:wasmexport task
func task(kind, n uint32) uint64 {
	h := fnv.New64a()
	in := string(input[:n])
	fmt.Fprintln(h, kind, in, len(table), len(history), len(heap), canary[0], canary[4095])
	switch kind {
	case 0: // goroutines, channels, locks
		var wg sync.WaitGroup
		var mu sync.Mutex
		sum, ch := 0, make(chan int, 4)
		for i := range 20 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				ch <- i * len(in)
				mu.Lock()
				sum += i
				mu.Unlock()
			}()
		}
		go func() { wg.Wait(); close(ch) }()
		total := 0
		for v := range ch {
			total += v
		}
		fmt.Fprintln(h, sum, total)
	case 1: // maps
		for _, w := range strings.Fields(in) {
			table[w]++
		}
		delete(table, "key1")
		keys := make([]string, 0, len(table))
		for k := range table {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		fmt.Fprintln(h, len(keys), keys[0], keys[len(keys)-1])
	case 2: // collections
		for i := range 50 {
			heap = append(heap, make([]byte, 1000+i))
		}
		runtime.GC()
		fmt.Fprintln(h, len(heap))
	case 3: // growth
		big := make([]byte, 8<<20)
		for i := range big {
			big[i] = byte(i)
		}
		heap = append(heap, big)
		fmt.Fprintln(h, len(big), big[len(big)-1])
	case 4: // JSON
		var v any
		err := json.Unmarshal([]byte(`{"a":[1,2,{"b":`+fmt.Sprint(n)+`}]}`), &v)
		out, _ := json.Marshal(v)
		fmt.Fprintln(h, string(out), err)
	}
	history = append(history, in)
	for i := range canary {
		canary[i] = 0xee
	}
	return h.Sum64()
}
