package module_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/gridtest/wasmbytes"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
)

var update = flag.Bool("update", false, "rewrite golden files")

func manifest() *grid.Manifest {
	return &grid.Manifest{
		Format: 1, Name: "double", Version: "1.0.0", ABI: 2, Description: "Doubles numbers.",
		Functions: []grid.Function{{Name: "twice", Kind: grid.TypedFunc, Input: []byte(`{"type":"integer"}`), Output: []byte(`{"type":"integer"}`)}},
	}
}

// testKey is always the same key for a seed.
func testKey(t testing.TB, seed byte) (crypto.PrivKey, peer.ID) {
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

func plugin(t testing.TB) []byte {
	b, err := module.PutManifest(wasmbytes.Noop(), manifest())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sign(t testing.TB, b []byte, seed byte) []byte {
	key, _ := testKey(t, seed)
	b, err := module.Sign(b, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCustom(t *testing.T) {
	_, one := testKey(t, 1)
	_, two := testKey(t, 2)
	b := plugin(t)
	m := manifest()
	m.Version = "1.1.0"
	again, err := module.PutManifest(sign(t, b, 1), m)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		binary  []byte
		version string
		signers []peer.ID
	}{
		{"no plugin", wasmbytes.Noop(), "", nil},
		{"a manifest", b, "1.0.0", nil},
		{"signed", sign(t, b, 1), "1.0.0", []peer.ID{one}},
		{"signed by two", sign(t, sign(t, b, 1), 2), "1.0.0", []peer.ID{one, two}},
		{"signed again", sign(t, sign(t, sign(t, b, 1), 2), 1), "1.0.0", []peer.ID{two, one}},
		{"a manifest replaced", again, "1.1.0", nil},
		{"no plugin, signed", sign(t, wasmbytes.Noop(), 1), "", []peer.ID{one}},
	} {
		c, err := module.ReadCustom(test.binary)
		if err != nil || (c.Manifest == nil) != (test.version == "") || c.Manifest != nil && c.Manifest.Version != test.version || !slices.Equal(c.Signers, test.signers) {
			t.Errorf("%s: %+v, %v", test.name, c, err)
		}
		info, err := module.Check(test.binary, provided)
		if err != nil || (info.Manifest == nil) != (test.version == "") || !slices.Equal(info.Signers, test.signers) {
			t.Errorf("%s: checked: %+v, %v", test.name, info, err)
		}
	}
}

func TestCustomRefuses(t *testing.T) {
	b := plugin(t)
	raw := func(content string) []byte {
		return wasmbytes.Section(wasmbytes.Noop(), 0, append(append([]byte{byte(len(grid.ManifestSection))}, grid.ManifestSection...), content...))
	}
	signed := sign(t, b, 1)
	flipped := bytes.Clone(signed)
	flipped[bytes.Index(flipped, []byte("Doubles"))] = 'd'
	forged := bytes.Clone(signed)
	forged[len(forged)-1] ^= 1
	for _, test := range []struct {
		name         string
		binary       []byte
		code         grid.Code
		message, tip string
	}{
		{"two manifests", append(bytes.Clone(b), b[len(wasmbytes.Noop()):]...), grid.Invalid, "2 sections grid.manifest", "grid plugin build"},
		{"too large", raw(`{"format":1,"docs":"` + strings.Repeat("x", grid.MaxManifest) + `"}`), grid.Limit, "1048598 bytes", "shorten"},
		{"cut off", raw(`{"format":1,"name":"do`), grid.Invalid, "not JSON", "grid plugin build"},
		{"not UTF-8", raw("{\"format\":1,\"name\":\"\xff\"}"), grid.Invalid, "not UTF-8", "grid plugin build"},
		{"not JSON", raw("hello"), grid.Invalid, "not JSON", "grid plugin build"},
		{"empty", raw(""), grid.Invalid, "not JSON", "grid plugin build"},
		{"newer format", raw(`{"format":2,"name":7}`), grid.Unsupported, "format 2", "update"},
		{"newer ABI", raw(`{"format":1,"name":"a","version":"1.0.0","abi":99}`), grid.Unsupported, "ABI version 99, and this node offers 2", "update"},
		{"no schema", raw(`{"format":1,"name":"a","version":"1.0.0","abi":2,"functions":[{"name":"f","kind":"func","input":{"type":"strung"}}]}`), grid.Invalid, "the input of a.f: not a JSON schema: type", "json-schema.org"},
		{"schema elsewhere", raw(`{"format":1,"name":"a","version":"1.0.0","abi":2,"functions":[{"name":"f","kind":"func","input":{"$ref":"file:///etc/passwd"}}]}`), grid.Invalid, "outside of itself", "within it"},
		{"changed after it was signed", flipped, grid.Invalid, "not one by", "sign it again"},
		{"forged", forged, grid.Invalid, "not one by", "sign it again"},
		{"more after signatures", wasmbytes.Section(bytes.Clone(signed), 0, []byte{1, 'x'}), grid.Invalid, "goes on after its signatures", "sign it again"},
		{"signed twice by one", append(bytes.Clone(signed), signed[len(b):]...), grid.Invalid, "two signatures by", "sign it again"},
		{"too many signatures", append(bytes.Clone(b), bytes.Repeat(signed[len(b):], module.MaxSignatures+1)...), grid.Limit, "17 signatures", ""},
		{"truncated", signed[:len(signed)-3], grid.Invalid, "truncated", "upload it again"},
		{"no module", []byte("hello"), grid.Invalid, "not a Wasm module", ""},
	} {
		_, err := module.ReadCustom(test.binary)
		if grid.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.message) || !strings.Contains(grid.AdviceOf(err), test.tip) {
			t.Errorf("%s: %v: %v (%s)", test.name, grid.CodeOf(err), err, grid.AdviceOf(err))
		}
		if _, whole := module.Check(test.binary, provided); whole == nil {
			t.Errorf("%s: it may run", test.name)
		}
	}
}

// A library has to export what its manifest names.
func TestManifestOfLibrary(t *testing.T) {
	m := manifest()
	for _, test := range []struct {
		export string
		ok     bool
	}{{"twice", true}, {"once", false}, {module.Call, true}} {
		results := []byte{wasmbytes.I32}
		b, err := module.PutManifest(exporting(results, test.export), m)
		if err != nil {
			t.Fatal(err)
		}
		_, err = module.Check(b, provided)
		if (err == nil) != test.ok || err != nil && !strings.Contains(err.Error(), "names the function twice") {
			t.Errorf("%s: %v", test.export, err)
		}
	}
}

// Files that others have written stay what they are.
func TestCustomGolden(t *testing.T) {
	got := []byte(hex.Dump(sign(t, plugin(t), 1)))
	file := filepath.Join("testdata", "signed.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("a signed plugin is written in another way now (%v):\n%s", err, got)
	}
}

func FuzzCustom(f *testing.F) {
	b := plugin(f)
	for _, seed := range [][]byte{b, sign(f, b, 1), sign(f, sign(f, b, 1), 2), wasmbytes.Noop()} {
		f.Add(seed)
	}
	key, id := testKey(f, 3)
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		c, err := module.ReadCustom(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the binary was changed")
		}
		if err != nil {
			return
		}
		signed, err := module.Sign(b, key)
		if err != nil {
			if len(c.Signers) < module.MaxSignatures {
				t.Fatal(err)
			}
			return
		}
		again, err := module.ReadCustom(signed)
		if err != nil || !slices.Contains(again.Signers, id) || (again.Manifest == nil) != (c.Manifest == nil) {
			t.Fatalf("signed: %+v, %v", again, err)
		}
		put, err := module.PutManifest(signed, manifest())
		if err != nil {
			t.Fatal(err)
		}
		if again, err = module.ReadCustom(put); err != nil || again.Manifest == nil || again.Manifest.Name != "double" || len(again.Signers) > 0 {
			t.Fatalf("with a manifest: %+v, %v", again, err)
		}
	})
}
