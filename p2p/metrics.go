package p2p

import (
	"strings"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/prometheus/client_golang/prometheus"
)

// measured is where libp2p tells what it does; nil: nowhere. It counts for all hosts of the process together, which tell anything.
type measured struct{ prometheus.Registerer }

func (m measured) host() libp2p.Option {
	if m.Registerer == nil {
		return libp2p.DisableMetrics()
	}
	return libp2p.PrometheusRegisterer(m)
}

// Register leaves out what the resource manager measures: it is not told, as that would cost every stream 40 allocations. See Stats.
func (m measured) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		c.Describe(descs)
	}()
	unwanted := false
	for d := range descs {
		unwanted = unwanted || strings.Contains(d.String(), `"libp2p_rcmgr_`)
	}
	if unwanted {
		return nil
	}
	return m.Registerer.Register(c)
}

// Stats is what a host has of the network at the moment.
type Stats struct {
	ConnsIn, ConnsOut     int // also those that are being made
	StreamsIn, StreamsOut int
	Memory                int64 // bytes that connections and streams have reserved
}

// Stats tells it.
func (h *Host) Stats() (s Stats) {
	_ = h.host.Network().ResourceManager().ViewSystem(func(scope network.ResourceScope) error {
		x := scope.Stat()
		s = Stats{x.NumConnsInbound, x.NumConnsOutbound, x.NumStreamsInbound, x.NumStreamsOutbound, x.Memory}
		return nil
	})
	return s
}

func (m measured) reachability() (options []autonatv2.AutoNATOption) {
	if m.Registerer != nil {
		options = append(options, autonatv2.WithMetricsTracer(autonatv2.NewMetricsTracer(m)))
	}
	return options
}

func (m measured) punching() (options []holepunch.Option) {
	if m.Registerer != nil {
		options = append(options, holepunch.WithMetricsTracer(holepunch.NewMetricsTracer(holepunch.WithRegisterer(m))))
	}
	return options
}

func (m measured) relaying() (options []relay.Option) {
	if m.Registerer != nil {
		options = append(options, relay.WithMetricsTracer(relay.NewMetricsTracer(relay.WithRegisterer(m))))
	}
	return options
}
