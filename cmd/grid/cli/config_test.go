package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/wasmgrid/wasmgrid/cmd/grid/config"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// desk is a user with files of settings, an environment, and nothing else.
type desk struct {
	t    *testing.T
	dir  string
	vars map[string]string
}

func newDesk(t *testing.T) *desk {
	dir := t.TempDir()
	return &desk{t, dir, map[string]string{"HOME": dir, "XDG_CONFIG_HOME": filepath.Join(dir, "conf"), "GRID_HOME": filepath.Join(dir, "home")}}
}

func (p *desk) env(out, errs *bytes.Buffer, stdin string) *env {
	return &env{
		ui: newUI(out, errs), stdin: strings.NewReader(stdin), connect: openSession,
		lookupEnv: func(n string) (string, bool) { v, ok := p.vars[n]; return v, ok },
		environ: func() (all []string) {
			for k, v := range p.vars {
				all = append(all, k+"="+v)
			}
			return all
		},
	}
}

func (p *desk) grid(stdin string, args ...string) result {
	var out, errs bytes.Buffer
	exit := p.env(&out, &errs, stdin).main(p.t.Context(), args)
	return result{exit, out.String(), errs.String()}
}

// write writes a file below the user's folder, and returns its path.
func (p *desk) write(name, text string) string {
	p.t.Helper()
	name = filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return name
}

const (
	homeFile = "home/config.yaml"
	userFile = "conf/grid/config.yaml"
)

// TestPrecedence: flags go before the environment, that before the file of the home, that before the user's, that before defaults.
func TestPrecedence(t *testing.T) {
	p := newDesk(t)
	user := p.write(userFile, "up:\n  workers: 1\n  zone: a\n  label: [u=1, v=2]\n  api-cert: cert.pem\n  no-mdns: true\n")
	home := p.write(homeFile, "up:\n  workers: 2\n  label: h=1\n")
	p.vars["GRID_UP_ZONE"], p.vars["GRID_UP_TRUST"], p.vars["GRID_UP_SWARM"] = "b", "all", ""
	e := p.env(&bytes.Buffer{}, &bytes.Buffer{}, "")
	f := &upFlags{}
	cmd := e.upCommandOf(f)
	if err := cmd.ParseFlags([]string{"--replicas=3"}); err != nil {
		t.Fatal(err)
	}
	from, err := e.configure(cmd, e.configFiles(p.vars["GRID_HOME"]))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"replicas": "[3] flag", "zone": "[b] $GRID_UP_ZONE", "trust": "[all] $GRID_UP_TRUST", "workers": "[2] " + home + ":2", "label": "[h=1] " + home + ":3",
		"api-cert": "[" + filepath.Join(filepath.Dir(user), "cert.pem") + "] " + user + ":5", "no-mdns": "[true] " + user + ":6", "swarm": "[] default", "keep-jobs": "[10000] default",
	} {
		if got := fmt.Sprint(valuesOf(cmd.Flag(name)), " ", from[name]); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if f.workers != 2 || f.zone != "b" || f.replicas != 3 || !slices.Equal(f.labels, []string{"h=1"}) {
		t.Errorf("%+v", f)
	}
	f.from = from
	// What a node in the background is told: what it does not find by itself.
	if args, vars := f.args("/h"); !slices.Equal(args, []string{"up", "--home", "/h", "--replicas=3"}) || len(vars) > 0 {
		t.Errorf("%q %q", args, vars)
	}
}

