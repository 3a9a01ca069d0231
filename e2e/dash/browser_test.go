// Package dash tests the dashboard as people meet it: the real page in a real browser, headless Chromium, of nodes that are
// processes of the real binary. Debian has the browser as the package chromium; without it the tests are skipped, or fail if
// GRID_TOOLCHAINS is "all". Screenshots go to $GRID_ARTIFACTS, if that is set.
//
// A test opens a [Page]. Whatever goes wrong in it that nobody looks at otherwise fails the test: an error on the
// console, an exception, what the page's policy forbids, a request that fails. [Page.Expect] names what is meant to.
package dash

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/wasmgrid/wasmgrid/e2e"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if chrome.end != nil {
		chrome.end()
	}
	e2e.Clean()
	os.Exit(code)
}

// patience is how long anything in a page may take.
const patience = 30 * time.Second

// chrome is the one browser of all tests.
var chrome struct {
	sync.Once
	ctx context.Context
	end func()
	err error
}

// browser starts it, or ends the test.
func browser(t testing.TB) context.Context {
	t.Helper()
	chrome.Do(func() {
		at := ""
		for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
			if at, chrome.err = exec.LookPath(name); chrome.err == nil {
				break
			}
		}
		if chrome.err != nil {
			return
		}
		opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(at), chromedp.DisableGPU, chromedp.IgnoreCertErrors,
			chromedp.Flag("no-pings", true), chromedp.Flag("disable-component-update", true),
			chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"))
		if os.Getuid() == 0 {
			opts = append(opts, chromedp.NoSandbox)
		}
		ctx, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
		ctx, end := chromedp.NewContext(ctx)
		if chrome.err = chromedp.Do(ctx); chrome.err != nil {
			cancel()
			return
		}
		chrome.ctx, chrome.end = ctx, func() { end(); cancel() }
	})
	if chrome.err != nil {
		text := fmt.Sprintf("no browser can be started; on Debian, install chromium: %v", chrome.err)
		if os.Getenv(toolchain.Require) == "all" {
			t.Fatal(text)
		}
		t.Skip(text)
	}
	return chrome.ctx
}

// Page is a tab of the browser that shares nothing with others.
type Page struct {
	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	expected []string
	wrong    []string
}

// NewPage opens an empty tab, which is closed with the test.
func NewPage(t testing.TB) *Page {
	t.Helper()
	p := &Page{t: t}
	urls := map[network.RequestID]string{}
	ctx, cancel := chromedp.NewContext(browser(t), chromedp.WithNewBrowserContext(), chromedp.WithListener(func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			text := ev.ExceptionDetails.Text
			if x := ev.ExceptionDetails.Exception; x != nil {
				text += " " + x.Description
			}
			p.note("exception: %s", text)
		case *runtime.EventConsoleAPICalled:
			if ev.Type == runtime.ConsoleAPICalledTypeError || ev.Type == runtime.ConsoleAPICalledTypeWarning || ev.Type == runtime.ConsoleAPICalledTypeAssert {
				var words []string
				for _, a := range ev.Args {
					words = append(words, string(a.Value)+" "+a.Description)
				}
				p.note("console.%s: %s", ev.Type, strings.Join(words, " "))
			}
		case *log.EventEntryAdded:
			if ev.Entry.Level == log.EntryLevelError || ev.Entry.Source == log.EntrySourceSecurity {
				p.note("%s: %s %s", ev.Entry.Source, ev.Entry.Text, ev.Entry.URL)
			}
		case *network.EventRequestWillBeSent:
			urls[ev.RequestID] = ev.Request.URL
		case *network.EventLoadingFailed:
			if !ev.Canceled && ev.ErrorText != "net::ERR_ABORTED" {
				p.note("request %s failed: %s %s", urls[ev.RequestID], ev.ErrorText, ev.BlockedReason)
			}
		}
	}))
	p.ctx = ctx
	if err := chromedp.Do(ctx); err != nil { // opens the tab, which lives as long as ctx
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.mu.Lock()
		for _, w := range p.wrong {
			t.Errorf("in the page: %s", w)
		}
		p.mu.Unlock()
		if t.Failed() {
			p.shot("failed-" + strings.ReplaceAll(t.Name(), "/", "-"))
		}
		cancel()
	})
	p.do(func(ctx context.Context, t *chromedp.Target) (v chromedp.Void, err error) {
		_, err = cdp.Call(ctx, t, log.Enable, cdp.Empty{})
		if err == nil {
			_, err = cdp.Call(ctx, t, network.Enable, network.EnableParams{})
		}
		return v, err
	}, chromedp.EmulateViewport(1280, 860))
	return p
}

