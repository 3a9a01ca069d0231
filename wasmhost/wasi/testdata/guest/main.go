// Guest uses the standard library's files, clocks and streams in every way that has an answer it can
// check. It says what was wrong on stdout, and "done".
package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func want(what string, err, target error) {
	if !errors.Is(err, target) {
		fmt.Printf("%s: %v, want %v\n", what, err, target)
	}
}

func ok(what string, err error) {
	if err != nil {
		fmt.Printf("%s: %v\n", what, err)
	}
}

func same[T comparable](what string, got, want T) {
	if got != want {
		fmt.Printf("%s: %v, want %v\n", what, got, want)
	}
}

func content(name, want string) {
	got, err := os.ReadFile(name)
	ok("read "+name, err)
	same("content of "+name, string(got), want)
}

func main() {
	for _, f := range []func(){world, files, flags, folders, links, readOnly, root, streams} {
		f()
	}
	fmt.Println("done")
}

func world() {
	same("args", strings.Join(os.Args, "|"), "guest|a||b c")
	same("env", os.Getenv("KEY"), "value=x")
	dir, err := os.Getwd()
	ok("getwd", err)
	same("getwd", dir, "/")
	a, b := make([]byte, 100_000), make([]byte, 100_000)
	rand.Read(a)
	rand.Read(b)
	if bytes.Equal(a, b) || bytes.Equal(a, make([]byte, len(a))) {
		fmt.Println("no random bytes")
	}
	start := time.Now()
	time.Sleep(100 * time.Hour)
	if d := time.Since(start); d < 100*time.Hour || d > 101*time.Hour {
		fmt.Println("slept", d)
	}
	timeout := time.After(time.Minute)
	select {
	case <-time.After(time.Hour):
		fmt.Println("the hour came before the minute")
	case <-timeout:
	}
}

func files() {
	f, err := os.Create("/tmp/f")
	ok("create", err)
	n, err := f.WriteString("hello, world")
	same("write", n, 12)
	ok("write", err)
	at, err := f.Seek(-5, io.SeekEnd)
	same("seek", at, 7)
	ok("seek", err)
	rest, err := io.ReadAll(f)
	same("read", string(rest), "world")
	ok("read", err)
	_, err = f.WriteAt([]byte("W"), 7)
	ok("write at", err)
	buf := make([]byte, 5)
	_, err = f.ReadAt(buf, 7)
	same("read at", string(buf), "World")
	ok("read at", err)
	_, err = f.ReadAt(buf, 10)
	want("read at the end", err, io.EOF)
	ok("truncate", f.Truncate(5))
	ok("sync", f.Sync())
	info, err := f.Stat()
	ok("stat", err)
	same("size", info.Size(), 5)
	ok("close", f.Close())
	_, err = f.Read(buf)
	want("read after close", err, os.ErrClosed)
	content("/tmp/f", "hello")
	when := time.Unix(1_000_000_000, 5)
	ok("chtimes", os.Chtimes("/tmp/f", time.Time{}, when))
	info, _ = os.Stat("/tmp/f")
	same("mtime", info.ModTime().UnixNano(), when.UnixNano())
	ok("chmod", os.Chmod("/tmp/f", 0o600))
	ok("rename", os.Rename("/tmp/f", "/out/g"))
	_, err = os.Stat("/tmp/f")
	want("stat what is gone", err, fs.ErrNotExist)
	content("/out/g", "hello")
	ok("truncate by name", os.Truncate("/out/g", 2))
	content("/out/g", "he")
	ok("remove", os.Remove("/out/g"))
	want("remove twice", os.Remove("/out/g"), fs.ErrNotExist)
	big := bytes.Repeat([]byte("0123456789abcdef"), 40_000)
	ok("write a big file", os.WriteFile("/tmp/big", big, 0o600))
	got, err := os.ReadFile("/tmp/big")
	ok("read a big file", err)
	same("big file", bytes.Equal(got, big), true)
	ok("remove a big file", os.Remove("/tmp/big"))
}

