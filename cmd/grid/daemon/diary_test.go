package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/cmd/grid/nodelog"
	"github.com/wasmgrid/wasmgrid/grid"
)

// TestDiary: the last events come back after a restart, also when the node was killed in the midst of a line, the file was cut or written
// over, or it was put aside; and they take no more room than is said.
func TestDiary(t *testing.T) {
	name := filepath.Join(t.TempDir(), diaryName)
	log := slog.New(slog.DiscardHandler)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	n := 0
	write := func(count int) (past []grid.RealmEvent) {
		t.Helper()
		d, past, err := openDiary(name, log)
		if err != nil {
			t.Fatal(err)
		}
		for range count {
			d.Note(grid.RealmEvent{
				At: at.Add(time.Duration(n) * time.Second), From: "x", Room: grid.RoomNode, Kind: grid.KindUp,
				Tasks: grid.Span{Lo: 1, Hi: 2}, Stage: new(uint32(0)), Text: fmt.Sprint(n),
			})
			n++
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d.Note(grid.RealmEvent{Text: "too late"})
		return past
	}
	want := func(past []grid.RealmEvent, texts ...string) {
		t.Helper()
		var got []string
		for _, ev := range past {
			got = append(got, ev.Text)
		}
		if fmt.Sprint(got) != fmt.Sprint(texts) {
			t.Errorf("events %.200q, want %.200q", got, texts)
		}
	}
	want(write(2))
	past := write(1)
	want(past, "0", "1")
	if ev := past[1]; !ev.At.Equal(at.Add(time.Second)) || ev.Room != grid.RoomNode || ev.Kind != grid.KindUp || ev.Stage == nil || ev.Tasks.Hi != 2 {
		t.Errorf("an event came back as %+v", ev)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteString("\x00\x00\xffnothing\n" + `{"at":"2026-01-02T03:04`)
	f.Close()
	want(write(1), "0", "1", "2")
	want(write(0), "0", "1", "2", "3")

	for range 3 * (nodelog.OldFiles + 1) * diarySize / 100 / diaryQueue { // which is more than there is room for
		write(diaryQueue)
	}
	past = write(0)
	if len(past) != grid.MaxRealmEvents || past[len(past)-1].Text != fmt.Sprint(n-1) || past[0].Text != fmt.Sprint(n-grid.MaxRealmEvents) {
		t.Errorf("%d events, from %s to %s of %d", len(past), past[0].Text, past[len(past)-1].Text, n)
	}
	files, err := os.ReadDir(filepath.Dir(name))
	if err != nil || len(files) != 1+nodelog.OldFiles {
		t.Errorf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		if info, err := file.Info(); err != nil || info.Size() > diarySize || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file.Name(), info, err)
		}
	}
}
