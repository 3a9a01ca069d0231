package guestnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"
	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/sdk/abi"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi"
)

// instantiate makes the host modules that guests import.
func instantiate(t *testing.T, r wazero.Runtime) (grid api.Module) {
	t.Helper()
	b := r.NewHostModuleBuilder(module.Preview1)
	wasi.Export(b)
	if _, err := b.Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
	b = r.NewHostModuleBuilder(abi.Module)
	wasi.ExportFunctions(b, append(Functions(), wasi.LastError()))
	mod, err := b.Instantiate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return mod
}

// TestGuest runs a real program, built with the SDK, against a real server.
func TestGuest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fetch.wasm")
	build := exec.Command("go", "build", "-o", file, "./testdata/fetch")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	binary, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	began := make(chan struct{}, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Server", r.Method)
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "http://169.254.169.254/", http.StatusFound)
		case "/big":
			io.WriteString(w, strings.Repeat("x", 300_000))
		case "/hang":
			w.(http.Flusher).Flush()
			select {
			case began <- struct{}{}:
			default:
			}
			<-r.Context().Done()
		default:
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %d", r.Host, r.Header.Get("X-Mine"), len(body))
		}
	}))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	port := addr[strings.LastIndexByte(addr, ':'):]

	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	instantiate(t, r)
	code, err := r.CompileModule(ctx, binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		policy Policy
		limits Limits
		grants string
		args   string // $A is the server's address, $P its port with the colon
		want   string
		denied string
	}{
		{Named, Limits{}, "$A", "get http://$A/ http://$A/x", "200 [\"GET\"] $A  0\n200 [\"GET\"] $A  0\n", ""},
		{Named, Limits{}, "localhost$P", "get http://localhost$P/", "200 [\"GET\"] localhost$P  0\n", ""},
		{Named, Limits{}, "127.0.0.0/8$P", "post http://$A/ 1000000", "200 [\"POST\"] $A value 1000000\n", ""},
		{Named, Limits{}, "$A", "get http://$A/big", "200 [\"GET\"] 300000 bytes\n", ""},
		{Named, Limits{}, "$A", "get http://$A/redirect", "302 [\"GET\"] <a href=\"http://169.254.169.254/\">Found</a>.\n\n\n", ""},
		{Named, Limits{}, "", "get http://$A/", "error 76: fetch http://$A/: not allowed to reach $A: run the job with --allow-net $A\n", "--allow-net $A"},
		{None, Limits{}, "", "get http://$A/", "error 76: fetch http://$A/: not allowed to reach $A: run the job with --allow-net $A\n", "--allow-net $A"}, // the same on all nodes
		{Public, Limits{}, "$A", "get http://$A/", "error 2: fetch http://$A/: not allowed to reach $A: 127.0.0.1 is a loopback address; this node lets guests reach public addresses only, unless it is started with --task-net named\n", "loopback"},
		{None, Limits{}, "$A", "get http://$A/", "error 2: fetch http://$A/: not allowed to reach $A: this node gives guests no network\n", "no network"},
		{Named, Limits{}, "$A", "get file:///etc/passwd", "error 28: fetch file:///etc/passwd: URL \"file:///etc/passwd\": only http and https are spoken here\n", ""},
		{Named, Limits{}, "$A", "smuggle http://$A/", "error 28: fetch http://$A/: header x has a control character in its value \"a\\rHost: evil\"\n" +
			"error 28: fetch http://$A/: header host is not the guest's to set\n", ""},
		{Named, Limits{Request: 100}, "$A", "post http://$A/ 101", "error 22: fetch http://$A/: the request's body has 101 bytes, at most 100 are allowed\n", ""},
		{Named, Limits{Response: 299_999}, "$A", "get http://$A/big", "200 [\"GET\"] 299999 bytes\nerror 22: fetch http://$A/big: the response has more than 299999 bytes, the limit\n", ""},
		{Named, Limits{Total: 100_000}, "$A", "get http://$A/big", "200 [\"GET\"] N bytes\nerror 19: fetch http://$A/big: the task has sent N and received N bytes, its limit is 100000 together\n", ""},
		{Named, Limits{}, "$A", "leak http://$A/ 1000", "open 64\nerror 33: fetch http://$A/: 64 responses are open, the limit: close one\n", ""},
	} {
		fill := strings.NewReplacer("$A", addr, "$P", port).Replace
		t.Run(string(tt.policy)+" "+tt.args, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			g := newGuest(t, Config{Policy: tt.policy, Limits: tt.limits}, strings.Fields(fill(tt.grants))...)
			exit := g.run(ctx, r, code, strings.Fields(fill(tt.args))...)
			got, want := g.stdout.String(), fill(tt.want)
			if strings.Contains(want, "N bytes") {
				got = strings.NewReplacer(numbers(got)...).Replace(got)
			}
			if exit != 0 || got != want || !strings.Contains(g.denied, fill(tt.denied)) || (tt.denied == "") != (g.denied == "") {
				t.Errorf("exit code %d, denied %q, stdout\n%swant\n%s%s", exit, g.denied, got, want, g.stderr.String())
			}
		})
	}

	// A guest that waits for a server ends when its context does.
	t.Run("cancel", func(t *testing.T) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		ctx, cancel := context.WithCancel(ctx)
		go func() { <-began; cancel() }()
		g := newGuest(t, Config{Policy: Named}, addr)
		if exit := g.run(ctx, r, code, "get", "http://"+addr+"/hang"); exit != sys.ExitCodeContextCanceled || !g.stopped {
			t.Errorf("exit code %x, %s%s", exit, g.stdout.String(), g.stderr.String())
		}
	})
	t.Run("timeout", func(t *testing.T) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		g := newGuest(t, Config{Policy: Named, Limits: Limits{Timeout: 50 * time.Millisecond}}, addr)
		exit := g.run(ctx, r, code, "get", "http://"+addr+"/hang")
		if got := g.stdout.String(); exit != 0 || !strings.Contains(got, "error 73: fetch") || !strings.Contains(got, "it took longer than 50ms, the limit") {
			t.Errorf("exit code %x, %s%s", exit, got, g.stderr.String())
		}
	})
}

