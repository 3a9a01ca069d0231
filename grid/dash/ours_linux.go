package dash

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// ours reports whether a connection from this machine is one of the user's who runs the program. Where the kernel does not tell, it is.
func ours(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if err != nil || !ok {
		return false
	}
	to, err := netip.ParseAddrPort(at.String())
	if err != nil {
		return false
	}
	told := false
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		told = true
		uid, found := owner(f, from, to)
		f.Close()
		if found {
			return uid == os.Getuid()
		}
	}
	return !told
}

// owner finds the user who has the connection from an address to another, in what the kernel tells in /proc/net/tcp.
func owner(table io.Reader, from, to netip.AddrPort) (uid int, found bool) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 8 || !isAddr(f[1], from) || !isAddr(f[2], to) {
			continue
		}
		uid, err := strconv.Atoi(f[7])
		return uid, err == nil
	}
	return 0, false
}

// isAddr reports whether an address of the table is this one: words of 32 bits in the machine's order, in hexadecimal, and the port.
func isAddr(text string, is netip.AddrPort) bool {
	words, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(words)
	n, perr := strconv.ParseUint(port, 16, 16)
	if err != nil || perr != nil || uint16(n) != is.Port() || len(raw) != 4 && len(raw) != 16 {
		return false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	ip, _ := netip.AddrFromSlice(raw)
	return ip.Unmap() == is.Addr().Unmap()
}
