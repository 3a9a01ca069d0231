// Show is a guest for tests of the dashboard: it prints and writes what a page has to show, some of it hostile. With the argument
// "fail" its task 1 fails, with "stay" it does not end.
package main

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"strings"
)

const hostile = "<script>window.hurt = 1</script><img src=x onerror=\"window.hurt = 2\"> \u202etxet desrever\u2066 "

func main() {
	if len(os.Args) > 1 && os.Args[1] == "fail" && os.Getenv("GRID_TASK") == "1" {
		fmt.Fprintln(os.Stderr, "this is the one that fails: "+hostile)
		os.Exit(3)
	}
	if len(os.Args) > 1 && os.Args[1] == "stay" {
		fmt.Println("it is still here")
		for n := 0; ; n++ {
			os.Args[0] = os.Args[n%2]
		}
	}
	fmt.Println("name,size,share")
	for i := range 12 {
		fmt.Printf("row %d,%d,%.3f\n", i, i*1000, float64(i)/12)
	}
	fmt.Fprintln(os.Stderr, hostile+strings.Repeat("long ", 2000))
	must(os.WriteFile("/out/data.json", []byte(`[{"city": "Aachen", "people": 249070}, {"city": "`+strings.ReplaceAll(hostile, `"`, `\"`)+`", "people": 3}]`), 0o644))
	must(os.WriteFile("/out/readme.txt", []byte("Some text.\n"+hostile+"\n"), 0o644))
	must(os.WriteFile("/out/raw.bin", []byte{0, 1, 2, 254, 255, 0}, 0o644))
	must(os.WriteFile("/out/<script>hurt()<!--"+"\u202e.txt", []byte("x"), 0o644))
	img := image.NewRGBA(image.Rect(0, 0, 320, 160))
	for y := range 160 {
		for x := range 320 {
			img.Set(x, y, color.RGBA{uint8(x * 255 / 320), uint8(y * 255 / 160), 160, 255})
		}
	}
	f, err := os.Create("/out/picture.png")
	must(err)
	must(png.Encode(f, img))
	must(f.Close())
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "show:", err)
		os.Exit(1)
	}
}
