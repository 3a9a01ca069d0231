package e2e

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/wasmgrid/wasmgrid"

// room is one wall of the house: what a folder and those below it may import of ours. The longest
// prefix that matches a package decides. A room always sees its own subfolders.
type room struct {
	dir  string
	ours []string // folders, with all below them
	std  bool     // of others, only the standard library
}

var rooms = []room{
	{dir: "grid"},
	{dir: "grid/api", ours: []string{"grid"}},
	{dir: "grid/dash", std: true},
	{dir: "grid/gridtest", ours: []string{"grid"}},
	{dir: "grid/internal", ours: []string{"grid"}},
	{dir: "sched", ours: []string{"grid"}},
	{dir: "p2p", ours: []string{"grid"}},
	{dir: "store", ours: []string{"grid"}},
	{dir: "wasmhost", ours: []string{"grid", "sdk/abi"}},
	{dir: "sdk", ours: []string{"sdk/abi"}, std: true},
	{dir: "plugins", ours: []string{"sdk"}, std: true},
	{dir: "cmd", ours: []string{"grid", "sched", "p2p", "store", "wasmhost", "sdk", "plugins"}},
	{dir: "e2e", ours: []string{"grid", "sched", "p2p", "store", "wasmhost", "sdk", "plugins", "cmd"}},
}

// testOnly is what tests of every room may import besides, since it is made for them.
var testOnly = []string{"grid/gridtest", "p2p/memnet"}

// libraries are kept behind the walls of a room, so that they can be replaced there. e2e is free. The bridge
// to IPFS is a member of another network than p2p's, whose table and peers it has to speak to.
var libraries = []struct {
	name    string
	prefix  []string
	but     []string // these are free
	allowed []string
}{
	{"libp2p hosts", []string{"github.com/libp2p/go-libp2p", "github.com/libp2p/go-libp2p-kad-dht"}, []string{"github.com/libp2p/go-libp2p/core"}, []string{"p2p", "store/ipfs"}},
	{"wazero", []string{"github.com/tetratelabs/wazero"}, nil, []string{"wasmhost"}},
	{"Raft", []string{"github.com/hashicorp/raft"}, nil, []string{"store/ledger"}},
	{"S3 clients", []string{"github.com/minio/minio-go", "github.com/aws"}, nil, []string{"store"}},
	{"block and key stores", []string{"github.com/cockroachdb/pebble", "github.com/ipfs/go-ds-pebble", "github.com/ipfs/boxo", "github.com/ipld/go-car"}, nil, []string{"store"}},
	{"datastores", []string{"github.com/ipfs/go-datastore"}, nil, []string{"store", "p2p"}}, // p2p: the table's records, with bounds
}

