package api_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// fakeStore says what it was asked.
type fakeStore struct{ err error }

func (s fakeStore) Use(context.Context) (grid.StoreUse, error) {
	return grid.StoreUse{Disk: 7, Damaged: []grid.Link{}}, s.err
}

func (s fakeStore) Collect(_ context.Context, dryRun bool) (grid.Collected, error) {
	return grid.Collected{DryRun: dryRun, Deleted: 3}, s.err
}

func (s fakeStore) Verify(_ context.Context, repair bool) (grid.Verified, error) {
	c := grid.NewBlock(cid.Raw, []byte("x")).CID()
	return grid.Verified{Damaged: []grid.DamagedBlock{{CID: grid.Link{Cid: c}, Repaired: repair}}}, s.err
}

func TestStore(t *testing.T) {
	client := func(s api.Store) *api.Client {
		return api.Local((&api.Server{Node: new(grid.Node), Store: s, Logger: slog.New(slog.DiscardHandler)}).Handler())
	}
	c := client(fakeStore{})
	if u, err := c.StoreUse(within(t)); err != nil || u.Disk != 7 {
		t.Errorf("%+v, %v", u, err)
	}
	for _, flag := range []bool{false, true} {
		if g, err := c.Collect(within(t), flag); err != nil || g.DryRun != flag || g.Deleted != 3 {
			t.Errorf("%+v, %v", g, err)
		}
		if v, err := c.Verify(within(t), flag); err != nil || len(v.Damaged) != 1 || v.Damaged[0].Repaired != flag {
			t.Errorf("%+v, %v", v, err)
		}
	}
	c = client(fakeStore{grid.Errorf(grid.Corrupt, "rotten").Hint("throw it away")})
	_, err := c.Collect(within(t), false)
	wantCode(t, err, grid.Corrupt, "rotten")
	_, err = client(nil).StoreUse(within(t))
	wantCode(t, err, grid.NotFound)
}
