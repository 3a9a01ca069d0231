package grid

import (
	"context"
	"io"
	"io/fs"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"
)

// MaxBlock is the largest block, in bytes, that the grid stores or accepts: 2 MiB, which is also what
// IPFS nodes exchange.
const MaxBlock = 2 << 20

// Block is bytes that match their CID: the only ways to make one are [NewBlock], which hashes, and
// [VerifyBlock], which checks. Its data must not be changed as long as the block is used.
type Block struct {
	cid  cid.Cid
	data []byte
}

// CID names the block.
func (b Block) CID() cid.Cid { return b.cid }

// Data is the content, shared and read-only.
func (b Block) Data() []byte { return b.data }

// NewBlock hashes data (sha2-256) and names it by a CIDv1 of the given codec. The block keeps data.
func NewBlock(codec uint64, data []byte) Block {
	c := must(cid.V1Builder{Codec: codec, MhType: mh.SHA2_256}.Sum(data)) // fails only for unknown hashes
	return Block{cid: c, data: data}
}

// VerifyBlock checks that data is what c names: a sha2-256 CID over at most MaxBlock bytes.
func VerifyBlock(c cid.Cid, data []byte) (Block, error) {
	if len(data) > MaxBlock {
		return Block{}, Errorf(Limit, "block %s has %d bytes, at most %d are allowed", c, len(data), MaxBlock)
	}
	if err := CheckCID(c); err != nil {
		return Block{}, err
	}
	if sum, err := c.Prefix().Sum(data); err != nil || !sum.Equals(c) {
		return Block{}, Errorf(Corrupt, "block %s: %d bytes do not match their CID", c, len(data))
	}
	return Block{cid: c, data: data}, nil
}

// CheckCID refuses CIDs whose blocks could not be verified: only sha2-256, 32 bytes long, is used.
func CheckCID(c cid.Cid) error {
	if !c.Defined() {
		return Errorf(Invalid, "empty CID")
	}
	if p := c.Prefix(); p.MhType != mh.SHA2_256 || p.MhLength != 32 {
		return Errorf(Unsupported, "CID %s: its hash is not sha2-256", c)
	}
	return nil
}

// EncodeBlock makes a DAG-CBOR block of a record.
func EncodeBlock(v any) (Block, error) {
	data, err := Marshal(v)
	if err != nil {
		return Block{}, Errorf(Internal, "encode %T: %w", v, err)
	}
	if len(data) > MaxBlock {
		return Block{}, Errorf(Limit, "%T takes %d bytes encoded, at most %d fit a block", v, len(data), MaxBlock)
	}
	return NewBlock(cid.DagCBOR, data), nil
}

// Blocks is a node's local block store. It is safe for concurrent use.
type Blocks interface {
	// Put stores blocks. They can be read when it returns, and survive a crash once Sync returns.
	// On error none, some or all of them are stored, each of them whole. Put keeps no block's data: once
	// it has returned, whoever made the blocks and gave them to nobody else may use that memory again.
	Put(ctx context.Context, blocks ...Block) error
	// Get returns a block's data, verified against its CID. The caller must not change it. The error
	// is NotFound when the block is not here, Corrupt when it no longer matches.
	Get(ctx context.Context, c cid.Cid) ([]byte, error)
	// Has reports whether the block is here, without reading it.
	Has(ctx context.Context, c cid.Cid) (bool, error)
	// Delete forgets a block. Deleting what is not here is no error.
	Delete(ctx context.Context, c cid.Cid) error
	// Sync makes everything put before it durable.
	Sync(ctx context.Context) error
}

// Keeper keeps blocks from being collected while something uses them. It is safe for concurrent use.
type Keeper interface {
	// Hold makes the store keep what is here of the roots' DAGs, and what comes of them, until release is called. It is cheap, and may last.
	// Release may be called more than once.
	Hold(roots ...cid.Cid) (release func())
	// HoldUsed makes the store keep every block that is put, found to be here, or read from now on, by anybody, until release is called.
	// It is for the making of a DAG that has no root yet, and should end when it has: what was used since cannot make room meanwhile.
	HoldUsed() (release func())
}

// FileKind tells what a UnixFS node is.
type FileKind string