// below reports whether the slash-separated path p is dir or lies below it.
func below(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func belowAny(p string, dirs []string) bool {
	for _, d := range dirs {
		if below(p, d) {
			return true
		}
	}
	return false
}

// house is the packages of the module by folder, with their files.
type house struct {
	fset  *token.FileSet
	files map[string]map[string]*ast.File // folder, file name
}

func readHouse(t *testing.T) *house {
	t.Helper()
	root := ".."
	h := &house{token.NewFileSet(), map[string]map[string]*ast.File{}}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (name == "testdata" || name == "vendor" || name[0] == '.' || name[0] == '_') {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); p != root && err == nil {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || name[0] == '.' || name[0] == '_' {
			return nil
		}
		f, err := parser.ParseFile(h.fset, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(p))
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(rel)
		if h.files[dir] == nil {
			h.files[dir] = map[string]*ast.File{}
		}
		h.files[dir][name] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(h.files["grid"]) == 0 {
		t.Fatal("package grid was not found: the test runs in the wrong folder")
	}
	return h
}

func isTest(name string) bool { return strings.HasSuffix(name, "_test.go") }

// forTests reports whether a package is there for tests alone: its import of testing tells.
func forTests(dir string) bool {
	return below(dir, "grid/gridtest") || below(dir, "grid/internal/fake") || below(dir, "e2e")
}

func roomOf(dir string) (r room, ok bool) {
	for _, x := range rooms {
		if below(dir, x.dir) && len(x.dir) > len(r.dir) {
			r, ok = x, true
		}
	}
	return r, ok
}

func TestImports(t *testing.T) {
	h := readHouse(t)
	for dir, files := range h.files {
		r, ok := roomOf(dir)
		if !ok {
			t.Errorf("%s belongs to no room: add it to the table here, and to docs/ARCHITECTURE.md", dir)
			continue
		}
		for name, f := range files {
			for _, im := range f.Imports {
				p, _ := strconv.Unquote(im.Path.Value)
				if bad := forbidden(r, dir, p, isTest(name)); bad != "" {
					t.Errorf("%s: imports %s: %s", h.fset.Position(im.Pos()), p, bad)
				}
			}
		}
	}
}

// forbidden says why a file of room r may not import p, or "".
func forbidden(r room, dir, p string, test bool) string {
	if ours, ok := strings.CutPrefix(p, module+"/"); ok {
		switch {
		case below(ours, "e2e") && !below(dir, "e2e"):
			return "nobody else imports e2e"
		case below(ours, "cmd") && !below(dir, "cmd") && !below(dir, "e2e"):
			return "nobody below imports cmd"
		case below(ours, "grid/gridtest") && !test && !forTests(dir):
			return "only tests import gridtest"
		case below(ours, r.dir) && !isWall(r.dir, ours), belowAny(ours, r.ours):
			return ""
		case test && (belowAny(ours, testOnly) || below(ours, r.dir)):
			return ""
		}
		return fmt.Sprintf("%s may import only %v of ours", r.dir, append([]string{r.dir}, r.ours...))
	}
	if r.std && strings.Contains(strings.SplitN(p, "/", 2)[0], ".") && !test {
		return r.dir + " may import only the standard library"
	}
	for _, lib := range libraries {
		if belowAny(p, lib.prefix) && !belowAny(p, lib.but) && !belowAny(dir, lib.allowed) && !below(dir, "e2e") {
			return lib.name + " live only in " + strings.Join(lib.allowed, " and ")
		}
	}
	return ""
}

// isWall reports whether a folder below a room is another room, so that the one may not look into the
// other: grid does not import grid/api.
func isWall(dir, ours string) bool {
	r, _ := roomOf(ours)
	return r.dir != dir
}

// A node never dereferences a URL that somebody gives it: what does so is used by the command line alone.
func TestOutside(t *testing.T) {
	h := readHouse(t)
	for dir, files := range h.files {
		for name, f := range files {
			for _, im := range f.Imports {
				if p, _ := strconv.Unquote(im.Path.Value); p == module+"/store/remote" && dir != "cmd/grid/cli" {
					t.Errorf("%s/%s imports %s", dir, name, p)
				}
			}
		}
	}
}

func TestPackages(t *testing.T) {
	h := readHouse(t)
	for dir, files := range h.files {
		var comment, code bool
		for name, f := range files {
			if isTest(name) {
				continue
			}
			code = true
			if f.Doc != nil && len(f.Doc.Text()) > len("Package x.") {
				comment = true
			}
			switch f.Name.Name {
			case "util", "utils", "common", "helpers", "helper", "misc":
				t.Errorf("%s: package %s says nothing: name it for what it holds", dir, f.Name.Name)
			}
			if got := path.Base(dir); f.Name.Name != "main" && f.Name.Name != got && !strings.HasPrefix(got, "go") {
				t.Errorf("%s/%s: package %s is not named for its folder", dir, name, f.Name.Name)
			}
		}
		if code && !comment {
			t.Errorf("%s has no package comment: say what it is for and where it stops", dir)
		}
	}
}

func TestDocs(t *testing.T) {
	h := readHouse(t)
	for dir, files := range h.files {
		for name, f := range files {
			if isTest(name) || f.Name.Name == "main" {
				continue
			}
			for _, d := range f.Decls {
				for _, id := range undocumented(d) {
					t.Errorf("%s: %s.%s is exported without a comment", h.fset.Position(id.Pos()), path.Base(dir), id.Name)
				}
			}
		}
	}
}

// undocumented lists a declaration's exported names that have no comment. In a group the group's
// comment serves for constants, variables and types; methods of unexported types are not looked at.
func undocumented(d ast.Decl) (ids []*ast.Ident) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) && !wellKnown[d.Name.Name] {
			ids = append(ids, d.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					ids = append(ids, s.Name)
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						ids = append(ids, n)
					}
				}
			}
		}
	}
	return ids
}

