package dash

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// TestOurs: the kernel tells that a connection is ours, and whose others are.
func TestOurs(t *testing.T) {
	l := NewLocal(http.NotFoundHandler(), func() {})
	srv := httptest.NewServer(l)
	defer srv.Close()
	_, handed, _ := strings.Cut(l.HandedPath(), "#once=")
	req, err := http.NewRequestWithContext(t.Context(), "POST", srv.URL+"/dash/session", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(headerOnce, handed)
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("our own connection: %s", resp.Status)
	}
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:9C40 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 2 1
   2: 0000000000000000FFFF00000100007F:9C41 0000000000000000FFFF00000100007F:1F90 01 00000000:00000000 00:00000000 00000000  1002        0 3 1
   3: 00000000000000000000000001000000:9C42 00000000000000000000000001000000:1F90 01 00000000:00000000 00:00000000 00000000  1003        0 4 1
   4: junk`
	for from, want := range map[string]int{"127.0.0.1:40000": 1001, "127.0.0.1:40001": 1002, "[::1]:40002": 1003, "127.0.0.2:40000": -1, "127.0.0.1:40003": -1} {
		at := netip.MustParseAddrPort(from)
		to := netip.AddrPortFrom(at.Addr(), 8080)
		if uid, found := owner(strings.NewReader(table), at, to); found != (want >= 0) || found && uid != want {
			t.Errorf("%s: %d, %v", from, uid, found)
		}
	}
}
