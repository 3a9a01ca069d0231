package gridtest

import (
	"context"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
)

// TestPins checks the contract of grid.Pins of a node that is alone. open gives a new one, and its blocks.
func TestPins(t *testing.T, open func(t *testing.T) (grid.Pins, grid.Blocks)) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	put := func(t *testing.T, blocks grid.Blocks, text string) grid.Link {
		t.Helper()
		b := grid.NewBlock(cid.Raw, []byte(text))
		if err := blocks.Put(ctx, b); err != nil {
			t.Fatal(err)
		}
		return grid.Link{Cid: b.CID()}
	}
	code := func(t *testing.T, what string, err error, want grid.Code) {
		t.Helper()
		if grid.CodeOf(err) != want {
			t.Errorf("%s: %v, want code %v", what, err, want)
		}
	}

	t.Run("promise", func(t *testing.T) {
		pins, blocks := open(t)
		root := put(t, blocks, "kept")
		st, err := pins.Pin(ctx, grid.Pin{Root: root, Name: "a name"})
		if err != nil {
			t.Fatal(err)
		}
		if st.Root != root || st.Name != "a name" || st.Replicas != 1 || st.Health != grid.Healthy || st.Durable() != 1 || st.Created.IsZero() {
			t.Errorf("Pin = %+v", st)
		}
		if got, err := pins.Status(ctx, root.Cid, true); err != nil || got.Durable() != 1 || got.Name != "a name" {
			t.Errorf("Status = %+v, %v", got, err)
		}
		st, err = pins.Pin(ctx, grid.Pin{Root: root, Replicas: 2}) // another promise in place of the first
		if err != nil || st.Replicas != 2 || st.Health != grid.Degraded || st.Name != "a name" {
			t.Errorf("Pin again = %+v, %v", st, err)
		}
		if list, err := pins.Pins(ctx); err != nil || len(list) != 1 || list[0].Root != root || list[0].Replicas != 2 {
			t.Errorf("Pins = %+v, %v", list, err)
		}
		if err := pins.Unpin(ctx, root.Cid); err != nil {
			t.Fatal(err)
		}
		if list, err := pins.Pins(ctx); err != nil || len(list) != 0 {
			t.Errorf("Pins after Unpin = %+v, %v", list, err)
		}
		_, err = pins.Status(ctx, root.Cid, false)
		code(t, "Status after Unpin", err, grid.NotFound)
		code(t, "Unpin again", pins.Unpin(ctx, root.Cid), grid.NotFound)
		if st, err := pins.Pin(ctx, grid.Pin{Root: root}); err != nil || st.Health != grid.Healthy {
			t.Errorf("Pin after Unpin = %+v, %v", st, err)
		}
	})

	t.Run("bad", func(t *testing.T) {
		pins, blocks := open(t)
		root := put(t, blocks, "here")
		absent := grid.Link{Cid: grid.NewBlock(cid.Raw, []byte("absent")).CID()}
		for _, tt := range []struct {
			what string
			pin  grid.Pin
			want grid.Code
		}{
			{"nothing", grid.Pin{}, grid.Invalid},
			{"what is not here", grid.Pin{Root: absent}, grid.NotFound},
			{"-1 replicas", grid.Pin{Root: root, Replicas: -1}, grid.Invalid},
			{"too many replicas", grid.Pin{Root: root, Replicas: grid.MaxCopies + 1}, grid.Invalid},
			{"copies and a code", grid.Pin{Root: root, Replicas: 2, Code: grid.Coding{Data: 2, Parity: 1}}, grid.Invalid},
			{"too wide a code", grid.Pin{Root: root, Code: grid.Coding{Data: grid.MaxCopies, Parity: 1}}, grid.Invalid},
			{"a code without parity", grid.Pin{Root: root, Code: grid.Coding{Data: 3}}, grid.Invalid},
			{"a code for more nodes than there are", grid.Pin{Root: root, Code: grid.Coding{Data: 2, Parity: 1}}, grid.Unavailable},
			{"a name that is no text", grid.Pin{Root: root, Name: "\xff"}, grid.Invalid},
		} {
			_, err := pins.Pin(ctx, tt.pin)
			code(t, "pin of "+tt.what, err, tt.want)
		}
		if list, err := pins.Pins(ctx); err != nil || len(list) != 0 {
			t.Errorf("Pins = %+v, %v", list, err)
		}
	})

	t.Run("drain", func(t *testing.T) {
		pins, blocks := open(t)
		if st, err := pins.Draining(ctx); err != nil || st.Draining || st.Left != 0 {
			t.Errorf("Draining = %+v, %v", st, err)
		}
		root := put(t, blocks, "kept")
		if _, err := pins.Pin(ctx, grid.Pin{Root: root}); err != nil {
			t.Fatal(err)
		}
		if err := pins.Drain(ctx, true); err != nil {
			t.Fatal(err)
		}
		if st, err := pins.Draining(ctx); err != nil || !st.Draining || st.Left != 1 || st.Bytes == 0 {
			t.Errorf("Draining = %+v, %v", st, err)
		}
		if st, err := pins.Status(ctx, root.Cid, false); err != nil || st.Durable() != 1 { // nobody else could take it
			t.Errorf("Status = %+v, %v", st, err)
		}
		if err := pins.Drain(ctx, false); err != nil {
			t.Fatal(err)
		}
		if st, err := pins.Draining(ctx); err != nil || st.Draining {
			t.Errorf("Draining = %+v, %v", st, err)
		}
	})
}
