package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
)

func (e *env) kvCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kv",
		Short: "Keep small values that all nodes agree on",
		Long: `Keep small values in the realm's ledger. A write is acknowledged once a majority of the ledger's voters has it on
disk, and every later read at any node sees it. Changes can be made on condition, several at once, and watched.

Values have up to 1 MiB; larger things belong into files (` + "`grid add`" + `), with a ref to name them.`,
		Example: `  grid kv put limits/lab 40
  grid kv get limits/lab
  grid kv put lock/build $HOSTNAME --if-absent
  grid kv watch limits/`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.kvGetCommand(), e.kvPutCommand(), e.kvDeleteCommand(), e.kvListCommand(), e.kvWatchCommand(), e.kvTxnCommand())
	return cmd
}

func (e *env) kvGetCommand() *cobra.Command {
	var asJSON, stale bool
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Print a value",
		Long:  "Print a value, byte by byte as it was put. The exit code is 66 when there is none.",
		Example: `  grid kv get limits/lab
  grid kv get limits/lab --json | jq .version`,
		Args:              wantArgs(1, 1, "KEY"),
		ValidArgsFunction: e.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				k, err := s.KVGet(cmd.Context(), args[0], stale)
				switch {
				case err != nil:
					return err
				case asJSON:
					return e.printJSON(k)
				}
				value, err := k.Bytes()
				if err == nil {
					_, err = e.out.Write(value)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document: the value in base64 and, if it is text, as text; and its version")
	cmd.Flags().BoolVar(&stale, "stale", false, "what this node knows, which may be out of date; needs no majority")
	return cmd
}

// condFlags say what must hold of an entry before it is changed.
type condFlags struct{ c api.KVCond }

func (f *condFlags) define(cmd *cobra.Command, put bool) {
	cmd.Flags().Uint64Var(&f.c.Version, "if-version", 0, "only if it has this `VERSION`; else exit code 68")
	if put {
		cmd.Flags().BoolVar(&f.c.Absent, "if-absent", false, "only if there is no such key")
		cmd.MarkFlagsMutuallyExclusive("if-version", "if-absent")
	}
}

func (f *condFlags) check(cmd *cobra.Command) error {
	if cmd.Flags().Changed("if-version") && f.c.Version == 0 {
		return usageError(cmd, "--if-version 0: no entry has version 0")
	}
	return nil
}

func (e *env) kvPutCommand() *cobra.Command {
	var f condFlags
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "put KEY [VALUE|-]",
		Short: "Write a value",
		Long: `Write a value: the argument, with - what comes through standard input, or with --file a file. It prints the version
that the entry has from then on.`,
		Example: `  grid kv put limits/lab 40
  grid kv put motd --file motd.txt
  date | grid kv put last/run -
  grid kv put limits/lab 41 --if-version 17`,
		Args: wantArgs(1, 2, "KEY and VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			var value []byte
			var err error
			switch {
			case (len(args) == 2) == (file != ""):
				return usageError(cmd, "want a VALUE, or a --file: one of them")
			case file != "":
				value, err = readValue(file)
			case args[1] == "-":
				value, err = io.ReadAll(io.LimitReader(e.stdin, grid.MaxLedgerValue+1))
			default:
				value = []byte(args[1])
			}
			if err != nil {
				return grid.Errorf(codeOfOS(err), "read the value: %w", err)
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				revision, err := s.KVPut(cmd.Context(), args[0], value, f.c)
				if err != nil {
					return err
				}
				return e.printRevision(revision, asJSON)
			})
		},
	}
	f.define(cmd, true)
	cmd.Flags().StringVar(&file, "file", "", "the `FILE` that holds the value")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	return cmd
}

// readValue reads a file, as far as a value may reach and a byte more.
func readValue(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, grid.MaxLedgerValue+1))
}

func (e *env) printRevision(revision uint64, asJSON bool) error {
	if asJSON {
		return e.printJSON(map[string]uint64{"revision": revision})
	}
	_, err := fmt.Fprintln(e.out, revision)
	return err
}

