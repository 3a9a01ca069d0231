package daemon

import (
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	gridtrace "github.com/wasmgrid/wasmgrid/cmd/grid/trace"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// openTraces begins to send spans, if there is somewhere to send them. It is closed behind what makes them.
func (d *Daemon) openTraces(key crypto.PrivKey) error {
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return grid.Errorf(grid.Internal, "identity: %w", err)
	}
	if d.traces, err = gridtrace.Open(d.cfg.Traces, id.String(), d.log); err != nil || d.traces == nil {
		return err
	}
	d.opened(d.traces)
	return nil
}

func (d *Daemon) tracesPart() api.Part {
	type st = gridtrace.Stats
	return api.NewPart(now(d.traces.Stats), []api.Metric[st]{
		number(api.Counter, "trace_spans_sent_total", "Spans of traces that the collector took.", func(s st) float64 { return float64(s.Sent) }),
		{Kind: api.Counter, Name: "trace_spans_dropped_total", Help: "Spans of traces that were lost: full if too many waited, refused if the collector did not take them.", Labels: []string{"reason"}, Of: func(s st, to api.Emit) {
			to.Number(float64(s.Full), "full")
			to.Number(float64(s.Refused), "refused")
		}},
		number(api.Gauge, "trace_spans_waiting", "Spans of traces that wait to be sent.", func(s st) float64 { return float64(s.Waiting) }),
	})
}
