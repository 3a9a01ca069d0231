//go:build !linux

package dash

import "net/http"

// ours would report whether a connection is one of the user's; this system does not tell.
func ours(*http.Request) bool { return true }
