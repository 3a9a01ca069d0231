package cli

import (
	"testing"

	"github.com/wasmgrid/wasmgrid/grid"
)

func TestFilePart(t *testing.T) {
	for _, tt := range []struct {
		offset, length, size int64
		from, n              int64 // n < 0: an error
	}{
		{0, -1, 10, 0, 10}, {3, -1, 10, 3, 7}, {10, -1, 10, 10, 0}, {-10, 4, 10, 0, 4}, {-1, 100, 10, 9, 1}, {0, 0, 10, 0, 0}, {0, 1, 0, 0, 0},
		{2, 1<<63 - 1, 10, 2, 8}, {11, 1, 10, 0, -1}, {-11, 1, 10, 0, -1}, {-1 << 62, 1, 10, 0, -1}, {1, -1, 0, 0, -1},
	} {
		from, n, err := filePart{true, signedSize(tt.offset), signedSize(tt.length)}.of("bafy", tt.size)
		if err != nil {
			if tt.n >= 0 || grid.CodeOf(err) != grid.Invalid {
				t.Errorf("%+v: %v", tt, err)
			}
			continue
		}
		if from != tt.from || n != tt.n {
			t.Errorf("%+v: %d bytes from %d on", tt, n, from)
		}
	}
	var f signedSize
	for s, want := range map[string]signedSize{"0": 0, "-5": -5, "4k": 4096, "-1MiB": -1 << 20} {
		if err := f.Set(s); err != nil || f != want {
			t.Errorf("%s: %d, %v", s, f, err)
		}
	}
	for _, s := range []string{"", "-", "--5", "-x", "1.5", "99999999999999999999"} {
		if err := f.Set(s); err == nil {
			t.Errorf("%q is taken for %d", s, f)
		}
	}
}

func TestChangeText(t *testing.T) {
	l := grid.Link{Cid: grid.NewBlock(0x55, nil).CID()}
	for want, c := range map[string]grid.Change{
		"+ d/f":                {Path: "d/f", Is: l, IsKind: grid.KindFile},
		"+ d/":                 {Path: "d", Is: l, IsKind: grid.KindDir},
		"- l":                  {Path: "l", Was: l, WasKind: grid.KindSymlink},
		`~ a\x1bb`:             {Path: "a\x1bb", Was: l, Is: l, WasKind: grid.KindFile, IsKind: grid.KindFile},
		"~ x (file, now dir)":  {Path: "x", Was: l, Is: l, WasKind: grid.KindFile, IsKind: grid.KindDir},
		"~ . (data, now file)": {Was: l, Is: l, IsKind: grid.KindFile},
	} {
		if got := changeText(c); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestExtentRows(t *testing.T) {
	l := grid.Link{Cid: grid.NewBlock(0x55, nil).CID()}
	for want, x := range map[string]grid.Extent{
		"3 bytes":                                {CID: l, Kind: grid.KindFile, Size: 3, Local: true},
		"2048 bytes (2.0 KiB)":                   {CID: l, Kind: grid.KindFile, Size: 2048, Local: true},
		"none: it is no file":                    {CID: l, Size: -1, Local: true},
		"not known, as parts of it are not here": {CID: l, Kind: grid.KindDir, Size: -1, Missing: 1},
	} {
		rows := extentRows(x)
		if rows[2][1] != want {
			t.Errorf("%q, want %q", rows[2][1], want)
		}
		if whole := rows[5][1] == "all of it"; whole != x.Local {
			t.Errorf("%+v: %q", x, rows[5][1])
		}
	}
}
