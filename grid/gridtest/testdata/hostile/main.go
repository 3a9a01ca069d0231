// Hostile is the program that the hostile-guest suite runs: each of its commands tries to take more of
// the host than it is given, and says on stdout where it was stopped.
package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"math"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	commands := map[string]func() error{
		"deep": deep, "wide": wide, "sparse": sparse, "opens": opens, "paths": paths, "links": links, "names": names,
		"goroutines": goroutines, "world": world,
	}
	if err := commands[os.Args[1]](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// deep makes folders in folders until it is refused, and then takes them away again.
func deep() error {
	at := "/tmp"
	for n := 0; n < 5000; n++ {
		next := at + "/d"
		if err := os.Mkdir(next, 0o700); err != nil {
			fmt.Println("stopped:", n < 4999)
			return os.RemoveAll("/tmp/d")
		}
		at = next
	}
	return errors.New("5,000 folders in folders")
}

// wide makes files, folders and links until each is refused.
func wide() error {
	for n := 0; ; n++ {
		name := fmt.Sprintf("/out/%d", n)
		var err error
		switch n % 3 {
		case 0:
			err = os.WriteFile(name, nil, 0o600)
		case 1:
			err = os.Mkdir(name, 0o700)
		case 2:
			err = os.Symlink("target", name)
		}
		if err != nil {
			fmt.Println("stopped at", n)
			return err
		}
	}
}

// sparse makes files long without writing to them.
func sparse() error {
	f, err := os.Create("/tmp/sparse")
	if err != nil {
		return err
	}
	for _, size := range []int64{math.MaxInt64, 1 << 62, 1 << 48, 1 << 40, 1 << 32, 2 << 20} {
		if err := f.Truncate(size); err == nil {
			return fmt.Errorf("a file of %d bytes", size)
		}
		if _, err := f.WriteAt([]byte("x"), size-1); err == nil {
			return fmt.Errorf("a write before %d", size)
		}
	}
	for range 100 { // the quota is room for one of them
		if err := f.Truncate(1 << 20); err != nil {
			return err
		}
		if err := f.Truncate(0); err != nil {
			return err
		}
	}
	for n := 0; ; n++ {
		if err := os.WriteFile(fmt.Sprintf("/tmp/f%d", n), make([]byte, 300<<10), 0o600); err != nil {
			fmt.Println("stopped at", n)
			return err
		}
	}
}

// opens opens files until it is refused, closes them, and can open files again.
func opens() error {
	var all []*os.File
	for {
		f, err := os.Create("/tmp/one")
		if err != nil {
			break
		}
		if all = append(all, f); len(all) > 100_000 {
			return errors.New("100,000 open files")
		}
	}
	for _, f := range all {
		if err := f.Close(); err != nil {
			return err
		}
	}
	f, err := os.Create("/tmp/one")
	if err != nil {
		return err
	}
	fmt.Println("stopped:", len(all) > 10)
	return f.Close()
}

// paths names what is too long, too deep or outside.
func paths() error {
	for _, path := range []string{
		"/" + strings.Repeat("a", 64<<10),
		"/" + strings.Repeat("a/", 32<<10),
		"/tmp/" + strings.Repeat("x", 256),
		strings.Repeat("/..", 1000) + "/etc/passwd",
		"/tmp/" + strings.Repeat("../x/", 9000) + "y",
		strings.Repeat("/", 60<<10) + "etc/passwd",
		"/in/" + strings.Repeat("../", 10_000) + "proc/self/environ",
		"/tmp/./.././../etc/shadow",
	} {
		if _, err := os.ReadFile(path); err == nil {
			return fmt.Errorf("read %.40q", path)
		}
		if f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err == nil {
			f.Close()
			return fmt.Errorf("created %.40q", path)
		}
		if err := os.Mkdir(path, 0o700); err == nil {
			return fmt.Errorf("made %.40q", path)
		}
		if err := os.Symlink(path, "/tmp/link"); err == nil {
			if _, err := os.ReadFile("/tmp/link"); err == nil {
				return fmt.Errorf("read a link to %.40q", path)
			}
			os.Remove("/tmp/link")
		}
	}
	fmt.Println("refused")
	return nil
}

// links makes loops of links, and links that lead outside.
func links() error {
	link := func(target, name string) {
		if err := os.Symlink(target, name); err != nil {
			panic(err)
		}
	}
	link("self", "/tmp/self")
	link("b", "/tmp/a")
	link("a", "/tmp/b")
	link("loop/loop/loop", "/tmp/loop")
	link(".", "/tmp/dot")
	link("..", "/tmp/up")
	link("dot/"+strings.Repeat("dot/", 500)+"dot", "/tmp/long")
	for i := range 60 { // each follows the one before twice
		link(fmt.Sprintf("e%d/../e%d", i, i), fmt.Sprintf("/tmp/e%d", i+1))
	}
	link("../../../../../../etc/passwd", "/tmp/outside")
	os.Symlink("/proc/self/environ", "/tmp/absolute") // may be refused
	for _, name := range []string{
		"self", "a", "b/x", "loop/loop", "e60", "e60/x", "outside", "absolute", "up/../../etc/passwd", "long/outside", "up/up/up/up/etc/passwd",
	} {
		if _, err := os.ReadFile("/tmp/" + name); err == nil {
			return fmt.Errorf("read %s", name)
		}
	}
	fmt.Println("refused")
	return nil
}

// names gives files names that text cannot hold. Each is either refused or kept as it is.
func names() error {
	for _, name := range []string{"\xff\xfe", "a\x00b", "\x00", "new\nline", "\u202e", " ", "...", "a\\b", "\x7f", "CON"} {
		path := "/tmp/" + name
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil || string(data) != name {
			return fmt.Errorf("%q: %q, %v", name, data, err)
		}
		entries, err := os.ReadDir("/tmp")
		if err != nil || len(entries) != 1 || entries[0].Name() != name {
			return fmt.Errorf("%q is listed as %v, %v", name, entries, err)
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	fmt.Println("kept")
	return nil
}

// goroutines makes more work than there are processors.
func goroutines() error {
	for i := 0; ; i++ {
		go func() {
			for {
				runtime.Gosched()
			}
		}()
	}
}

// world shows all that could differ from run to run.
func world() error {
	m := map[string]int{}
	for i := range 100 {
		m[fmt.Sprint(i)] = i
	}
	for k := range m { // in an order that is random by design
		fmt.Print(k, " ")
	}
	fmt.Println(len(slices.Collect(maps.Keys(m))))

	var mu sync.Mutex
	var order []int
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			runtime.Gosched()
			time.Sleep(time.Duration(i%3) * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			order = append(order, i)
		})
	}
	wg.Wait()
	fmt.Println(order)

	b := make([]byte, 16)
	rand.Read(b)
	fmt.Printf("%x %d %v %v\n", b, mathrand.Uint64(), time.Now().UnixNano(), time.Since(time.Now()))
	zero := 0.0
	fmt.Println(zero/zero, math.Inf(1)-math.Inf(1), math.Sqrt(-1), math.Sin(1e22), math.Exp(0.1))
	fmt.Fprintf(os.Stderr, "%p %d %d\n", &b, runtime.NumGoroutine(), runtime.NumCPU())

	for i := range 50 {
		h := fnv.New32()
		fmt.Fprint(h, i)
		if err := os.WriteFile(fmt.Sprintf("/out/%08x", h.Sum32()), b, 0o600); err != nil {
			return err
		}
	}
	return filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Println(path, info.Size(), info.Mode(), info.ModTime().UnixNano())
		return nil
	})
}
