// Thumbnail makes small pictures of large ones: a PNG for each PNG, JPEG or GIF of a task's inputs.
//
// It is the lesson on files that come out: what a task leaves in /out comes back as files, under the names that the task gave
// them, while what it prints tells about them. It has no need of other libraries: the standard library reads pictures, and the
// filter is twenty lines.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"image"
	"image/color"
	_ "image/gif" // these let image.Decode know the formats
	_ "image/jpeg"
	"image/png"
	"path"

	"github.com/wasmgrid/wasmgrid/sdk"
)

var (
	size = flag.Int("size", 128, "at most so many pixels wide and high")
	skip = flag.Bool("skip", false, "pass over files that are no pictures, and count them as skipped, in place of failing")
)

func main() {
	sdk.Main(sdk.Do("thumbnail", thumbnails).Doc("Makes a small PNG of each PNG, JPEG or GIF."))
}

// maxPixels bounds how large a picture may be before it is read: a few bytes of a picture can claim to be of any size.
const maxPixels = 50 << 20

func thumbnails(ctx sdk.Context) error {
	if *size < 1 || *size > 4096 {
		return fmt.Errorf("-size %d: want 1 to 4096 pixels", *size)
	}
	done := uint64(0)
	for in, err := range ctx.Inputs() {
		if err != nil {
			return err
		}
		data, err := in.Bytes()
		if err != nil {
			return err
		}
		large, err := read(data)
		if err != nil && *skip {
			ctx.Log().Warn("passed over", "file", in.Name, "why", err)
			ctx.Count("skipped", 1)
			continue
		}
		if err != nil {
			return err
		}
		small := shrink(large, *size)
		name := in.Name // two files that differ in what is behind the dot only must not come to one
		if path.Ext(name) != ".png" {
			name += ".png"
		}
		if err := leave(ctx, name, small); err != nil {
			return err
		}
		from, to := large.Bounds(), small.Bounds()
		fmt.Fprintf(ctx.Stdout(), "%s %dx%d -> %s %dx%d\n", in.Name, from.Dx(), from.Dy(), name, to.Dx(), to.Dy())
		ctx.Count("pictures", 1)
		ctx.Observe("pixels", float64(from.Dx()*from.Dy()))
		done++
		ctx.Progress(done, 0)
	}
	return nil
}

// read reads a picture, of a form that tells colours without making an object for each. All those of the standard library do.
func read(data []byte) (image.RGBA64Image, error) {
	c, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if c.Width < 1 || c.Height < 1 || c.Width > maxPixels/c.Height {
		return nil, fmt.Errorf("%d by %d pixels, at most %d are allowed", c.Width, c.Height, maxPixels)
	}
	m, format, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if m, ok := m.(image.RGBA64Image); ok {
		return m, nil
	}
	return nil, fmt.Errorf("no picture of the standard library: %s", format)
}

// leave writes a picture into /out. Folders of its name are made.
func leave(ctx sdk.Context, name string, m image.Image) error {
	f, err := ctx.Create(name)
	if err != nil {
		return err
	}
	if err := png.Encode(f, m); err != nil {
		return err
	}
	return f.Close()
}

// shrink makes a picture of at most n by n pixels, each the average of those that lie where it lies (a box filter). A small
// picture stays as it is. It computes with whole numbers, so that the bytes are the same wherever it runs.
func shrink(m image.RGBA64Image, n int) *image.NRGBA {
	b := m.Bounds()
	w, h := b.Dx(), b.Dy()
	if longest := max(w, h); longest > n {
		w, h = max(w*n/longest, 1), max(h*n/longest, 1)
	}
	small := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		top, bottom := b.Min.Y+y*b.Dy()/h, b.Min.Y+(y+1)*b.Dy()/h
		for x := range w {
			left, right := b.Min.X+x*b.Dx()/w, b.Min.X+(x+1)*b.Dx()/w
			small.Set(x, y, average(m, image.Rect(left, top, right, bottom)))
		}
	}
	return small
}

// average is the mean colour of a part of a picture. Its colours are premultiplied: what is transparent has none.
func average(m image.RGBA64Image, part image.Rectangle) color.Color {
	var sum [4]uint64
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for x := part.Min.X; x < part.Max.X; x++ {
			c := m.RGBA64At(x, y)
			sum[0] += uint64(c.R)
			sum[1] += uint64(c.G)
			sum[2] += uint64(c.B)
			sum[3] += uint64(c.A)
		}
	}
	n := uint64(part.Dx() * part.Dy())
	return color.RGBA64{uint16(sum[0] / n), uint16(sum[1] / n), uint16(sum[2] / n), uint16(sum[3] / n)}
}
