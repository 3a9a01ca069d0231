package cli

import (
	"bytes"
	"io"
	"unicode/utf8"

	"github.com/wasmgrid/wasmgrid/grid"
)

// visibleWriter gives a terminal the text of others: lines as printableLines shows them, whose carriage return at the end
// goes. What is behind the last newline waits for end.
type visibleWriter struct {
	w     io.Writer
	probe int // so many bytes wait until there are as many, and are refused if they are no text; 0: none
	line  []byte
}

// probeText is where git looks for a zero byte, too, which text has none of.
const probeText = 8000

var errNoText = grid.Errorf(grid.Invalid, "it is not text, and would go to a terminal").
	Hint("send it to a file with `> FILE`, or to a program with `| PROGRAM`; `grid get` writes files, too")

func (v *visibleWriter) Write(b []byte) (int, error) {
	v.line = append(v.line, b...)
	if len(v.line) < v.probe {
		return len(b), nil
	}
	if err := v.probed(); err != nil {
		return 0, err
	}
	whole := bytes.LastIndexByte(v.line, '\n') + 1
	if whole == 0 && len(v.line) > maxPrefixLine { // to be broken, but within no character
		whole = len(v.line)
		for k := 1; k < utf8.UTFMax; k++ {
			if r := v.line[whole-k:]; utf8.RuneStart(r[0]) {
				if !utf8.FullRune(r) {
					whole -= k
				}
				break
			}
		}
	}
	return len(b), v.put(whole)
}

func (v *visibleWriter) probed() error {
	if bytes.IndexByte(v.line[:min(v.probe, len(v.line))], 0) >= 0 {
		return errNoText
	}
	v.probe = 0
	return nil
}

// put writes the first n bytes that wait.
func (v *visibleWriter) put(n int) error {
	if n == 0 {
		return nil
	}
	text := bytes.ReplaceAll(v.line[:n], []byte("\r\n"), []byte("\n"))
	_, err := io.WriteString(v.w, printableLines(string(text)))
	v.line = v.line[:copy(v.line, v.line[n:])]
	return err
}

// end writes what is left.
func (v *visibleWriter) end() error {
	if err := v.probed(); err != nil {
		return err
	}
	return v.put(len(v.line))
}

// textOut has f write the content of a file to standard output. A terminal gets text only, and of that what is visible.
func (e *env) textOut(ref string, f func(io.Writer) error) error {
	if !e.terminal {
		return f(e.out)
	}
	v := &visibleWriter{w: e.out, probe: probeText}
	err := f(v)
	if err == nil {
		err = v.end()
	}
	if err == errNoText {
		err = grid.Errorf(grid.CodeOf(err), "%s: %w", printable(ref), err)
	}
	return err
}
