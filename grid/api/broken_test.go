package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/iotest"
)

// TestCheckedBody: a download that breaks off because its caller gave up says so, and any other what broke it.
func TestCheckedBody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://grid/", nil)
	if err != nil {
		t.Fatal(err)
	}
	body := &checkedBody{&http.Response{Request: req, Body: io.NopCloser(iotest.ErrReader(io.ErrClosedPipe))}}
	if _, err := io.ReadAll(body); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("broken: %v", err)
	}
	cancel()
	if _, err := io.ReadAll(body); !errors.Is(err, context.Canceled) || errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("given up: %v", err)
	}
}
