package store

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestTrouble: failures that go on cost next to nothing, and little of the log.
func TestTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		tr := trouble{log: slog.New(slog.NewTextHandler(&log, nil))}
		start := time.Now()
		tries := 0
		for ; time.Since(start) < 10*time.Minute; tries++ {
			tr.failed(errors.New("no space left"))
		}
		if lines := strings.Count(log.String(), "\n"); tries > 3000 || lines < 9 || lines > 11 {
			t.Errorf("%d tries and %d lines of log in ten minutes", tries, lines)
		}
		log.Reset()
		<-time.After(time.Minute)
		start = time.Now()
		tr.failed(errors.New("once"))
		if took := time.Since(start); took > 10*time.Millisecond || !strings.Contains(log.String(), "once") {
			t.Errorf("a failure much later took %v: %s", took, log.String())
		}
	})
}

// TestInUse: a store is in use while it is open.
func TestInUse(t *testing.T) {
	dir := t.TempDir()
	if InUse(dir) {
		t.Error("a folder without a store is in use")
	}
	s, err := Open(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if !InUse(dir) {
		t.Error("an open store is not in use")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if InUse(dir) {
		t.Error("a closed store is in use")
	}
}
