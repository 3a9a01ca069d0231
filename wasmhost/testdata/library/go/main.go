// Library is a Go program built as a reactor, for tests: its initialisation warms up JSON and a map.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

type record struct {
	Name  string
	Tags  []string
	Count int
	Sub   map[string]float64
}

const sample = `{"Name":"grid","Tags":["a","b","c"],"Count":3,"Sub":{"x":1.5,"y":2.25}}`

var (
	began  = time.Now()
	counts = map[string]int{}
)

func init() {
	for range 3 {
		decode()
	}
	for i := range 1000 {
		counts[fmt.Sprint(i)] = i
	}
}

func decode() int {
	var r record
	if err := json.Unmarshal([]byte(sample), &r); err != nil {
		panic(err)
	}
	out, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return len(out) + r.Count
}

//go:wasmexport nothing
func nothing() {}

//go:wasmexport json
func jsonTask() int32 {
	if decode() == 0 {
		return 1
	}
	return 0
}

// state changes what a later task must not see, and says what it found.
//
//go:wasmexport state
func state() {
	counts["tasks"]++
	_, err := os.Stat("/tmp/left")
	if f, err := os.Create("/tmp/left"); err == nil {
		f.Close()
	}
	fmt.Println(len(counts), counts["tasks"], os.IsNotExist(err), time.Since(began) > 0)
}

// busy uses goroutines, sleeps and the garbage collector.
//
//go:wasmexport busy
func busy() int32 {
	done := make(chan int)
	for i := range 10 {
		go func() {
			time.Sleep(time.Duration(i) * time.Millisecond)
			done <- len(make([]byte, 1<<20))
		}()
	}
	sum := 0
	for range 10 {
		sum += <-done
	}
	fmt.Println(sum)
	return 0
}

//go:wasmexport fail
func fail() { panic("on purpose") }

func main() {}
