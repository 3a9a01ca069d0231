package exchange

import (
	"bufio"
	"encoding/binary"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Protocol is the conversation that this package speaks.
const Protocol grid.Protocol = "blocks/2"

type mode byte

const (
	modeBlocks mode = 0
	modeDAG    mode = 1
)

const (
	frameBlock   = 1
	frameMissing = 2
	frameEnd     = 3
	frameRefused = 4

	maxRoots = 1024
	maxCID   = 64
	maxText  = 512
)

func malformed(what string) error {
	return grid.Errorf(grid.Invalid, "malformed message: %s", what)
}

// request is what a client asks for.
type request struct {
	mode mode
	cids []cid.Cid
}

func (r request) encode() []byte {
	b := []byte{byte(r.mode)}
	b = binary.AppendUvarint(b, uint64(len(r.cids)))
	for _, c := range r.cids {
		b = appendCID(b, c)
	}
	return b
}

func appendCID(b []byte, c cid.Cid) []byte {
	b = binary.AppendUvarint(b, uint64(c.ByteLen()))
	return append(b, c.KeyString()...)
}

// wireReader reads messages.
type wireReader struct{ *bufio.Reader }

// number reads a varint that is at most limit.
func (r wireReader) number(limit uint64, what string) (int, error) {
	var v uint64
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, unexpected(err)
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			if b == 0 && shift > 0 {
				return 0, malformed(what + " is not in its shortest form")
			}
			break
		}
		if shift == 28 { // all our limits are far below
			return 0, malformed(what + " is too large")
		}
	}
	if v > limit {
		return 0, malformed(what + " is too large")
	}
	return int(v), nil
}

// unexpected turns an end in the middle of something into an error.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r wireReader) cid() (cid.Cid, error) {
	n, err := r.number(maxCID, "the length of a CID")
	if err != nil {
		return cid.Undef, err
	}
	var buf [maxCID]byte
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return cid.Undef, unexpected(err)
	}
	c, err := cid.Cast(buf[:n])
	if err != nil {
		return cid.Undef, malformed("a CID: " + err.Error())
	}
	return c, nil
}

func (r wireReader) request() (req request, err error) {
	m, err := r.ReadByte()
	if err != nil {
		return req, unexpected(err)
	}
	if req.mode = mode(m); req.mode != modeBlocks && req.mode != modeDAG {
		return req, malformed("unknown mode")
	}
	n, err := r.number(maxRoots, "the number of CIDs")
	if err != nil {
		return req, err
	}
	if n == 0 {
		return req, malformed("no CIDs")
	}
	for range n { // grows with what really arrives
		c, err := r.cid()
		if err != nil {
			return req, err
		}
		req.cids = append(req.cids, c)
	}
	return req, nil
}

// frame is one of the server's.
type frame struct {
	typ  byte
	cid  cid.Cid
	data []byte      // of a block, not yet verified; in a buffer of newBuffer's
	err  *grid.Error // of a refusal
	size int         // on the wire, about
}

// frame reads the next one. body is told the length of a block before memory is taken for it and its bytes
// are read.
func (r wireReader) frame(body func(n int) error) (f frame, err error) {
	if f.typ, err = r.ReadByte(); err != nil {
		return f, unexpected(err)
	}
	f.size = 1
	switch f.typ {
	case frameBlock:
		n, err := r.number(grid.MaxBlock+maxCID, "the length of a block")
		if err != nil {
			return f, err
		}
		if err := body(n); err != nil {
			return f, err
		}
		head, err := r.Peek(min(n, maxCID))
		if err != nil {
			return f, unexpected(err)
		}
		used, c, err := cid.CidFromBytes(head)
		if err != nil {
			return f, malformed("a CID: " + err.Error())
		}
		if n-used > grid.MaxBlock {
			return f, malformed("the length of a block is too large")
		}
		if _, err := r.Discard(used); err != nil {
			return f, err
		}
		f.cid, f.data = c, newBuffer(n-used)
		f.size += n
		_, err = io.ReadFull(r, f.data)
		return f, unexpected(err)
	case frameMissing:
		f.cid, err = r.cid()
		f.size += maxCID
		return f, err
	case frameEnd:
		return f, nil
	case frameRefused:
		code, err := r.number(1<<16-1, "a code")
		if err != nil {
			return f, err
		}
		n, err := r.number(maxText, "the length of a text")
		if err != nil {
			return f, err
		}
		text := make([]byte, n)
		if _, err := io.ReadFull(r, text); err != nil {
			return f, unexpected(err)
		}
		f.err = grid.Errorf(grid.Code(code), "%q", text)
		return f, nil
	}
	return f, malformed("unknown type of frame")
}

func appendBlockHeader(b []byte, c cid.Cid, data []byte) []byte {
	b = append(b, frameBlock)
	b = binary.AppendUvarint(b, uint64(c.ByteLen()+len(data)))
	return append(b, c.KeyString()...)
}

func appendRefusal(b []byte, err error) []byte {
	text := err.Error()
	text = text[:min(len(text), maxText)]
	b = binary.AppendUvarint(append(b, frameRefused), uint64(grid.CodeOf(err)))
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}
