package p2p_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/p2p"
)

// TestMDNS sends multicast, so it runs only where it is asked to, in a network of its own:
//
//	unshare -rn sh -c 'ip link set lo up; ip link add v0 type veth peer name v1; ip addr add 10.9.9.1/24 dev v0
//	    ip link set v0 up; ip link set v1 up; GRID_TEST_MULTICAST=1 go test -run MDNS ./p2p'
func TestMDNS(t *testing.T) {
	if os.Getenv("GRID_TEST_MULTICAST") == "" {
		t.Skip("sends multicast: set GRID_TEST_MULTICAST=1 in a network namespace")
	}
	everywhere := func(c *p2p.Config) { c.MDNS, c.Listen = true, nil }
	a, b := open(t, everywhere), open(t, everywhere)
	until(t, a, b.Self(), true, 10*time.Second)
	if !strings.Contains(strings.Join(a.Addrs(), " "), "/tcp/4747/") || strings.Contains(strings.Join(b.Addrs(), " "), "/tcp/4747/") {
		t.Errorf("the first node should have the default port, the second another:\n%v\n%v", a.Addrs(), b.Addrs())
	}
}
