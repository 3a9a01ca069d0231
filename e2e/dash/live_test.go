package dash

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"github.com/wasmgrid/wasmgrid/e2e"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/toolchain"
)

// TestLiveParts tries what the views are made of, in the browser: see testdata/parts.js.
func TestLiveParts(t *testing.T) {
	p := newFake(3, 2, 1000).show(t)
	for _, wrong := range Value[[]string](p, `import("/parts.js").then(m => m.check())`) {
		t.Error(wrong)
	}
}

// TestLiveHostile: what somebody has named jobs and nodes is text wherever the live views show it, and takes no more room than there is.
func TestLiveHostile(t *testing.T) {
	f := newFake(3, 2, 9000, "a\u202eb", hostile)
	f.name = hostile + strings.Repeat("long ", 2000)
	for i := range f.jobs {
		f.jobs[i].Name = f.name
	}
	p := f.show(t)
	p.Sees(".live-table button", "<script>window.hurt")
	p.Click(".live-table button", "<script>window.hurt")
	p.Sees(".live-side h2", "<script>window.hurt")
	p.Shots("map-hostile")
	p.Go("#/stream")
	p.Sees(".live-legend button", "<script>window.hurt")
	p.Click("button", "Table")
	p.Sees(".live-table td", "<script>window.hurt")
	p.Eval(`document.querySelector(".live canvas").focus()`)
	key(p, "ArrowLeft")
	p.Sees(".live-tip", "<script>window.hurt")
	p.Shots("stream-hostile")
	p.Go("#/plots")
	p.Sees(".live-names", "<script>window.hurt")
	p.Shots("plots-hostile")
	unhurt(p)
}

// TestLivePictures takes the pictures of the live views, of a swarm of middling size.
func TestLivePictures(t *testing.T) {
	p := newFake(24, 4, 40000, "berlin", "oslo", "porto").show(t)
	p.Wait(`gridView.map().nodes.length === 24 && gridView.map().frames > 3`)
	p.Wait(`gridView.map().moved > 0`)
	p.Eval(`document.querySelector(".live-table button").click()`)
	p.Shots("map")
	p.Go("#/stream")
	p.Heading("Task stream")
	p.Wait(`gridView.stream().loaded && gridView.stream().shown > 100`)
	p.Wait(`document.querySelectorAll(".live-legend button").length > 2`)
	p.Shots("stream")
	p.Eval(`[...document.querySelectorAll("button")].find(b => b.textContent === "10 s").click()`)
	p.Wait(`gridView.stream().span === 10000 && gridView.stream().asking === 0 && gridView.stream().shown > 20`)
	p.Eval(`document.querySelector(".live canvas").dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}))`)
	p.Shots("stream-near")
	p.Go("#/plots")
	p.Heading("Plots")
	p.Wait(`gridView.plots().samples > 5 && document.querySelectorAll(".live-table tr").length > 8`)
	p.Shots("plots")
}

