package cli

import (
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// progress is how far something has come, as far as its line on the terminal shows it.
type progress struct {
	what   string
	unit   string // of what is counted; "" counts bytes
	done   uint64
	total  uint64 // 0: not known
	free   uint64 // of done, what took no time, such as cached tasks
	failed uint64
}

// render draws p as a line shorter than width columns, after the given time.
//
//	map [=======>      ] 45/91 tasks  12.3/s  4s left
func (p progress) render(elapsed time.Duration, width int) string {
	line := p.counts()
	if p.failed > 0 {
		line += fmt.Sprintf(", %d failed", p.failed)
	}
	if rate := p.rate(elapsed); rate > 0 {
		if p.unit == "" {
			line += "  " + formatSize(uint64(rate)) + "/s"
		} else {
			line += fmt.Sprintf("  %.3g/s", rate)
		}
		if p.done < p.total {
			left := time.Duration(float64(p.total-p.done) / rate * float64(time.Second))
			line += "  " + formatTime(left.Round(time.Second)) + " left"
		}
	}
	what := printable(p.what)
	const least, most = 10, 40 // columns of a bar worth drawing
	if room := width - 1 - utf8.RuneCountInString(what) - utf8.RuneCountInString(line) - len(" [] "); p.total > 0 && room >= least {
		line = what + " [" + bar(p.done, p.total, min(room, most)) + "] " + line
	} else {
		line = what + " " + line
	}
	return truncate(line, width-1)
}

// counts says how many of how many.
func (p progress) counts() string {
	switch {
	case p.unit == "" && p.total == 0 && p.done == 0:
		return "" // nothing to count yet, or ever
	case p.unit == "" && p.total == 0:
		return formatSize(p.done)
	case p.unit == "":
		return formatSize(p.done) + "/" + formatSize(p.total)
	case p.total == 0:
		return fmt.Sprintf("%d %s", p.done, p.unit)
	}
	return fmt.Sprintf("%d/%d %s", p.done, p.total, p.unit)
}

// rate is per second, 0 while it says little.
func (p progress) rate(elapsed time.Duration) float64 {
	if elapsed < 500*time.Millisecond || p.done <= p.free {
		return 0
	}
	return float64(p.done-p.free) / elapsed.Seconds()
}

func bar(done, total uint64, width int) string {
	full := int(float64(width) * float64(min(done, total)) / float64(total))
	if full >= width {
		return strings.Repeat("=", width)
	}
	return strings.Repeat("=", full) + ">" + strings.Repeat(" ", width-full-1)
}

func truncate(s string, width int) string {
	if width <= 0 {
		return ""
	}
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width])
}

// How often progress is shown: on a terminal, and in a log.
const (
	drawEvery = 100 * time.Millisecond
	noteEvery = 5 * time.Second
)

// meter shows a progress now and then until it is stopped.
type meter struct {
	stop func()

	mu    sync.Mutex
	now   progress
	since time.Time
}

// startMeter begins to show progress: a line that is redrawn on a terminal, plain lines elsewhere,
// nothing when the user wants quiet.
func (u *ui) startMeter(p progress) *meter {
	m := &meter{now: p, since: time.Now()}
	quit, done := make(chan struct{}), make(chan struct{})
	m.stop = sync.OnceFunc(func() { close(quit); <-done })
	go func() {
		defer close(done)
		if u.quiet {
			return
		}
		every := noteEvery
		if u.width() > 0 {
			every = drawEvery
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		defer u.erase()
		last := ""
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			m.mu.Lock()
			p, elapsed := m.now, time.Since(m.since)
			m.mu.Unlock()
			if w := u.width(); w > 0 {
				u.draw(p.render(elapsed, w))
			} else if line := strings.TrimSpace(p.what + " " + p.counts()); line != last {
				last = line
				u.note("%s", printable(line))
			}
		}
	}()
	return m
}

// set shows p from now on. Another thing's rate is counted anew.
func (m *meter) set(p progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.what != m.now.what {
		m.since = time.Now()
	}
	m.now = p
}

// add counts bytes.
func (m *meter) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.done += uint64(n)
}

// expect raises the number of bytes that there will be.
func (m *meter) expect(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.total += uint64(n)
}
