package daemon

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

// TestGateway reads from one node by HTTP what another one then has.
func TestGateway(t *testing.T) {
	dir := shortDir(t)
	a, err := Open(t.Context(), Config{
		Home: filepath.Join(dir, "a"), Swarm: "gateway-test", Listen: []string{"/ip4/127.0.0.1/tcp/0"},
		NoMDNS: true, NoNearby: true, Workers: 1, Gateway: "127.0.0.1:0",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	get := func(path string, accept ...string) (*http.Response, []byte, error) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.Status().Gateway+"/ipfs/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range accept {
			req.Header.Set("Accept", s)
		}
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		return resp, data, err
	}

	// A folder with a file of several chunks, and a folder so large that it is sharded.
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	put := func(name, data string) {
		_ = tw.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644, Typeflag: tar.TypeReg})
		_, _ = io.WriteString(tw, data)
	}
	var big strings.Builder
	for i := 0; big.Len() < 5<<20; i++ {
		fmt.Fprintf(&big, "line %d\n", i)
	}
	put("d/big", big.String())
	for i := range 4000 {
		put(fmt.Sprintf("wide/%s-%d", strings.Repeat("n", 60), i), "same")
	}
	_ = tw.Close()
	client := a.Client()
	info, err := client.Add(t.Context(), &archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	root := info.CID.String()

	b, err := Open(t.Context(), Config{Home: filepath.Join(dir, "b"), Embedded: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	to := b.Client()
	load := func(path string, partial bool) grid.Imported {
		t.Helper()
		resp, data, err := get(path)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %v, %v", path, resp, err)
		}
		in, err := to.ImportCAR(t.Context(), bytes.NewReader(data), partial)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		return in
	}
	if in := load(root+"/d/big?format=car&entity-bytes=2097152:2097160", true); in.Blocks != 2+2 || in.Roots[0].Whole {
		t.Errorf("a few bytes: %+v", in)
	}
	if in := load(root+"/wide/"+strings.Repeat("n", 60)+"-1234?format=car", false); in.Blocks < 4 {
		t.Errorf("an entry of a sharded folder: %+v", in)
	}
	if in := load(root+"/wide?format=car&dag-scope=entity", true); in.Blocks < 200 {
		t.Errorf("a sharded folder: %+v", in)
	}
	if in := load(root+"?format=car", false); !in.Roots[0].Whole || in.Roots[0].CID != info.CID {
		t.Errorf("all of it: %+v", in)
	}
	if f, err := to.Cat(t.Context(), info.CID.Cid, "d/big"); err != nil {
		t.Error(err)
	} else if data, err := io.ReadAll(f); err != nil || string(data) != big.String() {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if resp, data, err := get(root+"/d/big?format=car&entity-bytes=999999999:*", ""); err != nil || resp.StatusCode != 400 || !strings.Contains(string(data), "range") {
		t.Errorf("behind the end: %v, %s, %v", resp, data, err)
	}
	if resp, data, err := get(root+"/d/%2e%2e/d/big?format=car", ""); err != nil || resp.StatusCode != 404 {
		t.Errorf("a path that goes up: %v, %s, %v", resp, data, err)
	}
	resp, data, err := get(root, "application/vnd.ipld.raw")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := grid.VerifyBlock(info.CID.Cid, data); err != nil || resp.Header.Get("Content-Type") != "application/vnd.ipld.raw" {
		t.Errorf("a block: %v, %v", resp.Header, err)
	}

	// A block that is lost breaks off what has begun.
	x, err := client.Survey(t.Context(), info.CID.Cid, "d/big")
	if err != nil || x.Blocks != 7 {
		t.Fatalf("%+v, %v", x, err)
	}
	last := grid.NewBlock(cid.Raw, []byte(big.String()[5<<20:])).CID()
	if err := a.store.Blocks().Delete(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if resp, data, err := get(root + "/d/big?format=car"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("without its end: %v with %d bytes, %v", resp, len(data), err)
	}
	if resp, _, err := get(last.String() + "?format=raw"); err != nil || resp.StatusCode != 404 {
		t.Errorf("what is not here: %v, %v", resp, err)
	}
}

// TestGatewayFetch: it fetches for its readers if it is told to.
func TestGatewayFetch(t *testing.T) {
	dir := shortDir(t)
	a := up(t, filepath.Join(dir, "a"))
	b, err := Open(t.Context(), Config{
		Home: filepath.Join(dir, "b"), Swarm: "daemon-test", Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Join: a.Status().Addrs,
		NoMDNS: true, NoNearby: true, Workers: 1, Gateway: "127.0.0.1:0", GatewayFetch: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	client := api.Dial(Socket(a.cfg.Home))
	defer client.Close()
	link := add(t, client, []byte("far away"))
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for { // until the nodes have met
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.Status().Gateway+"/ipfs/"+link.String()+"?format=raw", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode == http.StatusServiceUnavailable {
			continue
		}
		if err != nil || string(data) != "far away" {
			t.Errorf("%s: %q, %v", resp.Status, data, err)
		}
		return
	}
}
