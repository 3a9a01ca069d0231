// Package bench measures what a node can do beside what its machine can: each measurement has a limit of the same kind, taken in the same run
// without the grid. It is for people who choose hardware and settings; `grid tune` reads it, too.
package bench

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Config says what is measured.
type Config struct {
	Node *grid.Node
	Dir  string // on the disk of its blocks
	// Quick takes some five seconds in place of twenty.
	Quick bool
}

// User is for whom tasks are run that only measure.
const User = "grid-bench"

// maxPeers are measured.
const maxPeers = 16

// noop is the smallest program: a page of memory, and a _start that returns.
var noop = []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x05\x03\x01\x00\x01\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x00\x0a\x04\x01\x02\x00\x0b")

// bench is one run.
type bench struct {
	Config
	each func(grid.Measured) error

	hash, write, read float64 // bytes/s
	sync              time.Duration
	start             time.Duration // of a sandbox
}

// Run measures, and calls each with what came of it, one after the other. An error of each ends it; what cannot be measured says so itself. It
// leaves nothing behind that is kept.
func Run(ctx context.Context, c Config, each func(grid.Measured) error) error {
	b := &bench{Config: c, each: each}
	if l := c.Node.Load(); l.Running > 0 || l.Queued > 0 {
		err := each(grid.Measured{Name: "load", Does: "tasks that the node runs meanwhile", Value: float64(l.Running), Unit: "tasks",
			Note: "it is at work: what follows is what is left besides, and slows that work down a little"})
		if err != nil {
			return err
		}
	}
	for _, step := range []func(context.Context) error{b.processor, b.disk, b.blocks, b.ledger, b.sandbox, b.tasks, b.peers} {
		if err := step(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// pick is for a quick run, or for a whole one.
func pick[T any](b *bench, quick, whole T) T {
	if b.Quick {
		return quick
	}
	return whole
}

// rate tells of something that is the better the greater it is.
func (b *bench) rate(m grid.Measured, err error) error {
	if m.Limit > 0 {
		m.Ratio = m.Value / m.Limit
	}
	return b.tell(m, err)
}

// time tells of something that is the better the less it is.
func (b *bench) time(m grid.Measured, err error) error {
	if m.Limit > 0 && m.Value > 0 {
		m.Ratio = m.Limit / m.Value
	}
	return b.tell(m, err)
}

func (b *bench) tell(m grid.Measured, err error) error {
	if err != nil {
		m.Value, m.Limit, m.Ratio, m.Error = 0, 0, 0, err.Error()
	}
	return b.each(m)
}

// perSecond is how fast it is when one thing has to follow another.
func perSecond(rates ...float64) float64 {
	sum := 0.0
	for _, r := range rates {
		if r <= 0 {
			return 0
		}
		sum += 1 / r
	}
	return 1 / sum
}

func median(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[len(times)/2]
}

func random(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.Read(data) // it never fails
	return data
}

func (b *bench) processor(context.Context) error {
	data := random(8 << 20)
	began, n := time.Now(), 0
	for time.Since(began) < pick(b, 200*time.Millisecond, time.Second) {
		sha256.Sum256(data)
		n += len(data)
	}
	b.hash = float64(n) / time.Since(began).Seconds()
	return b.tell(grid.Measured{Name: "hash", Does: "sha2-256 on one core, which every block needs", Value: b.hash, Unit: "bytes/s"}, nil)
}

// piece is what is written at once.
const piece = 1 << 20

func (b *bench) disk(ctx context.Context) error {
	err := b.rawDisk(ctx)
	for _, m := range []grid.Measured{
		{Name: "disk-write", Does: "writing a file, until it is durable", Value: b.write, Unit: "bytes/s"},
		{Name: "disk-read", Does: "reading it", Value: b.read, Unit: "bytes/s", Note: "from the memory of the system, as blocks that were just used are"},
		{Name: "disk-sync", Does: "making 4 KiB durable", Value: b.sync.Seconds(), Unit: "s"},
	} {
		if err := b.tell(m, err); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) rawDisk(ctx context.Context) error {
	f, err := os.CreateTemp(b.Dir, "bench-*")
	if err != nil {
		return grid.Errorf(grid.Internal, "measure the disk: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	data := random(piece)
	pieces := pick(b, 32, 256)
	began := time.Now()
	for range pieces {
		if _, err = f.Write(data); err != nil || ctx.Err() != nil {
			break
		}
	}
	if err == nil {
		err = f.Sync()
	}
	b.write = float64(pieces*piece) / time.Since(began).Seconds()
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	began = time.Now()
	for err == nil && ctx.Err() == nil {
		if _, rerr := io.ReadFull(f, data); rerr != nil {
			break
		}
	}
	b.read = float64(pieces*piece) / time.Since(began).Seconds()
	var times []time.Duration
	for range pick(b, 20, 100) {
		if err != nil || ctx.Err() != nil {
			break
		}
		began := time.Now()
		if _, err = f.WriteAt(data[:4<<10], 0); err == nil { // where there is room already, as logs see to
			err = f.Sync()
		}
		times = append(times, time.Since(began))
	}
	b.sync = median(times)
	if err != nil {
		return grid.Errorf(grid.Internal, "measure the disk at %s: %w", filepath.Dir(f.Name()), err)
	}
	return context.Cause(ctx)
}

func (b *bench) blocks(ctx context.Context) error {
	n := pick(b, 32, 256)
	const batch = 8
	store := b.Node.Blocks
	var all []cid.Cid
	defer func() {
		for _, c := range all {
			_ = store.Delete(context.WithoutCancel(ctx), c) // else it goes when room is needed
		}
	}()
	release := b.Node.HoldUsed()
	defer release()
	var took time.Duration
	var err error
	for i := 0; i < n && err == nil && ctx.Err() == nil; i += batch {
		data := make([][]byte, batch)
		for k := range data {
			data[k] = random(piece)
		}
		began := time.Now()
		list := make([]grid.Block, batch)
		for k := range list {
			list[k] = grid.NewBlock(cid.Raw, data[k])
			all = append(all, list[k].CID())
		}
		err = store.Put(ctx, list...)
		took += time.Since(began)
	}
	if err == nil {
		began := time.Now()
		err = store.Sync(ctx)
		took += time.Since(began)
	}
	size := float64(len(all) * piece)
	terr := b.rate(grid.Measured{Name: "block-write", Does: "storing blocks of 1 MiB, until they are durable", Value: size / took.Seconds(), Unit: "bytes/s",
		Limit: perSecond(b.hash, b.write), Against: "hashing, then writing as much"}, err)
	if terr != nil || err != nil {
		return terr
	}
	began := time.Now()
	for _, c := range all {
		if _, err = store.Get(ctx, c); err != nil {
			break
		}
	}
	return b.rate(grid.Measured{Name: "block-read", Does: "reading them, each compared with its hash", Value: size / time.Since(began).Seconds(), Unit: "bytes/s",
		Limit: perSecond(b.hash, b.read), Against: "reading, then hashing as much"}, err)
}

func (b *bench) ledger(ctx context.Context) error {
	key := grid.UserKeys + ".bench/" + hex.EncodeToString(random(8))
	var times []time.Duration
	var err error
	for range pick(b, 10, 50) {
		t := grid.Txn{ID: grid.NewRequestID(), Put: []grid.Entry{{Key: key, Value: []byte("measured")}}}
		began := time.Now()
		if _, err = b.Node.Ledger.Commit(ctx, t); err != nil {
			break
		}
		times = append(times, time.Since(began))
	}
	if len(times) > 0 {
		_, _ = b.Node.Ledger.Commit(context.WithoutCancel(ctx), grid.Txn{ID: grid.NewRequestID(), Delete: []string{key}})
	}
	return b.time(grid.Measured{Name: "ledger-commit", Does: "committing a transaction", Value: median(times).Seconds(), Unit: "s", Limit: b.sync.Seconds(),
		Against: "making 4 KiB durable here; a majority of voters has to", Note: "half of them take no longer"}, err)
}

// module stores the program.
func (b *bench) module(ctx context.Context) (cid.Cid, error) {
	m := grid.NewBlock(cid.Raw, noop)
	if err := b.Node.Blocks.Put(ctx, m); err != nil {
		return cid.Undef, err
	}
	_, err := b.Node.Inspect(ctx, m.CID(), true)
	return m.CID(), err
}

func (b *bench) sandbox(ctx context.Context) error {
	defer b.Node.HoldUsed()()
	const clears = 1000
	page, old := random(64<<10), random(64<<10)
	began := time.Now()
	for range clears {
		copy(page, old)
	}
	limit := max(time.Since(began)/clears, 1)
	m, err := b.module(ctx)
	var times []time.Duration
	for range pick(b, 500, 5000) {
		if err != nil {
			break
		}
		began := time.Now()
		var out grid.Outcome
		out, err = b.Node.Engine.Run(ctx, &grid.Guest{Module: m, Args: []string{"main"}, Limits: grid.DefaultLimits, Stdout: io.Discard, Stderr: io.Discard})
		if err == nil && out.Fault != nil {
			err = grid.Errorf(out.Fault.Code, "%s", out.Fault.Message)
		}
		times = append(times, time.Since(began))
	}
	b.start = median(times)
	return b.time(grid.Measured{Name: "sandbox", Does: "a program that does nothing, in a sandbox, once it is compiled and has run before", Value: b.start.Seconds(), Unit: "s",
		Limit: limit.Seconds(), Against: "copying its page of memory", Note: "half of them take no longer"}, err)
}

func (b *bench) tasks(ctx context.Context) error {
	slots := b.Node.Capacity.Slots
	m := grid.Measured{Name: "tasks", Does: "tasks that do nothing, as a job of this node alone", Unit: "tasks/s", Against: fmt.Sprintf("the sandbox alone, in all slots at once (%d)", slots)}
	if b.start > 0 {
		m.Limit = float64(slots) / b.start.Seconds()
	}
	var err error
	m.Value, err = b.job(ctx)
	return b.rate(m, err)
}

// job runs tasks here, and tells how many there were in a second.
func (b *bench) job(ctx context.Context) (float64, error) {
	defer b.Node.HoldUsed()()
	module, err := b.module(ctx)
	if err != nil {
		return 0, err
	}
	tasks := pick(b, uint32(5000), 50_000)
	r := grid.Request{NoCache: true, Copies: 1, Policy: grid.Policy{User: User}, Spec: grid.Spec{Name: "bench", Stages: []grid.Stage{{
		Module: grid.Link{Cid: module}, Tasks: tasks, Require: grid.LabelNode + "=" + b.Node.Network.Self().String(),
	}}}}
	began := time.Now()
	id, err := b.Node.Submit(ctx, r)
	if err != nil {
		return 0, err
	}
	var st grid.JobStatus
	err = b.Node.Watch(ctx, id, func(s grid.JobStatus) error { st = s; return nil })
	took := time.Since(began)
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err != nil {
		_ = b.Node.Cancel(after, id)
		return 0, err
	}
	if _, rerr := b.Node.RemoveJob(after, id); err == nil {
		err = rerr
	}
	if err == nil && st.State != grid.Done {
		err = grid.Errorf(grid.Internal, "the job that measures is %s: %s", st.State, st.Error)
	}
	return float64(tasks) / took.Seconds(), err
}
