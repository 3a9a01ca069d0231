package main

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/tools/go/packages"
)

// TestSystems checks the types of all code, of all tests, and of what they use of libraries, as every system of a release has them: a file or a call that
// one of them lacks is found. To build them all would take a quarter of an hour of processor time.
func TestSystems(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while; -short was given")
	}
	for _, to := range targets {
		if to.os == runtime.GOOS && to.arch == runtime.GOARCH {
			continue
		}
		load := &packages.Config{
			Mode:  packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports | packages.NeedDeps | packages.NeedTypes | packages.NeedTypesSizes | packages.NeedSyntax,
			Dir:   "../..",
			Tests: to.arch == "arm64", // which system it is makes more of a difference to tests
			Env:   append(os.Environ(), "GOOS="+to.os, "GOARCH="+to.arch, "CGO_ENABLED=0"),
		}
		all, err := packages.Load(load, "./...")
		if err != nil {
			t.Fatalf("%s: %v", to, err)
		}
		seen := 0
		packages.Visit(all, nil, func(p *packages.Package) {
			seen++
			for _, err := range p.Errors {
				t.Errorf("%s: %v", to, err)
			}
		})
		if seen < 500 {
			t.Errorf("%s: only %d packages", to, seen)
		}
	}
}
