package cli

import (
	"context"
	"io"
	"os"
	"time"
)

// endPatience is what a node has to close once its input has ended: with nobody there to see that it does not, it must not stay.
const endPatience = 30 * time.Second

// endOfInput is a context that ends when the standard input does. If stop is not called soon after, the process ends.
func (e *env) endOfInput(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // reads have no deadline: it ends with the input, or the process
		_, _ = io.Copy(io.Discard, e.stdin)
		cancel()
	}()
	var last *time.Timer
	armed := make(chan struct{})
	unarm := context.AfterFunc(ctx, func() {
		last = time.AfterFunc(endPatience, func() { os.Exit(exitFailure) })
		close(armed)
	})
	return ctx, func() {
		if !unarm() {
			<-armed
			last.Stop()
		}
		cancel()
	}
}
