// Package frame reads and writes the messages of a call, whose bytes package p2p documents. It knows
// no connection: it works on any reader and writer, and leaves deadlines to its caller.
package frame

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	statusOK    = 0
	statusError = 1

	maxLength  = 4        // bytes of a uvarint up to grid.MaxMessage
	maxFault   = 64 << 10 // bytes of an encoded error
	maxMessage = 8 << 10  // bytes of an error's message, and of its hint
	firstRead  = 256      // a small message comes in one read
	joinBelow  = 16 << 10 // a body shorter than this is worth copying to save a write
	firstPart  = 256 << 10
)

// fault is an error as it crosses the wire.
type fault struct {
	Code    grid.Code `cbor:"code"`
	Message string    `cbor:"message"`
	Hint    string    `cbor:"hint,omitempty"`
}

// WriteRequest writes one request. A body longer than grid.MaxMessage is refused with Limit before
// anything is written.
func WriteRequest(w io.Writer, body []byte) error {
	if len(body) > grid.MaxMessage {
		return TooLong("request", len(body))
	}
	return write(w, nil, body)
}

// WriteReply writes the reply to a request: err if it is not nil, else body. A body longer than
// grid.MaxMessage is replaced by an error, as the caller cannot take it.
func WriteReply(w io.Writer, body []byte, err error) error {
	if err == nil && len(body) > grid.MaxMessage {
		err = TooLong("reply", len(body))
	}
	if err == nil {
		return write(w, []byte{statusOK}, body)
	}
	body, encErr := grid.Marshal(fault{
		Code:    grid.CodeOf(err),
		Message: clip(err.Error()),
		Hint:    clip(grid.AdviceOf(err)),
	})
	if encErr != nil {
		return encErr
	}
	return write(w, []byte{statusError}, body)
}

// clip bounds a text from a handler and makes it valid UTF-8, without which it could not be decoded.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxMessage)], "\uFFFD") }

// Fault is err as a caller on another node would see it: its code, message and hint, and no cause.
func Fault(err error) error {
	if err == nil {
		return nil
	}
	e := grid.Errorf(grid.CodeOf(err), "%s", clip(err.Error()))
	e.Advice = clip(grid.AdviceOf(err))
	return e
}

func write(w io.Writer, head, body []byte) error {
	buf := make([]byte, 0, len(head)+maxLength+min(len(body), joinBelow))
	buf = append(buf, head...)
	buf = binary.AppendUvarint(buf, uint64(len(body)))
	if len(body) <= joinBelow {
		_, err := w.Write(append(buf, body...))
		return err
	}
	if _, err := w.Write(buf); err != nil {
		return err
	}
	_, err := w.Write(body)
	return err
}

// ReadRequest reads one request. Before it allocates n bytes for one that is not small it asks
// reserve, if that is not nil, and returns its error. Other errors are those of r, with
// io.ErrUnexpectedEOF for an early end; Limit for a message that is too long; Invalid for bytes that
// are no request.
func ReadRequest(r io.Reader, reserve func(n int) error) ([]byte, error) {
	_, body, err := read(r, "request", 0, reserve)
	return body, err
}

// ReadReply reads one reply: a body, or the error that the handler returned, as remote. The error err
// is as that of [ReadRequest].
func ReadReply(r io.Reader, reserve func(n int) error) (body []byte, remote, err error) {
	status, body, err := read(r, "reply", 1, reserve)
	switch {
	case err != nil:
		return nil, nil, err
	case status == statusOK:
		return body, nil, nil
	}
	var f fault
	if err := grid.Unmarshal(body, &f); err != nil {
		return nil, nil, err
	}
	e := grid.Errorf(f.Code, "%s", clip(f.Message))
	e.Advice = clip(f.Hint)
	return nil, e, nil
}

// SkipRequest reads a request and forgets it, so that its sender, who may still be writing, gets to
// read the reply.
func SkipRequest(r io.Reader) error {
	h, err := readHead(r, "request", 0)
	if err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, r, int64(h.length)-int64(len(h.body)))
	return err
}

// head is the beginning of a message, and what of its body came along.
type head struct {
	status byte
	length uint64
	body   []byte
}

// readHead reads a status, if there are status bytes, and a length that is within its limit.
func readHead(r io.Reader, what string, status int) (h head, err error) {
	buf := make([]byte, firstRead)
	for have, size := 0, 0; size == 0; { // until the length is complete
		n, err := r.Read(buf[have:])
		have += n
		if have > status {
			h.length, size = binary.Uvarint(buf[status:have])
			if size < 0 || size > maxLength || size == 0 && have-status >= maxLength {
				return h, grid.Errorf(grid.Limit, "p2p: %s: its length is beyond %d bytes", what, grid.MaxMessage)
			}
		}
		if size > 1 && buf[status+size-1] == 0 {
			return h, grid.Errorf(grid.Invalid, "p2p: %s: its length is not in the shortest form", what)
		}
		if size > 0 {
			h.body = buf[status+size : have]
		} else if err != nil {
			return h, early(err)
		}
	}
	limit := uint64(grid.MaxMessage)
	if status > 0 {
		if h.status = buf[0]; h.status == statusError {
			limit = maxFault
		}
	}
	switch {
	case h.status > statusError:
		return h, grid.Errorf(grid.Invalid, "p2p: %s: unknown status %d", what, h.status)
	case h.length > limit:
		return h, tooLong(what, h.length, limit)
	case uint64(len(h.body)) > h.length:
		return h, grid.Errorf(grid.Invalid, "p2p: %s: more bytes than the %d announced", what, h.length)
	}
	return h, nil
}

// read reads a whole message.
func read(r io.Reader, what string, status int, reserve func(int) error) (byte, []byte, error) {
	h, err := readHead(r, what, status)
	if err != nil {
		return 0, nil, err
	}
	if uint64(len(h.body)) == h.length {
		return h.status, h.body[:h.length:h.length], nil
	}
	if reserve != nil && h.length > joinBelow {
		if err := reserve(int(h.length)); err != nil {
			return 0, nil, err
		}
	}
	// Memory is taken as bytes come, not for a length that costs its sender nothing.
	body := make([]byte, min(h.length, firstPart))
	for have := copy(body, h.body); ; {
		if _, err := io.ReadFull(r, body[have:]); err != nil {
			return 0, nil, early(err)
		}
		if have = len(body); uint64(have) == h.length {
			return h.status, body, nil
		}
		more := make([]byte, min(h.length, uint64(2*have)))
		copy(more, body)
		body = more
	}
}

func early(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// TooLong is the error for a request or reply of n bytes.
func TooLong(what string, n int) error { return tooLong(what, uint64(n), grid.MaxMessage) }

func tooLong(what string, n, limit uint64) error {
	return grid.Errorf(grid.Limit, "p2p: a %s of %d bytes, at most %d are allowed", what, n, limit).
		Hint("send bulk data over a stream")
}