// TestLiveLoad: a thousand nodes and a million tasks do not freeze the page. What frames took is told; what is demanded is little, as the
// machine is shared.
func TestLiveLoad(t *testing.T) {
	p := newFake(1000, 8, 1_000_000, "berlin", "oslo", "porto", "quito").show(t)
	p.Wait(`gridView.map().nodes.length === 1000 && gridView.map().frames > 3`)
	p.Eval(`window.measure = async f => {
		const long = [], frames = []
		const watch = new PerformanceObserver(l => { for (const e of l.getEntries()) long.push(e.duration) })
		watch.observe({type: "longtask"})
		let last = performance.now()
		const began = last
		for (let i = 0; performance.now() - began < 1000; i++) {
			f(i)
			const now = await new Promise(requestAnimationFrame)
			frames.push(now - last)
			last = now
		}
		await new Promise(ok => setTimeout(ok, 100))
		watch.disconnect()
		frames.sort((a, b) => a - b)
		const at = q => Math.round(10 * frames[Math.floor(q * (frames.length - 1))]) / 10
		return {frames: frames.length, p50: at(.5), p95: at(.95), worst: at(1), long: long.length, longest: Math.round(Math.max(0, ...long)), heap: Math.round(performance.memory.usedJSHeapSize / 1048576), paint: Object.values(gridView).map(f => f()).map(v => v.worst || 0).reduce((a, b) => Math.max(a, b), 0)}
	}
	window.wheel = (dy, dx) => {
		const c = document.querySelector(".live canvas"), r = c.getBoundingClientRect()
		c.dispatchEvent(new WheelEvent("wheel", {deltaY: dy, deltaX: dx || 0, ctrlKey: !dx, clientX: r.left + r.width * .6, clientY: r.top + 100, bubbles: true, cancelable: true}))
	}`)
	type frames struct {
		Frames, Long, Longest, Heap int
		P50, P95, Worst, Paint      float64
	}
	check := func(what, js string) {
		t.Helper()
		f := Value[frames](p, `measure(`+js+`)`)
		t.Logf("%-28s %3d frames in 1 s, p50 %.1f ms, p95 %.1f ms, worst %.1f ms, %d tasks over 50 ms, longest %d ms, slowest paint so far %.0f ms, heap %d MiB", what, f.Frames, f.P50, f.P95, f.Worst, f.Long, f.Longest, f.Paint, f.Heap)
		if f.Longest > 10_000 {
			t.Errorf("%s: the page did not answer for %d ms", what, f.Longest)
		}
		if f.Heap > 700 {
			t.Errorf("%s: %d MiB of heap", what, f.Heap)
		}
	}
	check("map, steals moving", `() => {}`)
	check("map, zooming", `i => wheel(i % 40 < 20 ? -40 : 40)`)
	p.shot("map-thousand")
	p.Go("#/stream")
	p.Heading("Task stream")
	p.Wait(`gridView.stream().loaded && gridView.stream().shown > 100`)
	check("stream, following", `() => {}`)
	p.shot("stream-thousand")
	check("stream, panning", `i => wheel(0, i % 60 < 30 ? -20 : 20)`)
	check("stream, zooming", `i => wheel(i % 60 < 30 ? -30 : 30)`)
	check("stream, scrolling rows", `i => { document.querySelector(".live-scroll").scrollTop += 37 }`)
	p.Click("button", "15 min")
	p.Wait(`gridView.stream().span === 900000 && gridView.stream().asking === 0 && gridView.stream().shown > 3000`)
	t.Logf("the stream keeps %d stretches, of which %d are in sight", Value[int](p, `gridView.stream().stretches`), Value[int](p, `gridView.stream().shown`))
	check("stream, 15 minutes, panning", `i => wheel(0, i % 60 < 30 ? -20 : 20)`)
	p.Go("#/plots")
	p.Heading("Plots")
	p.Wait(`gridView.plots().samples > 3 && gridView.plots().jobs.length > 0`)
	check("plots", `() => {}`)
}

