package grid

import (
	"log/slog"
	"regexp"
	"strings"
	"time"
)

// LogLine is a line that a task printed, or, with [StreamNote], one that the grid says about what a task printed.
type LogLine struct {
	// At is when it was printed, to about a tenth of a second, while its task runs. Of one that has ended only the end
	// is known: it is that of all its lines.
	At     time.Time `json:"at"`
	Stage  uint32    `json:"stage"`  // of the job, counted from 0
	Task   uint32    `json:"task"`   // its number in the stage, counted from 0
	Node   string    `json:"node"`   // that ran the task
	Stream string    `json:"stream"` // "stdout" or "stderr"; "note": it is the grid's
	// Text is without the newline. What is not UTF-8 is replaced; what has more than MaxLogText bytes goes on in the next line.
	Text string `json:"text"`
	// Live says that the task was running: what it printed does not count if it is run again elsewhere.
	Live bool `json:"live,omitempty"`
	// Place is where who has had this line goes on; see [LogQuery]. "": there is none, go on from an earlier one.
	Place string `json:"-"`
}

// The streams of lines.
const (
	StreamOut  = "stdout"
	StreamErr  = "stderr"
	StreamNote = "note" // of the grid: lines that are left out, a task that is run again
)

// Bounds on lines, and on what is asked for.
const (
	MaxLogText = 16 << 10
	MaxGrep    = 1 << 10
)

// LogQuery says which lines of a job's tasks are wanted. The zero value: all.
type LogQuery struct {
	Stage, Task *uint32   // only of these
	Node        string    // only what ran on this node, by its ID
	Stream      string    // StreamOut or StreamErr: only of this, and no notes
	Since       time.Time // leave out what was printed before
	Grep        string    // only lines in which this pattern, of RE2's syntax, is found, and notes
	Follow      bool      // stay until the job has ended
	Limit       int       // no more lines than this, with those before After; 0: all
	Places      bool      // each line has its Place
	After       string    // the Place to go on from, on any node: leave out what was given before; "": from the beginning
}

// Pattern compiles Grep; nil when there is none.
func (q *LogQuery) Pattern() (*regexp.Regexp, error) { return compileGrep(q.Grep) }

// Check refuses what no lines of a job can be found by.
func (q *LogQuery) Check(id JobID) error {
	if _, err := parseLogPlace(q.After, id); err != nil {
		return err
	}
	switch {
	case q.Limit < 0:
		return Errorf(Invalid, "a limit of %d lines: want at least 1, or 0 for all", q.Limit)
	case q.Stream != "" && q.Stream != StreamOut && q.Stream != StreamErr:
		return Errorf(Invalid, "no stream is called %.40q", q.Stream).Hint("there are %s and %s", StreamOut, StreamErr)
	}
	if q.Node != "" {
		if _, err := ParseNodeID(q.Node); err != nil {
			return err
		}
	}
	_, err := q.Pattern()
	return err
}

// compileGrep compiles a pattern; nil for "".
func compileGrep(text string) (*regexp.Regexp, error) {
	switch {
	case text == "":
		return nil, nil
	case len(text) > MaxGrep:
		return nil, Errorf(Limit, "the pattern to look for has %d bytes, at most %d are allowed", len(text), MaxGrep)
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, Errorf(Invalid, "the pattern %.80q: %w", text, err).Hint("it is in RE2's syntax; \\Q...\\E takes characters as they are")
	}
	return re, nil
}

// LogRecord is one record of a node's own log.
type LogRecord struct {
	ID    uint64            `json:"id"`              // they count up by one while the node runs, and are greater than those of earlier runs
	At    time.Time         `json:"at"`              // when it was logged
	Level string            `json:"level"`           // debug, info, warn or error
	Room  string            `json:"room"`            // the part of the node that says it
	Text  string            `json:"text"`            // the message
	Attrs map[string]string `json:"attrs,omitempty"` // by name, as text
}

// RecordQuery says which records are wanted. The zero value: all that are kept.
type RecordQuery struct {
	Level  string    // this one and above; "": all
	Room   string    // only of this part
	Since  time.Time // leave out earlier ones
	After  uint64    // and those up to this ID
	Grep   string    // only those in which this pattern is found: in the text, or in an attribute as key=value
	Follow bool      // stay for those to come
	Limit  int       // of those that are kept no more than this, the last ones; 0: all
}

// Pattern compiles Grep; nil when there is none.
func (q *RecordQuery) Pattern() (*regexp.Regexp, error) { return compileGrep(q.Grep) }

// Check refuses what no records can be found by.
func (q *RecordQuery) Check() error {
	if q.Limit < 0 {
		return Errorf(Invalid, "a limit of %d records: want at least 1, or 0 for all", q.Limit)
	}
	if q.Level != "" {
		if _, err := ParseLogLevel(q.Level); err != nil {
			return err
		}
	}
	_, err := q.Pattern()
	return err
}

// ParseLogLevel reads debug, info, warn or error.
func ParseLogLevel(text string) (l slog.Level, err error) {
	switch strings.ToLower(text) {
	case "debug", "info", "warn", "error":
		return l, l.UnmarshalText([]byte(text))
	}
	return l, Errorf(Invalid, "%.40q is no level of a log", text).Hint("there are debug, info, warn and error")
}

// LogLevels are the levels from which on a node logs.
type LogLevels struct {
	Default string            `json:"default"` // of rooms that have no level of their own
	Rooms   map[string]string `json:"rooms"`   // of those that differ
	// Known are the rooms that there are. It is ignored in what is sent.
	Known []string `json:"known,omitempty"`
	// Lost counts records that could not be written to where the log goes, since the node started, and Trouble says why, while it
	// lasts. They are ignored in what is sent.
	Lost    uint64 `json:"lost,omitempty"`
	Trouble string `json:"trouble,omitempty"`
}
