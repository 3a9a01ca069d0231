//go:build unix

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

// TestScripts runs testdata/script/*.txtar: commands as users type them, each script in a home of its
// own. Beside the commands of package testscript, scripts have these:
//
//	exits CODE PROGRAM ARGS...    run it, as exec does, and check its exit code
//	spawn NAME PROGRAM ARGS...    start it with its output in the files NAME.out and NAME.err
//	await FILE PATTERN            wait until a line of a file matches
//	signal NAME SIGNAL            send KILL or INT to a spawned program
//	ended NAME CODE               wait for its end, and check its exit code; -1 when a signal ended it
//	wasm KIND FILE                write a small module
//	plugin FILE VERSION [KEYS]    write the guest double as a plugin, which may want keys
//	sparse FILE SIZE              write a file of so many zero bytes
//	fifo FILE                     make a named pipe
//	setenv NAME                   set a variable to what the last program printed
//	json FILE KEY...              print that part of a JSON file; a number is an index
//	flip FILE TEXT                change one bit of a file, inside the only occurrence of text; of a folder,
//	                              of the one file in it that holds the text
//	http STATUS URL FILE          get a URL, check the status, and write the body to a file
//
// $PROBE, $BURN, $FETCH and $GRANTED are the guests of testdata, $EXAMPLES is the folder docs/examples, $PLUGINS the folder plugins, $SERVER is the address of
// an HTTP server; $WEB and $S3 are the URLs of those that function outside starts. The condition root holds for the super-user.
func TestScripts(t *testing.T) {
	bin := binary(t)
	guest(t, "double")
	probe, burn, fetch, granted := guest(t, "probe"), guest(t, "burn"), guest(t, "fetch"), guest(t, "granted")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "hello from outside\n")
	}))
	t.Cleanup(server.Close)
	web, s3 := outside(t)
	examples, err := filepath.Abs("../docs/examples")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, ".home")
			e.Setenv("PATH", filepath.Dir(bin)+string(os.PathListSeparator)+os.Getenv("PATH"))
			e.Setenv("HOME", home)
			e.Setenv("GRID_HOME", filepath.Join(home, "grid"))
			e.Setenv("XDG_DATA_HOME", "")
			e.Setenv("XDG_CONFIG_HOME", "")
			e.Setenv("XDG_CACHE_HOME", sharedCache())
			e.Setenv("XDG_RUNTIME_DIR", filepath.Join(home, "run"))
			for _, name := range []string{"GOPATH", "GOCACHE", "GOENV"} {
				e.Setenv(name, goEnv(name))
			}
			e.Setenv("NO_COLOR", "1")
			e.Setenv("PROBE", probe)
			e.Setenv("BURN", burn)
			e.Setenv("FETCH", fetch)
			e.Setenv("GRANTED", granted)
			e.Setenv("SERVER", strings.TrimPrefix(server.URL, "http://"))
			e.Setenv("EXAMPLES", examples)
			e.Setenv("PLUGINS", filepath.Join(examples, "../../plugins"))
			e.Setenv("WEB", web)
			e.Setenv("S3", s3)
			e.Values[spawnedKey{}] = map[string]*spawned{}
			return os.Mkdir(home, 0o700)
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  scriptExits,
			"spawn":  scriptSpawn,
			"await":  scriptAwait,
			"signal": scriptSignal,
			"ended":  scriptEnded,
			"wasm":   scriptWasm,
			"plugin": scriptPlugin,
			"sparse": scriptSparse,
			"fifo":   scriptFifo,
			"setenv": scriptSetenv,
			"json":   scriptJSON,
			"flip":   scriptFlip,
			"http":   scriptHTTP,
		},
	})
}

// want checks how a script's command was called.
func want(ts *testscript.TestScript, neg bool, args []string, least int, usage string) {
	if neg || len(args) < least {
		ts.Fatalf("usage: %s", usage)
	}
}

func number(ts *testscript.TestScript, s string) int {
	n, err := strconv.Atoi(s)
	ts.Check(err)
	return n
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "exits CODE PROGRAM ARGS...")
	code, err := 0, ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != number(ts, args[0]) {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// spawned is a program in the background.
type spawned struct {
	cmd  *exec.Cmd
	done chan struct{} // closed at its end
}

type spawnedKey struct{}

func spawnedOf(ts *testscript.TestScript) map[string]*spawned {
	return ts.Value(spawnedKey{}).(map[string]*spawned)
}

func scriptSpawn(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "spawn NAME PROGRAM ARGS...")
	all, name := spawnedOf(ts), args[0]
	if all[name] != nil {
		ts.Fatalf("%s was spawned before", name)
	}
	out, err := os.Create(ts.MkAbs(name + ".out"))
	ts.Check(err)
	defer out.Close()
	errs, err := os.Create(ts.MkAbs(name + ".err"))
	ts.Check(err)
	defer errs.Close()
	program, err := exec.LookPath(args[1])
	if args[1] == "grid" {
		program, err = build.path, nil // of the script's PATH, not of ours
	}
	ts.Check(err)
	s := &spawned{cmd: exec.Command(program, args[2:]...), done: make(chan struct{})}
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = ts.MkAbs("."), out, errs
	for _, name := range []string{"PATH", "HOME", "GRID_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "GOPATH", "GOCACHE", "GOENV", "NO_COLOR", "TMPDIR"} {
		s.cmd.Env = append(s.cmd.Env, name+"="+ts.Getenv(name))
	}
	ts.Check(s.cmd.Start())
	go func() { _ = s.cmd.Wait(); close(s.done) }()
	all[name] = s
	ts.Defer(func() {
		_ = s.cmd.Process.Kill() // an error: it has ended
		<-s.done
	})
}

