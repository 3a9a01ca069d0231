package grid

import (
	"math"
	"reflect"
	"testing"
)

func TestMetric(t *testing.T) {
	m := Metric{Name: "sizes", Kind: Histogram}
	for _, v := range []float64{1, 2, 1.5, 0.5, 0, -3, math.NaN(), math.Inf(1), 1e300} {
		m.Observe(v)
	}
	want := []MetricBucket{{MinMetricExp, 3}, {-1, 1}, {0, 1}, {1, 2}, {MaxMetricExp, 2}}
	if m.Count != 9 || !reflect.DeepEqual(m.Buckets, want) {
		t.Errorf("%d values in %v, want 9 in %v", m.Count, m.Buckets, want)
	}
	if err := checkMetrics([]Metric{m}); err != nil {
		t.Error(err)
	}
	sum := AddMetrics(nil, []Metric{{Name: "z", Kind: Counter, Count: 2}, m})
	sum = AddMetrics(sum, []Metric{{Name: "a", Kind: Counter, Count: 1}, {Name: "z", Kind: Histogram, Count: 7}, {Name: "z", Kind: Counter, Count: 3}, m})
	if len(sum) != 3 || sum[0].Name != "a" || sum[1].Count != 18 || sum[2].Count != 5 || m.Count != 9 || m.Buckets[0].Count != 3 {
		t.Errorf("sum %v", sum)
	}
	if err := checkMetrics(sum); err != nil {
		t.Error(err)
	}
	full := []Metric{{Name: "n", Kind: Counter, Count: math.MaxUint64 - 1}, {Name: "v", Kind: Histogram, Sum: math.MaxFloat64}}
	full = AddMetrics(AddMetrics(nil, full), full)
	if full[0].Count != math.MaxUint64 || full[1].Sum != math.MaxFloat64 {
		t.Errorf("more than there are numbers: %v", full)
	}
	for _, bad := range [][]Metric{
		{{Name: "a", Kind: Histogram, Sum: math.NaN()}}, {{Name: "a", Kind: Histogram, Sum: math.Inf(-1)}},
		{{Name: "1", Kind: Counter}}, {{Name: "a", Kind: "x"}}, {{Name: "b", Kind: Counter}, {Name: "a", Kind: Counter}},
		{{Name: "a", Kind: Counter, Sum: 1}}, {{Name: "a", Kind: Histogram, Count: 1}},
		{{Name: "a", Kind: Histogram, Count: 1, Buckets: []MetricBucket{{0, math.MaxUint64}, {1, 2}}}},
		{{Name: "a", Kind: Histogram, Count: 1, Buckets: []MetricBucket{{64, 1}}}}, make([]Metric, MaxMetrics+1),
	} {
		if checkMetrics(bad) == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}
