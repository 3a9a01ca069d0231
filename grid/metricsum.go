package grid

import (
	"math"
	"slices"
	"strings"
)

// MaxStageMetrics bounds the names that are added up for one stage; what its tasks count besides is with each of them.
const MaxStageMetrics = 64

// addMetrics is AddMetrics of no more than so many names. It tells how many were left out.
func addMetrics(sum, more []Metric, most int) (_ []Metric, dropped int) {
	for i := range more {
		at, known := slices.BinarySearchFunc(sum, more[i].Name, func(s Metric, name string) int { return strings.Compare(s.Name, name) })
		if !known && len(sum) >= most || known && sum[at].Kind != more[i].Kind {
			dropped++
			continue
		}
		sum = AddMetrics(sum, more[i:i+1])
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

// Quantile is a value that about the share q of a histogram's values do not exceed: the upper bound of a bucket.
func (m *Metric) Quantile(q float64) float64 {
	below := uint64(0)
	for _, b := range m.Buckets {
		if below = addUpTo(below, b.Count); float64(below) >= q*float64(m.Count) {
			return math.Ldexp(1, b.Exp)
		}
	}
	return math.Inf(1)
}