func (e *env) kvDeleteCommand() *cobra.Command {
	var f condFlags
	cmd := &cobra.Command{
		Use:               "del KEY...",
		Aliases:           []string{"rm"},
		Short:             "Delete values",
		Long:              "Delete values, one after the other. The exit code is 66 when there is none of that key. `grid kv txn` deletes several at once.",
		Example:           "  grid kv del limits/lab",
		Args:              wantArgs(1, -1, "KEY"),
		ValidArgsFunction: e.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				for _, key := range args {
					if _, err := s.KVDelete(cmd.Context(), key, f.c); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	f.define(cmd, false)
	return cmd
}

func (e *env) kvListCommand() *cobra.Command {
	var asJSON, stale, keysOnly bool
	var limit int
	cmd := &cobra.Command{
		Use:   "ls [PREFIX]",
		Short: "List keys and values",
		Long:  "List the keys that begin with PREFIX, with their versions and values, in order of keys. All of them are of one moment.",
		Example: `  grid kv ls
  grid kv ls limits/ --keys-only`,
		Args:              wantArgs(0, 1, "PREFIX"),
		ValidArgsFunction: e.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return usageError(cmd, "--limit %d is negative", limit)
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				list := []api.KV{}
				q := api.KVQuery{Prefix: firstOf(args), Stale: stale, KeysOnly: keysOnly}
				for {
					if limit > 0 {
						q.Limit = limit - len(list)
					}
					p, err := s.KVRange(cmd.Context(), q)
					if err != nil {
						return err
					}
					list = append(list, p.Entries...)
					if !p.More || len(p.Entries) == 0 || limit > 0 && len(list) >= limit {
						break
					}
					q.After, q.At = p.Entries[len(p.Entries)-1].Key, p.Revision
				}
				switch {
				case asJSON:
					return e.printJSON(list)
				case keysOnly:
					for _, k := range list {
						if _, err := fmt.Fprintln(e.out, printable(k.Key)); err != nil {
							return err
						}
					}
					return nil
				case len(list) == 0:
					e.note("there are no such keys")
					return nil
				}
				rows := [][]string{{"KEY", "VERSION", "VALUE"}}
				for _, k := range list {
					rows = append(rows, []string{printable(k.Key), fmt.Sprint(k.Version), valueText(k)})
				}
				return e.table(rows)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	cmd.Flags().BoolVar(&keysOnly, "keys-only", false, "print keys only, one a line")
	cmd.Flags().BoolVar(&stale, "stale", false, "what this node knows, which may be out of date; needs no majority")
	cmd.Flags().IntVar(&limit, "limit", 0, "list `N` keys at most")
	return cmd
}

// maxShown is how many bytes of a value a line shows.
const maxShown = 60

// valueText shows a value on one line.
func valueText(k api.KV) string {
	if k.Text != nil {
		return truncate(printable(*k.Text), maxShown)
	}
	return truncate("base64:"+base64.StdEncoding.EncodeToString(k.Value[:min(len(k.Value), maxShown)]), maxShown)
}

func (e *env) kvWatchCommand() *cobra.Command {
	var asJSON bool
	var from uint64
	cmd := &cobra.Command{
		Use:   "watch [PREFIX]",
		Short: "Print changes as they happen",
		Long: `Print each change to the keys that begin with PREFIX, until interrupted: the revision, + and the key with its new
value, or - and the key that was deleted. Nothing is left out, and what one transaction did comes together. With --from, it begins with
what came after that revision; what lies too far back is not known any more (exit code 1), then list the keys
and watch from the revision of that.`,
		Example: `  grid kv watch limits/
  grid kv watch --from 17 --json`,
		Args:              wantArgs(0, 1, "PREFIX"),
		ValidArgsFunction: e.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			var after *uint64
			if cmd.Flags().Changed("from") {
				after = &from
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				if s.embedded {
					e.note("no node is running, so nothing but this command could change anything")
					e.hint("start one with `grid up -d`")
				}
				return s.KVWatch(cmd.Context(), firstOf(args), after, func(c api.KVChanges) error {
					switch {
					case len(c.Put)+len(c.Delete) == 0:
						return nil
					case asJSON:
						return e.printLine(c)
					}
					for _, k := range c.Put {
						if _, err := fmt.Fprintf(e.out, "%d + %s %s\n", c.Revision, printable(k.Key), valueText(k)); err != nil {
							return err
						}
					}
					for _, key := range c.Delete {
						if _, err := fmt.Fprintf(e.out, "%d - %s\n", c.Revision, printable(key)); err != nil {
							return err
						}
					}
					return nil
				})
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document a line for each transaction")
	cmd.Flags().Uint64Var(&from, "from", 0, "begin behind this `REVISION` (default now)")
	return cmd
}

func (e *env) kvTxnCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "txn [FILE|-]",
		Short: "Change several values at once, on conditions",
		Long: `Apply a transaction: if all of its conditions hold, all that it says is done, in one step; else nothing is, and the
exit code is 68. It is a JSON document, read from a file or standard input:

  {
    "if": [
      {"key": "accounts/ann", "version": 17},
      {"key": "transfers/8", "absent": true},
      {"prefix": "locks/", "count": 0}
    ],
    "put": [
      {"key": "accounts/ann", "text": "60"},
      {"key": "transfers/8", "value": "AAEC"}
    ],
    "delete": ["pending/8"]
  }

A condition says which version a key has, or that it is absent; or of all keys with a prefix, how many they are and
that none is newer than a version, so that nothing has come, gone or changed among them. A value is "text", or bytes
in base64 as "value". With "id", 32 hexadecimal digits of your choice, the document may be sent again when it is not known whether it was applied: it is applied once.`,
		Example: `  grid kv txn transfer.json
  echo '{"put": [{"key": "a", "text": "1"}, {"key": "b", "text": "2"}]}' | grid kv txn -`,
		Args: wantArgs(0, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := e.readDoc(firstOf(args))
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
				return e.printRevision(revision, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON document")
	return cmd
}

// maxDoc bounds a transaction's document, in bytes.
const maxDoc = 32 << 20

// readDoc reads a document from a file; "" and - are standard input.
func (e *env) readDoc(name string) ([]byte, error) {
	in := e.stdin
	if name != "" && name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, grid.Errorf(codeOfOS(err), "transaction %s: %w", name, reason(err))
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxDoc+1))
	switch {
	case err != nil:
		return nil, grid.Errorf(codeOfOS(err), "transaction: %w", errors.Unwrap(err))
	case len(data) > maxDoc:
		return nil, grid.Errorf(grid.Limit, "the transaction has more than %d bytes", maxDoc).Hint("split it")
	}
	return data, nil
}

// completeKeys offers keys, if a node is running.
func (e *env) completeKeys(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	var out []string
	_ = e.with(ctx, daemonOnly, func(s *session) error { // what cannot be had is not offered
		p, err := s.KVRange(ctx, api.KVQuery{Prefix: prefix, Limit: 100, Stale: true, KeysOnly: true})
		for _, k := range p.Entries {
			out = append(out, k.Key)
		}
		return err
	})
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
