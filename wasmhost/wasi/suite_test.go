package wasi

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// TestSuite has the cases of the official wasi-testsuite that are about preview 1's own functions,
// under the same names: what each demands, written anew against the functions themselves.
func TestSuite(t *testing.T) {
	for name, test := range map[string]func(*guest){
		"big_random_buf": bigRandomBuf, "clock_time_get": clockTimeGetCase, "close_preopen": closePreopen, "dangling_fd": danglingFd,
		"dangling_symlink": danglingSymlink, "dir_fd_op_failures": dirFdOpFailures, "directory_seek": directorySeek,
		"fd_advise": fdAdviseCase, "fd_fdstat_set_rights": fdFdstatSetRightsCase, "fd_filestat_set": fdFilestatSet,
		"fd_flags_set": fdFlagsSet, "fd_readdir": fdReaddirCase, "file_allocate": fileAllocate,
		"file_pread_pwrite": filePreadPwrite, "file_seek_tell": fileSeekTell, "file_truncation": fileTruncation,
		"file_unbuffered_write": fileUnbufferedWrite, "fstflags_validate": fstflagsValidate, "interesting_paths": interestingPaths,
		"isatty": isatty, "nofollow_errors": nofollowErrors, "overwrite_preopen": overwritePreopen, "path_exists": pathExists,
		"path_filestat": pathFilestat, "path_link": pathLinkCase, "path_open_create_existing": pathOpenCreateExisting,
		"path_open_dirfd_not_dir": pathOpenDirfdNotDir, "path_open_missing": pathOpenMissing, "path_open_nonblock": pathOpenNonblock,
		"path_open_preopen": pathOpenPreopen, "path_open_read_write": pathOpenReadWrite, "path_rename": pathRenameCase,
		"path_rename_dir_trailing_slashes": pathRenameDirTrailingSlashes, "path_symlink_trailing_slashes": pathSymlinkTrailingSlashes,
		"poll_oneoff_stdio": pollOneoffStdio, "readlink": readlinkCase, "remove_directory_trailing_slashes": removeDirectoryTrailingSlashes,
		"remove_nonempty_directory": removeNonemptyDirectory, "renumber": renumber, "sched_yield": schedYieldCase, "stdio": stdio,
		"symlink_create": symlinkCreate, "symlink_filestat": symlinkFilestat, "symlink_loop": symlinkLoop,
		"truncation_rights": truncationRights, "unlink_file_trailing_slashes": unlinkFileTrailingSlashes,
		"pwrite-with-append": pwriteWithAppend, "stat-dev-ino": statDevIno, "sock_shutdown": sockShutdown,
		"args_environ": argsEnviron, "proc_exit": procExitCase, "fd_write": fdWriteCase,
	} {
		t.Run(name, func(t *testing.T) {
			cfg := withInputs()
			cfg.Args, cfg.Env = []string{"prog", "one", "", "three words"}, []string{"A=1", "B=x=y"}
			cfg.Stdin = strings.NewReader("from stdin")
			test(newGuest(t, cfg))
		})
	}
}

func bigRandomBuf(g *guest) {
	g.ok(g.call("random_get", bufferAt, 1024))
	if strings.Trim(g.str(bufferAt, 1024), "\x00") == "" {
		g.t.Error("no random bytes")
	}
	g.ok(g.call("random_get", bufferAt, 0))
}

func clockTimeGetCase(g *guest) {
	last := uint64(0)
	for _, precision := range []uint64{1, 0, 0} {
		g.ok(g.call("clock_time_get", 1, precision, resultAt))
		if now := g.u64(resultAt); now < last {
			g.t.Errorf("%d after %d", now, last)
		} else {
			last = now
		}
	}
	for _, id := range []uint64{0, 1} {
		g.ok(g.call("clock_res_get", id, resultAt))
		if g.u64(resultAt) == 0 {
			g.t.Error("no resolution")
		}
	}
	g.want(g.call("clock_time_get", 2, 0, resultAt), vfs.ENOTSUP)
	g.want(g.call("clock_time_get", 9, 0, resultAt), vfs.EINVAL)
}

func closePreopen(g *guest) {
	dir := g.root()
	g.ok(g.call("fd_close", 3))
	st, errno := g.fdstat(dir)
	g.ok(errno)
	if st.filetype != vfs.Folder {
		g.t.Errorf("type %d", st.filetype)
	}
	_, errno = g.fdstat(3)
	g.want(errno, vfs.EBADF)
	g.want(g.call("fd_prestat_get", 3, resultAt), vfs.EBADF)
}

func danglingFd(g *guest) {
	dir := g.scratch()
	g.create(dir, "file")
	fd := g.open(dir, "file", 0, 0)
	g.ok(g.path("path_unlink_file", dir, "file"))
	g.create(dir, "file")
	g.ok(g.call("fd_close", fd))
	g.ok(g.path("path_unlink_file", dir, "file"))
	g.ok(g.path("path_create_directory", dir, "sub"))
	sub := g.open(dir, "sub", openDirectory, folderRights)
	g.ok(g.path("path_remove_directory", dir, "sub"))
	_, errno := g.openWith(sub, 0, "x", openCreate, 0, 0, 0)
	g.want(errno, vfs.ENOENT)
	g.ok(g.path("path_create_directory", dir, "sub"))
	g.ok(g.call("fd_close", sub))
}

func danglingSymlink(g *guest) {
	dir := g.scratch()
	g.ok(g.symlink("target", dir, "link"))
	_, errno := g.openWith(dir, 0, "link", openDirectory, 0, 0, 0)
	g.want(errno, vfs.ENOTDIR, vfs.ELOOP)
	_, errno = g.openWith(dir, 0, "link", 0, 0, 0, 0)
	g.want(errno, vfs.ELOOP)
	_, errno = g.openWith(dir, follow, "link", 0, 0, 0, 0)
	g.want(errno, vfs.ENOENT)
	_, errno = g.openWith(dir, follow, "link", openCreate, 0, 0, 0)
	g.ok(errno)
	_, errno = g.stat(dir, 0, "target")
	g.ok(errno)
}

