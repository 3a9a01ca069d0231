package cli

import (
	"errors"
	"strings"
	"testing"
	"time"

	"rsc.io/qr"

	"github.com/wasmgrid/wasmgrid/grid"
)

// A QR code is drawn as it is, in half blocks with a margin; what is too long is said to be.
func TestDrawQR(t *testing.T) {
	token := "grid-join-1-" + strings.Repeat("aB3_", 200)
	text, columns, lines, err := drawQR(token)
	if err != nil {
		t.Fatal(err)
	}
	code, err := qr.Encode(token, qr.L)
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if columns != code.Size+2*quietZone || lines != len(rows) || lines != (columns+1)/2 {
		t.Fatalf("%d columns, %d lines, %d rows", columns, lines, len(rows))
	}
	for i, row := range rows {
		row = strings.TrimSuffix(strings.TrimPrefix(row, "\x1b[40;97m"), "\x1b[0m")
		cells := []rune(row)
		if len(cells) != columns {
			t.Fatalf("row %d has %d cells", i, len(cells))
		}
		for x, c := range cells {
			for half, light := range []bool{c == '█' || c == '▀', c == '█' || c == '▄'} {
				if y := 2*i + half; y < columns && light == code.Black(x-quietZone, y-quietZone) {
					t.Fatalf("the module at %d, %d is wrong", x, y)
				}
			}
		}
	}
	if _, _, _, err := drawQR(strings.Repeat("x", 4000)); !errors.Is(err, grid.Limit) || grid.AdviceOf(err) == "" {
		t.Errorf("too long: %v", err)
	}
}

func TestShowQR(t *testing.T) {
	for _, tt := range []struct {
		width, height int
		wanted        bool
		token         string
		drawn, fails  bool
	}{
		{0, 0, false, "grid-join-1-x", false, false}, // piped
		{0, 0, true, "grid-join-1-x", false, false},
		{80, 40, false, "grid-join-1-x", true, false},
		{10, 5, false, "grid-join-1-x", false, false},
		{10, 5, true, "grid-join-1-x", true, false},
		{80, 40, false, strings.Repeat("x", 4000), false, false},
		{80, 40, true, strings.Repeat("x", 4000), false, true},
	} {
		var out, stderr strings.Builder
		e := &env{ui: newUI(&out, &stderr)}
		e.screen = func() (int, int) { return tt.width, tt.height }
		err := e.showQR(tt.token, tt.wanted)
		if (err != nil) != tt.fails || (out.Len() > 0) != tt.drawn {
			t.Errorf("%+v: %v, %d bytes", tt, err, out.Len())
		}
	}
}

func TestDescribeEnd(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		left   time.Duration
		ending bool
		want   string
	}{
		{48 * time.Hour, false, "until "}, {time.Hour, true, "grid member renew me"}, {-time.Hour, true, "ended at "},
	} {
		if got := describeEnd(&grid.SwarmInfo{Expires: now.Add(tt.left), Ending: tt.ending}, "me", now); !strings.Contains(got, tt.want) {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}
