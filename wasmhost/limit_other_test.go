//go:build !unix

package wasmhost_test

import "testing"

func limitFiles(t *testing.T, _ uint64) { t.Skip("the size of files cannot be limited here") }