func dirFdOpFailures(g *guest) {
	dir := g.root()
	st, errno := g.fstat(dir)
	g.ok(errno)
	if st.filetype != vfs.Folder {
		g.t.Errorf("type %d", st.filetype)
	}
	g.ok(g.call("fd_prestat_get", 3, resultAt))
	if g.u32(resultAt) != 0 || g.u32(resultAt+4) != 1 {
		g.t.Errorf("prestat %d, %d", g.u32(resultAt), g.u32(resultAt+4))
	}
	g.want(g.call("fd_prestat_dir_name", 3, bufferAt, 0), vfs.ENAMETOOLONG)
	g.ok(g.call("fd_prestat_dir_name", 3, bufferAt, 2))
	if got := g.str(bufferAt, 2); got != "/\x00" {
		g.t.Errorf("name %q", got)
	}
	_, errno = g.read(dir, 16)
	g.want(errno, vfs.EISDIR)
	_, errno = g.pread(dir, 16, 0)
	g.want(errno, vfs.EISDIR)
	_, errno = g.write(dir, "x")
	g.want(errno, vfs.EISDIR)
	_, errno = g.pwrite(dir, "x", 0)
	g.want(errno, vfs.EISDIR)
	for whence := range uint64(3) {
		_, errno = g.seek(dir, 0, whence)
		g.want(errno, vfs.EISDIR)
	}
	_, errno = g.tell(dir)
	g.want(errno, vfs.EISDIR)
	g.want(g.call("fd_allocate", dir, 0, 1), vfs.EISDIR)
	g.want(g.call("fd_filestat_set_size", dir, 0), vfs.EISDIR)
	g.want(g.call("fd_advise", dir, 0, 0, 0), vfs.EISDIR)
}

func directorySeek(g *guest) {
	dir := g.scratch()
	g.ok(g.path("path_create_directory", dir, "d"))
	fd := g.open(dir, "d", openDirectory, rightSeek)
	_, errno := g.seek(fd, 0, 1)
	g.want(errno, vfs.EISDIR)
	if st, _ := g.fdstat(fd); st.base&rightSeek != 0 {
		g.t.Error("a folder has the right to seek")
	}
}

func fdAdviseCase(g *guest) {
	dir := g.scratch()
	fd := g.open(dir, "f", openCreate, rw|rightAdvise|rightStat|rightSetSize|rightAllocate)
	size := func(want uint64) {
		g.t.Helper()
		if st, errno := g.fstat(fd); errno != 0 || st.size != want {
			g.t.Errorf("size %d, %v; want %d", st.size, errno, want)
		}
	}
	size(0)
	g.ok(g.call("fd_filestat_set_size", fd, 100))
	size(100)
	for advice := range uint64(6) {
		g.ok(g.call("fd_advise", fd, 10, 50, advice))
	}
	g.want(g.call("fd_advise", fd, 10, 50, 6), vfs.EINVAL)
	g.want(g.call("fd_advise", fd, 10, ^uint64(0), 0), vfs.EINVAL)
	size(100)
	g.ok(g.call("fd_allocate", fd, 100, 100))
	size(200)
	g.want(g.call("fd_advise", 1, 0, 0, 0), vfs.ESPIPE)
}

func fdFdstatSetRightsCase(g *guest) {
	dir := g.scratch()
	fd := g.open(dir, "f", openCreate, rw|rightSeek|rightTell)
	n, errno := g.write(fd, "\x00\x01\x02\x03")
	g.ok(errno)
	_, errno = g.seek(fd, 0, 0)
	g.ok(errno)
	if got, errno := g.read(fd, 4); n != 4 || got != "\x00\x01\x02\x03" || errno != 0 {
		g.t.Errorf("%d written, read %q, %v", n, got, errno)
	}
	st, _ := g.fdstat(fd)
	g.ok(g.call("fd_fdstat_set_rights", fd, uint64(st.base&^rw), uint64(st.inheriting)))
	if st, _ = g.fdstat(fd); st.base&rw != 0 || st.base&rightSeek == 0 {
		g.t.Errorf("rights %x", st.base)
	}
	_, errno = g.read(fd, 4)
	g.want(errno, vfs.ENOTCAPABLE)
	_, errno = g.write(fd, "x")
	g.want(errno, vfs.ENOTCAPABLE)
	g.want(g.call("fd_fdstat_set_rights", fd, uint64(st.base|rw), uint64(st.inheriting)), vfs.ENOTCAPABLE)
	g.want(g.call("fd_fdstat_set_rights", fd, uint64(st.base), uint64(allRights)), vfs.ENOTCAPABLE)
	// What is opened through a folder has no right that the folder does not hand on.
	narrow, errno := g.openWith(dir, 0, ".", openDirectory, rightOpen, rightRead, 0)
	g.ok(errno)
	_, errno = g.openWith(narrow, 0, "f", 0, rw, 0, 0)
	g.want(errno, vfs.ENOTCAPABLE)
	_, errno = g.openWith(narrow, 0, "f", 0, rightRead, 0, 0)
	g.ok(errno)
	_, errno = g.openWith(narrow, 0, "new", openCreate, rightRead, 0, 0)
	g.want(errno, vfs.ENOTCAPABLE)
	g.want(g.path("path_unlink_file", narrow, "f"), vfs.ENOTCAPABLE)
}

func fdFilestatSet(g *guest) {
	fd := g.open(g.scratch(), "f", openCreate, rw|rightStat|rightSetSize|rightSetTimes)
	st, errno := g.fstat(fd)
	g.ok(errno)
	g.ok(g.call("fd_filestat_set_size", fd, 100))
	g.ok(g.call("fd_filestat_set_times", fd, st.mtim-100, st.mtim-100, 4))
	after, _ := g.fstat(fd)
	if after.size != 100 || after.mtim != st.mtim-100 || after.atim != st.atim {
		g.t.Errorf("%+v, before %+v", after, st)
	}
	g.want(g.call("fd_filestat_set_size", fd, 1<<63), vfs.EFBIG)
	g.want(g.call("fd_filestat_set_size", fd, 1<<40), vfs.ENOSPC)
}

func fdFlagsSet(g *guest) {
	dir := g.scratch()
	fd, errno := g.openWith(dir, 0, "f", openCreate, rw|rightSeek|rightTell|rightSetFlags, 0, flagAppend)
	g.ok(errno)
	for i, c := range []string{"0", "1"} {
		g.seek(fd, 0, 0)
		g.write(fd, strings.Repeat(c, 100))
		g.seek(fd, int64(100*i), 0)
		if got, _ := g.read(fd, 100); got != strings.Repeat(c, 100) {
			g.t.Errorf("appended %q", got)
		}
	}
	g.ok(g.call("fd_fdstat_set_flags", fd, 0))
	g.seek(fd, 0, 0)
	g.write(fd, strings.Repeat("2", 100))
	g.seek(fd, 0, 0)
	if got, _ := g.read(fd, 300); got != strings.Repeat("2", 100)+strings.Repeat("1", 100) {
		g.t.Errorf("overwritten %q", got)
	}
	g.want(g.call("fd_fdstat_set_flags", fd, 1<<5), vfs.EINVAL)
}

