// The conformance plugin in Go: what each function does is said in docs/languages.md.
package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wasmgrid/wasmgrid/sdk"
)

var warm = "made at the start"

func add(a, b int64) int64 { return a + b }

func main() {
	sdk.Main(
		sdk.Func("echo", func(_ sdk.Context, b []byte) ([]byte, error) { return b, nil }).Doc("Gives what it gets."),
		sdk.Func("upper", upper).Doc("Makes ASCII letters upper case."),
		sdk.Do("once", once).Doc("Tells whether it is the first."),
		sdk.Do("args", args).Doc("Prints its arguments."),
		sdk.Do("env", env).Doc("Prints variables."),
		sdk.Do("number", number).Doc("Prints the task's number."),
		sdk.Do("files", files).Doc("Copies its inputs."),
		sdk.Do("lines", lines).Doc("Counts lines and bytes."),
		sdk.Map("words", add, words).Doc("Counts what is between semicolons."),
		sdk.Reduce("total", add, total).Doc("Prints what words counted."),
		sdk.Func("fail", func(_ sdk.Context, message string) (string, error) { return "", errors.New(message) }).Doc("Fails with its input."),
		sdk.Do("crash", func(sdk.Context) error { panic("on purpose") }).Doc("Panics."),
		sdk.Do("log", log).Doc("Writes to the log."),
		sdk.Do("progress", progress).Doc("Tells its progress."),
		sdk.Do("metrics", metrics).Doc("Counts and measures."),
		sdk.Do("kv", kv).Doc("Works on the realm's map."),
		sdk.Func("secret", func(ctx sdk.Context, name string) ([]byte, error) { return ctx.Secret(name) }).Doc("Tells a secret."),
		sdk.Do("data", data).Doc("Prints granted data."),
		sdk.Do("random", random).Doc("Prints random bytes."),
		sdk.Do("clock", clock).Doc("Prints the time."),
		sdk.Func("fib", fib).Doc(`Computes Fibonacci numbers by "tasks".`),
		sdk.Do("children", children).Doc("Has others run."),
		sdk.Func("fetch", fetch).Doc("Sends a request."),
	)
}

func upper(_ sdk.Context, b []byte) ([]byte, error) {
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] -= 'a' - 'A'
		}
	}
	return b, nil
}

func once(ctx sdk.Context) error {
	fmt.Fprintln(ctx.Stdout(), warm)
	warm = "used"
	return nil
}

func args(ctx sdk.Context) error {
	for _, a := range ctx.Args() {
		fmt.Fprintln(ctx.Stdout(), a)
	}
	return nil
}

func env(ctx sdk.Context) error {
	for _, name := range ctx.Args() {
		v, ok := os.LookupEnv(name)
		if !ok {
			v = "(unset)"
		}
		fmt.Fprintf(ctx.Stdout(), "%s=%s\n", name, v)
	}
	return nil
}

func number(ctx sdk.Context) error {
	n := ctx.Number()
	if n == "" {
		n = "(none)"
	}
	fmt.Fprintln(ctx.Stdout(), n)
	return nil
}

func files(ctx sdk.Context) error {
	for in, err := range ctx.Inputs() {
		if err != nil {
			return err
		}
		f, err := ctx.Create("copy/" + in.Name)
		if err != nil {
			return err
		}
		n, err := io.Copy(f, in)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		fmt.Fprintln(ctx.Stdout(), in.Name, n)
	}
	return nil
}

func lines(ctx sdk.Context) error {
	n, size := 0, 0
	for in, err := range ctx.Inputs() {
		if err != nil {
			return err
		}
		for r := bufio.NewReader(in); ; n++ {
			line, err := r.ReadBytes('\n')
			if err == io.EOF && len(line) == 0 {
				break
			}
			if err != nil && err != io.EOF {
				return err
			}
			size += len(bytes.TrimSuffix(line, []byte("\n")))
		}
	}
	fmt.Fprintln(ctx.Stdout(), n, size)
	return nil
}

func words(_ sdk.Context, in *sdk.Input, out *sdk.Emitter[int64]) error {
	text, err := in.Bytes()
	if err != nil || len(text) == 0 {
		return err
	}
	if text[0] == '!' {
		return errors.New(string(text[1:]))
	}
	for word := range bytes.SplitSeq(text, []byte(";")) {
		out.EmitBytes(word, 1)
	}
	return nil
}

func total(ctx sdk.Context, all iter.Seq2[string, int64]) error {
	for key, n := range all {
		fmt.Fprintf(ctx.Stdout(), "[%s]=%d\n", key, n)
	}
	return nil
}

