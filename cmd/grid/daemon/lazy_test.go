package daemon

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/p2p/memnet"
	"github.com/wasmgrid/wasmgrid/sched"
	"github.com/wasmgrid/wasmgrid/store"
	"github.com/wasmgrid/wasmgrid/store/car"
	"github.com/wasmgrid/wasmgrid/store/dag"
	"github.com/wasmgrid/wasmgrid/store/exchange"
)

// rig is a node in memory: real blocks and real fetches, and a Go function in place of every guest.
type rig struct {
	id peer.ID
	*store.Store
	x    *exchange.Exchange
	node *grid.Node
	eng  *funcEngine
}

type funcEngine struct {
	mu    sync.Mutex
	guest func(ctx context.Context, g *grid.Guest) error
}

func (e *funcEngine) Prepare(context.Context, cid.Cid) error { return nil }
func (e *funcEngine) Inspect(context.Context, cid.Cid, bool) (grid.Module, error) {
	return grid.Module{Kind: grid.Command}, nil
}
func (e *funcEngine) Close() error { return nil }

// Run gives the guest an exit code of 1 for its error. That of the host comes only with ctx.
func (e *funcEngine) Run(ctx context.Context, g *grid.Guest) (grid.Outcome, error) {
	e.mu.Lock()
	guest := e.guest
	e.mu.Unlock()
	err := guest(ctx, g)
	if errors.Is(err, errSlow) {
		return grid.Outcome{Run: g.Limits.Wall, Fault: &grid.Fault{Code: grid.Deadline, Message: "ran too long"}}, nil
	}
	if err != nil {
		fmt.Fprintln(g.Stderr, err)
		return grid.Outcome{Exit: 1}, nil
	}
	return grid.Outcome{}, nil
}

// noPins keeps what is pinned where it is: nothing is collected here.
type noPins struct{ pinSet }

type pinSet interface{ grid.Pins }

func (noPins) Pin(_ context.Context, p grid.Pin) (grid.PinStatus, error) {
	return grid.PinStatus{Pin: p, Copies: []grid.Copy{{State: grid.CopyDurable}}}, nil
}
func (noPins) Status(_ context.Context, root cid.Cid, _ bool) (grid.PinStatus, error) {
	return grid.PinStatus{}, grid.Errorf(grid.NotFound, "no pin %s", root)
}
func (noPins) Unpin(context.Context, cid.Cid) error { return nil }

// errSlow is of a guest that takes all of its time.
var errSlow = errors.New("slow")

// newRig opens a node that runs so many tasks at once.
func newRig(t testing.TB, w *memnet.World, slots int, edit ...func(*grid.NodeConfig)) *rig {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{eng: &funcEngine{}}
	if r.Store, err = store.Open(t.Context(), store.Config{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Store.Close() })
	net := w.Join(id)
	t.Cleanup(func() { net.Close() })
	r.x = exchange.New(exchange.Config{Blocks: r.Blocks(), Network: net})
	t.Cleanup(func() { r.x.Close() })
	cfg := grid.NodeConfig{
		Key: key, Network: net, Blocks: r.Blocks(), Files: r.Files(), Fetcher: r.x, Ledger: r.Ledger(), Cache: r.Cache(),
		Engine: r.eng, Scheduler: sched.New(sched.Config{Self: id, Slots: slots, Backoff: time.Millisecond}), Slots: slots, Pins: noPins{},
		FilesOver: func(b grid.Blocks) grid.Files { return dag.New(b) },
		Unlock:    unlock,
	}
	for _, f := range edit {
		f(&cfg)
	}
	r.id = id
	if r.node, err = grid.OpenNode(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.node.Close() })
	return r
}

