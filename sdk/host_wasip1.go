package sdk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

//go:wasmimport grid last_error
func lastError(buf *byte, size uint32, used *uint32) uint32

//go:wasmimport grid kv
func gridKV(request *byte, size uint32, fd *uint32) uint32

//go:wasmimport grid progress
func gridProgress(done, total uint64) uint32

//go:wasmimport grid count
func gridCount(name *byte, size uint32, n uint64) uint32

//go:wasmimport grid observe
func gridObserve(name *byte, size uint32, v float64) uint32

// hostError is an error number with the host's message.
type hostError struct {
	message string
	errno   syscall.Errno
}

func (e *hostError) Error() string { return e.message }
func (e *hostError) Unwrap() error { return e.errno }

// told is the error that a host function's number stands for, nil for 0.
func told(errno uint32) error {
	if errno == 0 {
		return nil
	}
	if text := message(); text != "" {
		return &hostError{text, syscall.Errno(errno)}
	}
	return syscall.Errno(errno)
}

// message asks the host what is behind the last error number.
func message() string {
	var buf [abi.MaxMessage]byte
	var used uint32
	if lastError(&buf[0], uint32(len(buf)), &used) != 0 {
		return ""
	}
	return string(buf[:min(int(used), len(buf))])
}

// response reads what a host function has opened, with errors that tell why.
type response struct{ *os.File }

func open(fd uint32, name string) response { return response{os.NewFile(uintptr(fd), name)} }

// Read reads on.
func (r response) Read(b []byte) (int, error) {
	n, err := r.File.Read(b)
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = fmt.Errorf("%s: %w", r.Name(), told(uint32(errno)))
	}
	return n, err
}

func hostSecret(name string) ([]byte, error) {
	v, err := os.ReadFile(abi.Secrets + "/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		err = &notGranted{"the job was not granted it; --allow-secret " + name + " does"}
	}
	return v, err
}

// notGranted is an error of what is not there as the job was not granted it. It is fs.ErrNotExist.
type notGranted struct{ what string }

func (e *notGranted) Error() string        { return e.what }
func (e *notGranted) Is(target error) bool { return target == fs.ErrNotExist }

func hostOpen(name string) (fs.File, error) { return os.Open(abi.Data + "/" + name) }

func hostProgress(done, total uint64) error { return told(gridProgress(done, total)) }

func hostCount(name string, n uint64) error {
	return told(gridCount(unsafe.StringData(name), uint32(len(name)), n))
}

func hostObserve(name string, v float64) error {
	return told(gridObserve(unsafe.StringData(name), uint32(len(name)), v))
}

func hostKV() Store { return realm{} }

// realm is the realm's map, by the host function kv.
type realm struct{}

// do makes a request, and reads the response.
func (realm) do(request []byte) ([]byte, error) {
	var fd uint32
	if err := told(gridKV(&request[0], uint32(len(request)), &fd)); err != nil {
		return nil, err
	}
	r := open(fd, "kv")
	defer r.Close()
	return readAll(r, make([]byte, 0, 512))
}

// Get is [Store]'s.
func (m realm) Get(key string) (Item, error) {
	data, err := m.do(appendWord([]byte{abi.KVGet}, key))
	switch {
	case errors.Is(err, syscall.ENOENT):
		return Item{Key: key}, nil
	case err == nil && len(data) < 8:
		err = errShort
	}
	if err != nil {
		return Item{}, err
	}
	return Item{key, data[8:], binary.LittleEndian.Uint64(data)}, nil
}

// List is [Store]'s.
func (m realm) List(prefix, after string, limit int) ([]Item, bool, error) {
	request := binary.LittleEndian.AppendUint32([]byte{abi.KVList}, uint32(limit))
	data, err := m.do(appendWord(appendWord(request, prefix), after))
	if err != nil {
		return nil, false, err
	}
	return decodeList(data)
}

// Commit is [Store]'s.
func (m realm) Commit(c Commit) (uint64, error) {
	data, err := m.do(c.encode())
	switch {
	case errors.Is(err, syscall.EAGAIN):
		err = ErrConflict
	case err == nil && len(data) != 8:
		err = errShort
	}
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(data), nil
}

// starting reports whether this is a library that is being started: then it has no name.
func starting() bool { return len(os.Args) == 0 }

// streams are stdin and stdout, without what package os has around them: on the grid they are always ready.
func streams() (io.Reader, io.Writer) { return stream(0), stream(1) }

// inputRoom is a buffer for the input of a task of one value.
func inputRoom() []byte {
	if variables == nil { // by hand there may be several
		return make([]byte, 0, 1<<10)
	}
	return room.input[:0]
}

// stream is a file descriptor.
type stream int

// Read reads what there is.
func (s stream) Read(b []byte) (int, error) {
	n, err := syscall.Read(int(s), b)
	switch {
	case err != nil:
		return max(n, 0), fmt.Errorf("read stdin: %w", err)
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write writes all of b.
func (s stream) Write(b []byte) (done int, err error) {
	for done < len(b) {
		n, err := syscall.Write(int(s), b[done:])
		if err != nil {
			return done, fmt.Errorf("write stdout: %w", err)
		}
		done += n
	}
	return done, nil
}

// variables are those of the environment, if a task was given them by grid_call.
var variables []string

// variable is one of the environment's.
func variable(name string) (string, bool) {
	if variables == nil {
		return os.LookupEnv(name)
	}
	for _, e := range variables {
		if len(e) > len(name) && e[len(name)] == '=' && e[:len(name)] == name {
			return e[len(name)+1:], true
		}
	}
	return "", false
}
