package wasmhost_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

// BenchmarkVersus compares this package with wazero as it comes, which has no limits, cannot stop a guest
// and shows it the machine's files. Each line is one comparison, made in turns within one run; of each
// way the best turn counts, and the last column is this package's figure over wazero's. For all of it:
//
//	go test ./wasmhost -run '^$' -bench Versus -benchtime 11x
func BenchmarkVersus(b *testing.B) {
	b.Run("fuel", versusFuel)             // what metering costs, in new instances; less is better
	b.Run("compile", versusCompile)       // from a module to what can be instantiated; less is better
	b.Run("start", versusStart)           // a whole guest that says hello, from start to end; less is better
	b.Run("throughput", versusThroughput) // the same on all cores; more is better
	b.Run("memory", versusMemory)         // of an instance that waits for stdin, or for a guest; less is better
	b.Run("io", versusIO)                 // reading stdin and files of /in; more is better
}

// times is the unit of ratios. It is sorted behind the others.
const times = "×wazero"

// noMore ends a benchmark of which everything has been measured.
func noMore(b *testing.B) {
	for b.Loop() {
	}
	b.ReportMetric(0, "ns/op")
}

// way is one way to do what others do, too.
type way struct {
	name   string
	run    func() error
	before func() error // is not timed; may be nil
}

// inTurns has all ways run b.N times in turns, and gives the shortest time that each took. Runs much
// shorter than a millisecond are timed several together, unless there is something to do before each.
func inTurns(b *testing.B, ways ...way) []time.Duration {
	b.Helper()
	runs := make([]int, len(ways))
	turn := func(i int) time.Duration {
		if ways[i].before != nil {
			runs[i] = 1
			if err := ways[i].before(); err != nil {
				b.Fatalf("%s: before: %v", ways[i].name, err)
			}
		}
		began := time.Now()
		for range runs[i] {
			if err := ways[i].run(); err != nil {
				b.Fatalf("%s: %v", ways[i].name, err)
			}
		}
		return time.Since(began) / time.Duration(runs[i])
	}
	best := make([]time.Duration, len(ways))
	for i := range ways {
		runs[i] = 1
		turn(i) // the first may have more to do
		runs[i] = int(min(max(1, 5*time.Millisecond/max(1, turn(i))), 10_000))
		best[i] = math.MaxInt64
	}
	for b.Loop() {
		for i := range ways {
			best[i] = min(best[i], turn(i))
		}
	}
	b.ReportMetric(0, "ns/op") // of all ways together
	return best
}

// report tells what each way came to, and the first over the second.
func report(b *testing.B, unit string, ways []way, amount func(i int) float64) (ratio float64) {
	for i, w := range ways {
		b.ReportMetric(amount(i), w.name+"-"+unit)
	}
	ratio = amount(0) / amount(1)
	b.ReportMetric(ratio, times)
	return ratio
}

// reportTimes measures ways and reports how long each took, in units that suit the first.
func reportTimes(b *testing.B, ways ...way) (ratio float64) {
	b.Helper()
	best := inTurns(b, ways...)
	unit, name := time.Microsecond, "µs"
	if best[0] > 10*time.Millisecond {
		unit, name = time.Millisecond, "ms"
	}
	return report(b, name, ways, func(i int) float64 { return float64(best[i]) / float64(unit) })
}

// reportRates measures ways and reports how much each does in a second.
func reportRates(b *testing.B, unit string, amount float64, ways ...way) {
	b.Helper()
	best := inTurns(b, ways...)
	report(b, unit, ways, func(i int) float64 { return amount / best[i].Seconds() })
}

// languages are those that guests are built of.
var languages = []struct {
	name                  string
	hello, kernels, files func(testing.TB) []byte
}{
	{"c", cHello, cKernels, cCorpus},
	{"rust", rustHello, rustKernels, rustCorpus},
	{"go", func(tb testing.TB) []byte {
		binary, err := goHello()
		if err != nil {
			tb.Fatal(err)
		}
		return binary
	}, goKernels, goKernels},
}

// kernelScales has each kernel compute for a twentieth of a second, or some more.
var kernelScales = map[string]int{
	"sha256": 150, "nbody": 400, "matmul": 1<<18 - 1, "sort": 200, "fib": 1<<15 - 1, "json": 50, "goroutines": 50, "copy": 50, "words": 200,
}

