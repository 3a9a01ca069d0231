package api

import "time"

// SetPatience is for tests that do not want to wait for long.
func SetPatience(m *Remote, d time.Duration) { m.patience = d }

// SetMaxAnswer bounds answers until the function is called that it returns.
func SetMaxAnswer(n int64) (restore func()) {
	was := maxAnswer
	maxAnswer = n
	return func() { maxAnswer = was }
}
