// Command oracle calls functions of plug-ins by Extism's own SDK for Go. It reads calls, one JSON object after another,
// and writes what came of each in the same way.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/extism/go-sdk"
)

type call struct {
	File, Func, Input string
	Config            map[string]string
}

type result struct {
	Exit          uint32
	Output, Error string
}

func main() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var c call
		err := in.Decode(&c)
		if errors.Is(err, io.EOF) {
			return
		}
		var r result
		if err == nil {
			r, err = run(context.Background(), c)
		}
		if err == nil {
			err = out.Encode(r)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "oracle:", err)
			os.Exit(1)
		}
	}
}

func run(ctx context.Context, c call) (result, error) {
	p, err := extism.NewPlugin(ctx, extism.Manifest{
		Wasm: []extism.Wasm{extism.WasmFile{Path: c.File}}, Config: c.Config,
		Memory: &extism.ManifestMemory{MaxVarBytes: -1, MaxHttpResponseBytes: -1},
	}, extism.PluginConfig{EnableWasi: true}, nil)
	if err != nil {
		return result{}, err
	}
	defer p.Close(ctx)
	exit, output, err := p.Call(c.Func, []byte(c.Input))
	r := result{Exit: exit, Output: string(output)}
	if err != nil {
		r.Error = err.Error()
	}
	return r, nil
}
