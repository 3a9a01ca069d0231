package swarm

import (
	"math"
	"time"
)

// event is something that happens at a time.
type event struct {
	at  time.Duration
	seq int
	do  func()
}

func (e event) before(o event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

// queue is a heap of events by time; those of one time stay in order.
type queue []event

func (q *queue) push(e event) {
	s := append(*q, e)
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !e.before(s[up]) {
			break
		}
		s[i] = s[up]
		i = up
	}
	s[i] = e
	*q = s
}

func (q *queue) pop() event {
	s := *q
	first, last := s[0], s[len(s)-1]
	s[len(s)-1] = event{}
	s = s[:len(s)-1]
	*q = s
	if len(s) == 0 {
		return first
	}
	i := 0
	for {
		next := 4*i + 1
		if next >= len(s) {
			break
		}
		for k := next + 1; k < min(next+4, 4*i+5, len(s)); k++ {
			if s[k].before(s[next]) {
				next = k
			}
		}
		if !s[next].before(last) {
			break
		}
		s[i] = s[next]
		i = next
	}
	s[i] = last
	return first
}

// hash mixes numbers into one, equal for equal ones.
func hash(parts ...uint64) uint64 {
	h := uint64(0x9e3779b97f4a7c15)
	for _, p := range parts {
		h += p + 0x9e3779b97f4a7c15
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		h ^= h >> 31
	}
	return h
}

// chance is a number of [0, 1) made of others.
func chance(parts ...uint64) float64 { return float64(hash(parts...)>>11) / (1 << 53) }

// draw is how long a task takes, by the numbers that name it.
func (t Times) draw(task uint32, name ...uint64) time.Duration {
	switch t.Kind {
	case Exponential:
		return time.Duration(-math.Log(1-chance(name...)) * float64(t.Mean))
	case Pareto:
		const alpha = 1.5
		least := float64(t.Mean) * (alpha - 1) / alpha
		return time.Duration(least * min(math.Pow(1-chance(name...), -1/alpha), 3000))
	case Mixed:
		if t.Every > 0 && int(task)%t.Every == 0 {
			return t.Long
		}
	}
	return t.Mean
}
