package wasi

import (
	"context"
	"strings"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasmgrid/wasmgrid/sdk/abi"
	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

// An errno says little. Functions of other host modules keep a message besides, which the guest can ask for: one at a
// time, that of the last failure.

// Note keeps a message for the guest to ask for; see [Clip].
func (s *State) Note(text string) { s.message = Clip(text) }

// Clip makes a message of text: UTF-8, and no longer than a message may be.
func Clip(text string) string {
	if len(text) > abi.MaxMessage {
		const more = "…"
		text = text[:abi.MaxMessage-len(more)] + more
	}
	return strings.ToValidUTF8(text, "")
}

// Message is what the guest would be told.
func (s *State) Message() string { return s.message }

// Failed notes why a call fails, and gives errno for it to return.
func (s *State) Failed(errno Errno, why string) Errno {
	s.Note(why)
	return errno
}

// Outside is [State.Failed] for a pointer that leads out of the guest's memory.
func (s *State) Outside() Errno {
	return s.Failed(vfs.EFAULT, "a pointer or a length leads out of memory")
}

// LastError is the function by which guests ask for the message.
func LastError() Function { return Function{Name: abi.LastError, Params: "iii", Call: lastError} }

// lastError(ptr, len, used) gives the message as far as there is room. It leaves it as it is, also when it fails.
func lastError(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	buf, used := view(mem, p[0], p[1]), view(mem, p[2], 4)
	if buf == nil || used == nil {
		return vfs.EFAULT
	}
	n := copy(buf, s.message)
	s.chargeBytes(ctx, n)
	le.PutUint32(used, uint32(n))
	return vfs.ESUCCESS
}