func log(ctx sdk.Context) error {
	ctx.Logf("one")
	ctx.Logf("%s", "two")
	return nil
}

func progress(ctx sdk.Context) error {
	ctx.Progress(1, 4)
	ctx.Progress(4, 4)
	ctx.Progress(7, 0)
	return nil
}

func metrics(ctx sdk.Context) error {
	ctx.Count("lines", 3)
	ctx.Count("lines", 4)
	ctx.Observe("size", 0.5)
	ctx.Observe("size", 3)
	ctx.Count("not a name", 1)
	return nil
}

func kv(ctx sdk.Context) error {
	for in, err := range ctx.Inputs() {
		if err != nil {
			return err
		}
		for s := bufio.NewScanner(in); s.Scan(); {
			came, err := operation(ctx, strings.Split(s.Text(), " "))
			switch {
			case errors.Is(err, syscall.Errno(76)): // ENOTCAPABLE
				came = "denied"
			case errors.Is(err, sdk.ErrConflict):
				came = "conflict"
			case err != nil:
				return err
			}
			fmt.Fprintln(ctx.Stdout(), came)
		}
	}
	return nil
}

func operation(ctx sdk.Context, w []string) (string, error) {
	m, key := ctx.KV(), w[1]
	switch w[0] {
	case "get":
		it, err := m.Get(key)
		if it.Version == 0 {
			return "none", err
		}
		return string(it.Value), err
	case "put":
		return "done", m.Put(key, []byte(w[2]))
	case "delete":
		return "done", m.Delete(key)
	case "list":
		left, err := strconv.Atoi(w[2])
		if err != nil {
			return "", err
		}
		for it, err := range m.List(key) {
			if err != nil {
				return "", err
			}
			if left--; left < 0 {
				return "more", nil
			}
			fmt.Fprintf(ctx.Stdout(), "%s = %s\n", it.Key, it.Value)
		}
		return "end", nil
	case "add":
		n, err := strconv.Atoi(w[2])
		if err != nil {
			return "", err
		}
		return "done", m.Txn(func(tx *sdk.Tx) error {
			it, err := tx.Get(key)
			if err != nil {
				return err
			}
			sum := n
			if it.Version > 0 {
				old, err := strconv.Atoi(string(it.Value))
				if err != nil {
					return err
				}
				sum += old
			}
			tx.Put(key, strconv.AppendInt(nil, int64(sum), 10))
			return nil
		})
	case "new":
		return "done", m.Txn(func(tx *sdk.Tx) error {
			tx.If(key, 0)
			tx.Put(key, nil)
			tx.Delete(w[2])
			return nil
		})
	}
	return "", fmt.Errorf("what is %s?", w[0])
}

func data(ctx sdk.Context) error {
	f, err := ctx.Open(ctx.Args()[0], ctx.Args()[1])
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(ctx.Stdout(), f)
	return err
}

func random(ctx sdk.Context) error {
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		return err
	}
	fmt.Fprintf(ctx.Stdout(), "%x\n", b)
	return nil
}

func clock(ctx sdk.Context) error {
	fmt.Fprintln(ctx.Stdout(), time.Now().UnixMilli())
	return nil
}

func fib(ctx sdk.Context, n int) (int, error) {
	if n < 2 {
		return n, nil
	}
	x, y := sdk.Go(ctx, fib, n-1), sdk.Go(ctx, fib, n-2)
	a, err := x.Await()
	if err != nil {
		return 0, err
	}
	b, err := y.Await()
	return a + b, err
}

func children(ctx sdk.Context) error {
	names := []string{"args", "fail", "crash", "absent"}
	var list []*sdk.Future
	for _, name := range names {
		list = append(list, sdk.Spawn(ctx, name, []byte("on purpose"), "a", "b c"))
	}
	for i := len(names) - 1; i >= 0; i-- {
		if out, err := list[i].Await(); err != nil {
			fmt.Fprintln(ctx.Stdout(), err)
		} else {
			fmt.Fprintf(ctx.Stdout(), "%s: %s", names[i], out)
		}
	}
	return nil
}

func fetch(_ sdk.Context, url string) (string, error) {
	r, err := sdk.Fetch(sdk.Request{Method: "POST", URL: url, Header: sdk.Header{"x-test": {"yes"}}, Body: []byte("hello")})
	if errors.Is(err, syscall.Errno(76)) { // ENOTCAPABLE
		return "denied", nil
	}
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return fmt.Sprintf("%d %s %s", r.Status, r.Header.Get("X-Answer"), body), err
}
