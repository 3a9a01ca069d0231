package cli

import (
	"cmp"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestParseShare(t *testing.T) {
	for _, tt := range []struct {
		text string
		want grid.Share // of 4 slots and 8 GiB
		bad  string
	}{
		{text: "cpu=50%,mem=4GiB", want: grid.Share{Slots: 2, Memory: 4 << 30, Scratch: 2 << 30}},
		{text: "cpu=1%", want: grid.Share{Slots: 1, Memory: 2 << 30, Scratch: 1 << 30}},
		{text: "cpu=40%", want: grid.Share{Slots: 2, Memory: 4 << 30, Scratch: 2 << 30}},
		{text: "cpu=100%,disk=1k", want: grid.Share{Slots: 4, Memory: 8 << 30, Scratch: 1024}},
		{text: "mem=50%,cpu=3", want: grid.Share{Slots: 3, Memory: (8 << 30) / 100 * 50, Scratch: 3 << 30}},
		{text: "cpu=1,time=90s", want: grid.Share{Slots: 1, Memory: 2 << 30, Scratch: 1 << 30, Time: 90 * time.Second}},
		{text: "cpu=1,time=0s", bad: "want 1s to 24h"},
		{text: "cpu=1,time=25h", bad: "want 1s to 24h"},
		{text: "cpu=1,time=5", bad: "want 1s to 24h"},
		{text: "cpu=1,time=50%", bad: "want a time"},
		{text: "", bad: "not KEY=VALUE"},
		{text: "cpu", bad: "not KEY=VALUE"},
		{text: "cpu=", bad: "not KEY=VALUE"},
		{text: "cpu=0%", bad: "1% to 100%"},
		{text: "cpu=101%", bad: "1% to 100%"},
		{text: "cpu=+5%", bad: "1% to 100%"},
		{text: "cpu=0", bad: "number of slots"},
		{text: "cpu=1.5", bad: "number of slots"},
		{text: "cpu=5", bad: "this node has 4"},
		{text: "cpu=1,cpu=2", bad: "twice"},
		{text: "mem=4GiB", bad: "cpu is missing"},
		{text: "cpu=1,mem=0", bad: "lends nothing"},
		{text: "cpu=1,mem=4", bad: "did you mean 4GiB?"},
		{text: "cpu=1,mem=lots", bad: "not a size"},
		{text: "cpu=1,mem=9GiB", bad: "this node has 8 GiB"},
		{text: "cpu=1,disk=50%", bad: "want bytes"},
		{text: "cpu=1,net=1", bad: "nothing that is lent"},
		{text: "cpu=1, mem=1GiB", bad: "nothing that is lent"},
	} {
		p, err := parseShare(tt.text)
		var got grid.Share
		if err == nil {
			got, err = p.Of(4, 8<<30)
		}
		switch {
		case tt.bad != "":
			if err == nil || !strings.Contains(err.Error(), tt.bad) || grid.CodeOf(err) != grid.Invalid || grid.AdviceOf(err) == "" {
				t.Errorf("%q: %v, want an error with %q and advice", tt.text, err, tt.bad)
			}
		case err != nil || got.Slots != tt.want.Slots || got.Memory != tt.want.Memory || got.Scratch != tt.want.Scratch || got.Time != cmp.Or(tt.want.Time, 10*time.Minute):
			t.Errorf("%q: %+v, %v, want %+v", tt.text, got, err, tt.want)
		}
	}
}
