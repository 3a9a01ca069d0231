package p2p

import (
	"context"
	"log/slog"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
	"go.uber.org/zap/zapcore"
)

// TakeLogs has what libp2p and its kin log, in all of this process, go to a logger. It is to be called before hosts are opened.
func TakeLogs(log *slog.Logger) {
	gologshim.SetDefaultHandler(log.Handler())
	golog.SetPrimaryCore(zapCore{log.Handler()})
	_ = golog.SetLogLevel("*", "debug") // the logger decides; there is such a level
}

// zapCore hands what is logged by zap to slog.
type zapCore struct{ to slog.Handler }

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l <= zapcore.DebugLevel:
		return slog.LevelDebug
	case l == zapcore.InfoLevel:
		return slog.LevelInfo
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}

// Enabled, and what follows, are told at zapcore.Core.
func (c zapCore) Enabled(l zapcore.Level) bool {
	return c.to.Enabled(context.Background(), slogLevel(l))
}

func (c zapCore) With(fields []zapcore.Field) zapcore.Core {
	return zapCore{c.to.WithAttrs(attrsOf(fields))}
}

func (c zapCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	r := slog.NewRecord(e.Time, slogLevel(e.Level), e.Message, 0)
	r.AddAttrs(slog.String("logger", e.LoggerName))
	r.AddAttrs(attrsOf(fields)...)
	return c.to.Handle(context.Background(), r)
}

func (zapCore) Sync() error { return nil }

func attrsOf(fields []zapcore.Field) []slog.Attr {
	m := zapcore.NewMapObjectEncoder()
	attrs := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		f.AddTo(m)
		attrs = append(attrs, slog.Any(f.Key, m.Fields[f.Key]))
	}
	return attrs
}
