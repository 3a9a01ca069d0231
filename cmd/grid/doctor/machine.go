package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

// Bounds between well and not.
const (
	littleDisk   = 1 << 30
	noDisk       = 64 << 20
	littleInodes = 20 // one in so many is free
	fewFiles     = 4096
	slowSync     = 500 * time.Millisecond
)

func checkHome(_ context.Context, w *World) []Finding {
	info, err := os.Stat(w.Home)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return one(found(Info, "%s is not there yet", w.Home).fix("nothing is to be done: the first command makes it"))
	case err != nil:
		return one(found(Failure, "%v", err).fix("choose a folder of yours with --home"))
	case !info.IsDir():
		return one(found(Failure, "%s is no folder", w.Home).fix("choose a folder with --home"))
	}
	if mine, err := w.Owner(w.Home); err == nil && !mine {
		return one(found(Failure, "%s belongs to another user", w.Home).fix("choose a folder of yours with --home, or run grid as its owner"))
	}
	var out []Finding
	if perm := info.Mode().Perm(); runtime.GOOS != "windows" && perm&0o077 != 0 {
		out = append(out, found(Warning, "%s may be read by others (mode %04o)", w.Home, perm).fix("chmod 700 %s", w.Home))
	}
	key := filepath.Join(w.Home, "identity")
	if info, err := os.Stat(key); err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		out = append(out, found(Failure, "the node's private key %s may be read by others (mode %04o)", key, info.Mode().Perm()).fix("chmod 600 %s", key))
	}
	if len(out) == 0 {
		out = one(found(OK, "%s is yours alone", w.Home))
	}
	return out
}

func checkDisk(_ context.Context, w *World) (out []Finding) {
	dir := w.Home
	for {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	d, err := w.Disk(dir)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
	case err != nil:
		out = append(out, found(Warning, "the disk of %s: %v", dir, err).fix("see whether it is mounted"))
	case d.Free < noDisk:
		out = append(out, found(Failure, "%s free on the disk of %s", size(d.Free), dir).fix("make room: `grid store gc` gives back what nothing needs; or choose another disk with --home"))
	case d.Free < littleDisk:
		out = append(out, found(Warning, "%s free on the disk of %s", size(d.Free), dir).fix("make room: `grid store gc`, or a lower `grid up --store-quota`"))
	default:
		out = append(out, found(OK, "%s of %s free", size(d.Free), size(d.Total)))
	}
	if err == nil && d.AllInodes > 0 && d.FreeInodes < d.AllInodes/littleInodes {
		out = append(out, found(Warning, "%d of %d inodes are free on the disk of %s", d.FreeInodes, d.AllInodes, dir).fix("remove files that are not needed: many small ones use inodes up"))
	}
	if info, err := os.Stat(w.Home); err != nil || !info.IsDir() {
		return out
	}
	took, err := writeFile(dir)
	switch {
	case err != nil:
		out = append(out, found(Failure, "a file cannot be written to the home: %v", err).fix("see whether the disk is full, read-only or broken"))
	case took > slowSync:
		out = append(out, found(Warning, "to write 4 KiB and be sure of it took %v", took.Round(time.Millisecond)).fix("every job waits for that: a faster disk, or one that fewer share, helps"))
	default:
		out = append(out, found(OK, "to write 4 KiB and be sure of it took %v", took.Round(10*time.Microsecond)))
	}
	return out
}

// writeFile writes a small file that survives a crash, and removes it.
func writeFile(dir string) (took time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	began := time.Now()
	_, err = f.Write(make([]byte, 4<<10))
	err = errors.Join(err, f.Sync())
	took = time.Since(began)
	return took, errors.Join(err, f.Close())
}

