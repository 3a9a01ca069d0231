package nodelog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, c Config) *Log {
	t.Helper()
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// records are those that are kept and wanted.
func records(t *testing.T, l *Log, q grid.RecordQuery) (list []grid.LogRecord) {
	t.Helper()
	if err := l.Records(t.Context(), q, func(r grid.LogRecord) error { list = append(list, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return list
}

func texts(list []grid.LogRecord) (out []string) {
	for _, r := range list {
		out = append(out, r.Room+" "+r.Level+" "+r.Text)
	}
	return out
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// TestLevels: each room has a level, of its own or with the others, that is changed while loggers are in use.
func TestLevels(t *testing.T) {
	levels, err := ParseLevels("warn,p2p=debug")
	if err != nil {
		t.Fatal(err)
	}
	l := open(t, Config{Levels: levels})
	log := l.Logger()
	p2p, store, lib := log.With(RoomKey, "p2p"), log.With("a", 1, RoomKey, "store"), log.With(RoomKey, "libp2p")
	say := func() {
		log.Info("main")
		p2p.Debug("hello")
		store.Info("kept")
		store.Warn("full")
		lib.Warn("stranger")
		lib.With(RoomKey, "nonsense").Error("lost")
	}
	say()
	want(t, texts(records(t, l, grid.RecordQuery{})), "p2p debug hello", "store warn full", "node error lost")
	if err := l.SetLevels(grid.LogLevels{Default: "info", Rooms: map[string]string{"p2p": "", "libp2p": "debug"}}); err != nil {
		t.Fatal(err)
	}
	last := records(t, l, grid.RecordQuery{})[2].ID
	say()
	want(t, texts(records(t, l, grid.RecordQuery{After: last})), "node info main", "store info kept", "store warn full", "libp2p warn stranger", "node error lost")
	now := l.Levels()
	if now.Default != "info" || len(now.Rooms) != 1 || now.Rooms["libp2p"] != "debug" || len(now.Known) != len(Rooms) {
		t.Errorf("levels %+v", now)
	}
	want(t, texts(records(t, l, grid.RecordQuery{Level: "warn", Room: "store"})), "store warn full", "store warn full")
	want(t, texts(records(t, l, grid.RecordQuery{Grep: "a=1", Limit: 1})), "store warn full")
	want(t, texts(records(t, l, grid.RecordQuery{Since: time.Now().Add(time.Hour)})))
	for _, bad := range []string{"loud", "info,warn", "=debug", "kitchen=debug", "p2p=loud", "p2p=debug=info"} {
		if _, err := ParseLevels(bad); err == nil {
			t.Errorf("levels %q are taken", bad)
		}
	}
	for _, q := range []grid.RecordQuery{{Level: "loud"}, {Grep: "("}, {Limit: -1}} {
		if err := l.Records(t.Context(), q, nil); grid.CodeOf(err) != grid.Invalid {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// TestLines: records are written as lines of text or of JSON, with their room, groups and attributes.
func TestLines(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		var b bytes.Buffer
		l := open(t, Config{Out: &b, JSON: asJSON})
		l.Logger().With(RoomKey, "store", "dir", "/x").WithGroup("g").Warn("a\nb", "n", 1, slog.Group("h", "err", errors.New("no")))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		rec := records(t, l, grid.RecordQuery{})[0]
		if fmt.Sprint(rec.Attrs) != "map[dir:/x g.h.err:no g.n:1]" || rec.Text != "a\nb" {
			t.Errorf("kept %+v", rec)
		}
		line := b.String()
		if asJSON {
			var v struct {
				Msg, Room, Dir, Level string
				G                     struct {
					N int
					H struct{ Err string }
				}
			}
			if err := json.Unmarshal([]byte(line), &v); err != nil || v.Msg != "a\nb" || v.Room != "store" || v.Dir != "/x" || v.Level != "WARN" || v.G.N != 1 || v.G.H.Err != "no" {
				t.Errorf("%v: %s", err, line)
			}
		} else if !strings.HasSuffix(line, ` level=WARN msg="a\nb" room=store dir=/x g.n=1 g.h.err=no`+"\n") {
			t.Errorf("line %s", line)
		}
	}
}

// TestSecrets: what looks like a token or a private key is in no record and no line.
func TestSecrets(t *testing.T) {
	var b bytes.Buffer
	l := open(t, Config{Out: &b})
	for _, s := range []string{"grid-api-1-SECRETSECRET_secret-12", "grid-join-2-SECRETSECRET", "AGE-SECRET-KEY-1SECRETSECRET", "-----BEGIN OPENSSH PRIVATE KEY-----\nSECRETSECRET\n-----END"} {
		l.Logger().With("with", "a "+s).Error("joined with "+s+".", "token", s, "err", fmt.Errorf("bad %s", s), slog.Group("g", "t", s), "list", []string{s})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	kept, _ := json.Marshal(records(t, l, grid.RecordQuery{}))
	for _, text := range []string{string(kept), b.String()} {
		if strings.Contains(text, "SECRETSECRET") || !strings.Contains(text, "grid-api-1-[not shown]") {
			t.Errorf("a secret is shown: %s", text)
		}
	}
}

// TestKept: the last records are kept, in so many bytes, and long ones are cut.
func TestKept(t *testing.T) {
	l := open(t, Config{})
	log := l.Logger()
	long := strings.Repeat("x", 2*maxText)
	for i := range 1000 {
		log.Info(fmt.Sprint("record ", i), "long", long)
	}
	all := records(t, l, grid.RecordQuery{})
	if n := len(all); n < 10 || n > maxKept/maxText || all[n-1].Text != "record 999" || all[n-1].ID-all[0].ID != uint64(n-1) || len(all[0].Attrs["long"]) > maxText+8 {
		t.Errorf("%d records are kept, the last is %d", n, all[n-1].ID)
	}
	if l.size > maxKept {
		t.Errorf("they take %d bytes", l.size)
	}
}

// TestFollow: who follows is given every record once, from several goroutines, and those after an ID.
func TestFollow(t *testing.T) {
	l := open(t, Config{})
	const writers, each = 4, 500
	log := l.Logger()
	log.Info("before")
	ctx, stop := context.WithCancel(within(t))
	first := records(t, l, grid.RecordQuery{})[0].ID
	seen, next := 0, first
	done := make(chan error, 1)
	began := make(chan struct{})
	go func() {
		done <- l.Records(ctx, grid.RecordQuery{Follow: true}, func(r grid.LogRecord) error {
			if r.ID != next {
				t.Errorf("record %d after %d", r.ID, next-1)
			}
			if next++; r.ID == first {
				close(began)
			}
			if seen++; seen == 1+writers*each {
				stop()
			}
			return nil
		})
	}()
	<-began
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				log.Info("x")
			}
		})
	}
	wg.Wait()
	if err := <-done; err != context.Canceled || seen != 1+writers*each {
		t.Errorf("%v after %d records", err, seen)
	}
}

// TestGoOn: who goes on behind a record of an earlier run of the node, or of no run, misses nothing of this one, and goes when it ends.
func TestGoOn(t *testing.T) {
	before := open(t, Config{})
	before.Logger().Info("of before")
	last := records(t, before, grid.RecordQuery{})[0].ID
	for time.Now().UnixMilli() <= int64(last) { // it takes longer to start a node
		runtime.Gosched()
	}
	l := open(t, Config{})
	l.Logger().Info("of now")
	for _, after := range []uint64{last, math.MaxUint64} {
		want(t, texts(records(t, l, grid.RecordQuery{After: after})), "node info of now")
		done, began := make(chan error, 1), make(chan struct{})
		go func() {
			done <- l.Records(within(t), grid.RecordQuery{After: after, Follow: true}, func(grid.LogRecord) error { close(began); return nil })
		}()
		<-began
		if after == math.MaxUint64 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Errorf("the log was closed: %v", err)
			}
		}
	}
}

// full is a disk without room.
type full struct {
	mu   sync.Mutex
	full bool
	got  bytes.Buffer
	took chan struct{}
}

func (f *full) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.took <- struct{}{} }()
	if f.full {
		return 0, errors.New("no space left on device")
	}
	return f.got.Write(p)
}

