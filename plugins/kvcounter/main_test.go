package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/wasmgrid/wasmgrid/sdk"
	"github.com/wasmgrid/wasmgrid/sdk/sdktest"
)

var key = sdktest.Secret(secret, "not the real one")

func TestCount(t *testing.T) {
	var kv sdk.Memory
	north := string(sdktest.Call(t, sign, []byte("ada\nbob\n\nada"), key))
	south := string(sdktest.Call(t, sign, []byte("bob\nzoë \n"), key))
	first := sdktest.Run(t, sdk.Do("count", count), map[string]string{"north": north, "south": south}, key, sdktest.KV(&kv))
	if first.Stdout != "north: 3 new votes\nsouth: 2 new votes\n" || first.Counters["votes"] != 5 {
		t.Errorf("%+v", first)
	}
	again := sdktest.Run(t, sdk.Do("count", count), map[string]string{"a copy": north}, key, sdktest.KV(&kv))
	if again.Stdout != "a copy: 0 new votes\n" {
		t.Errorf("%+v", again)
	}
	if r := sdktest.Run(t, sdk.Do("list", list), nil, sdktest.KV(&kv)); r.Stdout != "     2 ada\n     2 bob\n     1 zoë\n" {
		t.Errorf("%q", r.Stdout)
	}
	if r, err := sdktest.Try(sdk.Do("count", count), map[string]string{"north": north + "\nada"}, key, sdktest.KV(&kv)); err == nil || !strings.Contains(err.Error(), "signature") || r.Stdout != "" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := sdktest.Try(sdk.Do("count", count), map[string]string{"north": north}); err == nil || !strings.Contains(err.Error(), secret) {
		t.Errorf("without the secret: %v", err)
	}
}

// Tasks that count at the same time, each file by two of them, come to the same.
func TestAtOnce(t *testing.T) {
	var kv sdk.Memory
	var tasks sync.WaitGroup
	for i := range 20 {
		file := string(sdktest.Call(t, sign, fmt.Appendf(nil, "ada\nvoter %d\n", i/2), key))
		tasks.Go(func() {
			if _, err := sdktest.Try(sdk.Do("count", count), map[string]string{"f": file}, key, sdktest.KV(&kv)); err != nil {
				t.Error(err)
			}
		})
	}
	tasks.Wait()
	if r := sdktest.Run(t, sdk.Do("list", list), nil, sdktest.KV(&kv)); !strings.HasPrefix(r.Stdout, "    10 ada\n     1 voter 0\n") {
		t.Error(r.Stdout)
	}
}
