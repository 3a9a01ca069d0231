//go:build unix

package e2e

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
)

// TestExtism runs a plug-in that was built with Extism's Go PDK, as docs/extism.md has it.
func TestExtism(t *testing.T) {
	t.Parallel()
	plugin := toolchain.Nested(t, filepath.Join(repo(t), "wasmhost", "testdata", "extism", "plugin"), "-buildmode=c-shared")
	w := NewWorld(t)
	put := func(name, text string) string {
		file := filepath.Join(w.dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	file := put("plugin.wasm", string(plugin))
	put("a.txt", "hello world")
	put("b.txt", "no such luck")
	got := w.Must("run", file, "--func", "count_vowels", "--each", filepath.Join(w.dir, "*.txt"), "--env", "vowels=eou")
	if want := `{"count":3,"total":3,"vowels":"eou"}{"count":3,"total":3,"vowels":"eou"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if r := w.Grid("run", file, "--func", "fail", "--stdin", filepath.Join(w.dir, "b.txt")); r.Exit != 7 || !strings.Contains(r.Stderr, "no luck with no such luck") {
		t.Errorf("exit code %d: %s", r.Exit, r.Stderr)
	}

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Server", "here") }))
	defer server.Close()
	args := []string{"run", file, "--func", "fetch", "--env", "url=" + server.URL}
	if r := w.Grid(args...); r.Exit == 0 || !strings.Contains(r.Stderr, "not allowed to reach") {
		t.Errorf("exit code %d without a grant: %s", r.Exit, r.Stderr)
	}
	if got := w.Must(append(args, "--allow-net", strings.TrimPrefix(server.URL, "http://"))...); got != "200 here " {
		t.Errorf("%q", got)
	}
}
