package main

import (
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

func TestAdmit(t *testing.T) {
	defer func(q map[string]Quota) { quotas = q }(quotas)
	quotas = map[string]Quota{
		"*":   {Tasks: 10, InputBytes: 100, Memory: 1 << 20, Seconds: 2, Cores: 1},
		"ada": {Network: true, Verify: "quorum=2"},
	}
	stage := func(st sdk.StageInfo) sdk.JobInfo { return sdk.JobInfo{Stages: []sdk.StageInfo{{}, st}} }
	for _, test := range []struct {
		job     sdk.JobInfo
		refused string // "": accepted
	}{
		{sdk.JobInfo{}, ""},
		{sdk.JobInfo{Tasks: 10, InputBytes: 100}, ""},
		{sdk.JobInfo{Tasks: 11}, "11 tasks, at most 10"},
		{sdk.JobInfo{InputBytes: 101}, "101 bytes of input"},
		{stage(sdk.StageInfo{Memory: 1 << 20, TimeoutMS: 2000, Cores: 1}), ""},
		{stage(sdk.StageInfo{Name: "x", Memory: 1<<20 + 1}), "stage x: 1048577 bytes of memory"},
		{stage(sdk.StageInfo{TimeoutMS: 2001}), "run for 2.001s, at most 2s"},
		{stage(sdk.StageInfo{Cores: 2}), "2 cores"},
		{stage(sdk.StageInfo{Net: []string{"example.org:443"}}), "wants example.org:443"},
		{stage(sdk.StageInfo{Cores: 2, TimeoutMS: 3000}), "; "},
	} {
		d := sdktest.Call(t, admit, test.job)
		if d.Accept != (test.refused == "") || !strings.Contains(d.Reason, test.refused) {
			t.Errorf("%+v: %+v", test.job, d)
		}
		test.job.User = "ada"
		if d := sdktest.Call(t, admit, test.job); !d.Accept || d.Verify != "quorum=2" {
			t.Errorf("ada's: %+v: %+v", test.job, d)
		}
	}
	delete(quotas, "*")
	if d := sdktest.Call(t, admit, sdk.JobInfo{User: "eve"}); d.Accept || !strings.Contains(d.Reason, `"eve"`) {
		t.Errorf("%+v", d)
	}
}

// The file that is built in says something of everybody.
func TestFile(t *testing.T) {
	if q, ok := quotas["*"]; !ok || q.Network || q.Tasks == 0 {
		t.Errorf("%+v", quotas)
	}
}
