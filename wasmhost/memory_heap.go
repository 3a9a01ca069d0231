//go:build !((linux || darwin || freebsd) && (amd64 || arm64))

package wasmhost

func reserve() []byte { return nil }

func unreserve([]byte) {}
