package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/grid/internal/fake"
)

func TestKV(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		_, err := s.KVGet(ctx, "a", false)
		wantCode(t, err, grid.NotFound, `"a"`)
		v, err := s.KVPut(ctx, "a", []byte("one"), api.KVCond{Absent: true})
		if err != nil || v == 0 {
			t.Fatal(v, err)
		}
		for _, stale := range []bool{false, true} {
			e, err := s.KVGet(ctx, "a", stale)
			if err != nil || e.Key != "a" || string(e.Value) != "one" || e.Text == nil || *e.Text != "one" || e.Version != v {
				t.Errorf("%+v, %v", e, err)
			}
		}
		if _, err := s.KVGet(ctx, "", false); grid.CodeOf(err) != grid.Invalid {
			t.Error(err)
		}
		_, err = s.KVGet(ctx, "aa", true)
		wantCode(t, err, grid.NotFound)
		_, err = s.KVPut(ctx, "a", nil, api.KVCond{Absent: true})
		wantCode(t, err, grid.Conflict, "there already")
		_, err = s.KVPut(ctx, "a", nil, api.KVCond{Version: v + 1})
		wantCode(t, err, grid.Conflict, "does not have version")
		_, err = s.KVPut(ctx, "a", nil, api.KVCond{Version: v, Absent: true})
		wantCode(t, err, grid.Invalid, "exclude")
		binary := []byte{0, 0xff, '\n', 0x80}
		v2, err := s.KVPut(ctx, "a", binary, api.KVCond{Version: v})
		if err != nil || v2 <= v {
			t.Fatal(v2, err)
		}
		if e, err := s.KVGet(ctx, "a", false); err != nil || !bytes.Equal(e.Value, binary) || e.Text != nil {
			t.Errorf("%+v, %v", e, err)
		}
		odd := "../x//y?&=#% ü"
		if _, err := s.KVPut(ctx, odd, nil, api.KVCond{}); err != nil {
			t.Fatal(err)
		}
		if e, err := s.KVGet(ctx, odd, false); err != nil || e.Key != odd || e.Text == nil || *e.Text != "" {
			t.Errorf("%+v, %v", e, err)
		}
		p, err := s.KVRange(ctx, api.KVQuery{})
		if err != nil || len(p.Entries) != 2 || p.Entries[0].Key != odd || p.Entries[1].Key != "a" || p.Revision == 0 || p.More {
			t.Errorf("%+v, %v", p, err)
		}
		p, err = s.KVRange(ctx, api.KVQuery{Limit: 1, KeysOnly: true, Stale: true})
		if err != nil || len(p.Entries) != 1 || !p.More || p.Entries[0].Text != nil {
			t.Errorf("%+v, %v", p, err)
		}
		p, err = s.KVRange(ctx, api.KVQuery{After: odd})
		if err != nil || len(p.Entries) != 1 || p.Entries[0].Key != "a" {
			t.Errorf("%+v, %v", p, err)
		}
		p, err = s.KVRange(ctx, api.KVQuery{Prefix: "b"})
		if err != nil || p.Entries == nil || len(p.Entries) != 0 {
			t.Errorf("%+v, %v", p, err)
		}
		_, err = s.KVDelete(ctx, "a", api.KVCond{Version: v})
		wantCode(t, err, grid.Conflict)
		if rev, err := s.KVDelete(ctx, "a", api.KVCond{Version: v2}); err != nil || rev <= v2 {
			t.Error(rev, err)
		}
		_, err = s.KVDelete(ctx, "a", api.KVCond{})
		wantCode(t, err, grid.NotFound)
		if _, err := s.KVDelete(ctx, odd, api.KVCond{}); err != nil {
			t.Error(err)
		}
		// Limits.
		_, err = s.KVPut(ctx, strings.Repeat("k", grid.MaxUserKey+1), nil, api.KVCond{})
		wantCode(t, err, grid.Limit)
		_, err = s.KVPut(ctx, "not\xffutf-8", nil, api.KVCond{})
		wantCode(t, err, grid.Invalid)
		_, err = s.KVPut(ctx, strings.Repeat("k", grid.MaxUserKey), make([]byte, grid.MaxLedgerValue), api.KVCond{})
		if err != nil {
			t.Error(err)
		}
		_, err = s.KVPut(ctx, "k", make([]byte, grid.MaxLedgerValue+1), api.KVCond{})
		wantCode(t, err, grid.Limit, "more than 1048576 bytes")
	})
}

func text(s string) *string { return &s }

