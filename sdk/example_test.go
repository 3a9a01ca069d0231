package sdk_test

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

// Here are the examples of docs/sdk.md, and a test that it has no others.

type Query struct {
	Text string `json:"text" doc:"What to look at."`
	Min  int    `json:"min,omitempty" doc:"Shorter words do not count."`
}

type Answer struct {
	Words int `json:"words"`
}

func count(ctx sdk.Context, q Query) (Answer, error) {
	var a Answer
	for _, w := range strings.Fields(q.Text) {
		if len(w) >= q.Min {
			a.Words++
		}
	}
	return a, nil
}

var counter = sdk.Func("count", count).Doc("Counts the words of a text.")

type Reading struct {
	Sensor string  `json:"sensor"`
	Value  float64 `json:"value"`
}

func clean(ctx sdk.Context, in iter.Seq2[Reading, error], emit func(Reading) error) error {
	for r, err := range in {
		if err != nil {
			ctx.Log().Warn("passed over", "why", err)
			continue
		}
		if r.Value >= 0 {
			if err := emit(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func countWords(ctx sdk.Context, in *sdk.Input, out *sdk.Emitter[int]) error {
	text, err := in.Bytes()
	sdk.Words(text, func(word []byte) { out.EmitBytes(word, 1) })
	return err
}

func printTable(ctx sdk.Context, all iter.Seq2[string, int]) error {
	for word, n := range all {
		fmt.Fprintf(ctx.Stdout(), "%s %d\n", word, n)
	}
	return nil
}

func addUp(a, b int) int { return a + b }

func concat(ctx sdk.Context) error {
	f, err := ctx.Create("all.txt")
	if err != nil {
		return err
	}
	defer f.Close()
	for in, err := range ctx.Inputs() {
		if err != nil {
			return err
		}
		n, err := io.Copy(f, in)
		if err != nil {
			return err
		}
		fmt.Fprintln(ctx.Stdout(), in.Name, n)
	}
	return f.Close()
}

func fibonacci(ctx sdk.Context, n int) (int, error) {
	if n < 2 {
		return n, nil
	}
	a, b := sdk.Go(ctx, fibonacci, n-1), sdk.Go(ctx, fibonacci, n-2)
	x, err := a.Await()
	if err != nil {
		return 0, err
	}
	y, err := b.Await()
	return x + y, err
}

func watched(ctx sdk.Context, files []string) (int, error) {
	log := ctx.Log()
	for i, name := range files {
		log.Info("next", slog.String("file", name))
		ctx.Count("files_read", 1)
		ctx.Observe("name_bytes", float64(len(name)))
		ctx.Progress(uint64(i+1), uint64(len(files)))
	}
	return len(files), nil
}

func visit(ctx sdk.Context, page string) (int, error) {
	n := 0
	err := ctx.KV().Txn(func(tx *sdk.Tx) error {
		item, err := tx.Get("visits/" + page)
		if err != nil {
			return err
		}
		n, _ = strconv.Atoi(string(item.Value)) // 0 when there is no such key
		n++
		tx.Put("visits/"+page, []byte(strconv.Itoa(n)))
		return nil
	})
	return n, err
}

func granted(ctx sdk.Context, cid string) (string, error) {
	token, err := ctx.Secret("api-token")
	if err != nil {
		return "", err
	}
	f, err := ctx.Open(cid, "models", "small.json")
	if err != nil {
		return "", err
	}
	defer f.Close()
	var model struct{ Name string }
	err = json.NewDecoder(f).Decode(&model)
	return fmt.Sprintf("%s, with a token of %d bytes", model.Name, len(token)), err
}

func download(ctx sdk.Context, url string) ([]byte, error) {
	resp, err := sdk.Fetch(sdk.Request{URL: url})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.Status != 200 {
		return nil, fmt.Errorf("%s gives status %d", url, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

func TestCount(t *testing.T) {
	if got := sdktest.Call(t, count, Query{Text: "a quick fox", Min: 2}); got.Words != 2 {
		t.Errorf("%d words", got.Words)
	}
}

func TestVisit(t *testing.T) {
	var kv sdk.Memory
	for want := 1; want <= 3; want++ {
		if got := sdktest.Call(t, visit, "home", sdktest.KV(&kv)); got != want {
			t.Errorf("%d visits, want %d", got, want)
		}
	}
}

func TestWatched(t *testing.T) {
	var r sdktest.Result
	sdktest.Call(t, watched, []string{"a", "b"}, sdktest.Into(&r))
	if r.Counters["files_read"] != 2 || len(r.Progress) != 2 || r.Log()[1] != "level=INFO msg=next file=b" {
		t.Errorf("%+v", r)
	}
}

func TestWords(t *testing.T) {
	r := sdktest.MapReduce(t, sdk.Map("map", addUp, countWords), sdk.Reduce("reduce", addUp, printTable),
		map[string]string{"a.txt": "the fox", "b.txt": "The end"})
	sdktest.Golden(t, "testdata/words.txt", r.Stdout)
}

func TestGranted(t *testing.T) {
	got := sdktest.Call(t, granted, "bafy", sdktest.Secret("api-token", "1234"), sdktest.Data("bafy", "models/small.json", `{"Name":"small"}`))
	if got != "small, with a token of 4 bytes" {
		t.Error(got)
	}
}

func TestOtherExamples(t *testing.T) {
	if counter.Name() != "count" || counter.Kind() != "func" {
		t.Error(counter)
	}
	if got := sdktest.Call(t, fibonacci, 10); got != 55 {
		t.Error(got)
	}
	var r sdktest.Result
	if got := sdktest.Stream(t, clean, []Reading{{"a", 1}, {"b", -1}}, sdktest.Into(&r)); len(got) != 1 || got[0].Sensor != "a" || r.Stderr != "" {
		t.Error(got, r)
	}
	out := sdktest.Run(t, sdk.Do("concat", concat), map[string]string{"x": "1", "y": "23"})
	if out.Out["all.txt"] != "123" || out.Stdout != "x 1\ny 2\n" {
		t.Errorf("%+v", out)
	}
	if _, err := sdktest.TryCall(download, "ftp://example.org"); err == nil {
		t.Error("ftp is fetched")
	}
}
