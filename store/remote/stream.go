package remote

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"hash/maphash"
	"io"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/dag"
)

// Stream is the content of one file outside. It is for one goroutine.
type Stream struct {
	// Size is how many bytes Read will give before io.EOF; -1 when the server does not tell.
	Size int64

	ref  Ref
	r    io.Reader
	raw  *resumer
	max  int64
	read int64
	pins *pins // nil when there is nothing to check
	err  error
}

// source is where the bytes of a stream come from.
type source interface {
	// get asks for the content from an offset on. version is that of an earlier answer, or "": content of
	// another version must not be mixed with it. A *transient error may be gone at the next try.
	get(ctx context.Context, offset int64, version string) (*answer, error)
}

// answer is a server's answer to a get.
type answer struct {
	body    io.ReadCloser
	offset  int64  // of the body's first byte: the one asked for, or 0 if the server can only begin anew
	size    int64  // of the whole; -1 when not told
	version string // changes with the content; "" when the server tells none
	gzip    bool   // the body is compressed, though the file is not
}

// transient is an error that may be gone at the next try.
type transient struct {
	error
	after time.Duration // that the server asks for
}

func (t *transient) Unwrap() error { return t.error }

// stream begins a stream from a source.
func (c *Client) stream(ctx context.Context, r Ref, src source) (*Stream, error) {
	raw := &resumer{ctx: ctx, c: c, ref: r, src: src, size: -1}
	a, err := raw.begin()
	if err != nil {
		return nil, err
	}
	s := &Stream{Size: raw.size, ref: r, r: raw, raw: raw, max: c.cfg.MaxDownload}
	if a.gzip {
		s.Size, s.r = -1, &unzipper{raw: raw}
	}
	if s.Size > s.max {
		raw.Close()
		return nil, s.tooLarge()
	}
	if r.Pinned() {
		s.pins = newPins(ctx, r)
	}
	return s, nil
}

func (s *Stream) tooLarge() error {
	return grid.Errorf(grid.Limit, "%s has more than %d bytes", s.ref, s.max).Hint("--max-download allows more")
}

// Read gives the content. It ends with io.EOF only when all is as it should be.
func (s *Stream) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	s.read += int64(n)
	if s.pins != nil && n > 0 {
		s.pins.write(p[:n])
	}
	switch {
	case s.read > s.max:
		n, err = 0, s.tooLarge()
	case err == io.EOF && s.pins != nil:
		if perr := s.pins.check(); perr != nil {
			err = perr
		}
	case err != nil && err != io.EOF && grid.CodeOf(err) == grid.Unknown: // of gzip
		err = grid.Errorf(grid.Corrupt, "read %s: it was sent compressed, and cannot be unpacked: %w", s.ref, err)
	}
	s.err = err
	return n, err
}

// Close ends the stream, wherever it is.
func (s *Stream) Close() error {
	s.raw.Close()
	if s.pins != nil {
		s.pins.stop()
	}
	if s.err == nil {
		s.err = grid.Errorf(grid.Invalid, "read %s: it is closed", s.ref)
	}
	return nil
}

// unzipper unpacks a stream. It reads the header at the first Read, so that an error comes from there.
type unzipper struct {
	raw io.Reader
	z   *gzip.Reader
}

func (u *unzipper) Read(p []byte) (int, error) {
	if u.z == nil {
		z, err := gzip.NewReader(u.raw)
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		u.z = z
	}
	return u.z.Read(p)
}

// resumer reads a source to its end, beginning again where a connection broke.
type resumer struct {
	ctx     context.Context
	c       *Client
	ref     Ref
	src     source
	body    io.ReadCloser // nil between tries
	at      int64         // offset of the next byte
	size    int64         // -1: not known
	version string
	seen    maphash.Hash // of the bytes before at, to recognise them when a server begins anew
	tries   int          // since mark
	mark    int64        // where the tries began
	failure error        // of the last read, for the next one
}

// begin gets the first answer.
func (r *resumer) begin() (*answer, error) {
	for {
		a, err := r.src.get(r.ctx, 0, "")
		if err == nil {
			r.body, r.size, r.version = a.body, a.size, a.version
			return a, nil
		}
		if err := r.again(err); err != nil {
			return nil, err
		}
	}
}

// again pauses before the next try, or returns the error to give up with.
func (r *resumer) again(err error) error {
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	var t *transient
	if !errors.As(err, &t) {
		return err
	}
	if r.at-r.mark >= progress {
		r.tries, r.mark = 0, r.at
	}
	if r.tries++; r.tries >= maxTries {
		code := grid.CodeOf(t.error)
		if code == grid.Unknown {
			code = grid.Unavailable
		}
		if r.at == 0 {
			return grid.Errorf(code, "read %s: gave up after %d tries: %w", r.ref, r.tries, t.error)
		}
		return grid.Errorf(code, "read %s: gave up at byte %d after %d tries: %w", r.ref, r.at, r.tries, t.error)
	}
	return r.c.wait(r.ctx, r.tries, t.after)
}

