package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/wasmgrid/wasmgrid/cmd/grid/jobfile"
)

// ui is the two streams people see. Both writers may be used from several goroutines; when the streams
// share a terminal, a progress line is taken away before anything else is written.
type ui struct {
	out, err io.Writer
	terminal bool // out is one
	colour   bool
	quiet    bool
	width    func() int                 // of the terminal at stderr; 0 when it is none
	screen   func() (width, height int) // of the terminal at stdout; 0, 0 when it is none

	mu      sync.Mutex
	drawn   bool // the progress line is on the terminal
	midLine bool // the terminal's cursor is not at the start of a line
	raw     io.Writer
}

// newUI looks at what the streams are. Only files can be terminals.
func newUI(stdout, stderr io.Writer) *ui {
	u := &ui{raw: stderr, width: func() int { return 0 }, screen: func() (int, int) { return 0, 0 }}
	_, noColour := os.LookupEnv("NO_COLOR")
	if f, ok := stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) && !plainTerminal() {
		u.colour = !noColour
		u.width = func() int {
			w, _, err := term.GetSize(int(f.Fd()))
			if err != nil || w <= 0 {
				return 80
			}
			return w
		}
	}
	if f, ok := stdout.(*os.File); ok {
		if u.terminal = term.IsTerminal(int(f.Fd())); u.terminal {
			u.screen = func() (int, int) {
				w, h, err := term.GetSize(int(f.Fd()))
				if err != nil {
					return 0, 0
				}
				return w, h
			}
		}
	}
	u.out = &lineWriter{u: u, w: stdout, shared: u.terminal}
	u.err = &lineWriter{u: u, w: stderr, shared: true}
	return u
}

// plainTerminal reports whether the terminal takes no more than text, or says nothing of itself, as only one on Windows may.
func plainTerminal() bool {
	kind := os.Getenv("TERM")
	return kind == "dumb" || kind == "" && runtime.GOOS != "windows"
}

// lineWriter clears the progress line before it writes to the terminal.
type lineWriter struct {
	u      *ui
	w      io.Writer
	shared bool  // with the terminal that shows the progress
	failed error // the first error of w, as not all who print look at it
}

func (l *lineWriter) Write(p []byte) (int, error) {
	l.u.mu.Lock()
	defer l.u.mu.Unlock()
	if l.shared && len(p) > 0 {
		l.u.eraseLocked()
		l.u.midLine = p[len(p)-1] != '\n'
	}
	n, err := l.w.Write(p)
	if l.failed == nil {
		l.failed = err
	}
	return n, err
}

// lost is why something that was printed on standard output did not get there; nil: all did.
func (u *ui) lost() error {
	out, ok := u.out.(*lineWriter)
	if !ok {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return out.failed
}

func (u *ui) eraseLocked() {
	if u.drawn {
		io.WriteString(u.raw, "\r\x1b[K")
		u.drawn = false
	}
}

// draw shows the progress line, unless a guest has left the cursor inside a line of its own.
func (u *ui) draw(line string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.midLine {
		io.WriteString(u.raw, "\r\x1b[K"+line)
		u.drawn = true
	}
}

func (u *ui) erase() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.eraseLocked()
}

// endLine begins a new line if what a guest wrote last has not ended one, so that our words stand by themselves. Nothing is
// added to what goes to a file or a pipe.
func (u *ui) endLine() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if out, ok := u.out.(*lineWriter); ok && u.midLine && u.terminal {
		u.midLine = false
		io.WriteString(out.w, "\n")
	}
}

// note tells the user something that is neither result nor error.
func (u *ui) note(format string, args ...any) {
	if !u.quiet {
		u.endLine()
		fmt.Fprintf(u.err, "%s %s\n", u.paint(dim, "grid:"), printableLines(fmt.Sprintf(format, args...)))
	}
}

func (u *ui) hint(format string, args ...any) {
	if !u.quiet {
		fmt.Fprintf(u.err, "  %s %s\n", u.paint(bold, "hint:"), printableLines(fmt.Sprintf(format, args...)))
	}
}

type style string

const (
	bold style = "1"
	dim  style = "2"
	red  style = "31"
)

func (u *ui) paint(s style, text string) string {
	if !u.colour {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// printJSON writes one document to stdout.
func (u *ui) printJSON(v any) error { return u.writeJSON(v, "  ") }

// writeJSON writes a document, in one line if indent is "". For a terminal it is escaped, which leaves the document what it is.
func (u *ui) writeJSON(v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return err
	}
	data := b.Bytes()
	if u.terminal {
		data = escapeJSON(data, unicode.MaxRune)
	}
	_, err := u.out.Write(data)
	return err
}

// escapeJSON escapes what a terminal would take for more than text, such as the controls from U+0080 on, which JSON allows: up to a character.
func escapeJSON(data []byte, last rune) []byte {
	var b []byte
	for _, r := range string(data) {
		switch {
		case r == '\n' || r > last || strconv.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, hi, lo)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return b
}

// table writes rows in columns, whatever others may have put into them. The first row is the heading.
func (u *ui) table(rows [][]string) error {
	w := tabwriter.NewWriter(u.out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		for i, cell := range r {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, printable(cell))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// printable makes text from outside safe for a terminal: control characters are escaped, and what is
// not UTF-8.
func printable(s string) string {
	clean := utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) < 0
	if clean {
		return s
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// printableLines is printable for text of several lines, with tabs: an error may have words of guests and plugins in it.
func printableLines(s string) string {
	var b strings.Builder
	for piece := range strings.SplitAfterSeq(s, "\n") {
		for i, cell := range strings.Split(strings.TrimSuffix(piece, "\n"), "\t") {
			if i > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(printable(cell))
		}
		if strings.HasSuffix(piece, "\n") {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// formatSize writes bytes for people.
func formatSize[T int64 | uint64](n T) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for ; f >= 1023.95 && i < 5; i++ {
		f /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTPE"[i])
}

func parseSize(s string) (uint64, error) { return jobfile.ParseSize(s) }

// sizeFlag is a flag that holds bytes.
type sizeFlag uint64

func (f *sizeFlag) Set(s string) error {
	n, err := parseSize(s)
	*f = sizeFlag(n)
	return err
}
func (f *sizeFlag) Type() string { return "SIZE" }
func (f *sizeFlag) String() string {
	if *f == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(*f), 10)
}

// formatTime writes a span of time for people, with about three digits.
func formatTime(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return strings.TrimSuffix(d.Round(time.Second).String(), "m0s") + map[bool]string{true: "m"}[d.Round(time.Second)%time.Minute == 0]
}

// plural writes a count with its noun.
func plural[T int | int64 | uint32 | uint64](n T, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// indent sets text off from the message around it.
func indent(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") }