// TestArgsWithoutSecrets: no token is on the command line of a node in the background.
func TestArgsWithoutSecrets(t *testing.T) {
	p := newDesk(t)
	e := p.env(&bytes.Buffer{}, &bytes.Buffer{}, "")
	f := &upFlags{}
	cmd := e.upCommandOf(f)
	if err := cmd.ParseFlags([]string{"--join=grid-join-1-secret", "--join=/ip4/192.0.2.1/tcp/1/p2p/x", "--label=a=b", "--api-key=k.pem", "-d", "--zone="}); err != nil {
		t.Fatal(err)
	}
	var err error
	if f.from, err = e.configure(cmd, nil); err != nil {
		t.Fatal(err)
	}
	args, vars := f.args("/h")
	if strings.Contains(strings.Join(args, " "), "secret") || !slices.Equal(vars, []string{"GRID_UP_JOIN=grid-join-1-secret,/ip4/192.0.2.1/tcp/1/p2p/x"}) {
		t.Errorf("%q %q", args, vars)
	}
	here, err := filepath.Abs("k.pem")
	if err != nil || !slices.Contains(args, "--api-key="+here) || !slices.Contains(args, "--label=a=b") || !slices.Contains(args, "--zone=") || slices.Contains(args, "--detach=true") {
		t.Errorf("%q", args)
	}
}

// TestBadSettings: what is wrong is told with its place, and what was meant, before anything is started.
func TestBadSettings(t *testing.T) {
	for _, c := range []struct {
		name, file, variable string
		exit                 int
		want                 []string
	}{
		{"unknown", "up:\n  workrs: 4\n", "", exitUsage, []string{"config.yaml:2:3", `no key "workrs"`, "did you mean workers?"}},
		{"several", "up:\n  workrs: 4\n  zon: 4\n", "", exitUsage, []string{"config.yaml:2", "config.yaml:3", "did you mean zone?"}},
		{"twice", "up:\n  zone: a\n  zone: b\n", "", exitUsage, []string{"config.yaml:3", "twice"}},
		{"not a number", "up:\n  workers: many\n", "", exitUsage, []string{"config.yaml:2: up.workers \"many\"", "whole number"}},
		{"not a bool", "\nup:\n  ipfs: yes\n", "", exitUsage, []string{"config.yaml:3: up.ipfs", "true or false"}},
		{"not a size", "up:\n  store-quota: big\n", "", exitUsage, []string{"config.yaml:2: up.store-quota", "64MiB"}},
		{"not a time", "up:\n  repair-grace: 5\n", "", exitUsage, []string{"config.yaml:2: up.repair-grace", "90s"}},
		{"out of range", "up:\n  relay: sometimes\n", "", exitUsage, []string{"--relay", "config.yaml:2", "auto, on or off"}},
		{"together", "up:\n  gateway-fetch: true\n", "", exitUsage, []string{"--gateway-fetch is of", "config.yaml:2"}},
		{"binary", "up\x00", "", exitUsage, []string{"config.yaml:1", "zero byte"}},
		{"one start", "up:\n  detach: true\n", "", exitUsage, []string{`no key "detach"`}},
		{"variable", "", "GRID_UP_WORKRS=4", exitUsage, []string{"$GRID_UP_WORKRS", "did you mean GRID_UP_WORKERS?"}},
		{"variable's value", "", "GRID_UP_WORKERS=many", exitUsage, []string{"$GRID_UP_WORKERS: up.workers", "whole number"}},
		{"variable out of range", "", "GRID_UP_LOG_LEVEL=loud", exitUsage, []string{"--log-level is of $GRID_UP_LOG_LEVEL"}},
		{"bad token", "up:\n  join: grid-join-1-abc\n", "", 67, []string{"the token is cut"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newDesk(t)
			p.write(homeFile, c.file)
			if name, value, ok := strings.Cut(c.variable, "="); ok {
				p.vars[name] = value
			}
			r := p.grid("", "up")
			if r.exit != c.exit {
				t.Errorf("exit %d", r.exit)
			}
			wantIn(t, "stderr", r.err, c.want...)
			if _, err := os.Stat(filepath.Join(p.dir, "home", "identity")); err == nil {
				t.Error("a node was begun")
			}
			if c.variable == "" {
				if r := p.grid("", "config", "check"); r.exit != c.exit {
					t.Errorf("config check: exit %d: %s", r.exit, r.err)
				}
			}
		})
	}
}

