package dash

import (
	"testing"
)

// TestLivePictures takes the pictures of the live views, of a swarm of middling size.
func TestLivePictures(t *testing.T) {
	p := newFake(24, 4, 40000, "berlin", "oslo", "porto").open(t)
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
	p.Wait(`gridView.plots().samples > 8 && document.querySelectorAll(".live-table tr").length > 8`)
	p.Shots("plots")
}

// TestLiveLoad: a thousand nodes and a million tasks do not freeze the page. What frames took is told; what is demanded is little, as the
// machine is shared.
func TestLiveLoad(t *testing.T) {
	p := newFake(1000, 8, 1_000_000, "berlin", "oslo", "porto", "quito").open(t)
	p.Wait(`gridView.map().nodes.length === 1000 && gridView.map().frames > 3`)
	p.Eval(`window.measure = async f => {
		const long = [], frames = []
		const watch = new PerformanceObserver(l => { for (const e of l.getEntries()) long.push(e.duration) })
		watch.observe({type: "longtask"})
		let last = performance.now()
		const began = last
		for (let i = 0; performance.now() - began < 3000; i++) {
			f(i)
			const now = await new Promise(requestAnimationFrame)
			frames.push(now - last)
			last = now
		}
		await new Promise(ok => setTimeout(ok, 100))
		watch.disconnect()
		frames.sort((a, b) => a - b)
		const at = q => Math.round(10 * frames[Math.floor(q * (frames.length - 1))]) / 10
		return {frames: frames.length, p50: at(.5), p95: at(.95), worst: at(1), long: long.length, longest: Math.round(Math.max(0, ...long)), heap: Math.round(performance.memory.usedJSHeapSize / 1048576)}
	}
	window.wheel = (dy, dx) => {
		const c = document.querySelector(".live canvas"), r = c.getBoundingClientRect()
		c.dispatchEvent(new WheelEvent("wheel", {deltaY: dy, deltaX: dx || 0, ctrlKey: !dx, clientX: r.left + r.width * .6, clientY: r.top + 100, bubbles: true, cancelable: true}))
	}`)
	type frames struct {
		Frames, Long, Longest, Heap int
		P50, P95, Worst             float64
	}
	check := func(what, js string) {
		t.Helper()
		f := Value[frames](p, `measure(`+js+`)`)
		t.Logf("%-28s %3d frames in 3 s, p50 %.1f ms, p95 %.1f ms, worst %.1f ms, %d tasks over 50 ms, longest %d ms, heap %d MiB", what, f.Frames, f.P50, f.P95, f.Worst, f.Long, f.Longest, f.Heap)
		if f.Frames < 6 {
			t.Errorf("%s: %d frames in 3 s", what, f.Frames)
		}
		if f.Heap > 700 {
			t.Errorf("%s: %d MiB of heap", what, f.Heap)
		}
	}
	check("map, steals moving", `() => {}`)
	check("map, zooming", `i => wheel(i % 40 < 20 ? -40 : 40)`)
	p.Shots("map-thousand")
	p.Go("#/stream")
	p.Heading("Task stream")
	p.Wait(`gridView.stream().loaded && gridView.stream().shown > 100`)
	check("stream, following", `() => {}`)
	p.Shots("stream-thousand")
	check("stream, panning", `i => wheel(0, i % 60 < 30 ? -20 : 20)`)
	check("stream, zooming", `i => wheel(i % 60 < 30 ? -30 : 30)`)
	check("stream, scrolling rows", `i => { document.querySelector(".live-scroll").scrollTop += 37 }`)
	p.Click("button", "15 min")
	p.Wait(`gridView.stream().span === 900000 && gridView.stream().asking === 0`)
	t.Logf("the stream keeps %d stretches, of which %d are in sight", Value[int](p, `gridView.stream().stretches`), Value[int](p, `gridView.stream().shown`))
	check("stream, 15 minutes, panning", `i => wheel(0, i % 60 < 30 ? -20 : 20)`)
	p.Go("#/plots")
	p.Heading("Plots")
	p.Wait(`gridView.plots().samples > 3 && gridView.plots().jobs.length > 0`)
	check("plots", `() => {}`)
}
