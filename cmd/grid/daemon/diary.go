package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/wasmgrid/wasmgrid/cmd/grid/nodelog"
	"github.com/wasmgrid/wasmgrid/grid"
)

// What the node tells of the realm is kept in its home, so that it is known after a restart what happened before: a line of JSON for each
// event, in files as those of its log. Lines that cannot be read, as after a crash, are passed over.
const (
	diaryName  = "events.jsonl"
	diarySize  = 1 << 20 // bytes of each file
	diaryQueue = 1 << 10 // events that wait for the disk
)

// diary writes events. It is one goroutine's, which ends with Close.
type diary struct {
	file *nodelog.File
	log  *slog.Logger
	done chan struct{}

	mu     sync.Mutex
	queue  chan grid.RealmEvent // nil: it is closed
	missed int                  // events that found no room since the last that did
}

func (d *Daemon) openDiary() (*diary, []grid.RealmEvent, error) {
	book, past, err := openDiary(filepath.Join(d.cfg.Home, diaryName), d.cfg.room("node"))
	if err == nil {
		d.opened(book)
	}
	return book, past, err
}

// openDiary opens the diary of a node, and reads the last events that it has.
func openDiary(name string, log *slog.Logger) (*diary, []grid.RealmEvent, error) {
	past, bad := readDiary(name)
	if bad > 0 {
		log.Warn("events of the past cannot be read, and are left out", "file", name, "lines", bad)
	}
	file, err := nodelog.OpenFile(name, diarySize)
	if err != nil {
		return nil, nil, grid.Errorf(grid.Internal, "events: %w", err).Hint("the node writes what happens to its home")
	}
	d := &diary{file: file, log: log, done: make(chan struct{}), queue: make(chan grid.RealmEvent, diaryQueue)}
	go d.write(d.queue, !wholeLines(name))
	return d, past, nil
}

// readDiary reads the last events of a diary, and counts lines that are none.
func readDiary(name string) (events []grid.RealmEvent, bad int) {
	for i := nodelog.OldFiles; i >= 0; i-- {
		part := name
		if i > 0 {
			part = fmt.Sprint(name, ".", i)
		}
		f, err := os.Open(part)
		if err != nil {
			continue
		}
		data, _ := io.ReadAll(io.LimitReader(f, 2*diarySize))
		f.Close()
		for line := range bytes.Lines(data) {
			var ev grid.RealmEvent
			if err := json.Unmarshal(line, &ev); err != nil {
				bad++
				continue
			}
			events = append(events, ev)
		}
	}
	return events[max(0, len(events)-grid.MaxRealmEvents):], bad
}

// wholeLines reports whether a file ends with a line.
func wholeLines(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return true
	}
	defer f.Close()
	last := []byte{'\n'}
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		_, _ = f.ReadAt(last, info.Size()-1)
	}
	return last[0] == '\n'
}

// Note has an event be written, if there is room for it. It does not wait.
func (d *diary) Note(ev grid.RealmEvent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case d.queue <- ev:
		d.missed = 0
	default:
		if d.missed++; d.missed == 1 && d.queue != nil {
			d.log.Warn("events come faster than they can be written: some will not be known after a restart")
		}
	}
}

func (d *diary) write(queue <-chan grid.RealmEvent, torn bool) {
	defer close(d.done)
	failing := false
	for ev := range queue {
		line, err := json.Marshal(ev)
		if err != nil {
			continue // it is of a time that JSON cannot tell
		}
		if line = append(line, '\n'); torn {
			line = append([]byte{'\n'}, line...)
		}
		_, err = d.file.Write(line)
		torn = torn && err != nil
		if err != nil && !failing {
			d.log.Warn("events cannot be written: they will not be known after a restart", "err", err)
		}
		failing = err != nil
	}
}

// Close writes what waits.
func (d *diary) Close() error {
	d.mu.Lock()
	if d.queue != nil {
		close(d.queue)
		d.queue = nil
	}
	d.mu.Unlock()
	<-d.done
	return d.file.Close()
}
