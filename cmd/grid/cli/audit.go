package cli

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) auditCommand() *cobra.Command {
	var since, export string
	var verify bool
	var show output
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who did what to the realm",
		Long: `Show the realm's audit log: who joined or was removed, who submitted, cancelled or removed jobs, changed refs, plugins,
policies and secrets. Each entry was signed by the node that did it, and a chain of hashes goes through all of them: what was
changed, cut out or moved is found, whenever the log is read.

--verify prints what the check came to instead of the entries. --export writes the log to a file that "grid audit verify" can check
anywhere, without a node: it is signed by this one. With --since, what was put away earlier is left out of it.`,
		Example: `  grid audit --since 24h
  grid audit --verify
  grid audit --export audit.jsonl
  grid audit verify audit.jsonl`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := parseSince(since, e.now())
			if err != nil {
				return usageError(cmd, "--since %q: %v", since, err)
			}
			if verify && export != "" {
				return usageError(cmd, "--verify and --export exclude each other")
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				log, err := s.Audit(cmd.Context(), from)
				if err != nil {
					return err
				}
				defer log.Close()
				switch {
				case export != "":
					return e.exportAudit(log, export, &show)
				case verify:
					return e.checkAudit(log, "the audit log", &show)
				}
				return e.showAudit(log, from, &show)
			})
		},
	}
	cmd.AddCommand(e.auditVerifyCommand())
	cmd.Flags().StringVar(&since, "since", "", "only what came after a `TIME`: 24h ago, or a date such as 2006-01-02 or 2006-01-02T15:04:05Z")
	show.prints(e, cmd, "")
	cmd.Flags().BoolVar(&verify, "verify", false, "check the log, and print what that came to")
	cmd.Flags().StringVar(&export, "export", "", "write the log to a `FILE`")
	return cmd
}

func (e *env) auditVerifyCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check an exported audit log",
		Long: `Check a file that "grid audit --export" has written: whether every entry was signed by its node, whether the chain has all
of them in their order, and whether the file is what the node named in it has exported. It needs no node. Who made the file
up with a key of their own is told by that node's name: compare it, or the sum, with "grid audit --verify".`,
		Example: "  grid audit verify audit.jsonl\n  grid audit verify --json - < audit.jsonl",
		Args:    wantArgs(1, 1, "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			in := e.stdin
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return grid.Errorf(codeOfOS(err), "audit log: %w", err)
				}
				defer f.Close()
				in = f
			}
			return e.checkAudit(in, args[0], &show)
		},
	}
	show.prints(e, cmd, "")
	return cmd
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// parseSince reads a time, or how long ago it was.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	t, err := time.ParseInLocation(time.DateOnly, text, time.Local)
	if err != nil {
		return t, grid.Errorf(grid.Invalid, "want a time such as 24h, 2006-01-02 or 2006-01-02T15:04:05Z")
	}
	return t, nil
}

func (e *env) showAudit(log io.Reader, since time.Time, show *output) error {
	rows := [][]string{{"NO", "TIME", "NODE", "ACT", "SUBJECT", "ABOUT"}}
	r, err := grid.CheckAudit(log, func(l *grid.AuditLine) error {
		f := l.Fact
		if f == nil || f.Time.Before(since) {
			return nil
		}
		if show.formatted() {
			return show.line(l)
		}
		about := f.Note
		if f.CID.Defined() && f.Act != grid.ActSubmit {
			about = strings.TrimSuffix(f.CID.String()+" "+about, " ")
		}
		if f.User != "" && f.User != f.Node.String() {
			about += ", for " + f.User
		}
		rows = append(rows, []string{number(l.N), f.Time.Local().Format(time.DateTime), printable(shortNode(f.Node.String())), printable(string(f.Act)),
			printable(f.Subject), printable(about)})
		return nil
	})
	if err != nil {
		return err
	}
	if !show.formatted() {
		if len(rows) == 1 {
			e.note("the audit log has no entries%s", map[bool]string{true: " since then"}[!since.IsZero()])
		} else if err := e.table(rows); err != nil {
			return err
		}
	}
	return e.auditTrouble(&r, "the audit log")
}

// auditTrouble prints what is wrong with a log, and is an error if anything is.
func (e *env) auditTrouble(r *grid.AuditReport, name string) error {
	if r.OK() {
		return nil
	}
	for _, p := range r.Problems {
		where := "at the end"
		if p.Line > 0 {
			where = "line " + number(p.Line)
		}
		if p.Entry > 0 {
			where = "entry " + number(p.Entry) + ", " + where
		}
		e.note("%s: %s", where, printable(p.What))
	}
	if r.More > 0 {
		e.note("and %s more", plural(r.More, "problem"))
	}
	return grid.Errorf(grid.Corrupt, "%s is not what the nodes of the realm have written", name).
		Hint("compare it with an export from another node, or from before")
}

func (e *env) checkAudit(log io.Reader, name string, show *output) error {
	r, err := grid.CheckAudit(log, nil)
	if err != nil {
		return err
	}
	if show.formatted() {
		if err := show.print(r); err != nil {
			return err
		}
		if r.OK() {
			return nil
		}
		return &exitError{exitOf(grid.Corrupt), nil}
	}
	if err := e.auditTrouble(&r, name); err != nil {
		return err
	}
	return e.table(auditRows(&r))
}

func auditRows(r *grid.AuditReport) [][]string {
	rows := [][]string{
		{"realm", printable(r.Realm) + " " + printable(r.RealmID)},
		{"exported", r.Made.Local().Format(time.DateTime) + " by " + printable(r.By.String())},
		{"entries", number(r.Entries) + " in " + plural(r.Blocks, "block") + " and the tail: all as signed, none missing"},
		{"sum", printable(r.Sum)},
	}
	if !r.Since.IsZero() {
		rows = append(rows, []string{"since", r.Since.Local().Format(time.DateTime) + ", and what was put away with it"})
	}
	return rows
}

// exportAudit writes the log to a file, which is there when it is whole.
func (e *env) exportAudit(log io.Reader, name string, show *output) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".grid-audit-*")
	if err != nil {
		return grid.Errorf(codeOfOS(err), "export the audit log: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name()) // it has another name when it is whole
		}
	}()
	r, err := grid.CheckAudit(io.TeeReader(log, f), nil)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return grid.Errorf(codeOfOS(err), "export the audit log: %w", err)
	}
	if err := f.Close(); err != nil {
		return grid.Errorf(codeOfOS(err), "export the audit log: %w", err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return grid.Errorf(codeOfOS(err), "export the audit log: %w", err)
	}
	if show.formatted() {
		err = show.print(r)
	} else if r.OK() {
		err = e.table(auditRows(&r))
	}
	if err != nil {
		return err
	}
	return e.auditTrouble(&r, "the audit log")
}
