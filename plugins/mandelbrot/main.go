// Mandelbrot computes a picture of the Mandelbrot set in tiles, a task for each, and puts the tiles together into one PNG.
//
// It is the lesson on work that is in numbers, not in files: the tasks of a stage without inputs are told apart by their
// number, and the next stage takes what all of them left.
package main

import (
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"strconv"

	"github.com/wasmgrid/wasmgrid/sdk"
)

// What is to be seen, and in how many tiles. Both functions must be given the same.
var (
	width = flag.Int("width", 512, "pixels, and as many high")
	tiles = flag.Int("tiles", 16, "in how many tiles: a square number")
	x0    = flag.Float64("x", -0.75, "the middle of the picture")
	y0    = flag.Float64("y", 0, "the middle of the picture")
	span  = flag.Float64("span", 2.5, "how much of the plane it shows")
	most  = flag.Int("iterations", 255, "steps until a point is taken for one of the set")
)

func main() {
	sdk.Main(
		sdk.Do("tile", tile).Doc("Computes one tile, by the task's number: a byte for each pixel."),
		sdk.Do("picture", picture).Doc("Puts all tiles together into mandelbrot.png."),
	)
}

// corner is where the tile of a number begins, and how many pixels it is wide and high.
func corner(number int) (left, top, side int, err error) {
	row := int(math.Sqrt(float64(*tiles)))
	if *width < 1 || *width > 1<<14 || row < 1 || row*row != *tiles || *width%row != 0 {
		return 0, 0, 0, fmt.Errorf("-width %d in %d tiles: want at most %d pixels, and a square number of whole tiles", *width, *tiles, 1<<14)
	}
	if number < 0 || number >= *tiles {
		return 0, 0, 0, fmt.Errorf("there is no tile %d: there are %d", number, *tiles)
	}
	side = *width / row
	return number % row * side, number / row * side, side, nil
}

// tile prints a byte for each of its pixels, row by row.
func tile(ctx sdk.Context) error {
	number, err := strconv.Atoi(ctx.Number())
	if err != nil {
		return fmt.Errorf("the task has no number: give its stage a count: %w", err)
	}
	left, top, n, err := corner(number)
	if err != nil {
		return err
	}
	row := make([]byte, n)
	inside := 0
	for y := range n {
		for x := range row {
			steps := escape(plane(left+x, *x0), plane(top+y, *y0))
			if steps == *most {
				inside++
			}
			row[x] = byte(255 - steps*255 / *most) // 0 is for the set itself
		}
		if _, err := ctx.Stdout().Write(row); err != nil {
			return err
		}
		ctx.Progress(uint64(y+1), uint64(n))
	}
	ctx.Count("pixels_inside", uint64(inside))
	return nil
}

// plane is where in the plane a pixel is.
func plane(pixel int, middle float64) float64 {
	away := ((float64(pixel)+0.5)/float64(*width) - 0.5) * *span
	return middle + away
}

// escape counts the steps of z = z²+c until z is far away. On the grid numbers are rounded alike everywhere. Natively some
// machines compute a product and a sum in one step and round once, unless the product has a name of its own.
func escape(a, b float64) int {
	var x, y float64
	for n := range *most {
		xx, yy, xy := x*x, y*y, x*y
		if xx+yy > 4 {
			return n
		}
		x, y = xx-yy+a, 2*xy+b
	}
	return *most
}

// picture gets what the tile tasks printed, in order of their numbers.
func picture(ctx sdk.Context) error {
	if _, _, _, err := corner(0); err != nil { // before it makes room
		return err
	}
	m := image.NewPaletted(image.Rect(0, 0, *width, *width), colours())
	number := 0
	for in, err := range ctx.Inputs() {
		if err != nil {
			return err
		}
		left, top, n, err := corner(number)
		if err != nil {
			return err
		}
		pixels, err := in.Bytes()
		if err != nil {
			return err
		}
		if len(pixels) != n*n {
			return fmt.Errorf("the tile has %d pixels, want %d: -width and -tiles must be the same in both stages", len(pixels), n*n)
		}
		for y := range n {
			copy(m.Pix[(top+y)*m.Stride+left:][:n], pixels[y*n:])
		}
		number++
		ctx.Progress(uint64(number), uint64(*tiles))
	}
	if number != *tiles {
		return fmt.Errorf("there are only %d of %d tiles", number, *tiles)
	}
	f, err := ctx.Create("mandelbrot.png")
	if err != nil {
		return err
	}
	if err := png.Encode(f, m); err != nil {
		return err
	}
	fmt.Fprintf(ctx.Stdout(), "mandelbrot.png: %d by %d pixels, from %d tiles\n", *width, *width, number)
	return f.Close()
}

// colours are black for the set, and waves of blue and gold around it.
func colours() color.Palette {
	p := make(color.Palette, 256)
	for i := range p {
		t := 1 - float64(i)/255 // steps, of the most
		wave := func(phase float64) uint8 { return uint8(127.5 - 127.5*math.Cos(2*math.Pi*(6*math.Sqrt(t)+phase))) }
		p[i] = color.RGBA{wave(0.95), wave(0.9), wave(0.75), 255}
	}
	p[0] = color.Black
	return p
}
