package grid

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// Bounds on what one guest counts and measures.
const (
	MaxMetrics    = 32 // names
	MaxMetricName = 64 // bytes
	// MaxStageMetrics bounds the names that are added up for one stage; what its tasks count besides is with each of them.
	MaxStageMetrics = 64
)

// Metric is what a guest counted, or measured, under one name. A counter has only a Count; a histogram has the count of
// its values, their sum, and how many fell into each of its buckets.
type Metric struct {
	Name    string         `cbor:"name" json:"name"`
	Kind    MetricKind     `cbor:"kind" json:"kind"`
	Count   uint64         `cbor:"n" json:"count"`
	Sum     float64        `cbor:"sum,omitempty" json:"sum,omitempty"`
	Buckets []MetricBucket `cbor:"buckets,omitempty" json:"buckets,omitempty"` // those that have values, in order
}

// MetricKind tells counters from histograms.
type MetricKind string

// The kinds.
const (
	Counter   MetricKind = "counter"
	Histogram MetricKind = "histogram"
)

// MetricBucket is how many values were above 2^(Exp-1) and at most 2^Exp. The one of MinMetricExp has all that are
// less, the one of MaxMetricExp all that are greater.
type MetricBucket struct {
	Exp   int    `cbor:"e" json:"exp"`
	Count uint64 `cbor:"n" json:"count"`
}

// The least and the greatest bucket of a histogram.
const (
	MinMetricExp = -32
	MaxMetricExp = 63
)

// CheckMetricName refuses what is no name for a metric: letters, digits and '_', not beginning with a digit, at most
// MaxMetricName bytes, as Prometheus has it.
func CheckMetricName(name string) error {
	ok := name != "" && len(name) <= MaxMetricName && (name[0] < '0' || name[0] > '9')
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_')
	}
	if !ok {
		return Errorf(Invalid, "%.80q is not a name for a metric", name).Hint("use letters, digits and '_', such as lines_read")
	}
	return nil
}

// Observe adds a value to a histogram. NaN counts in the least bucket; neither that nor an infinity is in the sum.
func (m *Metric) Observe(v float64) {
	exp := MinMetricExp
	if v > 0 && !math.IsInf(v, 1) {
		frac, e := math.Frexp(v) // v = frac * 2^e, frac in [0.5, 1)
		if frac == 0.5 {
			e-- // on the bound
		}
		exp = min(max(e, MinMetricExp), MaxMetricExp)
	} else if math.IsInf(v, 1) {
		exp = MaxMetricExp
	}
	m.Count = plus(m.Count, 1)
	if !math.IsNaN(v) && !math.IsInf(v, 0) {
		m.Sum = finite(m.Sum + v)
	}
	m.add(exp, 1)
}

// finite keeps a sum one that JSON can tell.
func finite(sum float64) float64 { return min(max(sum, -math.MaxFloat64), math.MaxFloat64) }

// plus adds up to the most there is.
func plus(a, b uint64) uint64 { return a + min(b, math.MaxUint64-a) }

func (m *Metric) add(exp int, n uint64) {
	i, ok := slices.BinarySearchFunc(m.Buckets, exp, func(b MetricBucket, e int) int { return cmp.Compare(b.Exp, e) })
	if !ok {
		m.Buckets = slices.Insert(m.Buckets, i, MetricBucket{Exp: exp})
	}
	m.Buckets[i].Count = plus(m.Buckets[i].Count, n)
}

// AddMetrics adds up metrics by name, in order of names. What is of another kind than the first of its name is left out.
// sum may be changed and returned; the slices of more are not kept.
func AddMetrics(sum, more []Metric) []Metric {
	sum, _ = addMetrics(sum, more, math.MaxInt)
	return sum
}

// addMetrics is AddMetrics of no more than so many names. It tells how many were dropped.
func addMetrics(sum, more []Metric, most int) (_ []Metric, dropped int) {
	for _, m := range more {
		i, ok := slices.BinarySearchFunc(sum, m.Name, func(s Metric, name string) int { return strings.Compare(s.Name, name) })
		if !ok {
			if len(sum) >= most {
				dropped++
				continue
			}
			sum = slices.Insert(sum, i, Metric{Name: m.Name, Kind: m.Kind})
		}
		s := &sum[i]
		if s.Kind != m.Kind {
			dropped++
			continue
		}
		s.Count = plus(s.Count, m.Count)
		s.Sum = finite(s.Sum + m.Sum)
		for _, b := range m.Buckets {
			s.add(b.Exp, b.Count)
		}
	}
	return sum, dropped
}

// maxSummed bounds what all stages of a job have added up, in bytes as encoded, so that it fits into the job's record.
const maxSummed = 128 << 10

// metricsSize is about how many bytes metrics have when encoded.
func metricsSize(list []Metric) (n int) {
	for i := range list {
		n += 64 + len(list[i].Name) + 16*len(list[i].Buckets)
	}
	return n
}

// fitMetrics leaves out what stages have added up, that of the largest first, where all of it would be too much.
func fitMetrics(stages []StageStatus) {
	total := 0
	for i := range stages {
		total += metricsSize(stages[i].Metrics)
	}
	for total > maxSummed {
		largest, most := 0, -1
		for i := range stages {
			if n := metricsSize(stages[i].Metrics); n > most {
				largest, most = i, n
			}
		}
		stages[largest].Metrics = nil
		total -= most
	}
}

// cloneMetrics copies metrics that go on changing.
func cloneMetrics(list []Metric) []Metric {
	list = slices.Clone(list)
	for i := range list {
		list[i].Buckets = slices.Clone(list[i].Buckets)
	}
	return list
}

// checkMetrics refuses metrics that no honest node reports: they come in order of names, each once.
func checkMetrics(list []Metric) error {
	if len(list) > MaxMetrics {
		return Errorf(Limit, "%d metrics, at most %d are allowed", len(list), MaxMetrics)
	}
	for i, m := range list {
		if err := CheckMetricName(m.Name); err != nil {
			return err
		}
		if i > 0 && list[i-1].Name >= m.Name {
			return Errorf(Invalid, "the metric %q is out of order", m.Name)
		}
		switch {
		case math.IsNaN(m.Sum) || math.IsInf(m.Sum, 0):
			return Errorf(Invalid, "the metric %q has the sum %v", m.Name, m.Sum)
		case m.Kind == Counter && m.Sum == 0 && len(m.Buckets) == 0:
		case m.Kind == Histogram:
			var n uint64
			for k, b := range m.Buckets {
				if b.Exp < MinMetricExp || b.Exp > MaxMetricExp || k > 0 && m.Buckets[k-1].Exp >= b.Exp || b.Count > m.Count-n {
					return Errorf(Invalid, "the metric %q has buckets that do not fit", m.Name)
				}
				n += b.Count
			}
			if n != m.Count {
				return Errorf(Invalid, "the metric %q has %d values, but %d in its buckets", m.Name, m.Count, n)
			}
		default:
			return Errorf(Invalid, "the metric %q is neither a counter nor a histogram", m.Name)
		}
	}
	return nil
}
