// Command fetch is a guest that uses the network, for the tests.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/wasmgrid/wasmgrid/sdk"
)

func main() {
	switch os.Args[1] {
	case "get": // each URL, one after the other
		for _, url := range os.Args[2:] {
			get(sdk.Request{URL: url})
		}
	case "post": // to a URL, as many bytes
		n, _ := strconv.Atoi(os.Args[3])
		h := sdk.Header{}
		h.Set("X-Mine", "value")
		get(sdk.Request{Method: "POST", URL: os.Args[2], Header: h, Body: []byte(strings.Repeat("x", n))})
	case "smuggle":
		_, err := sdk.Fetch(sdk.Request{URL: os.Args[2], Header: sdk.Header{"x": {"a\rHost: evil"}}})
		tell(err)
		_, err = sdk.Fetch(sdk.Request{URL: os.Args[2], Header: sdk.Header{"host": {"evil"}}})
		tell(err)
	case "leak": // responses of a URL, as many, and exit with them open
		n, _ := strconv.Atoi(os.Args[3])
		open := 0
		var last error
		for range n {
			if _, err := sdk.Fetch(sdk.Request{URL: os.Args[2]}); err != nil {
				last = err
			} else {
				open++
			}
		}
		fmt.Println("open", open)
		tell(last)
	}
}

func get(r sdk.Request) {
	resp, err := sdk.Fetch(r)
	if err != nil {
		tell(err)
		return
	}
	body, err := io.ReadAll(resp.Body)
	if len(body) > 100 {
		body = fmt.Appendf(nil, "%d bytes", len(body))
	}
	fmt.Printf("%d %q %s\n", resp.Status, resp.Header["x-server"], body)
	if err != nil {
		tell(err)
	}
	if err := resp.Body.Close(); err != nil {
		tell(err)
	}
}

// tell prints an error with its number.
func tell(err error) {
	var errno syscall.Errno
	errors.As(err, &errno)
	fmt.Printf("error %d: %v\n", errno, err)
}
