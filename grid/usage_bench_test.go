package grid

import (
	"testing"
	"time"
)

// BenchmarkCount is what it costs the owner of a job to count one task more, and BenchmarkCountIn what a checkpoint or the
// end of a job adds to its transaction, once, however many tasks there are: time, and bytes of the ledger.
func BenchmarkCount(b *testing.B) {
	m := meter{submitted: time.Now().Add(-time.Hour)}
	st := &Stage{Limits: DefaultLimits}
	c := &Completion{Receipt: Receipt{Node: "node", Fuel: 1e6, Phases: Phases{Run: time.Microsecond, Store: time.Microsecond}}}
	b.ReportAllocs()
	for b.Loop() {
		m.count(st, c, false)
	}
}

func BenchmarkCountIn(b *testing.B) {
	j := &job{rec: Record{ID: "jk3q", Owner: "node", Policy: Policy{User: "ann"}}}
	now := time.Now()
	for d := range 60 { // for two months
		j.meter.wrote = j.meter.wrote.Add(DayOf(now)-60+Day(d), Usage{Tasks: 1e6, CPU: time.Hour, Fuel: 1e15})
	}
	b.ReportAllocs()
	bytes := 0
	for b.Loop() {
		var t Txn
		if _, err := j.countIn(&t, Usage{Tasks: 1 << 16}, now); err != nil {
			b.Fatal(err)
		}
		bytes = len(t.Put[0].Key) + len(t.Put[0].Value)
	}
	b.ReportMetric(float64(bytes), "ledger-bytes")
}
