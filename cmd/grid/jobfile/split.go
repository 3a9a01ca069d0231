package jobfile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"

	"github.com/wasmgrid/wasmgrid/grid"
)

// maxPieceLine bounds one line of what a splitter prints.
const maxPieceLine = 64 << 10

// ParsePieces reads what a splitter prints of files: a JSON object a line, with file, offset, length and name, as
// docs/extending.md specifies. Pieces lie within their files, and none is empty. There is at least one.
func ParsePieces(r io.Reader, files []Input) ([]Piece, error) {
	byName := make(map[string]*Input, len(files))
	for i := range files {
		byName[files[i].Name] = &files[i]
	}
	cuts := make(map[string]int, len(files))
	var pieces []Piece
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 4<<10), maxPieceLine)
	for n := 1; s.Scan(); n++ {
		line := bytes.TrimSpace(s.Bytes())
		if len(line) == 0 {
			continue
		}
		p, err := parsePiece(line, byName, cuts)
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "line %d of what it prints: %w", n, err)
		}
		if pieces = append(pieces, p); len(pieces) > grid.MaxTasks {
			return nil, grid.Errorf(grid.Limit, "it makes more than %d pieces, which are as many tasks as there may be", grid.MaxTasks)
		}
	}
	switch err := s.Err(); {
	case err == bufio.ErrTooLong:
		return nil, grid.Errorf(grid.Limit, "it prints a line of more than %d bytes", maxPieceLine)
	case err != nil:
		return nil, err
	case len(pieces) == 0:
		return nil, grid.Errorf(grid.Invalid, "it makes no pieces of the files, so there are no tasks")
	}
	return pieces, nil
}

func parsePiece(line []byte, files map[string]*Input, cuts map[string]int) (Piece, error) {
	var said struct {
		File           string
		Offset, Length int64
		Name           string
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&said); err != nil {
		return Piece{}, grid.Errorf(grid.Invalid, "%.100q is no piece: %w", line, err)
	}
	if dec.More() {
		return Piece{}, grid.Errorf(grid.Invalid, "%.100q: more than one piece", line)
	}
	in := files[said.File]
	if in == nil {
		return Piece{}, grid.Errorf(grid.Invalid, "there is no file %.100q", said.File)
	}
	left := in.Size - said.Offset
	if said.Offset < 0 || said.Length < 0 || said.Offset > in.Size || said.Length > left {
		return Piece{}, grid.Errorf(grid.Invalid, "%d bytes from %d on of %s, which has %d", said.Length, said.Offset, said.File, in.Size)
	}
	if said.Length == 0 {
		said.Length = left
	}
	if said.Length == 0 {
		return Piece{}, grid.Errorf(grid.Invalid, "the piece from %d on of %s is empty", said.Offset, said.File)
	}
	p := Piece{Input: *in, Cut: true, Offset: said.Offset}
	p.Size = said.Length
	if p.Name = said.Name; p.Name == "" {
		p.Name = fmt.Sprintf("%s.%07d", in.Name, cuts[in.Name])
	}
	cuts[in.Name]++
	if !fs.ValidPath(p.Name) || p.Name == "." {
		return Piece{}, grid.Errorf(grid.Invalid, "%.100q is no name for an input: want a clean relative path", p.Name)
	}
	return p, nil
}
