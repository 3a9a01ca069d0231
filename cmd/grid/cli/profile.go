package cli

import (
	"bytes"
	"context"
	"io"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/wasmhost"
)

// Bounds on the profiles of a job: of one task, which another node may have made, in bytes; and how many are
// merged at a time.
const (
	maxProfile     = 16 << 20
	profilesAtOnce = 64
)

// saveProfile merges the profiles of tasks and writes them to a file.
func (e *env) saveProfile(ctx context.Context, s *session, tasks []grid.TaskEnd, file string) error {
	var parts [][]byte
	merge := func() error {
		whole, err := wasmhost.MergeProfiles(parts)
		parts = append(parts[:0], whole)
		return err
	}
	for i := range tasks {
		t := &tasks[i]
		if !t.Profile.Defined() {
			continue
		}
		part, err := s.profile(ctx, t.Profile)
		if err != nil {
			return grid.Errorf(grid.CodeOf(err), "profile of task %d: %w", t.Index, err)
		}
		if parts = append(parts, part); len(parts) == profilesAtOnce {
			if err := merge(); err != nil {
				return err
			}
		}
	}
	if len(parts) == 0 {
		e.note("no task ran to an end, so there is no profile")
		return nil
	}
	if err := merge(); err != nil {
		return err
	}
	if err := saveFile(bytes.NewReader(parts[0]), file, 0o644, placing{force: true}); err != nil {
		return err
	}
	e.note("wrote %s; look at it with `go tool pprof -http :0 %s`", printable(file), printable(file))
	return nil
}

// profile reads one task's profile.
func (s *session) profile(ctx context.Context, l grid.Link) ([]byte, error) {
	r, err := s.Cat(ctx, l.Cid, "")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxProfile+1))
	if err == nil && len(data) > maxProfile {
		err = grid.Errorf(grid.Limit, "it has more than %d bytes", maxProfile)
	}
	return data, err
}
