package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// TestRemoteAPI: who has a token runs jobs from another home, does what its role allows and nothing else, on all nodes of the
// realm, until it is removed.
func TestRemoteAPI(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	a := w.Up("a", "--workers", "1", "--api", "127.0.0.1:0")
	b := w.Up("b", "--workers", "1", "--api", "127.0.0.1:0")
	w.Meet(a, b)
	Eventually(t, "they share a realm", func(ctx context.Context) error {
		st, err := b.LedgerStatus(ctx)
		if err == nil && len(st.Members) != 2 {
			err = fmt.Errorf("%d nodes", len(st.Members))
		}
		return err
	})
	there, err := b.Node(t.Context())
	if err != nil || len(there.Remote) != 1 {
		t.Fatal(there.Remote, err)
	}
	token := strings.TrimSpace(a.Must("token", "create", "--role", "submitter", "--name", "ann", "--at", there.Remote[0]))
	viewer := strings.TrimSpace(a.Must("token", "create", "--name", "vic"))
	far := func(args ...string) Result { return w.Grid(append([]string{"--api", token}, args...)...) }
	must := func(args ...string) string {
		t.Helper()
		r := far(args...)
		if r.Exit != 0 {
			t.Fatalf("grid %s: %+v", args, r)
		}
		return r.Stdout
	}
	const tasks, rounds = 20, 1000
	job := strings.TrimSpace(must("run", burn(t), "--count", strconv.Itoa(tasks), "--detach", "--", strconv.Itoa(rounds)))
	must("wait", job)
	if got := must("logs", job); !strings.Contains(got, strings.SplitN(burned(tasks, rounds), "\n", 2)[0]) {
		t.Errorf("logs: %s", got)
	}
	if got := output(t, a, job); got != burned(tasks, rounds) {
		t.Errorf("wrong results:\n%s", got)
	}
	if st := a.Status(job); st.User != "ann" {
		t.Errorf("it ran for %q", st.User)
	}
	if log := a.Must("audit"); !strings.Contains(log, "for ann") || !strings.Contains(log, "token.create") {
		t.Errorf("the audit log:\n%s", log)
	}
	file := filepath.Join(w.dir, "file")
	if err := os.WriteFile(file, []byte(strings.Repeat("some data ", 1<<19)), 0o600); err != nil {
		t.Fatal(err)
	}
	root := strings.Fields(must("add", file))[0]
	if got := must("cat", root); got != strings.Repeat("some data ", 1<<19) {
		t.Errorf("%d bytes came back", len(got))
	}
	must("kv", "put", "k", "v")
	small := filepath.Join(w.dir, "small")
	if err := os.WriteFile(small, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}

	for _, no := range []struct {
		say  string
		args []string
	}{
		{"needs the role admin", []string{"down"}},
		{"needs the role admin", []string{"secret", "set", "s", small}},
		{"needs the role admin", []string{"token", "create", "--role", "admin"}},
		{"needs the role admin", []string{"token", "ls"}},
		{"needs the role admin", []string{"store", "gc"}},
		{"needs the role admin", []string{"plugin", "policy", "--require-signature", "plugins"}},
		{"needs the role admin", []string{"ledger", "remove", b.ID}},
		{"the token is that of \"ann\"", []string{"run", burn(t), "--user", "bob", "--", "1"}},
		{"home on this machine", []string{"swarm", "init"}},
		{"home on this machine", []string{"doctor"}},
	} {
		if r := far(no.args...); r.Exit == 0 || !strings.Contains(r.Stderr, no.say) {
			t.Errorf("%v: %+v", no.args, r)
		}
	}
	for _, args := range [][]string{{"kv", "put", "k", "w"}, {"add", file}, {"cancel", job}, {"run", burn(t), "--", "1"}} {
		if r := w.Grid(append([]string{"--api", viewer}, args...)...); r.Exit != 77 || !strings.Contains(r.Stderr, "needs the role submitter") {
			t.Errorf("a viewer, %v: %+v", args, r)
		}
	}
	if r := w.Grid("--api", viewer, "kv", "get", "k"); r.Stdout != "v" {
		t.Errorf("a viewer reads: %+v", r)
	}
	for what, r := range map[string]Result{
		"that is cut":  w.Grid("--api", token[:100], "ps"),
		"an http URL":  w.Grid("--api", "http://127.0.0.1:4748", "ps"),
		"no token":     w.Grid("--api", there.Remote[0], "ps"),
		"another node": w.Grid("--api", strings.Split(there.Remote[0], "#")[0]+"#47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU", "ps"),
	} {
		if r.Exit == 0 || !strings.Contains(r.Stderr, "hint:") {
			t.Errorf("%s: %+v", what, r)
		}
	}
	if st := a.Must("status", "--metrics"); !strings.Contains(st, `protocol="api",reason="denied"`) {
		t.Error("what was refused is not in the metrics")
	}

	// The other node takes it, too; when the first has died, without being told; and not when it was removed.
	key, err := api.ParseKey(token)
	if err != nil || len(key.At) != 2 {
		t.Fatalf("%+v, %v", key, err)
	}
	onB := api.DialRemote(key, key.At[1])
	defer onB.Close()
	if _, err := onB.Jobs(t.Context()); err != nil {
		t.Errorf("the other node: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- onB.KVWatch(t.Context(), "k", nil, func(api.KVChanges) error { return nil }) }()
	a.Must("token", "rm", "ann")
	began := time.Now()
	Eventually(t, "it is refused by the other node", func(ctx context.Context) error {
		if _, err := onB.Node(ctx); grid.CodeOf(err) != grid.Denied {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
	t.Logf("refused %v after it was removed", time.Since(began))
	if err := <-ended; err == nil {
		t.Error("what went on with it has ended without an error")
	}
	admin := strings.TrimSpace(b.Must("token", "create", "--role", "admin", "--name", "root"))
	if r := w.Grid("--api", admin, "token", "ls", "--json"); r.Exit != 0 || strings.Contains(r.Stdout, "ann") || !strings.Contains(r.Stdout, "vic") {
		t.Errorf("an admin lists tokens: %+v", r)
	}
	if r := w.Grid("--api", admin, "down"); r.Exit != 0 {
		t.Errorf("an admin ends the node: %+v", r)
	}
	<-b.done
}

// TestRemoteDocs runs what docs/remote.md shows.
func TestRemoteDocs(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"bash", "curl", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("GRID_TOOLCHAINS") == "all" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	doc, err := os.ReadFile("../docs/remote.md")
	if err != nil {
		t.Fatal(err)
	}
	w := NewWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	var script strings.Builder
	script.WriteString("set -euo pipefail\necho some notes >notes.txt\n")
	blocks := strings.Split(string(doc), "```sh\n")[1:]
	for _, b := range blocks {
		b, _, _ = strings.Cut(b, "```")
		b = strings.Replace(b, "grid up -d --api 0.0.0.0:4748", "grid up -d --no-mdns --swarm "+w.swarm+" --listen /ip4/127.0.0.1/tcp/0 --api "+at, 1)
		script.WriteString(b)
	}
	if len(blocks) != 3 {
		t.Errorf("%d blocks", len(blocks))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	t.Cleanup(func() { w.Grid("down") })
	cmd := exec.CommandContext(ctx, "bash", "-c", script.String())
	cmd.Dir, cmd.Env = w.dir, append(w.env, "PATH="+filepath.Dir(binary(t))+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "hello") < 2 || !strings.Contains(string(out), `"kind":"dir"`) {
		t.Errorf("%v:\n%s", err, out)
	}
	var st grid.NodeStatus
	if err := json.Unmarshal([]byte(w.Must("status", "--json")), &st); err != nil || len(st.Remote) != 1 || !strings.HasPrefix(st.Remote[0], "https://"+at+"#") {
		t.Errorf("%+v, %v", st, err)
	}
}
