package grid

import (
	"context"
	"io"
	"math"

	"github.com/ipfs/go-cid"
)

// Archive writes DAGs into CAR files and reads them back: the files in which IPFS tools pass DAGs around.
// It reads and writes only local blocks. It is safe for concurrent use.
type Archive interface {
	// Export writes a CARv1 that holds what the parts select, each block once unless told else, depth first. Its roots are
	// what the parts' paths lead to. An error that can be told without sending blocks, such as a path that
	// leads nowhere, comes before anything is written; one that comes later leaves a file cut short.
	Export(ctx context.Context, w io.Writer, parts ...Selection) error
	// Import stores the blocks of a CARv1 or CARv2, each checked against its CID, and is durable when it
	// returns. A root that is not whole then, with what was here before, is an error unless partial is true.
	// On error whatever blocks have come stay, each of them whole.
	Import(ctx context.Context, r io.Reader, partial bool) (Imported, error)
}

// Selection says which blocks of a DAG are meant, as the IPFS trustless gateway does (IPIP-402): those that
// lead along a path, and a part of what it leads to.
type Selection struct {
	Root  cid.Cid
	Path  string     // slash-separated, through folders; "" is Root itself
	Scope Scope      // "" is ScopeAll
	Bytes *ByteRange // nil: all. It implies ScopeEntity, and says nothing about what is no file
	// Repeats gives a block each time that it is linked to, so that a reader need not remember any. It is
	// for streams: a small DAG can be a huge tree. With several parts, that of the first counts.
	Repeats bool
}

// Scope is how much of a DAG is meant.
type Scope string

// The scopes.
const (
	ScopeAll    Scope = "all"    // everything that is linked to
	ScopeEntity Scope = "entity" // a file with all its bytes; a folder with its list of entries, but not these
	ScopeBlock  Scope = "block"  // the root's own block
)

// ByteRange is a part of a file. Both ends are included; negative ones count from the end of the file.
type ByteRange struct{ From, To int64 }

// ToEnd is the To of a range that ends with the file.
const ToEnd = math.MaxInt64

// Imported is what came of an import.
type Imported struct {
	Roots  []ImportedRoot `json:"roots"`  // in the order of the archive
	Blocks int64          `json:"blocks"` // in the archive, repeated ones too
	Bytes  int64          `json:"bytes"`  // of their data
}

// ImportedRoot is a root that an archive named.
type ImportedRoot struct {
	CID   Link   `json:"cid"`           // of the root
	Whole bool   `json:"whole"`         // everything below it is here
	Why   string `json:"why,omitempty"` // it is not
}

// Surveyor tells about DAGs without moving them. It reads only local blocks. It is safe for concurrent use.
type Surveyor interface {
	// Survey measures what is here of a DAG. The error is NotFound when its root is not.
	Survey(ctx context.Context, c cid.Cid) (Extent, error)
	// Diff compares two DAGs by their CIDs, and tells of each path that is in one only, or differs, in
	// order. Folders are compared entry by entry; what is equal is not read. An error of each ends it.
	Diff(ctx context.Context, was, is cid.Cid, each func(Change) error) error
}

// Extent is how much there is of a DAG.
type Extent struct {
	CID     Link     `json:"cid"`              // of the root
	Kind    FileKind `json:"kind,omitempty"`   // "" for what is no file, such as a record
	Size    int64    `json:"size"`             // as in FileInfo; -1 when it is not known
	Target  string   `json:"target,omitempty"` // of a symlink
	Blocks  int64    `json:"blocks"`           // that are here, each counted once
	Bytes   int64    `json:"bytes"`            // of these; of raw leaves, as the blocks that link to them tell
	Missing int64    `json:"missing"`          // that are linked to but not here; what is below them is not known
	Local   bool     `json:"local"`            // nothing is missing
}

// Change is a path that differs between two DAGs. Was is not defined for what was added, Is for what was
// removed.
type Change struct {
	Path    string   `json:"path"`               // "" for the roots
	Was     Link     `json:"was,omitzero"`       // none for what was added
	WasKind FileKind `json:"was_kind,omitempty"` // "" for what is no file
	Is      Link     `json:"is,omitzero"`        // none for what was removed
	IsKind  FileKind `json:"is_kind,omitempty"`  // "" for what is no file
}

// String is "added", "removed" or "changed".
func (c Change) String() string {
	switch {
	case !c.Was.Defined():
		return "added"
	case !c.Is.Defined():
		return "removed"
	}
	return "changed"
}