func fdReaddirCase(g *guest) {
	dir := g.scratch()
	st, _ := g.fstat(dir)
	list, end := g.readdir(dir, 256, 0)
	if !end || len(list) != 2 || list[0].name != "." || list[0].kind != vfs.Folder || list[0].ino != st.ino || list[1].name != ".." || list[1].kind != vfs.Folder {
		g.t.Fatalf("an empty folder: %+v, %v", list, end)
	}
	fd := g.open(dir, "file", openCreate, rw|rightStat)
	st, _ = g.fstat(fd)
	list, _ = g.readdir(dir, 256, 0)
	if len(list) != 3 || list[2].name != "file" || list[2].kind != vfs.Regular || list[2].ino != st.ino {
		g.t.Fatalf("a folder with a file: %+v", list)
	}
	if list, end = g.readdir(dir, 256, list[1].next); !end || len(list) != 1 || list[0].name != "file" {
		g.t.Errorf("from a cookie: %+v", list)
	}
	if list, end = g.readdir(dir, 256, 1<<40); !end || len(list) != 0 {
		g.t.Errorf("from a cookie beyond: %+v", list)
	}
	g.ok(g.path("path_unlink_file", dir, "file"))
	const lots = 1000
	for i := range lots {
		g.create(dir, fmt.Sprintf("file.%d", i))
	}
	for _, size := range []int{40, 256, 4096} {
		var names []string
		for cookie := uint64(0); ; {
			list, end := g.readdir(dir, size, cookie)
			for _, e := range list {
				names = append(names, e.name)
				cookie = e.next
			}
			if end {
				break
			}
		}
		if len(names) != lots+2 || !slices.IsSorted(names) || len(slices.Compact(names)) != lots+2 {
			g.t.Errorf("%d names with a buffer of %d", len(names), size)
		}
	}
	// A list stays the same while it is read, whatever happens to the folder.
	first, _ := g.readdir(dir, 256, 0)
	g.ok(g.path("path_unlink_file", dir, "file.0"))
	second, _ := g.readdir(dir, 256, first[1].next)
	if second[0].name != "file.0" {
		g.t.Errorf("after a change: %+v", second[0])
	}
}

func fileAllocate(g *guest) {
	fd := g.open(g.scratch(), "f", openCreate, rw|rightAllocate|rightStat)
	for _, step := range []struct{ off, n, size uint64 }{{0, 100, 100}, {10, 10, 100}, {90, 20, 110}} {
		g.ok(g.call("fd_allocate", fd, step.off, step.n))
		if st, _ := g.fstat(fd); st.size != step.size {
			g.t.Errorf("size %d, want %d", st.size, step.size)
		}
	}
	g.want(g.call("fd_allocate", fd, 0, 0), vfs.EINVAL)
	g.want(g.call("fd_allocate", fd, 1<<63, 1<<63), vfs.EFBIG)
	g.want(g.call("fd_allocate", fd, 0, 1<<40), vfs.ENOSPC)
}

func filePreadPwrite(g *guest) {
	fd := g.open(g.scratch(), "f", openCreate, rw|rightSeek)
	n, errno := g.pwrite(fd, "\x00\x01\x02\x03", 0)
	if got, _ := g.pread(fd, 4, 0); n != 4 || errno != 0 || got != "\x00\x01\x02\x03" {
		g.t.Errorf("%d, %v, %q", n, errno, got)
	}
	ptr, count := g.vectors(2, 0, 2, 2) // more than there is
	g.ok(g.call("fd_pread", fd, ptr, count, 0, resultAt))
	if got := g.str(bufferAt, g.u32(resultAt)); got != "\x00\x01\x02\x03" {
		g.t.Errorf("into several buffers %q", got)
	}
	if got, _ := g.pread(fd, 4, 2); got != "\x02\x03" {
		g.t.Errorf("at 2: %q", got)
	}
	g.pwrite(fd, "\x01\x00", 2)
	if got, _ := g.pread(fd, 4, 0); got != "\x00\x01\x01\x00" {
		g.t.Errorf("after a write at 2: %q", got)
	}
	if at, _ := g.seek(fd, 0, 1); at != 0 {
		g.t.Errorf("the position moved to %d", at)
	}
	_, errno = g.pwrite(fd, "x", 1<<63)
	g.want(errno, vfs.EINVAL)
	_, errno = g.pwrite(fd, "x", 1<<62+1)
	g.want(errno, vfs.EFBIG)
	_, errno = g.pwrite(fd, "x", 1<<50)
	g.want(errno, vfs.ENOSPC)
	got, errno := g.pread(fd, 4, 1<<62)
	g.ok(errno)
	if got != "" {
		g.t.Errorf("far out: %q", got)
	}
}

func fileSeekTell(g *guest) {
	fd := g.open(g.scratch(), "f", openCreate, rw|rightSeek|rightTell)
	at := func(want uint64) {
		g.t.Helper()
		if got, errno := g.tell(fd); errno != 0 || got != want {
			g.t.Errorf("at %d, %v; want %d", got, errno, want)
		}
	}
	at(0)
	g.write(fd, strings.Repeat("x", 100))
	at(100)
	for _, step := range []struct {
		by          int64
		whence, end uint64
	}{{-50, 1, 50}, {0, 0, 0}, {1000, 1, 1000}, {-10, 2, 90}, {0, 2, 100}} {
		got, errno := g.seek(fd, step.by, step.whence)
		g.ok(errno)
		if got != step.end {
			g.t.Errorf("seek %+v: at %d", step, got)
		}
	}
	for _, bad := range []int64{-2000, -1 << 63} {
		_, errno := g.seek(fd, bad, 1)
		g.want(errno, vfs.EINVAL)
	}
	_, errno := g.seek(fd, 1<<63-1, 1)
	g.want(errno, vfs.EOVERFLOW)
	_, errno = g.seek(fd, 0, 3)
	g.want(errno, vfs.EINVAL)
	at(100)
	g.seek(fd, 0, 0)
	g.read(fd, 100)
	at(100)
	for _, stream := range []uint64{0, 1, 2} {
		_, errno = g.seek(stream, 0, 1)
		g.want(errno, vfs.ESPIPE)
	}
}

func fileTruncation(g *guest) {
	dir := g.scratch()
	fd := g.open(dir, "f", openCreate, rightWrite)
	g.write(fd, "this content will be truncated!")
	g.ok(g.call("fd_close", fd))
	fd = g.open(dir, "f", openCreate|openTruncate, rw)
	if got, errno := g.read(fd, 100); got != "" || errno != 0 {
		g.t.Errorf("%q, %v", got, errno)
	}
}

func fileUnbufferedWrite(g *guest) {
	dir := g.scratch()
	reader, writer := g.open(dir, "f", openCreate, rightRead), g.open(dir, "f", 0, rightWrite)
	g.write(writer, "\x01")
	if got, _ := g.read(reader, 1); got != "\x01" {
		g.t.Errorf("read %q", got)
	}
}

func fstflagsValidate(g *guest) {
	fd := g.open(g.scratch(), "f", openCreate, rightRead|rightSetTimes)
	for _, flags := range []uint64{4 | 8, 1 | 2, 16} {
		g.want(g.call("fd_filestat_set_times", fd, 100, 200, flags), vfs.EINVAL)
	}
	g.ok(g.call("fd_filestat_set_times", fd, 100, 200, 2|8))
}

