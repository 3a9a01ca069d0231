package erasure

import (
	"context"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// Eight blocks are coded, two nodes are lost, and what was on them is calculated again.
func Example() {
	ctx, blocks := context.Background(), newMemory()
	var links []grid.Link
	for i := range 8 {
		b := grid.NewBlock(cid.Raw, random(uint64(i), 100_000))
		blocks.Put(ctx, b)
		links = append(links, grid.Link{Cid: b.CID()})
	}
	root, _ := grid.EncodeBlock(links)
	blocks.Put(ctx, root)

	m, err := Encode(ctx, blocks, root.CID(), Params{K: 4, M: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	st := m.Stat()
	fmt.Printf("%d groups, %d bytes of data, %d of parity\n", m.Groups(), st.Data.Bytes, st.Parity.Bytes)

	lost := func(column int) bool { return column == 1 || column == 4 }
	var want []cid.Cid
	for column := range m.Params().Columns() {
		for s := range m.Shards(column) {
			if lost(column) && s.Group >= 0 {
				blocks.Delete(ctx, s.CID)
				want = append(want, s.CID)
			}
		}
	}
	h := m.Health(func(s Shard) bool { return !lost(s.Column) })
	fmt.Println("more losses that could be borne:", h.Spare)

	fmt.Println("rebuild:", Rebuild(ctx, m, nil, nil, blocks, want))
	// Output:
	// 2 groups, 800000 bytes of data, 400000 of parity
	// more losses that could be borne: 0
	// rebuild: <nil>
}
