// Probe is a guest for tests: it does one thing, named by its first argument, and says what it saw.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unsafe"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(99)
	}
}

func run(verb string, args []string) error {
	switch verb {
	case "args": // a line each
		for _, a := range args {
			fmt.Printf("%q\n", a)
		}
	case "env":
		for _, name := range args {
			value, ok := os.LookupEnv(name)
			fmt.Printf("%s=%q %v\n", name, value, ok)
		}
	case "cat": // files, else stdin
		if len(args) == 0 {
			_, err := io.Copy(os.Stdout, os.Stdin)
			return err
		}
		for _, name := range args {
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			os.Stdout.Write(data)
		}
	case "part": // of a file: where it begins, and how long it is
		off, err := strconv.ParseInt(args[1], 10, 64)
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(args[2], 10, 64)
		if err != nil {
			return err
		}
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		_, err = io.Copy(os.Stdout, io.NewSectionReader(f, off, n))
		return err
	case "tree": // what is below a folder
		return filepath.WalkDir(args[0], func(p string, d fs.DirEntry, err error) error {
			if err == nil {
				fmt.Println(d.Type(), p)
			}
			return err
		})
	case "say": // on stderr
		fmt.Fprintln(os.Stderr, args[0])
	case "write": // pairs of a path and what to write there
		for ; len(args) > 1; args = args[2:] {
			if err := os.MkdirAll(filepath.Dir(args[0]), 0o777); err != nil {
				return err
			}
			if err := os.WriteFile(args[0], []byte(args[1]+"\n"), 0o666); err != nil {
				return err
			}
		}
	case "number": // the task's, into a file below /out
		return os.WriteFile("/out/number", []byte(os.Getenv("GRID_TASK")+"\n"), 0o666)
	case "clock": // whether it is the real one, and what randomness gives
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return err
		}
		fmt.Println(time.Now().Year() > 2022, hex.EncodeToString(b[:]))
	case "hog": // memory, for good
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		b := make([]byte, n<<20)
		fmt.Println(len(b))
	case "exit": // with a code, and only in the task of that number, if one is given
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		if len(args) == 1 || args[1] == os.Getenv("GRID_TASK") {
			os.Exit(code)
		}
		fmt.Println("task", os.Getenv("GRID_TASK"), "is well")
	case "trap": // in the task of a number
		if args[0] == os.Getenv("GRID_TASK") {
			*(*byte)(unsafe.Pointer(uintptr(0xffff_fff0))) = 1 // beyond the memory; nil would be a panic of Go's
		}
		fmt.Println("task", os.Getenv("GRID_TASK"), "is well")
	default:
		return fmt.Errorf("no verb %q", verb)
	}
	return nil
}
