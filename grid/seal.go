package grid

import (
	"crypto/sha256"
	"math/bits"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// Seal shows who made a receipt. Receipts are signed in batches, for a signature costs more than a small task does: the
// node signs the root of a Merkle tree, and each receipt has the way from it to the root.
//
// See R. C. Merkle, A Digital Signature Based on a Conventional Encryption Function (1987). Leaves and nodes are told
// apart as in RFC 6962, section 2.1.
type Seal struct {
	Sig  []byte `cbor:"sig,omitempty"`  // of the root
	Leaf uint32 `cbor:"leaf,omitempty"` // the receipt's number in its batch
	Path []byte `cbor:"path,omitempty"` // the siblings on the way to the root, hash by hash
}

const (
	// maxBatch is how many receipts are signed together: more would make each longer, and save little.
	maxBatch = 16
	hashLen  = sha256.Size
	maxPath  = 4 * hashLen // of a batch of maxBatch
)

type hash = [hashLen]byte

// leaf is the hash of a receipt without its seal.
func (r Receipt) leaf() (hash, error) {
	r.Seal = Seal{}
	data, err := Marshal(r)
	if err != nil {
		return hash{}, Errorf(Internal, "encode a receipt: %w", err)
	}
	return sha256.Sum256(append([]byte{0}, data...)), nil
}

func join(left, right hash) hash {
	var b [1 + 2*hashLen]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+hashLen:], right[:])
	return sha256.Sum256(b[:])
}

// rootBytes is what is signed: the root, behind a prefix that keeps it from being mistaken for anything else that the
// same key signs.
func rootBytes(root hash) []byte { return append([]byte("wasmgrid receipts 1\x00"), root[:]...) }

// Sign makes key the signer of all the receipts, which have its peer ID as their node.
func Sign(key crypto.PrivKey, receipts ...*Receipt) error {
	for len(receipts) > 0 {
		n := min(len(receipts), maxBatch)
		if err := signBatch(key, receipts[:n]); err != nil {
			return err
		}
		receipts = receipts[n:]
	}
	return nil
}

func signBatch(key crypto.PrivKey, batch []*Receipt) error {
	depth := bits.Len(uint(len(batch) - 1))
	level := make([]hash, 1<<depth) // what is beyond the receipts stays zero
	for i, r := range batch {
		var err error
		if level[i], err = r.leaf(); err != nil {
			return err
		}
		r.Seal = Seal{Leaf: uint32(i)}
		if depth > 0 {
			r.Path = make([]byte, 0, depth*hashLen)
		}
	}
	for d := range depth {
		for i, r := range batch {
			sibling := level[i>>d^1]
			r.Path = append(r.Path, sibling[:]...)
		}
		for i := range len(level) / 2 {
			level[i] = join(level[2*i], level[2*i+1])
		}
		level = level[:len(level)/2]
	}
	sig, err := key.Sign(rootBytes(level[0]))
	if err != nil {
		return Errorf(Internal, "sign receipts: %w", err)
	}
	for _, r := range batch {
		r.Sig = sig
	}
	return nil
}

// Verify checks that the node named in the receipt signed it.
func (r *Receipt) Verify() error { return new(verifier).verify(r) }

// verifier checks receipts, of which those that were signed together cost one check. It is for one goroutine, and
// for what comes in one message.
type verifier struct{ last, sig []byte } // what was signed last, behind the node's ID, and the signature

func (v *verifier) verify(r *Receipt) error {
	if len(r.Path) > maxPath || len(r.Path)%hashLen != 0 || r.Leaf>>(len(r.Path)/hashLen) != 0 {
		return Errorf(Invalid, "receipt %s: a seal of %d bytes for number %d", r.Key, len(r.Path), r.Leaf)
	}
	root, err := r.leaf()
	if err != nil {
		return err
	}
	for d := 0; d < len(r.Path)/hashLen; d++ {
		sibling := hash(r.Path[d*hashLen:])
		if r.Leaf>>d&1 == 0 {
			root = join(root, sibling)
		} else {
			root = join(sibling, root)
		}
	}
	signed := append([]byte(r.Node), rootBytes(root)...)
	if len(r.Sig) > 0 && string(signed) == string(v.last) && string(r.Sig) == string(v.sig) {
		return nil
	}
	pub, err := r.Node.ExtractPublicKey()
	if err != nil {
		return Errorf(Invalid, "receipt %s: its node %q has no usable key: %v", r.Key, r.Node, err)
	}
	if ok, err := pub.Verify(signed[len(r.Node):], r.Sig); err != nil || !ok {
		return Errorf(Denied, "receipt %s: not signed by its node %s", r.Key, r.Node)
	}
	v.last, v.sig = signed, r.Sig
	return nil
}