// TestLiveSwarm: the views show what three real nodes do that share a job.
func TestLiveSwarm(t *testing.T) {
	w := e2e.NewWorld(t)
	burn := filepath.Join(t.TempDir(), "burn.wasm")
	if err := os.WriteFile(burn, toolchain.Go(t, "../testdata/burn"), 0o644); err != nil {
		t.Fatal(err)
	}
	a, b, c := w.Up("a", "--workers", "2"), w.Up("b", "--workers", "2"), w.Up("c", "--workers", "2")
	w.Meet(a, b, c)
	p := Open(t, a)
	p.Go("#/map")
	p.Heading("Swarm map")
	p.Wait(`gridView.map().nodes.length === 3 && gridView.map().nodes.every(n => n.state === "up") && gridView.map().nodes.filter(n => n.leader).length === 1 && gridView.map().links === 3`)
	job := strings.TrimSpace(a.Must("run", "--detach", "--keep-going", "--name", "burning", "--count", "300", burn, "--", "6000", "5"))
	p.Wait(`gridView.map().moved > 0`) // somebody steals
	p.Wait(`document.querySelectorAll(".live-table tbody tr").length === 3`)
	p.Shots("map-three")
	p.Eval(`document.querySelector(".live canvas").focus()`)
	key(p, "ArrowRight")
	p.Wait(`gridView.map().chosen !== "" && gridView.map().told.includes("2 slots busy")`)
	p.Sees(".live-side dt", "Tasks ended")

	p.Go("#/stream")
	p.Heading("Task stream")
	p.Click("button", "15 min")
	p.Wait(`gridView.stream().nodes.filter(n => n.tasks > 0).length > 1`)
	p.Sees(".live-legend button", "burning / 0")
	a.Grid("wait", job)
	// All of them, each once, the one that failed among them.
	p.Wait(`gridView.stream().nodes.reduce((n, q) => n + q.tasks, 0) >= 300 && gridView.stream().nodes.reduce((n, q) => n + q.failed, 0) > 0 && gridView.stream().nodes.some(q => q.stolen > 0)`)
	p.Click("button", "Table")
	p.Sees(".live-table td", "burning")
	p.Wait(`document.querySelectorAll(".live-table tbody tr").length === 3`)
	p.Click("button", "Table")
	p.Click("button", "2 min")
	p.Shots("stream-three")
	p.Click("button", "15 min")
	p.Eval(`document.querySelector(".live canvas").focus()`)
	key(p, "ArrowLeft")
	p.Wait(`gridView.stream().told.startsWith("burning, stage 0") && gridView.stream().told.includes("run ")`)
	p.Sees(".live-tip", "Took")
	first := Value[string](p, `gridView.stream().told`)
	key(p, "ArrowDown") // another slot: on a fast machine all tasks of one are a single stretch by now
	p.Wait(`gridView.stream().told !== ` + quote(first))
	span := Value[float64](p, `gridView.stream().span`)
	key(p, "+")
	p.Wait(`gridView.stream().span < ` + strconv.FormatFloat(span, 'f', -1, 64) + ` && !gridView.stream().follow`)
	key(p, "f")
	p.Wait(`gridView.stream().follow`)

	p.Go("#/plots")
	p.Heading("Plots")
	p.Click("button", "15 min")
	p.Wait(`gridView.plots().plots[0].lines.some(l => l.name === "burning" && l.most > 1)`)
	p.Wait(`gridView.plots().plots[2].lines.find(l => l.name === "slots").now === 6`)
	p.Sees(".live-table th", "Throughput: burning")
	p.Click("button", "2 min")
	p.Click("button", "By node")
	p.Wait(`gridView.plots().plots[0].lines.length === 3`)
	p.Shots("plots-three")

	p.Go("#/stream")
	p.Heading("Task stream")
	p.Click("button", "15 min")
	p.Wait(`gridView.stream().loaded && gridView.stream().shown > 0`)
	p.Eval(`document.querySelector(".live canvas").focus()`)
	key(p, "ArrowLeft")
	key(p, "Enter")
	p.Heading("burning")
	p.Click(".tabs a", "Timeline")
	p.Wait(`gridView.stream().nodes.reduce((n, q) => n + q.tasks, 0) >= 300`)
	p.Shots("timeline")
	c.Kill()
	p.Go("#/map")
	p.Wait(`gridView.map().nodes.filter(n => n.state === "silent").length === 1`)
	p.Shots("map-silent")
}

// key presses a key in what has the focus.
func key(p *Page, name string) {
	p.t.Helper()
	p.Eval(`document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key: ` + quote(name) + `, bubbles: true, cancelable: true})) && undefined`)
}

