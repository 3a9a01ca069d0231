// Granted is a guest for tests: it uses what it was granted, one thing, named by its first argument.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
)

//go:wasmimport grid kv
func hostKV(request *byte, size uint32, fd *uint32) uint32

//go:wasmimport grid progress
func hostProgress(done, total uint64) uint32

//go:wasmimport grid count
func hostCount(name *byte, size uint32, n uint64) uint32

//go:wasmimport grid observe
func hostObserve(name *byte, size uint32, v float64) uint32

//go:wasmimport grid last_error
func hostError(buf *byte, size uint32, used *uint32) uint32

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "granted:", err)
		os.Exit(9)
	}
}

func run(verb string, args []string) error {
	switch verb {
	case "work": // key, secret: takes a moment, and then adds one
		if _, err := os.ReadFile(abi.Secrets + "/" + args[1]); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
		return run("add", args[:1])
	case "add": // one to a key's number, whoever else does
		for {
			version, n := uint64(0), 0
			b, err := kv(word([]byte{abi.KVGet}, args[0]))
			switch {
			case err == nil:
				version = binary.LittleEndian.Uint64(b)
				if n, err = strconv.Atoi(string(b[8:])); err != nil {
					return err
				}
			case err != syscall.ENOENT:
				return fmt.Errorf("%w: %s", err, told())
			}
			_, err = put(args[0], version, strconv.Itoa(n+1))
			if err != syscall.EAGAIN {
				return err
			}
		}
	case "put": // key, value
		_, err := put(args[0], 0, args[1])
		if err != nil {
			return fmt.Errorf("%w: %s", err, told())
		}
	case "list": // keys that begin with a prefix
		b, err := kv(word(word(append([]byte{abi.KVList}, 0, 0, 0, 0), args[0]), ""))
		if err != nil {
			return fmt.Errorf("%w: %s", err, told())
		}
		for b = b[1:]; len(b) > 0; {
			var key []byte
			key, b = next(b)
			_, b = next(b[8:])
			fmt.Printf("%s\n", key)
		}
	case "read": // files
		for _, name := range args {
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			os.Stdout.Write(data)
		}
	case "names": // in a folder
		list, err := os.ReadDir(args[0])
		if err != nil {
			return err
		}
		for _, e := range list {
			fmt.Println(e.Name())
		}
	case "count": // and measure
		for _, name := range args {
			hostCount(&[]byte(name)[0], uint32(len(name)), 5)
		}
		for _, v := range []float64{1, 2, 300} {
			hostObserve(&[]byte("sizes")[0], 5, v)
		}
	case "wait": // for a key, having said how far it is, and put another key
		hostProgress(3, 10)
		if _, err := put(args[1], 0, "so far"); err != nil {
			return err
		}
		for {
			if _, err := kv(word([]byte{abi.KVGet}, args[0])); err != syscall.ENOENT {
				return err
			}
			time.Sleep(20 * time.Millisecond)
		}
	default:
		return fmt.Errorf("it does not know %q", verb)
	}
	return nil
}

func put(key string, version uint64, value string) ([]byte, error) {
	r := binary.LittleEndian.AppendUint32([]byte{abi.KVCommit}, 1)
	r = binary.LittleEndian.AppendUint64(word(r, key), version)
	r = word(word(binary.LittleEndian.AppendUint32(r, 1), key), value)
	return kv(binary.LittleEndian.AppendUint32(r, 0))
}

func kv(request []byte) ([]byte, error) {
	var fd uint32
	if errno := hostKV(&request[0], uint32(len(request)), &fd); errno != 0 {
		return nil, syscall.Errno(errno)
	}
	f := os.NewFile(uintptr(fd), "kv")
	defer f.Close()
	return io.ReadAll(f)
}

func word(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

func next(b []byte) (word, rest []byte) {
	n := binary.LittleEndian.Uint32(b)
	return b[4 : 4+n], b[4+n:]
}

func told() string {
	var buf [1024]byte
	var used uint32
	hostError(&buf[0], uint32(len(buf)), &used)
	return string(bytes.TrimSpace(buf[:used]))
}
