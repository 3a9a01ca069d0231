package wasi

import (
	"context"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// folder finds the folder that a path starts from.
func (s *State) folder(fd uint64, need rights) (*descriptor, Errno) {
	d := s.table.get(fd)
	switch {
	case d == nil:
		return nil, vfs.EBADF
	case d.kind != folder:
		return nil, vfs.ENOTDIR
	case d.base&need != need:
		return nil, vfs.ENOTCAPABLE
	}
	return d, vfs.ESUCCESS
}

// readPath reads a path out of the guest's memory. Paths that are too long are cut a byte beyond what is
// allowed, for vfs to refuse.
func (s *State) readPath(ctx context.Context, mem api.Memory, ptr, n uint64) (string, Errno) {
	b := view(mem, ptr, n)
	if b == nil {
		return "", vfs.EFAULT
	}
	b = b[:min(len(b), vfs.MaxPath+1)]
	s.charge(ctx, costPath+uint64(len(b)))
	return string(b), vfs.ESUCCESS
}

// at finds a folder and a path.
func (s *State) at(ctx context.Context, mem api.Memory, fd, ptr, n uint64, need rights) (*descriptor, string, Errno) {
	d, errno := s.folder(fd, need)
	if errno != vfs.ESUCCESS {
		return nil, "", errno
	}
	p, errno := s.readPath(ctx, mem, ptr, n)
	return d, p, errno
}

// follows reads lookup flags: whether a link at the end of the path is followed.
func follows(flags uint64) (bool, Errno) {
	if uint32(flags)&^1 != 0 {
		return false, vfs.EINVAL
	}
	return flags&1 != 0, vfs.ESUCCESS
}

func pathCreateDirectory(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, name, errno := s.at(ctx, mem, p[0], p[1], p[2], rightCreateDirectory)
	if errno != vfs.ESUCCESS {
		return errno
	}
	return d.dir.Mkdir(name)
}

func pathFilestatGet(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, name, errno := s.at(ctx, mem, p[0], p[2], p[3], rightPathStat)
	if errno != vfs.ESUCCESS {
		return errno
	}
	follow, errno := follows(p[1])
	if errno != vfs.ESUCCESS {
		return errno
	}
	st, errno := d.dir.Stat(name, follow)
	if errno != vfs.ESUCCESS {
		return errno
	}
	return putStat(mem, p[4], st)
}

func pathFilestatSetTimes(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, name, errno := s.at(ctx, mem, p[0], p[2], p[3], rightPathSetTimes)
	if errno != vfs.ESUCCESS {
		return errno
	}
	follow, errno := follows(p[1])
	if errno != vfs.ESUCCESS {
		return errno
	}
	t, errno := s.times(p[4], p[5], p[6])
	if errno != vfs.ESUCCESS {
		return errno
	}
	return d.dir.Touch(name, follow, t)
}

func pathLink(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	from, name, errno := s.at(ctx, mem, p[0], p[2], p[3], rightLinkSource)
	if errno != vfs.ESUCCESS {
		return errno
	}
	to, newName, errno := s.at(ctx, mem, p[4], p[5], p[6], rightLinkTarget)
	if errno != vfs.ESUCCESS {
		return errno
	}
	follow, errno := follows(p[1])
	if errno != vfs.ESUCCESS {
		return errno
	}
	return from.dir.Link(name, follow, to.dir, newName)
}

// The flags of path_open.
const (
	openCreate = 1 << iota
	openDirectory
	openExclusive
	openTruncate
	allOpenFlags = 1<<iota - 1
)

func pathOpen(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, name, errno := s.at(ctx, mem, p[0], p[2], p[3], rightOpen)
	if errno != vfs.ESUCCESS {
		return errno
	}
	follow, errno := follows(p[1])
	flags, fdflags := uint32(p[4]), uint32(p[7])
	if errno != vfs.ESUCCESS || flags&^allOpenFlags != 0 || fdflags&^allFlags != 0 ||
		flags&(openCreate|openDirectory) == openCreate|openDirectory {
		return vfs.EINVAL
	}
	base, inheriting := rights(p[5])&allRights, rights(p[6])&allRights
	if base&^d.inheriting != 0 || inheriting&^d.inheriting != 0 {
		return vfs.ENOTCAPABLE
	}
	out := view(mem, p[8], 4)
	if out == nil {
		return vfs.EFAULT
	}
	var how vfs.How
	if follow {
		how |= vfs.Follow
	}
	if base&rightWrite != 0 {
		how |= vfs.Write
	}
	if flags&openDirectory != 0 {
		how |= vfs.Directory
	}
	if flags&openExclusive != 0 {
		how |= vfs.Exclusive
	}
	if flags&openCreate != 0 {
		if how |= vfs.Create; d.base&rightCreateFile == 0 {
			return vfs.ENOTCAPABLE
		}
	}
	if flags&openTruncate != 0 {
		if how |= vfs.Truncate; d.base&rightPathSetSize == 0 && base&rightWrite == 0 {
			return vfs.ENOTCAPABLE
		}
	}
	if s.table.full() {
		return vfs.EMFILE
	}
	f, dir, errno := d.dir.Open(name, how)
	if errno != vfs.ESUCCESS {
		return errno
	}
	opened := descriptor{kind: file, file: f, flags: uint16(fdflags), base: base & fileRights, inheriting: inheriting}
	if dir != nil {
		opened.kind, opened.dir, opened.base = folder, dir, base&folderRights
	}
	fd, errno := s.table.open(opened)
	le.PutUint32(out, fd)
	return errno
}

func pathReadlink(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, name, errno := s.at(ctx, mem, p[0], p[1], p[2], rightReadlink)
	if errno != vfs.ESUCCESS {
		return errno
	}
	buf, used := view(mem, p[3], p[4]), view(mem, p[5], 4)
	if buf == nil || used == nil {
		return vfs.EFAULT
	}
	target, errno := d.dir.Readlink(name)
	if errno != vfs.ESUCCESS {
		return errno
	}
	le.PutUint32(used, uint32(copy(buf, target)))
	return vfs.ESUCCESS
}

func pathRemoveDirectory(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, name, errno := s.at(ctx, mem, p[0], p[1], p[2], rightRemoveDirectory)
	if errno != vfs.ESUCCESS {
		return errno
	}
	return d.dir.Rmdir(name)
}

func pathRename(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	from, name, errno := s.at(ctx, mem, p[0], p[1], p[2], rightRenameSource)
	if errno != vfs.ESUCCESS {
		return errno
	}
	to, newName, errno := s.at(ctx, mem, p[3], p[4], p[5], rightRenameTarget)
	if errno != vfs.ESUCCESS {
		return errno
	}
	return from.dir.Rename(name, to.dir, newName)
}

func pathSymlink(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	target, errno := s.readPath(ctx, mem, p[0], p[1])
	if errno != vfs.ESUCCESS {
		return errno
	}
	d, name, errno := s.at(ctx, mem, p[2], p[3], p[4], rightSymlink)
	if errno != vfs.ESUCCESS {
		return errno
	}
	return d.dir.Symlink(target, name)
}

func pathUnlinkFile(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	d, name, errno := s.at(ctx, mem, p[0], p[1], p[2], rightUnlink)
	if errno != vfs.ESUCCESS {
		return errno
	}
	return d.dir.Unlink(name)
}
