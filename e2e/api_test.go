package e2e

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAPIDocs runs what docs/api.md shows, over the socket and over the network.
func TestAPIDocs(t *testing.T) {
	for _, tool := range []string{"bash", "curl", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("GRID_TOOLCHAINS") == "all" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	doc, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, b := range strings.Split(string(doc), "```sh\n")[1:] {
		b, _, _ = strings.Cut(b, "```")
		blocks = append(blocks, b)
	}
	network := slices.IndexFunc(blocks, func(b string) bool { return strings.Contains(b, "--api 0.0.0.0:4748") })
	if network < 0 {
		t.Fatal("no block is about the network")
	}
	for name, blocks := range map[string][]string{"socket": slices.Delete(slices.Clone(blocks), network, network+1), "network": blocks} {
		t.Run(name, func(t *testing.T) {
			w := NewWorld(t)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			at := l.Addr().String()
			l.Close()
			script := "set -euo pipefail\n" + strings.Join(blocks, "")
			script = strings.ReplaceAll(script, "grid up -d", "grid up -d --no-mdns --swarm "+w.swarm+" --listen /ip4/127.0.0.1/tcp/0")
			script = strings.ReplaceAll(script, "0.0.0.0:4748", at)
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
		})
	}
}
