package sdk

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Request is an HTTP request for [Fetch].
type Request struct {
	Method string // "" is GET
	URL    string // http or https, in ASCII
	Header Header
	Body   []byte
}

// Response is what came of it.
type Response struct {
	Status int // such as 200
	Header Header
	Body   io.ReadCloser // to be closed; reading it to its end first lets the connection be used again
}

// Header holds HTTP headers, their names in lower case.
type Header map[string][]string

// Get gives the first value of a header, "" without one.
func (h Header) Get(name string) string {
	if v := h[strings.ToLower(name)]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Set makes value the only one of a header; Add adds it to those there are.
func (h Header) Set(name, value string) { h[strings.ToLower(name)] = []string{value} }

// Add adds a value to a header.
func (h Header) Add(name, value string) {
	name = strings.ToLower(name)
	h[name] = append(h[name], value)
}

// Fetch makes an HTTP request. On the grid it may go where the job was allowed to, as with
// `grid run --allow-net example.org:443`, and a task that may is run anew each time; elsewhere it goes
// anywhere. An answer with any status is a response, not an error, and so is a redirect: to follow it,
// fetch the URL in its header "location". On the grid errors wrap a syscall.Errno that docs/abi.md lists. A program built for the grid that calls Fetch needs the grid to
// run: no other runtime has the function that it imports.
func Fetch(r Request) (*Response, error) {
	if r.Method == "" {
		r.Method = "GET"
	}
	resp, err := fetch(r)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", r.URL, err)
	}
	return resp, nil
}

// encode writes a request in the format of docs/abi.md. What would be taken for more than it is, is refused.
func (r Request) encode() ([]byte, error) {
	if strings.ContainsAny(r.Method, " \n") || strings.Contains(r.URL, "\n") {
		return nil, fmt.Errorf("method %q or URL has a space or newline", r.Method)
	}
	b := fmt.Appendf(nil, "%s %s\n", r.Method, r.URL)
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range r.Header[name] {
			if name == "" || strings.ContainsAny(name, ":\n") || strings.Contains(value, "\n") {
				return nil, fmt.Errorf("header %q: %q has a newline or no proper name", name, value)
			}
			b = fmt.Appendf(b, "%s: %s\n", name, value)
		}
	}
	b = append(b, '\n')
	return append(b, r.Body...), nil
}

// readHead reads a response's status and headers in the format of docs/abi.md.
func readHead(in *bufio.Reader) (*Response, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return nil, noEOF(err)
	}
	code, _, _ := strings.Cut(line, " ")
	r := &Response{Header: Header{}}
	if r.Status, err = strconv.Atoi(code); err != nil {
		return nil, fmt.Errorf("the host gives the status line %q", line)
	}
	for {
		line, err := in.ReadString('\n')
		switch {
		case err != nil:
			return nil, noEOF(err)
		case line == "\n":
			return r, nil
		}
		name, value, ok := strings.Cut(line[:len(line)-1], ": ")
		if !ok {
			return nil, fmt.Errorf("the host gives the header line %q", line)
		}
		r.Header.Add(name, value)
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
