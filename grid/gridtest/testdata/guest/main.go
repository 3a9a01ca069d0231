// Guest is the program that the engine suite runs: each of its commands tries one thing a guest may
// or may not do, and reports on stdout.
package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	commands := map[string]func(args []string) error{
		"echo": echo, "fail": fail, "panic": crash, "list": list, "attack": attack, "out": out, "fill": fill,
		"files": files, "world": world, "spin": spin, "hog": hog, "cat": cat, "opens": opens,
		"year": func([]string) error { fmt.Println(time.Now().UTC().Year()); return nil },
		"nap":  func([]string) error { time.Sleep(time.Hour); return nil },
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// echo shows arguments, environment and stdin.
func echo(args []string) error {
	fmt.Printf("args %q\nenv %q\n", args, os.Environ())
	fmt.Fprintln(os.Stderr, "to stderr")
	_, err := io.Copy(os.Stdout, os.Stdin)
	return err
}

func fail(args []string) error {
	code, _ := strconv.Atoi(args[0])
	os.Exit(code)
	return nil
}

func crash([]string) error { panic("on purpose") }

func spin([]string) error {
	for {
	}
}

// hog takes memory until there is none.
func hog([]string) error {
	var all [][]byte
	for {
		all = append(all, make([]byte, 1<<20))
	}
}

// opens opens files until it is refused one.
func opens([]string) error {
	var all []*os.File
	for {
		f, err := os.Create(fmt.Sprintf("/tmp/%d", len(all)))
		if err != nil {
			fmt.Println("refused after", len(all))
			return err
		}
		all = append(all, f)
	}
}

func cat(args []string) error {
	for _, a := range args {
		data, err := os.ReadFile(a)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s\n", a, data)
	}
	return nil
}

// list walks folders.
func list(args []string) error {
	for _, root := range args {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			kind := "file"
			switch {
			case d.IsDir():
				kind = "dir"
			case d.Type()&fs.ModeSymlink != 0:
				kind = "link"
			}
			fmt.Println(kind, path)
			_ = info
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// attack tries what must not work, and names what did.
func attack([]string) error {
	try := func(what string, err error) {
		if err == nil {
			fmt.Println("SUCCEEDED:", what)
		}
	}
	try("write a mounted file", os.WriteFile("/in/a.txt", []byte("x"), 0o600))
	try("append to a mounted file", appendTo("/in/a.txt"))
	try("create in a mount", os.WriteFile("/in/new", nil, 0o600))
	try("mkdir in a mount", os.Mkdir("/in/dir", 0o700))
	try("remove from a mount", os.Remove("/in/a.txt"))
	try("rename in a mount", os.Rename("/in/a.txt", "/in/b.txt"))
	try("move out of a mount", os.Rename("/in/a.txt", "/out/b.txt"))
	try("move into a mount", func() error {
		os.WriteFile("/out/mine", nil, 0o600)
		defer os.Remove("/out/mine")
		return os.Rename("/out/mine", "/in/mine")
	}())
	try("truncate a mounted file", os.Truncate("/in/a.txt", 0))
	try("create in the root", os.WriteFile("/new", nil, 0o600))
	try("remove /out", os.Remove("/out"))
	try("rename /out", os.Rename("/out", "/tmp/out"))
	for _, p := range []string{"/etc/passwd", "/../etc/passwd", "/in/../../etc/passwd", "../../etc/passwd", "/proc/self/environ", "/in/../../../proc/version"} {
		_, err := os.ReadFile(p)
		try("read "+p, err)
	}
	for _, target := range []string{"/etc/passwd", "../../../../etc/passwd", "../../proc/version"} {
		os.Remove("/tmp/link")
		if err := os.Symlink(target, "/tmp/link"); err != nil {
			continue
		}
		_, err := os.ReadFile("/tmp/link")
		try("read through a link to "+target, err)
	}
	fmt.Println("done")
	return nil
}

func appendTo(name string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString("x")
	return err
}

// out leaves a tree behind, by way of everything a file system can do.
func out([]string) error {
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	check(os.MkdirAll("/out/deep/er", 0o755))
	check(os.WriteFile("/out/deep/er/file.txt", []byte("content"), 0o644))
	check(os.WriteFile("/tmp/scratch", []byte("moved"), 0o644))
	check(os.Rename("/tmp/scratch", "/out/moved"))
	check(os.WriteFile("/out/gone", nil, 0o644))
	check(os.Remove("/out/gone"))
	check(os.Symlink("deep/er/file.txt", "/out/link"))
	data, err := os.ReadFile("/out/link")
	check(err)
	if string(data) != "content" {
		panic("link reads " + string(data))
	}
	f, err := os.Create("/out/holes")
	check(err)
	_, err = f.WriteAt([]byte("end"), 100_000)
	check(err)
	_, err = f.Seek(2, io.SeekStart)
	check(err)
	_, err = f.WriteString("begin")
	check(err)
	check(f.Truncate(100_002))
	check(f.Close())
	check(os.Mkdir("/out/empty", 0o755))
	a, err := os.Create("/out/log")
	check(err)
	a.Close()
	check(appendTo("/out/log"))
	check(appendTo("/out/log"))
	return os.WriteFile("/tmp/forgotten", []byte("x"), 0o600)
}

// fill writes until it is refused.
func fill([]string) error {
	f, err := os.Create("/tmp/big")
	if err != nil {
		return err
	}
	block := make([]byte, 64<<10)
	for n := 0; ; n += len(block) {
		if _, err := f.Write(block); err != nil {
			fmt.Println("refused after", n)
			return err
		}
	}
}

// files creates files until it is refused.
func files([]string) error {
	for n := 0; ; n++ {
		if err := os.WriteFile(fmt.Sprint("/tmp/", n), nil, 0o600); err != nil {
			fmt.Println("refused after", n)
			return err
		}
	}
}

// world shows everything that could differ from run to run.
func world([]string) error {
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return err
	}
	fmt.Printf("random %x\n", b)
	start := time.Now()
	time.Sleep(time.Hour)
	if slept := time.Since(start); slept < time.Hour {
		return errors.New("an hour's sleep took " + slept.String())
	}
	fmt.Println("time", start.UTC(), time.Now().UTC())
	if err := os.WriteFile("/tmp/x", nil, 0o600); err != nil {
		return err
	}
	info, err := os.Stat("/tmp/x")
	if err != nil {
		return err
	}
	fmt.Println("written", info.ModTime().UTC())
	host, err := os.Hostname()
	fmt.Println("host", host, err != nil, strings.Join(os.Environ(), " "))
	return nil
}
