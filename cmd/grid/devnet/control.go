package devnet

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	suffix     = ".sock"
	maxName    = 32
	maxState   = 1 << 20
	askTimeout = 10 * time.Second
)

// CheckName says what is wrong with the name of a devnet.
func CheckName(name string) error {
	if name == "" || len(name) > maxName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return grid.Errorf(grid.Invalid, "devnet: %.80q is no name", name).Hint("want 1 to %d lower-case letters, digits and dashes", maxName)
	}
	return nil
}

func socket(name string) string { return filepath.Join(daemon.Devnets(), name+suffix) }

// LogFile is where a devnet in the background writes.
func LogFile(name string) string { return filepath.Join(daemon.Devnets(), name+".log") }

// control is the socket through which other processes of this user ask a devnet for its state, and to end.
type control struct {
	server *http.Server
	path   string
	asked  chan struct{} // closed when it is to end
	served chan struct{}
}

func listen(name string, state func() State) (*control, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if st, err := Ask(context.Background(), name); err == nil {
		return nil, grid.Errorf(grid.Conflict, "devnet: there is one that is called %s, process %d", name, st.PID).
			Hint("end it with `grid devnet down %s`, or give this one another name with --name", name)
	}
	path := socket(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, grid.Errorf(grid.Invalid, "devnet: %w", err)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) { // of one that was killed
		return nil, grid.Errorf(grid.Invalid, "devnet: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "devnet: %w", err)
	}
	c := &control{path: path, asked: make(chan struct{}), served: make(chan struct{})}
	var once sync.Once
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(state()) })
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, _ *http.Request) { once.Do(func() { close(c.asked) }) })
	c.server = &http.Server{Handler: mux, ReadTimeout: askTimeout, WriteTimeout: askTimeout, MaxHeaderBytes: 16 << 10}
	go func() {
		defer close(c.served)
		_ = c.server.Serve(l)
	}()
	return c, nil
}

func (c *control) close() error {
	err := c.server.Close()
	<-c.served
	_ = os.Remove(c.path) // Close has done so already
	return err
}

func request(ctx context.Context, name, method, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket(name))
	}}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://devnet"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, maxState))
}

// Ask asks a devnet for its state.
func Ask(ctx context.Context, name string) (s State, err error) {
	if err := CheckName(name); err != nil {
		return s, err
	}
	text, err := request(ctx, name, http.MethodGet, "/")
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return s, grid.Errorf(grid.NotFound, "no devnet runs that is called %s", name).Hint("`grid devnet ls` lists those that do, `grid devnet 3` starts one")
	case err != nil:
		return s, grid.Errorf(grid.Unavailable, "devnet %s: %w", name, err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, grid.Errorf(grid.Unavailable, "devnet %s: %w", name, err)
	}
	return s, nil
}

// List asks all devnets of this user on this machine, in the order of their names. What one that was killed has left is removed.
func List(ctx context.Context) (all []State, err error) {
	names, err := filepath.Glob(filepath.Join(daemon.Devnets(), "*"+suffix))
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "devnet: %w", err)
	}
	sort.Strings(names)
	for _, path := range names {
		switch st, err := Ask(ctx, strings.TrimSuffix(filepath.Base(path), suffix)); {
		case err == nil:
			all = append(all, st)
		case grid.CodeOf(err) == grid.NotFound:
			_ = os.Remove(path)
		}
	}
	return all, nil
}

// Down has a devnet end, and waits until it has.
func Down(ctx context.Context, name string) error {
	if _, err := Ask(ctx, name); err != nil {
		return err
	}
	if _, err := request(ctx, name, http.MethodPost, "/down"); err != nil {
		return grid.Errorf(grid.Unavailable, "devnet %s: %w", name, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*stopTimeout, grid.Errorf(grid.Deadline, "devnet: %s did not end within %v", name, 2*stopTimeout))
	defer cancel()
	for {
		if _, err := Ask(ctx, name); grid.CodeOf(err) == grid.NotFound {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(poll):
		}
	}
}