func TestConfigVerbs(t *testing.T) {
	p := newDesk(t)
	must := func(want string, args ...string) string {
		t.Helper()
		r := p.grid("", args...)
		if r.exit != 0 {
			t.Errorf("grid %s: exit %d: %s", strings.Join(args, " "), r.exit, r.err)
		}
		wantIn(t, strings.Join(args, " "), r.out, want)
		return r.out
	}
	p.write(homeFile, "# mine\nup:\n  zone: a # of the lab\n")
	must("", "config", "set", "up.workers", "4")
	must("", "config", "set", "up.label", "gpu=false", "rack=r12")
	must("", "config", "set", "--user", "up.no-mdns", "true")
	must("gpu=false, rack=r12", "config", "show")
	must("up.replicas", "config", "show", "--all")
	must("", "config", "check")
	must("home/config.yaml", "config", "path")
	var rows []shownSetting
	if err := json.Unmarshal([]byte(must("", "config", "show", "up.workers", "up.no-mdns", "--json")), &rows); err != nil || len(rows) != 2 ||
		rows[0].Value != "4" || rows[0].Line != 4 || rows[1].File != filepath.Join(p.dir, userFile) {
		t.Errorf("%+v %v", rows, err)
	}
	text, err := os.ReadFile(filepath.Join(p.dir, homeFile))
	if err != nil || !strings.Contains(string(text), "# mine") || !strings.Contains(string(text), "zone: a # of the lab") {
		t.Errorf("%s %v", text, err)
	}
	for args, want := range map[string]string{
		"up.workrs 4":             "did you mean up.workers?",
		"up.workers many":         "whole number",
		"up.workers 4 5":          "one value",
		"up.relay sometimes":      "auto, on or off",
		"up.ipfs-peer /ip4/1":     "need --ipfs",
		"up.workers":              "KEY or VALUE is missing",
		"workers 4":               "did you mean up.workers?",
		"--user up.share nothing": "--share",
	} {
		r := p.grid("", append([]string{"config", "set"}, strings.Fields(args)...)...)
		if r.exit == 0 {
			t.Errorf("set %s succeeds", args)
		}
		wantIn(t, args, r.err, want)
	}
	after, err := os.ReadFile(filepath.Join(p.dir, homeFile))
	if err != nil || !bytes.Equal(after, text) {
		t.Errorf("what failed has changed the file: %s %v", after, err)
	}
	must("", "config", "unset", "up.workers")
	must("", "config", "unset", "up.workers")
	if out := must("", "config", "show"); strings.Contains(out, "up.workers") {
		t.Errorf("it is there still: %s", out)
	}
	if r := p.grid("", "config", "check", filepath.Join(p.dir, "nothing")); r.exit != 66 {
		t.Errorf("a file that is not there: exit %d", r.exit)
	}
	wantIn(t, "completion", p.grid("", "__complete", "config", "set", "up.work").out, "up.workers\t")
}