func interestingPaths(g *guest) {
	dir := g.scratch()
	g.ok(g.path("path_create_directory", dir, "dir"))
	g.ok(g.path("path_create_directory", dir, "dir/nested"))
	g.create(dir, "dir/nested/file")
	for _, test := range []struct {
		path string
		want []Errno
	}{
		{"dir/.//nested/../../dir/nested/../nested///./file", []Errno{0}},
		{"dir/nested/", []Errno{0}}, {"dir/nested///", []Errno{0}}, {"dir/nested/.", []Errno{0}}, {"dir/nested/..", []Errno{0}},
		{"/dir/nested/file", []Errno{vfs.EPERM, vfs.ENOTCAPABLE}}, {"/", []Errno{vfs.EPERM}},
		{"dir/nested/file\x00", []Errno{vfs.EINVAL, vfs.EILSEQ, vfs.ENOENT}},
		{"dir/nested/file/", []Errno{vfs.ENOTDIR}}, {"dir/nested/file///", []Errno{vfs.ENOTDIR}}, {"dir/nested/file/.", []Errno{vfs.ENOTDIR}},
		{"dir/nested/file/..", []Errno{vfs.ENOTDIR}}, {"dir/nested/file/x", []Errno{vfs.ENOTDIR}}, {"dir/none/../nested", []Errno{vfs.ENOENT}},
		{"dir/nested/../../../dir.cleanup/dir/nested/file", []Errno{vfs.EPERM, vfs.ENOTCAPABLE}}, {"..", []Errno{vfs.EPERM}},
		{"", []Errno{vfs.ENOENT}}, {"dir/\xff", []Errno{vfs.EILSEQ}},
		{strings.Repeat("x", 256), []Errno{vfs.ENAMETOOLONG}}, {strings.Repeat("./", 2100), []Errno{vfs.ENAMETOOLONG}},
	} {
		_, errno := g.openWith(dir, 0, test.path, 0, 0, 0, 0)
		if !slices.Contains(test.want, errno) {
			g.t.Errorf("%.60q: %v, want %v", test.path, errno, test.want)
		}
	}
}

func isatty(g *guest) {
	g.create(g.scratch(), "f")
	for _, fd := range []uint64{0, 1, 2} {
		if st, errno := g.fdstat(fd); errno != 0 || st.filetype == 2 {
			g.t.Errorf("%d: type %d, %v: is it a terminal?", fd, st.filetype, errno)
		}
	}
}

func nofollowErrors(g *guest) {
	dir := g.scratch()
	g.ok(g.path("path_create_directory", dir, "target"))
	g.ok(g.symlink("target", dir, "link"))
	open := func(lookup, oflags uint64, want ...Errno) {
		g.t.Helper()
		_, errno := g.openWith(dir, lookup, "link", oflags, 0, 0, 0)
		g.want(errno, want...)
	}
	open(0, openDirectory, vfs.ELOOP, vfs.ENOTDIR)
	open(0, 0, vfs.ELOOP)
	open(follow, openDirectory, 0)
	g.ok(g.path("path_unlink_file", dir, "link"))
	g.ok(g.path("path_remove_directory", dir, "target"))
	g.create(dir, "target")
	g.ok(g.symlink("target", dir, "link"))
	open(0, openDirectory, vfs.ELOOP, vfs.ENOTDIR)
	open(0, 0, vfs.ELOOP)
	open(follow, openDirectory, vfs.ENOTDIR)
	open(2, 0, vfs.EINVAL)
}

func overwritePreopen(g *guest) {
	dir := g.scratch()
	old, _ := g.fstat(dir)
	g.ok(g.call("fd_renumber", dir, 3))
	st, errno := g.fstat(3)
	g.ok(errno)
	if st.dev != old.dev || st.ino != old.ino {
		g.t.Errorf("%+v, want %+v", st, old)
	}
	_, errno = g.fdstat(dir)
	g.want(errno, vfs.EBADF)
	g.ok(g.call("fd_close", 3))
}

func pathExists(g *guest) {
	dir := g.scratch()
	g.ok(g.path("path_create_directory", dir, "subdir"))
	g.create(dir, "subdir/file")
	g.ok(g.symlink("subdir/file", dir, "link1"))
	g.ok(g.symlink("subdir", dir, "link2"))
	for _, test := range []struct {
		name         string
		link, target vfs.Kind
	}{
		{"subdir", vfs.Folder, vfs.Folder}, {"subdir/file", vfs.Regular, vfs.Regular}, {"link1", vfs.Symlink, vfs.Regular},
		{"link2", vfs.Symlink, vfs.Folder}, {"link2/", vfs.Folder, vfs.Folder}, {"link2/file", vfs.Regular, vfs.Regular},
	} {
		for lookup, want := range []vfs.Kind{test.link, test.target} {
			if st, errno := g.stat(dir, uint64(lookup), test.name); errno != 0 || st.filetype != want {
				g.t.Errorf("%s, lookup %d: %d, %v; want %d", test.name, lookup, st.filetype, errno, want)
			}
		}
	}
}

func pathFilestat(g *guest) {
	dir := g.scratch()
	fd, errno := g.openWith(dir, 0, "file", openCreate, rw|rightPathStat, 0, flagAppend|1<<4)
	g.ok(errno)
	if st, _ := g.fdstat(fd); st.flags != flagAppend|1<<4 {
		g.t.Errorf("flags %x", st.flags)
	}
	st, _ := g.stat(dir, 0, "file")
	if st.size != 0 || st.nlink != 1 {
		g.t.Errorf("%+v", st)
	}
	g.ok(g.setTimes(dir, 0, "file", 0, st.mtim-100, 4))
	g.want(g.setTimes(dir, 0, "file", 0, 7, 4|8), vfs.EINVAL)
	g.want(g.setTimes(dir, 0, "file", 0, 7, 1|2), vfs.EINVAL)
	if after, _ := g.stat(dir, 0, "file"); after.mtim != st.mtim-100 {
		g.t.Errorf("%+v", after)
	}
	g.want(g.setTimes(3, 0, "in/a.txt", 0, 0, 2), vfs.EROFS)
	g.want(g.setTimes(3, 0, "in/none", 0, 0, 2), vfs.ENOENT)
}

