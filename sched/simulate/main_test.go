package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sched/simulate/swarm"
)

func simulate(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := run(args, &out); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out.String())
	}
	return out.String()
}

func TestFlags(t *testing.T) {
	got := simulate(t, "-nodes", "20", "-stages", "200,20/10,1", "-users", "2", "-jobs", "2", "-sites", "3", "-far", "20ms",
		"-input", "1000", "-rate", "1000000", "-crash", "2", "-vice", "7=mute,8=slow")
	for _, want := range []string{"makespan", "tasks      442,", "steals", "fetches", "user1 had", "of the cores for each task"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	var r swarm.Report
	if err := json.Unmarshal([]byte(simulate(t, "-nodes", "4", "-tasks", "100", "-json")), &r); err != nil || r.Tasks != 100 || r.Makespan < r.Ideal {
		t.Errorf("%v, %+v", err, r)
	}
	for _, bad := range [][]string{
		{"-nodes", "0"}, {"-time", "odd"}, {"-stages", "1,x"}, {"-stages", "1/-2"}, {"-vice", "1=odd"}, {"-vice", "mute"}, {"more"},
		{"-world", "/nowhere"},
	} {
		if err := run(bad, new(bytes.Buffer)); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

// A world that was written down plays as before, to the last message.
func TestWorldFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "world.json")
	story := simulate(t, "-random", "-seed", "17", "-trace", "-", "-dump", file)
	again := simulate(t, "-world", file, "-trace", "-")
	cut := func(s string) string { return s[:strings.LastIndex(s, "simulated")] }
	if cut(story) != cut(again) {
		t.Error("the world plays otherwise once it was written down")
	}
	if !strings.Contains(story, "-> CloseJob") || !strings.Contains(story, "JobOpened lease=j0") {
		t.Errorf("the trace tells little:\n%.2000s", story)
	}
}
