package p2p

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestNoAnswer: a node at none of whose addresses somebody answers is told of in one line, and what failed is still in the error.
func TestNoAnswer(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for want, dial := range map[string]*swarm.DialError{
		"it is not known where it is":           {},
		"no addresses":                          {Cause: swarm.ErrNoAddresses},
		"it answers at none of its 2 addresses": {DialErrors: []swarm.TransportError{{Cause: swarm.ErrDialBackoff}, {Cause: swarm.ErrDialBackoff}}},
		"it answers at none of its 9 addresses: " + syscall.ECONNREFUSED.Error():           {DialErrors: []swarm.TransportError{{Cause: refused}, {Cause: refused}}, Skipped: 7},
		"it answers at none of its 2 addresses: " + syscall.ECONNREFUSED.Error() + ", odd": {DialErrors: []swarm.TransportError{{Cause: refused}, {Cause: errors.New("odd\n * a\n * b")}}},
	} {
		err := (&Host{}).failed(t.Context(), "call", "", "x/1", fmt.Errorf("failed to dial: %w", dial))
		if got := err.Error(); !strings.HasSuffix(got, ": "+want) || strings.Contains(got, "\n") || grid.CodeOf(err) != grid.Unavailable {
			t.Errorf("%q, want %q", got, want)
		}
		if len(dial.DialErrors) > 1 && dial.Skipped > 0 && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v: the cause is lost", err)
		}
	}
}