func pathLinkCase(g *guest) {
	dir := g.scratch()
	const r = rightRead | rightLinkSource | rightLinkTarget | rightStat | rightOpen | rightUnlink
	fd := g.open(dir, "file", openCreate, r)
	same := func(other uint64) {
		g.t.Helper()
		a, _ := g.fstat(fd)
		b, _ := g.fstat(other)
		c, _ := g.fdstat(fd)
		d, _ := g.fdstat(other)
		if a != b || c != d || a.nlink != 2 {
			g.t.Errorf("%+v and %+v, %+v and %+v", a, b, c, d)
		}
	}
	g.ok(g.link(dir, 0, "file", dir, "link"))
	same(g.open(dir, "link", 0, r))
	g.ok(g.path("path_unlink_file", dir, "link"))
	g.ok(g.path("path_create_directory", dir, "subdir"))
	sub := g.open(dir, "subdir", openDirectory, folderRights)
	g.ok(g.link(dir, 0, "file", sub, "link"))
	same(g.open(sub, "link", 0, r))
	g.ok(g.path("path_unlink_file", sub, "link"))
	g.create(dir, "link")
	g.want(g.link(dir, 0, "file", dir, "link"), vfs.EEXIST)
	g.want(g.link(dir, 0, "file", dir, "file"), vfs.EEXIST)
	g.want(g.link(dir, 0, "file", dir, "subdir"), vfs.EEXIST)
	g.want(g.link(dir, 0, "subdir", dir, "link2"), vfs.EPERM)
	g.want(g.link(dir, 0, "file", dir, "link2/"), vfs.ENOENT)
	g.want(g.link(dir, 0, "none", dir, "link2"), vfs.ENOENT)
	g.want(g.link(3, 0, "in/a.txt", dir, "link2"), vfs.EROFS)
	g.want(g.link(dir, 0, "file", 3, "in/link2"), vfs.EROFS)
	for _, target := range []string{"target", "symlink"} { // dangling, and a loop
		g.ok(g.symlink(target, dir, "symlink"))
		g.ok(g.link(dir, 0, "symlink", dir, "hard"))
		g.ok(g.path("path_unlink_file", dir, "symlink"))
		if got, errno := g.readlink(dir, "hard", 100); errno != 0 || got != target {
			g.t.Errorf("%q, %v", got, errno)
		}
		g.ok(g.path("path_unlink_file", dir, "hard"))
	}
	g.ok(g.symlink("target", dir, "symlink"))
	g.want(g.link(dir, 0, "file", dir, "symlink"), vfs.EEXIST)
	g.want(g.link(dir, follow, "symlink", dir, "link2"), vfs.EINVAL, vfs.ENOENT)
}

func pathOpenCreateExisting(g *guest) {
	dir := g.scratch()
	g.create(dir, "file")
	g.ok(g.symlink("none", dir, "link"))
	for _, name := range []string{"file", ".", "link"} {
		_, errno := g.openWith(dir, follow, name, openCreate|openExclusive, 0, 0, 0)
		g.want(errno, vfs.EEXIST)
	}
	_, errno := g.openWith(dir, 0, "new", openCreate|openDirectory, 0, 0, 0)
	g.want(errno, vfs.EINVAL)
	_, errno = g.openWith(dir, 0, "new/", openCreate, 0, 0, 0)
	g.want(errno, vfs.EISDIR)
	_, errno = g.openWith(dir, 0, ".", openCreate, 0, 0, 0)
	g.want(errno, vfs.EISDIR)
}

func pathOpenDirfdNotDir(g *guest) {
	fd := g.open(g.scratch(), "file", openCreate, 0)
	_, errno := g.openWith(fd, 0, "foo", openCreate, 0, 0, 0)
	g.want(errno, vfs.ENOTDIR)
	_, errno = g.openWith(1, 0, "foo", openCreate, 0, 0, 0)
	g.want(errno, vfs.ENOTDIR)
	_, errno = g.openWith(99, 0, "foo", openCreate, 0, 0, 0)
	g.want(errno, vfs.EBADF)
	g.want(g.call("fd_readdir", fd, bufferAt, 100, 0, resultAt), vfs.ENOTDIR)
}

func pathOpenMissing(g *guest) {
	_, errno := g.openWith(g.scratch(), 0, "file", 0, 0, 0, 0)
	g.want(errno, vfs.ENOENT)
	_, errno = g.openWith(3, 0, "in/none", 0, rightRead, 0, 0)
	g.want(errno, vfs.ENOENT)
	_, errno = g.openWith(3, 0, "in/a.txt/x", 0, rightRead, 0, 0)
	g.want(errno, vfs.ENOTDIR)
	_, errno = g.openWith(3, 0, "in/a.txt/", 0, rightRead, 0, 0)
	g.want(errno, vfs.ENOTDIR)
}

func pathOpenNonblock(g *guest) {
	_, errno := g.openWith(3, 0, ".", 0, 0, 0, 1<<2)
	g.ok(errno)
	_, errno = g.openWith(3, 0, ".", 0, 0, 0, 1<<5)
	g.want(errno, vfs.EINVAL)
}

func pathOpenPreopen(g *guest) {
	st, errno := g.fdstat(3)
	g.ok(errno)
	if st.base&(rightSetSize|rightSeek|rightRead|rightWrite) != 0 || st.base&^folderRights != 0 || st.inheriting != allRights {
		g.t.Errorf("%+v", st)
	}
	for _, test := range []struct {
		oflags           uint64
		base, inheriting rights
		want             Errno
	}{
		{0, st.base, st.inheriting, 0}, {0, 0, 0, 0}, {openDirectory, 0, 0, 0}, {openDirectory, rightRead, 0, 0},
		{openDirectory, rw, 0, vfs.EISDIR}, {0, rw, 0, vfs.EISDIR}, {openTruncate, 0, 0, vfs.EISDIR}, {1 << 4, 0, 0, vfs.EINVAL},
	} {
		if _, errno := g.openWith(3, 0, ".", test.oflags, test.base, test.inheriting, 0); errno != test.want {
			g.t.Errorf("%+v: %v", test, errno)
		}
	}
}

func pathOpenReadWrite(g *guest) {
	dir := g.scratch()
	g.create(dir, "f")
	r, w, both := g.open(dir, "f", 0, rightRead), g.open(dir, "f", 0, rightWrite), g.open(dir, "f", 0, rw|rightStat)
	if got, errno := g.read(r, 100); got != "" || errno != 0 {
		g.t.Errorf("%q, %v", got, errno)
	}
	_, errno := g.write(r, "x")
	g.want(errno, vfs.EBADF, vfs.ENOTCAPABLE)
	_, errno = g.read(w, 1)
	g.want(errno, vfs.EBADF, vfs.ENOTCAPABLE)
	if n, errno := g.write(w, strings.Repeat("1", 50)); n != 50 || errno != 0 {
		g.t.Errorf("%d, %v", n, errno)
	}
	if got, _ := g.read(both, 100); len(got) != 50 {
		g.t.Errorf("%q", got)
	}
	g.write(both, strings.Repeat("2", 25))
	if st, _ := g.fstat(both); st.size != 75 {
		g.t.Errorf("size %d", st.size)
	}
	_, errno = g.openWith(3, 0, "in/a.txt", 0, rw, 0, 0)
	g.want(errno, vfs.EROFS)
	_, errno = g.openWith(3, 0, "in/a.txt", openTruncate, 0, 0, 0)
	g.want(errno, vfs.EROFS)
	_, errno = g.openWith(3, 0, "in/new", openCreate, 0, 0, 0)
	g.want(errno, vfs.EROFS)
	in := g.open(3, "in/a.txt", 0, rightRead|rightSeek)
	if got, _ := g.read(in, 100); got != "input a" {
		g.t.Errorf("a mounted file: %q", got)
	}
	if got, _ := g.pread(in, 3, 6); got != "a" {
		g.t.Errorf("a mounted file, at 6: %q", got)
	}
}

