package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/crypt"
)

// Keys for data lie in the home, a file for each, named by the user, in the form that age has for files of identities. They
// never leave it but by `grid key export`: no node is told of them.
const (
	keysDir    = "keys"
	defaultKey = "default" // to which data is encrypted if nobody is named
	maxKeyFile = 64 << 10  // bytes; what fits a secret
	maxKeys    = 256
)

func (e *env) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Keep keys that decrypt your data",
		Long: `Keep keys that decrypt what ` + "`grid add --encrypt`" + ` has encrypted. They are files in the folder keys of the home, which only
you can read, in the form of age (age-encryption.org): age and what is compatible with it can use them, too.

Without a key, what is encrypted to it is lost. Keep a copy elsewhere: ` + "`grid key export`" + `.`,
		Example: `  grid key new
  grid key ls
  grid key export default > /media/stick/grid-key.txt
  grid key export default | grid secret set my-key`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.keyNewCommand(), e.keyListCommand(), e.keyExportCommand(), e.keyImportCommand(), e.keyRemoveCommand())
	return cmd
}

func (e *env) keyNewCommand() *cobra.Command {
	var pq bool
	cmd := &cobra.Command{
		Use:   "new [NAME]",
		Short: "Make a key",
		Long: `Make a key, and print its public half: whoever knows that can encrypt to you. The key that is named default is the one
that data is encrypted to if nobody is named; it is also made when it is first needed.

With --pq what is encrypted to it is safe from quantum computers, too; its public half has 2 KB. Keys with and without that
cannot be used together for one file.`,
		Example: "  grid key new\n  grid key new archive --pq",
		Args:    wantArgs(0, 1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := defaultKey
			if len(args) > 0 {
				name = args[0]
			}
			text, err := crypt.NewKey(pq, e.now())
			if err != nil {
				return err
			}
			id, err := e.saveKey(name, text)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(e.out, crypt.PublicOf(id))
			return err
		},
	}
	cmd.Flags().BoolVar(&pq, "pq", false, "one that withstands quantum computers, too")
	return cmd
}

func (e *env) keyListCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List keys, by their public halves",
		Long:    "List the keys of this home: name and public half.",
		Example: "  grid key ls\n  grid key ls --json",
		Args:    wantArgs(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			keys, err := e.keys()
			if err != nil {
				return err
			}
			type shown struct {
				Name   string `json:"name"`
				Public string `json:"public"`
				File   string `json:"file"`
			}
			list := []shown{}
			rows := [][]string{{"NAME", "PUBLIC"}}
			for _, k := range keys {
				for _, id := range k.ids {
					list = append(list, shown{k.name, crypt.PublicOf(id), k.file})
					public := crypt.PublicOf(id)
					if public == "" {
						public = "of SSH: " + k.file
					}
					rows = append(rows, []string{printable(k.name), printable(public)})
				}
			}
			if show.formatted() {
				return show.print(list)
			}
			if len(list) == 0 {
				e.note("there are no keys")
				e.hint("`grid key new` makes one, and so does `grid add --encrypt` if nobody is named")
				return nil
			}
			return e.table(rows)
		},
	}
	show.lists(e, cmd, "{{.name}}")
	return cmd
}

