package p2p

import "time"

// Hurry has a host wait for requests no longer than d.
func (h *Host) Hurry(d time.Duration) { h.requestBy = d }
