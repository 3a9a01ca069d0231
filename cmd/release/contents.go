package main

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/wasmgrid/wasmgrid/cmd/grid/cli"
	"github.com/wasmgrid/wasmgrid/grid"
)

//go:embed packaging
var packaging embed.FS

// file is one of an archive or a package.
type file struct {
	name   string // with slashes
	data   []byte
	exec   bool
	config bool // an administrator's changes to it stay
}

func packaged(name string) []byte {
	data, err := packaging.ReadFile("packaging/" + name)
	if err != nil {
		panic(err) // it is embedded
	}
	return data
}

// contents makes the archive of a target, and its packages, by name, compressed at a level of gzip.
func contents(root string, t target, binary string, when time.Time, level int) (map[string][]byte, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	license, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		return nil, err
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		return nil, err
	}
	done, err := completions()
	if err != nil {
		return nil, err
	}
	pages := manual(cli.Command(), when)
	all := make(map[string][]byte)

	base := fmt.Sprintf("grid_%s_%s_%s", grid.Version, t.os, t.arch)
	files := []file{{name: "LICENSE", data: license}, {name: "README.md", data: readme}}
	for _, f := range done {
		files = append(files, file{name: "completions/" + f.name, data: f.data})
	}
	if t.os == "windows" {
		files = append(files, file{name: "grid.exe", data: program, exec: true})
		all[base+".zip"], err = zipped(base, files, when)
		return all, err
	}
	files = append(files, file{name: "grid", data: program, exec: true})
	for _, f := range pages {
		files = append(files, file{name: "man/" + f.name, data: f.data})
	}
	if t.os == "linux" {
		for _, name := range []string{"grid.service", "grid.sysusers", "grid.default"} {
			files = append(files, file{name: "systemd/" + name, data: packaged(name)})
		}
	}
	if all[base+".tar.gz"], err = tarball(base, files, when, level); err != nil || t.os != "linux" {
		return all, err
	}

	p := &pack{name: "wasmgrid", version: grid.Version, arch: t.arch, when: when, level: level, files: []file{
		{name: "usr/bin/grid", data: program, exec: true},
		{name: "usr/lib/systemd/system/grid.service", data: packaged("grid.service")},
		{name: "usr/lib/sysusers.d/grid.conf", data: packaged("grid.sysusers")},
		{name: "etc/default/grid", data: packaged("grid.default"), config: true},
		{name: "usr/share/doc/wasmgrid/copyright", data: license},
		{name: "usr/share/doc/wasmgrid/README.md", data: readme},
		{name: "usr/share/bash-completion/completions/grid", data: done[0].data},
		{name: "usr/share/zsh/vendor-completions/_grid", data: done[1].data},
		{name: "usr/share/fish/vendor_completions.d/grid.fish", data: done[2].data},
	}}
	for _, f := range pages {
		data, err := gzipped(f.data, level)
		if err != nil {
			return nil, err
		}
		p.files = append(p.files, file{name: path.Join("usr/share/man/man1", f.name+".gz"), data: data})
	}
	if all[fmt.Sprintf("wasmgrid_%s_%s.deb", grid.Version, t.arch)], err = p.deb(); err != nil {
		return nil, err
	}
	all[fmt.Sprintf("wasmgrid-%s-1.%s.rpm", grid.Version, rpmArch[t.arch])], err = p.rpm()
	return all, err
}

// completions are those for bash, zsh, fish and PowerShell, in this order.
func completions() ([]file, error) {
	root := cli.Command()
	var bash, zsh, fish, power bytes.Buffer
	for _, err := range []error{
		root.GenBashCompletionV2(&bash, true), root.GenZshCompletion(&zsh), root.GenFishCompletion(&fish, true), root.GenPowerShellCompletionWithDesc(&power),
	} {
		if err != nil {
			return nil, err
		}
	}
	return []file{{name: "grid.bash", data: bash.Bytes()}, {name: "_grid", data: zsh.Bytes()}, {name: "grid.fish", data: fish.Bytes()}, {name: "grid.ps1", data: power.Bytes()}}, nil
}
