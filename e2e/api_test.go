//go:build unix

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAPIDocs runs what docs/api.md shows over the socket, and looks at what comes. Over the network TestDocsCommands runs it.
func TestAPIDocs(t *testing.T) {
	docsTools(t)
	p, err := readPage("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	network := slices.IndexFunc(p.blocks, func(b docBlock) bool { return strings.Contains(b.text, "grid token create") })
	if network < 0 {
		t.Fatal("no block is about the network")
	}
	script := "set -euo pipefail\n"
	for _, b := range slices.Delete(p.blocks, network, network+1) {
		script += b.text
	}
	w := NewWorld(t)
	script = strings.ReplaceAll(script, "grid up -d", "grid up -d --no-mdns --listen /ip4/127.0.0.1/tcp/0")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	t.Cleanup(func() { w.Grid("down") })
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir, cmd.Env = w.dir, append(w.env, "PATH="+filepath.Dir(binary(t))+string(os.PathListSeparator)+os.Getenv("PATH"))
	data, err := cmd.CombinedOutput()
	out := string(data)
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, want := range []string{`"state":"done"`, `"stdout":{`, `"kind":"started"`, `"code":"invalid"`, "colour", `"name":"hello.wasm"`, "event: end"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
}
