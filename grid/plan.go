package grid

import (
	"context"
	"fmt"
	"strconv"

	"github.com/ipfs/go-cid"
)

// plan turns a stage's task numbers into tasks. It is for one goroutine.
type plan struct {
	lease   Lease // its span is meaningless here
	stage   Stage
	salt    string      // of the spec
	rows    *Table[Row] // nil: tasks have no inputs, or told has them
	told    *told       // of stages that take from others
	ensured bool        // module, mounts and stdin are held, and here or where they can be read
	from    *sources    // of what is read where it lies
}

// planFor reads what a lease needs to become tasks, from the owner when it is not here.
func (n *Node) planFor(ctx context.Context, l Lease) (*plan, error) {
	pulled := n.pulling(l)
	get := func(ctx context.Context, c cid.Cid) ([]byte, error) {
		if pulled != nil {
			return pulled.block(ctx, c)
		}
		return n.block(ctx, c, l.Owner)
	}
	if err := n.mayWork(ctx, &l); err != nil {
		return nil, err
	}
	if err := CheckCID(l.Spec.Cid); err != nil {
		return nil, Errorf(Invalid, "spec of job %s: %w", l.Job, err)
	}
	data, err := get(ctx, l.Spec.Cid)
	if err != nil {
		return nil, Errorf(CodeOf(err), "spec of job %s: %w", l.Job, err)
	}
	var spec Spec
	if err := UnmarshalMessage(data, &spec); err != nil {
		return nil, Errorf(Invalid, "spec of job %s: %w", l.Job, err)
	}
	if err := spec.Normalize(); err != nil { // peers' specs are not believed
		return nil, Errorf(Invalid, "spec of job %s: %w", l.Job, err)
	}
	if int(l.Stage) >= len(spec.Stages) {
		return nil, Errorf(Invalid, "job %s has %d stages, no stage %d", l.Job, len(spec.Stages), l.Stage)
	}
	if err := n.checkOurs(ctx, l, &spec.Stages[l.Stage]); err != nil {
		return nil, err
	}
	if err := n.maySpawn(ctx, &l, &spec.Stages[l.Stage]); err != nil {
		return nil, err
	}
	if err := n.checkLent(ctx, l, &spec.Stages[l.Stage]); err != nil {
		return nil, err
	}
	p := &plan{lease: l, stage: spec.Stages[l.Stage], salt: spec.Salt, from: new(sources)}
	p.from.add(l.Owner)
	p.from.pulled = pulled
	if len(p.stage.From) > 0 {
		p.told = &told{n: n, lease: l}
	} else if l.Table.Defined() {
		if p.rows, err = OpenTable[Row](ctx, get, l.Table); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// serves reports whether the plan is the one for a lease.
func (p *plan) serves(l Lease) bool {
	return p != nil && p.lease.Job == l.Job && p.lease.Epoch == l.Epoch && p.lease.Spec == l.Spec &&
		p.lease.Stage == l.Stage && p.lease.Table == l.Table && p.lease.Owner == l.Owner
}

// task is task number i.
func (p *plan) task(ctx context.Context, i uint32) (Task, error) {
	st := &p.stage
	t := Task{Job: p.lease.Job, Stage: p.lease.Stage, Index: i, Invocation: Invocation{
		ABI:    ABIVersion,
		Module: st.Module,
		Func:   st.Func,
		Mounts: st.Mounts,
		Stdin:  st.Stdin,
		Feed:   st.Feed,
		Limits: st.Limits,
		Grants: st.Grants,
		Salt:   p.salt,
		Merge:  st.Merge,
		Parts:  st.Partitions,
		Split:  st.Split,
	}}
	if st.Impure {
		t.Only = fmt.Sprintf("%s/%d/%d", t.Job, t.Stage, i)
	}
	// Room for the variables below keeps append from touching the stage's own slice.
	args, env := st.Varied(i)
	t.Env = append(make([]string, 0, len(env)+4), env...)
	t.Env = append(t.Env, abiEnv)
	if st.Func != "" {
		t.Env = append(t.Env, EnvFunc+"="+st.Func)
	}
	if st.Partitions > 0 {
		t.Env = append(t.Env, EnvPartitions+"="+strconv.FormatUint(uint64(st.Partitions), 10))
	}
	if p.rows == nil && p.told == nil {
		if len(st.Sweep) == 0 {
			t.Env = append(t.Env, EnvTask+"="+strconv.FormatUint(uint64(i), 10))
		}
		t.Args = args
		return t, nil
	}
	row, err := p.row(ctx, i)
	if err != nil {
		return t, err
	}
	t.Inputs = row
	t.Args = expandArgs(args, row)
	return t, nil
}

// expect tells which tasks are likely to be asked for together.
func (p *plan) expect(s Span) {
	if p.told != nil {
		p.told.span = s
	}
}

// row is what task i is given, checked.
func (p *plan) row(ctx context.Context, i uint32) (row Row, err error) {
	if p.told != nil {
		row, err = p.told.row(ctx, i)
	} else {
		row, err = p.rows.Row(ctx, i)
	}
	if err == nil && !isWholeTree(row) {
		err = CheckRow(row)
	}
	return row, err
}

var abiEnv = EnvABI + "=" + strconv.Itoa(ABIVersion)

// isWholeTree reports whether a row is one folder that is to be /in itself, as gathering tasks have.
func isWholeTree(row Row) bool { return len(row) == 1 && row[0].Name == "." }

// ensure brings what every task of the stage needs.
func (n *Node) ensure(ctx context.Context, p *plan) error {
	if p.ensured {
		return nil
	}
	var roots []cid.Cid
	for _, m := range p.stage.Mounts {
		roots = append(roots, m.CID.Cid)
	}
	if p.stage.Stdin.Defined() {
		roots = append(roots, p.stage.Stdin.Cid)
	}
	if p.from.pulled != nil {
		if err := p.from.pulled.bring(ctx, append(roots, p.stage.Module.Cid)...); err != nil {
			return err
		}
		p.ensured = true
		return nil
	}
	if err := n.bring(ctx, []cid.Cid{p.stage.Module.Cid}, roots, p.from); err != nil {
		return err
	}
	p.ensured = true
	return nil
}
