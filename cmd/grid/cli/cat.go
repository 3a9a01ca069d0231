package cli

import (
	"context"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) catCommand() *cobra.Command {
	part := filePart{length: -1}
	var open openFlags
	cmd := &cobra.Command{
		Use:   "cat CID[/PATH]...",
		Short: "Print files in the grid",
		Long: `Print the content of files in the grid, one after the other.

With --offset and --length a part of each is printed: from a byte on, which is counted from the end when the
offset is negative, and so many bytes or what there is. Only what is printed is read.

A terminal is shown text only: control characters and escape sequences are written out (\x1b[2J), and a file with a zero byte near
its beginning is refused. A pipe or a file gets each byte as it is, so ` + "`| cat`" + ` shows it all the same.

With --decrypt it is what was encrypted that is printed, and counted; CID may be of an encrypted folder, PATH lead to a file in it.`,
		Example: `  grid cat bafy.../data.csv | head
  grid cat bafy.../log --offset -4k
  grid cat bafy.../disk.img --offset 1MiB --length 512
  grid cat --decrypt bafy.../letters/one.txt`,
		Args: wantArgs(1, -1, "CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := part.checkLength(cmd); err != nil {
				return err
			}
			part.set = cmd.Flags().Changed("offset") || cmd.Flags().Changed("length")
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				for _, ref := range args {
					var err error
					if open.wanted() {
						err = e.catEncrypted(cmd.Context(), s, ref, part, &open)
					} else {
						err = e.cat(cmd.Context(), s, ref, part)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().Var(&part.offset, "offset", "begin at byte `N`, such as 100 or 4k; -N begins so many bytes before the end")
	cmd.Flags().Var(&part.length, "length", "print at most `N` bytes")
	open.define(cmd)
	return cmd
}

// filePart is what of a file to print.
type filePart struct {
	set            bool
	offset, length signedSize
}

// signedSize is a flag that holds bytes, maybe fewer than none.
type signedSize int64

func (f *signedSize) Set(s string) error {
	digits, negative := strings.CutPrefix(s, "-")
	n, err := parseSize(digits)
	if err != nil {
		return err
	}
	if *f = signedSize(n); negative {
		*f = -*f
	}
	return nil
}
func (f *signedSize) Type() string   { return "SIZE" }
func (f *signedSize) String() string { return strconv.FormatInt(int64(*f), 10) }

func (e *env) cat(ctx context.Context, s *session, ref string, part filePart) error {
	root, p, err := resolve(ctx, s, ref)
	if err != nil {
		return err
	}
	var r io.ReadCloser
	if !part.set {
		r, err = s.Cat(ctx, root.Cid, p)
	} else {
		info, serr := s.Stat(ctx, root.Cid, p)
		if serr != nil {
			return serr
		}
		if info.Kind != grid.KindFile {
			r, err = s.Cat(ctx, root.Cid, p) // says so
		} else {
			offset, length, perr := part.of(ref, info.Size)
			if perr != nil || length == 0 {
				return perr
			}
			r, err = s.CatRange(ctx, root.Cid, p, offset, length)
		}
	}
	if err != nil {
		return err
	}
	defer r.Close()
	return e.textOut(ref, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// of is the part of a file of that size, which it checks.
func (p filePart) of(ref string, size int64) (offset, length int64, err error) {
	offset = int64(p.offset)
	if offset < 0 {
		offset += size
	}
	if offset < 0 || offset > size {
		return 0, 0, grid.Errorf(grid.Invalid, "%s has %d bytes: there is no byte %d", ref, size, int64(p.offset)).
			Hint("--offset takes a number from -%d to %d here", size, size)
	}
	if length = size - offset; p.length >= 0 {
		length = min(length, int64(p.length))
	}
	return offset, length, nil
}

// checkLength refuses a length below 0.
func (p filePart) checkLength(cmd *cobra.Command) error {
	if cmd.Flags().Changed("length") && p.length < 0 {
		return usageError(cmd, "--length %d is negative", int64(p.length))
	}
	return nil
}
