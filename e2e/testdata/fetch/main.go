// Fetch is a guest for tests: it fetches the URLs that are its arguments and prints what it gets.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/wasmgrid/wasmgrid/sdk"
)

func main() {
	for _, url := range os.Args[1:] {
		resp, err := sdk.Fetch(sdk.Request{URL: url})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(5)
		}
		fmt.Println(resp.Status)
		if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(6)
		}
		resp.Body.Close()
	}
}
