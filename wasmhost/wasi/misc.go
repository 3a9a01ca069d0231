package wasi

import (
	"context"
	"io"
	"math"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/wasmgrid/wasmgrid/wasmhost/wasi/vfs"
)

func argsGet(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	return s.putStrings(ctx, mem, s.cfg.Args, p)
}

func argsSizesGet(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	return s.stringSizes(ctx, mem, s.cfg.Args, p)
}

func environGet(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	return s.putStrings(ctx, mem, s.cfg.Env, p)
}

func environSizesGet(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	return s.stringSizes(ctx, mem, s.cfg.Env, p)
}

func sizeOf(list []string) uint64 {
	size := uint64(len(list)) // of the zero bytes
	for _, v := range list {
		size += uint64(len(v))
	}
	return size
}

func (s *State) stringSizes(ctx context.Context, mem api.Memory, list []string, p []uint64) Errno {
	s.charge(ctx, costStrings*uint64(len(list)))
	count, size := view(mem, p[0], 4), view(mem, p[1], 4)
	total := sizeOf(list)
	switch {
	case count == nil || size == nil:
		return vfs.EFAULT
	case total > math.MaxUint32:
		return vfs.EOVERFLOW
	}
	le.PutUint32(count, uint32(len(list)))
	le.PutUint32(size, uint32(total))
	return vfs.ESUCCESS
}

// putStrings writes strings, each with a zero byte behind it, and pointers to them.
func (s *State) putStrings(ctx context.Context, mem api.Memory, list []string, p []uint64) Errno {
	s.charge(ctx, costStrings*uint64(len(list)))
	total := sizeOf(list)
	if total > math.MaxUint32 {
		return vfs.EOVERFLOW
	}
	pointers, text := view(mem, p[0], 4*uint64(len(list))), view(mem, p[1], total)
	if pointers == nil || text == nil {
		return vfs.EFAULT
	}
	s.chargeBytes(ctx, len(pointers)+len(text))
	at := 0
	for i, v := range list {
		le.PutUint32(pointers[4*i:], uint32(p[1])+uint32(at))
		at += copy(text[at:], v)
		text[at] = 0
		at++
	}
	return vfs.ESUCCESS
}

// piece is how much is done of something long before the context is looked at again.
const piece = 1 << 20

func randomGet(ctx context.Context, s *State, mem api.Memory, p []uint64) Errno {
	b := view(mem, p[0], p[1])
	if b == nil {
		return vfs.EFAULT
	}
	for len(b) > 0 {
		n := min(len(b), piece)
		s.chargeBytes(ctx, n)
		if s.cfg.Random == nil {
			if !s.seeded {
				s.random.Seed(s.cfg.Seed)
				s.seeded = true
			}
			s.random.Read(b[:n])
		} else if _, err := io.ReadFull(s.cfg.Random, b[:n]); err != nil {
			s.Fail(err)
		}
		b = b[n:]
		s.proceed(ctx)
	}
	return vfs.ESUCCESS
}

func procExit(_ context.Context, _ *State, _ api.Memory, p []uint64) Errno {
	panic(sys.NewExitError(uint32(p[0])))
}

func procRaise(context.Context, *State, api.Memory, []uint64) Errno { return vfs.ENOSYS }

func schedYield(context.Context, *State, api.Memory, []uint64) Errno { return vfs.ESUCCESS }

// sock is every function on sockets: nothing is one.
func sock(_ context.Context, s *State, _ api.Memory, p []uint64) Errno {
	if s.table.get(p[0]) == nil {
		return vfs.EBADF
	}
	return vfs.ENOTSOCK
}
