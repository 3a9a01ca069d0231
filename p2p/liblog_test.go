package p2p

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// TestZapLogs: what is logged by zap comes with its level, its logger and its fields, if somebody wants to hear of it.
func TestZapLogs(t *testing.T) {
	var b bytes.Buffer
	log := zap.New(zapCore{slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelWarn})}).Named("dht").With(zap.Int("n", 1))
	log.Info("not this")
	log.Warn("slow", zap.Duration("took", time.Second), zap.Strings("of", []string{"a"}))
	log.Sugar().Errorw("bad", "peer", "x")
	got := b.String()
	for _, want := range []string{`level=WARN msg=slow n=1 logger=dht took=1s of=[a]`, `level=ERROR msg=bad n=1 logger=dht peer=x`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	if strings.Contains(got, "not this") {
		t.Errorf("a level that nobody wants: %s", got)
	}
	for l, want := range map[zapcore.Level]slog.Level{zapcore.DebugLevel: slog.LevelDebug, zapcore.InfoLevel: slog.LevelInfo, zapcore.PanicLevel: slog.LevelError} {
		if got := slogLevel(l); got != want {
			t.Errorf("%v is %v", l, got)
		}
	}
}
