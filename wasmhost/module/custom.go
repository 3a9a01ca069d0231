package module

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/schema"
)

// SignatureSection is the name of the custom sections that hold signatures. They are the last of a module, one after
// another. Each signs all that comes before the first of them.
const SignatureSection = "grid.signature"

// Bounds on signatures.
const (
	MaxSignatures = 16
	maxSignature  = 4 << 10 // bytes of a section
)

// endorsement is what a section of one holds, as CBOR.
type endorsement struct {
	Signer peer.ID `cbor:"signer"`
	Key    []byte  `cbor:"key,omitempty"` // as libp2p marshals it, when the ID does not contain it
	Sig    []byte  `cbor:"sig"`
}

// signed is what a signature covers: a hash, behind a prefix that keeps it from being mistaken for anything else that
// the same key signs.
func signed(body []byte) []byte {
	sum := sha256.Sum256(body)
	return append([]byte("wasmgrid plugin 1\x00"), sum[:]...)
}

// custom is what the custom sections of a module have for the grid.
type custom struct {
	manifest         []byte
	from, to         int      // of the manifest's section; both 0 when there is none
	signatures       [][]byte // their contents
	body             int      // where the first of them begins; the end without one
	manifests, after int      // how many manifests, and where a section is that follows signatures
}

// add notes a custom section that begins at one byte and ends before another.
func (c *custom) add(name string, content []byte, from, to int) {
	if len(c.signatures) > 0 && name != SignatureSection {
		c.after = from
	}
	switch name {
	case grid.ManifestSection:
		c.manifest, c.from, c.to = content, from, to
		c.manifests++
	case SignatureSection:
		if len(c.signatures) == 0 {
			c.body = from
		}
		c.signatures = append(c.signatures, content)
	}
}

// readCustom finds the custom sections of a module, looking at nothing else.
func readCustom(binary []byte) (custom, error) {
	c := custom{body: len(binary)}
	if err := sniff(binary); err != nil {
		return c, err
	}
	r := reader{b: binary, off: 8}
	for r.off < len(binary) {
		from := r.off
		id := r.byte()
		body := r.bytes(r.u32())
		if r.failed {
			return c, truncated("section %d at byte %d", id, from)
		}
		name := ""
		s := reader{b: body}
		if id == secCustom {
			name = s.name()
		}
		c.add(name, body[s.off:], from, r.off)
	}
	return c, nil
}

// read gives the manifest, if there is one, and those who signed.
func (c *custom) read(binary []byte) (m *grid.Manifest, signers []peer.ID, err error) {
	switch {
	case c.manifests > 1:
		return nil, nil, grid.Errorf(grid.Invalid, "the module has %d sections %s, at most one is allowed", c.manifests, grid.ManifestSection).
			Hint("build the plugin again, with `grid plugin build`")
	case c.manifests == 1:
		if m, err = grid.ParseManifest(c.manifest); err != nil {
			return nil, nil, err
		}
		if err := schema.CheckManifest(m); err != nil {
			return nil, nil, err
		}
	}
	signers, err = c.verify(binary)
	return m, signers, err
}

// verify checks all signatures.
func (c *custom) verify(binary []byte) (signers []peer.ID, err error) {
	if len(c.signatures) > MaxSignatures {
		return nil, grid.Errorf(grid.Limit, "the module has %d signatures, at most %d are allowed", len(c.signatures), MaxSignatures)
	}
	if c.after > 0 {
		return nil, grid.Errorf(grid.Invalid, "the module goes on after its signatures, at byte %d, with what they do not cover", c.after).
			Hint("sign it again, with `grid plugin sign`, after everything else was done to it")
	}
	for i, data := range c.signatures {
		id, err := verifyOne(data, binary[:c.body])
		if err != nil {
			return nil, grid.Errorf(grid.CodeOf(err), "signature %d of the module: %w", i+1, err).
				Hint("it was damaged, or changed after it was signed: get it again from its author, or sign it again with `grid plugin sign`")
		}
		if slices.Contains(signers, id) {
			return nil, grid.Errorf(grid.Invalid, "the module has two signatures by %s", id).Hint("sign it again, with `grid plugin sign`")
		}
		signers = append(signers, id)
	}
	return signers, nil
}