func flags() {
	_, err := os.OpenFile("/tmp/none", os.O_RDWR, 0)
	want("open what is not there", err, fs.ErrNotExist)
	f, err := os.OpenFile("/tmp/x", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	ok("create", err)
	f.Close()
	_, err = os.OpenFile("/tmp/x", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	want("create twice", err, fs.ErrExist)
	for range 3 {
		f, err = os.OpenFile("/tmp/x", os.O_APPEND|os.O_WRONLY, 0)
		ok("open to append", err)
		f.WriteString("ab")
		f.Close()
	}
	content("/tmp/x", "ababab")
	f, _ = os.OpenFile("/tmp/x", os.O_WRONLY, 0)
	if _, err = f.Read(make([]byte, 1)); err == nil || err == io.EOF {
		fmt.Println("read what is open for writing:", err)
	}
	f.Close()
	f, _ = os.Open("/tmp/x")
	if _, err = f.WriteString("x"); err == nil {
		fmt.Println("wrote to what is open for reading")
	}
	f.Close()
	f, err = os.OpenFile("/tmp/x", os.O_RDWR|os.O_TRUNC, 0)
	ok("open and truncate", err)
	f.Close()
	content("/tmp/x", "")
	_, err = os.OpenFile("/tmp", os.O_RDWR, 0)
	want("open a folder to write", err, syscall.EISDIR)
	_, err = os.ReadFile("/tmp")
	want("read a folder", err, syscall.EISDIR)
	_, err = os.Open("/tmp/x/y")
	want("a file as a folder", err, syscall.ENOTDIR)
	ok("remove", os.Remove("/tmp/x"))
}

func folders() {
	ok("mkdirall", os.MkdirAll("/tmp/a/b/c", 0o700))
	ok("mkdirall", os.MkdirAll("/tmp/a/b/c", 0o700))
	want("mkdir", os.Mkdir("/tmp/a", 0o700), fs.ErrExist)
	want("mkdir", os.Mkdir("/tmp/none/a", 0o700), fs.ErrNotExist)
	want("remove", os.Remove("/tmp/a"), syscall.ENOTEMPTY)
	var names []string
	for i := range 700 {
		name := fmt.Sprintf("a rather long name for a file, number %04d", i)
		names = append(names, name)
		ok("write", os.WriteFile("/tmp/a/b/"+name, []byte{byte(i)}, 0o600))
	}
	entries, err := os.ReadDir("/tmp/a/b")
	ok("readdir", err)
	same("entries", len(entries), 701)
	var got []string
	for _, e := range entries {
		if !e.IsDir() {
			got = append(got, e.Name())
		}
	}
	same("names", slices.Equal(got, names), true)
	d, err := os.Open("/tmp/a/b")
	ok("open a folder", err)
	total := 0
	for {
		list, err := d.Readdirnames(50)
		total += len(list)
		if err == io.EOF {
			break
		}
		ok("readdirnames", err)
	}
	same("entries in parts", total, 701)
	d.Seek(0, io.SeekStart)
	d.Close()
	ok("chdir", os.Chdir("/tmp/a"))
	info, err := os.Stat("b/../b/c")
	ok("stat", err)
	same("is a folder", info.IsDir(), true)
	ok("chdir", os.Chdir("/"))
	count := 0
	ok("walk", filepath.WalkDir("/tmp/a", func(_ string, _ fs.DirEntry, err error) error { count++; return err }))
	same("walked", count, 703)
	ok("copy", os.CopyFS("/out/copy", os.DirFS("/tmp/a")))
	matches, _ := fs.Glob(os.DirFS("/out"), "copy/b/*number 000?")
	same("matches", len(matches), 10)
	ok("rename", os.Rename("/tmp/a/b", "/tmp/moved"))
	ok("removeall", os.RemoveAll("/tmp/moved"))
	ok("removeall", os.RemoveAll("/tmp/a"))
	ok("removeall", os.RemoveAll("/out/copy"))
	entries, _ = os.ReadDir("/tmp")
	same("left", len(entries), 0)
	temp, err := os.MkdirTemp("", "t")
	ok("mkdirtemp", err)
	f, err := os.CreateTemp(temp, "f*")
	ok("createtemp", err)
	f.Close()
	ok("removeall", os.RemoveAll(temp))
}

func links() {
	ok("write", os.WriteFile("/tmp/f", []byte("content"), 0o600))
	ok("link", os.Link("/tmp/f", "/tmp/hard"))
	ok("symlink", os.Symlink("f", "/tmp/soft"))
	ok("symlink", os.Symlink("../in/a", "/tmp/up"))
	ok("symlink", os.Symlink("loop", "/tmp/loop"))
	content("/tmp/hard", "content")
	content("/tmp/soft", "content")
	content("/tmp/up", "input a")
	a, _ := os.Stat("/tmp/f")
	b, _ := os.Stat("/tmp/hard")
	c, _ := os.Stat("/tmp/soft")
	l, _ := os.Lstat("/tmp/soft")
	same("same file", os.SameFile(a, b) && os.SameFile(a, c) && !os.SameFile(a, l), true)
	same("mode", l.Mode().Type(), fs.ModeSymlink)
	target, err := os.Readlink("/tmp/up")
	ok("readlink", err)
	same("readlink", target, "../in/a")
	_, err = os.Open("/tmp/loop")
	want("a loop", err, syscall.ELOOP)
	want("an absolute link", os.Symlink("/tmp/f", "/tmp/abs"), fs.ErrPermission)
	ok("write through", os.WriteFile("/tmp/hard", []byte("changed"), 0o600))
	content("/tmp/soft", "changed")
	real, err := filepath.EvalSymlinks("/tmp/soft")
	ok("evalsymlinks", err)
	same("evalsymlinks", real, "/tmp/f")
	for _, name := range []string{"f", "hard", "soft", "up", "loop"} {
		ok("remove", os.Remove("/tmp/"+name))
	}
}

func readOnly() {
	content("/in/a", "input a")
	content("/in/d/b", "input b")
	want("write", os.WriteFile("/in/a", nil, 0o600), syscall.EROFS)
	want("create", os.WriteFile("/in/new", nil, 0o600), syscall.EROFS)
	want("create in the root", os.WriteFile("/new", nil, 0o600), syscall.EROFS)
	want("remove", os.Remove("/in/a"), syscall.EROFS)
	want("mkdir", os.Mkdir("/in/x", 0o700), syscall.EROFS)
	want("truncate", os.Truncate("/in/a", 0), syscall.EROFS)
	want("rename", os.Rename("/in/a", "/tmp/a"), syscall.EROFS)
	want("link", os.Link("/in/a", "/tmp/a"), syscall.EROFS)
	want("chtimes", os.Chtimes("/in/a", time.Now(), time.Now()), syscall.EROFS)
	want("remove /tmp", os.Remove("/tmp"), fs.ErrPermission)
	f, err := os.Open("/in/a")
	ok("open", err)
	f.Seek(6, io.SeekStart)
	rest, err := io.ReadAll(f)
	ok("read", err)
	same("rest", string(rest), "a")
	f.Close()
}

func root() {
	os.MkdirAll("/tmp/r/sub", 0o700)
	os.WriteFile("/tmp/secret", []byte("secret"), 0o600)
	os.Symlink("../secret", "/tmp/r/up")
	r, err := os.OpenRoot("/tmp/r")
	if err != nil {
		fmt.Println("open root:", err)
		return
	}
	f, err := r.Create("sub/f")
	ok("create in a root", err)
	if err == nil {
		f.WriteString("x")
		f.Close()
	}
	content("/tmp/r/sub/f", "x")
	if _, err = r.Open("up"); err == nil {
		fmt.Println("left the root by a link")
	}
	if _, err = r.Open("../secret"); err == nil {
		fmt.Println("left the root by ..")
	}
	ok("mkdir in a root", r.Mkdir("new", 0o700))
	ok("remove in a root", r.Remove("new"))
	r.Close()
	ok("removeall", os.RemoveAll("/tmp/r"))
	os.Remove("/tmp/secret")
}

func streams() {
	in, err := io.ReadAll(os.Stdin)
	ok("stdin", err)
	same("stdin", len(in), 3_000_000)
	n, err := os.Stderr.Write(in)
	ok("stderr", err)
	same("stderr", n, len(in))
	info, err := os.Stdout.Stat()
	ok("stat stdout", err)
	same("a terminal", info.Mode()&fs.ModeCharDevice != 0, false)
}
