package main

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"strings"
	"time"

	"github.com/google/rpmpack"
)

// pack is a package for a distribution of Linux.
type pack struct {
	name, version, arch string
	when                time.Time
	level               int // of gzip
	files               []file
}

const (
	summary     = "Run WebAssembly over many machines"
	description = "A peer-to-peer compute grid: nodes find one another, replicate content-addressed data, and run tasks in WebAssembly sandboxes; idle " +
		"nodes take work from busy ones."
	homepage   = "https://github.com/wasmgrid/wasmgrid"
	maintainer = "The Grid authors <noreply@wasmgrid.invalid>"
)

// deb is the package for Debian and its kin: an ar archive of three files, as deb(5) says.
func (p *pack) deb() ([]byte, error) {
	size := 0
	var sums, config strings.Builder
	for _, f := range sorted(p.files) {
		size += (len(f.data) + 1023) / 1024
		if f.config {
			fmt.Fprintf(&config, "/%s\n", f.name)
		} else {
			fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(f.data), f.name)
		}
	}
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: %s\nInstalled-Size: %d\nDepends: passwd\nSection: net\nPriority: optional\nHomepage: %s\nDescription: %s\n %s\n",
		p.name, p.version, p.arch, maintainer, size, homepage, summary, description)
	about, err := tarball(".", []file{
		{name: "control", data: []byte(control)}, {name: "md5sums", data: []byte(sums.String())}, {name: "conffiles", data: []byte(config.String())},
		{name: "postinst", data: packaged("postinst"), exec: true}, {name: "prerm", data: packaged("prerm"), exec: true},
	}, p.when, p.level)
	if err != nil {
		return nil, err
	}
	data, err := tarball(".", p.files, p.when, p.level)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.gz", about}, {"data.tar.gz", data}} {
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, p.when.Unix(), 0, 0, "100644", len(m.data))
		out.Write(m.data)
		if len(m.data)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	return out.Bytes(), nil
}

// rpmArch are RPM's names of processors.
var rpmArch = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

func (p *pack) rpm() ([]byte, error) {
	r, err := rpmpack.NewRPM(rpmpack.RPMMetaData{
		Name: p.name, Version: p.version, Release: "1", Arch: rpmArch[p.arch], OS: "linux", Summary: summary, Description: description,
		URL: homepage, Packager: maintainer, Licence: "Apache-2.0", BuildHost: "localhost", BuildTime: p.when, Compressor: fmt.Sprintf("gzip:%d", p.level),
	})
	if err != nil {
		return nil, err
	}
	for _, f := range p.files {
		kind := rpmpack.GenericFile
		if f.config {
			kind = rpmpack.ConfigFile | rpmpack.NoReplaceFile
		}
		name := "/" + strings.Replace(f.name, "zsh/vendor-completions", "zsh/site-functions", 1)
		r.AddFile(rpmpack.RPMFile{Name: name, Body: f.data, Mode: uint(f.mode()) | 0o100000, Owner: "root", Group: "root", MTime: uint32(p.when.Unix()), Type: kind})
	}
	r.AddPostin(string(packaged("postinst")))
	r.AddPreun(string(packaged("prerm")))
	var out bytes.Buffer
	err = r.Write(&out)
	return out.Bytes(), err
}