// Open opens the dashboard of a node by `grid dash`, and waits until it is there.
func Open(t testing.TB, n *e2e.Node) *Page {
	t.Helper()
	url := n.Begin("dash", "--no-open").Line() // ends after the page
	p := NewPage(t)
	p.Go(url)
	p.Heading("Overview")
	return p
}

func (p *Page) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	for _, e := range p.expected {
		if strings.Contains(text, e) {
			return
		}
	}
	p.wrong = append(p.wrong, text)
}

// Expect says that errors with a text in them are meant to come.
func (p *Page) Expect(text string) {
	p.mu.Lock()
	p.expected = append(p.expected, text)
	p.mu.Unlock()
}

func (p *Page) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatalf("browser: %v\n%s", err, p.state())
	}
}

// state tells where the page is, for a test that fails.
func (p *Page) state() string {
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	s, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText.slice(0, 3000)`))
	return s
}

// Go opens a URL, or another page of the dashboard if it begins with "#".
func (p *Page) Go(url string) {
	p.t.Helper()
	if strings.HasPrefix(url, "#") {
		p.Eval("void (location.hash = " + quote(url) + ")")
		return
	}
	p.do(chromedp.Navigate(url))
}

// Eval evaluates an expression; a promise is waited for.
func (p *Page) Eval(js string) {
	p.t.Helper()
	p.do(chromedp.Evaluate[chromedp.Void](js, chromedp.EvalAwaitPromise))
}

// Value is what an expression comes to; a promise is waited for.
func Value[T any](p *Page, js string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](js, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", js, err, p.state())
	}
	return v
}

// Wait waits until an expression is true. What it throws counts as false.
func (p *Page) Wait(js string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("(() => { try { return !!("+js+") } catch { return false } })()"))
		if ok {
			return
		}
		select {
		case <-time.After(30 * time.Millisecond):
		case <-ctx.Done():
			p.t.Fatalf("waited for %s: %v\n%s", js, err, p.state())
		}
	}
}

// Heading waits for the heading of a page.
func (p *Page) Heading(text string) {
	p.t.Helper()
	p.Wait(`document.querySelector("main h1").textContent === ` + quote(text))
}

// Sees waits until an element that is shown has a text.
func (p *Page) Sees(selector, text string) {
	p.t.Helper()
	p.Wait(fmt.Sprintf(`[...document.querySelectorAll(%s)].some(e => e.checkVisibility() && e.textContent.includes(%s))`, quote(selector), quote(text)))
}

// Click clicks an element that a selector finds and that has a text; "": any.
func (p *Page) Click(selector, text string) {
	p.t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll(%s)].find(e => e.checkVisibility() && e.textContent.includes(%s))`, quote(selector), quote(text))
	p.Wait(find)
	p.Eval(find + ".click()")
}

// Type replaces what a field holds.
func (p *Page) Type(selector, text string) {
	p.t.Helper()
	p.Wait("document.querySelector(" + quote(selector) + ")")
	p.Eval(fmt.Sprintf(`(e => { e.focus(); e.value = %s; e.dispatchEvent(new Event("input", {bubbles: true})); e.dispatchEvent(new Event("change", {bubbles: true})) })(document.querySelector(%s))`, quote(text), quote(selector)))
}

