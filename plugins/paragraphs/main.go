// Paragraphs cuts text files into pieces of about so many bytes, and only at blank lines, so that no paragraph is torn. Each
// piece is the input of a task of its own.
//
// It is the lesson on splitters: how data becomes tasks is a plugin's to say, where the grid itself only knows lines and
// bytes. A splitter says where to cut, and copies nothing.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/wasmgrid/wasmgrid/sdk"
)

var size = flag.Int64("size", 256<<10, "about how many bytes a piece has; one paragraph may have more")

func main() {
	sdk.Main(sdk.Splitter("split", split).Doc("Cuts text files at blank lines into pieces of about -size bytes."))
}

func split(ctx sdk.Context, files []sdk.File, emit func(sdk.Piece) error) error {
	if *size < 1 {
		return fmt.Errorf("-size %d: want at least 1", *size)
	}
	for _, file := range files {
		n := uint64(0)
		err := cut(file, func(p sdk.Piece) error {
			n++
			ctx.Observe("piece_bytes", float64(p.Length))
			return emit(p)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", file.Name, err)
		}
		ctx.Count("pieces", n)
	}
	return nil
}

// cut goes through a file by lines, and holds none that is longer than the buffer: it comes in parts.
func cut(file sdk.File, emit func(sdk.Piece) error) error {
	f, err := file.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 64<<10)
	var begin, at int64 // of the piece, and where the reader is
	inLine := false     // the part before this one was of the same line
	for {
		part, err := r.ReadSlice('\n')
		at += int64(len(part))
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return err
		}
		end := errors.Is(err, io.EOF)
		blank := !inLine && err == nil && len(bytes.TrimSpace(part)) == 0
		if at > begin && (end || blank && at-begin >= *size) {
			if err := emit(sdk.Piece{File: file.Name, Offset: begin, Length: at - begin}); err != nil {
				return err
			}
			begin = at
		}
		if end {
			return nil
		}
		inLine = err != nil
	}
}