func verifyOne(data, body []byte) (peer.ID, error) {
	if len(data) > maxSignature {
		return "", grid.Errorf(grid.Limit, "it has %d bytes, at most %d are allowed", len(data), maxSignature)
	}
	var s endorsement
	if err := grid.Unmarshal(data, &s); err != nil {
		return "", grid.Errorf(grid.Invalid, "it is malformed: %w", err)
	}
	key, err := s.key()
	if err != nil {
		return "", err
	}
	if ok, err := key.Verify(signed(body), s.Sig); err != nil || !ok {
		return "", grid.Errorf(grid.Invalid, "it is not one by %s of these bytes", s.Signer)
	}
	return s.Signer, nil
}

func (s *endorsement) key() (crypto.PubKey, error) {
	if len(s.Key) == 0 {
		key, err := s.Signer.ExtractPublicKey()
		if err != nil {
			return nil, grid.Errorf(grid.Invalid, "it does not have the key of its signer: %w", err)
		}
		return key, nil
	}
	key, err := crypto.UnmarshalPublicKey(s.Key)
	if err != nil {
		return nil, grid.Errorf(grid.Invalid, "the key of its signer: %w", err)
	}
	if !s.Signer.MatchesPublicKey(key) {
		return nil, grid.Errorf(grid.Invalid, "its key is not that of %s", s.Signer)
	}
	return key, nil
}

// Custom is what a module has for the grid besides code.
type Custom struct {
	Manifest *grid.Manifest // nil without one
	Signers  []peer.ID      // whose signatures are right; there are no others
}

// ReadCustom reads and checks what a module says of itself, and its signatures. It does not look at the code.
func ReadCustom(binary []byte) (Custom, error) {
	c, err := readCustom(binary)
	if err != nil {
		return Custom{}, err
	}
	m, signers, err := c.read(binary)
	return Custom{m, signers}, err
}

// PutManifest gives a module with another manifest, or with its first. Signatures are left out: they are not of these bytes.
func PutManifest(binary []byte, m *grid.Manifest) ([]byte, error) {
	data, err := m.Encode()
	if err != nil {
		return nil, err
	}
	if err := schema.CheckManifest(m); err != nil {
		return nil, err
	}
	c, err := readCustom(binary)
	if err != nil {
		return nil, err
	}
	if c.manifests > 1 || c.after > 0 { // not ours to guess which to keep
		if _, _, err := c.read(binary); err != nil {
			return nil, err
		}
	}
	out := make([]byte, 0, len(binary)+len(data)+64)
	out = append(out, binary[:c.from]...)
	out = append(out, binary[c.to:c.body]...) // all of it when there was none
	return bounded(appendCustom(out, grid.ManifestSection, data))
}

// Sign gives a module with one more signature. One by the same signer is replaced.
func Sign(binary []byte, key crypto.PrivKey) ([]byte, error) {
	c, err := readCustom(binary)
	if err != nil {
		return nil, err
	}
	kept := c.signatures
	signers, err := c.verify(binary)
	switch {
	case c.after > 0:
		return nil, err
	case err != nil: // they are of other bytes, or worth nothing
		kept = nil
	}
	s := endorsement{}
	if s.Signer, err = peer.IDFromPrivateKey(key); err != nil {
		return nil, fmt.Errorf("the ID of a key: %w", err)
	}
	if _, err := s.Signer.ExtractPublicKey(); err != nil {
		if s.Key, err = crypto.MarshalPublicKey(key.GetPublic()); err != nil {
			return nil, fmt.Errorf("encode a key: %w", err)
		}
	}
	if s.Sig, err = key.Sign(signed(binary[:c.body])); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	data, err := grid.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode a signature: %w", err)
	}
	out := slices.Clone(binary[:c.body])
	count := 1
	for i, old := range kept {
		if signers[i] != s.Signer {
			out = appendCustom(out, SignatureSection, old)
			count++
		}
	}
	if count > MaxSignatures {
		return nil, grid.Errorf(grid.Limit, "the module has %d signatures already, and may not have more", MaxSignatures)
	}
	return bounded(appendCustom(out, SignatureSection, data))
}

func appendCustom(b []byte, name string, content []byte) []byte {
	head := append(appendU32(nil, uint32(len(name))), name...)
	b = appendU32(append(b, secCustom), uint32(len(head)+len(content)))
	return append(append(b, head...), content...)
}

func bounded(b []byte) ([]byte, error) {
	if len(b) > MaxSize {
		return nil, grid.Errorf(grid.Limit, "the module would have %d bytes, at most %d are allowed", len(b), MaxSize).
			Hint("strip debug information, as with `go build -ldflags=-w` or `wasm-strip`")
	}
	return b, nil
}
