package sdk

import (
	"bufio"
	"io"
)

//go:wasmimport grid http_open
func httpOpen(request *byte, size uint32, fd *uint32) uint32

func fetch(r Request) (*Response, error) {
	b, err := r.encode()
	if err != nil {
		return nil, err
	}
	var fd uint32
	if err := told(httpOpen(&b[0], uint32(len(b)), &fd)); err != nil {
		return nil, err
	}
	f := open(fd, "fetch "+r.URL)
	in := bufio.NewReader(f)
	resp, err := readHead(in)
	if err != nil {
		f.Close()
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{in, f}
	return resp, nil
}
