package p2p_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wasmgrid/wasmgrid/p2p"
)

func TestMeasured(t *testing.T) {
	registry := prometheus.NewRegistry()
	x := open(t, func(c *p2p.Config) { c.Metrics, c.Relay = registry, p2p.RelayOn })
	y := open(t)
	connect(t, x, y)
	if s := x.Stats(); s.ConnsIn+s.ConnsOut < 1 {
		t.Errorf("connected: %+v", s)
	}
	all, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	had := map[string]bool{}
	for _, f := range all {
		had[f.GetName()] = true
		if strings.HasPrefix(f.GetName(), "libp2p_rcmgr_") {
			t.Errorf("%s is there, which nobody writes", f.GetName())
		}
	}
	for _, want := range []string{"libp2p_swarm_connections_opened_total", "libp2p_holepunch_outcomes_total", "libp2p_relaysvc_status"} {
		if !had[want] {
			t.Errorf("no %s among %v", want, had)
		}
	}
}