func pathRenameCase(g *guest) {
	dir := g.scratch()
	missing := func(name string) {
		g.t.Helper()
		_, errno := g.stat(dir, 0, name)
		g.want(errno, vfs.ENOENT)
	}
	g.ok(g.path("path_create_directory", dir, "source"))
	g.ok(g.rename(dir, "source", dir, "target"))
	missing("source")
	g.ok(g.path("path_create_directory", dir, "source"))
	g.ok(g.rename(dir, "source", dir, "target"))
	missing("source")
	g.ok(g.path("path_create_directory", dir, "source"))
	g.create(dir, "target/file")
	g.want(g.rename(dir, "source", dir, "target"), vfs.ENOTEMPTY)
	g.want(g.rename(dir, "source", dir, "target/file"), vfs.ENOTDIR)
	g.want(g.rename(dir, "source", dir, "source/x"), vfs.EINVAL)
	g.ok(g.path("path_unlink_file", dir, "target/file"))
	g.ok(g.path("path_remove_directory", dir, "source"))
	g.ok(g.path("path_remove_directory", dir, "target"))
	g.create(dir, "source")
	g.ok(g.rename(dir, "source", dir, "target"))
	missing("source")
	g.create(dir, "source")
	g.ok(g.rename(dir, "source", dir, "target"))
	missing("source")
	g.create(dir, "source")
	g.ok(g.path("path_create_directory", dir, "dir"))
	g.want(g.rename(dir, "source", dir, "dir"), vfs.EISDIR)
	g.want(g.rename(dir, "source", dir, "new/"), vfs.ENOTDIR)
	g.want(g.rename(dir, "none", dir, "new"), vfs.ENOENT)
	g.ok(g.link(dir, 0, "source", dir, "same"))
	g.ok(g.rename(dir, "source", dir, "same")) // two names of one file: nothing happens
	_, errno := g.stat(dir, 0, "source")
	g.ok(errno)
}

func pathRenameDirTrailingSlashes(g *guest) {
	dir := g.scratch()
	g.ok(g.path("path_create_directory", dir, "source"))
	g.ok(g.rename(dir, "source/", dir, "target"))
	g.ok(g.rename(dir, "target", dir, "source/"))
	g.ok(g.rename(dir, "source/", dir, "target/"))
	g.ok(g.rename(dir, "target", dir, "source"))
	g.ok(g.path("path_remove_directory", dir, "source"))
}

func pathSymlinkTrailingSlashes(g *guest) {
	dir := g.scratch()
	g.want(g.symlink("source", dir, "target/"), vfs.ENOENT)
	g.ok(g.symlink("source", dir, "target"))
	g.ok(g.path("path_unlink_file", dir, "target"))
	g.ok(g.path("path_create_directory", dir, "target"))
	g.want(g.symlink("source", dir, "target/"), vfs.EEXIST)
	g.want(g.symlink("source", dir, "target"), vfs.EEXIST)
	g.ok(g.path("path_remove_directory", dir, "target"))
	g.create(dir, "target")
	g.want(g.symlink("source", dir, "target/"), vfs.ENOTDIR, vfs.EEXIST)
	g.want(g.symlink("source", dir, "target"), vfs.EEXIST)
}

// subscribe writes a subscription.
func (g *guest) subscribe(i int, user uint64, kind byte, idOrFd uint32, timeout uint64, flags uint16) {
	at := uint32(bufferAt + i*subscriptionSize)
	b, _ := g.mem.Read(at, subscriptionSize)
	clear(b)
	le.PutUint64(b, user)
	b[8] = kind
	le.PutUint32(b[16:], idOrFd)
	le.PutUint64(b[24:], timeout)
	le.PutUint16(b[40:], flags)
}

type pollEvent struct {
	user  uint64
	errno Errno
	kind  byte
}

func (g *guest) poll(n int) (events []pollEvent, errno Errno) {
	g.t.Helper()
	const out = 3 << 16
	errno = g.call("poll_oneoff", bufferAt, out, uint64(n), resultAt)
	for i := range g.u32(resultAt) {
		b, _ := g.mem.Read(out+i*eventSize, eventSize)
		events = append(events, pollEvent{le.Uint64(b), Errno(le.Uint16(b[8:])), b[10]})
	}
	return events, errno
}

func pollOneoffStdio(g *guest) {
	const clock, in, out, errOut = 0x123456780, 0x876543210, 1, 2
	g.subscribe(0, clock, eventClock, 1, 200e6, 0)
	g.subscribe(1, in, eventRead, 0, 0, 0)
	events, errno := g.poll(2)
	g.ok(errno)
	if want := []pollEvent{{in, 0, eventRead}}; !slices.Equal(events, want) {
		g.t.Errorf("%+v, want %+v", events, want)
	}
	g.subscribe(0, out, eventWrite, 1, 0, 0)
	g.subscribe(1, errOut, eventWrite, 2, 0, 0)
	g.subscribe(2, clock, eventClock, 1, 200e6, 0)
	g.subscribe(3, 9, eventRead, 99, 0, 0)
	g.subscribe(4, 10, eventRead, 1, 0, 0)
	g.subscribe(5, 11, eventClock, 7, 0, 0)
	events, errno = g.poll(6)
	g.ok(errno)
	if want := []pollEvent{{out, 0, eventWrite}, {errOut, 0, eventWrite}, {9, vfs.EBADF, eventRead}, {10, vfs.ENOTCAPABLE, eventRead}, {11, vfs.EINVAL, eventClock}}; !slices.Equal(events, want) {
		g.t.Errorf("%+v, want %+v", events, want)
	}
	// Without descriptors, the first clock comes after exactly its time.
	g.subscribe(0, 1, eventClock, 1, 5e9, 0)
	g.subscribe(1, 2, eventClock, 0, 3e9, 0)
	g.ok(g.call("clock_time_get", 1, 0, resultAt))
	before := g.u64(resultAt) + uint64(tick)
	events, errno = g.poll(2)
	g.ok(errno)
	if want := []pollEvent{{2, 0, eventClock}}; !slices.Equal(events, want) {
		g.t.Errorf("%+v, want %+v", events, want)
	}
	g.ok(g.call("clock_time_get", 1, 0, resultAt))
	if slept := g.u64(resultAt) - before; slept != 3e9 {
		g.t.Errorf("slept %d", slept)
	}
	g.ok(g.call("clock_time_get", 0, 0, resultAt))
	g.subscribe(0, 3, eventClock, 0, g.u64(resultAt)+10e9, absolute)
	g.subscribe(1, 4, eventClock, 0, 1, absolute) // long past
	if events, _ = g.poll(2); len(events) != 1 || events[0].user != 4 {
		g.t.Errorf("%+v, want what is past", events)
	}
	if events, _ = g.poll(1); len(events) != 1 || events[0].user != 3 {
		g.t.Errorf("%+v, want the one clock", events)
	}
	g.subscribe(0, 5, eventClock, 1, ^uint64(0), 0)
	if events, _ = g.poll(1); len(events) != 1 {
		g.t.Errorf("%+v, want the end of time", events)
	}
	g.want(g.call("poll_oneoff", bufferAt, 3<<16, 0, resultAt), vfs.EINVAL)
	g.want(g.call("poll_oneoff", bufferAt, 3<<16, 1<<20, resultAt), vfs.EINVAL)
	g.subscribe(0, 5, 3, 1, 0, 0)
	_, errno = g.poll(1)
	g.want(errno, vfs.EINVAL)
}

