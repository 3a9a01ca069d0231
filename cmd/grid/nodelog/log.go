// Package nodelog is a node's own log. Its records go to a writer, as lines of text or of JSON, and the last of them are kept for those who
// ask (grid node logs). Each part of the node, a room, has a level of its own, which can be changed while it runs. Whoever
// logs never waits for the writer: what that does not take is counted, and told of once it does again.
package nodelog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// RoomKey is the attribute that says which room a record is of.
const RoomKey = "room"

// Rooms are the parts of a node that log, and those of others' libraries. A record that names none is of the first.
var Rooms = []string{"node", "api", "data", "ipfs", "ledger", "libp2p", "p2p", "raft", "store", "swarm", "wasmhost"}

// quiet are rooms that have another level than the rest unless somebody says so: what libp2p warns of is mostly what
// strangers do.
var quiet = map[string]slog.Level{"libp2p": slog.LevelError}

// Config says how a log is kept.
type Config struct {
	Out    io.Writer      // nil: records are only kept. It is written to by one goroutine
	JSON   bool           // as lines of JSON instead of text
	Levels grid.LogLevels // the zero value: info
}

// Bounds on what is kept, for those who ask and for a writer that is slow, in bytes.
const (
	maxKept   = 1 << 20
	maxQueued = 1 << 20
	maxText   = 16 << 10 // of one message or attribute
	maxAttrs  = 64
	closeWait = 2 * time.Second
	batch     = 256 // records that a reader is given between two looks
)

// Log is a node's log. It is safe for concurrent use.
type Log struct {
	main *room // of records that name no room

	mu    sync.Mutex
	level slog.Level // of rooms that have none of their own
	rooms map[string]*room

	keep    sync.Mutex // guards what follows, and the order of records in both places
	kept    []grid.LogRecord
	size    int
	last    uint64        // ID
	news    chan struct{} // closed at the next record; nil: nobody waits
	queue   [][]byte
	queued  int
	lost    uint64 // records that were not written, in all
	untold  uint64 // and of those, since it was told last
	trouble string // why, while it lasts
	closed  bool

	out  io.Writer
	form func(io.Writer) slog.Handler
	wake chan struct{}
	done chan struct{}
}

// room is one part of the node.
type room struct {
	name  string
	level atomic.Int64 // from which on it logs
	own   bool         // it was said for this room; guarded by the log's mu
}

// Open begins a log.
func Open(c Config) (*Log, error) {
	l := &Log{rooms: make(map[string]*room), out: c.Out, wake: make(chan struct{}, 1), done: make(chan struct{})}
	l.last = uint64(time.Now().UnixMilli()) // so that who goes on behind a record of an earlier run misses none of this one
	for _, name := range Rooms {
		r := &room{name: name}
		if level, ok := quiet[name]; ok {
			r.own = true
			r.level.Store(int64(level))
		}
		l.rooms[name] = r
	}
	l.main = l.rooms[Rooms[0]]
	l.form = func(w io.Writer) slog.Handler {
		o := &slog.HandlerOptions{Level: slog.Level(-1000), ReplaceAttr: harmless}
		if c.JSON {
			return slog.NewJSONHandler(w, o)
		}
		return slog.NewTextHandler(w, o)
	}
	if err := l.SetLevels(c.Levels); err != nil {
		return nil, err
	}
	go l.write()
	return l, nil
}

// Logger logs to it.
func (l *Log) Logger() *slog.Logger { return slog.New(newHandler(l)) }

// Close waits a moment until what was logged is written. What is logged after it is only kept.
func (l *Log) Close() error {
	l.keep.Lock()
	closed := l.closed
	l.closed = true
	if l.news != nil { // those who follow go
		close(l.news)
		l.news = nil
	}
	l.keep.Unlock()
	if !closed {
		l.stir()
	}
	t := time.NewTimer(closeWait)
	defer t.Stop()
	select {
	case <-l.done:
		return nil
	case <-t.C:
		return grid.Errorf(grid.Deadline, "the last records of the log are not written: its file, terminal or pipe takes nothing")
	}
}

