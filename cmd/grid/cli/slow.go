package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/p2p"
)

// slowFlags make a node's connections worse than they are.
type slowFlags struct{ latency, loss string }

func (f *slowFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.latency, "latency", "", "have what goes over connections that this node makes take a `TIME` more each way, such as 50ms or 50ms±10ms; there is no QUIC then")
	fl.StringVar(&f.loss, "loss", "", "have a `PART` of the packets on them get lost and be sent again, such as 1%")
}

// parse reads what was said.
func (f *slowFlags) parse() (s p2p.Slow, err error) {
	if f.latency != "" {
		base, jitter, ok := strings.Cut(strings.Replace(f.latency, "+-", "±", 1), "±")
		if s.Latency, err = time.ParseDuration(base); err == nil && ok {
			s.Jitter, err = time.ParseDuration(jitter)
		}
		if err != nil || s.Latency < 0 || s.Jitter < 0 || s.Jitter > s.Latency || s.Latency > p2p.MaxLatency {
			return s, grid.Errorf(grid.Invalid, "--latency %.40q: want a time up to %v, and by how much it differs, such as 50ms or 50ms±10ms", f.latency, p2p.MaxLatency)
		}
	}
	if f.loss != "" {
		digits, percent := strings.CutSuffix(f.loss, "%")
		s.Loss, err = strconv.ParseFloat(digits, 64)
		if percent {
			s.Loss /= 100
		}
		if err != nil || !(s.Loss >= 0 && s.Loss <= p2p.MaxLoss) {
			return s, grid.Errorf(grid.Invalid, "--loss %.40q: want a part of the packets up to %v%%, such as 1%%", f.loss, 100*p2p.MaxLoss)
		}
	}
	return s, nil
}
