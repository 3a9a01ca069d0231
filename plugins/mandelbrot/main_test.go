package main

import (
	"fmt"
	"hash/crc32"
	"image/png"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

// tilesOf runs a task for each tile.
func tilesOf(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for i := range *tiles {
		all[fmt.Sprintf("%07d", i)] = sdktest.Run(t, sdk.Do("tile", tile), nil, sdktest.Number(i)).Stdout
	}
	return all
}

func TestPicture(t *testing.T) {
	defer func(w, n int) { *width, *tiles = w, n }(*width, *tiles)
	*width = 48
	var first []byte
	for _, *tiles = range []int{1, 4, 9, 144} { // the picture does not tell
		r := sdktest.Run(t, sdk.Do("picture", picture), tilesOf(t))
		m, err := png.Decode(strings.NewReader(r.Out["mandelbrot.png"]))
		if err != nil || m.Bounds().Dx() != 48 || m.Bounds().Dy() != 48 {
			t.Fatalf("%v, %v", m, err)
		}
		var pixels []byte
		for y := range 48 {
			for x := range 48 {
				r, g, b, _ := m.At(x, y).RGBA()
				pixels = append(pixels, byte(r), byte(g), byte(b))
			}
		}
		if first == nil {
			first = pixels
		}
		if string(first) != string(pixels) {
			t.Errorf("another picture from %d tiles", *tiles)
		}
	}
	*tiles = 1
	if sum := crc32.ChecksumIEEE([]byte(tilesOf(t)["0000000"])); sum != golden {
		t.Errorf("the tile has checksum %#x, want %#x", sum, uint32(golden))
	}
}

// golden is the checksum of the picture's pixels, before they have colours.
const golden = 0x198824f2

func TestMisuse(t *testing.T) {
	defer func(w, n int) { *width, *tiles = w, n }(*width, *tiles)
	*width, *tiles = 8, 4
	all := tilesOf(t)
	for _, test := range []struct {
		width, tiles int
		drop         string
		want         string
	}{
		{8, 3, "", "square number"}, {9, 4, "", "square number"}, {1 << 20, 4, "", "square number"}, {8, 1, "", "has 16 pixels, want 64"},
		{8, 16, "", "has 16 pixels, want 4"}, {8, 4, "0000003", "only 3 of 4 tiles"}, {16, 4, "", "has 16 pixels, want 64"}, {4, 1, "", "no tile 1"},
	} {
		*width, *tiles = test.width, test.tiles
		some := map[string]string{}
		for name, text := range all {
			if name != test.drop {
				some[name] = text
			}
		}
		if _, err := sdktest.Try(sdk.Do("picture", picture), some); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v", test, err)
		}
	}
	for number, want := range map[int]string{4: "no tile 4", -1: "no tile -1"} {
		*width, *tiles = 8, 4
		if _, err := sdktest.Try(sdk.Do("tile", tile), nil, sdktest.Number(number)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("tile %d: %v", number, err)
		}
	}
	if _, err := sdktest.Try(sdk.Do("tile", tile), nil); err == nil || !strings.Contains(err.Error(), "give its stage a count") {
		t.Errorf("a task without a number: %v", err)
	}
}
