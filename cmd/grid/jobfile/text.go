package jobfile

import (
	"strconv"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
)

// ParseSize reads a number of bytes as people write it, such as 512, 64k, 1MiB or 2GB. K, M, G and T are powers of
// 1024, with or without iB; with a plain B they are powers of 1000.
func ParseSize(s string) (uint64, error) {
	digits := strings.TrimRight(s, "kKmMgGtTiIbB ")
	unit := strings.ToLower(strings.TrimSpace(s[len(digits):]))
	n, err := strconv.ParseUint(digits, 10, 63)
	scale, ok := map[string]uint64{
		"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
		"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
		"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
	}[unit]
	if err != nil || !ok || n > (1<<63-1)/scale {
		return 0, grid.Errorf(grid.Invalid, "%q is not a size; want for example 512k, 64MiB or 2G", clip(s))
	}
	return n * scale, nil
}