// numbers gives the numbers above 100 in a text, but for the limit, with what to put instead.
func numbers(s string) (pairs []string) {
	for _, f := range strings.Fields(s) {
		if n, err := strconv.Atoi(f); err == nil && n > 100 && n != 100_000 && n != 200 {
			pairs = append(pairs, f, "N")
		} else if err == nil && strings.Contains(s, "sent "+f) {
			pairs = append(pairs, "sent "+f, "sent N")
		}
	}
	return pairs
}

type testGuest struct {
	t              *testing.T
	wasi           wasi.State
	net            State
	stdout, stderr bytes.Buffer
	stopped        bool // once it has run
	denied         string
}

func newGuest(t *testing.T, cfg Config, grants ...string) *testGuest {
	t.Helper()
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := &testGuest{t: t}
	if err := g.net.Reset(n, grants); err != nil {
		t.Fatal(err)
	}
	return g
}

// run runs the program to its end, and lets go of all but what it has written and used.
func (g *testGuest) run(ctx context.Context, r wazero.Runtime, code wazero.CompiledModule, args ...string) uint32 {
	g.t.Helper()
	g.wasi.Reset(wasi.Config{Args: append([]string{"fetch"}, args...), Stdout: &g.stdout, Stderr: &g.stderr})
	mod, err := r.InstantiateModule(context.Background(), code, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		g.t.Fatal(err)
	}
	defer mod.Close(context.Background())
	_, err = mod.ExportedFunction("_start").Call(g.wasi.Context(context.WithValue(ctx, Key{}, &g.net)))
	var exit *sys.ExitError
	if err != nil && !errors.As(err, &exit) {
		g.t.Fatal(err)
	}
	g.stopped, g.denied = g.wasi.Stopped(), g.net.Denied()
	g.wasi.Reset(wasi.Config{})
	if len(g.net.open) > 0 {
		g.t.Errorf("%d responses are open after the guest's descriptors are closed", len(g.net.open))
	}
	g.net.Reset(nil, nil)
	if exit != nil {
		return exit.ExitCode()
	}
	return 0
}

