package vfs

import (
	"io/fs"
	"strings"
	"unicode/utf8"
)

// step is a folder or file on a path: a node, perhaps one that shows a mount; or, without a node, what
// a mount shows at sub.
type step struct {
	node  *node
	mount *mount
	sub   string
}

func (n *node) step() step { return step{n, n.mount, n.sub} }

func (s step) ino() uint64 {
	if s.node != nil {
		return s.node.ino
	}
	return s.mount.ino(s.sub)
}

// place is where a path leads. Its step is empty when the name is free.
type place struct {
	step
	parent step   // with name: where it is or would be. Not known for what lies in a mount
	name   string // "" for a folder reached through . or ..
	slash  bool   // the path ends in a slash: only a folder will do
}

func (p *place) free() bool { return p.node == nil && p.mount == nil }

// CheckPath refuses what is no path of a guest's: the rule that every name has to keep before any
// look-up.
func CheckPath(p string) Errno {
	switch {
	case p == "":
		return ENOENT
	case len(p) > MaxPath:
		return ENAMETOOLONG
	case !utf8.ValidString(p):
		return EILSEQ
	case strings.IndexByte(p, 0) >= 0:
		return EINVAL
	case p[0] == '/':
		return EPERM
	}
	return ESUCCESS
}

// walk looks a path up from a folder, and never above it. A link at its very end is followed only when
// follow is set.
func (f *FS) walk(base step, p string, follow bool) (place, Errno) {
	if errno := CheckPath(p); errno != ESUCCESS {
		return place{}, errno
	}
	var buf [8]step
	way := append(buf[:0], base) // the folders from base to here
	at := place{step: base}
	links := 0
	for rest := p; rest != ""; {
		name, tail, slash := strings.Cut(rest, "/")
		tail = strings.TrimLeft(tail, "/")
		here := way[len(way)-1]
		switch {
		case name == ".":
			at, rest = place{step: here}, tail
			continue
		case name == "..":
			if len(way) == 1 {
				return place{}, EPERM
			}
			way = way[:len(way)-1]
			at, rest = place{step: way[len(way)-1]}, tail
			continue
		case len(name) > maxName:
			return place{}, ENAMETOOLONG
		}
		var next step
		var kind Kind
		var target string
		var child *node
		if here.node != nil {
			child = here.node.children[name]
		}
		switch {
		case child != nil:
			next, kind, target = child.step(), child.kind, child.target
		case here.mount == nil && tail == "":
			return place{parent: here, name: name, slash: slash}, ESUCCESS
		case here.mount == nil:
			return place{}, ENOENT
		case !strings.Contains(rest, ".."):
			// The mount may have a quicker way than step by step.
			for sub := range strings.SplitSeq(rest, "/") {
				if len(sub) > maxName {
					return place{}, ENAMETOOLONG
				}
			}
			return place{
				step:  step{mount: here.mount, sub: joinSub(here.sub, rest)},
				slash: slash && (strings.HasSuffix(rest, "/") || strings.HasSuffix(rest, "/.")),
			}, ESUCCESS
		default:
			next = step{mount: here.mount, sub: joinSub(here.sub, name)}
			st, err := fs.Lstat(next.mount.fs, next.sub)
			if err != nil && tail == "" && f.errno(err) == ENOENT {
				return place{step: next, slash: slash}, ESUCCESS
			}
			if err != nil {
				return place{}, f.mountErrno(next, err)
			}
			if kind = kindOf(st.Mode()); kind == Symlink && (follow || slash) {
				if target, err = fs.ReadLink(next.mount.fs, next.sub); err != nil {
					return place{}, f.errno(err)
				}
			}
		}
		switch {
		case kind == Symlink && (follow || slash):
			if links++; links > maxLinks {
				return place{}, ELOOP
			}
			if strings.HasPrefix(target, "/") {
				return place{}, EPERM
			}
			if rest = target; slash {
				rest += "/" + tail
			}
			if len(rest) > 2*MaxPath {
				return place{}, ENAMETOOLONG
			}
			continue
		case kind == Folder:
			way = append(way, next)
		case tail != "":
			return place{}, ENOTDIR
		}
		at, rest = place{step: next, parent: here, name: name, slash: slash}, tail
	}
	if at.slash && at.node != nil && !at.node.isDir() {
		return place{}, ENOTDIR
	}
	return at, ESUCCESS
}