// TestFullDisk: the node is told nothing of it but once, in what is kept, and what is missing is told when there is room.
func TestFullDisk(t *testing.T) {
	out := &full{full: true, took: make(chan struct{}, 100)}
	l := open(t, Config{Out: out})
	for i := range 3 {
		l.Logger().Info(fmt.Sprint("record ", i))
		<-out.took
	}
	l.Logger().Info("last") // behind which the third is counted
	<-out.took
	lost, why := l.Lost()
	for ctx := within(t); lost < 4 && ctx.Err() == nil; {
		lost, why = l.Lost()
	}
	if lost != 4 || why != "no space left on device" {
		t.Errorf("%d lost: %s", lost, why)
	}
	want(t, texts(records(t, l, grid.RecordQuery{Grep: "cannot"})), "node error the log cannot be written; the node goes on, and keeps its last records in memory: no space left on device")
	out.mu.Lock()
	out.full = false
	out.mu.Unlock()
	l.Logger().Info("room")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, why := l.Lost(); why != "" || !strings.Contains(out.got.String(), "4 records before this one are missing") || !strings.Contains(out.got.String(), "msg=room") {
		t.Errorf("%q: %s", why, out.got.String())
	}
}

// TestStuck: a writer that takes nothing keeps nobody waiting.
func TestStuck(t *testing.T) {
	r, w := io.Pipe()
	l := open(t, Config{Out: w})
	long := strings.Repeat("x", 1000)
	for range 4 * maxQueued / 1000 {
		l.Logger().Info(long)
	}
	if lost, why := l.Lost(); lost == 0 || !strings.Contains(why, "too slowly") {
		t.Errorf("%d lost, %q", lost, why)
	}
	if l.queued > maxQueued {
		t.Errorf("%d bytes wait", l.queued)
	}
	r.Close() // which ends the wait
}

// TestFile: a log is put aside when it is long, and the oldest file goes.
func TestFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	f, err := OpenFile(name, 100)
	if err != nil {
		t.Fatal(err)
	}
	line := func(i int) string { return fmt.Sprintf("%038d\n", i) }
	for i := range 20 {
		if n, err := io.WriteString(f, line(i)); err != nil || n != 39 {
			t.Fatal(n, err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for file, first := range map[string]int{name: 18, name + ".1": 16, name + ".2": 14} {
		data, err := os.ReadFile(file)
		if err != nil || string(data) != line(first)+line(first+1) {
			t.Errorf("%s: %v: %q", file, err, data)
		}
	}
	if files, _ := os.ReadDir(filepath.Dir(name)); len(files) != 1+OldFiles {
		t.Errorf("%d files", len(files))
	}
	f, err = OpenFile(name, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.size != 78 {
		t.Errorf("a log that is gone on with has %d bytes", f.size)
	}
	if _, err := OpenFile(filepath.Join(name, "below"), FileSize); err == nil {
		t.Error("a log below a file is opened")
	}
}
