// Package crypt encrypts files and folders before they reach a store, and shows them as they were to who has a key.
// It knows nothing of where keys are kept, and moves nothing.
//
// # Format
//
// A file becomes one age file (age-encryption.org/v1): a header that gives a random file key to each recipient, then the
// content in chunks of 64 KiB, each sealed by ChaCha20-Poly1305 under a number that also says which chunk is the last.
// So any part can be read by itself, and chunks that were changed, moved, left out or cut off at the end do not decrypt.
//
// A folder becomes one age file, too, of a ZIP archive whose entries are stored as they are, so that files in it can
// be read in part as well. Its comment, [Mark], tells it from an archive that is somebody's file. Names, sizes and how
// many files there are lie within. Entries are in order of names; of a file it is kept whether it may be executed.
//
// Whoever knows a recipient can encrypt to it: what decrypts is not therefore of somebody whom one trusts, and an archive
// from elsewhere is not believed.
package crypt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/wasmgrid/wasmgrid/grid"
)

const (
	// ChunkSize is how many bytes are encrypted together, and so the least that is read.
	ChunkSize = 64 << 10
	// MaxRecipients bounds to how many one file can be encrypted.
	MaxRecipients = 128
	// Intro is what every encrypted file begins with.
	Intro = "age-encryption.org/v1\n"
)

// Sealer encrypts one file, whose length is known before its content.
type Sealer struct {
	head bytes.Buffer // until out is set
	out  io.Writer
	seal io.WriteCloser
}

// NewSealer makes a sealer for a new file key, which each of the recipients will be able to find.
func NewSealer(to ...age.Recipient) (*Sealer, error) {
	switch {
	case len(to) == 0:
		return nil, grid.Errorf(grid.Invalid, "it is encrypted to nobody")
	case len(to) > MaxRecipients:
		return nil, grid.Errorf(grid.Limit, "encrypted to %d recipients, at most %d are allowed", len(to), MaxRecipients)
	}
	s := &Sealer{}
	var err error
	if s.seal, err = age.Encrypt((*sealed)(s), to...); err != nil {
		return nil, grid.Errorf(grid.Invalid, "encrypt: %w", err).
			Hint("post-quantum keys (age1pq1…) and passphrases do not go together with other kinds")
	}
	return s, nil
}

// sealed takes what age writes: the header first, which is kept.
type sealed Sealer

func (s *sealed) Write(p []byte) (int, error) {
	if s.out == nil {
		return s.head.Write(p)
	}
	return s.out.Write(p)
}

// Size is how many bytes a content of so many has when it is encrypted.
func (s *Sealer) Size(plain int64) int64 {
	chunks := max((plain+ChunkSize-1)/ChunkSize, 1)
	return int64(s.head.Len()) + plain + chunks*chacha20poly1305.Overhead
}

// Begin writes the header to w, and afterwards what is written to the result, encrypted. Closing that writes the last
// chunk; it does not close w. It may be called once.
func (s *Sealer) Begin(w io.Writer) (io.WriteCloser, error) {
	if _, err := w.Write(s.head.Bytes()); err != nil {
		return nil, err
	}
	s.out = w
	return s.seal, nil
}

// File is an encrypted file that was opened. It is safe for concurrent use.
type File struct {
	plain io.ReaderAt
	size  int64
	lost  func(error) // told of what does not decrypt; nil: nobody
	last  atomic.Pointer[chunk]
}

// chunk is one that was decrypted last, for those who read little at a time.
type chunk struct {
	off  int64
	data []byte
}

// Open finds the key of an encrypted file of so many bytes. Errors are Invalid for what is not encrypted, Denied when no
// identity fits, Corrupt when it does not decrypt, or src's own.
func Open(src io.ReaderAt, size int64, ids ...age.Identity) (*File, error) {
	from := source{src}
	head := make([]byte, min(size, int64(len(Intro))))
	if _, err := from.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, err
	}
	if !Is(head) {
		return nil, grid.Errorf(grid.Invalid, "it is not encrypted")
	}
	if len(ids) == 0 {
		return nil, grid.Errorf(grid.Denied, "it is encrypted, and there is no key to try")
	}
	plain, n, err := age.DecryptReaderAt(from, size, ids...)
	if err != nil {
		return nil, openError(err)
	}
	return &File{plain: plain, size: n}, nil
}

