//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// copied puts a program of this machine into a root folder, with the libraries that it is linked with.
func copied(t *testing.T, root, program string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not here: no package is installed", program)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(root, "usr/bin", program), string(data), 0o755)
	copyLibs(t, root, path)
}

func put(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// TestInstalled installs the packages into roots with hardly anything in them, as their managers do, and runs a node there, as the user that the package
// has made.
func TestInstalled(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the command; -short was given")
	}
	if os.Getuid() != 0 {
		t.Skip("only root can install a package")
	}
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip("dpkg is not here: no package is installed")
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // the node's user is to reach it
		t.Fatal(err)
	}
	program := filepath.Join(dir, "grid")
	run(t, "go", "build", "-ldflags=-s -w", "-o", program, "../grid")
	files, err := contents("../..", target{"linux", runtime.GOARCH}, program, when, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	for _, name := range []string{"sh", "getent", "useradd"} { // of what every system has, the scripts need these
		copied(t, root, name)
	}
	if err := os.Symlink("usr/bin", filepath.Join(root, "bin")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/shadow": "root:*:0::::::\n", "etc/gshadow": "root:*::\n",
		"etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\n", "etc/login.defs": "SYS_UID_MIN 100\nSYS_UID_MAX 999\nSYS_GID_MIN 100\nSYS_GID_MAX 999\n",
		"var/lib/dpkg/status": "", "var/lib/dpkg/info/format": "1\n", "var/lib/dpkg/updates/.keep": "", "var/log/.keep": "", "dev/null": "",
	} {
		put(t, filepath.Join(root, name), text, 0o644)
	}
	os.Remove(filepath.Join(root, "var/lib/dpkg/updates/.keep"))
	if err := os.Mkdir(filepath.Join(root, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(filepath.Join(root, "tmp"), 0o777) // whatever the umask

	name := fmt.Sprintf("wasmgrid_%s_%s.deb", grid.Version, runtime.GOARCH)
	deb := filepath.Join(dir, name)
	put(t, deb, string(files[name]), 0o644)
	dpkg := func(args ...string) string {
		return run(t, "dpkg", append([]string{"--root=" + root, "--force-depends"}, args...)...) // of which passwd is none of dpkg's here
	}
	for range 2 { // an upgrade is the same
		dpkg("--install", deb)
	}
	passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	var uid, gid uint32
	for line := range strings.Lines(string(passwd)) {
		if rest, ok := strings.CutPrefix(line, "grid:"); ok {
			f := strings.Split(rest, ":")
			if _, err := fmt.Sscan(f[1]+" "+f[2], &uid, &gid); err != nil || f[4] != "/var/lib/grid" || !strings.Contains(f[5], "nologin") {
				t.Errorf("the user is %q", line)
			}
		}
	}
	if uid == 0 || strings.Count(string(passwd), "\ngrid:") != 1 {
		t.Fatalf("no user was made, or two were:\n%s", passwd)
	}
	copyLibs(t, root, program)
	home := filepath.Join(root, "var/lib/grid") // which systemd makes
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}

	command := func(args ...string) *exec.Cmd {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		t.Cleanup(cancel)
		cmd := exec.CommandContext(ctx, "/usr/bin/grid", args...)
		cmd.Path, cmd.Err = "/usr/bin/grid", nil
		cmd.Env, cmd.Dir = []string{"GRID_HOME=/var/lib/grid", "HOME=/nowhere"}, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		return cmd
	}
	node := command("up", "--no-mdns", "--no-upnp", "--listen", "/ip4/127.0.0.1/tcp/0")
	var said bytes.Buffer
	node.Stderr = &said
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		if os.IsPermission(err) {
			t.Skip("a process cannot be put into another root here: ", err)
		}
		t.Fatal(err)
	}
	one := make([]byte, 1)
	if _, err := io.ReadFull(out, one); err != nil { // it tells its addresses when it is ready
		_ = node.Wait()
		t.Fatalf("the node did not start: %v: %s", err, &said)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	for _, args := range [][]string{{"status"}, {"kv", "put", "a", "b"}, {"kv", "get", "a"}, {"down"}} {
		if out, err := command(args...).CombinedOutput(); err != nil {
			t.Errorf("grid %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	if err := node.Wait(); err != nil {
		t.Errorf("the node ended with %v: %s", err, &said)
	}
	if err := filepath.WalkDir(home, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != uid {
			t.Errorf("%s is of user %d", path, info.Sys().(*syscall.Stat_t).Uid)
		}
		return err
	}); err != nil {
		t.Error(err)
	}

	// Removed, the home and what an administrator has changed stay.
	config := filepath.Join(root, "etc/default/grid")
	put(t, config, "GRID_UP_FLAGS=--no-mdns\n", 0o644)
	dpkg("--remove", "wasmgrid")
	if _, err := os.Stat(filepath.Join(root, "usr/bin/grid")); err == nil {
		t.Error("the command is still there")
	}
	for _, name := range []string{config, filepath.Join(home, "identity")} {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}

	t.Run("rpm", func(t *testing.T) {
		if _, err := exec.LookPath("rpm"); err != nil {
			t.Skip("rpm is not here: no RPM package is installed")
		}
		root, name := filepath.Join(dir, "rpmroot"), fmt.Sprintf("wasmgrid-%s-1.%s.rpm", grid.Version, rpmArch[runtime.GOARCH])
		put(t, filepath.Join(dir, name), string(files[name]), 0o644)
		put(t, filepath.Join(root, "var/lib/rpm/.keep"), "", 0o644)
		run(t, "rpm", "--root", root, "--install", "--nodeps", "--noscripts", "--nosignature", filepath.Join(dir, name))
		want, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(root, "usr/bin/grid")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the command is another one: %v", err)
		}
		run(t, "rpm", "--root", root, "--verify", "--nodeps", "--noscripts", "--nosignature", "wasmgrid")
	})
	t.Run("systemd", func(t *testing.T) {
		if _, err := exec.LookPath("systemd-analyze"); err != nil {
			t.Skip("systemd-analyze is not here: the unit is not checked")
		}
		unit := filepath.Join(dir, "grid.service")
		put(t, unit, strings.ReplaceAll(string(packaged("grid.service")), "/usr/bin/grid", program), 0o644)
		if said := run(t, "systemd-analyze", "verify", "--man=no", unit); strings.Contains(said, "grid.service") {
			t.Errorf("the unit: %s", said)
		}
	})
}

// copyLibs puts what a program is linked with into a root. A released command is linked with nothing.
func copyLibs(t *testing.T, root, program string) {
	t.Helper()
	libs, err := exec.Command("ldd", program).Output()
	if err != nil {
		return
	}
	for field := range strings.FieldsSeq(string(libs)) {
		if strings.HasPrefix(field, "/") {
			data, err := os.ReadFile(field)
			if err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(root, field), string(data), 0o755)
		}
	}
}
