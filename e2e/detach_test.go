package e2e

import (
	"strconv"
	"strings"
	"testing"
)

// long marks tests that -short leaves out.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes some seconds; -short was given")
	}
}

// detach submits a job of burn and does not wait for it.
func detach(t *testing.T, n *Node, tasks, rounds int, flags ...string) string {
	t.Helper()
	flags = append([]string{"run", guest(t, "burn"), "--count", strconv.Itoa(tasks), "--detach"}, flags...)
	return strings.TrimSpace(n.Must(append(flags, "--", strconv.Itoa(rounds))...))
}
