package daemon

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/wasmgrid/wasmgrid/cmd/grid/nodelog"
	gridtrace "github.com/wasmgrid/wasmgrid/cmd/grid/trace"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
)

var update = flag.Bool("update", false, "rewrite the table of docs/metrics.md")

const (
	metricsDoc = "../../../docs/metrics.md"
	rulesFile  = "../../../docs/metrics/alerts.yml"
	dashboard  = "../../../docs/metrics/grafana.json"
)

// whole opens a node that has all parts that are measured: it is in a private swarm, and serves its API over the network.
func whole(t *testing.T) *Daemon {
	t.Helper()
	home := shortDir(t)
	if _, err := InitSwarm(t.Context(), home, "measured", "first", false); err != nil {
		t.Fatal(err)
	}
	log, err := nodelog.Open(nodelog.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	d, err := Open(t.Context(), Config{
		Log:    log,
		Traces: gridtrace.Config{URL: "http://127.0.0.1:1/v1/traces"}, // of no jobs
		Home:   home, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, API: "127.0.0.1:0", NoMDNS: true, NoNearby: true, NoUPnP: true, Workers: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// gathered is what a node's registry gathers, by name.
func gathered(t *testing.T, d *Daemon) map[string]*dto.MetricFamily {
	t.Helper()
	list, err := d.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*dto.MetricFamily{}
	for _, f := range list {
		all[f.GetName()] = f
	}
	return all
}

// The document lists each of the node's own metrics, and none that is not there.
func TestMetricsDoc(t *testing.T) {
	d := whole(t)
	families := d.server.Families()
	slices.SortFunc(families, func(a, b api.Family) int { return cmp.Compare(a.Name, b.Name) })
	var table strings.Builder
	table.WriteString("| name | kind | labels | |\n|---|---|---|---|\n")
	for _, f := range families {
		labels := ""
		if len(f.Labels) > 0 {
			labels = "`" + strings.Join(f.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", f.Name, f.Kind, labels, f.Help)
	}
	doc, err := os.ReadFile(metricsDoc)
	if err != nil {
		t.Fatal(err)
	}
	const from, to = "<!-- metrics -->\n", "<!-- end -->"
	head, rest, ok1 := strings.Cut(string(doc), from)
	old, tail, ok2 := strings.Cut(rest, to)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", metricsDoc)
	}
	if old == table.String() {
		return
	}
	if !*update {
		t.Fatalf("%s does not tell of the metrics as they are: look at them, and run this test with -update", metricsDoc)
	}
	if err := os.WriteFile(metricsDoc, []byte(head+from+table.String()+to+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What is gathered is what was said of it, after a task, too, and as Prometheus' linter likes it.
func TestMetricsGathered(t *testing.T) {
	d := whole(t)
	c := d.Client()
	module := add(t, c, wasmbytes.Spin(10))
	wait(t, c, submit(t, c, 3, module))
	known := map[string]api.Family{}
	for _, f := range d.server.Families() {
		known[f.Name] = f
	}
	var all map[string]*dto.MetricFamily
	eventually(t, "a job has ended", func() bool { // of which the client hears a little earlier
		all = gathered(t, d)
		for _, m := range all["grid_jobs_ended_total"].GetMetric() {
			if m.GetCounter().GetValue() > 0 {
				return m.GetLabel()[0].GetValue() == string(grid.Done)
			}
		}
		return false
	})
	var own []*dto.MetricFamily
	for name, f := range all {
		if !strings.HasPrefix(name, "grid_") {
			continue
		}
		own = append(own, f)
		if k, ok := known[name]; !ok || strings.ToLower(f.GetType().String()) != string(k.Kind) || f.GetHelp() != k.Help {
			t.Errorf("%s is a %v, told as %+v", name, f.GetType(), k)
		}
	}
	problems, err := promlint.NewWithMetricFamilies(own).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for name, want := range map[string]uint64{"grid_task_seconds": 3, "grid_job_seconds": 1, "grid_sandbox_compile_seconds": 1} {
		if got := all[name].Metric[0].GetHistogram().GetSampleCount(); got != want {
			t.Errorf("%s counts %d, want %d", name, got, want)
		}
	}
	if n := all["grid_ledger_commit_seconds"].Metric[0].GetHistogram().GetSampleCount(); n == 0 {
		t.Error("no commit was counted")
	}
	for name, least := range map[string]float64{
		"grid_ledger_has_leader": 1, "grid_ledger_members_up": 1, "grid_swarm_members": 1, "grid_store_free_bytes": 1, "grid_store_quota_bytes": 1,
		"grid_time_seconds": 1.7e9, "grid_api_certificate_end_timestamp_seconds": 1.7e9, "grid_build_info": 1,
		"libp2p_eventbus_subscribers_total": 0, "grid_network_streams": 0, "go_goroutines": 1, "process_open_fds": 1,
	} {
		if f := all[name]; f == nil || f.Metric[0].GetGauge().GetValue() < least {
			t.Errorf("%s is %v, want %v or more", name, f, least)
		}
	}
	text, err := c.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`grid_ledger_role{role="leader"} 1`, `grid_task_phase_seconds_count{phase="run"} 3`, `grid_api_requests_total{class="questions",code="200"}`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in what the API gives", want)
		}
	}
	promtool(t, ownLines(text), "check", "metrics")
}

// ownLines leaves out the metrics of libraries, of which some are not named as promtool likes it.
func ownLines(text []byte) (own []byte) {
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(bytes.TrimPrefix(bytes.TrimPrefix(line, []byte("# HELP ")), []byte("# TYPE ")), []byte("grid_")) {
			own = append(own, line...)
		}
	}
	return own
}

// promtool runs Prometheus' tool, where it is there, and fails when it finds something.
func promtool(t *testing.T, stdin []byte, args ...string) {
	t.Helper()
	t.Run("promtool "+strings.Join(args[:2], " "), func(t *testing.T) {
		path, err := exec.LookPath("promtool")
		if err != nil {
			t.Skip("promtool is not here: Debian has it in the package prometheus")
		}
		cmd := exec.CommandContext(t.Context(), path, args...)
		cmd.Stdin = bytes.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	})
}

// What of an expression is no name of a metric: labels, durations, and words of the language.
var (
	unnamed = regexp.MustCompile(`\b(by|without|on|ignoring)\s*\([^)]*\)|\{[^}]*\}|\[[^\]]*\]`)
	word    = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*(\s*\()?`)
)

// names lists the metrics of an expression.
func names(expr string) (list []string) {
	for _, w := range word.FindAllString(unnamed.ReplaceAllString(expr, " "), -1) {
		if !strings.HasSuffix(w, "(") && !slices.Contains([]string{"and", "or", "unless", "bool"}, w) {
			list = append(list, w)
		}
	}
	return list
}

func TestExpressions(t *testing.T) {
	d := whole(t)
	known := map[string]bool{"up": true} // of Prometheus itself
	for name := range gathered(t, d) {
		known[name] = true
	}
	for _, f := range d.server.Families() {
		known[f.Name] = true
		if f.Kind == api.Histogram {
			delete(known, f.Name)
			for _, end := range []string{"_bucket", "_sum", "_count"} {
				known[f.Name+end] = true
			}
		}
	}
	check := func(where, expr string) {
		of := names(expr)
		if len(of) == 0 {
			t.Errorf("%s: no metric in %s", where, expr)
		}
		for _, name := range of {
			if !known[name] {
				t.Errorf("%s: %s is no metric of a node: %s", where, name, expr)
			}
		}
	}
	rules, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	exprs := regexp.MustCompile(`(?m)^\s+expr: (.*)$`).FindAllStringSubmatch(string(rules), -1)
	if n := strings.Count(string(rules), "- alert:"); len(exprs) != n || n < 8 {
		t.Errorf("%d expressions of %d alerts", len(exprs), n)
	}
	for _, m := range exprs {
		check(rulesFile, m[1])
	}
	data, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range board.Panels {
		if seen[p.ID] || p.Title == "" || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d, %q: an ID of its own, a title and something to show are wanted", p.ID, p.Title)
		}
		seen[p.ID] = true
		for _, target := range p.Targets {
			check(p.Title, target.Expr)
		}
	}
	// That the check checks.
	if got := names(`sum by (a, b) (rate(x_total{c="d_e", f=~"$g"}[$__rate_interval])) / y and z == 2 * w[15m]`); !slices.Equal(got, []string{"x_total", "y", "z", "w"}) {
		t.Errorf("names: %q", got)
	}
	promtool(t, nil, "check", "rules", rulesFile)
	promtool(t, nil, "test", "rules", filepath.Join("testdata", "alerts_test.yml"))
}

// TestScrape asks as docs/metrics.md has Prometheus ask.
func TestScrape(t *testing.T) {
	d := whole(t)
	made, err := d.Client().CreateToken(t.Context(), grid.TokenRequest{Role: grid.TokenViewer, Name: "prometheus"})
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(d.cfg.Home, apiCertFile))
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, ServerName: "localhost"}}
	defer transport.CloseIdleConnections()
	scrape := func(token string) (status int, text string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+d.remote.Load().listen.String()+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if status, text := scrape("nonsense"); status != http.StatusUnauthorized || strings.Contains(text, "grid_") {
		t.Errorf("with a bad token: %d, %s", status, text)
	}
	eventually(t, "the token is good, and its use and the bad one's refusal are counted", func() bool {
		status, text := scrape(made.Text)
		return status == http.StatusOK && strings.Contains(text, `protocol="api",reason="token"`) && strings.Contains(text, `grid_build_info{`)
	})
}

// What cannot be told leaves out only itself.
func TestMetricsBroken(t *testing.T) {
	d := whole(t)
	if err := d.realm.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := d.Client().Metrics(t.Context())
	if err != nil || !bytes.Contains(text, []byte("grid_sandbox_guests_running 0\n")) {
		t.Errorf("without a ledger: %v\n%s", err, text)
	}
}