// TestConfigSecrets: tokens are not shown, and not used if others can read them.
func TestConfigSecrets(t *testing.T) {
	p := newDesk(t)
	file := p.write(homeFile, "up:\n  join: grid-join-1-AAAA\n")
	e := p.env(&bytes.Buffer{}, &bytes.Buffer{}, "")
	if got := shown("grid-join-1-AAAA-BB"); got != "grid-join-1-..." {
		t.Error(got)
	}
	r := p.grid("", "config", "show")
	if r.exit != 0 || strings.Contains(r.out, "AAAA") {
		t.Errorf("exit %d: %s%s", r.exit, r.out, r.err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := loadSettings(file, settingsOf(e.upCommand())); grid.CodeOf(err) != grid.Denied || !strings.Contains(err.Error(), ":2: up.join is a token") {
		t.Errorf("others can read it: %v", err)
	}
	p.write(homeFile, "up:\n  workers: 1\n")
	if err := os.Chmod(file, 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		if r := p.grid("", "up"); r.exit != 77 {
			t.Errorf("a file that cannot be read: exit %d: %s", r.exit, r.err)
		}
	}
}

// testKey is a token for the API that names a node.
func testKey(t *testing.T) string {
	t.Helper()
	k := api.Key{ID: "abcdefgh", Secret: bytes.Repeat([]byte{1}, grid.TokenSecretSize), At: []api.Endpoint{{Addr: "192.0.2.1:4748"}}}
	for ; grid.CheckTokenID(k.ID) != nil && len(k.ID) < 40; k.ID += "a" {
	}
	if _, err := api.ParseKey(k.String()); err != nil {
		t.Fatal(err)
	}
	return k.String()
}

// TestTarget: flags before the environment before the context in use; a node that is named before a context.
func TestTarget(t *testing.T) {
	p := newDesk(t)
	key := testKey(t)
	if r := p.grid(key+"\n", "context", "add", "lab", "--api", "-"); r.exit != 0 {
		t.Fatal(r.err)
	}
	if r := p.grid("", "context", "add", "play", "--home", "/play"); r.exit != 0 {
		t.Fatal(r.err)
	}
	standard := filepath.Join(p.dir, ".local", "share", "grid")
	for _, c := range []struct {
		flags, vars, use, want string
	}{
		{"", "", "", standard + " default"},
		{"", "", "lab", "API lab"},
		{"", "", "play", "/play play"},
		{"", "GRID_CONTEXT=lab", "play", "API lab"},
		{"", "GRID_CONTEXT=default", "lab", standard + " default"},
		{"", "GRID_HOME=/h GRID_CONTEXT=lab", "play", "/h"},
		{"", "GRID_API=A GRID_HOME=/h GRID_CONTEXT=lab", "play", "A of /h"},
		{"--context=play", "GRID_API=A GRID_HOME=/h GRID_CONTEXT=lab", "lab", "/play play"},
		{"--context=lab", "GRID_HOME=/h", "", "API lab of /h"},
		{"--context=default", "", "lab", standard + " default"},
		{"--home=/f", "GRID_API=A GRID_HOME=/h GRID_CONTEXT=lab", "play", "/f"},
		{"--api=B", "GRID_API=A GRID_HOME=/h", "play", "B of /h"},
		{"--api=B --home=/f", "GRID_API=A", "play", "B of /f"},
		{"--context=lab --home=/f", "", "", "error"},
		{"--context=lab --api=B", "", "", "error"},
		{"--context=none", "", "", "error"},
		{"", "GRID_CONTEXT=none", "", "error"},
		{"--home=/f", "GRID_CONTEXT=none", "", "/f"},
	} {
		p.vars = map[string]string{"HOME": p.dir, "XDG_CONFIG_HOME": filepath.Join(p.dir, "conf")}
		name := c.use
		if name == "" {
			name = config.Default
		}
		if r := p.grid("", "context", "use", name); r.exit != 0 {
			t.Fatal(r.err)
		}
		for _, v := range strings.Fields(c.vars) {
			name, value, _ := strings.Cut(v, "=")
			p.vars[name] = value
		}
		e := p.env(&bytes.Buffer{}, &bytes.Buffer{}, "")
		root := e.rootCommand()
		if err := root.PersistentFlags().Parse(strings.Fields(c.flags)); err != nil {
			t.Fatal(err)
		}
		at, err := e.target()
		got := at.home
		switch {
		case err != nil:
			got = "error"
		case at.api == key:
			got = "API"
		case at.api != "":
			got = at.api
		}
		if at.context != "" {
			got += " " + at.context
		}
		if at.api != "" && at.home != standard {
			got += " of " + at.home
		}
		if got != c.want {
			t.Errorf("%q, %q, using %q: %s (%v), want %s", c.flags, c.vars, c.use, got, err, c.want)
		}
	}
}

func TestContextVerbs(t *testing.T) {
	p := newDesk(t)
	delete(p.vars, "GRID_HOME")
	key := testKey(t)
	run := func(exit int, want string, args ...string) {
		t.Helper()
		r := p.grid(key, append([]string{"context"}, args...)...)
		if r.exit != exit {
			t.Errorf("%q: exit %d, want %d: %s", args, r.exit, exit, r.err)
		}
		if wantIn(t, strings.Join(args, " "), r.out+r.err, want); strings.Contains(r.out+r.err, key) {
			t.Errorf("%q shows the token: %s", args, r.out)
		}
	}
	run(0, "", "add", "lab", "--api", "-", "--use")
	run(68, "--replace", "add", "lab", "--home", "x")
	run(0, "", "add", "lab", "--api", key, "--replace")
	run(0, "", "add", "play", "--home", "x")
	run(0, "192.0.2.1:4748, token", "ls")
	run(0, `"current": true`, "show", "--json")
	run(66, "did you mean play?", "use", "plya")
	run(exitUsage, "either --api TOKEN or --home", "add", "x")
	run(67, "grid up --join", "add", "x", "--api", "grid-join-1-x")
	run(67, "no token", "add", "x", "--api", "https://192.0.2.1")
	run(67, "lower-case", "add", "X", "--home", "x")
	run(68, "another name", "add", "default", "--home", "x")
	wantIn(t, "completion", p.grid("", "__complete", "context", "use", "l").out, "lab\t")
	wantIn(t, "completion", p.grid("", "__complete", "ps", "--context", "p").out, "play\t")
	r := p.grid("", "up")
	if r.exit != 67 {
		t.Errorf("up elsewhere: exit %d", r.exit)
	}
	wantIn(t, "up", r.err, "the context lab, of `grid context use` names a node by its API", "--home")
	run(66, "no context", "rm", "play", "none")
	run(0, "commands use the context default now", "rm", "lab", "play")
	if info, err := os.Stat(filepath.Join(p.dir, "conf/grid/contexts.json")); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v %v", info, err)
	}
}

// TestConfigReference: docs/configuration.md lists all settings. With -update it is rewritten.
func TestConfigReference(t *testing.T) {
	const name, begin, end = "../../../docs/configuration.md", "<!-- settings: begin -->\n", "<!-- settings: end -->"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has lost its marks", name)
	}
	want := before + begin + settingsReference() + end + after
	if want == string(text) {
		return
	}
	if !*update {
		t.Fatalf("%s is not of these flags: rewrite it with go test ./cmd/grid/cli -run TestConfigReference -update", name)
	}
	if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// settingsReference is a table of all settings, in the groups of the help.
func settingsReference() string {
	e := &env{ui: newUI(&bytes.Buffer{}, &bytes.Buffer{})}
	cmd := e.upCommand()
	settings := map[string]config.Setting{}
	for _, s := range settingsOf(cmd) {
		settings[s.Flag] = s
	}
	var b strings.Builder
	for _, g := range upGroups {
		rows := ""
		for _, name := range g.flags {
			s, ok := settings[name]
			if !ok {
				continue
			}
			what, usage := pflag.UnquoteUsage(cmd.Flag(name))
			if s.List {
				what = "list of " + what
			}
			if def := cmd.Flag(name).DefValue; def != "" && def != "[]" && def != "false" && def != "0" && !strings.Contains(usage, "(default") {
				usage += " (default " + def + ")"
			}
			if what == "" {
				what = "true or false"
			}
			rows += fmt.Sprintf("| `%s` | `%s` | %s | %s |\n", s.Key(), s.Variable(), strings.ToLower(what), strings.ReplaceAll(usage, "|", "\\|"))
		}
		if rows != "" {
			fmt.Fprintf(&b, "\n### %s\n\n| key | variable | value | what |\n|---|---|---|---|\n%s", g.title, rows)
		}
	}
	return b.String() + "\n"
}