func versusFuel(b *testing.B) {
	for _, language := range languages {
		b.Run(language.name, func(b *testing.B) {
			binary := language.kernels(b)
			all := ways(b, binary)
			product, n := 1.0, 0
			compare := func(kernel string) (ratio float64) {
				b.Run(kernel, func(b *testing.B) {
					run := func(how string) func() error {
						return func() error {
							return all[how]([]string{"kernels", kernel, fmt.Sprint(kernelScales[kernel])}, nil, strings.NewReader(""))
						}
					}
					ratio = reportTimes(b, way{name: "host", run: run("fuel")}, way{name: "wazero", run: run("plain")}, way{name: "wazero-stoppable", run: run("interrupt")})
				})
				return ratio
			}
			for _, kernel := range fiveKernels {
				if ratio := compare(kernel); ratio > 0 {
					product, n = product*ratio, n+1
				}
			}
			if n == len(fiveKernels) {
				b.Run("geomean", func(b *testing.B) {
					noMore(b)
					b.ReportMetric(math.Pow(product, 1/float64(n)), times)
				})
			}
			if language.name == "go" {
				for _, kernel := range slices.Sorted(maps.Keys(kernelScales)) {
					if !slices.Contains(fiveKernels, kernel) {
						compare(kernel)
					}
				}
			}
		})
	}
}

// versusCompile gives wazero the same two workers, or more.
func versusCompile(b *testing.B) {
	for _, language := range languages {
		for _, cached := range []bool{false, true} {
			name, dir := language.name+"/cold", func() string { return "" }
			if cached {
				name, dir = language.name+"/cached", b.TempDir
			}
			b.Run(name, func(b *testing.B) {
				ctx := context.Background()
				f := &fixed{binary: language.hello(b)}

				var h *wasmhost.Host
				hosts := dir()
				host := way{"host", func() error { return h.Prepare(ctx, f.cid()) }, func() (err error) {
					if h != nil {
						err = h.Close()
					}
					if err == nil {
						h, err = wasmhost.OpenCompiled(wasmhost.Config{Load: f.load, CacheDir: hosts})
					}
					return err
				}}

				var cache wazero.CompilationCache
				var rt wazero.Runtime
				wazeros := dir()
				plain := way{"wazero", func() error {
					_, err := rt.CompileModule(experimental.WithCompilationWorkers(ctx, max(2, runtime.GOMAXPROCS(0))), f.binary)
					return err
				}, func() (err error) {
					if rt != nil {
						rt.Close(ctx)
						cache.Close(ctx)
					}
					cache = wazero.NewCompilationCache()
					if cached {
						cache, err = wazero.NewCompilationCacheWithDir(wazeros)
					}
					rt = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(cache))
					return err
				}}
				defer func() { h.Close(); rt.Close(ctx); cache.Close(ctx) }()
				reportTimes(b, host, plain)
			})
		}
	}
}

// tasks gives a way to run whole guests of a module in a host and one to do so in wazero.
func tasks(b *testing.B, open func(wasmhost.Config) (*wasmhost.Host, error), binary []byte) (host, plain func() error) {
	f := &fixed{binary: binary}
	h := closing(b)(open(wasmhost.Config{Load: f.load}))
	g := grid.Guest{Module: f.cid(), Args: []string{"prog"}, Env: []string{"GRID_ABI=1"}, Stdout: io.Discard, Stderr: io.Discard}
	host = func() error {
		guest := g
		out, err := h.Run(context.Background(), &guest)
		if err == nil && (out.Fault != nil || out.Exit != 0) {
			err = fmt.Errorf("%+v", out)
		}
		return err
	}
	m := newBare(b, binary)
	config := wazero.NewModuleConfig().WithName("").WithArgs("prog").WithEnv("GRID_ABI", "1").WithStdout(io.Discard).WithStderr(io.Discard)
	return host, func() error { return m.whole(config) }
}

// whole runs the module to its end, which must be exit code 0.
func (b *bare) whole(config wazero.ModuleConfig) error {
	mod, err := b.rt.InstantiateModule(context.Background(), b.code, config)
	if mod != nil {
		defer mod.Close(context.Background())
	}
	if ee, ok := err.(*sys.ExitError); ok && ee.ExitCode() == 0 {
		return nil
	}
	return err
}

func versusStart(b *testing.B) {
	for _, by := range []struct {
		name string
		open func(wasmhost.Config) (*wasmhost.Host, error)
	}{{"reused", wasmhost.OpenCompiled}, {"fresh", wasmhost.OpenFresh}} {
		b.Run(by.name+"/tiny", func(b *testing.B) {
			host, plain := tasks(b, by.open, wasmbytes.Noop())
			reportTimes(b, way{name: "host", run: host}, way{name: "wazero", run: plain})
		})
		for _, language := range languages {
			b.Run(by.name+"/"+language.name, func(b *testing.B) {
				host, plain := tasks(b, by.open, language.hello(b))
				reportTimes(b, way{name: "host", run: host}, way{name: "wazero", run: plain})
			})
		}
	}
}

