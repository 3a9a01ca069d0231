package sdk_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

func admit(_ sdk.Context, job sdk.JobInfo) (sdk.Decision, error) {
	switch {
	case job.User == "":
		return sdk.Decision{}, errors.New("a job of nobody")
	case job.Tasks > 10:
		return sdk.Refuse("%d tasks are too many", job.Tasks), nil
	}
	return sdk.Accept(), nil
}

func TestAdmission(t *testing.T) {
	if d := sdktest.Call(t, admit, sdk.JobInfo{User: "ann", Tasks: 3}); !d.Accept {
		t.Errorf("%+v", d)
	}
	if d := sdktest.Call(t, admit, sdk.JobInfo{User: "ann", Tasks: 30}); d.Accept || d.Reason != "30 tasks are too many" {
		t.Errorf("%+v", d)
	}
	if _, err := sdktest.TryCall(admit, sdk.JobInfo{}); err == nil {
		t.Error("an error is a decision")
	}
}

// lines splits files into pieces of whole lines.
func lines(_ sdk.Context, files []sdk.File, emit func(sdk.Piece) error) error {
	for _, f := range files {
		r, err := f.Open()
		if err != nil {
			return err
		}
		at := int64(0)
		for s := bufio.NewReader(r); err == nil; {
			var line string
			if line, err = s.ReadString('\n'); line == "" {
				break
			}
			if err := emit(sdk.Piece{File: f.Name, Offset: at, Length: int64(len(line))}); err != nil {
				return err
			}
			at += int64(len(line))
		}
		if r.Close(); err != io.EOF {
			return err
		}
		if size, err := f.Size(); err != nil || size != at {
			return errors.New("the size is wrong")
		}
	}
	return nil
}

func TestSplitter(t *testing.T) {
	got := sdktest.Split(t, lines, map[string]string{"a": "one\ntwo\n", "b": "three"})
	want := []sdk.Piece{{File: "a", Length: 4}, {File: "a", Offset: 4, Length: 4}, {File: "b", Length: 5}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	for _, p := range []sdk.Piece{{File: "c"}, {File: "a", Offset: -1}, {File: "a", Length: -1}} {
		_, err := sdktest.Try(sdk.Splitter("bad", func(_ sdk.Context, _ []sdk.File, emit func(sdk.Piece) error) error { return emit(p) }), map[string]string{"a": "x"})
		if err == nil {
			t.Errorf("%+v is taken for a piece", p)
		}
	}
}

func TestNotifier(t *testing.T) {
	var told sdk.JobEvent
	tell := func(_ sdk.Context, ev sdk.JobEvent) error {
		told = ev
		return nil
	}
	if _, err := sdktest.Notify(tell, sdk.JobEvent{Event: "done", Job: "j1"}); err != nil || told.Job != "j1" {
		t.Errorf("told of %+v, %v", told, err)
	}
	if _, err := sdktest.Notify(func(sdk.Context, sdk.JobEvent) error { return errors.New("no line") }, sdk.JobEvent{}); err == nil {
		t.Error("its error is lost")
	}
}

func TestScorer(t *testing.T) {
	fast := func(_ sdk.Context, _ sdk.StageInfo, n sdk.Candidate) (float64, error) {
		if n.Labels["disk"] == "slow" {
			return -1, nil
		}
		return float64(n.Slots), nil
	}
	if s := sdktest.Score(t, fast, sdk.StageInfo{}, sdk.Candidate{ID: "n", Slots: 4}); s != 4 {
		t.Errorf("score %v", s)
	}
	if s := sdktest.Score(t, fast, sdk.StageInfo{}, sdk.Candidate{ID: "n", Labels: map[string]string{"disk": "slow"}}); s != -1 {
		t.Errorf("score %v", s)
	}
}

// TestDescribeExtensions: the grid's tools see kinds and documents.
func TestDescribeExtensions(t *testing.T) {
	text, err := sdk.Describe(sdk.Admission("admit", admit), sdk.Splitter("lines", lines),
		sdk.Notifier("tell", func(sdk.Context, sdk.JobEvent) error { return nil }),
		sdk.Scorer("score", func(sdk.Context, sdk.StageInfo, sdk.Candidate) (float64, error) { return 0, nil }))
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Functions []struct{ Kind, Name string } }
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, f := range got.Functions {
		kinds = append(kinds, f.Kind)
	}
	if strings.Join(kinds, " ") != "admission splitter notifier scorer" || !strings.Contains(string(text), "deadline_ms") {
		t.Errorf("described as %s", text)
	}
}
