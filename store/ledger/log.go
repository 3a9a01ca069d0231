package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// logger gives what raft logs to slog, a step quieter: its warnings and errors are about single messages that did
// not arrive, and come again and again. So each is told once in a while.
type logger struct {
	hclog.Logger // what is not overridden does nothing
	log          *slog.Logger
	quiet        *quiet
}

func newLogger(log *slog.Logger) logger {
	return logger{hclog.NewNullLogger(), log, &quiet{last: make(map[string]time.Time)}}
}

// Trace and what follows are told at hclog.Logger.
func (l logger) Trace(string, ...any)          {}
func (l logger) Debug(msg string, args ...any) { l.write(slog.LevelDebug-4, msg, args) }
func (l logger) Info(msg string, args ...any)  { l.write(slog.LevelDebug, msg, args) }
func (l logger) Warn(msg string, args ...any)  { l.write(slog.LevelDebug, msg, args) }
func (l logger) Error(msg string, args ...any) {
	if level := slog.LevelInfo; l.log.Enabled(context.Background(), level) && l.quiet.may(msg) {
		l.write(level, msg, args)
	}
}

func (l logger) With(args ...any) hclog.Logger {
	l.log = l.log.With(args...)
	return l
}
func (l logger) Named(string) hclog.Logger      { return l }
func (l logger) ResetNamed(string) hclog.Logger { return l }

func (l logger) write(level slog.Level, msg string, args []any) {
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			if format, ok := f[0].(string); ok {
				args[i] = fmt.Sprintf(format, f[1:]...)
			}
		}
	}
	l.log.Log(context.Background(), level, "raft: "+msg, args...)
}

// quiet remembers what was said lately.
type quiet struct {
	mu   sync.Mutex
	last map[string]time.Time
}

const (
	sayAgain = 10 * time.Second
	maxSaid  = 256
)

func (q *quiet) may(msg string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if t, ok := q.last[msg]; ok && now.Sub(t) < sayAgain {
		return false
	}
	if len(q.last) >= maxSaid {
		clear(q.last)
	}
	q.last[msg] = now
	return true
}
