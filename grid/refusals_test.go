package grid_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestRefusals: of too many peers the newest stay apart, and the log does not grow with what is refused.
func TestRefusals(t *testing.T) {
	var log strings.Builder
	c := grid.NewRefusals(slog.New(slog.NewTextHandler(&log, nil)), "refused")
	now := time.Unix(1, 0)
	const many = 2000
	for i := range many {
		c.Add(fmt.Sprint(i), "a/1", grid.RefusedRate, now.Add(time.Duration(i)))
	}
	all := c.List()
	if len(all) < 500 || len(all) > 520 || all[0].From != "" || all[0].Count != uint64(many-len(all)+1) {
		t.Errorf("%d counters, the first is %+v", len(all), all[0])
	}
	c.Add(fmt.Sprint(many-1), "a/1", grid.RefusedRate, now)
	if all = c.List(); all[1].From != fmt.Sprint(many-1) || all[1].Count != 2 {
		t.Errorf("the newest is forgotten: %+v", all[1])
	}
	if n := strings.Count(log.String(), "refused"); n > 16 {
		t.Errorf("%d lines", n)
	}
	c.Add("0", "a/1", grid.RefusedRate, now.Add(time.Hour))
	if n := strings.Count(log.String(), "peer=0 "); n != 2 {
		t.Errorf("a peer that goes on was named %d times", n)
	}
}