func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "await FILE PATTERN")
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	deadline := time.Now().Add(patience)
	for {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		switch {
		case err == nil && re.Match(data):
			return
		case time.Now().After(deadline):
			ts.Fatalf("%s does not come to match %s: %s", args[0], args[1], data)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func scriptSignal(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "signal NAME SIGNAL")
	s := spawnedOf(ts)[args[0]]
	sig := map[string]os.Signal{"KILL": os.Kill, "INT": os.Interrupt, "TERM": syscall.SIGTERM}[args[1]]
	if s == nil || sig == nil {
		ts.Fatalf("no program %s, or no signal %s", args[0], args[1])
	}
	ts.Check(s.cmd.Process.Signal(sig))
}

func scriptEnded(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "ended NAME CODE")
	s := spawnedOf(ts)[args[0]]
	if s == nil {
		ts.Fatalf("no program %s", args[0])
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case <-s.done:
	case <-ctx.Done():
		ts.Fatalf("%s has not ended in %v", args[0], patience)
	}
	if got := s.cmd.ProcessState.ExitCode(); got != number(ts, args[1]) {
		ts.Fatalf("%s: exit code %d, want %s\n%s", args[0], got, args[1], ts.ReadFile(args[0]+".err"))
	}
}

func scriptHTTP(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 3, "http STATUS URL FILE")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[1], nil)
	ts.Check(err)
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), body, 0o600))
	if resp.StatusCode != number(ts, args[0]) {
		ts.Fatalf("GET %s: status %d, want %s\n%s", args[1], resp.StatusCode, args[0], body)
	}
}

func scriptWasm(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "wasm KIND FILE")
	kinds := map[string][]byte{
		"noop":    wasmbytes.Noop(),
		"trap":    wasmbytes.Unreachable(),
		"divide":  wasmbytes.Divide(),
		"bounds":  wasmbytes.OutOfBounds(),
		"recurse": wasmbytes.Recurse(),
		"loop":    wasmbytes.Loop(),
		"huge":    wasmbytes.Module{MinPages: 65536}.Bytes(), // 4 GiB
		"reactor": wasmbytes.Module{MinPages: 1, Start: "_initialize"}.Bytes(),
		"library": gridtest.Library(),
		"plugin":  wasmbytes.Plugin(),
		"asks": wasmbytes.Module{
			Imports: []wasmbytes.Import{wasmbytes.Extism("alloc", "I", "I"), {Module: "extism:host/user", Name: "ask", Results: []byte{wasmbytes.I32}}}, MinPages: 1,
		}.Bytes(),
		"truncated": wasmbytes.Noop()[:len(wasmbytes.Noop())-3],
		"component": []byte("\x00asm\x0d\x00\x01\x00"),
		"imports": wasmbytes.Module{
			Imports: []wasmbytes.Import{{Module: "env", Name: "launch", Results: []byte{wasmbytes.I32}}}, MinPages: 1,
		}.Bytes(),
		"empty": nil,
		"text":  []byte("(module)\n"),
	}
	data, ok := kinds[args[0]]
	if code, is := strings.CutPrefix(args[0], "exit"); is {
		data, ok = wasmbytes.Exit(int32(number(ts, code))), true
	}
	if !ok {
		ts.Fatalf("no module %q", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), data, 0o644))
}

func scriptPlugin(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "plugin FILE VERSION [KEYS]")
	plugin, err := double(args[1], func(m *grid.Manifest) { m.Wants.KV = args[2:] })
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), plugin, 0o644))
}

func scriptSparse(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "sparse FILE SIZE")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), nil, 0o644))
	ts.Check(os.Truncate(ts.MkAbs(args[0]), int64(number(ts, args[1]))))
}

func scriptFifo(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "fifo FILE")
	ts.Check(syscall.Mkfifo(ts.MkAbs(args[0]), 0o600))
}

func scriptSetenv(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "setenv NAME")
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "json FILE KEY...")
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &v))
	for _, key := range args[1:] {
		switch x := v.(type) {
		case map[string]any:
			value, ok := x[key]
			if !ok {
				ts.Fatalf("no %q in %v", key, x)
			}
			v = value
		case []any:
			i := number(ts, key)
			if i >= len(x) {
				ts.Fatalf("only %d elements in %v", len(x), x)
			}
			v = x[i]
		default:
			ts.Fatalf("nothing to find %q in: %v", key, v)
		}
	}
	fmt.Fprintln(ts.Stdout(), v)
}

func scriptFlip(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "flip FILE TEXT")
	name := ts.MkAbs(args[0])
	if files, err := os.ReadDir(name); err == nil {
		for _, f := range files {
			file := filepath.Join(name, f.Name())
			data, err := os.ReadFile(file)
			ts.Check(err)
			if bytes.Contains(data, []byte(args[1])) {
				name = file
				break
			}
		}
	}
	data, err := os.ReadFile(name)
	ts.Check(err)
	if n := bytes.Count(data, []byte(args[1])); n != 1 {
		ts.Fatalf("%s holds %q %d times, want once", args[0], args[1], n)
	}
	data[bytes.Index(data, []byte(args[1]))] ^= 0x10
	ts.Check(os.WriteFile(name, data, 0o600))
}
