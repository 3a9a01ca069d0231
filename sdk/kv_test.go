package sdk

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestTxn(t *testing.T) {
	kv := KV{new(Memory)}
	if it, err := kv.Get("n"); it.Version != 0 || it.Key != "n" || err != nil {
		t.Errorf("%+v, %v", it, err)
	}
	var wg sync.WaitGroup
	for range 8 { // all of them read, and change what they have read
		wg.Go(func() {
			for range 20 {
				err := kv.Txn(func(tx *Tx) error {
					it, err := tx.Get("n")
					n, _ := strconv.Atoi(string(it.Value))
					tx.Put("n", []byte(strconv.Itoa(n+1)))
					if it, _ := tx.Get("n"); string(it.Value) != strconv.Itoa(n+1) {
						t.Errorf("a transaction does not see what it wrote, but %q", it.Value)
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	it, err := kv.Get("n")
	if string(it.Value) != "160" || err != nil {
		t.Errorf("%s, %v", it.Value, err)
	}
	for _, tt := range []struct {
		what string
		f    func(tx *Tx)
		want error
	}{
		{"another version", func(tx *Tx) { tx.If("n", it.Version+1); tx.Put("m", nil) }, ErrConflict},
		{"a key that is there", func(tx *Tx) { tx.If("n", 0); tx.Put("m", nil) }, ErrConflict},
		{"this version", func(tx *Tx) { tx.If("n", it.Version); tx.Delete("n") }, nil},
		{"no such key", func(tx *Tx) { tx.If("n", 0) }, nil},
		{"no key", func(tx *Tx) { tx.Put("", nil) }, syscall.EINVAL},
		{"a large value", func(tx *Tx) { tx.Put("m", make([]byte, 1<<20+1)) }, syscall.EFBIG},
		{"much", func(tx *Tx) {
			for i := range 5 {
				tx.Put(fmt.Sprint(i), make([]byte, 1<<20))
			}
		}, syscall.EFBIG},
		{"many", func(tx *Tx) {
			for i := range 1025 {
				tx.Delete(fmt.Sprint(i))
			}
		}, syscall.EINVAL},
	} {
		if err := kv.Txn(func(tx *Tx) error { tt.f(tx); return nil }); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.what, err, tt.want)
		}
	}
	if it, _ := kv.Get("m"); it.Version != 0 {
		t.Error("a transaction that failed was done in part")
	}
	given := errors.New("given up")
	if err := kv.Txn(func(tx *Tx) error { tx.Put("m", nil); return given }); err != given {
		t.Error(err)
	}
	if err := kv.Put("a/1", []byte("one")); err != nil {
		t.Error(err)
	}
	for i := range 2500 {
		kv.Put(fmt.Sprintf("b/%04d", i), nil)
	}
	n := 0
	for it, err := range kv.List("b/") {
		if want := fmt.Sprintf("b/%04d", n); it.Key != want || err != nil {
			t.Fatalf("%q, %v, want %q", it.Key, err, want)
		}
		n++
	}
	if n != 2500 {
		t.Errorf("%d keys are listed", n)
	}
	if err := kv.Delete("a/1"); err != nil {
		t.Error(err)
	}
	for it := range kv.List("a/") {
		t.Errorf("%s is there", it.Key)
	}
}

func TestEncodeCommit(t *testing.T) {
	got := Commit{If: []Item{{Key: "a", Version: 2}}, Put: []Item{{Key: "b", Value: []byte("xy")}}, Delete: []string{"c"}}.encode()
	want := "\x03" + "\x01\x00\x00\x00" + "\x01\x00\x00\x00a\x02\x00\x00\x00\x00\x00\x00\x00" +
		"\x01\x00\x00\x00" + "\x01\x00\x00\x00b\x02\x00\x00\x00xy" + "\x01\x00\x00\x00" + "\x01\x00\x00\x00c"
	if string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzDecodeList(f *testing.F) {
	f.Add([]byte("\x01\x01\x00\x00\x00a\x02\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00xy"))
	f.Add([]byte("\x00"))
	f.Add([]byte("\x00\xff\xff\xff\xffa"))
	f.Fuzz(func(t *testing.T, data []byte) {
		items, more, err := decodeList(data)
		if err != nil {
			return
		}
		again := []byte{data[0]}
		for _, it := range items {
			again = appendWord(again, it.Key)
			again = append(again, byte(it.Version), byte(it.Version>>8), byte(it.Version>>16), byte(it.Version>>24),
				byte(it.Version>>32), byte(it.Version>>40), byte(it.Version>>48), byte(it.Version>>56))
			again = appendWord(again, string(it.Value))
		}
		if string(again) != string(data) || more != (data[0] != 0) {
			t.Errorf("%q is read as %+v", data, items)
		}
	})
}

// By hand, secrets come from variables or files.
func TestByHand(t *testing.T) {
	t.Setenv("GRID_SECRET_API_TOKEN_2", "hush")
	if v, err := (Context{}).Secret("api-token.2"); string(v) != "hush" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	for _, name := range []string{"none", "../secrets", ""} {
		if v, err := (Context{}).Secret(name); err == nil || !strings.Contains(err.Error(), strconv.Quote(name)) {
			t.Errorf("%q, %v", v, err)
		}
	}
	for _, name := range [][]string{{""}, {"bafy", "../../x"}, {"..", "x"}, {"bafy", "none"}} {
		if _, err := (Context{}).Open(name[0], name[1:]...); err == nil {
			t.Errorf("%q is opened", name)
		}
	}
	ctx := Context{}
	ctx.Progress(1, 2)
	ctx.Count("n", 1)
	ctx.Observe("n", 1)
	if v := reflect.TypeOf(ctx).Size(); v > 8 {
		t.Errorf("a context has %d bytes", v)
	}
}
