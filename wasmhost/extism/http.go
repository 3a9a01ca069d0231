package extism

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
)

// maxRequest bounds the JSON of a request, which has its URL and headers.
const maxRequest = 256 << 10

// request is the JSON that plug-ins hand over.
type request struct {
	URL     string            `json:"url"`
	Method  string            `json:"method"`
	Headers map[string]string `json:"headers"`
}

// decode makes a request of a plug-in's JSON what package guestnet takes: a line "METHOD URL", and one for each header, in
// order of names. What these may be is for that package to say.
func decode(b []byte) (head string, err error) {
	if len(b) > maxRequest {
		return "", fmt.Errorf("the request has %d bytes of JSON, at most %d are allowed", len(b), maxRequest)
	}
	var r request
	if err := json.Unmarshal(b, &r); err != nil {
		return "", fmt.Errorf("the request is not JSON of the form {\"url\": …, \"method\": …, \"headers\": {…}}: %w", err)
	}
	if r.Method == "" {
		r.Method = "GET"
	}
	var text strings.Builder
	line := func(what, value string) error {
		if strings.ContainsFunc(value, unicode.IsControl) {
			return fmt.Errorf("the request has a control character in its %s", what)
		}
		text.WriteString(value)
		return nil
	}
	if err := line("method or URL", strings.ToUpper(r.Method)+" "+r.URL); err != nil {
		return "", err
	}
	names := make([]string, 0, len(r.Headers))
	for name := range r.Headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.EqualFold(name, "content-length") { // is said by the host
			continue
		}
		text.WriteByte('\n')
		if err := line("headers", name+": "+r.Headers[name]); err != nil {
			return "", err
		}
	}
	return text.String(), nil
}

// fetch makes a request, and a block of the response's body; 0 when that is empty.
func (s *State) fetch(ctx context.Context, head string, body []byte) (off uint64, err error) {
	s.status, s.headers = 0, nil
	if s.cfg.Net == nil {
		return 0, errors.New("there is no network here")
	}
	resp, err := s.cfg.Net.Fetch(ctx, head, body)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	off, _, ok, err := s.fill(func(b []byte) (int, error) {
		n, err := io.ReadFull(resp.Body, b)
		s.cfg.WASI.Moved(ctx, n)
		s.cfg.WASI.Proceed(ctx)
		if err == io.ErrUnexpectedEOF {
			err = io.EOF
		}
		return n, err
	})
	switch {
	case err != nil:
		return 0, err
	case !ok:
		return 0, errMemory
	}
	s.status, s.headers = resp.Status, resp.Header
	return off, nil
}

// encodeHeaders gives the last response's headers: an object of names in lower case, and the values of each with commas
// between. There are none before a response.
func (s *State) encodeHeaders() ([]byte, error) {
	if s.headers == nil {
		return nil, nil
	}
	out := make(map[string]string, len(s.headers))
	for name, values := range s.headers {
		out[strings.ToLower(name)] = strings.Join(values, ",")
	}
	return json.Marshal(out)
}
