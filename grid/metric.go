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
)

// Metric is what a guest counted, or measured, under one name. A counter has only a Count; a histogram has the count of
// its values, their sum, and how many fell into each of its buckets.
type Metric struct {
	Name    string         `cbor:"name" json:"name"`                           // that the guest has given it
	Kind    MetricKind     `cbor:"kind" json:"kind"`                           // what it is
	Count   uint64         `cbor:"n" json:"count"`                             // of a counter what was counted, of a histogram how many values
	Sum     float64        `cbor:"sum,omitempty" json:"sum,omitempty"`         // of a histogram's values
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
	Exp   int    `cbor:"e" json:"exp"`   // of the power of two that is its upper bound
	Count uint64 `cbor:"n" json:"count"` // values that fell into it
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

// Add adds to a counter, which stays at the greatest number there is once it has got there.
func (m *Metric) Add(n uint64) { m.Count = addUpTo(m.Count, n) }

func addUpTo(a, b uint64) uint64 {
	if sum := a + b; sum >= a {
		return sum
	}
	return math.MaxUint64
}

// Observe adds a value to a histogram. NaN counts in the least bucket, and not in the sum.
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
	m.Add(1)
	m.addSum(v)
	m.add(exp, 1)
}

// addSum keeps the sum a number, which JSON can say.
func (m *Metric) addSum(v float64) {
	if !math.IsNaN(v) {
		m.Sum = min(max(m.Sum+v, -math.MaxFloat64), math.MaxFloat64)
	}
}

func (m *Metric) add(exp int, n uint64) {
	i, ok := slices.BinarySearchFunc(m.Buckets, exp, func(b MetricBucket, e int) int { return cmp.Compare(b.Exp, e) })
	if !ok {
		m.Buckets = slices.Insert(m.Buckets, i, MetricBucket{Exp: exp})
	}
	m.Buckets[i].Count = addUpTo(m.Buckets[i].Count, n)
}

// AddMetrics adds up metrics by name, in order of names. What is of another kind than the first of its name is left out.
// sum may be changed and returned; the slices of more are not kept.
func AddMetrics(sum, more []Metric) []Metric {
	for _, m := range more {
		i, ok := slices.BinarySearchFunc(sum, m.Name, func(s Metric, name string) int { return strings.Compare(s.Name, name) })
		if !ok {
			sum = slices.Insert(sum, i, Metric{Name: m.Name, Kind: m.Kind})
		}
		s := &sum[i]
		if s.Kind != m.Kind {
			continue
		}
		s.Add(m.Count)
		s.addSum(m.Sum)
		for _, b := range m.Buckets {
			s.add(b.Exp, b.Count)
		}
	}
	return sum
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
