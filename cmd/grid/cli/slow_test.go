package cli

import (
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/p2p"
)

func TestSlowFlags(t *testing.T) {
	for in, want := range map[[2]string]p2p.Slow{
		{"", ""}:            {},
		{"50ms", ""}:        {Latency: 50 * time.Millisecond},
		{"50ms±10ms", "1%"}: {Latency: 50 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.01},
		{"1s+-0s", "0.25"}:  {Latency: time.Second, Loss: 0.25},
	} {
		f := slowFlags{in[0], in[1]}
		if got, err := f.parse(); err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, bad := range [][2]string{{"50", ""}, {"1m", ""}, {"-1s", ""}, {"10ms±20ms", ""}, {"10ms±", ""}, {"", "100%"}, {"", "-1"}, {"", "NaN"}, {"", "x"}} {
		f := slowFlags{bad[0], bad[1]}
		if got, err := f.parse(); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}
