//go:build linux && amd64

package e2e

import (
	"bytes"
	"debug/elf"
	bytesOf "encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockAsks takes the place of __vdso_clock_gettime(clock edi, *timespec rsi) in a process: it asks the kernel, and adds the number of seconds
// behind it to what it is told of CLOCK_REALTIME, which is clock 0.
var clockAsks = []byte{
	0xb8, 0xe4, 0, 0, 0, // mov eax, 228 (clock_gettime)
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi
	0x75, 0x0a, // jne to ret
	0x48, 0x8b, 0x0d, 0x04, 0, 0, 0, // mov rcx, [behind ret]
	0x48, 0x01, 0x0e, // add [rsi], rcx
	0xc3, // ret
}

// setClock has the clock on the wall of a process of ours be ahead of the machine's by so much. What measures times is not touched, as with any
// clock that is set. Go programs ask the vDSO, a small library that the kernel puts into each process; in this one it is written over. Libraries that
// come between cannot do that, since ours are linked statically, and namespaces of time have no clock on the wall.
func setClock(pid int, ahead time.Duration) (err error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	lo, hi, err := vdso(proc)
	if err != nil {
		return err
	}
	mem, err := os.OpenFile(filepath.Join(proc, "mem"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	image := make([]byte, hi-lo)
	if _, err := mem.ReadAt(image, int64(lo)); err != nil {
		return err
	}
	lib, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return err
	}
	symbols, err := lib.DynamicSymbols()
	if err != nil {
		return err
	}
	code := bytesOf.LittleEndian.AppendUint64(bytes.Clone(clockAsks), uint64(int64(ahead/time.Second)))
	for _, s := range symbols {
		if s.Name != "__vdso_clock_gettime" || s.Size < uint64(len(code)) {
			continue
		}
		at := int64(lo + s.Value)
		if bytes.HasPrefix(image[s.Value:], clockAsks) { // it was set before
			_, err := mem.WriteAt(code[len(clockAsks):], at+int64(len(clockAsks)))
			return err
		}
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, syscall.Kill(pid, syscall.SIGCONT)) }()
		for range 10_000 {
			running, inside, err := threads(proc, lo, hi)
			switch {
			case err != nil:
				return err
			case running: // it has not stopped yet
			case inside: // on to where its code may be changed
				if err := errors.Join(syscall.Kill(pid, syscall.SIGCONT), syscall.Kill(pid, syscall.SIGSTOP)); err != nil {
					return err
				}
			default:
				_, err := mem.WriteAt(code, at)
				return err
			}
		}
		return errors.New("the process is never stopped away from where it asks for the time")
	}
	return errors.New("its vDSO has no clock_gettime that is known here")
}

// vdso is where a process has it.
func vdso(proc string) (lo, hi uint64, err error) {
	maps, err := os.ReadFile(filepath.Join(proc, "maps"))
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			_, err := fmt.Sscanf(line, "%x-%x ", &lo, &hi)
			return lo, hi, err
		}
	}
	return 0, 0, errors.Join(err, errors.New("it has no vDSO"))
}

// threads tells of those of a process that is being stopped whether any runs yet, or stands between two addresses.
func threads(proc string, lo, hi uint64) (running, inside bool, err error) {
	all, err := os.ReadDir(filepath.Join(proc, "task"))
	for _, t := range all {
		where, err := os.ReadFile(filepath.Join(proc, "task", t.Name(), "syscall"))
		words := strings.Fields(string(where)) // the last one is the address
		switch {
		case errors.Is(err, syscall.ESRCH) || os.IsNotExist(err): // it has ended
		case err != nil || len(words) == 0:
			return false, false, fmt.Errorf("where a thread stands: %q, %w", where, err)
		case words[0] == "running":
			running = true
		default:
			pc, err := strconv.ParseUint(strings.TrimPrefix(words[len(words)-1], "0x"), 16, 64)
			if err != nil {
				return false, false, err
			}
			inside = inside || pc >= lo && pc < hi
		}
	}
	return running, inside, err
}
