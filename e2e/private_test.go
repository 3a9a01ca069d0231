package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p/member"
)

// TestPrivateSwarm: a swarm is made, a second node joins it with a token and nothing else, and they share a job; who has no
// token gets nowhere, bad tokens are told apart, and who is revoked is out within seconds.
func TestPrivateSwarm(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	w.swarm = ""
	first := time.Now()
	id := strings.TrimSpace(w.Must("swarm", "init", "--name", "lab", "--home", filepath.Join(w.dir, "a")))
	if r := w.Grid("swarm", "init", "--home", filepath.Join(w.dir, "a")); r.Exit == 0 || !strings.Contains(r.Stderr, id) {
		t.Errorf("twice: %+v", r)
	}
	a := w.Up("a", "--workers", "1")
	if r := w.Grid("up", "--home", filepath.Join(w.dir, "x"), "--join", a.Must("swarm", "invite")[:60]); r.Exit == 0 || !strings.Contains(r.Stderr, "cut") {
		t.Errorf("a token that was cut: %+v", r)
	}
	t.Logf("after %v: a is up", time.Since(first))
	token := strings.TrimSpace(a.Must("swarm", "invite"))
	brief := strings.TrimSpace(a.Must("swarm", "invite", "--expires", "1s"))
	began := time.Now()
	b := w.Up("b", "--workers", "1", "--join", token)
	w.Meet(a, b)
	t.Logf("joined and met after %v", time.Since(began))

	shares := func(t *testing.T, n *Node) {
		t.Helper()
		a.Must("kv", "put", "k", "v")
		Eventually(t, "it shares the ledger", func(context.Context) error {
			if r := n.Grid("kv", "get", "k"); r.Exit != 0 || strings.TrimSpace(r.Stdout) != "v" {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
	}
	shares(t, b)
	const tasks, rounds = 80, 20_000
	var job string
	Eventually(t, "a job is run by both", func(context.Context) error { // on a busy machine one may be through before the other asks
		job = strings.TrimSpace(b.Must("run", burn(t), "--no-cache", "--count", strconv.Itoa(tasks), "--detach", "--", strconv.Itoa(rounds)))
		b.Must("wait", job)
		if st := b.Status(job); st.State != grid.Done || st.Stages[0].Nodes[a.ID] == 0 || st.Stages[0].Nodes[b.ID] == 0 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	if got := output(t, b, job); got != burned(tasks, rounds) {
		t.Errorf("wrong results:\n%s", got)
	}

	t.Logf("after %v: the job is done", time.Since(first))
	// Used up, expired, and of another swarm; each says what to do.
	refused := func(what, say string, args ...string) {
		t.Helper()
		r := w.Grid(append([]string{"up", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "--home", filepath.Join(w.dir, "x")}, args...)...)
		if r.Exit == 0 || !strings.Contains(r.Stderr, say) || !strings.Contains(r.Stderr, "hint:") {
			t.Errorf("%s: %+v", what, r)
		}
	}
	refused("used up", "used up", "--join", token)
	Eventually(t, "the brief token expires", func(context.Context) error {
		if r := w.Grid("up", "--home", filepath.Join(w.dir, "x"), "--join", brief); !strings.Contains(r.Stderr, "expired") {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	w.Must("swarm", "init", "--home", filepath.Join(w.dir, "c"))
	c := w.Up("c", "--no-nearby")
	foreign := strings.TrimSpace(c.Must("swarm", "invite"))
	if r := w.Grid("up", "--home", filepath.Join(w.dir, "c"), "--join", foreign); r.Exit == 0 {
		t.Errorf("a node that is up: %+v", r)
	}
	b.Must("down")
	if r := w.Grid("up", "--home", b.Home, "--join", foreign); r.Exit == 0 || !strings.Contains(r.Stderr, "leave") {
		t.Errorf("a member of another swarm: %+v", r)
	}

	t.Logf("after %v: bad tokens", time.Since(first))
	// The home remembers; a name of an open swarm, even the right one, is no way in.
	b = w.Up("b", "--workers", "1")
	w.Meet(a, b)
	info, err := a.Swarm(t.Context())
	if err != nil || info.ID != id || info.Members != 2 || info.Role != grid.RoleAdmin {
		t.Errorf("%+v, %v", info, err)
	}
	tok, err := member.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	ast, err := a.Node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x := w.Up("x", "--swarm", member.NetworkName(tok.Invitation.Swarm), "--join", ast.Addrs[0])
	Eventually(t, "the stranger is told", func(context.Context) error {
		if log := x.log.String(); !strings.Contains(log, "cannot join through a node") {
			return fmt.Errorf("its log: %s", log)
		}
		return nil
	})
	for _, n := range []*Node{a, b} {
		peers, err := n.Peers(t.Context())
		if err != nil || len(peers) != 1 {
			t.Errorf("peers of a member: %v, %v", peers, err)
		}
	}
	if peers, err := x.Peers(t.Context()); err != nil || len(peers) != 0 {
		t.Errorf("peers of a stranger: %v, %v", peers, err)
	}

	t.Logf("after %v: strangers", time.Since(first))
	// Revoked, while it owns a job.
	job = strings.TrimSpace(b.Must("run", burn(t), "--count", "100000", "--detach", "--", strconv.Itoa(rounds)))
	Eventually(t, "the job is shared", func(context.Context) error {
		if st := b.Status(job); st.Stages[0].Nodes[a.ID] == 0 {
			return fmt.Errorf("%+v", st.Stages)
		}
		return nil
	})
	a.Must("member", "revoke", b.ID)
	began = time.Now()
	Eventually(t, "the revoked node is cut off", func(ctx context.Context) error {
		for _, n := range []*Node{a, b} {
			if peers, err := n.Peers(ctx); err != nil || len(peers) > 0 {
				return fmt.Errorf("%v, %v", peers, err)
			}
		}
		return nil
	})
	t.Logf("cut off after %v", time.Since(began))
	Eventually(t, "its job ends", func(context.Context) error {
		st := a.Status(job)
		if st.State != grid.Failed || !strings.Contains(st.Error, "was revoked") {
			return fmt.Errorf("%s: %s", st.State, st.Error)
		}
		return nil
	})
	t.Logf("its job has ended after %v", time.Since(began))
	if why := a.Must("job", "--why", job); !strings.Contains(why, "was revoked") {
		t.Errorf("grid job --why: %s", why)
	}
	var list []grid.SwarmMember
	if err := json.Unmarshal([]byte(a.Must("member", "ls", "--all", "--json")), &list); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	for _, m := range list {
		if want := map[string]string{a.ID: "member", b.ID: "revoked"}[m.ID]; m.State != want {
			t.Errorf("%+v", m)
		}
	}
	b.Must("down")
	if r := b.Grid("up"); r.Exit == 0 || !strings.Contains(r.Stderr, "was revoked") || !strings.Contains(r.Stderr, "new token") {
		t.Errorf("a revoked node that starts: %+v", r)
	}

	t.Logf("after %v: revoked", time.Since(first))
	// A worker shares the ledger, but keeps no copy of it; and leaves.
	d := w.Up("d", "--join", strings.TrimSpace(a.Must("swarm", "invite", "--role", "worker")))
	w.Meet(a, d)
	shares(t, d)
	Eventually(t, "the worker keeps no copy", func(ctx context.Context) error {
		st, err := d.LedgerStatus(ctx)
		if err == nil && st.Role != grid.Client {
			err = fmt.Errorf("it is a %s", st.Role)
		}
		return err
	})
	t.Logf("after %v: the worker", time.Since(first))
	secret := filepath.Join(w.dir, "token")
	if err := os.WriteFile(secret, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Must("secret", "set", "token", secret)
	// What a job was granted its tasks have on a worker, too.
	a.Must("run", guest(t, "granted"), "--count", "5", "--require", "node="+d.ID, "--allow-kv", "n", "--allow-secret", "token", "--", "work", "n", "token")
	if n := a.Must("kv", "get", "n"); n != "5" {
		t.Errorf("5 tasks added up to %s", n)
	}
	tryRoles(t, w, a, d, secret)
	t.Logf("after %v: all roles", time.Since(first))
	if log := a.Must("audit"); !strings.Contains(log, "member.invite") || !strings.Contains(log, "member.admit") || !strings.Contains(log, "member.role") || !strings.Contains(log, "member.revoke") {
		t.Errorf("grid audit: %s", log)
	}
	d.Must("swarm", "leave")
	if ls := a.Must("member", "ls", "--all"); !strings.Contains(ls, "left") {
		t.Errorf("grid member ls --all: %s", ls)
	}
	d = w.Up("d", "--no-nearby") // in the open swarm, like any node
	if _, err := d.Swarm(t.Context()); err == nil {
		t.Error("the home has not forgotten the swarm")
	}
}

// tryRoles gives a member one role after the other, and has it try everything.
func tryRoles(t *testing.T, w *World, a, d *Node, file string) {
	t.Helper()
	const stranger = "12D3KooWNq6FP4LrgWoPHrXQv3KZhP8rmBUWEC4tGdtY5cn7rw1p"
	const authority = grid.MemberRole("the authority's key")
	data := strings.TrimSpace(d.Must("add", file, "--quiet"))
	acts := []struct {
		need grid.MemberRole
		args []string
	}{
		{grid.RoleWorker, []string{"kv", "get", "n"}},
		{grid.RoleWorker, []string{"member", "ls"}},
		{grid.RoleSubmitter, []string{"run", burn(t), "--count", "2", "--", "10"}},
		{grid.RoleSubmitter, []string{"call", filepath.Join(repo(t), "e2e", "testdata", "double"), "twice", "21"}},
		{grid.RoleSubmitter, []string{"kv", "put", "mine", "1"}},
		{grid.RoleSubmitter, []string{"ref", "set", "mine", data}},
		{grid.RoleAdmin, []string{"secret", "set", "mine", file}},
		{grid.RoleAdmin, []string{"secret", "rm", "token"}},
		{grid.RoleAdmin, []string{"plugin", "policy", "--require-signature", "off"}},
		{grid.RoleAdmin, []string{"member", "approve", stranger}},
		{grid.RoleAdmin, []string{"member", "revoke", stranger}},
		{authority, []string{"swarm", "invite"}},
		{authority, []string{"member", "set-role", d.ID, "admin"}},
	}
	for _, role := range []grid.MemberRole{grid.RoleWorker, grid.RoleSubmitter, grid.RoleAdmin} {
		if role != grid.RoleWorker {
			a.Must("member", "set-role", d.ID, string(role))
			Eventually(t, "it hears of its role", func(ctx context.Context) error {
				info, err := d.Swarm(ctx)
				if err == nil && info.Role != role {
					err = fmt.Errorf("it is a %s", info.Role)
				}
				return err
			})
		}
		for _, act := range acts {
			r := d.Grid(act.args...)
			const denied, missing = 77, 66
			switch may := act.need != authority && role.Includes(act.need); {
			case may && r.Exit != 0 && (r.Exit != missing || !slices.Contains(act.args, stranger)):
				t.Errorf("a %s may not %v: %+v", role, act.args, r)
			case !may && (r.Exit != denied || !strings.Contains(r.Stderr, "hint:")):
				t.Errorf("a %s may %v: %+v", role, act.args, r)
			case !may && act.need == grid.RoleSubmitter && !strings.Contains(r.Stderr, "grid member set-role"):
				t.Errorf("a %s is not told what to do after %v: %+v", role, act.args, r)
			}
		}
	}
}

// TestPrivateSwarmPSK: the pre-shared key comes with the token, leaves TCP alone, and is missed where it is not. What another key comes to is tested in package p2p.
func TestPrivateSwarmPSK(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	w.swarm = ""
	w.Must("swarm", "init", "--psk", "--home", filepath.Join(w.dir, "a"))
	key := filepath.Join(w.dir, "a", "swarm-psk")
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key's file: %v, %v", info, err)
	}
	if r := w.Grid("up", "--home", filepath.Join(w.dir, "a"), "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"); r.Exit == 0 || !strings.Contains(r.Stderr, "pre-shared key") {
		t.Errorf("QUIC: %+v", r)
	}
	a := w.Up("a", "--workers", "1")
	if !strings.Contains(a.log.String(), "no QUIC") || !strings.Contains(a.Must("swarm", "show"), "pre-shared key") {
		t.Error("it does not say that there is no QUIC")
	}
	b := w.Up("b", "--workers", "1", "--join", strings.TrimSpace(a.Must("swarm", "invite")))
	w.Meet(a, b)
	b.Must("down")
	if err := os.Remove(filepath.Join(b.Home, "swarm-psk")); err != nil {
		t.Fatal(err)
	}
	if r := b.Grid("up"); r.Exit == 0 || !strings.Contains(r.Stderr, "swarm-psk") || !strings.Contains(r.Stderr, "hint:") {
		t.Errorf("without the key: %+v", r)
	}
}
