package wasi

import (
	"io"

	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// rights are what may be done with a descriptor, and with what is opened through it.
type rights uint64

// The rights, in WASI's order.
const (
	rightDatasync rights = 1 << iota
	rightRead
	rightSeek
	rightSetFlags
	rightSync
	rightTell
	rightWrite
	rightAdvise
	rightAllocate
	rightCreateDirectory
	rightCreateFile
	rightLinkSource
	rightLinkTarget
	rightOpen
	rightReaddir
	rightReadlink
	rightRenameSource
	rightRenameTarget
	rightPathStat
	rightPathSetSize
	rightPathSetTimes
	rightStat
	rightSetSize
	rightSetTimes
	rightSymlink
	rightRemoveDirectory
	rightUnlink
	rightPoll

	allRights rights = 1<<iota - 1 // without those on sockets
)

// Which rights mean something, by the kind of what is open.
const (
	fileRights = rightDatasync | rightRead | rightSeek | rightSetFlags | rightSync | rightTell | rightWrite |
		rightAdvise | rightAllocate | rightStat | rightSetSize | rightSetTimes | rightPoll
	folderRights = rightDatasync | rightSetFlags | rightSync | rightCreateDirectory | rightCreateFile |
		rightLinkSource | rightLinkTarget | rightOpen | rightReaddir | rightReadlink | rightRenameSource |
		rightRenameTarget | rightPathStat | rightPathSetSize | rightPathSetTimes | rightStat | rightSetTimes |
		rightSymlink | rightRemoveDirectory | rightUnlink
	stdinRights  = rightRead | rightSetFlags | rightSync | rightDatasync | rightStat | rightPoll
	stdoutRights = rightWrite | rightSetFlags | rightSync | rightDatasync | rightStat | rightPoll
)

// The flags of a descriptor. Those that ask for writes to be durable change nothing here, nor does
// non-blocking: nothing blocks for another guest's sake.
const (
	flagAppend = 1 << 0
	allFlags   = 1<<5 - 1
)

type kind uint8

const (
	closed kind = iota
	input
	output
	file
	folder
	stream // an input that OpenStream opened
)

// descriptor is one open thing.
type descriptor struct {
	kind             kind
	flags            uint16
	base, inheriting rights
	preopen          string // its name, when it was there from the start

	in   io.Reader // of an input, where nil is empty, or of a stream, where it is an io.ReadCloser
	out  io.Writer // of an output; nil discards
	dir  *vfs.Dir  // of a folder
	file vfs.File  // of a file
	off  int64     // where in it
}

func (d *descriptor) close() {
	switch d.kind {
	case file:
		d.file.Close()
	case folder:
		d.dir.Close()
	case stream:
		d.in.(io.Closer).Close()
	}
	*d = descriptor{}
}

// maxOpen bounds the descriptors of a guest that has no bound of its own.
const maxOpen = 4096

// table holds a guest's descriptors by their numbers.
type table struct {
	list    []descriptor
	low     int  // no number below it is free
	most    int  // descriptors
	refused bool // there were as many, and one more was asked for
}

// reset closes all. A long list is not kept: few guests need one.
func (t *table) reset() {
	for i := range t.list {
		t.list[i].close()
	}
	t.list, t.low, t.most, t.refused = t.list[:0], 0, maxOpen, false
	if cap(t.list) > 64 {
		t.list = nil
	}
}

// open takes the lowest free number. Pointers into the table are void after it.
func (t *table) open(d descriptor) (uint32, Errno) {
	for ; t.low < len(t.list); t.low++ {
		if t.list[t.low].kind == closed {
			t.list[t.low] = d
			t.low++
			return uint32(t.low - 1), vfs.ESUCCESS
		}
	}
	if len(t.list) >= t.most {
		t.refused = true
		return 0, vfs.EMFILE
	}
	t.list = append(t.list, d)
	t.low = len(t.list)
	return uint32(t.low - 1), vfs.ESUCCESS
}

// full reports whether open would fail.
func (t *table) full() bool {
	for ; t.low < len(t.list); t.low++ {
		if t.list[t.low].kind == closed {
			return false
		}
	}
	if len(t.list) < t.most {
		return false
	}
	t.refused = true
	return true
}

// get finds an open descriptor; nil when there is none.
func (t *table) get(fd uint64) *descriptor {
	if n := uint32(fd); uint64(n) < uint64(len(t.list)) && t.list[n].kind != closed {
		return &t.list[n]
	}
	return nil
}

func (t *table) close(fd uint64) Errno {
	d := t.get(fd)
	if d == nil {
		return vfs.EBADF
	}
	d.close()
	t.low = min(t.low, int(uint32(fd)))
	return vfs.ESUCCESS
}

// renumber moves from to to, closing what is there.
func (t *table) renumber(from, to uint64) Errno {
	src, dst := t.get(from), t.get(to)
	switch {
	case src == nil || dst == nil:
		return vfs.EBADF
	case src == dst:
		return vfs.ESUCCESS
	}
	dst.close()
	*dst = *src
	*src = descriptor{}
	t.low = min(t.low, int(uint32(from)))
	return vfs.ESUCCESS
}
