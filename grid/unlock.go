package grid

import "context"

// Data that was encrypted before it was added is given to guests as it was, if their stage was granted the key to it: a secret
// of the realm. The store has only what is encrypted, on this node too; a guest sees neither the key nor that there is one.

// keysFor reads the keys that a task was granted. The error is this node's failure: another one may do better.
func (n *Node) keysFor(ctx context.Context, names []string) ([][]byte, error) {
	if len(names) == 0 {
		return nil, nil
	}
	if n.Unlock == nil {
		return nil, Errorf(Unsupported, "this node cannot decrypt what tasks read")
	}
	values, err := n.secretsFor(ctx, names)
	if err != nil {
		return nil, err
	}
	keys := make([][]byte, 0, len(names))
	for _, name := range names {
		keys = append(keys, values.values[name])
	}
	return keys, nil
}

// unlocked shows files as they were before they were encrypted to one of the keys. lost is told of what no key fits, and of what
// is damaged.
func (n *Node) unlocked(files Files, keys [][]byte, lost func(error)) (Files, error) {
	if len(keys) == 0 {
		return files, nil
	}
	out, err := n.Unlock(files, keys, lost)
	if err != nil {
		return nil, Errorf(CodeOf(err), "the job was granted a secret to decrypt with: %w", err)
	}
	return out, nil
}
