package gridtest

import (
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
	"testing"
)

// PrivateBytes is how much memory this process alone has written to, by the system's account, once the
// garbage is collected. Where the system has no such account the test is skipped.
func PrivateBytes(tb testing.TB) int64 {
	tb.Helper()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		tb.Skip(err)
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("Private_Dirty:")); ok {
			n, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 64)
			if err != nil {
				tb.Fatal(err)
			}
			return n << 10
		}
	}
	tb.Skip("no such line")
	return 0
}