func readlinkCase(g *guest) {
	dir := g.scratch()
	g.ok(g.symlink("target", dir, "link"))
	for size, want := range map[uint64]string{10: "target", 6: "target", 4: "targ", 0: ""} {
		if got, errno := g.readlink(dir, "link", size); got != want || errno != 0 {
			g.t.Errorf("%q, %v; want %q", got, errno, want)
		}
	}
	g.create(dir, "file")
	_, errno := g.readlink(dir, "file", 10)
	g.want(errno, vfs.EINVAL)
	_, errno = g.readlink(3, "in/a.txt", 10)
	g.want(errno, vfs.EINVAL)
}

func removeDirectoryTrailingSlashes(g *guest) {
	dir := g.scratch()
	for _, name := range []string{"d", "d/"} {
		g.ok(g.path("path_create_directory", dir, name))
		g.ok(g.path("path_remove_directory", dir, name))
	}
	g.create(dir, "file")
	g.want(g.path("path_remove_directory", dir, "file"), vfs.ENOTDIR)
	g.want(g.path("path_remove_directory", dir, "file/"), vfs.ENOTDIR)
	g.want(g.path("path_remove_directory", dir, "."), vfs.EINVAL)
	g.want(g.path("path_create_directory", dir, "file"), vfs.EEXIST)
}

func removeNonemptyDirectory(g *guest) {
	dir := g.scratch()
	g.ok(g.path("path_create_directory", dir, "dir"))
	g.ok(g.path("path_create_directory", dir, "dir/nested"))
	g.want(g.path("path_remove_directory", dir, "dir"), vfs.ENOTEMPTY)
	g.ok(g.path("path_remove_directory", dir, "dir/nested"))
	g.ok(g.path("path_remove_directory", dir, "dir"))
}

func renumber(g *guest) {
	dir := g.scratch()
	from, to := g.open(dir, "file1", openCreate, rw), g.open(dir, "file2", openCreate, rw)
	before, _ := g.fdstat(from)
	g.ok(g.call("fd_renumber", from, to))
	g.want(g.call("fd_close", from), vfs.EBADF)
	if after, errno := g.fdstat(to); errno != 0 || after != before {
		g.t.Errorf("%+v, %v; want %+v", after, errno, before)
	}
	g.want(g.call("fd_renumber", to, from), vfs.EBADF)
	g.ok(g.call("fd_renumber", to, to))
	g.ok(g.call("fd_close", to))
	if next := g.open(dir, "file1", 0, 0); next != from {
		g.t.Errorf("the lowest free number is %d, got %d", from, next)
	}
}

func schedYieldCase(g *guest) { g.ok(g.call("sched_yield")) }

func stdio(g *guest) {
	dir := g.scratch()
	for from := range uint64(3) {
		to := g.open(dir, "file", openCreate, 0)
		g.ok(g.call("fd_renumber", from, to))
		_, errno := g.fdstat(to)
		g.ok(errno)
		_, errno = g.fdstat(from)
		g.want(errno, vfs.EBADF)
		g.ok(g.path("path_unlink_file", dir, "file"))
	}
}

func symlinkCreate(g *guest) {
	dir := g.scratch()
	g.create(dir, "file")
	g.ok(g.path("path_create_directory", dir, "dir"))
	for target, oflags := range map[string]uint64{"file": 0, "dir": openDirectory} {
		g.ok(g.symlink(target, dir, "link"))
		_, errno := g.openWith(dir, follow, "link", oflags, 0, 0, 0)
		g.ok(errno)
		g.ok(g.path("path_unlink_file", dir, "link"))
	}
	g.want(g.symlink("/", dir, "link"), vfs.EPERM)
	g.want(g.symlink("/in/a.txt", dir, "link"), vfs.EPERM)
	g.want(g.symlink("", dir, "link"), vfs.ENOENT)
	g.want(g.symlink(strings.Repeat("x", 5000), dir, "link"), vfs.ENAMETOOLONG)
	g.want(g.symlink("x", 3, "in/link"), vfs.EROFS)
	g.want(g.symlink("x", 3, "link"), vfs.EROFS)
	// A link leads no further than the folder that the look-up begins in.
	g.ok(g.symlink("../../in/a.txt", dir, "up"))
	_, errno := g.openWith(dir, follow, "up", 0, rightRead, 0, 0)
	g.want(errno, vfs.EPERM)
	_, errno = g.openWith(3, follow, "tmp/dir.cleanup/up", 0, rightRead, 0, 0)
	g.ok(errno)
	g.ok(g.symlink("../../../../in/a.txt", dir, "far"))
	_, errno = g.openWith(3, follow, "tmp/dir.cleanup/far", 0, rightRead, 0, 0)
	g.want(errno, vfs.EPERM)
}

func symlinkFilestat(g *guest) {
	dir := g.scratch()
	g.create(dir, "file")
	file, _ := g.stat(dir, 0, "file")
	g.ok(g.symlink("file", dir, "link"))
	link, _ := g.stat(dir, 0, "link")
	if link.filetype != vfs.Symlink || link.size != 4 {
		g.t.Errorf("%+v", link)
	}
	g.ok(g.setTimes(dir, 0, "link", 0, link.mtim-200, 4))
	after, _ := g.stat(dir, 0, "link")
	same, _ := g.stat(dir, 0, "file")
	if after.mtim != link.mtim-200 || same.mtim != file.mtim {
		g.t.Errorf("link %+v, file %+v", after, same)
	}
	if st, _ := g.stat(dir, follow, "link"); st != same {
		g.t.Errorf("%+v, want %+v", st, same)
	}
	g.ok(g.setTimes(dir, follow, "link", 0, 12345, 4))
	if st, _ := g.stat(dir, 0, "file"); st.mtim != 12345 {
		g.t.Errorf("%+v", st)
	}
}

