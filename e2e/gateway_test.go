package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/path"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	carv2 "github.com/ipld/go-car/v2"

	"github.com/wasmgrid/wasmgrid/grid"
)

// ipfsSample is a folder with files of one chunk and of many, equal chunks among them, a sharded folder, and
// a symlink.
func ipfsSample(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	big := make([]byte, 5<<20+77)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(big)
	write("d/big", big)
	write("d/zeros", make([]byte, 3<<20))
	write("d/again", big[:1<<20])
	write("hello", []byte("hello world"))
	write("none", nil)
	for i := range 3500 {
		write(fmt.Sprintf("wide/%s-%d", strings.Repeat("n", 70), i), fmt.Appendf(nil, "%d", i%50))
	}
	if err := os.Symlink("d/big", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestIPFSReadsGateway: the client library of IPFS reads from our gateway, by blocks and by CARs.
func TestIPFSReadsGateway(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	n := w.Up("a", "--gateway", "127.0.0.1:0")
	dir := ipfsSample(t)
	root := strings.TrimSpace(n.Must("add", "-q", dir))
	st, err := n.Node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	cars, err := gateway.NewRemoteCarBackend([]string{st.Gateway}, hc)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := gateway.NewRemoteBlocksBackend([]string{st.Gateway}, hc)
	if err != nil {
		t.Fatal(err)
	}
	at := func(p string) path.ImmutablePath {
		t.Helper()
		plain, err := path.NewPath("/ipfs/" + root + p)
		if err != nil {
			t.Fatal(err)
		}
		fixed, err := path.NewImmutablePath(plain)
		if err != nil {
			t.Fatal(err)
		}
		return fixed
	}
	for name, backend := range map[string]gateway.IPFSBackend{"cars": cars, "blocks": blocks} {
		t.Run(name, func(t *testing.T) {
			for _, p := range []string{"/d/big", "/d/zeros", "/hello", "/none", "/wide/" + strings.Repeat("n", 70) + "-77"} {
				_, node, err := backend.GetAll(t.Context(), at(p))
				if err != nil {
					t.Errorf("%s: %v", p, err)
					continue
				}
				got, err := io.ReadAll(node.(files.File))
				want, _ := os.ReadFile(filepath.Join(dir, p))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, want %d, %v", p, len(got), len(want), err)
				}
			}
			_, node, err := backend.GetAll(t.Context(), at(""))
			if err != nil {
				t.Fatal(err)
			}
			seen := 0
			err = files.Walk(node, func(p string, node files.Node) error {
				f, ok := node.(files.File)
				if _, link := node.(*files.Symlink); !ok || link {
					return nil
				}
				got, err := io.ReadAll(f)
				if want, _ := os.ReadFile(filepath.Join(dir, p)); err == nil && !bytes.Equal(got, want) {
					err = fmt.Errorf("%s: %d bytes, want %d", p, len(got), len(want))
				}
				seen++
				return err
			})
			if err != nil || seen != 3505 {
				t.Errorf("%d files, %v", seen, err)
			}
			if _, _, err := backend.GetAll(t.Context(), at("/d/nothing")); err == nil {
				t.Error("what is not there was found")
			}
		})
	}
}

// TestGatewayEqualsIPFS: our gateway gives the blocks that the one of IPFS gives, in the same order, for
// whatever part of a DAG.
func TestGatewayEqualsIPFS(t *testing.T) {
	t.Parallel()
	w := NewWorld(t)
	n := w.Up("a", "--gateway", "127.0.0.1:0")
	root := strings.TrimSpace(n.Must("add", "-q", ipfsSample(t)))
	st, err := n.Node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := grid.ParseLink(root)
	if err != nil {
		t.Fatal(err)
	}
	file, err := n.ExportCAR(t.Context(), c.Cid, "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	store := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	if err := eachBlock(file, func(b block) error { return store.Put(context.Background(), b) }); err != nil {
		t.Fatal(err)
	}
	backend, err := gateway.NewBlocksBackend(blockservice.New(store, offline.Exchange(store)))
	if err != nil {
		t.Fatal(err)
	}
	theirs := httptest.NewServer(gateway.NewHandler(gateway.Config{}, backend))
	defer theirs.Close()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(base, query string) (status int, cids []cid.Cid) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/ipfs/"+root+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			err = eachBlock(resp.Body, func(b block) error { cids = append(cids, b.Cid()); return nil })
			if err != nil {
				t.Errorf("%s%s: %v", base, query, err)
			}
		}
		return resp.StatusCode, cids
	}
	wide := "/wide/" + strings.Repeat("n", 70) + "-1234"
	for _, p := range []string{"", "/d", "/d/big", "/d/zeros", "/hello", "/none", "/link", "/wide", wide} {
		for _, part := range []string{"", "&dag-scope=all", "&dag-scope=entity", "&dag-scope=block", "&dag-scope=all&car-dups=y",
			"&dag-scope=entity&car-dups=y", "&dag-scope=entity&entity-bytes=0:*", "&dag-scope=entity&entity-bytes=0:0",
			"&dag-scope=entity&entity-bytes=1048576:1048576", "&dag-scope=entity&entity-bytes=1048575:2097152",
			"&dag-scope=entity&entity-bytes=-1000:*", "&dag-scope=entity&entity-bytes=5:-5", "&dag-scope=entity&entity-bytes=3:1&car-dups=y"} {
			query := p + "?format=car" + part
			status, want := get(theirs.URL, query)
			gotStatus, got := get(st.Gateway, query)
			if gotStatus == http.StatusBadRequest && strings.Contains(part, "entity-bytes") {
				continue // it can tell that a range lies outside of its file, and so it should
			}
			if status != gotStatus || !slices.Equal(got, want) {
				t.Errorf("%s: status %d, %d blocks; IPFS gives %d, %d", query, gotStatus, len(got), status, len(want))
			}
		}
	}
}

// block is a block as the IPFS libraries have it.
type block interface {
	Cid() cid.Cid
	RawData() []byte
	String() string
	Loggable() map[string]any
}

// eachBlock reads a CAR by the common library, which checks every block.
func eachBlock(r io.Reader, f func(block) error) error {
	br, err := carv2.NewBlockReader(r)
	if err != nil {
		return err
	}
	for {
		b, err := br.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(b); err != nil {
			return err
		}
	}
}