func versusThroughput(b *testing.B) {
	measure := func(b *testing.B, batch int, binary []byte) {
		everywhere := func(task func() error) func() error { // batch of them
			return func() error {
				var wg sync.WaitGroup
				cores := runtime.GOMAXPROCS(0)
				errs := make([]error, cores)
				for core := range cores {
					wg.Go(func() {
						for i := core; i < batch && errs[core] == nil; i += cores {
							errs[core] = task()
						}
					})
				}
				wg.Wait()
				for _, err := range errs {
					if err != nil {
						return err
					}
				}
				return nil
			}
		}
		host, plain := tasks(b, wasmhost.OpenCompiled, binary)
		reportRates(b, "tasks/s", float64(batch), way{name: "host", run: everywhere(host)}, way{name: "wazero", run: everywhere(plain)})
	}
	b.Run("tiny", func(b *testing.B) { measure(b, 4000, wasmbytes.Noop()) })
	for _, language := range languages {
		b.Run(language.name, func(b *testing.B) {
			batch := 2000
			if language.name == "go" {
				batch = 50
			}
			measure(b, batch, language.hello(b))
		})
	}
}

// gate is a stdin that tells when it is read from, and ends when it is opened.
type gate struct{ reached, open chan struct{} }

func (g gate) Read([]byte) (int, error) {
	g.reached <- struct{}{}
	<-g.open
	return 0, io.EOF
}

func versusMemory(b *testing.B) {
	const n = 32
	// live gives the bytes of n guests that read from stdin, each.
	live := func(b *testing.B, run func(stdin io.Reader) error) float64 {
		g := gate{make(chan struct{}), make(chan struct{})}
		var wg sync.WaitGroup
		before := gridtest.PrivateBytes(b)
		for range n {
			wg.Go(func() {
				if err := run(g); err != nil {
					b.Error(err)
				}
			})
		}
		for range n {
			<-g.reached
		}
		taken := gridtest.PrivateBytes(b) - before
		go func() { // some read again
			for range g.reached {
			}
		}()
		close(g.open)
		wg.Wait()
		close(g.reached)
		return float64(taken) / n / 1024
	}
	for _, language := range languages {
		b.Run(language.name, func(b *testing.B) {
			binary, args := language.files(b), []string{"prog", "cat"}
			if language.name == "go" {
				args = []string{"prog", "stdin"}
			}
			cores := runtime.GOMAXPROCS(n / 2) // which is how many idle instances are kept, twice
			f := &fixed{binary: binary}
			h := closing(b)(wasmhost.OpenCompiled(wasmhost.Config{Load: f.load}))
			runtime.GOMAXPROCS(cores)
			m := newBare(b, binary)
			host := func(stdin io.Reader) error {
				_, err := h.Run(context.Background(), &grid.Guest{Module: f.cid(), Args: args, Stdin: stdin, Stdout: io.Discard, Stderr: io.Discard})
				return err
			}
			plain := func(stdin io.Reader) error {
				return m.whole(wazero.NewModuleConfig().WithName("").WithArgs(args...).WithStdin(stdin))
			}
			if err := h.Prepare(b.Context(), f.cid()); err != nil {
				b.Fatal(err)
			}
			before := gridtest.PrivateBytes(b)
			kib := []float64{live(b, host), 0, 0}
			kib[2] = float64(gridtest.PrivateBytes(b)-before) / float64(wasmhost.Idle(h).Count) / 1024
			kib[1] = live(b, plain)
			noMore(b)
			report(b, "KiB", []way{{name: "host"}, {name: "wazero"}, {name: "host-idle"}}, func(i int) float64 { return kib[i] })
		})
	}
}

func versusIO(b *testing.B) {
	const size = 64 << 20
	data := make([]byte, size)
	tree := fstest.MapFS{"large": {Data: data}}
	for _, test := range []struct {
		name string
		args func(language string) []string // nil: there is no such program
	}{
		{"stdin", func(language string) []string {
			if language == "go" {
				return []string{"prog", "stdin"}
			}
			return []string{"prog", "cat"}
		}},
		{"file", func(language string) []string {
			if language == "go" {
				return nil
			}
			return []string{"prog", "read", "/in/large"}
		}},
	} {
		for _, language := range languages {
			args := test.args(language.name)
			if args == nil {
				continue
			}
			b.Run(test.name+"/"+language.name, func(b *testing.B) {
				f := &fixed{binary: language.files(b)}
				h := closing(b)(wasmhost.OpenCompiled(wasmhost.Config{Load: f.load}))
				host := func() error {
					out, err := h.Run(context.Background(), &grid.Guest{
						Module: f.cid(), Args: args, Stdin: bytes.NewReader(data), Stdout: io.Discard, Mounts: map[string]fs.FS{"/in": tree},
					})
					if err == nil && (out.Fault != nil || out.Exit != 0) {
						err = fmt.Errorf("%+v", out)
					}
					return err
				}
				m := newBare(b, f.binary)
				plain := func() error {
					return m.whole(wazero.NewModuleConfig().WithName("").WithArgs(args...).WithStdin(bytes.NewReader(data)).WithStdout(io.Discard).
						WithFSConfig(wazero.NewFSConfig().WithFSMount(tree, "/in")))
				}
				reportRates(b, "MB/s", float64(size)/1e6, way{name: "host", run: host}, way{name: "wazero", run: plain})
			})
		}
	}
}