// The functions take pointers from anybody.
func TestFunctions(t *testing.T) {
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	defs := instantiate(t, r).ExportedFunctionDefinitions()
	functions := append(Functions(), wasi.LastError())
	for _, f := range functions {
		if d := defs[f.Name]; d == nil || len(d.ParamTypes()) != 3 || !bytes.Equal(d.ResultTypes(), []byte{api.ValueTypeI32}) {
			t.Errorf("%s: %+v", f.Name, d)
		}
	}
	mod, err := r.InstantiateWithConfig(ctx, wasmbytes.Module{MinPages: 1}.Bytes(), wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	mem := mod.Memory()
	const request = "GET http://a.example/\n\n"
	mem.WriteString(100, request)
	w := &world{t: t, answers: map[string][]string{"a.example": {publicAddr}}, serve: hello}
	s := w.guest(Config{Policy: Public}, "a.example:80")
	ws := new(wasi.State)
	ws.Reset(wasi.Config{})
	defer ws.Reset(wasi.Config{})
	call := func(name string, params ...uint64) wasi.Errno {
		for _, f := range functions {
			if f.Name == name {
				return f.Call(context.WithValue(ctx, Key{}, s), ws, mem, params)
			}
		}
		t.Fatalf("no function %s", name)
		return 0
	}
	const size = 1 << 16
	for _, p := range [][]uint64{{size - 3, 4, 0}, {0, size + 1, 0}, {1<<32 - 1, 1<<32 - 1, 0}, {0, 1, size - 3}, {0, 1, 1<<32 - 1}, {size, 1, 0}} {
		for _, f := range functions {
			if errno := call(f.Name, p...); errno != efault {
				t.Errorf("%s(%x): %v", f.Name, p, errno)
			}
		}
	}
	if s.Used().Requests != 0 {
		t.Error("requests were made")
	}
	if errno := call(abi.HTTPOpen, 100, uint64(len(request)), 8); errno != 0 {
		t.Errorf("%v, %s", errno, ws.Message())
	}
	if fd, _ := mem.ReadUint32Le(8); fd != 4 {
		t.Errorf("descriptor %d", fd)
	}
	message := func(most uint64) string {
		if errno := call(abi.LastError, 2000, most, 8); errno != 0 {
			t.Error(errno)
		}
		n, _ := mem.ReadUint32Le(8)
		b, _ := mem.Read(2000, n)
		return string(b)
	}
	if errno := call(abi.HTTPOpen, 100, uint64(len(request)-1), 8); errno != einval {
		t.Error(errno)
	}
	if got, want := message(1000), "the request has no empty line, which ends its headers"; got != want || message(11) != want[:11] || message(0) != "" {
		t.Errorf("%q, %q, want %q", got, message(11), want)
	}
	if errno := call(abi.HTTPOpen, 0, 0, 8); errno != einval {
		t.Error(errno)
	}
	// Without a State there is no network.
	if errno := httpOpen(ctx, ws, mem, []uint64{100, uint64(len(request)), 8}); errno != eacces {
		t.Error(errno)
	}
	// Without a free descriptor no request is made.
	before := s.Used().Requests
	for errno := wasi.Errno(0); errno == 0; {
		_, errno = ws.OpenStream(func() (io.ReadCloser, wasi.Errno) { return io.NopCloser(strings.NewReader("")), 0 })
	}
	if errno := call(abi.HTTPOpen, 100, uint64(len(request)), 8); errno != emfile || s.Used().Requests != before || message(100) != "no descriptor is free: close one" {
		t.Errorf("%v, %q", errno, message(100))
	}
	// A guest whose context is over while it waits is ended.
	ws.Reset(wasi.Config{})
	late, cancel := context.WithCancel(context.WithValue(ctx, Key{}, s))
	cancel()
	defer func() {
		var exit *sys.ExitError
		if err, ok := recover().(error); !ok || !errors.As(err, &exit) || !ws.Stopped() {
			t.Errorf("the guest goes on")
		}
	}()
	httpOpen(late, ws, mem, []uint64{100, uint64(len(request)), 8})
}

// Modules that use the network pass the check when the host says what there is.
func TestModuleCheck(t *testing.T) {
	r := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigInterpreter())
	defer r.Close(context.Background())
	defs := instantiate(t, r).ExportedFunctionDefinitions()
	provides := func(mod, name string) (params, results []byte, ok bool) {
		if d := defs[name]; mod == abi.Module && d != nil {
			return d.ParamTypes(), d.ResultTypes(), true
		}
		return nil, nil, false
	}
	i32 := func(n int) []byte { return bytes.Repeat([]byte{wasmbytes.I32}, n) }
	for n, ok := range map[int]bool{3: true, 2: false} {
		binary := wasmbytes.Module{MinPages: 1, Imports: []wasmbytes.Import{{Module: abi.Module, Name: abi.HTTPOpen, Params: i32(n), Results: i32(1)}}}.Bytes()
		if _, err := module.Check(binary, provides); (err == nil) != ok {
			t.Errorf("%d parameters: %v", n, err)
		}
	}
}