// wellKnown methods say what they do by their names, wherever they are.
var wellKnown = map[string]bool{"String": true, "Error": true, "Unwrap": true, "Is": true, "Len": true, "Less": true, "Swap": true}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// Tests wait for what happens, or run in a synctest bubble; they do not sleep and hope.
func TestNoSleeps(t *testing.T) {
	h := readHouse(t)
	for dir, files := range h.files {
		if below(dir, "e2e") {
			continue
		}
		for name, f := range files {
			if !isTest(name) && !forTests(dir) {
				continue
			}
			bubbles := false
			for _, im := range f.Imports {
				bubbles = bubbles || im.Path.Value == `"testing/synctest"`
			}
			if bubbles {
				continue // time is simulated there
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" {
					if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" {
						t.Errorf("%s: a test sleeps: wait for an event, or use testing/synctest", h.fset.Position(s.Pos()))
					}
				}
				return true
			})
		}
	}
}

// The rules themselves: each is shown something it must refuse, so that a test that never fails is noticed.
func TestForbidden(t *testing.T) {
	for _, tt := range []struct {
		dir, imports string
		test, ok     bool
	}{
		{"grid", module + "/grid/api", false, false},
		{"grid", module + "/sched", false, false},
		{"grid", module + "/grid/internal/fake", true, true},
		{"grid/api", module + "/grid", false, true},
		{"sched", module + "/grid", false, true},
		{"sched", module + "/p2p", false, false},
		{"sched", module + "/p2p", true, false},
		{"sched/simulate", module + "/sched", false, true},
		{"sched", module + "/grid/gridtest", false, false},
		{"store/dag", module + "/grid/gridtest", true, true},
		{"store", module + "/p2p", true, false},
		{"wasmhost", module + "/sdk/abi", false, true},
		{"wasmhost", module + "/sdk", false, false},
		{"sdk", "github.com/ipfs/go-cid", false, false},
		{"plugins/wordcount", module + "/sdk", false, true},
		{"plugins/wordcount", module + "/grid", false, false},
		{"cmd/grid/daemon", module + "/store/block", false, true},
		{"cmd/grid/daemon", module + "/e2e", false, false},
		{"e2e/bench", module + "/e2e/bench/work", false, true},
		{"p2p", module + "/cmd/grid/cli", false, false},
		{"store", "github.com/libp2p/go-libp2p", false, false},
		{"store", "github.com/libp2p/go-libp2p/core/peer", false, true},
		{"p2p", "github.com/libp2p/go-libp2p/p2p/net/swarm", false, true},
		{"store/ipfs", "github.com/libp2p/go-libp2p-kad-dht", false, true},
		{"store/exchange", "github.com/libp2p/go-libp2p-kad-dht", false, false},
		{"store/ipfs", module + "/p2p", false, false},
		{"grid", "github.com/tetratelabs/wazero/api", true, false},
		{"p2p", "github.com/cockroachdb/pebble/v2", false, false},
		{"cmd/grid/cli", "github.com/minio/minio-go/v7", false, false},
		{"store/remote", "github.com/minio/minio-go/v7", false, true},
	} {
		r, _ := roomOf(tt.dir)
		if got := forbidden(r, tt.dir, tt.imports, tt.test); (got == "") != tt.ok {
			t.Errorf("%s importing %s (test: %v): %q", tt.dir, tt.imports, tt.test, got)
		}
	}
}
