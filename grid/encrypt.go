package grid

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/crypto/ssh"
)

// Values are encrypted to nodes in age's format (age-encryption.org/v1). A node's identity is its key: whoever knows
// its peer ID can encrypt to it, and nothing has to be published. Who wrote a value is not said.

// encrypt encrypts data so that each of the nodes can read it. There must be one at least, and all must have Ed25519 keys;
// else the error is Unsupported.
func encrypt(data []byte, to ...peer.ID) ([]byte, error) {
	readers := make([]age.Recipient, 0, len(to))
	for _, id := range to {
		r, err := reader(id)
		if err != nil {
			return nil, err
		}
		readers = append(readers, r)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, readers...)
	if err != nil {
		return nil, Errorf(Internal, "encrypt to %d nodes: %w", len(to), err)
	}
	if _, err := w.Write(data); err != nil {
		return nil, Errorf(Internal, "encrypt: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, Errorf(Internal, "encrypt: %w", err)
	}
	return out.Bytes(), nil
}

// canEncryptTo reports whether something can be encrypted to a node: all whose keys grid made.
func canEncryptTo(id peer.ID) bool {
	_, err := reader(id)
	return err == nil
}

// reader is whom age encrypts to.
func reader(id peer.ID) (age.Recipient, error) {
	unsupported := func(why string) error {
		return Errorf(Unsupported, "node %s has %s, nothing can be encrypted to it", id, why).
			Hint("use nodes with identities that grid made: these are Ed25519 keys")
	}
	pub, err := id.ExtractPublicKey()
	if err != nil {
		return nil, unsupported("a key that its name does not tell")
	}
	raw, err := pub.Raw()
	if err != nil || pub.Type() != crypto.Ed25519 {
		return nil, unsupported("another key than Ed25519")
	}
	key, err := ssh.NewPublicKey(ed25519.PublicKey(raw))
	if err != nil {
		return nil, unsupported("an unusable key")
	}
	r, err := agessh.NewEd25519Recipient(key)
	if err != nil {
		return nil, unsupported("an unusable key")
	}
	return r, nil
}

// decrypt decrypts what was encrypted to the node of a key, of at most so many bytes. The error is Denied when it was not,
// Corrupt when it is damaged, Limit when it is longer.
func decrypt(data []byte, key crypto.PrivKey, most int) ([]byte, error) {
	raw, err := key.Raw()
	if err != nil || key.Type() != crypto.Ed25519 || len(raw) != ed25519.PrivateKeySize {
		return nil, Errorf(Unsupported, "this node's key is not Ed25519")
	}
	me, err := agessh.NewEd25519Identity(ed25519.PrivateKey(raw))
	if err != nil {
		return nil, Errorf(Internal, "this node's key: %w", err)
	}
	r, err := age.Decrypt(bytes.NewReader(data), me)
	var other *age.NoIdentityMatchError
	if errors.As(err, &other) {
		return nil, Errorf(Denied, "it is not encrypted to this node")
	}
	if err != nil {
		return nil, Errorf(Corrupt, "it does not decrypt: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if err != nil {
		return nil, Errorf(Corrupt, "it does not decrypt: %w", err)
	}
	if len(plain) > most {
		return nil, Errorf(Limit, "it has more than %d bytes", most)
	}
	return plain, nil
}
