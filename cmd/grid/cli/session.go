package cli

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// need says what kind of node a verb can do with.
type need int

const (
	anyNode    need = iota // a running node, else one for this command alone
	daemonOnly             // a node that goes on running
)

// session is a node to speak to for the time of one command.
type session struct {
	*api.Client
	embedded bool // it ends with this command
	remote   bool // it is used over the network, with a token
	close    func() error
}

// with runs f with a session, and closes it.
func (e *env) with(ctx context.Context, n need, f func(*session) error) error {
	s, err := e.connect(ctx, e, n)
	if err != nil {
		return err
	}
	err = f(s)
	if s.close != nil {
		if cerr := s.close(); err == nil && cerr != nil {
			err = cerr
		}
	}
	return err
}

// How long a node that listens may take to answer, and how often a busy home is tried again.
const (
	answerTimeout = 10 * time.Second
	busyRetry     = 200 * time.Millisecond
)

// openSession finds the node of the home, or opens one for this command, unless one elsewhere is named. A home that another command
// holds is waited for: the socket is tried again each time, as that may be a node starting up.
func openSession(ctx context.Context, e *env, n need) (*session, error) {
	at, err := e.target()
	if err != nil {
		return nil, err
	}
	if at.api != "" {
		return openRemote(ctx, &at)
	}
	home := at.home
	told := false
	for {
		if client, err := dial(ctx, home); client != nil || err != nil {
			if err != nil {
				return nil, err
			}
			return &session{Client: client, close: func() error { client.Close(); return nil }}, nil
		}
		if n == daemonOnly {
			return nil, noNode(home)
		}
		d, err := daemon.Open(ctx, daemon.Config{Home: home, Embedded: true, Traces: e.traces(), Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			return &session{Client: d.Client(), embedded: true, close: func() error {
				if ctx.Err() != nil { // interrupted
					d.Hurry()
				}
				return d.Close()
			}}, nil
		}
		if !errors.Is(err, grid.Busy) {
			return nil, err
		}
		if !told {
			told = true
			e.note("waiting for another grid command that uses %s", home)
			e.hint("`grid up -d` starts a node that many commands can share")
		}
		select {
		case <-ctx.Done():
			return nil, grid.Errorf(grid.Canceled, "gave up waiting for %s: %w", home, context.Cause(ctx))
		case <-time.After(busyRetry):
		}
	}
}

func noNode(home string) error {
	return &exitError{exitNoNode, grid.Errorf(grid.Unavailable, "no node is running in %s", home).Hint("start one with `grid up`, or name another home with --home")}
}

// dial returns a client of the node that serves the home's socket; nil when none does. The file alone
// proves nothing, since a node that was killed leaves it behind.
func dial(ctx context.Context, home string) (*api.Client, error) {
	socket := daemon.Socket(home)
	if _, err := os.Stat(socket); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	client := api.Dial(socket)
	ask, cancel := context.WithTimeoutCause(ctx, answerTimeout, grid.Errorf(grid.Unavailable,
		"the node of %s does not answer within %v", home, answerTimeout).Hint("its log may tell why; `grid down` or a kill, then `grid up`, starts it again"))
	defer cancel()
	_, err := client.Node(ask)
	switch {
	case err == nil:
		return client, nil
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNRESET):
		client.Close()
		return nil, nil
	case errors.Is(err, fs.ErrPermission):
		err = grid.Errorf(grid.Denied, "the node of %s: %w", home, err).Hint("it belongs to another user; choose your own folder with --home")
	}
	client.Close()
	return nil, err
}

// minPrefix is the least of a job's ID that may stand for it.
const minPrefix = 4

// looksLikeJob reports whether s is, or begins, a job ID. No CID begins with a j.
func looksLikeJob(s string) bool {
	return strings.HasPrefix(s, "j") && strings.Trim(s[1:], "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// findJob finds the one job whose ID begins with s.
func findJob(ctx context.Context, s *session, prefix string) (grid.JobID, error) {
	if id, err := grid.ParseJobID(prefix); err == nil {
		return id, nil
	}
	if !looksLikeJob(prefix) || len(prefix) < minPrefix {
		return "", grid.Errorf(grid.Invalid, "%q is not a job ID, nor the first %d or more characters of one", prefix, minPrefix).Hint("`grid ps -a` lists the jobs")
	}
	jobs, err := s.Jobs(ctx)
	if err != nil {
		return "", err
	}
	var found []string
	for _, j := range jobs {
		if strings.HasPrefix(string(j.ID), prefix) {
			found = append(found, string(j.ID))
		}
	}
	switch len(found) {
	case 1:
		return grid.ParseJobID(found[0]) // it becomes the name of a folder, and a node may say anything
	case 0:
		return "", grid.Errorf(grid.NotFound, "no job begins with %q", prefix).Hint("`grid ps -a` lists the jobs")
	}
	return "", grid.Errorf(grid.Invalid, "%d jobs begin with %q: %s", len(found), prefix, strings.Join(found[:min(len(found), 5)], ", ")).Hint("give more characters")
}
