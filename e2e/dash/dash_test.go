package dash

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	p.Sees("tbody", "show")
	p.Shots("job")
	p.Click(".tabs a", "Tasks")
	p.Sees("tbody", "done")
	p.Click("tbody button", "· 0")
	p.Sees("table", "row 11")
	p.Sees("pre", "<script>window.hurt")
	p.Shots("task")
	unhurt(p)
	p.Click("dd a.id", "")
	p.Sees("tbody", "picture.png")
	p.Sees("tbody", "<script>hurt()")
	p.Shots("folder")
	p.Click("tbody a", "picture.png")
	p.Wait(`document.querySelector("main img").naturalWidth === 320`)
	p.Shots("image")
	p.Eval("history.back()")
	p.Click("tbody a", "data.json")
	p.Sees("td", "Aachen")
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
	for tab, text := range map[string]string{"events": "ended", "why": "", "request": `"stages"`} {
		p.Go("#/jobs/" + bad + "?tab=" + tab)
		p.Sees(".tabs a[aria-current]", map[string]string{"events": "Events", "why": "Why", "request": "Request"}[tab])
		p.Sees(".card", text)
	}
	p.Shots("job-why")
	unhurt(p)
}
