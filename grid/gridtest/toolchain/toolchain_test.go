package toolchain

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// outcome is a test that panics with how it ends.
type outcome struct{ testing.TB }

func (outcome) Helper()           {}
func (outcome) Fatal(args ...any) { panic("fail: " + fmt.Sprint(args...)) }
func (outcome) Skip(args ...any)  { panic("skip: " + fmt.Sprint(args...)) }

// ends tells how a test ended.
func ends(test func(testing.TB)) (how string) {
	defer func() { how, _ = recover().(string) }()
	test(outcome{})
	return ""
}

// Where nothing can be built, a test is skipped with what to install, or fails if that was promised.
func TestMissing(t *testing.T) {
	for promise, how := range map[string]string{"": "skip: ", "all": "fail: "} {
		t.Setenv(Require, promise)
		l := language{
			name: "Made-up", packages: "made-up-compiler", probe: "probe.x",
			compilers: []compiler{{command: []string{"no-such-compiler"}}, {command: []string{"false"}}},
		}
		for range 2 {
			got := ends(func(tb testing.TB) { l.need(tb) })
			for _, part := range []string{how, "Made-up", "install made-up-compiler", "no-such-compiler", "false"} {
				if !strings.Contains(got, part) {
					t.Errorf("%s=%q: %q, want %q in it", Require, promise, got, part)
				}
			}
		}
	}
}

func TestBuild(t *testing.T) {
	for name, build := range map[string]func(testing.TB) []byte{
		"Go":   func(tb testing.TB) []byte { return Go(tb, "./testdata/go") },
		"C":    func(tb testing.TB) []byte { return C(tb, "testdata/c/main.c") },
		"Rust": func(tb testing.TB) []byte { return Rust(tb, "testdata/rust/main.rs") },
		"AssemblyScript": func(tb testing.TB) []byte {
			return AssemblyScript(tb, "testdata/assemblyscript/main.ts", "--runtime=stub")
		},
	} {
		t.Run(name, func(t *testing.T) {
			first := build(t)
			if !bytes.HasPrefix(first, []byte("\x00asm\x01\x00\x00\x00")) {
				t.Fatalf("%d bytes are no module: %q", len(first), first[:min(len(first), 20)])
			}
			first[0] = 1 // it is the caller's
			if again := build(t); again[0] != 0 {
				t.Error("the same bytes were given twice")
			}
		})
	}
	if how := ends(func(tb testing.TB) { Go(tb, "./testdata/broken") }); !strings.HasPrefix(how, "fail: ") || !strings.Contains(how, "undefined: missing") {
		t.Errorf("a broken program: %q", how)
	}
}
