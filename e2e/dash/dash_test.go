package dash

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"github.com/wasmgrid/wasmgrid/e2e"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
)

// hostile is a name that somebody may give.
var hostile = "<script>window.hurt = 1</script><img src=x onerror=\"window.hurt = 2\"> \u202etxet " + "long"

// show builds the guest of that name.
func show(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "show.wasm")
	if err := os.WriteFile(path, toolchain.Go(t, "./testdata/show"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// submitted starts a job, and waits for its end.
func submitted(t *testing.T, n *e2e.Node, args ...string) string {
	t.Helper()
	id := strings.TrimSpace(n.Must(append([]string{"run", "--detach"}, args...)...))
	n.Grid("wait", id)
	return id
}

// unhurt makes sure that nothing of what is shown has been run.
func unhurt(p *Page) {
	p.t.Helper()
	if hurt := Value[bool](p, `"hurt" in window || document.querySelector("main script, main img[onerror]") !== null`); hurt {
		p.t.Error("what somebody named a thing was run as a script, or became an element")
	}
}

// TestPages: each page shows what there is and does what it is for; what others have named and printed stays text.
func TestPages(t *testing.T) {
	w := e2e.NewWorld(t)
	n := w.Up("a", "--workers", "2")
	module := show(t)
	good := submitted(t, n, "--name", "picture "+hostile, module, "--count", "3")
	bad := submitted(t, n, "--name", "one that fails", "--keep-going", module, "--count", "3", "--", "fail")
	var st grid.JobStatus
	if err := json.Unmarshal([]byte(n.Must("job", good, "--json")), &st); err != nil || st.State != grid.Done {
		t.Fatalf("%+v, %v", st, err)
	}
	p := Open(t, n)
	p.Sees(".tiles", "all answer")
	p.Sees("tbody", "one that fails")
	p.Sees(".events", "ended")
	p.Shots("overview")

	p.Go("#/jobs")
	p.Heading("Jobs")
	p.Sees("tbody tr", "one that fails")
	p.Sees("tbody tr", "<script>window.hurt")
	p.Shots("jobs")
	p.Type("select", "failed")
	p.Wait(`document.querySelectorAll("tbody tr").length === 1`)
	p.Type("select", "")
	p.Type("input[type=search]", "picture")
	p.Wait(`document.querySelectorAll("tbody tr").length === 1`)
	unhurt(p)

	p.Go("#/jobs/" + good)
	p.Sees(".tiles", "3 / 3")
	p.Sees("tbody", "main")
	p.Shots("job")
	p.Click(".tabs a", "Tasks")
	p.Sees("tbody", "done")
	p.Click("tbody button", "· 0")
	p.Sees("table", "row 11")
	p.Sees("pre", "<script>window.hurt")
	p.Shots("task")
	unhurt(p)
	p.Click("dd a.id", "baf")
	p.Sees("tbody", "picture.png")
	p.Sees("tbody", "<script>hurt()")
	p.Shots("folder")
	p.Click("tbody a", "picture.png")
	p.Wait(`document.querySelector("main img").naturalWidth === 320`)
	p.Shots("image")
	p.Eval("history.back()")
	p.Click("tbody a", "data.json")
	p.Sees("td, th", "Aachen")
	p.Eval("history.back()")
	p.Click("tbody a", "raw.bin")
	p.Sees("pre", "00 01 02 fe ff 00")
	unhurt(p)

	p.Go("#/jobs/" + bad)
	p.Sees(".problem", "failed")
	p.Shots("job-failed")
	p.Go("#/jobs/" + bad + "?tab=tasks&failed=1")
	p.Wait(`document.querySelectorAll("tbody tr").length === 1`)
	p.Sees("tbody", "exit 3")
	for _, tab := range []struct{ name, title, text string }{{"events", "Events", "ended"}, {"request", "Request", `"stages"`}, {"why", "Why", "task"}} {
		p.Go("#/jobs/" + bad + "?tab=" + tab.name)
		p.Sees(".tabs a[aria-current]", tab.title)
		p.Sees(".card", tab.text)
	}
	p.Shots("job-why")
	p.Go("#/jobs/" + bad + "?tab=logs&stream=stderr&task=1")
	p.Sees(".log", "this is the one that fails: <script>")
	p.Type("input[type=search]", "nothing like this")
	p.Sees("[role=status]", "Nothing was printed")
	p.Type("input[type=search]", "the one")
	p.Sees(".log", "this is the one that fails")
	p.Shots("job-logs")
	unhurt(p)

	// What can be done: run again, cancel, forget.
	p.Go("#/jobs/" + good)
	p.Click("button", "Run again")
	p.Click("dialog button", "Run again")
	p.Wait(`location.hash.startsWith("#/jobs/j") && !location.hash.includes("` + good + `")`)
	p.Sees(".tiles", "done")
	p.Click("button", "Forget")
	p.Click("dialog button", "Forget it")
	p.Heading("Jobs")

	stays := strings.TrimSpace(n.Must("run", "--detach", module, "--", "stay"))
	p.Go("#/jobs/" + stays + "?tab=logs")
	p.Sees(".log", "it is still here")
	p.Click("button", "Cancel")
	p.Click("dialog button", "No")
	p.Sees(".tiles", "running")
	p.Click("button", "Cancel")
	p.Click("dialog button", "Cancel the job")
	p.Sees(".tiles", "cancelled")

	p.Go("#/submit")
	p.Heading("Submit a job")
	p.Type("input[placeholder^=bafy]", "no-such-plugin@1.0.0")
	p.Expect("404")
	p.Click("form button", "Submit")
	p.Sees(".problem", "no-such-plugin")
	p.Shots("submit")
	p.Eval(`(() => {
		const give = (input, ...files) => { const d = new DataTransfer(); files.forEach(f => d.items.add(f)); input.files = d.files; input.dispatchEvent(new Event("change")) };
		const [program, inputs] = document.querySelectorAll("input[type=file]");
		give(program, new File([Uint8Array.from(atob("` + hello + `"), c => c.charCodeAt(0))], "hello.wasm"));
		give(inputs, new File(["one ".repeat(1 << 19)], "one.txt"), new File(["two"], "<b>two.txt"));
	})()`)
	p.Click("form button", "Submit")
	p.Wait(`location.hash.startsWith("#/jobs/j")`)
	p.Sees(".tiles", "2 / 2")
	p.Click(".tabs a", "Tasks")
	p.Sees("tbody", "<b>two.txt")
	p.Go("#/submit?tab=json")
	p.Type("textarea", `{"stages": [], "colour": "red"}`)
	p.Expect("400")
	p.Click("form button", "Submit")
	p.Sees(".problem", "colour")

	n.Must("pin", "add", strings.Fields(n.Must("add", module))[0])
	p.Go("#/data")
	p.Sees(".state", "ok")
	p.Shots("data")
	p.Click("tbody button", "Unpin")
	p.Click("dialog button", "Unpin")
	p.Sees(".empty", "Nothing is pinned.")

	p.Go("#/nodes")
	p.Sees("tbody", "this one")
	p.Shots("nodes")
	p.Click("tbody a", "…")
	p.Sees("h2", "How others reach it")
	p.Sees("h2", "Refused since it was started")
	p.Shots("node")
	p.Click("button", "Drain")
	p.Click("dialog button", "Drain it")
	p.Click("button", "End draining")
	p.Sees("button", "Drain")
	p.Go("#/ledger")
	p.Sees("tbody", "leads")
	p.Shots("ledger")
	p.Go("#/usage")
	p.Sees("tbody", "root")
	p.Shots("usage")
	p.Go("#/plugins")
	p.Sees(".empty", "No plugin is installed")
	source, err := filepath.Abs("../../plugins/wordcount")
	if err != nil {
		t.Fatal(err)
	}
	n.Must("plugin", "install", "-q", source)
	p.Keys("r")
	p.Sees("tbody", "wordcount")
	p.Shots("plugins")
	p.Click("tbody a", "wordcount")
	p.Sees("h2", "Functions")
	p.Sees("h3 code", "map")
	p.Shots("plugin")
	p.Click("a.button", "Run it")
	p.Wait(`document.querySelector("input[placeholder^=bafy]").value.startsWith("wordcount@")`)
	p.Go("#/logs")
	p.Sees(".log", "leads the ledger")
	p.Shots("logs")
	p.Type("input[type=search]", "no such words")
	p.Wait(`!document.querySelector(".log").textContent`)
	p.Go("#/logs?tab=events")
	p.Sees(".log", "main ended")
	p.Go("#/nowhere")
	p.Heading("Not found")

	// By keys alone.
	p.Keys("?")
	p.Sees("dialog", "Keyboard shortcuts")
	p.Shots("keys")
	p.Click("dialog input", "") // the keys are turned off
	p.Keys(kb.Escape)
	p.Wait(`!document.querySelector("dialog")`)
	at := Value[string](p, "location.hash")
	p.Keys("gd?")
	if now := Value[string](p, "location.hash"); now != at || Value[bool](p, `!!document.querySelector("dialog")`) {
		t.Errorf("keys that are turned off lead to %s", now)
	}
	p.Click("#keys", "")
	p.Click("dialog input", "")
	p.Keys(kb.Escape)
	p.Wait(`!document.querySelector("dialog")`)
	p.Keys("gj")
	p.Wait(`document.querySelector("main input[type=search]")`)
	p.Keys("/")
	p.Wait(`document.activeElement.type === "search"`)
	unhurt(p)
}

// hello is a module that prints a line.
const hello = "AGFzbQEAAAABDAJgBH9/f38Bf2AAAAIjARZ3YXNpX3NuYXBzaG90X3ByZXZpZXcxCGZkX3dyaXRlAAADAgEBBQMBAAEHEwIGbWVtb3J5AgAGX3N0YXJ0AAEKDwENAEEBQQBBAUEUEAAaCwsUAQBBAAsOCAAAAAYAAABoZWxsbwo="

// TestToken: over the network the page asks for a token, offers what its role may do, and goes when it is removed.
func TestToken(t *testing.T) {
	w := e2e.NewWorld(t)
	n := w.Up("a", "--workers", "1", "--api", "127.0.0.1:0")
	var st grid.NodeStatus
	e2e.Eventually(t, "the API is there", func(ctx context.Context) (err error) {
		if st, err = n.Node(ctx); err == nil && len(st.Remote) != 1 {
			err = fmt.Errorf("at %v", st.Remote)
		}
		return err
	})
	token := strings.TrimSpace(n.Must("token", "create", "--role", "viewer", "--name", "vic"))
	base, _, _ := strings.Cut(st.Remote[0], "#")
	p := NewPage(t)
	p.Expect("401")
	p.Expect("ERR_INCOMPLETE_CHUNKED_ENCODING") // a removed token ends what is followed with it
	p.Expect("ERR_HTTP2_PROTOCOL_ERROR")
	p.Go(base + "/")
	p.Heading("Sign in")
	p.Shots("login")
	p.Type("textarea", token[:len(token)-4]+"aaaa")
	p.Click("button", "Sign in")
	p.Wait(`document.querySelector(".bad").textContent.length > 10`)
	p.Type("textarea", token)
	p.Click("button", "Sign in")
	p.Heading("Overview")
	p.Sees("#who", "vic · viewer")
	if Value[bool](p, `!!document.querySelector("nav a[href='#/submit']")`) {
		t.Error("a viewer is offered to submit jobs")
	}
	p.Go("#/data")
	p.Sees(".empty", "Nothing is pinned")
	if Value[bool](p, `[...document.querySelectorAll("button")].some(b => b.textContent.includes("Add files"))`) {
		t.Error("a viewer is offered to add files")
	}
	n.Must("token", "rm", "vic")
	p.Heading("Sign in")
	p.Wait(`document.querySelector(".bad").textContent.length > 10 && sessionStorage.getItem("grid-token") === null`)
}

// TestAway: when the node is gone the page says so, and goes on when it is back; who signs out has no session any more.
func TestAway(t *testing.T) {
	w := e2e.NewWorld(t)
	n := w.Up("a", "--workers", "1")
	p := Open(t, n)
	p.Go("#/ledger")
	p.Sees("tbody", "leads")
	p.Expect("502")
	p.Expect("ERR_INCOMPLETE_CHUNKED_ENCODING")
	n.Kill()
	p.Sees("#banner", "does not answer")
	p.Sees("tbody", "leads") // what was shown stays
	p.Shots("away")
	w.Up("a", "--workers", "1")
	p.Wait(`document.querySelector("#banner").hidden`)
	p.Go("#/overview")
	p.Sees(".tiles", "all answer")

	session := Value[string](p, `sessionStorage.getItem("grid-token")`)
	p.Expect("401")
	p.Click("#leave", "Sign out")
	p.Heading("Sign in")
	e2e.Eventually(t, "the session has ended", func(context.Context) error {
		if status := Value[int](p, fmt.Sprintf(`fetch("/v1/node", {headers: {Authorization: "Bearer " + %q}}).then(r => r.status)`, session)); status != 401 {
			return fmt.Errorf("it is good for all: %d", status)
		}
		return nil
	})
}

// TestOthers: who does not have the session, or is a page of another site, gets nothing from grid dash, and its secret is good once.
func TestOthers(t *testing.T) {
	w := e2e.NewWorld(t)
	n := w.Up("a", "--workers", "1")
	dash := n.Begin("dash", "--no-open")
	url := dash.Line()
	base, once, _ := strings.Cut(url, "/dash/#once=")
	ask := func(method, path string, header ...string) *http.Response {
		t.Helper()
		req, err := http.NewRequest(method, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			if req.Header.Set(header[i], header[i+1]); header[i] == "Host" {
				req.Host = header[i+1]
			}
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	p := NewPage(t)
	p.Go(url)
	p.Heading("Overview")
	session := Value[string](p, `sessionStorage.getItem("grid-token")`)
	if left := Value[string](p, `location.href`); strings.Contains(left, once) {
		t.Errorf("the secret stays in the URL: %s", left)
	}
	good := "Bearer " + session
	for _, x := range []struct {
		what   string
		resp   *http.Response
		status int
	}{
		{"the browser", ask("GET", "/v1/node", "Authorization", good), 200},
		{"nobody", ask("GET", "/v1/node"), 401},
		{"a guess", ask("GET", "/v1/node", "Authorization", "Bearer "+once), 401},
		{"another host name", ask("GET", "/dash/", "Host", "evil.example"), 421},
		{"another origin", ask("POST", "/v1/jobs", "Authorization", good, "Origin", "http://evil.example"), 403},
		{"another site", ask("GET", "/v1/node", "Authorization", good, "Sec-Fetch-Site", "cross-site"), 403},
		{"beside the API", ask("GET", "/metrics", "Authorization", good), 404},
		{"the secret of another", ask("POST", "/dash/session", "Grid-Once", "aaaa"), 403},
	} {
		if x.resp.StatusCode != x.status {
			t.Errorf("%s: %s, not %d", x.what, x.resp.Status, x.status)
		}
	}
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<iframe src=%q></iframe>", base+"/dash/")
	}))
	defer evil.Close()
	q := NewPage(t)
	for _, text := range []string{"CORS", "ERR_FAILED", "frame", "ERR_BLOCKED", "favicon", "Cross-Origin", "403", "401"} {
		q.Expect(text)
	}
	q.Go(evil.URL)
	got := Value[string](q, fmt.Sprintf(`Promise.all([
		fetch(%[1]q + "/v1/node").then(r => r.text(), () => ""),
		fetch(%[1]q + "/v1/node", {headers: {Authorization: %[2]q}}).then(r => r.text(), () => ""),
		fetch(%[1]q + "/dash/", {mode: "no-cors"}).then(r => r.text(), () => "")]).then(x => x.join(""))`, base, good))
	if got != "" {
		t.Errorf("a page of another origin reads %q", got)
	}
	if resp := ask("POST", "/dash/session", "Grid-Once", once); resp.StatusCode != 403 {
		t.Errorf("the secret a second time: %s", resp.Status)
	}
	if resp := ask("GET", "/v1/node", "Authorization", good); resp.StatusCode != 401 {
		t.Errorf("the session goes on: %s", resp.Status)
	}
	p.Expect("401")
	p.Heading("Sign in")
	if !strings.Contains(dash.Log(), "used twice") {
		t.Errorf("nobody is told: %s", dash.Log())
	}
	if r := w.Grid("dash", "--home", t.TempDir(), "--no-open"); r.Exit == 0 || !strings.Contains(r.Stderr, "no node is running") {
		t.Errorf("without a node: %+v", r)
	}
	if r := n.Grid("dash", "--no-open", "--listen", "0.0.0.0:0"); r.Exit == 0 || !strings.Contains(r.Stderr, "this machine") {
		t.Errorf("for everybody: %+v", r)
	}
}
