package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/netutil"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/dash"
)

func (e *env) dashCommand() *cobra.Command {
	var listen string
	var noOpen bool
	cmd := &cobra.Command{
		Use:   "dash",
		Short: "Open the dashboard in a browser",
		Long: `Open the dashboard of the running node, or of the one that --api names, in a browser on this machine: nodes, jobs, data and logs, live,
and what can be done with them. It goes on until Ctrl-C.

The URL that is printed works once, and only from this machine. What the page may do is what you may; with --api, what the token may. A node that
serves its API over the network (` + "`grid up --api`" + `) has the same page at https://HOST:PORT/dash/, which asks for a token.`,
		Example: `  grid dash
  grid dash --no-open --listen 127.0.0.1:8088`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(cmd.Context(), daemonOnly, func(s *session) error { return e.runDash(cmd.Context(), s, listen, !noOpen) })
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "the `ADDRESS` of this machine to serve the page at; port 0 is any that is free")
	cmd.Flags().BoolVar(&noOpen, "no-open", false, "open no browser, only print the URL")
	return cmd
}

// dashConnections bounds who is served at a time; a browser has six connections.
const dashConnections = 256

// runDash serves the dashboard until ctx ends.
func (e *env) runDash(ctx context.Context, s *session, listen string, open bool) error {
	bad := func(err error) error {
		return grid.Errorf(grid.Invalid, "--listen %s: %w", listen, err).Hint("it takes an address of this machine with a port that is free, such as 127.0.0.1:8088")
	}
	at, err := net.ResolveTCPAddr("tcp", listen)
	if err != nil {
		return bad(err)
	}
	if !at.IP.IsLoopback() {
		return grid.Errorf(grid.Invalid, "--listen %s: the dashboard is for browsers on this machine, as it is not encrypted", listen).
			Hint("for others, have the node serve it by TLS with `grid up --api ADDRESS`: https://HOST:PORT/dash/")
	}
	l, err := net.ListenTCP("tcp", at)
	if err != nil {
		return bad(err)
	}
	log := slog.New(slog.DiscardHandler)
	local := dash.NewLocal(s.Forward(log), func() {
		e.note("the dashboard's URL was used twice: somebody else may have seen it. Its session has ended")
		e.hint("run `grid dash` again")
	})
	serving, cancel := context.WithCancel(ctx) // ends those who follow something
	defer cancel()
	srv := &http.Server{
		Handler:           api.GuardBrowsers(local, log),
		BaseContext:       func(net.Listener) context.Context { return serving },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(serving, func() { srv.Close() })()
	url := "http://" + l.Addr().String()
	if _, err := fmt.Fprintln(e.out, url+local.Path()); err != nil {
		l.Close()
		return err
	}
	if open {
		e.openBrowser(ctx, url+local.HandedPath())
	}
	e.hint("Ctrl-C ends it")
	if err := srv.Serve(netutil.LimitListener(l, dashConnections)); !errors.Is(err, http.ErrServerClosed) {
		return grid.Errorf(grid.Unavailable, "dashboard: %w", err)
	}
	return nil
}

// openBrowser shows a page if there is a desktop to show it on. If not, the URL was printed.
func (e *env) openBrowser(ctx context.Context, url string) {
	var args []string
	switch runtime.GOOS {
	case "darwin":
		args = []string{"open", url}
	case "windows":
		args = []string{"rundll32", "url.dll,FileProtocolHandler", url}
	default:
		_, x := e.lookupEnv("DISPLAY")
		_, wayland := e.lookupEnv("WAYLAND_DISPLAY")
		if !x && !wayland {
			return
		}
		args = []string{"xdg-open", url}
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		e.note("no browser could be opened: %v", err)
		return
	}
	go func() { _ = cmd.Wait() }()
}