// Is reports whether a file that begins with head is encrypted; as many bytes as Intro has are enough.
func Is(head []byte) bool { return bytes.HasPrefix(head, []byte(Intro)) }

func openError(err error) error {
	var other *age.NoIdentityMatchError
	switch {
	case errors.As(err, &other):
		e := grid.Errorf(grid.Denied, "no key fits: it is encrypted %s", recipientsText(other.StanzaTypes))
		if len(other.StanzaTypes) == 1 && other.StanzaTypes[0] == scryptStanza {
			return e.Hint("give the passphrase with --passphrase")
		}
		return e.Hint("ask who encrypted it; a key of yours is given with --identity FILE, or taken up with `grid key import`")
	case grid.CodeOf(err) != grid.Unknown: // it could not be read
		return err
	}
	return grid.Errorf(grid.Corrupt, "it does not decrypt: its header is damaged, or its end was damaged or cut off: %w", err)
}

const scryptStanza = "scrypt"

// recipientsText tells to whom something is encrypted, as far as its header does.
func recipientsText(stanzas []string) string {
	if len(stanzas) == 1 && stanzas[0] == scryptStanza {
		return "with a passphrase"
	}
	counts := map[string]int{}
	var order []string
	for _, s := range stanzas {
		name, ok := stanzaNames[s]
		if !ok {
			name = "of an unknown kind"
		}
		if counts[name]++; counts[name] == 1 {
			order = append(order, name)
		}
	}
	parts := make([]string, len(order))
	for i, name := range order {
		parts[i] = fmt.Sprintf("%d %s", counts[name], name)
	}
	return "to keys: " + strings.Join(parts, ", ")
}

var stanzaNames = map[string]string{
	"X25519": "of age (age1…)", "mlkem768x25519": "of age, post-quantum (age1pq1…)",
	"ssh-ed25519": "of SSH (ssh-ed25519)", "ssh-rsa": "of SSH (ssh-rsa)", scryptStanza: "by a passphrase",
}

// Size is how many bytes the content has.
func (f *File) Size() int64 { return f.size }

// ReadAt reads a part of the content. The error is Corrupt, and names the chunk, for what does not decrypt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.size && off >= 0 {
		return 0, io.EOF
	}
	if off < 0 {
		return 0, grid.Errorf(grid.Invalid, "read at %d", off)
	}
	if len(p) >= ChunkSize {
		return f.decrypt(p, off)
	}
	n := 0
	for n < len(p) {
		c, err := f.chunkAt(off + int64(n))
		if err != nil {
			return n, err
		}
		m := copy(p[n:], c.data[off+int64(n)-c.off:])
		if m == 0 {
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}

// chunkAt is the chunk that an offset lies in; at the end of the content, one that ends there.
func (f *File) chunkAt(off int64) (*chunk, error) {
	if c := f.last.Load(); c != nil && off >= c.off && off < c.off+int64(len(c.data)) {
		return c, nil
	}
	from := off / ChunkSize * ChunkSize
	c := &chunk{from, make([]byte, min(ChunkSize, f.size-from))}
	if len(c.data) == 0 {
		return c, nil
	}
	if n, err := f.decrypt(c.data, from); n < len(c.data) {
		return nil, err
	}
	f.last.Store(c)
	return c, nil
}

// decrypt reads a part that lies in the content, as far as it goes.
func (f *File) decrypt(p []byte, off int64) (int, error) {
	n, err := f.plain.ReadAt(p, off)
	if err == nil || err == io.EOF || grid.CodeOf(err) != grid.Unknown {
		return n, err
	}
	bad := (off + int64(n)) / ChunkSize
	err = grid.Errorf(grid.Corrupt, "chunk %d of 0 to %d, from byte %d of the content on, does not decrypt: it was damaged or changed", bad, (f.size-1)/ChunkSize, bad*ChunkSize)
	if f.lost != nil {
		f.lost(err)
	}
	return n, err
}

// Reader reads the content from its beginning.
func (f *File) Reader() *Reader { return newReader(f, 0, f.size) }

// source gives errors of what is read a code, by which they are told from those of decryption.
type source struct{ io.ReaderAt }

func (s source) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.ReaderAt.ReadAt(p, off)
	if err != nil && err != io.EOF && grid.CodeOf(err) == grid.Unknown {
		err = grid.Errorf(grid.Unavailable, "%w", err)
	}
	return n, err
}