// The kinds.
const (
	KindFile    FileKind = "file"
	KindDir     FileKind = "dir"
	KindSymlink FileKind = "symlink"
)

// FileInfo describes one file, folder or symlink in a DAG.
type FileInfo struct {
	Name   string   `json:"name"`             // without the folders that it is in
	CID    Link     `json:"cid"`              // of its DAG
	Kind   FileKind `json:"kind"`             // what it is
	Size   int64    `json:"size"`             // bytes of content; of a folder, of everything below it
	Target string   `json:"target,omitempty"` // of a symlink
	Exec   bool     `json:"exec,omitempty"`   // a file that may be executed; its CID tells so too
}

// Content is a file in memory.
type Content struct {
	Data []byte // shared and read-only while in use
	Exec bool   // it may be executed
}

// Files is the view of blocks as UnixFS files and folders. It reads and writes only local blocks.
// It is safe for concurrent use.
type Files interface {
	// Add stores what r gives until EOF as one file and returns its CID and size.
	Add(ctx context.Context, r io.Reader) (cid.Cid, int64, error)
	// AddMany stores files, many small ones faster than Add does, and returns their CIDs in order. On
	// error none, some or all of them are stored.
	AddMany(ctx context.Context, files []Content) ([]cid.Cid, error)
	// Executable stores the file c as an executable one and returns its CID: content is shared.
	Executable(ctx context.Context, c cid.Cid) (cid.Cid, error)
	// AddTree stores the folder made of entries: each names a file, a symlink or an empty folder by
	// its slash-separated path below the root (see fs.ValidPath); folders in between are implied. Whether a
	// file is executable is for its CID to tell.
	AddTree(ctx context.Context, entries []FileInfo) (cid.Cid, int64, error)
	// Stat describes the node that c names; its Name is "".
	Stat(ctx context.Context, c cid.Cid) (FileInfo, error)
	// Look is Stat that reads only c's own block. The size of a folder is therefore what that claims all
	// blocks below to have.
	Look(ctx context.Context, c cid.Cid) (FileInfo, error)
	// Whole reports whether all blocks of the file or folder c are here, without reading the content.
	Whole(ctx context.Context, c cid.Cid) (bool, error)
	// List describes the entries of a folder, sorted by name.
	List(ctx context.Context, c cid.Cid) ([]FileInfo, error)
	// Resolve follows a slash-separated path below c. Symlinks are not followed.
	Resolve(ctx context.Context, c cid.Cid, path string) (cid.Cid, error)
	// Open reads a file. The reader is for one goroutine; ctx bounds all its reads.
	Open(ctx context.Context, c cid.Cid) (io.ReadSeekCloser, error)
	// FS shows the folder c as a file system whose entries are in a stable order. Its files also
	// implement io.Seeker and io.ReaderAt. Symlinks resolve inside c only. ctx bounds all its reads.
	FS(ctx context.Context, c cid.Cid) (fs.FS, error)
}

// Fetcher brings DAGs from other nodes.
type Fetcher interface {
	// Fetch returns once everything wanted is in the local store. It asks the peers that w names first,
	// then whoever the swarm names. Concurrent calls for one root share one transfer. The error names
	// the first block that could not be had, and who was asked; what has come stays.
	Fetch(ctx context.Context, w Want) error
}

// Puller brings DAGs from one node, and nowhere else.
type Puller interface {
	// Pull has the node send whole DAGs, also what is here of them, at most limit bytes, and returns what they consist of. It is all in
	// the local store then. If it is shallow, it brings just the roots' own blocks, without what they link to.
	Pull(ctx context.Context, from peer.ID, roots []cid.Cid, limit int64, shallow bool) (map[cid.Cid]struct{}, error)
}

// Want says what to fetch.
type Want struct {
	Roots   []cid.Cid // of DAGs
	From    []peer.ID // who is likely to have them
	Shallow bool      // just the roots' own blocks, without what they link to
	Below   []cid.Cid // with Shallow: roots of DAGs that the blocks are of, as far as known
	Swarm   bool      // nobody but the swarm can have it: other networks need not be asked
	Limit   int64     // bytes that may come, at most; 0: any number. Of calls that share a transfer the most counts
}
