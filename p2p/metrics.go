package p2p

import (
	"github.com/libp2p/go-libp2p"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
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

func (m measured) limits() (options []rcmgr.Option) {
	if m.Registerer == nil {
		options = append(options, rcmgr.WithMetricsDisabled())
	}
	return options // else the host registers them
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
