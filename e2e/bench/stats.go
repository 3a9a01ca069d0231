package main

import (
	"math"
	"slices"
)

// median is the middle one, or the mean of the two; 0 of none.
func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	return (list[(n-1)/2] + list[n/2]) / 2
}

// spread is how far figures lie apart: half of what is between the least and the greatest, as a part of the median.
func spread(list []float64) float64 {
	m := median(list)
	if len(list) < 2 || m == 0 {
		return 0
	}
	return math.Abs((slices.Max(list) - slices.Min(list)) / 2 / m)
}

// maxChance is how likely a difference may be to come by chance if we are to speak of it. Two times five figures can show that, and no fewer.
const maxChance = 0.01

// verdict compares figures of two runs by the test of Mann and Whitney, which takes nothing for granted about how they are spread.
func verdict(old, now []float64, less bool) string {
	if len(old) == 0 || len(now) == 0 {
		return ""
	}
	most := max(len(old), len(now))
	if apart := 2 / binomial(len(old)+len(now), min(len(old), len(now))); apart > maxChance {
		return "too few" // however far they lie apart
	}
	if most > maxCount || chance(old, now) > maxChance {
		return "same"
	}
	if (median(now) < median(old)) == less {
		return "better"
	}
	return "worse"
}

// chance is how likely it is that two samples of one and the same lie at least as far apart as these, in either direction. Ties count half.
func chance(a, b []float64) float64 {
	u := 0.0 // of how many pairs a has the greater
	for _, x := range a {
		for _, y := range b {
			switch {
			case x > y:
				u++
			case x == y:
				u += 0.5
			}
		}
	}
	u = min(u, float64(len(a)*len(b))-u)
	// ways[i][k] is in how many orders of i figures of a and those of b seen so far a has the greater of k pairs.
	all := len(a) * len(b)
	ways := make([][]float64, len(a)+1)
	for i := range ways {
		ways[i] = make([]float64, all+1)
		ways[i][0] = 1 // no b yet
	}
	for j := 1; j <= len(b); j++ {
		for i := 1; i <= len(a); i++ {
			for k := all; k >= 0; k-- { // the greatest is of b, as counted before; or of a, and greater than j
				if k >= j {
					ways[i][k] += ways[i-1][k-j]
				}
			}
		}
	}
	tail := 0.0
	for k := 0; float64(k) <= math.Ceil(u) && k <= all; k++ {
		tail += ways[len(a)][k]
	}
	return min(1, 2*tail/binomial(len(a)+len(b), len(a)))
}

// binomial is in how many ways k of n can be chosen.
func binomial(n, k int) float64 {
	c := 1.0
	for i := 1; i <= k; i++ {
		c = c * float64(n-k+i) / float64(i)
	}
	return c
}
