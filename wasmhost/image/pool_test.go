package image_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/wasmgrid/wasmgrid/wasmhost/image"
)

// thing is an item that tells what was done to it.
type thing struct {
	bytes  uint64
	broken bool
	resets int
	closed int
}

func (t *thing) Reset() error {
	t.resets++
	if t.broken {
		return errors.New("broken")
	}
	return nil
}
func (t *thing) Bytes() uint64 { return t.bytes }
func (t *thing) Close() error  { t.closed++; return nil }

func TestPool(t *testing.T) {
	a, b := new(image.Image), new(image.Image)
	p := image.NewPool[*thing](image.Bounds{Count: 3, Bytes: 100})
	if _, ok := p.Take(a); ok {
		t.Fatal("an empty pool gave something")
	}
	things := make([]*thing, 6)
	for i := range things {
		things[i] = &thing{bytes: 10}
	}
	p.Give(a, things[0])
	p.Give(b, things[1])
	p.Give(a, things[2])
	if got, ok := p.Take(a); !ok || got != things[2] {
		t.Error("want the one of the image that was given last")
	}
	p.Give(a, things[2])
	p.Give(b, things[3])
	if things[0].closed != 1 || things[1].closed != 0 || p.Stats().Count != 3 {
		t.Errorf("want the oldest to be put out: %+v", p.Stats())
	}
	things[4].bytes = 85
	if !p.Give(a, things[4]) || things[1].closed != 1 || things[2].closed != 1 || things[3].closed != 0 || p.Stats().Bytes != 95 {
		t.Errorf("want the oldest to be put out until the bytes fit: %+v", p.Stats())
	}
	things[5].broken = true
	if p.Give(a, things[5]) || things[5].closed != 1 {
		t.Error("one that cannot be reset was kept")
	}
	big := &thing{bytes: 101}
	if p.Give(a, big) || big.closed != 1 || p.Stats().Count != 2 {
		t.Error("one that is too large was kept, or drove out others")
	}
	p.Evict(a)
	if things[4].closed != 1 || things[3].closed != 0 {
		t.Error("want only the image's own to be closed")
	}
	if _, ok := p.Take(a); ok {
		t.Error("one is left after Evict")
	}
	want := image.PoolStats{Count: 1, Bytes: 10, Hits: 1, Misses: 2, Unfit: 1, Evicted: 3}
	if p.Stats() != want {
		t.Errorf("%+v, want %+v", p.Stats(), want)
	}
	p.Close()
	p.Close()
	late := &thing{}
	if things[3].closed != 1 || p.Give(a, late) || late.closed != 1 || p.Stats().Count != 0 {
		t.Error("a closed pool keeps something")
	}
	for i, x := range things {
		if x.resets == 0 || x.closed != 1 {
			t.Errorf("thing %d: %+v", i, *x)
		}
	}
}

// TestPoolTogether has several goroutines run tasks on instances of one pool.
func TestPoolTogether(t *testing.T) {
	l := newLab(t, image.Best, pokes().bytes(), wazero.NewRuntimeConfigInterpreter(), nil)
	p := image.NewPool[*image.Instance](image.Bounds{Count: 3, Bytes: 1 << 20})
	defer p.Close()
	var wg sync.WaitGroup
	for range 4 {
		spare := []*image.Instance{l.bind(t, 10*page), l.bind(t, 10*page)}
		wg.Go(func() {
			for round := range 200 {
				inst, ok := p.Take(l.img)
				if !ok {
					if len(spare) == 0 {
						continue
					}
					inst, spare = spare[0], spare[1:]
				}
				mod := inst.Module()
				peek, err := mod.ExportedFunction("peek").Call(ctx, 3000)
				if err != nil || peek[0] != 0 {
					t.Errorf("found %v, %v", peek, err)
				}
				if _, err := mod.ExportedFunction("poke").Call(ctx, 3000, 1); err != nil {
					t.Error(err)
				}
				if round == 150 {
					inst.Spoil()
				}
				p.Give(l.img, inst)
			}
		})
	}
	wg.Wait()
	if s := p.Stats(); s.Unfit == 0 || s.Hits == 0 || s.Count > 3 {
		t.Errorf("%+v", s)
	}
}

// A pool bounds the items of each image, too, whichever of them are taken and put out meanwhile.
func TestPoolEach(t *testing.T) {
	a, b := new(image.Image), new(image.Image)
	p := image.NewPool[*thing](image.Bounds{Count: 4, Each: 2, Bytes: 100})
	defer p.Close()
	fill := func(i *image.Image, want int) {
		t.Helper()
		kept := 0
		for range 5 {
			if p.Give(i, new(thing)) {
				kept++
			}
		}
		if kept != want {
			t.Errorf("%d were kept, want %d", kept, want)
		}
	}
	fill(a, 2)
	fill(b, 2)
	fill(a, 0)
	if _, ok := p.Take(a); !ok {
		t.Error("none to take")
	}
	fill(a, 1)
	p.Evict(a)
	fill(a, 2)
	c := new(image.Image)
	fill(c, 2) // in place of b's, which are the oldest
	if _, ok := p.Take(b); ok {
		t.Error("the oldest were not put out")
	}
	fill(b, 2)
	if n := p.Stats().Count; n != 4 {
		t.Errorf("%d items, want 4", n)
	}
}
