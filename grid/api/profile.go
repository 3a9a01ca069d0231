package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/pprof/profile"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Profiles are what of a node can be profiled. The first four are of a stretch of time, the others of a moment.
var Profiles = []string{"cpu", "block", "mutex", "trace", "heap", "allocs", "goroutine", "threadcreate"}

// Bounds on profiles, and what is sampled while one is made.
const (
	DefaultProfile = 10 * time.Second
	MaxProfile     = 5 * time.Minute
	MaxExecution   = 30 * time.Second // of an execution trace, which is megabytes a second
	maxExecution   = 64 << 20         // bytes of one, which ends then
	blockRate      = 10_000           // ns of waiting for each sample
	mutexFraction  = 10               // waits for each sample
)

// timed says how long at most a profile of a stretch of time may take; 0: it is of a moment.
func timed(name string) time.Duration {
	switch name {
	case "cpu", "block", "mutex":
		return MaxProfile
	case "trace":
		return MaxExecution
	}
	return 0
}

// profiling is held while the process makes a profile of a stretch of time: it can make one, for all its nodes.
var profiling sync.Mutex

// profile answers with a profile of the process.
func (s *Server) profile(w http.ResponseWriter, r *http.Request) error {
	name, q := r.PathValue("name"), r.URL.Query()
	if !slices.Contains(Profiles, name) {
		return grid.Errorf(grid.NotFound, "there is no profile %.40q", name).Hint("there are %s", strings.Join(Profiles, ", "))
	}
	took, most := DefaultProfile, timed(name)
	if text := q.Get("seconds"); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		took = time.Duration(n) * time.Second
		switch {
		case most == 0:
			return grid.Errorf(grid.Invalid, "a %s profile is of a moment, not of %.40q seconds", name, text)
		case err != nil || took < time.Second || took > most:
			return grid.Errorf(grid.Invalid, "seconds=%.40q: a %s profile takes 1 to %d", text, name, int(most.Seconds()))
		}
	}
	if q.Get("text") != "" {
		if name != "goroutine" {
			return grid.Errorf(grid.Invalid, "a %s profile is none to be read; that of goroutines is", name)
		}
		w.Header().Set("Content-Type", textType)
		return pprof.Lookup(name).WriteTo(w, 2)
	}
	w.Header().Set("Content-Type", bytesType)
	if most == 0 {
		if name == "heap" {
			runtime.GC() // it is of what the last collection has left
		}
		return pprof.Lookup(name).WriteTo(w, 0)
	}
	if !profiling.TryLock() {
		return grid.Errorf(grid.Busy, "the node is making a profile already, and can make one at a time").Hint("try again when that has ended, in %v at most", MaxProfile)
	}
	defer profiling.Unlock()
	return profileFor(r.Context(), w, name, took)
}

// profileFor profiles for some time. Who hangs up ends it.
func profileFor(ctx context.Context, w io.Writer, name string, took time.Duration) error {
	out := bounded{full: make(chan struct{})} // whoever gets it may be slow
	wait := func() error {
		t := time.NewTimer(took)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-out.full:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	var err error
	switch name {
	case "cpu", "trace":
		start, stop := pprof.StartCPUProfile, pprof.StopCPUProfile
		if name == "trace" {
			start, stop = trace.Start, trace.Stop
		}
		if err = start(&out); err != nil {
			return grid.Errorf(grid.Busy, "profile: %w", err)
		}
		err = wait()
		stop()
		if err == nil {
			_, err = w.Write(out.buf.Bytes())
		}
		return err
	case "block":
		runtime.SetBlockProfileRate(blockRate)
		defer runtime.SetBlockProfileRate(0)
	case "mutex":
		defer runtime.SetMutexProfileFraction(runtime.SetMutexProfileFraction(mutexFraction))
	}
	before, err := counted(name)
	if err != nil {
		return err
	}
	if err := wait(); err != nil {
		return err
	}
	after, err := counted(name)
	if err != nil {
		return err
	}
	before.Scale(-1)
	p, err := profile.Merge([]*profile.Profile{after, before})
	if err != nil {
		return grid.Errorf(grid.Internal, "profile: %w", err)
	}
	p.TimeNanos, p.DurationNanos = time.Now().Add(-took).UnixNano(), int64(took)
	return p.Write(w)
}

// bounded keeps what it is given, until it is full.
type bounded struct {
	buf  bytes.Buffer
	once sync.Once
	full chan struct{} // closed then
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.buf.Len()+len(p) > maxExecution {
		b.once.Do(func() { close(b.full) })
		return 0, grid.Errorf(grid.Limit, "the profile has more than %d bytes", maxExecution)
	}
	return b.buf.Write(p)
}

// counted is what was counted of a kind since the process began.
func counted(name string) (*profile.Profile, error) {
	var b bytes.Buffer
	err := pprof.Lookup(name).WriteTo(&b, 0)
	if err == nil {
		var p *profile.Profile
		if p, err = profile.ParseData(b.Bytes()); err == nil {
			return p, nil
		}
	}
	return nil, grid.Errorf(grid.Internal, "profile: %w", err)
}

// Profile profiles the node: one of Profiles, for some time if it is of a stretch of that, 0 being the default. The caller closes it. With text
// it is for people; only that of goroutines can be.
func (c *Client) Profile(ctx context.Context, name string, took time.Duration, text bool) (io.ReadCloser, error) {
	path := "/debug/pprof/" + name
	switch {
	case text:
		path += "?text=1"
	case took > 0:
		path += "?seconds=" + strconv.Itoa(int(took.Seconds()))
	}
	return c.body(ctx, path)
}
