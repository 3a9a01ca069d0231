package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

// The pixels of thumbnails are known by their hash, whatever compresses them.
func TestGolden(t *testing.T) {
	const dir = "cases/thumbnail/in/"
	*size = 8
	inputs := map[string]string{}
	for _, name := range []string{"sun.png", "album/sun.jpg", "chess.gif"} {
		data, err := os.ReadFile(dir + name)
		if err != nil {
			t.Fatal(err)
		}
		inputs[name] = string(data)
	}
	r := sdktest.Run(t, sdk.Do("thumbnail", thumbnails), inputs)
	got := r.Stdout
	for _, name := range []string{"album/sun.jpg.png", "chess.gif.png", "sun.png"} {
		m, err := png.Decode(strings.NewReader(r.Out[name]))
		if err != nil {
			t.Fatal(err)
		}
		b := m.Bounds()
		h := sha256.New()
		for y := range b.Dy() {
			for x := range b.Dx() {
				c := color.NRGBAModel.Convert(m.At(x, y)).(color.NRGBA)
				h.Write([]byte{c.R, c.G, c.B, c.A})
			}
		}
		got += fmt.Sprintf("%s %dx%d %s\n", name, b.Dx(), b.Dy(), hex.EncodeToString(h.Sum(nil)[:8]))
	}
	sdktest.Golden(t, "testdata/pictures.txt", got)
	if r.Counters["pictures"] != 3 || len(r.Histograms["pixels"]) != 3 {
		t.Errorf("%+v", r.Counters)
	}
}

func TestShrink(t *testing.T) {
	m := image.NewNRGBA(image.Rect(-2, 5, 2, 7)) // need not begin at 0
	for i := range m.Pix {
		m.Pix[i] = 255
	}
	m.Set(-2, 5, color.NRGBA{A: 255}) // one of four is black
	m.Set(0, 5, color.NRGBA{})        // and of the next four two are transparent
	m.Set(0, 6, color.NRGBA{})
	small := shrink(m, 2)
	if b := small.Bounds(); b != image.Rect(0, 0, 2, 1) {
		t.Fatal(b)
	}
	if a, b := small.NRGBAAt(0, 0), small.NRGBAAt(1, 0); a != (color.NRGBA{191, 191, 191, 255}) || b.R != 255 || b.A != 127 {
		t.Error(a, b)
	}
	if b := shrink(image.NewGray(image.Rect(0, 0, 3000, 1)), 10).Bounds(); b != image.Rect(0, 0, 10, 1) {
		t.Error(b)
	}
	if b := shrink(m, 100).Bounds(); b != image.Rect(0, 0, 4, 2) {
		t.Error(b)
	}
}

func TestRefused(t *testing.T) {
	var huge bytes.Buffer
	if err := png.Encode(&huge, image.NewGray(image.Rect(0, 0, 1, 1))); err != nil {
		t.Fatal(err)
	}
	// What a header claims is not believed: it says 0x7fffffff pixels here, and its checksum is not looked at first.
	claim := bytes.Replace(huge.Bytes(), []byte("IHDR\x00\x00\x00\x01\x00\x00\x00\x01"), []byte("IHDR\x7f\xff\xff\xff\x00\x00\x00\x01"), 1)
	for _, text := range []string{"", "GIF89a", string(claim)} {
		if _, err := sdktest.Try(sdk.Do("thumbnail", thumbnails), map[string]string{"x.png": text}); err == nil || !strings.Contains(err.Error(), "x.png") {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	*skip = true
	defer func() { *skip = false }()
	if r := sdktest.Run(t, sdk.Do("thumbnail", thumbnails), map[string]string{"x.png": ""}); r.Counters["skipped"] != 1 || len(r.Log()) != 1 {
		t.Errorf("%+v", r)
	}
	*size = 0
	if _, err := sdktest.Try(sdk.Do("thumbnail", thumbnails), nil); err == nil {
		t.Error("a thumbnail of no pixels is made")
	}
	*size = 8
}