// oneRealm has nodes, each of which has a ledger of its own, take each other for nodes of one realm.
func oneRealm(t testing.TB, all ...*rig) {
	t.Helper()
	value, err := grid.Marshal(grid.NodeInfo{Slots: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		for _, other := range all {
			if _, err := r.Ledger().Commit(t.Context(), grid.Txn{Put: []grid.Entry{{Key: grid.NodeKeys + other.id.String(), Value: value}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, r := range all {
		await(t, func() bool { return oursOf(r.node.Peers()) == len(all)-1 })
	}
}

// oursOf counts the peers that are of the realm.
func oursOf(peers []grid.PeerInfo) (n int) {
	for _, p := range peers {
		if p.Realm == "ours" {
			n++
		}
	}
	return n
}

// await waits until something is so.
func await(t testing.TB, so func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !so(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the nodes do not become one realm")
		}
	}
}

// add stores a file and tells its CID.
func (r *rig) add(t testing.TB, data []byte) grid.Link {
	t.Helper()
	c, _, err := r.Files().Add(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return grid.Link{Cid: c}
}

// run runs a job of some tasks whose guest is the given function, and returns its end and what tasks printed.
func (r *rig) run(t *testing.T, stage grid.Stage, guest func(ctx context.Context, g *grid.Guest) error) (grid.JobStatus, string) {
	t.Helper()
	r.eng.mu.Lock()
	r.eng.guest = guest
	r.eng.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stage.Module = r.add(t, []byte("module"))
	stage.Tasks = max(stage.Tasks, 1)
	id, err := r.node.Submit(ctx, grid.Request{Spec: grid.Spec{Stages: []grid.Stage{stage}}})
	if err != nil {
		t.Fatal(err)
	}
	var last grid.JobStatus
	if err := r.node.Watch(ctx, id, func(st grid.JobStatus) error { last = st; return nil }); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := r.node.Tasks(ctx, id, false, func(e grid.TaskEnd) error { out.Write(e.Stdout.Data); return nil }); err != nil {
		t.Fatal(err)
	}
	return last, out.String()
}

func noise(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.Read(data)
	return data
}

// sumOf prints the hash of a part of a mounted file.
func sumOf(dir, name string, off, size int64) func(ctx context.Context, g *grid.Guest) error {
	return func(_ context.Context, g *grid.Guest) error {
		f, err := g.Mounts[dir].Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.(io.Seeker).Seek(off, io.SeekStart); err != nil {
			return err
		}
		h := sha256.New()
		buf := make([]byte, 64<<10)
		for left := size; left > 0; {
			n, err := f.Read(buf[:min(left, int64(len(buf)))])
			h.Write(buf[:n])
			left -= int64(n)
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
		}
		_, err = fmt.Fprintf(g.Stdout, "%x", h.Sum(nil))
		return err
	}
}

const (
	bigFile = 64 << 20
	midFile = 24 << 20 // is read where it lies, too
)

// TestLazyMount: of a big mounted file a task has only what it reads moved, and sees what it would see of one
// that is here.
func TestLazyMount(t *testing.T) {
	w := memnet.New(memnet.Config{})
	a, b := newRig(t, w, 0), newRig(t, w, 2)
	data := noise(bigFile)
	link := a.add(t, data)
	mount := grid.Stage{Mounts: []grid.Mount{{Path: "/data/big", CID: link}}}
	for _, off := range []int64{0, 30<<20 + 5} {
		before := b.x.Stats().BytesIn
		mount.Args = []string{fmt.Sprint(off)} // another invocation
		st, out := b.run(t, mount, sumOf("/data", "big", off, 1<<20))
		if want := fmt.Sprintf("%x", sha256.Sum256(data[off:][:1<<20])); st.State != grid.Done || out != want {
			t.Fatalf("at %d: %s %s, printed %s, want %s", off, st.State, st.Error, out, want)
		}
		if moved := b.x.Stats().BytesIn - before; moved > 8<<20 || moved < 1<<20 {
			t.Errorf("at %d: %d bytes were moved to read 1 MiB", off, moved)
		}
	}
	// Read through, it comes once, in few requests.
	before := b.x.Stats()
	mount.Tasks, mount.Args = 2, nil // at the same time
	st, out := b.run(t, mount, sumOf("/data", "big", 0, bigFile))
	want := fmt.Sprintf("%x", sha256.Sum256(data))
	if st.State != grid.Done || out != want+want {
		t.Errorf("%s %s, printed %s", st.State, st.Error, out)
	}
	after := b.x.Stats()
	if moved := b.x.Stats().BytesIn; moved < bigFile || moved > bigFile+1<<20 {
		t.Errorf("%d bytes were moved in all", moved)
	}
	if n := after.Requests - before.Requests; n > 32 {
		t.Errorf("%d requests", n)
	}
	if after.Wasted > 0 {
		t.Errorf("%d blocks came twice", after.Wasted)
	}
}

// TestLazyAnnounced: among many nodes the one that has announced the root is asked, not each of them for each block.
func TestLazyAnnounced(t *testing.T) {
	w := memnet.New(memnet.Config{})
	b := newRig(t, w, 2)
	for range 5 {
		newRig(t, w, 0)
	}
	a := newRig(t, w, 0)
	data := noise(midFile)
	link := a.add(t, data)
	if err := a.node.Network.Provide(t.Context(), link.Cid); err != nil {
		t.Fatal(err)
	}
	st, out := b.run(t, grid.Stage{Mounts: []grid.Mount{{Path: "/data/big", CID: link}}}, sumOf("/data", "big", 0, midFile))
	if want := fmt.Sprintf("%x", sha256.Sum256(data)); st.State != grid.Done || out != want {
		t.Fatalf("%s %s, printed %s, want %s", st.State, st.Error, out, want)
	}
	if n := b.x.Stats().Requests; n > 32 {
		t.Errorf("%d requests", n)
	}
}

// TestLazyInput: a big input is read where it lies, as is big standard input; small ones are fetched before.
func TestLazyInput(t *testing.T) {
	w := memnet.New(memnet.Config{})
	a, b := newRig(t, w, 0), newRig(t, w, 2)
	data := noise(midFile)
	link, small := a.add(t, data), a.add(t, data[:100_000])
	table := grid.NewTable[grid.Row](b.Blocks())
	if err := table.Add(t.Context(), grid.Row{{Name: "big", CID: link, Size: midFile}, {Name: "small", CID: small, Size: 100_000}}); err != nil {
		t.Fatal(err)
	}
	inputs, err := table.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	st, out := b.run(t, grid.Stage{Inputs: inputs, Stdin: link}, func(ctx context.Context, g *grid.Guest) error {
		if ok, err := b.Blocks().Has(ctx, small.Cid); !ok || err != nil {
			return fmt.Errorf("the small input is not here: %v", err)
		}
		head := make([]byte, 1000)
		if _, err := io.ReadFull(g.Stdin, head); err != nil || !bytes.Equal(head, data[:1000]) {
			return fmt.Errorf("standard input: %v", err)
		}
		return sumOf(grid.GuestIn, "big", 5<<20, 1<<20)(ctx, g)
	})
	if want := fmt.Sprintf("%x", sha256.Sum256(data[5<<20:][:1<<20])); st.State != grid.Done || out != want {
		t.Fatalf("%s %s, printed %s, want %s", st.State, st.Error, out, want)
	}
	if moved := b.x.Stats().BytesIn; moved > 8<<20 {
		t.Errorf("%d bytes were moved", moved)
	}
}

// TestLazyLost: a block that cannot be had fails the attempt, whatever the guest makes of the error, and leaves
// no receipt.
func TestLazyLost(t *testing.T) {
	w := memnet.New(memnet.Config{})
	a, b := newRig(t, w, 0), newRig(t, w, 2)
	data := noise(midFile)
	link := a.add(t, data)
	const leaf = 20
	gone := grid.NewBlock(cid.Raw, data[leaf<<20:][:1<<20])
	if err := a.Blocks().Delete(t.Context(), gone.CID()); err != nil {
		t.Fatal(err)
	}
	mount := grid.Stage{Mounts: []grid.Mount{{Path: "/data/big", CID: link}}}
	guest := func(ctx context.Context, g *grid.Guest) error {
		if err := sumOf("/data", "big", leaf<<20, 1000)(ctx, g); err != nil {
			fmt.Fprint(g.Stdout, "something else")
		}
		return nil
	}
	st, out := b.run(t, mount, guest)
	if st.State != grid.Failed || out != "" || !strings.Contains(st.Error, gone.CID().String()) {
		t.Fatalf("%s, printed %q; error %q does not name %s", st.State, out, st.Error, gone.CID())
	}
	if err := a.Blocks().Put(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	st, out = b.run(t, mount, guest)
	if want := fmt.Sprintf("%x", sha256.Sum256(gone.Data()[:1000])); st.State != grid.Done || out != want {
		t.Fatalf("once it is there: %s %s, printed %q, want %s", st.State, st.Error, out, want)
	}
}

// TestLazyLies: what says that it is small, and is not, does not come as a whole, but fails the attempt.
func TestLazyLies(t *testing.T) {
	w := memnet.New(memnet.Config{})
	a, b := newRig(t, w, 0), newRig(t, w, 2)
	file := a.add(t, noise(bigFile)).Bytes()
	link := append(append([]byte{0x0a, byte(len(file))}, file...), 0x12, 1, 'f', 0x18, 1)                            // hash, name, size
	tree := grid.NewBlock(cid.DagProtobuf, append(append([]byte{0x12, byte(len(link))}, link...), 0x0a, 2, 0x08, 1)) // a folder
	if err := a.Blocks().Put(t.Context(), tree); err != nil {
		t.Fatal(err)
	}
	stage := grid.Stage{Grants: grid.Grants{Data: []string{grid.AnyData}}, Attempts: 1}
	st, _ := b.run(t, stage, func(ctx context.Context, g *grid.Guest) error {
		f, err := g.Mounts[grid.GuestData].Open(tree.CID().String())
		if err == nil {
			f.Close()
		}
		return err
	})
	if st.State != grid.Failed || !strings.Contains(st.Error, "are allowed") {
		t.Errorf("%s: %s", st.State, st.Error)
	}
	if moved := b.x.Stats().BytesIn; moved > 48<<20 {
		t.Errorf("%d bytes were moved", moved)
	}
}

// TestLazySlow: that a guest took too long is its own fault only if it did not wait for data meanwhile.
func TestLazySlow(t *testing.T) {
	w := memnet.New(memnet.Config{})
	a, b := newRig(t, w, 0), newRig(t, w, 2)
	mount := grid.Stage{Mounts: []grid.Mount{{Path: "/data/big", CID: a.add(t, noise(midFile))}}}
	first := true // and only then the data has to come
	st, _ := b.run(t, mount, func(ctx context.Context, g *grid.Guest) error {
		if err := sumOf("/data", "big", 0, 1000)(ctx, g); err != nil || !first {
			return err
		}
		first = false
		return errSlow
	})
	if st.State != grid.Done {
		t.Errorf("%s %s", st.State, st.Error)
	}
	mount.Args = []string{"again"}
	st, _ = b.run(t, mount, func(ctx context.Context, g *grid.Guest) error { return errSlow })
	if st.State != grid.Failed || !strings.Contains(st.Error, "too long") {
		t.Errorf("%s %s", st.State, st.Error)
	}
}

// TestLazyFolder: of a big folder a task has only what it looks at moved, and one that goes through all of it
// does not ask for each file.
func TestLazyFolder(t *testing.T) {
	const files, size = 3000, 4 << 10
	w := memnet.New(memnet.Config{})
	a, b := newRig(t, w, 0), newRig(t, w, 2)
	data := noise(files * size)
	contents := make([]grid.Content, files)
	for i := range contents {
		contents[i].Data = data[i*size:][:size]
	}
	cids, err := a.Files().AddMany(t.Context(), contents)
	if err != nil {
		t.Fatal(err)
	}
	entries := make([]grid.FileInfo, files)
	for i, c := range cids {
		entries[i] = grid.FileInfo{Name: fmt.Sprintf("d%d/%04d", i%3, i), Kind: grid.KindFile, CID: grid.Link{Cid: c}, Size: size}
	}
	root, _, err := a.Files().AddTree(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	mount := grid.Stage{Mounts: []grid.Mount{{Path: "/data", CID: grid.Link{Cid: root}}}}
	st, out := b.run(t, mount, sumOf("/data", "d1/0301", 0, size))
	if want := fmt.Sprintf("%x", sha256.Sum256(contents[301].Data)); st.State != grid.Done || out != want {
		t.Fatalf("%s %s, printed %s", st.State, st.Error, out)
	}
	if moved := b.x.Stats().BytesIn; moved > 1<<20 {
		t.Errorf("%d bytes were moved to read one file", moved)
	}
	mount.Args = []string{"all"} // another invocation
	st, out = b.run(t, mount, func(_ context.Context, g *grid.Guest) error {
		h := sha256.New()
		err := fs.WalkDir(g.Mounts["/data"], ".", func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := fs.ReadFile(g.Mounts["/data"], p)
			h.Write(data)
			return err
		})
		fmt.Fprintf(g.Stdout, "%x", h.Sum(nil))
		return err
	})
	h := sha256.New()
	for d := range 3 {
		for i := d; i < files; i += 3 {
			h.Write(contents[i].Data)
		}
	}
	if want := fmt.Sprintf("%x", h.Sum(nil)); st.State != grid.Done || out != want {
		t.Fatalf("%s %s, printed %s, want %s", st.State, st.Error, out, want)
	}
	if n := b.x.Stats().Requests; n > files/10 {
		t.Errorf("%d requests for %d files", n, files)
	}
}

// TestLazyCat: of a file elsewhere the API fetches the range that is asked for, and an error on the way is told.
func TestLazyCat(t *testing.T) {
	w := memnet.New(memnet.Config{})
	a, b := newRig(t, w, 0), newRig(t, w, 2)
	data := noise(midFile)
	link := a.add(t, data)
	root, _, err := a.Files().AddTree(t.Context(), []grid.FileInfo{
		{Name: "d/big", Kind: grid.KindFile, CID: link, Size: midFile}, {Name: "d/other", Kind: grid.KindFile, CID: a.add(t, noise(midFile)), Size: midFile},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := (&api.Server{
		Node: b.node, Archive: b.Archive(), Logger: slog.New(slog.DiscardHandler),
		ArchiveOver: func(blocks grid.Blocks) grid.Archive { return car.New(blocks) },
	}).Handler()
	req := httptest.NewRequest(http.MethodGet, "/v1/cat/"+root.String()+"/d/big", nil)
	req.Header.Set("Range", "bytes=17000000-17099999")
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	if rec.Code != http.StatusPartialContent || !bytes.Equal(rec.Body.Bytes(), data[17_000_000:17_100_000]) {
		t.Fatalf("status %d, %d bytes", rec.Code, rec.Body.Len())
	}
	if moved := b.x.Stats().BytesIn; moved > 4<<20 {
		t.Errorf("%d bytes were moved to read 100,000", moved)
	}
	// So does the gateway.
	rec = httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/ipfs/"+root.String()+"/d/big?format=car&entity-bytes=10000000:10000999", nil))
	if rec.Code != http.StatusOK || !bytes.Contains(rec.Body.Bytes(), data[10_000_000:10_001_000]) {
		t.Fatalf("gateway: status %d, %d bytes", rec.Code, rec.Body.Len())
	}
	if moved := b.x.Stats().BytesIn; moved > 6<<20 {
		t.Errorf("%d bytes were moved to give 1,000 more to the gateway", moved)
	}
	client := api.Local(h)
	if list, err := client.List(t.Context(), root, "d"); err != nil || len(list) != 2 || list[1].Size != midFile {
		t.Errorf("List = %v, %v", list, err)
	}
	if moved := b.x.Stats().BytesIn; moved > 6<<20 {
		t.Errorf("%d bytes were moved to list a folder", moved)
	}
	r, err := client.Cat(t.Context(), root, "d/big")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	r.Close()
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	gone := grid.NewBlock(cid.Raw, data[18<<20:][:1<<20]).CID()
	if err := errors.Join(a.Blocks().Delete(t.Context(), gone), b.Blocks().Delete(t.Context(), gone)); err != nil {
		t.Fatal(err)
	}
	r, err = client.Cat(t.Context(), root, "d/big")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err == nil || !strings.Contains(err.Error(), gone.String()) || len(got) != 18<<20 {
		t.Errorf("read %d bytes, %v; want an error that names %s", len(got), err, gone)
	}
}
