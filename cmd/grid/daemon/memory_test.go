package daemon

import "testing"

func TestTaskShare(t *testing.T) {
	const gib = 1 << 30
	for _, test := range []struct {
		total uint64
		limit string
		want  uint64
	}{
		{16 * gib, "max\n", 12 * gib}, {16 * gib, "", 12 * gib}, {16 * gib, "4294967296\n", 3 * gib}, {2 * gib, "4294967296\n", gib + gib/2},
		{gib / 2, "", gib / 2}, {0, "", gib / 2}, {0, "4294967296", 3 * gib}, {8 * gib, "1", gib / 2},
	} {
		if got := taskShare(test.total, test.limit); got != test.want {
			t.Errorf("%d bytes, limit %q: %d, want %d", test.total, test.limit, got, test.want)
		}
	}
}