// Read gives the next bytes, or an error that is final.
func (r *resumer) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		err := r.failure
		r.failure = nil
		if err == nil && r.body == nil {
			err = r.resume()
			var t *transient
			if err != nil && !errors.As(err, &t) {
				return 0, err
			}
		}
		if err == nil {
			var n int
			n, err = r.body.Read(p)
			if n > 0 {
				r.at += int64(n)
				r.seen.Write(p[:n])
				r.failure = err // nothing is lost, nor is it read past
				return n, nil
			}
		}
		switch {
		case err == nil:
			continue
		case err == io.EOF && (r.size < 0 || r.at == r.size):
			r.failure = io.EOF
			return 0, io.EOF
		case err == io.EOF && r.at > r.size:
			return 0, grid.Errorf(grid.Corrupt, "read %s: %d bytes came, but its size was said to be %d", r.ref, r.at, r.size)
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
		}
		r.Close()
		var t *transient
		if !errors.As(err, &t) { // of a body: the connection broke
			err = &transient{error: broken(err, r.c.cfg.StallTimeout)}
		}
		if err := r.again(err); err != nil {
			return 0, err
		}
	}
}

// resume asks for the rest. When the server begins anew, what has been read before has to come again.
func (r *resumer) resume() error {
	a, err := r.src.get(r.ctx, r.at, r.version)
	if err != nil {
		return err
	}
	if r.size >= 0 && a.size >= 0 && a.size != r.size || r.version != "" && a.version != "" && a.version != r.version || a.offset != 0 && a.offset != r.at {
		a.body.Close()
		return r.changed()
	}
	if a.offset < r.at {
		var again maphash.Hash
		again.SetSeed(r.seen.Seed())
		if _, err := io.CopyN(&again, a.body, r.at); err != nil {
			a.body.Close()
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return &transient{error: broken(err, r.c.cfg.StallTimeout)}
		}
		if again.Sum64() != r.seen.Sum64() {
			a.body.Close()
			return r.changed()
		}
	}
	r.body = a.body
	return nil
}

func (r *resumer) changed() error {
	return grid.Errorf(grid.Conflict, "%s changed while it was read", r.ref).Hint("try again when nobody writes to it")
}

// Close ends the connection.
func (r *resumer) Close() error {
	if r.body != nil {
		r.body.Close()
		r.body = nil
	}
	return nil
}

// pins compares content with the checksums of its Ref.
type pins struct {
	ref    Ref
	sha256 hash.Hash
	w      *io.PipeWriter // to the goroutine that computes the CID; nil when not wanted
	done   chan struct{}  // closed at its end, when cid and err are set
	cid    cid.Cid
	err    error
}

func newPins(ctx context.Context, r Ref) *pins {
	p := &pins{ref: r, sha256: sha256.New()}
	if r.cid.Defined() {
		pr, pw := io.Pipe()
		p.w, p.done = pw, make(chan struct{})
		go func() { // until stop
			defer close(p.done)
			p.cid, p.err = fileCID(ctx, pr)
			pr.CloseWithError(p.err)
		}()
	}
	return p
}

// fileCID computes the CID that a file would have in the grid.
func fileCID(ctx context.Context, r io.Reader) (cid.Cid, error) {
	c, _, err := dag.New(nowhere{}).Add(ctx, r)
	return c, err
}

// nowhere takes blocks and keeps none. Nothing but Put is called when a file is added.
type nowhere struct{ grid.Blocks }

// Put forgets the blocks.
func (nowhere) Put(context.Context, ...grid.Block) error { return nil }

func (p *pins) write(b []byte) {
	if p.ref.sha256 != nil {
		p.sha256.Write(b)
	}
	if p.w != nil {
		_, _ = p.w.Write(b) // check tells of its error
	}
}

// check compares, at the content's end.
func (p *pins) check() error {
	if want := p.ref.sha256; want != nil {
		if got := p.sha256.Sum(nil); !bytes.Equal(got, want) {
			return p.mismatch("sha256", hex.EncodeToString(got), hex.EncodeToString(want))
		}
	}
	if p.w == nil {
		return nil
	}
	p.stop()
	if p.err != nil {
		return grid.Errorf(grid.CodeOf(p.err), "the CID of %s: %w", p.ref, p.err)
	}
	// Equal hashes may be written as CIDs of different versions.
	if want := p.ref.cid; p.cid.Type() != want.Type() || !bytes.Equal(p.cid.Hash(), want.Hash()) {
		return p.mismatch("CID", p.cid.String(), want.String())
	}
	return nil
}

// stop ends the goroutine; no more is written.
func (p *pins) stop() {
	if p.w != nil {
		p.w.Close()
		<-p.done
	}
}

func (p *pins) mismatch(what, got, want string) error {
	return grid.Errorf(grid.Corrupt, "%s is not what it is pinned to: its %s is %s, not %s", p.ref, what, got, want).
		Hint("the file has changed, or the checksum is of another one; nothing of it was kept")
}