func symlinkLoop(g *guest) {
	dir := g.scratch()
	g.ok(g.symlink("loop", dir, "loop"))
	g.ok(g.symlink("b", dir, "a"))
	g.ok(g.symlink("a", dir, "b"))
	for _, name := range []string{"loop", "a", "a/x"} {
		for lookup := range uint64(2) {
			_, errno := g.openWith(dir, lookup, name, 0, 0, 0, 0)
			g.want(errno, vfs.ELOOP)
		}
	}
}

func truncationRights(g *guest) {
	dir := g.scratch()
	g.create(dir, "file")
	st, _ := g.fdstat(dir)
	if st.filetype != vfs.Folder || st.flags != 0 || st.base&rightSetSize != 0 || st.base&rightPathSetSize == 0 {
		g.t.Errorf("%+v", st)
	}
	truncate := func(want ...Errno) {
		g.t.Helper()
		_, errno := g.openWith(dir, 0, "file", openTruncate, 0, 0, 0)
		g.want(errno, want...)
	}
	truncate(0)
	g.ok(g.call("fd_fdstat_set_rights", dir, uint64(st.base), uint64(st.inheriting&^rightSetSize)))
	truncate(0)
	g.ok(g.call("fd_fdstat_set_rights", dir, uint64(st.base&^rightPathSetSize), uint64(st.inheriting&^rightSetSize)))
	if st, _ = g.fdstat(dir); st.base&rightPathSetSize != 0 {
		g.t.Error("the right is still there")
	}
	truncate(vfs.EPERM, vfs.ENOTCAPABLE)
}

func unlinkFileTrailingSlashes(g *guest) {
	dir := g.scratch()
	g.ok(g.path("path_create_directory", dir, "dir"))
	g.want(g.path("path_unlink_file", dir, "dir"), vfs.EISDIR)
	g.want(g.path("path_unlink_file", dir, "dir/"), vfs.EISDIR)
	g.create(dir, "file")
	g.want(g.path("path_unlink_file", dir, "file/"), vfs.ENOTDIR)
	g.ok(g.path("path_unlink_file", dir, "file"))
	g.want(g.path("path_unlink_file", 3, "in/a.txt"), vfs.EROFS)
	g.want(g.path("path_unlink_file", 3, "in/none"), vfs.ENOENT)
	g.want(g.path("path_remove_directory", 3, "tmp"), vfs.EPERM)
}

func pwriteWithAppend(g *guest) {
	fd, errno := g.openWith(g.scratch(), 0, "f", openCreate|openTruncate, rightWrite|rightSeek|rightTell, 0, flagAppend)
	g.ok(errno)
	g.write(fd, "xx")
	g.seek(fd, 0, 0)
	g.write(fd, "xx")
	if at, _ := g.tell(fd); at != 4 {
		g.t.Errorf("at %d", at)
	}
	if n, errno := g.pwrite(fd, "yyy", 0); n != 3 || errno != 0 {
		g.t.Errorf("%d, %v", n, errno)
	}
	if at, _ := g.tell(fd); at != 4 {
		g.t.Errorf("fd_pwrite moved the position to %d", at)
	}
	if end, _ := g.seek(fd, 0, 2); end != 4 && end != 7 {
		g.t.Errorf("the file ends at %d", end)
	}
}

func statDevIno(g *guest) {
	seen := map[[2]uint64]string{}
	g.create(g.scratch(), "f")
	for _, name := range []string{".", "in", "in/a.txt", "in/d", "in/d/b.txt", "out", "tmp", "tmp/dir.cleanup", "tmp/dir.cleanup/f"} {
		st, errno := g.stat(3, 0, name)
		g.ok(errno)
		if other := seen[[2]uint64{st.dev, st.ino}]; other != "" {
			g.t.Errorf("%s and %s look the same", name, other)
		}
		seen[[2]uint64{st.dev, st.ino}] = name
	}
	for _, dir := range []string{"in", "in/d"} { // lists and look-ups agree
		list, _ := g.readdir(g.open(3, dir, openDirectory, folderRights), 4096, 0)
		for _, e := range list[2:] {
			if st, _ := g.stat(3, 0, dir+"/"+e.name); st.ino != e.ino || st.filetype != e.kind {
				g.t.Errorf("%s/%s: %+v and %+v", dir, e.name, st, e)
			}
		}
	}
}

func sockShutdown(g *guest) {
	for name, params := range map[string]int{"sock_shutdown": 2, "sock_accept": 3, "sock_recv": 6, "sock_send": 5} {
		stack := make([]uint64, params)
		stack[0] = 1
		g.want(g.call(name, stack...), vfs.ENOTSOCK)
		stack[0] = 99
		g.want(g.call(name, stack...), vfs.EBADF)
	}
	g.want(g.call("proc_raise", 6), vfs.ENOSYS)
}

func argsEnviron(g *guest) {
	for name, want := range map[string][]string{"args": {"prog", "one", "", "three words"}, "environ": {"A=1", "B=x=y"}} {
		g.ok(g.call(name+"_sizes_get", resultAt, resultAt+4))
		n, size := g.u32(resultAt), g.u32(resultAt+4)
		if text := strings.Join(want, "\x00") + "\x00"; int(n) != len(want) || int(size) != len(text) {
			g.t.Errorf("%s: %d, %d bytes", name, n, size)
		}
		g.ok(g.call(name+"_get", vectorAt, bufferAt))
		for i, w := range want {
			if got := g.str(g.u32(vectorAt+uint32(4*i)), uint32(len(w)+1)); got != w+"\x00" {
				g.t.Errorf("%s %d: %q, want %q", name, i, got, w)
			}
		}
		g.want(g.call(name+"_get", vectorAt, 16<<16-3), vfs.EFAULT)
	}
}

func procExitCase(g *guest) {
	for _, code := range []uint32{0, 33, 1<<32 - 1} {
		if got := g.exit("proc_exit", uint64(code)); got != code {
			g.t.Errorf("exit code %d, want %d", got, code)
		}
	}
	if g.mod.IsClosed() {
		g.t.Error("the module was closed")
	}
}

func fdWriteCase(g *guest) {
	if n, errno := g.write(1, "hello"); n != 5 || errno != 0 { // Stdout is nil
		g.t.Errorf("%d, %v", n, errno)
	}
	_, errno := g.write(99, "hello")
	g.want(errno, vfs.EBADF)
	_, errno = g.write(0, "hello")
	g.want(errno, vfs.ENOTCAPABLE)
	if got, errno := g.read(0, 100); got != "from stdin" || errno != 0 {
		g.t.Errorf("%q, %v", got, errno)
	}
	if got, errno := g.read(0, 100); got != "" || errno != 0 {
		g.t.Errorf("at the end: %q, %v", got, errno)
	}
}
