package api

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Kind is what a metric's numbers mean.
type Kind string

// The kinds of metrics, as Prometheus names them.
const (
	Counter   Kind = "counter"   // only grows while the node runs
	Gauge     Kind = "gauge"     // is what it is at the moment
	Histogram Kind = "histogram" // how many there were up to each bound, and their sum
)

// Family tells what one metric is. The labels of all its numbers together must stay few, whatever the node's users do.
type Family struct {
	Kind   Kind
	Name   string // grid_…
	Help   string
	Labels []string
}

// Metric is a metric of which the numbers are read from a picture of some part of the node.
type Metric[T any] struct {
	Kind   Kind
	Name   string // without grid_
	Help   string
	Labels []string
	Of     func(picture T, to Emit)
}

// Emit hands out the numbers of one metric.
type Emit struct {
	ch   chan<- prometheus.Metric
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// Number hands out one that is no histogram.
func (e Emit) Number(v float64, labels ...string) {
	e.ch <- prometheus.MustNewConstMetric(e.desc, e.kind, v, labels...)
}

// Timing hands out a histogram of seconds.
func (e Emit) Timing(t *grid.Timing, labels ...string) {
	count, sum, below := t.Read()
	e.ch <- prometheus.MustNewConstHistogram(e.desc, count, sum, below, labels...)
}

// Part is what is measured of one part of a node. It is read anew whenever somebody asks, and waits no longer than such a
// question may take.
type Part interface {
	prometheus.Collector
	Families() []Family
}

// NewPart makes a part of a list of metrics. picture reads what their numbers are taken from; when it cannot, they are left
// out, and the others are told all the same.
func NewPart[T any](picture func(context.Context) (T, error), list []Metric[T]) Part {
	p := &part[T]{picture: picture, list: list}
	for i := range list {
		m := &list[i]
		p.descs = append(p.descs, prometheus.NewDesc(metricPrefix+m.Name, m.Help, m.Labels, nil))
	}
	return p
}

const metricPrefix = "grid_"

type part[T any] struct {
	picture func(context.Context) (T, error)
	list    []Metric[T]
	descs   []*prometheus.Desc
}

// Families implements Part.
func (p *part[T]) Families() (all []Family) {
	for i := range p.list {
		m := &p.list[i]
		all = append(all, Family{m.Kind, metricPrefix + m.Name, m.Help, m.Labels})
	}
	return all
}

// Describe implements prometheus.Collector.
func (p *part[T]) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range p.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (p *part[T]) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), metricsTimeout)
	defer cancel()
	now, err := p.picture(ctx)
	for i := range p.list {
		if err != nil {
			ch <- prometheus.NewInvalidMetric(p.descs[i], err)
			continue
		}
		kind := prometheus.GaugeValue
		if p.list[i].Kind == Counter {
			kind = prometheus.CounterValue
		}
		p.list[i].Of(now, Emit{ch, p.descs[i], kind})
	}
}
