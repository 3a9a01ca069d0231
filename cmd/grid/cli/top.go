package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	// topJobsEvery is how often top asks for the jobs; topDrawEvery how often it looks whether the window has changed.
	topJobsEvery = 2 * time.Second
	topDrawEvery = 250 * time.Millisecond
)

func (e *env) topCommand() *cobra.Command {
	var once bool
	var show output
	var every time.Duration
	sort := "n"
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch nodes and jobs at work",
		Long: `Watch the nodes of the realm and its jobs at work: slots, queues, tasks and steals a second, how long tasks take, bytes that are moved,
memory and disk. The node that leads the ledger has a *; one that does not answer is silent, and shown as it was known last.

Keys: q quits; n, s, b, l, t, f, x, p, i, o, m and d sort nodes by name, slots, how busy they are, queue, tasks, failures, steals,
p99, bytes in and out, memory and disk; r turns the order around; tab goes to the jobs, arrows and pages move.

With --once, or where the output is no terminal, one picture is printed. It takes a second, as rates do.`,
		Example: `  grid top
  grid top --sort t --every 5s
  grid top --once --json`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			look := &topLook{key: 'n', colour: e.colour && e.terminal}
			known := false
			for _, c := range nodeColumns {
				if c.key != 0 && sort == string(c.key) {
					look.key, known = c.key, true
				}
			}
			if !known {
				return usageError(cmd, "--sort %q: want one of the letters that `grid top --help` lists", sort)
			}
			if every < time.Second || every > grid.MaxFollow {
				return usageError(cmd, "--every %v: want 1s to %v", every, grid.MaxFollow)
			}
			return e.with(cmd.Context(), daemonOnly, func(s *session) error {
				if w, h := e.screen(); once || show.formatted() || w <= 0 || h <= 0 {
					return e.topOnce(cmd.Context(), s, look, &show)
				}
				return e.topLive(cmd.Context(), s, look, every)
			})
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "print one picture")
	show.prints(e, cmd, "")
	cmd.Flags().DurationVar(&every, "every", time.Second, "ask nodes every so much `TIME`")
	cmd.Flags().StringVar(&sort, "sort", sort, "sort nodes by the column of this `KEY`")
	return cmd
}

var errTopEnd = errors.New("that is all")

// topOnce prints one picture.
func (e *env) topOnce(ctx context.Context, s *session, look *topLook, show *output) error {
	d := newTopData()
	lists := 0
	jobs := func() error {
		list, err := s.Jobs(ctx)
		d.listed(list, e.now())
		return err
	}
	err := s.FollowNodes(ctx, time.Second, func(list []grid.Pulse) error {
		d.heard(list)
		if err := jobs(); err != nil {
			return err
		}
		if lists++; lists == 2 {
			return errTopEnd
		}
		return nil
	})
	if err != nil && !errors.Is(err, errTopEnd) {
		return err
	}
	p := d.picture(e.now())
	if show.formatted() {
		return show.print(p)
	}
	w, _ := e.screen()
	_, err = fmt.Fprintln(e.out, strings.Join(look.draw(p, w, 0), "\n"))
	return err
}

// topLive draws pictures until somebody quits.
func (e *env) topLive(ctx context.Context, s *session, look *topLook, every time.Duration) error {
	keys, restore, err := e.keyboard()
	if err != nil {
		return err
	}
	defer restore()
	e.screenWrite("\x1b[?1049h\x1b[?25l\x1b[?7l") // names may have characters that are wider than one column: their lines are cut, not wrapped
	defer e.screenWrite("\x1b[?7h\x1b[?25h\x1b[?1049l")

	group, ctx := errgroup.WithContext(ctx)
	pulses, jobs := make(chan []grid.Pulse), make(chan []grid.JobStatus)
	group.Go(func() error {
		err := s.FollowNodes(ctx, every, func(list []grid.Pulse) error {
			select {
			case pulses <- list:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		if err == nil {
			err = grid.Errorf(grid.Unavailable, "the node has ended").Hint("`grid up` starts it again")
		}
		return err
	})
	group.Go(func() error {
		tick := time.NewTicker(topJobsEvery)
		defer tick.Stop()
		for {
			list, err := s.Jobs(ctx)
			if err != nil && ctx.Err() == nil && grid.CodeOf(err) != grid.Unavailable {
				return err
			}
			if err == nil {
				select {
				case jobs <- list:
				case <-ctx.Done():
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	group.Go(func() error {
		d := newTopData()
		tick := time.NewTicker(topDrawEvery)
		defer tick.Stop()
		lastW, lastH := 0, 0
		dirty := true
		for {
			w, h := e.screen()
			if dirty || w != lastW || h != lastH {
				e.screenWrite("\x1b[H" + strings.Join(look.draw(d.picture(e.now()), w, h), "\x1b[K\r\n") + "\x1b[K\x1b[J")
				lastW, lastH, dirty = w, h, false
			}
			select {
			case list := <-pulses:
				d.heard(list)
				dirty = true
			case list := <-jobs:
				d.listed(list, e.now())
				dirty = true
			case text := <-keys:
				for _, key := range splitKeys(text) {
					if !look.press(key, max(h/2, 1)) {
						return errTopEnd
					}
				}
				dirty = true
			case <-tick.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	if err := group.Wait(); !errors.Is(err, errTopEnd) {
		return err
	}
	return nil
}

// screenWrite writes to the terminal at stdout, which is a picture and no text.
func (u *ui) screenWrite(s string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, _ = io.WriteString(u.out.(*lineWriter).w, s)
}

// keyboard gives what is typed, key by key; where stdin is no terminal, nothing. Its reader ends with the process, as a terminal
// cannot be made to return.
func (e *env) keyboard() (keys <-chan string, restore func(), err error) {
	f, ok := e.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, func() {}, nil
	}
	was, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, nil, grid.Errorf(grid.Unsupported, "the terminal does not tell of single keys: %w", err).Hint("`grid top --once` prints one picture")
	}
	typed := make(chan string)
	go func() {
		buf := make([]byte, 256)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			typed <- string(buf[:n])
		}
	}()
	return typed, func() { _ = term.Restore(int(f.Fd()), was) }, nil
}