// TestLiveHidden: a tab that nobody sees asks for nothing, and shows what is now when it is seen again.
func TestLiveHidden(t *testing.T) {
	f := newFake(3, 2, 2000)
	p := f.show(t)
	p.Go("#/stream")
	p.Heading("Task stream")
	p.Wait(`gridView.stream().loaded && gridView.stream().shown > 5`)
	if f.open.Load() == 0 {
		t.Fatal("nothing is followed")
	}
	hide := func(hidden bool) {
		p.Eval(fmt.Sprintf(`Object.defineProperty(document, "hidden", {configurable: true, get: () => %t}); document.dispatchEvent(new Event("visibilitychange"))`, hidden))
	}
	hide(true)
	e2e.Eventually(t, "it follows nothing", func(context.Context) error {
		if n := f.open.Load(); n > 0 {
			return fmt.Errorf("%d requests are open", n)
		}
		return nil
	})
	asked, frames := f.asked.Load(), Value[int](p, `gridView.stream().frames`)
	p.Eval(`window.wait = performance.now() + 4000`)
	p.Wait(`performance.now() > window.wait`) // which is longer than anything is asked for again
	if more := f.asked.Load() - asked; more != 0 {
		t.Errorf("a hidden tab has asked %d times", more)
	}
	latest := Value[float64](p, `gridView.stream().latest`)
	hide(false)
	p.Wait(fmt.Sprintf(`gridView.stream().latest > %f && gridView.stream().frames > %d`, latest+3000, frames)) // what has ended meanwhile is there
	if f.open.Load() == 0 {
		t.Error("nothing is followed again")
	}
}

// TestLivePinch: two fingers zoom the task stream around the place between them, and one that is left moves it.
func TestLivePinch(t *testing.T) {
	p := newFake(3, 2, 2000).show(t)
	p.Go("#/stream")
	p.Heading("Task stream")
	p.Wait(`gridView.stream().loaded && gridView.stream().shown > 5`)
	type box struct{ X, Y, W float64 }
	at := Value[box](p, `(() => { const r = document.querySelector(".live canvas").getBoundingClientRect(); return {X: r.left, Y: r.top + 60, W: r.width} })()`)
	touch := func(kind input.DispatchTouchEventType, xs ...float64) {
		points := []*input.TouchPoint{}
		for i, x := range xs {
			points = append(points, &input.TouchPoint{X: at.X + x*at.W, Y: at.Y, ID: new(float64(i))})
		}
		p.do(func(ctx context.Context, t *chromedp.Target) (v chromedp.Void, err error) {
			_, err = cdp.Call(ctx, t, input.DispatchTouchEvent, input.DispatchTouchEventParams{Type: kind, TouchPoints: points})
			return v, err
		})
	}
	type view struct{ From, To, Span float64 }
	now := func() view {
		return Value[view](p, `(v => ({From: v.from, To: v.to, Span: v.span}))(gridView.stream())`)
	}
	before := now()
	touch(input.DispatchTouchEventTypeTouchStart, 0.55)
	touch(input.DispatchTouchEventTypeTouchStart, 0.55, 0.65)
	for i := range 10 {
		d := float64(i+1) / 100
		touch(input.DispatchTouchEventTypeTouchMove, 0.55-d, 0.65+d)
	}
	p.Wait(fmt.Sprintf(`gridView.stream().span < %f / 2.5`, before.Span)) // the fingers are three times as far apart
	near := now()
	if near.Span < before.Span/4 || near.From < before.From {
		t.Errorf("%+v became %+v", before, near)
	}
	for i := range 10 {
		d := float64(10-i-1) / 100
		touch(input.DispatchTouchEventTypeTouchMove, 0.55-d, 0.65+d)
	}
	p.Wait(fmt.Sprintf(`gridView.stream().span > %f * 2`, near.Span))
	touch(input.DispatchTouchEventTypeTouchEnd)
	if Value[string](p, "location.hash") != "#/stream" {
		t.Error("a pinch has opened something")
	}
	left := now()
	touch(input.DispatchTouchEventTypeTouchStart, 0.5)
	touch(input.DispatchTouchEventTypeTouchMove, 0.6)
	touch(input.DispatchTouchEventTypeTouchMove, 0.8)
	p.Wait(fmt.Sprintf(`gridView.stream().from < %f`, left.From))
	touch(input.DispatchTouchEventTypeTouchEnd)
}
