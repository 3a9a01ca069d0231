package p2p

import (
	"bytes"
	"io"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/protocol"
)

// maxHeard is how much of what a stream begins with is kept, for saying what it was about.
const maxHeard = 256

// hearing remembers the first bytes that are read.
type hearing struct {
	io.ReadWriteCloser
	first []byte
}

func (h *hearing) Read(p []byte) (int, error) {
	n, err := h.ReadWriteCloser.Read(p)
	h.first = append(h.first, p[:min(n, maxHeard-len(h.first))]...)
	return n, err
}

// otherVersion is the other version of a protocol that was asked for by libp2p's multistream, "" if none was.
func (h *hearing) otherVersion(than protocol.ID) string {
	name, version := cutVersion(string(than))
	_, rest, ok := bytes.Cut(h.first, []byte(name+"/"))
	other, _, whole := bytes.Cut(rest, []byte{'\n'})
	if !ok || !whole || len(other) == 0 || string(other) == version || len(other) > len("1234") || strings.Trim(string(other), ".0123456789") != "" {
		return ""
	}
	return name + "/" + string(other)
}

// cutVersion takes the version off the name of a protocol.
func cutVersion(p string) (name, version string) {
	i := strings.LastIndexByte(p, '/')
	return p[:max(i, 0)], p[i+1:]
}

// otherVersions lists those of a peer's protocols that are ours but for the version, and which this node does not speak: the two
// cannot work together by them.
func otherVersions(prefix string, ours, theirs []protocol.ID) (list []string) {
	names := make(map[string]bool)
	for _, p := range ours {
		name, _ := cutVersion(string(p))
		names[name] = true
	}
	for _, p := range theirs {
		if name, _ := cutVersion(string(p)); strings.HasPrefix(string(p), prefix) && names[name] && !slices.Contains(ours, p) && len(list) < 8 {
			list = append(list, strings.TrimPrefix(string(p), prefix))
		}
	}
	slices.Sort(list)
	return list
}
