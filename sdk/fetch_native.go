//go:build !wasip1

package sdk

import (
	"bytes"
	"net/http"
	"strings"
)

// client does as the grid does: it follows no redirects and leaves bodies as they come.
var client = http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableCompression: true},
}

// fetch is for programs that run by hand.
func fetch(r Request) (*Response, error) {
	if _, err := r.encode(); err != nil { // what the grid would not take
		return nil, err
	}
	q, err := http.NewRequest(r.Method, r.URL, bytes.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	for name, values := range r.Header {
		for _, v := range values {
			q.Header.Add(name, v)
		}
	}
	resp, err := client.Do(q)
	if err != nil {
		return nil, err
	}
	h := Header{}
	for name, values := range resp.Header {
		h[strings.ToLower(name)] = values
	}
	return &Response{Status: resp.StatusCode, Header: h, Body: resp.Body}, nil
}
