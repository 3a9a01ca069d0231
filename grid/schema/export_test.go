package schema

import "time"

// Patience has values checked for so long, and gives what has them checked as long as before.
func Patience(d time.Duration) (restore func()) {
	before := maxTime
	maxTime = d
	return func() { maxTime = before }
}
