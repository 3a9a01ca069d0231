//go:build !unix

package nodelog

import "os"

// takeStderr does nothing here: what a process writes to standard error goes on to the file that was put aside.
func takeStderr(*os.File) {}