func TestTxn(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		v, err := s.KVTxn(ctx, api.TxnDoc{
			If:  []api.TxnCond{{Key: text("a"), Absent: true}},
			Put: []api.KV{{Key: "a", Text: text("1")}, {Key: "b", Value: []byte{0xff}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		zero, two, other := uint64(0), uint64(2), v+7
		for name, d := range map[string]api.TxnDoc{
			"a is there":     {If: []api.TxnCond{{Key: text("a"), Absent: true}}},
			"other version":  {If: []api.TxnCond{{Key: text("a"), Version: &other}}, Delete: []string{"a"}},
			"two and not no": {If: []api.TxnCond{{Prefix: text(""), Count: &zero}}},
		} {
			if _, err := s.KVTxn(ctx, d); grid.CodeOf(err) != grid.Conflict {
				t.Errorf("%s: %v", name, err)
			}
		}
		d := api.TxnDoc{
			ID:     "000102030405060708090a0b0c0d0e0f",
			If:     []api.TxnCond{{Key: text("a"), Version: &v}, {Prefix: text(""), Count: &two, Version: &v}},
			Put:    []api.KV{{Key: "c", Text: text("3")}},
			Delete: []string{"b"},
		}
		first, err := s.KVTxn(ctx, d)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.KVTxn(ctx, d); err != nil || again != first {
			t.Errorf("sent again: %d, %v; it was %d", again, err, first)
		}
		p, err := s.KVRange(ctx, api.KVQuery{})
		if err != nil || len(p.Entries) != 2 || p.Entries[1].Key != "c" || p.Entries[1].Version != first {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

func TestParseTxn(t *testing.T) {
	for doc, want := range map[string]grid.Code{
		`{}`: 0,
		`{"put": [{"key": "a", "text": "x"}, {"key": "b", "value": "eA=="}, {"key": "c"}], "delete": ["d"]}`: 0,
		`{"put": [{"key": "a", "text": "x", "value": "eA=="}]}`:                                              0,
		`{"if": [{"key": "a", "version": 3}, {"key": "b", "absent": true}, {"prefix": "c/", "count": 0}]}`:   0,
		`{"if": [{"prefix": "c/", "count": 2, "version": 9}]}`:                                               0,
		``:                                      grid.Invalid,
		`{"put": [`:                             grid.Invalid,
		`{} {}`:                                 grid.Invalid,
		`{} x`:                                  grid.Invalid,
		`[]`:                                    grid.Invalid,
		`{"puts": []}`:                          grid.Invalid,
		`{"put": [{"key": ""}]}`:                grid.Invalid,
		`{"put": [{"key": "a", "version": 3}]}`: grid.Invalid,
		`{"put": [{"key": "a", "value": "not b64"}]}`:           grid.Invalid,
		`{"put": [{"key": "a", "text": "x", "value": "eQ=="}]}`: grid.Invalid,
		`{"put": [{"key": "a"}, {"key": "a"}]}`:                 grid.Invalid,
		`{"put": [{"key": "a"}], "delete": ["a"]}`:              grid.Invalid,
		`{"if": [{}]}`:                                                            grid.Invalid,
		`{"if": [{"key": "a"}]}`:                                                  grid.Invalid,
		`{"if": [{"key": "a", "version": 0}]}`:                                    grid.Invalid,
		`{"if": [{"key": "a", "version": -1}]}`:                                   grid.Invalid,
		`{"if": [{"key": "a", "version": 1, "absent": true}]}`:                    grid.Invalid,
		`{"if": [{"key": "a", "version": 1, "count": 1}]}`:                        grid.Invalid,
		`{"if": [{"key": "a", "prefix": "a", "count": 1}]}`:                       grid.Invalid,
		`{"if": [{"prefix": "a", "version": 1}]}`:                                 grid.Invalid,
		`{"if": [{"prefix": "a", "count": 1}]}`:                                   grid.Invalid,
		`{"id": "12"}`:                                                            grid.Invalid,
		`{"id": "` + strings.Repeat("x", 32) + `"}`:                               grid.Invalid,
		`{"delete": ["` + strings.Repeat("k", 2000) + `"]}`:                       grid.Limit,
		`{"delete": [` + strings.Repeat(`"a",`, grid.MaxLedgerTxn) + `"b"]}`:      grid.Limit,
		`{"put": [{"key": "a", "text": "` + strings.Repeat("v", 1<<20+1) + `"}]}`: grid.Limit,
	} {
		_, err := api.ParseTxn([]byte(doc))
		if grid.CodeOf(err) != want {
			t.Errorf("%.80s: %v", doc, err)
		}
	}
}

// What is accepted can be sent: it comes out as it went in.
func FuzzParseTxn(f *testing.F) {
	f.Add([]byte(`{"if": [{"key": "a", "version": 3}], "put": [{"key": "a", "text": "x"}], "delete": ["b"]}`))
	f.Add([]byte(`{"id": "000102030405060708090a0b0c0d0e0f", "if": [{"key": "b", "absent": true}, {"prefix": "", "count": 2, "version": 9}]}`))
	f.Add([]byte(`{"put": [{"key": "\u0000", "value": "//8="}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := api.ParseTxn(data)
		if err != nil {
			if code := grid.CodeOf(err); code != grid.Invalid && code != grid.Limit {
				t.Fatalf("%v has code %v", err, code)
			}
			return
		}
		once, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		back, err := api.ParseTxn(once)
		if err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if twice, err := json.Marshal(back); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s comes back as %s, %v", once, twice, err)
		}
	})
}

func TestKVWatch(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		v, err := s.KVPut(ctx, "w/a", []byte("1"), api.KVCond{})
		if err != nil {
			t.Fatal(err)
		}
		enough := errors.New("enough")
		var seen []api.KVChanges
		err = s.KVWatch(ctx, "w/", nil, func(c api.KVChanges) error {
			switch seen = append(seen, c); len(seen) {
			case 1: // it has begun
				for _, key := range []string{"other", "w/b"} {
					if _, err := s.KVPut(ctx, key, []byte{0xfe}, api.KVCond{}); err != nil {
						return err
					}
				}
				_, err := s.KVDelete(ctx, "w/a", api.KVCond{})
				return err
			case 3:
				return enough
			}
			return nil
		})
		if err != enough || seen[0].Revision != v || len(seen[0].Put)+len(seen[0].Delete) != 0 {
			t.Fatalf("%+v, %v", seen, err)
		}
		if c := seen[1]; c.Revision <= v || len(c.Put) != 1 || c.Put[0].Key != "w/b" || !bytes.Equal(c.Put[0].Value, []byte{0xfe}) {
			t.Errorf("%+v", c)
		}
		if c := seen[2]; c.Revision <= seen[1].Revision || len(c.Delete) != 1 || c.Delete[0] != "w/a" {
			t.Errorf("%+v", c)
		}
		// From the beginning: the put, too.
		seen = nil
		from := v - 1
		err = s.KVWatch(ctx, "w/a", &from, func(c api.KVChanges) error {
			if seen = append(seen, c); len(seen) == 3 {
				return enough
			}
			return nil
		})
		if err != enough || len(seen[1].Put) != 1 || seen[1].Put[0].Version != v || len(seen[2].Delete) != 1 {
			t.Errorf("%+v, %v", seen, err)
		}
		// It ends with its reader.
		ctx, cancel := context.WithCancel(ctx)
		err = s.KVWatch(ctx, "", nil, func(api.KVChanges) error { cancel(); return nil })
		wantCode(t, err, grid.Canceled)
	})
}

// aged is a ledger that has forgotten, and whose status is known.
type aged struct {
	*fake.Ledger
	removed []peer.ID
}

func (a *aged) Watch(_ context.Context, _ string, after uint64, _ func(grid.Changes) error) error {
	return grid.Errorf(grid.OutOfDate, "changes behind revision %d are not known any more", after).Hint("read the range")
}

func (a *aged) Range(ctx context.Context, q grid.Query) (grid.Page, error) {
	if q.At != 0 {
		return grid.Page{}, grid.Errorf(grid.OutOfDate, "revision %d is too long ago", q.At)
	}
	return a.Ledger.Range(ctx, q)
}

func (a *aged) Remove(_ context.Context, id peer.ID) error {
	a.removed = append(a.removed, id)
	return nil
}

func TestLedgerErrors(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	l := &aged{Ledger: w.Ledger}
	n := &grid.Node{NodeConfig: w.Config()}
	n.Ledger = l
	h := (&api.Server{Node: n, Logger: slog.New(slog.DiscardHandler)}).Handler()
	c := api.Local(h)
	ctx := within(t)
	err := c.KVWatch(ctx, "", nil, func(api.KVChanges) error { return nil })
	wantCode(t, err, grid.OutOfDate, "not known any more")
	if grid.AdviceOf(err) == "" {
		t.Error("the advice was lost")
	}
	_, err = c.KVRange(ctx, api.KVQuery{At: 3})
	wantCode(t, err, grid.OutOfDate)
	st, err := c.LedgerStatus(ctx)
	if err != nil || st.Realm != "fake" || st.Role != grid.Leader || st.Members == nil {
		t.Errorf("%+v, %v", st, err)
	}
	if err := c.RemoveMember(ctx, w.ID); err != nil || len(l.removed) != 1 || l.removed[0] != w.ID {
		t.Errorf("%v, %v", l.removed, err)
	}
	n.Ledger = w.Ledger
	wantCode(t, c.RemoveMember(ctx, w.ID), grid.Unsupported, "alone")
	w.Ledger.Fail(grid.Errorf(grid.Unavailable, "no majority"))
	_, err = c.KVGet(ctx, "a", false)
	wantCode(t, err, grid.Unavailable, "no majority", `"a"`)
	_, err = c.KVPut(ctx, "a", nil, api.KVCond{})
	wantCode(t, err, grid.Unavailable, "no majority")
	_, err = c.KVDelete(ctx, "a", api.KVCond{})
	wantCode(t, err, grid.Unavailable, "no majority")
	err = c.KVWatch(ctx, "", nil, func(api.KVChanges) error { return nil })
	wantCode(t, err, grid.Unavailable, "no majority")

	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/kv?limit=x", "", 400},
		{"GET", "/kv?limit=-1", "", 400},
		{"GET", "/kv?at=99999999999999999999", "", 400},
		{"GET", "/kv/watch?after=x", "", 400},
		{"GET", "/kv?prefix=%ff", "", 400},
		{"PUT", "/kv/entry?key=a&if_version=0", "", 400},
		{"DELETE", "/kv/entry?key=a&if_absent=1", "", 400},
		{"POST", "/kv/txn", "nonsense", 400},
		{"PUT", "/refs/a", `{"cid": "nonsense"}`, 400},
		{"PUT", "/refs/a", `{"to": "x"}`, 400},
		{"PUT", "/refs/-a", `{}`, 400},
		{"DELETE", "/refs/a", `{"when": 1}`, 400},
		{"DELETE", "/ledger/members/nobody", "", 400},
		{"GET", "/resolve", "", 400},
	} {
		r := httptest.NewRecorder()
		h.ServeHTTP(r, httptest.NewRequest(tt.method, "/v1"+tt.path, strings.NewReader(tt.body)))
		if r.Code != tt.status || r.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, r.Code, r.Body)
		}
	}
}

func TestKVRaw(t *testing.T) {
	w := fake.NewWorld(new(fake.Hub), "a")
	h := (&api.Server{Node: &grid.Node{NodeConfig: w.Config()}, Logger: slog.New(slog.DiscardHandler)}).Handler()
	value := []byte{0, 1, 0xff, '\r', '\n'}
	if _, err := api.Local(h).KVPut(within(t), "k", value, api.KVCond{}); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRecorder()
	h.ServeHTTP(r, httptest.NewRequest(http.MethodGet, "/v1/kv/entry?key=k&raw=1", nil))
	got, _ := io.ReadAll(r.Body)
	if r.Code != 200 || !bytes.Equal(got, value) || r.Header().Get("ETag") != `"1"` {
		t.Errorf("%d %v %q", r.Code, r.Header(), got)
	}
}

func TestRefs(t *testing.T) {
	both(t, func(t *testing.T, s *site) {
		ctx := within(t)
		block := func(text string) grid.Link {
			b := grid.NewBlock(cid.Raw, []byte(text))
			if err := s.w.Blocks.Put(ctx, b); err != nil {
				t.Fatal(err)
			}
			return grid.Link{Cid: b.CID()}
		}
		a, b := block("a"), block("b")
		r, err := s.SetRef(ctx, "x/y", a, grid.RefCond{Absent: true})
		if err != nil || r.Name != "x/y" || r.CID != a || r.Version == 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		_, err = s.SetRef(ctx, "x/y", b, grid.RefCond{CID: b})
		wantCode(t, err, grid.Conflict, "it names "+a.String())
		if got, err := s.Ref(ctx, "x/y"); err != nil || got.CID != a || !got.Updated.Equal(r.Updated) || got.Name != "x/y" {
			t.Errorf("%+v, %v", got, err)
		}
		if list, err := s.Refs(ctx, "x", true); err != nil || len(list) != 1 {
			t.Errorf("%+v, %v", list, err)
		}
		if list, err := s.Refs(ctx, "y", false); err != nil || list == nil || len(list) != 0 {
			t.Errorf("%+v, %v", list, err)
		}
		if at, err := s.Resolve(ctx, "x/y/z"); err != nil || at != (grid.Named{Root: a, Path: "z", Ref: "x/y"}) {
			t.Errorf("%+v, %v", at, err)
		}
		wantCode(t, s.Unpin(ctx, a.Cid), grid.Conflict, "x/y")
		wantCode(t, s.RemoveRef(ctx, "x/y", grid.RefCond{Version: 99}), grid.Conflict)
		if err := s.RemoveRef(ctx, "x/y", grid.RefCond{}); err != nil {
			t.Error(err)
		}
		_, err = s.Ref(ctx, "x/y")
		wantCode(t, err, grid.NotFound)
		for _, name := range []string{"", "../jobs", "x?", "a//b"} {
			_, err := s.Ref(ctx, name)
			wantCode(t, err, grid.Invalid)
			wantCode(t, s.RemoveRef(ctx, name, grid.RefCond{}), grid.Invalid)
		}
		_, err = s.Resolve(ctx, "nothing")
		wantCode(t, err, grid.NotFound, "not a CID")
	})
}
