// Extend is a plugin for tests that extends nodes: a policy that wants small jobs, a notifier that posts events to the URL
// in the secret hook, a splitter that makes a piece of each paragraph, and a scorer by label.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/wasmgrid/wasmgrid/sdk"
)

func main() {
	sdk.Main(
		sdk.Admission("admit", admit),
		sdk.Notifier("tell", tell),
		sdk.Splitter("paragraphs", paragraphs),
		sdk.Scorer("score", score),
		sdk.Func("upper", func(_ sdk.Context, text string) (string, error) { return strings.ToUpper(text), nil }),
		sdk.Func("lower", func(_ sdk.Context, text string) (string, error) { return strings.ToLower(text), nil }),
		sdk.Do("loop", func(sdk.Context) error {
			for {
			}
		}),
	)
}

func admit(_ sdk.Context, job sdk.JobInfo) (sdk.Decision, error) {
	switch {
	case job.Name == "crash":
		panic("the policy does not like crashes")
	case job.Name == "endless":
		for {
		}
	case job.Tasks > 3:
		return sdk.Refuse("it has %d tasks, and 3 are enough", job.Tasks), nil
	}
	return sdk.Accept(), nil
}

func tell(ctx sdk.Context, ev sdk.JobEvent) error {
	url, err := ctx.Secret("hook")
	if err != nil {
		return err
	}
	body, err := json.Marshal(ev)
	if err != nil {
		return err
	}
	resp, err := sdk.Fetch(sdk.Request{Method: "POST", URL: string(url), Body: body})
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.Status != 200 {
		return fmt.Errorf("status %d", resp.Status)
	}
	return nil
}

func paragraphs(_ sdk.Context, files []sdk.File, emit func(sdk.Piece) error) error {
	for _, f := range files {
		r, err := f.Open()
		if err != nil {
			return err
		}
		text, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			return err
		}
		at := 0
		for _, p := range bytes.SplitAfter(text, []byte("\n\n")) {
			if len(p) > 0 {
				if err := emit(sdk.Piece{File: f.Name, Offset: int64(at), Length: int64(len(p))}); err != nil {
					return err
				}
			}
			at += len(p)
		}
	}
	return nil
}

func score(_ sdk.Context, _ sdk.StageInfo, node sdk.Candidate) (float64, error) {
	if node.Labels["rest"] == "true" {
		return -1, nil
	}
	return 1, nil
}
