package vfs

import "fmt"

// Errno is an error number of WASI preview 1, as guests see it. 0 is success.
type Errno uint16

// The numbers that are used.
const (
	ESUCCESS     Errno = 0
	EACCES       Errno = 2
	EAGAIN       Errno = 6
	EBADF        Errno = 8
	ECANCELED    Errno = 11
	ECHILD       Errno = 12
	EEXIST       Errno = 20
	EFAULT       Errno = 21
	EFBIG        Errno = 22
	EILSEQ       Errno = 25
	EINVAL       Errno = 28
	EIO          Errno = 29
	EISDIR       Errno = 31
	ELOOP        Errno = 32
	EMFILE       Errno = 33
	EMLINK       Errno = 34
	ENAMETOOLONG Errno = 37
	ENOENT       Errno = 44
	ENOMEM       Errno = 48
	ENOSPC       Errno = 51
	ENOSYS       Errno = 52
	ENOTDIR      Errno = 54
	ENOTEMPTY    Errno = 55
	ENOTSOCK     Errno = 57
	ENOTSUP      Errno = 58
	EOVERFLOW    Errno = 61
	EPERM        Errno = 63
	EPIPE        Errno = 64
	EROFS        Errno = 69
	ESPIPE       Errno = 70
	ENOTCAPABLE  Errno = 76
)

var errnoNames = map[Errno]string{
	ESUCCESS: "success", EACCES: "EACCES", EAGAIN: "EAGAIN", EBADF: "EBADF", ECANCELED: "ECANCELED", ECHILD: "ECHILD", EEXIST: "EEXIST", EFAULT: "EFAULT", EFBIG: "EFBIG",
	EILSEQ: "EILSEQ", EINVAL: "EINVAL", EIO: "EIO", EISDIR: "EISDIR", ELOOP: "ELOOP", EMFILE: "EMFILE", EMLINK: "EMLINK",
	ENAMETOOLONG: "ENAMETOOLONG", ENOENT: "ENOENT", ENOMEM: "ENOMEM", ENOSPC: "ENOSPC", ENOSYS: "ENOSYS",
	ENOTDIR: "ENOTDIR", ENOTEMPTY: "ENOTEMPTY", ENOTSOCK: "ENOTSOCK", ENOTSUP: "ENOTSUP", EOVERFLOW: "EOVERFLOW",
	EPERM: "EPERM", EPIPE: "EPIPE", EROFS: "EROFS", ESPIPE: "ESPIPE", ENOTCAPABLE: "ENOTCAPABLE",
}

func (e Errno) Error() string {
	if name, ok := errnoNames[e]; ok {
		return name
	}
	return fmt.Sprintf("errno %d", uint16(e))
}