func checkPort(_ context.Context, w *World) (out []Finding) {
	if w.Node != nil {
		if len(w.Node.Addrs) == 0 {
			return one(found(Failure, "the node listens nowhere").fix("start it again, with other addresses for --listen; its log tells why"))
		}
		return one(found(OK, "the node listens at %s", strings.Join(w.Node.Addrs, " ")))
	}
	for _, network := range []string{"tcp", "udp"} {
		at := fmt.Sprintf(":%d", p2p.DefaultPort)
		switch err := w.Listen(network, at); {
		case err == nil:
			out = append(out, found(OK, "%s port %d is free", network, p2p.DefaultPort))
		case errors.Is(err, syscall.EADDRINUSE):
			out = append(out, found(Warning, "%s port %d is taken, so that a node would listen on any other", network, p2p.DefaultPort).
				fix("see who has it with `ss -lnp 'sport = :%d'`; it may be a node of another home. Or choose one with `grid up --listen`", p2p.DefaultPort))
		default:
			out = append(out, found(Failure, "%s port %d: %v", network, p2p.DefaultPort, err).fix("allow this user to open sockets"))
		}
	}
	return out
}

func checkLimits(_ context.Context, w *World) (out []Finding) {
	n, err := w.Files()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
	case err != nil:
		out = append(out, found(Warning, "how many files may be open: %v", err).fix("see `ulimit -n`"))
	case n < fewFiles:
		out = append(out, found(Warning, "%d files may be open at once, connections among them", n).fix("ulimit -n %d, or LimitNOFILE of the service", 16*fewFiles))
	default:
		out = append(out, found(OK, "%d files may be open at once", n))
	}
	total, limit := w.Memory()
	have, of := total, "of the machine"
	if limit > 0 && (total == 0 || limit < total) {
		have, of = limit, "of the container"
	}
	switch {
	case have == 0:
	case have < 4*grid.DefaultLimits.Memory/3:
		out = append(out, found(Warning, "%s of memory, %s: a task alone may take %s", size(have), of, size(grid.DefaultLimits.Memory)).fix("give it more, or tasks less with `grid run --memory`"))
	default:
		out = append(out, found(OK, "%s of memory, %s", size(have), of))
	}
	return out
}

func checkEngine(ctx context.Context, w *World) (out []Finding) {
	way, took, err := w.Engine(ctx)
	if err != nil {
		return one(found(Failure, "a module cannot be run: %v", err).fix("report it, with `grid version` and the kind of machine"))
	}
	out = append(out, found(OK, "a tiny module was compiled and run within %v; its instances are %s", took.Round(100*time.Microsecond), way))
	switch how, err := w.Fast(); {
	case err != nil:
		out = append(out, found(Warning, "memory of tasks cannot be put back to an image: %v", err).fix("tasks start more slowly: allow memfd_create and mmap, which a sandbox around the node may forbid"))
	case how == "scan":
		out = append(out, found(OK, "memory of tasks is put back by the fastest way, PAGEMAP_SCAN"))
	case runtime.GOOS == "linux":
		out = append(out, found(Warning, "memory of tasks is put back by %s, not by PAGEMAP_SCAN", how).fix("Linux 6.7 or newer has it, unless a sandbox around the node forbids ioctl on /proc/self/pagemap, or userfaultfd"))
	default:
		out = append(out, found(Info, "memory of tasks is put back by %s", how))
	}
	return out
}

// toolchains are compilers that plugins are built with.
var toolchains = []struct{ tool, arg, langs string }{
	{"go", "version", "Go"},
	{"clang", "--version", "C and C++"},
	{"rustc", "--version", "Rust"},
	{"node", "--version", "AssemblyScript and JavaScript"},
}

func checkToolchains(ctx context.Context, w *World) (out []Finding) {
	for _, t := range toolchains {
		v, err := w.Version(ctx, t.tool, t.arg)
		if err != nil {
			out = append(out, found(Info, "no %s, to write plugins in %s", t.tool, t.langs))
			continue
		}
		v, _, _ = strings.Cut(strings.TrimSpace(v), "\n")
		out = append(out, found(Info, "%s, for %s: %.80s", t.tool, t.langs, v))
	}
	return out
}
