package sdk

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

//go:wasmimport grid http_open
func httpOpen(request *byte, size uint32, fd *uint32) uint32

//go:wasmimport grid last_error
func lastError(buf *byte, size uint32, used *uint32) uint32

func fetch(r Request) (*Response, error) {
	b, err := r.encode()
	if err != nil {
		return nil, err
	}
	var fd uint32
	if errno := httpOpen(&b[0], uint32(len(b)), &fd); errno != 0 {
		return nil, told(syscall.Errno(errno))
	}
	f := os.NewFile(uintptr(fd), r.URL)
	in := bufio.NewReader(body{f})
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

// body reads a response, with errors that tell why.
type body struct{ f *os.File }

func (b body) Read(p []byte) (int, error) {
	n, err := b.f.Read(p)
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = fmt.Errorf("fetch %s: %w", b.f.Name(), told(errno))
	}
	return n, err
}

// hostError is an error number with the host's message.
type hostError struct {
	message string
	errno   syscall.Errno
}

func (e *hostError) Error() string { return e.message }
func (e *hostError) Unwrap() error { return e.errno }

// told asks the host what is behind an error number.
func told(errno syscall.Errno) error {
	var buf [abi.MaxMessage]byte
	var used uint32
	if lastError(&buf[0], uint32(len(buf)), &used) != 0 || used == 0 {
		return errno
	}
	return &hostError{string(buf[:used]), errno}
}