// ParseLevels reads levels as in info,p2p=debug: one for all, and some for rooms.
func ParseLevels(text string) (grid.LogLevels, error) {
	l := grid.LogLevels{Rooms: map[string]string{}}
	for part := range strings.SplitSeq(text, ",") {
		name, level, named := strings.Cut(strings.TrimSpace(part), "=")
		if !named {
			name, level = "", name
		}
		switch {
		case named && name == "":
			return l, grid.Errorf(grid.Invalid, "%.80q names no room", part).Hint("there are %s", strings.Join(Rooms, ", "))
		case !named && l.Default != "":
			return l, grid.Errorf(grid.Invalid, "%.80q has two levels for all rooms", text).Hint("such as info,p2p=debug")
		case named:
			l.Rooms[name] = level
		default:
			l.Default = level
		}
	}
	return l, Check(l)
}

// Check refuses levels and rooms that there are not.
func Check(l grid.LogLevels) error {
	if l.Default != "" {
		if _, err := grid.ParseLogLevel(l.Default); err != nil {
			return err
		}
	}
	for name, level := range l.Rooms {
		if !slices.Contains(Rooms, name) {
			return grid.Errorf(grid.NotFound, "the node has no room %.40q that logs", name).Hint("there are %s", strings.Join(Rooms, ", "))
		}
		if _, err := grid.ParseLogLevel(level); err != nil && level != "" {
			return grid.Errorf(grid.CodeOf(err), "room %s: %w", name, err)
		}
	}
	return nil
}

// SetLevels changes levels: of all rooms that have none of their own, unless it is "", and of those that are named. "" has
// a room go with the others.
func (l *Log) SetLevels(to grid.LogLevels) error {
	if err := Check(to); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if to.Default != "" {
		l.level, _ = grid.ParseLogLevel(to.Default)
	}
	for name, text := range to.Rooms {
		r := l.rooms[name]
		if r.own = text != ""; r.own {
			level, _ := grid.ParseLogLevel(text)
			r.level.Store(int64(level))
		}
	}
	for _, r := range l.rooms {
		if !r.own {
			r.level.Store(int64(l.level))
		}
	}
	return nil
}

// Levels tells the levels, and how the log is.
func (l *Log) Levels() grid.LogLevels {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := grid.LogLevels{Default: levelName(l.level), Rooms: map[string]string{}, Known: slices.Sorted(maps.Keys(l.rooms))}
	for name, r := range l.rooms {
		if r.own {
			now.Rooms[name] = levelName(slog.Level(r.level.Load()))
		}
	}
	now.Lost, now.Trouble = l.Lost()
	return now
}

// Lost counts the records that were not written, and says why, while it lasts.
func (l *Log) Lost() (records uint64, why string) {
	l.keep.Lock()
	defer l.keep.Unlock()
	return l.lost, l.trouble
}

// room finds a room by its name. One that does not exist is the first.
func (l *Log) room(name string) *room {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.rooms[name]; r != nil {
		return r
	}
	return l.main
}

// levelName is a level as people name it.
func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warn"
	}
	return "error"
}

// add takes in a record, and the line that is to be written.
func (l *Log) add(rec grid.LogRecord, line []byte) {
	l.keep.Lock()
	defer l.keep.Unlock()
	l.keepLocked(rec)
	if l.out == nil || l.closed {
		return
	}
	if l.queued+len(line) > maxQueued {
		l.lost++
		l.untold++
		if l.trouble == "" {
			l.trouble = "its file, terminal or pipe takes what is logged too slowly"
		}
		return
	}
	l.queue, l.queued = append(l.queue, line), l.queued+len(line)
	l.stir()
}

func (l *Log) stir() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// keepLocked keeps a record in place of the oldest ones. l.keep is held.
func (l *Log) keepLocked(rec grid.LogRecord) {
	l.last++
	rec.ID = l.last
	l.kept, l.size = append(l.kept, rec), l.size+sizeOf(&rec)
	drop := 0
	for l.size > maxKept && drop < len(l.kept)-1 {
		l.size -= sizeOf(&l.kept[drop])
		l.kept[drop] = grid.LogRecord{}
		drop++
	}
	l.kept = l.kept[drop:] // append moves them together when there is no more room
	if l.news != nil {
		close(l.news)
		l.news = nil
	}
}

func sizeOf(r *grid.LogRecord) int {
	n := 128 + len(r.Text)
	for k, v := range r.Attrs {
		n += 32 + len(k) + len(v)
	}
	return n
}

// write hands lines to the writer, until the log is closed.
func (l *Log) write() {
	defer close(l.done)
	for {
		l.keep.Lock()
		lines, closed := l.queue, l.closed
		l.queue, l.queued = nil, 0
		l.keep.Unlock()
		if len(lines) > 0 {
			l.hand(lines)
			continue
		}
		if closed {
			return
		}
		<-l.wake
	}
}

