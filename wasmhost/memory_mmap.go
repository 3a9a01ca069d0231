//go:build (linux || darwin || freebsd) && (amd64 || arm64)

package wasmhost

import "golang.org/x/sys/unix"

func reserve() []byte {
	region, err := unix.Mmap(-1, 0, reserved, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil // a limit on address space; the heap will do
	}
	return region
}

func unreserve(region []byte) { _ = unix.Munmap(region) }
