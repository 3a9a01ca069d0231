// Grep prints the lines of files that match a regular expression, with file and line. Its flags are those of grep.
//
// It is the lesson for reading as a stream: a line at a time, so that a task's inputs may be larger than its memory, and for
// telling how it goes, by progress and counters.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"

	"github.com/wasmgrid/wasmgrid/sdk"
)

var (
	fold   = flag.Bool("i", false, "case does not matter")
	invert = flag.Bool("v", false, "the lines that do not match")
	whole  = flag.Bool("w", false, "only whole words match")
	fixed  = flag.Bool("F", false, "the pattern is a text, and no regular expression")
	only   = flag.Bool("o", false, "print what matches, not its line")
	count  = flag.Bool("c", false, "print how many lines match in each file")
	names  = flag.Bool("l", false, "print the files in which one matches")
	most   = flag.Uint64("m", 0, "stop at a file after so many lines that match; 0: never")
)

func main() {
	sdk.Main(sdk.Do("grep", grep).Doc("Prints the lines that match a regular expression: its only argument, behind the flags."))
}

func grep(ctx sdk.Context) error {
	if len(ctx.Args()) != 1 {
		return fmt.Errorf("%d arguments, want one, a pattern", len(ctx.Args()))
	}
	re, err := compile(ctx.Args()[0])
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(ctx.Stdout(), 64<<10)
	done := uint64(0)
	for in, err := range ctx.Inputs() {
		if err != nil {
			return err
		}
		s := search{re: re, name: in.Name, out: out}
		if err := s.run(in); err != nil {
			return err
		}
		// A job's counters are the sums of its tasks'. A task that finds nothing counts, too: then the counter is there.
		ctx.Count("lines", s.lines)
		ctx.Count("matches", s.matches)
		done++
		ctx.Progress(done, 0) // how many inputs there are, a task that reads them one by one does not know
	}
	return out.Flush()
}

// compile makes one regular expression of the pattern and the flags.
func compile(pattern string) (*regexp.Regexp, error) {
	if *fixed {
		pattern = regexp.QuoteMeta(pattern)
	}
	if *whole {
		pattern = `\b(?:` + pattern + `)\b`
	}
	if *fold {
		pattern = `(?i)` + pattern
	}
	return regexp.Compile(pattern)
}

// search is one file's.
type search struct {
	re             *regexp.Regexp
	name           string
	out            *bufio.Writer // it keeps its first error, which Flush gives
	lines, matches uint64
}

// maxLine is how long a line may be: what a line takes in memory is bounded, whatever the file is.
const maxLine = 1 << 20

func (s *search) run(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for lines.Scan() {
		s.lines++
		if s.re.Match(lines.Bytes()) == *invert {
			continue
		}
		s.matches++
		if *names {
			break // one is enough
		}
		if !*count {
			s.print(lines.Bytes())
		}
		if s.matches == *most {
			break
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("line %d has more than %d bytes: is it text?", s.lines+1, maxLine)
	} else if err != nil {
		return err
	}
	switch {
	case *names && s.matches > 0:
		fmt.Fprintln(s.out, s.name)
	case *count && !*names:
		fmt.Fprintf(s.out, "%s:%d\n", s.name, s.matches)
	}
	return nil
}

func (s *search) print(line []byte) {
	if !*only {
		fmt.Fprintf(s.out, "%s:%d:%s\n", s.name, s.lines, line)
		return
	}
	for _, part := range s.re.FindAll(line, -1) { // with -v there is none
		fmt.Fprintf(s.out, "%s:%d:%s\n", s.name, s.lines, part)
	}
}