// hand writes some lines. If that fails, a record that is only kept says so, the first time; the first line that is written after
// it says how many are missing.
func (l *Log) hand(lines [][]byte) {
	text := bytes.Join(lines, nil)
	l.keep.Lock()
	untold := l.untold
	l.keep.Unlock()
	if untold > 0 {
		_, line := l.told(slog.LevelError, fmt.Sprintf("%d records before this one are missing: they could not be written", untold))
		text = append(line, text...)
	}
	_, err := l.out.Write(text)
	l.keep.Lock()
	defer l.keep.Unlock()
	switch {
	case err != nil:
		l.lost, l.untold = l.lost+uint64(len(lines)), l.untold+uint64(len(lines))
		if why := err.Error(); l.trouble != why {
			l.trouble = why
			rec, _ := l.told(slog.LevelError, "the log cannot be written; the node goes on, and keeps its last records in memory: "+why)
			l.keepLocked(rec)
		}
	case untold > 0:
		l.untold -= untold
		fallthrough
	default:
		if l.untold == 0 {
			l.trouble = ""
		}
	}
}

// told is a record of the log's own.
func (l *Log) told(level slog.Level, text string) (grid.LogRecord, []byte) {
	var b bytes.Buffer
	rec := slog.NewRecord(time.Now(), level, text, 0)
	_ = l.form(&b).WithAttrs([]slog.Attr{slog.String(RoomKey, l.main.name)}).Handle(context.Background(), rec)
	return grid.LogRecord{At: rec.Time.UTC().Round(0), Level: levelName(level), Room: l.main.name, Text: text}, b.Bytes()
}

// Records calls f for records that are kept, the oldest first, and with Follow for those to come, until ctx ends or the log is
// closed. An error of f ends it.
func (l *Log) Records(ctx context.Context, q grid.RecordQuery, f func(grid.LogRecord) error) error {
	if err := q.Check(); err != nil {
		return err
	}
	wanted := picker(&q)
	last := q.After
	l.keep.Lock()
	if last > l.last { // no record of this log
		last = 0
	}
	l.keep.Unlock()
	if q.Limit > 0 {
		var matches []uint64
		_ = l.since(last, func(r grid.LogRecord) error {
			if wanted(&r) {
				matches = append(matches, r.ID)
			}
			return nil
		})
		if k := len(matches) - q.Limit; k > 0 {
			last = matches[k] - 1
		}
	}
	for {
		l.keep.Lock()
		if l.news == nil {
			l.news = make(chan struct{})
		}
		news, end, closed := l.news, l.last, l.closed
		l.keep.Unlock()
		if err := l.since(last, func(r grid.LogRecord) error {
			if last = r.ID; wanted(&r) {
				return f(r)
			}
			return nil
		}); err != nil {
			return err
		}
		if !q.Follow || closed {
			return nil
		}
		last = max(last, end)
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// since calls f for the records that are kept and come behind one.
func (l *Log) since(last uint64, f func(grid.LogRecord) error) error {
	for {
		l.keep.Lock()
		first := l.last - uint64(len(l.kept)) + 1 // of those that are kept
		from := 0
		if last >= first {
			from = int(min(last-first+1, uint64(len(l.kept))))
		}
		some := slices.Clone(l.kept[from:min(from+batch, len(l.kept))])
		l.keep.Unlock()
		if len(some) == 0 {
			return nil
		}
		for i := range some {
			if err := f(some[i]); err != nil {
				return err
			}
		}
		last = some[len(some)-1].ID
	}
}

// picker tells which records are wanted.
func picker(q *grid.RecordQuery) func(*grid.LogRecord) bool {
	re, _ := q.Pattern() // it was checked
	least := slog.Level(-1000)
	if q.Level != "" {
		least, _ = grid.ParseLogLevel(q.Level)
	}
	return func(r *grid.LogRecord) bool {
		if level, _ := grid.ParseLogLevel(r.Level); level < least {
			return false
		}
		if q.Room != "" && q.Room != r.Room || r.At.Before(q.Since) {
			return false
		}
		if re == nil || re.MatchString(r.Text) {
			return true
		}
		for k, v := range r.Attrs {
			if re.MatchString(k + "=" + v) {
				return true
			}
		}
		return false
	}
}
