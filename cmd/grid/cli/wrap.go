package cli

import (
	"context"

	"github.com/wasmgrid/wasmgrid/grid"
)

// wrap puts what --decode and --encode name before and behind the stages that there are.
func (p *plan) wrap(ctx context.Context, s *session) error {
	if ref := p.f.decode; ref != "" {
		st, err := p.beside(ctx, s, "--decode", ref)
		if err != nil {
			return err
		}
		st.Tasks = p.req.Stages[0].Tasks
		for i := range p.req.Stages {
			for k := range p.req.Stages[i].From {
				p.req.Stages[i].From[k].Stage++
			}
		}
		p.req.Stages[0].From = []grid.Source{{Stage: 0, Fan: 1}}
		p.req.Stages = append([]grid.Stage{st}, p.req.Stages...) // whose are the rows now
	}
	if ref := p.f.encode; ref != "" {
		st, err := p.beside(ctx, s, "--encode", ref)
		if err != nil {
			return err
		}
		last := len(p.req.Stages) - 1
		st.Tasks, st.From = max(p.req.Stages[last].Tasks, 1), []grid.Source{{Stage: uint32(last), Fan: 1}}
		p.req.Stages = append(p.req.Stages, st)
	}
	return nil
}

// beside is a stage that a reference names, with the limits of the first, and placed likewise.
func (p *plan) beside(ctx context.Context, s *session, flag, ref string) (grid.Stage, error) {
	info, err := s.Plugin(ctx, ref, false)
	if err != nil {
		return grid.Stage{}, grid.Errorf(grid.CodeOf(err), "%s: %w", flag, err)
	}
	like := &p.req.Stages[0]
	return grid.Stage{
		Name: flag[2:], Module: info.CID, Plugin: info.String(), Func: info.Function, Limits: like.Limits,
		Require: like.Require, Prefer: like.Prefer, Reserve: like.Reserve, Attempts: like.Attempts,
	}, nil
}
