package grid_test

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
)

// decodes checks that whatever is accepted has one canonical form, which decodes to itself.
func decodes[T any](t *testing.T, data []byte) (v T, ok bool) {
	if grid.UnmarshalSmall(data, &v) != nil {
		return v, false
	}
	once, err := grid.Marshal(v)
	if err != nil {
		return v, true // it lacks a link that it must have, and is refused by checks later
	}
	var back T
	if err := grid.UnmarshalSmall(once, &back); err != nil {
		if strings.Contains(err.Error(), "multihash too short") || strings.Contains(err.Error(), "length greater than remaining") {
			return v, true // likewise, a node: as text it may be anything, as bytes it is a multihash
		}
		t.Fatalf("%T: its own encoding %x is refused: %v", v, once, err)
	}
	twice, err := grid.Marshal(back)
	if err != nil || !bytes.Equal(once, twice) {
		t.Fatalf("%T: encodes to %x, then to %x, %v", v, once, twice, err)
	}
	return v, true
}

func seed(f *testing.F, values ...any) {
	for _, v := range values {
		data, err := grid.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}

func FuzzSpec(f *testing.F) {
	seed(f, sampleSpec(), grid.Spec{Stages: []grid.Stage{{Module: link("m"), Tasks: 1}}})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, ok := decodes[grid.Spec](t, data)
		if !ok || s.Normalize() != nil {
			return
		}
		once, err := grid.Marshal(s)
		if err != nil {
			t.Fatalf("a checked spec cannot be encoded: %v", err)
		}
		if err := s.Normalize(); err != nil {
			t.Fatalf("a checked spec is refused: %v", err)
		}
		if twice, _ := grid.Marshal(s); !bytes.Equal(once, twice) {
			t.Fatal("checking again changes the spec")
		}
	})
}

func FuzzReceipt(f *testing.F) {
	seed(f, sampleReceipt(), grid.Completion{Receipt: sampleReceipt()})
	f.Fuzz(func(t *testing.T, data []byte) {
		decodes[grid.Completion](t, data)
		if r, ok := decodes[grid.Receipt](t, data); ok {
			_ = r.Verify()
			_ = grid.CheckReceipt(&r, grid.DefaultLimits)
			_, _ = r.Err(), r.Links()
		}
	})
}

func FuzzRecord(f *testing.F) {
	seed(f, sampleRecord())
	f.Fuzz(func(t *testing.T, data []byte) { decodes[grid.Record](t, data) })
}

func FuzzMessages(f *testing.F) {
	l := grid.Lease{Job: "jx", Owner: nodeID("a"), Epoch: 1, Spec: link("spec"), Table: link("t"), Span: grid.Span{Lo: 1, Hi: 2}}
	seed(f, grid.StealMsg{Slots: 2}, grid.StealReply{Leases: []grid.Lease{l}}, grid.StealReply{Try: []peer.ID{nodeID("a")}},
		grid.StealMsg{Can: grid.Capacity{Slots: 2, Labels: grid.Labels{"a": "b"}}, Holds: make(grid.Summary, 8)},
		grid.ClaimMsg{Job: "jx", Stage: 1, Epoch: 2, Spans: []grid.Span{{Lo: 0, Hi: 9}}},
		grid.ReportMsg{Job: "jx", Done: []grid.Completion{{Receipt: sampleReceipt()}}, Failed: []grid.HostFailure{{Index: 1, Message: "m"}}},
		grid.ReportReply{Over: true}, grid.DropMsg{Job: "jx", Epoch: 1}, grid.WakeMsg{},
		grid.RecallMsg{Keys: []grid.Key{{1}, {2}}}, grid.RecallReply{Receipts: []grid.Receipt{sampleReceipt()}, Looked: 2})
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, ok := decodes[grid.StealMsg](t, data); ok && m.Check() == nil {
			m.Holds.Has(1)
		}
		decodes[grid.StealReply](t, data)
		decodes[grid.ClaimMsg](t, data)
		decodes[grid.ReportMsg](t, data)
		decodes[grid.ReportReply](t, data)
		decodes[grid.DropMsg](t, data)
		decodes[grid.RecallMsg](t, data)
		decodes[grid.RecallReply](t, data)
	})
}

func FuzzTaskLog(f *testing.F) {
	one := uint32(1)
	seed(f, grid.TaskLogMsg{Job: "jx", Stage: &one, Follow: true}, grid.TaskLogFrame{End: true},
		grid.TaskLogFrame{Pieces: []grid.TaskPiece{{Stage: 1, Index: 2, Began: 3, From: 4, At: 5, Data: []byte("line\nha")}, {Index: 2, Began: 3, Ended: true}}})
	f.Fuzz(func(t *testing.T, data []byte) {
		decodes[grid.TaskLogMsg](t, data)
		if fr, ok := decodes[grid.TaskLogFrame](t, data); ok && grid.CheckTaskLog(&fr) == nil {
			grid.TakeTaskLog(t.Context(), &fr)
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	seed(f, sampleCheckpoint(), grid.NodeInfo{Version: "1", Slots: 2})
	f.Fuzz(func(t *testing.T, data []byte) {
		decodes[grid.Checkpoint](t, data)
		decodes[grid.NodeInfo](t, data)
	})
}

func FuzzTable(f *testing.F) {
	part, _ := grid.Marshal([]grid.Row{{{Name: "a", CID: link("a")}}, {}})
	index, _ := grid.Marshal(grid.TableIndex{Rows: 2, Parts: []grid.TableRef{{First: 0, CID: link("part")}}})
	f.Add(index, part)
	f.Fuzz(func(t *testing.T, index, part []byte) {
		ctx, root := context.Background(), link("root")
		get := func(_ context.Context, c cid.Cid) ([]byte, error) {
			if c == root.Cid {
				return index, nil
			}
			return part, nil
		}
		tab, err := grid.OpenTable[grid.Row](ctx, get, root)
		if err != nil {
			return
		}
		for _, i := range []uint32{0, 1, tab.Len() / 2, tab.Len() - 1} {
			if row, err := tab.Row(ctx, i); err == nil {
				_ = grid.CheckRow(row)
			}
		}
	})
}

func FuzzLink(f *testing.F) {
	data, _ := grid.Marshal(link("x"))
	f.Add(data)
	f.Add([]byte(`"` + link("x").String() + `"`))
	f.Fuzz(func(t *testing.T, data []byte) {
		decodes[grid.Link](t, data)
		var l, back grid.Link
		if json.Unmarshal(data, &l) != nil {
			return
		}
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &back); err != nil || back != l {
			t.Fatalf("%s came back as %v, %v", text, back, err)
		}
	})
}

func FuzzJobID(f *testing.F) {
	f.Add("jabcdefghijklmnopqrstuvwxy")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := grid.ParseJobID(s); err == nil && string(id) != s {
			t.Fatalf("%q became %q", s, id)
		}
	})
}

// FuzzLogPlace: from whatever is taken for a place can be gone on, and a place that is told is one.
func FuzzLogPlace(f *testing.F) {
	const job = grid.JobID("abcdefghijklmnopqrstuvwxyz")
	f.Add(grid.LogPlace(job, []uint32{0, 0, 5, 0, 7, 9, 1, 0, 1}, [5]uint64{1, 2, 3, 4, 5}))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		again, err := grid.ReadLogPlace(text, job)
		if err != nil {
			return
		}
		if third, err := grid.ReadLogPlace(again, job); err != nil || len(third) != len(again) {
			t.Errorf("%q leads to %q, and that to %q: %v", text, again, third, err)
		}
	})
}
