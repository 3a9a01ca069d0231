package sched

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// What the transcripts of stealing and of data have besides: roots are numbers, sizes are in MiB.

func (a *args) time(key string) time.Duration {
	d, _ := time.ParseDuration(a.keyed[key])
	return d
}

func (a *args) peers(key string) (list []peer.ID) {
	for w := range strings.SplitSeq(a.keyed[key], ",") {
		if w != "" {
			list = append(list, peer.ID(w))
		}
	}
	return list
}

// roots reads "roots=1,2,5-9".
func (a *args) roots(key string) (list []uint64) {
	for w := range strings.SplitSeq(a.keyed[key], ",") {
		from, to, _ := strings.Cut(w, "-")
		lo, _ := strconv.ParseUint(from, 10, 16)
		hi, _ := strconv.ParseUint(to, 10, 16)
		for r := lo; r <= max(lo, hi); r++ {
			list = append(list, r)
		}
	}
	return list
}

// summary reads "holds=1,2".
func (a *args) summary(key string) grid.Summary {
	if a.keyed[key] == "" {
		return nil
	}
	roots := a.roots(key)
	s := grid.NewSummary(1000) // so large that nothing is found by mistake
	for _, r := range roots {
		s.Add(r)
	}
	return s
}

// table is one that a work has when the line says "table".
func (a *args) table() (l grid.Link) {
	if a.has("table") {
		l.Cid = grid.NewBlock(cid.Raw, []byte("table")).CID()
	}
	return l
}

func (a *args) nearEvent(verb string) (grid.Event, error) {
	switch verb {
	case "hints": // hints j1/0 lo=4 roots=1,2,5-9 size=10
		ev := grid.Hints{Work: parseWork(a.word(0)), Lo: uint32(a.num("lo"))}
		for _, r := range a.roots("roots") {
			ev.Inputs = append(ev.Inputs, grid.Hint{Root: r, Size: uint64(a.num("size")) << 20})
		}
		return ev, nil
	case "accused": // accused A j1 why=lies
		return grid.Accused{Peer: peer.ID(a.word(0)), Job: grid.JobID(a.word(1)), Why: a.keyed["why"]}, nil
	}
	return nil, fmt.Errorf("no such event")
}

func describeNear(e grid.Effect) string {
	switch e := e.(type) {
	case grid.Prefetch:
		return fmt.Sprintf("prefetch for %s:%s", string(e.Lease.Owner), e.Lease)
	case grid.Note:
		return fmt.Sprintf("note %s of job %s: %s: %s", e.Event.Kind, e.Job, string(e.Event.Node), e.Event.Text)
	}
	return fmt.Sprintf("%T", e)
}