// Keys presses keys.
func (p *Page) Keys(keys string) {
	p.t.Helper()
	p.do(chromedp.KeyEvent(keys))
}

// Text is the text of the first element that a selector finds.
func (p *Page) Text(selector string) string {
	p.t.Helper()
	return Value[string](p, fmt.Sprintf(`(document.querySelector(%s) || {textContent: ""}).textContent`, quote(selector)))
}

// accessible names what in a page tells people less who do not see it.
const accessible = `(() => {
	const bad = [], shown = e => e.checkVisibility(), name = e => (e.outerHTML || "").slice(0, 120);
	if (document.querySelectorAll("h1").length !== 1) bad.push(document.querySelectorAll("h1").length + " headings h1");
	if (document.querySelectorAll("main").length !== 1 || !document.documentElement.lang || !document.title) bad.push("no one main, language and title");
	let level = 1;
	for (const h of document.querySelectorAll("main h1, main h2, main h3, main h4")) {
		if (+h.tagName[1] > level + 1) bad.push("a heading is skipped before " + name(h));
		level = +h.tagName[1];
	}
	for (const e of document.querySelectorAll("a, button, input, select, textarea")) {
		if (!shown(e) || e.type === "hidden") continue;
		const labels = [...(e.labels || [])].map(l => l.textContent).join("");
		if (!(e.getAttribute("aria-label") || labels || (e.matches("a, button") && e.textContent.trim()))) bad.push("no name: " + name(e));
	}
	for (const t of document.querySelectorAll("table")) {
		if (!t.caption || !t.caption.textContent) bad.push("a table without a caption: " + name(t));
		for (const h of t.querySelectorAll("th")) if (!h.scope) bad.push("a heading without a scope: " + name(h));
	}
	for (const i of document.querySelectorAll("img:not([alt])")) bad.push("an image without alt: " + name(i));
	for (const c of document.querySelectorAll("main canvas")) if (!c.getAttribute("aria-label") && !c.getAttribute("aria-labelledby") && c.getAttribute("aria-hidden") !== "true") bad.push("a canvas without a name: " + name(c));
	const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
	for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) bad.push("twice: #" + id);
	return bad;
})()`

// Shots takes pictures of the page in light and dark and on a phone, and makes sure that it does not scroll sideways there, and that
// what it shows has names for those who do not see it.
func (p *Page) Shots(name string) {
	p.t.Helper()
	scheme := func(s string) chromedp.Action[chromedp.Void] {
		return func(ctx context.Context, t *chromedp.Target) (v chromedp.Void, err error) {
			_, err = cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
				{Name: "prefers-color-scheme", Value: s}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
			return v, err
		}
	}
	p.do(scheme("light"))
	p.shot(name + "-light")
	p.do(scheme("dark"))
	p.shot(name + "-dark")
	p.do(scheme("light"), chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile))
	p.shot(name + "-phone")
	if cut := Value[int](p, `[...document.querySelectorAll("td .progress")].filter(e => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth).length`); cut > 0 {
		p.t.Errorf("%s: on a phone %d bars of progress are cut", name, cut)
	}
	if wide := Value[int](p, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); wide > 0 {
		p.t.Errorf("%s scrolls sideways on a phone, by %d pixels", name, wide)
	}
	p.do(chromedp.EmulateViewport(1280, 860), scheme("light"))
	for _, bad := range Value[[]string](p, accessible) {
		p.t.Errorf("%s: %s", name, bad)
	}
}

func (p *Page) shot(name string) {
	dir := os.Getenv("GRID_ARTIFACTS")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "dash-"+name+".png"), png, 0o644)
	}
	if err != nil {
		p.t.Logf("no picture %s: %v", name, err)
	}
}

func quote(s string) string {
	data, _ := json.Marshal(s)
	return string(data)
}