func (e *env) keyExportCommand() *cobra.Command {
	var public bool
	cmd := &cobra.Command{
		Use:   "export NAME",
		Short: "Print a key, or its public half",
		Long: `Print a key as it lies in its file, to be kept elsewhere, or given to another of your machines, or to the realm as a secret.
Whoever has it can decrypt what was encrypted to it. With --public only the public half is printed.`,
		Example: "  grid key export default > backup.txt\n  grid key export default --public",
		Args:    wantArgs(1, 1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := e.key(args[0])
			if err != nil {
				return err
			}
			if !public {
				_, err = e.out.Write(k.text)
				return err
			}
			for _, id := range k.ids {
				if p := crypt.PublicOf(id); p != "" {
					fmt.Fprintln(e.out, p)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&public, "public", false, "print only the public half")
	return cmd
}

func (e *env) keyImportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import NAME [FILE]",
		Short: "Take up a key",
		Long: `Take up a key from a file, or from standard input: one of ` + "`grid key export`" + `, one of age-keygen, or a private key of OpenSSH
without a passphrase.`,
		Example: "  grid key import work backup.txt\n  age-keygen | grid key import other",
		Args:    wantArgs(1, 2, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			from := "-"
			if len(args) == 2 {
				from = args[1]
			}
			text, err := e.takeAll(from, maxKeyFile)
			if err == nil {
				_, err = e.saveKey(args[0], text)
			}
			return err
		},
	}
}

func (e *env) keyRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rm NAME",
		Short: "Delete a key for good",
		Long: `Delete a key. What was encrypted to it, and to nobody else, can then be read by nobody any more unless there is a copy of
the key. So this needs --force.`,
		Example: "  grid key rm old --force",
		Args:    wantArgs(1, 1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := e.key(args[0])
			if err != nil {
				return err
			}
			if !force {
				return grid.Errorf(grid.Conflict, "without key %s, what was encrypted to it alone is lost", k.name).
					Hint("keep a copy with `grid key export %s`, then delete it with --force", k.name)
			}
			if err := os.Remove(k.file); err != nil {
				return grid.Errorf(codeOfOS(err), "delete key %s: %w", k.name, reason(err))
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "delete it although it cannot be had back")
	return cmd
}

// dataKey is a key of the home.
type dataKey struct {
	name, file string
	text       []byte
	ids        []age.Identity
}

func (e *env) keyFile(name string) (string, error) {
	if err := grid.CheckSecretName(name); err != nil {
		return "", grid.Errorf(grid.Invalid, "%.80q is not a name for a key", name).Hint("use letters, digits, '.', '_' and '-'")
	}
	home, err := e.homeDir()
	return filepath.Join(home, keysDir, name), err
}

// key reads one key.
func (e *env) key(name string) (*dataKey, error) {
	file, err := e.keyFile(name)
	if err != nil {
		return nil, err
	}
	k, err := readKey(file)
	if errors.Is(err, grid.NotFound) {
		return nil, grid.Errorf(grid.NotFound, "there is no key %s", name).Hint("`grid key ls` lists the keys, `grid key new %s` makes it", name)
	}
	return k, err
}

// readKey reads the keys in a file, which nobody else may be able to read.
func readKey(file string) (*dataKey, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, grid.Errorf(codeOfOS(err), "key %s: %w", file, reason(err))
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, grid.Errorf(grid.Denied, "key %s: others may read it", file).Hint("chmod 600 %s; if somebody has read it, what was encrypted to it is no longer secret", file)
	}
	text, err := readAtMost(file, maxKeyFile)
	if err != nil {
		return nil, grid.Errorf(codeOfOS(err), "key %s: %w", file, reason(err))
	}
	ids, err := crypt.ParseIdentities(text)
	if err != nil {
		return nil, grid.Errorf(grid.CodeOf(err), "key %s: %w", file, err)
	}
	return &dataKey{filepath.Base(file), file, text, ids}, nil
}

// keys reads all keys of the home.
func (e *env) keys() ([]*dataKey, error) {
	home, err := e.homeDir()
	if err != nil {
		return nil, err
	}
	list, err := os.ReadDir(filepath.Join(home, keysDir)) // sorted
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, grid.Errorf(codeOfOS(err), "keys of %s: %w", home, reason(err))
	}
	if len(list) > maxKeys {
		return nil, grid.Errorf(grid.Limit, "there are %d keys in %s, at most %d are allowed", len(list), filepath.Join(home, keysDir), maxKeys)
	}
	var all []*dataKey
	for _, f := range list {
		if grid.CheckSecretName(f.Name()) != nil {
			continue // one that is being written
		}
		k, err := readKey(filepath.Join(home, keysDir, f.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	return all, nil
}

// saveKey keeps a key under a name that is free.
func (e *env) saveKey(name string, text []byte) (age.Identity, error) {
	ids, err := crypt.ParseIdentities(text)
	if err != nil {
		return nil, grid.Errorf(grid.CodeOf(err), "key %s: %w", name, err)
	}
	file, err := e.keyFile(name)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (age.Identity, error) {
		if errors.Is(err, fs.ErrExist) {
			return nil, grid.Errorf(grid.Conflict, "there is a key %s already", name).Hint("choose another name, or see what it is with `grid key ls`")
		}
		return nil, grid.Errorf(codeOfOS(err), "key %s: %w", name, reason(err))
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fail(err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*") // 0600
	if err != nil {
		return fail(err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Link(f.Name(), file) // unlike a rename, it replaces nothing
	}
	if err != nil {
		return fail(err)
	}
	return ids[0], nil
}

// ownKey is the key that data is encrypted to if nobody is named. It is made when it is first needed.
func (e *env) ownKey() (*dataKey, error) {
	k, err := e.key(defaultKey)
	if !errors.Is(err, grid.NotFound) {
		return k, err
	}
	text, err := crypt.NewKey(false, e.now())
	if err != nil {
		return nil, err
	}
	if _, err := e.saveKey(defaultKey, text); err != nil && !errors.Is(err, grid.Conflict) { // else another command was first
		return nil, err
	}
	if k, err = e.key(defaultKey); err == nil {
		defer func(quiet bool) { e.quiet = quiet }(e.quiet)
		e.quiet = false // it must be known
		e.note("made a key: %s", k.file)
		e.hint("without it, what is encrypted to it is lost: keep a copy elsewhere with `grid key export %s`", defaultKey)
	}
	return k, err
}
