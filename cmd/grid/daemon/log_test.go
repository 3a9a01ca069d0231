package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/cmd/grid/nodelog"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// lockedBuffer is a buffer for the goroutine that writes a log, and the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func logged(t *testing.T, out io.Writer, levels string) (*Daemon, *nodelog.Log) {
	t.Helper()
	l, err := nodelog.ParseLevels(levels)
	if err != nil {
		t.Fatal(err)
	}
	log, err := nodelog.Open(nodelog.Config{Out: out, Levels: l})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d, err := Open(ctx, Config{Home: filepath.Join(t.TempDir(), "home"), Swarm: "log-test", Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoMDNS: true, NoNearby: true,
		API: "127.0.0.1:0", NoUPnP: true, Logger: log.Logger(), Log: log})
	if err != nil {
		log.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(); log.Close() })
	return d, log
}

// TestNoSecretsInLogs: neither tokens nor secrets are in a node's log, whatever is done with them and however much it says.
func TestNoSecretsInLogs(t *testing.T) {
	var out lockedBuffer
	d, log := logged(t, &out, "debug,libp2p=debug")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := d.Client()
	const value = "hunter2-hunter2"
	if _, err := c.SetSecret(ctx, "password", []byte(value)); err != nil {
		t.Fatal(err)
	}
	made, err := c.CreateToken(ctx, grid.TokenRequest{Name: "ann", Role: grid.TokenAdmin})
	if err != nil {
		t.Fatal(err)
	}
	key, err := api.ParseKey(made.Text)
	if err != nil || len(key.At) == 0 {
		t.Fatal(key, err)
	}
	wrong := key
	wrong.Secret = bytes.Clone(key.Secret)
	wrong.Secret[0]++
	for _, k := range []api.Key{key, wrong} {
		remote := api.DialRemote(k, k.At[0])
		_, _ = remote.Node(ctx)
		_, _ = remote.SetSecret(ctx, "other", []byte(value))
		remote.Close()
	}
	kept := ""
	if err := c.NodeLog(ctx, grid.RecordQuery{}, func(r grid.LogRecord) error {
		data, err := json.Marshal(r)
		kept += string(data) + "\n"
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
	if len(kept) == 0 || out.String() == "" {
		t.Fatal("nothing is logged")
	}
	_, secret, _ := strings.Cut(made.Text, api.KeyPrefix)
	for name, text := range map[string]string{"kept": kept, "written": out.String()} {
		if strings.Contains(text, value) || strings.Contains(text, secret[:20]) || strings.Contains(text, secret[len(secret)-20:]) {
			t.Errorf("a secret is in what is %s:\n%s", name, text)
		}
	}
}

// TestLogDiskFull: a node whose log cannot be written works, and its status says so.
func TestLogDiskFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("this machine has no device that is full: %v", err)
	}
	defer full.Close()
	d, log := logged(t, full, "info")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := d.Client()
	for {
		st, err := c.Node(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if st.LogsLost > 0 && strings.Contains(st.LogTrouble, "no space left") {
			break
		}
	}
	said := 0
	if err := c.NodeLog(ctx, grid.RecordQuery{Grep: "cannot be written"}, func(grid.LogRecord) error { said++; return nil }); err != nil || said != 1 {
		t.Errorf("%v: it is said %d times", err, said)
	}
	if _, err := c.SetLogLevels(ctx, grid.LogLevels{Default: "warn"}); err != nil {
		t.Error(err)
	}
	log.Logger().With(nodelog.RoomKey, "store").Info("not any more")
	if err := c.NodeLog(ctx, grid.RecordQuery{Grep: "not any more"}, func(r grid.LogRecord) error { t.Errorf("%+v", r); return nil }); err != nil {
		t.Error(err)
	}
}
