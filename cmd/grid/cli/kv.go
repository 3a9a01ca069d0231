package cli

import (
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

func (e *env) kvCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kv",
		Short: "Keep small values in the realm's ledger",
		Long: `Keep small values by key in the ledger, which all nodes of the realm share. A read sees every write that was
acknowledged before, at whatever node; a write is durable when it is acknowledged. Each write gives an entry a new
version; with --if-version it takes place only if nobody else was faster. A value has at most 1 MiB.`,
		Example: `  grid kv put config/threads 8
  grid kv get config/threads
  grid kv ls config/`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.kvGetCommand(), e.kvPutCommand(), e.kvDeleteCommand(), e.kvListCommand(), e.kvWatchCommand(), e.kvTxnCommand())
	return cmd
}

func (e *env) kvGetCommand() *cobra.Command {
	var stale bool
	var show output
	cmd := &cobra.Command{
		Use:     "get KEY",
		Short:   "Print a value",
		Long:    "Print a value, its bytes as they are. With --json its version comes along.",
		Example: "  grid kv get config/threads\n  grid kv get config/threads --json",
		Args:    wantArgs(1, 1, "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				k, err := s.KVGet(cmd.Context(), args[0], stale)
				if err != nil {
					return err
				}
				if show.formatted() {
					return show.print(k)
				}
				value, err := k.Bytes()
				if err == nil {
					_, err = e.out.Write(value)
				}
				return err
			})
		},
	}
	show.prints(e, cmd, "{{.key}}")
	cmd.Flags().BoolVar(&stale, "stale", false, "print what the node knows, though it may be out of date")
	return cmd
}

// revision prints what a write came to.
func (e *env) revision(key string, revision uint64, show *output) error {
	if show.formatted() {
		return show.print(struct {
			Key      string `json:"key,omitempty"`
			Revision uint64 `json:"revision"`
		}{key, revision})
	}
	_, err := fmt.Fprintln(e.out, revision)
	return err
}

// takeAll reads a file, or standard input for "-", of limited size.
func (e *env) takeAll(name string, limit int64) ([]byte, error) {
	r := e.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, grid.Errorf(codeOfOS(err), "%s: %w", name, reason(err))
		}
		defer f.Close()
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, grid.Errorf(codeOfOS(err), "read %s: %w", name, reason(err))
	}
	if int64(len(data)) > limit {
		return nil, grid.Errorf(grid.Limit, "%s has more than %d bytes", name, limit)
	}
	return data, nil
}

func (e *env) kvPutCommand() *cobra.Command {
	var cond api.KVCond
	var file string
	var show output
	cmd := &cobra.Command{
		Use:   "put KEY VALUE | KEY - | KEY --file FILE",
		Short: "Write a value",
		Long: `Write a value, and print the revision, which is its version from then on. The value is an argument, a file, or with -
what comes through standard input.

With --if-version or --if-absent it is written only if that holds; else the exit code is 68 and nothing is changed.`,
		Example: `  grid kv put config/threads 8
  grid kv put config/threads 9 --if-version 41
  grid kv put lock mine --if-absent
  grid kv put picture --file small.png`,
		Args: wantArgs(1, 2, "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			set := cmd.Flags().Changed
			switch {
			case set("file") == (len(args) == 2):
				return usageError(cmd, "want a VALUE, or -, or --file")
			case set("if-version") && cond.Absent:
				return usageError(cmd, "--if-version and --if-absent exclude each other")
			case set("if-version") && cond.Version == 0:
				return usageError(cmd, "--if-version 0: no entry has that; --if-absent is for keys that are not there")
			}
			var value []byte
			var err error
			switch {
			case set("file"):
				value, err = e.takeAll(file, grid.MaxLedgerValue)
			case args[1] == "-":
				value, err = e.takeAll("-", grid.MaxLedgerValue)
			default:
				value = []byte(args[1])
			}
			if err != nil {
				return err
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				revision, err := s.KVPut(cmd.Context(), args[0], value, cond)
				if err != nil {
					return err
				}
				return e.revision(args[0], revision, &show)
			})
		},
	}
	cmd.Flags().Uint64Var(&cond.Version, "if-version", 0, "only if it has version `N`")
	cmd.Flags().BoolVar(&cond.Absent, "if-absent", false, "only if there is no such key")
	cmd.Flags().StringVar(&file, "file", "", "write what is in `FILE`")
	show.prints(e, cmd, "{{.revision}}")
	return cmd
}

func (e *env) kvDeleteCommand() *cobra.Command {
	var cond api.KVCond
	var show output
	cmd := &cobra.Command{
		Use:     "del KEY",
		Short:   "Remove a key",
		Long:    "Remove a key with its value, and print the revision at which that happened.",
		Example: "  grid kv del config/threads\n  grid kv del lock --if-version 41",
		Args:    wantArgs(1, 1, "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("if-version") && cond.Version == 0 {
				return usageError(cmd, "--if-version 0: no entry has that")
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				revision, err := s.KVDelete(cmd.Context(), args[0], cond)
				if err != nil {
					return err
				}
				return e.revision(args[0], revision, &show)
			})
		},
	}
	cmd.Flags().Uint64Var(&cond.Version, "if-version", 0, "only if it has version `N`")
	show.prints(e, cmd, "{{.revision}}")
	return cmd
}

