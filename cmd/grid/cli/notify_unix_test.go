//go:build unix

package cli

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTellManager(t *testing.T) {
	dir, err := os.MkdirTemp("", "grid") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := func(socket string) *env {
		return &env{lookupEnv: func(string) (string, bool) { return socket, socket != "" }}
	}
	for _, nobody := range []string{"", "relative", socket + "x"} {
		at(nobody).tellManager("READY=1")
	}
	at(socket).tellManager("STOPPING=1")
	_ = l.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 100)
	if n, err := l.Read(buf); err != nil || string(buf[:n]) != "STOPPING=1" {
		t.Errorf("%q, %v", buf[:n], err)
	}
}
