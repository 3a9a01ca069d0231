//go:build !unix

package doctor

import "errors"

func diskOf(string) (Disk, error) { return Disk{}, errors.ErrUnsupported }

func owned(string) (bool, error) { return true, nil }

func openFiles() (uint64, error) { return 0, errors.ErrUnsupported }