func (e *env) kvListCommand() *cobra.Command {
	var q api.KVQuery
	var show output
	cmd := &cobra.Command{
		Use:   "ls [PREFIX]",
		Short: "List keys",
		Long: `List the keys that begin with PREFIX, in order, with versions and values, all as they were at one moment. What is not
text is shown escaped, and what is long is cut off; --json has all of it.`,
		Example: "  grid kv ls config/\n  grid kv ls --keys-only\n  grid kv ls --json",
		Args:    wantArgs(0, 1, "PREFIX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.Limit < 0 {
				return usageError(cmd, "--limit %d is negative", q.Limit)
			}
			if len(args) > 0 {
				q.Prefix = args[0]
			}
			limit := q.Limit
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				all := api.KVPage{Entries: []api.KV{}}
				for {
					p, err := s.KVRange(cmd.Context(), q)
					if err != nil {
						return err
					}
					all.Entries, all.Revision, all.More = append(all.Entries, p.Entries...), p.Revision, p.More
					if !p.More || len(p.Entries) == 0 || limit > 0 && len(all.Entries) >= limit {
						break
					}
					q.After, q.At = p.Entries[len(p.Entries)-1].Key, p.Revision
					if limit > 0 {
						q.Limit = limit - len(all.Entries)
					}
				}
				if show.formatted() {
					return show.print(all)
				}
				var rows [][]string
				for i := range all.Entries {
					k := &all.Entries[i]
					if q.KeysOnly {
						rows = append(rows, []string{printable(k.Key)})
						continue
					}
					rows = append(rows, []string{printable(k.Key), fmt.Sprint(k.Version), valueText(k)})
				}
				if all.More {
					e.note("there are more than these")
				}
				return e.table(rows)
			})
		},
	}
	cmd.Flags().IntVar(&q.Limit, "limit", 0, "list at most `N` keys")
	cmd.Flags().BoolVar(&q.KeysOnly, "keys-only", false, "list keys without values")
	cmd.Flags().BoolVar(&q.Stale, "stale", false, "list what the node knows, though it may be out of date")
	show.lists(e, cmd, "{{range .entries}}{{line .key}}{{end}}")
	return cmd
}

// shownValue is how much of a value is shown to people.
const shownValue = 80

func valueText(k *api.KV) string {
	value, err := k.Bytes()
	if err != nil {
		return ""
	}
	if len(value) <= shownValue {
		return printable(string(value))
	}
	cut := shownValue
	for cut > shownValue-utf8.UTFMax && !utf8.RuneStart(value[cut]) {
		cut--
	}
	return fmt.Sprintf("%s… (%s)", printable(string(value[:cut])), plural(len(value), "byte"))
}

func (e *env) kvWatchCommand() *cobra.Command {
	var from uint64
	var show output
	cmd := &cobra.Command{
		Use:   "watch [PREFIX]",
		Short: "Print changes of keys as they come",
		Long: `Print every change of the keys that begin with PREFIX, in order and without gaps, until it is interrupted: the revision,
put or del, the key, and the value. With --from it begins with what has changed since that revision, as far as
that is still known. With --json each transaction is a line; the first one says where the watch begins.`,
		Example: "  grid kv watch config/\n  grid kv watch --from 41 --json",
		Args:    wantArgs(0, 1, "PREFIX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix := ""
			if len(args) > 0 {
				prefix = args[0]
			}
			var after *uint64
			if cmd.Flags().Changed("from") {
				after = &from
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				return s.KVWatch(cmd.Context(), prefix, after, func(c api.KVChanges) error {
					if show.formatted() {
						return show.line(c)
					}
					for i := range c.Put {
						if _, err := fmt.Fprintf(e.out, "%d put %s %s\n", c.Revision, printable(c.Put[i].Key), valueText(&c.Put[i])); err != nil {
							return err
						}
					}
					for _, key := range c.Delete {
						if _, err := fmt.Fprintf(e.out, "%d del %s\n", c.Revision, printable(key)); err != nil {
							return err
						}
					}
					return nil
				})
			})
		},
	}
	cmd.Flags().Uint64Var(&from, "from", 0, "begin with what has changed since revision `REV`")
	show.prints(e, cmd, "{{.revision}}")
	return cmd
}

func (e *env) kvTxnCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "txn FILE",
		Short: "Change several keys together, or none",
		Long: `Apply a transaction: if all its conditions hold, all of it is done at one moment; else the exit code is 68 and nothing
is changed. The revision is printed. FILE is a JSON document; - is standard input:

  {
    "if":     [{"key": "a", "version": 41}, {"key": "b", "absent": true},
               {"prefix": "c/", "count": 2, "version": 40}],
    "put":    [{"key": "a", "text": "plain"}, {"key": "b", "value": "` + base64.StdEncoding.EncodeToString([]byte("base64")) + `"}],
    "delete": ["c/1"]
  }

A condition is about a key, that it has a version or is absent; or about all keys with a prefix, that they are so
many and none is newer than a version. A value is text, or bytes in base64. With "id", 32 hexadecimal digits, the
same document may be sent again when its answer was lost: it is applied once.`,
		Example: "  grid kv txn move.json\n  echo '{\"delete\": [\"a\", \"b\"]}' | grid kv txn -",
		Args:    wantArgs(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := e.takeAll(args[0], 32<<20)
			if err != nil {
				return err
			}
			doc, err := api.ParseTxn(data)
			if err != nil {
				return err
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				revision, err := s.KVTxn(cmd.Context(), doc)
				if err != nil {
					return err
				}
				return e.revision("", revision, &show)
			})
		},
	}
	show.prints(e, cmd, "{{.revision}}")
	return cmd
}
