package cli

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// TestHelpFits: on a narrow terminal no line of a help is longer than that but for examples, whose lines are to be copied as they are, and
// what is not a terminal gets all of it as it was written.
func TestHelpFits(t *testing.T) {
	help := func(width int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		e := helpEnv(&out, &out)
		e.screen = func() (int, int) { return width, 0 }
		if exit := e.main(t.Context(), args); exit != 0 {
			t.Fatalf("%q: exit %d: %s", args, exit, out.String())
		}
		return out.String()
	}
	for _, args := range [][]string{{"plugin", "--help"}, {"events", "--help"}, {"help", "member"}} {
		wide, narrow := help(0, args...), help(72, args...)
		if strings.Join(strings.Fields(wide), " ") != strings.Join(strings.Fields(narrow), " ") {
			t.Errorf("%q: the words differ:\n%s", args, narrow)
		}
		_, examples, _ := strings.Cut(narrow, "\nExamples:\n")
		examples, _, _ = strings.Cut(examples, "\n\n")
		for line := range strings.Lines(narrow) {
			if line = strings.TrimSuffix(line, "\n"); len(line) > 72 && !strings.Contains(examples, line) {
				t.Errorf("%q: %d columns: %s", args, len(line), line)
			}
		}
	}
}

func TestFold(t *testing.T) {
	text := "one two three\nfour\n\n  as it is, however long it may be\nlooooooooong x"
	want := "one two\nthree four\n\n  as it is, however long it may be\nlooooooooong\nx"
	if got := fold(text, 10); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := fold(text, helpWidth); got != text {
		t.Errorf("%q", got)
	}
}

// fullDisk takes a few bytes, and no more.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// TestNothingGotOut: what could not be printed is an error, whether or not the verb has looked.
func TestNothingGotOut(t *testing.T) {
	for _, args := range []string{"help", "help exit-codes", "help commands", "run --help", "--help", "version", "--version", "completion bash"} {
		var errs bytes.Buffer
		if exit := helpEnv(fullDisk{}, &errs).main(t.Context(), strings.Fields(args)); exit != exitFailure || !strings.Contains(errs.String(), "no space left") {
			t.Errorf("%s: exit %d: %s", args, exit, errs.String())
		}
	}
}

func helpEnv(out, errs io.Writer) *env {
	return &env{ui: newUI(out, errs), stdin: strings.NewReader(""), lookupEnv: os.LookupEnv, now: time.Now, connect: openSession, pause: pauseFor}
}
