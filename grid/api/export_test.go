package api

import "time"

// SetPatience is for tests that do not want to wait for long.
func SetPatience(m *Remote, d time.Duration) { m.patience = d }
