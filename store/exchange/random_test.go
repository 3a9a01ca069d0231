package exchange

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// wild is a DAG of random shape, with shared parts; the root is the last.
func wild(t testing.TB, r *rand.Rand, n int) (bs []grid.Block) {
	t.Helper()
	for i := range n {
		if i < n/2 || i < 3 {
			bs = append(bs, grid.NewBlock(cid.Raw, append(make([]byte, r.IntN(30_000)), fmt.Sprint(i)...)))
			continue
		}
		links := []grid.Link{{Cid: bs[i-1].CID()}}
		for range r.IntN(8) {
			links = append(links, grid.Link{Cid: bs[r.IntN(i)].CID()})
		}
		if i == n-1 {
			for _, b := range bs { // all of it is to be reached
				links = append(links, grid.Link{Cid: b.CID()})
			}
		}
		b, err := grid.EncodeBlock(links)
		if err != nil {
			t.Fatal(err)
		}
		bs = append(bs, b)
	}
	return bs
}

// liar changes a bit of what is written after some bytes.
type liar struct {
	grid.Stream
	left *atomic.Int64
}

func (l liar) Write(p []byte) (int, error) {
	if l.left.Add(-int64(len(p))) < 0 {
		p = bytes.Clone(p)
		p[len(p)/2] ^= 4
	}
	return l.Stream.Write(p)
}

// TestRandom scatters random DAGs over nodes of which some break, hang, lie or are slow. What honest nodes have
// comes, and only that, in bounded time.
func TestRandom(t *testing.T) {
	seeds := 100
	if testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 1))
			world(t, 1+r.IntN(10), func(t *testing.T, s *swarm, dst *testNode, nodes []*testNode) {
				dag := wild(t, r, 5+r.IntN(300))
				root := dag[len(dag)-1].CID()
				over := make(chan struct{})
				kinds := make([]int, len(nodes))
				for i, n := range nodes {
					if i > 0 { // the first is honest
						kinds[i] = r.IntN(8)
					}
					left := &atomic.Int64{}
					left.Store(int64(r.IntN(1 << 20)))
					rate := 1 << (18 + r.IntN(8))
					n.through(func(st grid.Stream) grid.Stream {
						switch kinds[i] {
						case 1:
							return slow{Stream: st, rate: rate, left: left}
						case 2:
							return slow{Stream: st, rate: rate, left: left, hangs: true, now: over}
						case 3:
							return liar{st, left}
						}
						return slow{Stream: st, rate: rate}
					})
				}
				copies, local := 1+r.IntN(3), r.IntN(4)
				var lost *grid.Block // by all honest nodes
				if r.IntN(4) == 0 {
					lost = &dag[r.IntN(len(dag))]
				}
				honest := func() *testNode {
					for {
						if i := r.IntN(len(nodes)); kinds[i] == 0 || kinds[i] > 3 {
							return nodes[i]
						}
					}
				}
				for i := range dag {
					for range copies {
						put(t, nodes[r.IntN(len(nodes))], dag[i])
					}
					switch {
					case &dag[i] == lost:
						for k, n := range nodes {
							if kinds[k] == 0 || kinds[k] > 3 {
								if err := n.blocks.Delete(t.Context(), dag[i].CID()); err != nil {
									t.Fatal(err)
								}
							}
						}
					case r.IntN(8) < local:
						put(t, dst, dag[i])
					default:
						put(t, honest(), dag[i])
					}
				}
				w := grid.Want{Roots: []cid.Cid{root}}
				for _, i := range r.Perm(len(nodes)) {
					if r.IntN(2) == 0 {
						w.From = append(w.From, nodes[i].net.id)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				start := time.Now()
				err := dst.Fetch(ctx, w)
				if took := time.Since(start); took > 3*time.Minute {
					t.Errorf("it took %v", took)
				}
				if err != nil && lost == nil {
					t.Errorf("Fetch: %v", err)
				}
				for _, b := range dag {
					if ok, err := dst.blocks.Has(t.Context(), b.CID()); err != nil || err == nil && !ok && lost == nil {
						t.Errorf("block %s is not here: %v", b.CID(), err)
						break
					}
				}
				if st := dst.Stats(); st.BlocksIn > uint64(len(dag)) || st.Wasted > uint64(len(dag))+100 || len(dst.asking) > 0 {
					t.Errorf("%+v, of %d blocks; streams %v", st, len(dag), dst.asking)
				}
				close(over)
				synctest.Wait()
			})
		})
	}
}
