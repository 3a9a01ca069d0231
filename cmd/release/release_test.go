package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/cli"
	"github.com/wasmgrid/wasmgrid/grid"
)

var when = time.Unix(1_700_000_000, 0).UTC()

// run runs a program, which must be there, and tells what it said.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestManual: every command has a page with its description, and examples where it runs.
func TestManual(t *testing.T) {
	pages := make(map[string]string)
	for _, f := range manual(cli.Command(), when) {
		if _, again := pages[f.name]; again {
			t.Errorf("%s is there twice", f.name)
		}
		pages[f.name] = string(f.data)
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		p := pages[pageName(c)+".1"]
		for _, want := range []string{".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"} {
			if !strings.Contains(p, want) {
				t.Errorf("the page of %s lacks %s", c.CommandPath(), want)
			}
		}
		if c.Runnable() && c.HasParent() && !strings.Contains(p, ".SH EXAMPLES") {
			t.Errorf("the page of %s has no examples", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(cli.Command())
	if n := len(pages); n < 80 {
		t.Errorf("%d pages only", n)
	}
	if p := pages["grid-up.1"]; !strings.Contains(p, `\-\-join`) || !strings.Contains(p, ".SH OPTIONS OF ALL COMMANDS") || !strings.Contains(p, `2023\-`) && !strings.Contains(p, "2023-") {
		t.Errorf("grid-up.1 lacks something: %.600s", p)
	}
	if got := roff(".x\n'y\\z"); got != "\\&.x\n\\(aqy\\ez" {
		t.Errorf("escaped: %q", got)
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		return
	}
	for name, p := range pages {
		cmd := exec.Command(groff, "-man", "-Tascii", "-ww", "-z")
		cmd.Stdin = strings.NewReader(p)
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "macro") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

// TestPackages builds those of this machine's processor, and looks at them with the distributions' own tools, where these are.
func TestPackages(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "grid") // in place of the real one, which takes minutes to compress as well as to build
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho grid "+grid.Version+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	files, err := contents("../..", target{"linux", runtime.GOARCH}, program, when, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	// A second time: the same bytes.
	again, err := contents("../..", target{"linux", runtime.GOARCH}, program, when, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	for name := range files {
		if !bytes.Equal(files[name], again[name]) {
			t.Errorf("%s has other bytes each time", name)
		}
	}
	name := fmt.Sprintf("wasmgrid_%s_%s.deb", grid.Version, runtime.GOARCH)
	if len(files) != 3 || files[name] == nil || !bytes.HasPrefix(files[fmt.Sprintf("wasmgrid-%s-1.%s.rpm", grid.Version, rpmArch[runtime.GOARCH])], []byte{0xed, 0xab, 0xee, 0xdb}) {
		t.Fatalf("%d files", len(files))
	}
	if _, err := exec.LookPath("rpm"); err == nil {
		name := fmt.Sprintf("wasmgrid-%s-1.%s.rpm", grid.Version, rpmArch[runtime.GOARCH])
		rpm := filepath.Join(dir, name)
		if err := os.WriteFile(rpm, files[name], 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "rpm", "--dbpath", filepath.Join(dir, "rpmdb"), "--checksig", "--nosignature", rpm)
		said := run(t, "rpm", "--dbpath", filepath.Join(dir, "rpmdb"), "--query", "--nosignature", "--package", "--list", "--scripts", "--info", rpm)
		for _, want := range []string{"/usr/bin/grid\n", "/usr/lib/systemd/system/grid.service\n", "/usr/share/zsh/site-functions/_grid\n", "systemd-sysusers", "Apache-2.0"} {
			if !strings.Contains(said, want) {
				t.Errorf("the RPM package lacks %q: %s", want, said)
			}
		}
	}
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("dpkg-deb is not here: what is in the package is not looked at")
	}
	deb := filepath.Join(dir, name)
	if err := os.WriteFile(deb, files[name], 0o600); err != nil {
		t.Fatal(err)
	}
	info := run(t, "dpkg-deb", "--info", deb)
	for _, want := range []string{"Package: wasmgrid", "Version: " + grid.Version, "Architecture: " + runtime.GOARCH, "postinst", "prerm", "conffiles", "md5sums"} {
		if !strings.Contains(info, want) {
			t.Errorf("the package lacks %q: %s", want, info)
		}
	}
	list := run(t, "dpkg-deb", "--contents", deb)
	for _, want := range []string{
		" ./usr/bin/grid\n", " ./usr/lib/systemd/system/grid.service\n", " ./usr/lib/sysusers.d/grid.conf\n", " ./etc/default/grid\n", " ./usr/share/man/man1/grid-up.1.gz\n",
		" ./usr/share/bash-completion/completions/grid\n", " ./usr/share/doc/wasmgrid/copyright\n", " ./usr/share/zsh/vendor-completions/_grid\n",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("the package lacks%s", want)
		}
	}
	for line := range strings.Lines(list) {
		if !strings.Contains(line, " root/root ") || !strings.HasPrefix(line, "drwxr-xr-x") && !strings.HasPrefix(line, "-rw-r--r--") && !strings.HasPrefix(line, "-rwxr-xr-x") {
			t.Errorf("in the package: %s", line)
		}
	}
	root := filepath.Join(dir, "root")
	run(t, "dpkg-deb", "--extract", deb, root)
	run(t, "dpkg-deb", "--control", deb, filepath.Join(dir, "control"))
	for _, script := range []string{"postinst", "prerm"} {
		run(t, "sh", "-n", filepath.Join(dir, "control", script))
	}
	if got := run(t, filepath.Join(root, "usr/bin/grid"), "--version"); !strings.Contains(got, grid.Version) {
		t.Errorf("the command says %q", got)
	}
}

// TestArchives looks at what is in those of all systems.
func TestArchives(t *testing.T) {
	program := filepath.Join(t.TempDir(), "grid")
	if err := os.WriteFile(program, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, to := range targets {
		files, err := contents("../..", to, program, when, gzip.BestSpeed)
		if err != nil {
			t.Fatal(err)
		}
		base := fmt.Sprintf("grid_%s_%s_%s", grid.Version, to.os, to.arch)
		var names []string
		if data := files[base+".zip"]; data != nil {
			z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range z.File {
				names = append(names, f.Name)
			}
		} else {
			z, err := gzip.NewReader(bytes.NewReader(files[base+".tar.gz"]))
			if err != nil {
				t.Fatal(to, err)
			}
			for r := tar.NewReader(z); ; {
				h, err := r.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if !h.ModTime.Equal(when) || h.Uid != 0 {
					t.Errorf("%s: %s is of %v and %d", to, h.Name, h.ModTime, h.Uid)
				}
				names = append(names, h.Name)
			}
		}
		want := []string{"/LICENSE", "/README.md", "/completions/grid.bash", "/completions/_grid", "/completions/grid.fish", "/completions/grid.ps1"}
		switch to.os {
		case "windows":
			want = append(want, "/grid.exe")
		case "linux":
			want = append(want, "/grid", "/man/grid.1", "/man/grid-run.1", "/systemd/grid.service")
		default:
			want = append(want, "/grid", "/man/grid-run.1")
		}
		for _, name := range want {
			if !slices.Contains(names, base+name) {
				t.Errorf("%s lacks %s: %q", to, name, names)
			}
		}
	}
	if _, err := choose("linux/amd64,linux/mips"); err == nil {
		t.Error("a system that is none was taken")
	}
}

// TestInstall installs from a folder with a release, and from one with an archive that was changed.
func TestInstall(t *testing.T) {
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		t.Skip("the installer is for Linux and macOS")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "grid")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho grid "+grid.Version+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	files, err := contents("../..", target{runtime.GOOS, runtime.GOARCH}, program, when, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	from, home := filepath.Join(dir, "from"), filepath.Join(dir, "home")
	for _, d := range []string{from, home} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	sums, archive := "", ""
	for name, data := range files {
		sums += fmt.Sprintf("%x  %s\n", sha256.Sum256(data), name)
		if strings.HasSuffix(name, ".tar.gz") {
			archive = name
		}
		if err := os.WriteFile(filepath.Join(from, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(from, "SHA256SUMS"), []byte(sums), 0o600); err != nil {
		t.Fatal(err)
	}
	install := func() (string, error) {
		cmd := exec.Command("sh", "packaging/install.sh", "--from", from)
		cmd.Env = append(os.Environ(), "HOME="+home)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	damaged := append([]byte(nil), files[archive]...)
	damaged[len(damaged)/2]++
	if err := os.WriteFile(filepath.Join(from, archive), damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := install(); err == nil || !strings.Contains(out, "is not what SHA256SUMS says") {
		t.Errorf("a changed archive: %v: %s", err, out)
	}
	if left, _ := os.ReadDir(home); len(left) > 0 {
		t.Errorf("it was installed nevertheless: %v", left)
	}
	if err := os.WriteFile(filepath.Join(from, archive), files[archive], 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // an update is the same
		if out, err := install(); err != nil || !strings.Contains(out, "installed grid "+grid.Version) || !strings.Contains(out, "PATH") {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, name := range []string{"bin/grid", "share/man/man1/grid-up.1", "share/bash-completion/completions/grid", "share/zsh/site-functions/_grid", "share/fish/vendor_completions.d/grid.fish"} {
		if _, err := os.Stat(filepath.Join(home, ".local", name)); err != nil {
			t.Error(err)
		}
	}
	if out, err := exec.Command("sh", "packaging/install.sh", "--from", "http://127.0.0.1/x").CombinedOutput(); err == nil || !strings.Contains(string(out), "only https") {
		t.Errorf("without TLS: %v: %s", err, out)
	}
}
