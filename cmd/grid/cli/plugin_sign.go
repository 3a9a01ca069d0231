package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/daemon"
	"github.com/wasmgrid/wasmgrid/cmd/grid/plugin"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/store/remote"
	"github.com/wasmgrid/wasmgrid/wasmhost/module"
)

func (e *env) pluginInspectCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Tell what a file says of itself",
		Long: `Tell what a plugin on this machine says of itself, and whose signatures it carries, without a node. FILE may be a folder,
which is built. How a node runs the module is told by ` + "`grid module inspect`" + `.`,
		Example: "  grid plugin inspect wordcount.wasm",
		Args:    wantArgs(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, signers, err := e.pluginOf(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if show.formatted() {
				return show.print(struct {
					*grid.Manifest
					Signers []peer.ID `json:"signers,omitempty"`
				}{m, signers})
			}
			return e.showManifest(m, signers, nil, "")
		},
	}
	show.prints(e, cmd, "")
	return cmd
}

// readModule reads a module on this machine, building it if it is a folder.
func (e *env) readModule(ctx context.Context, text string) ([]byte, error) {
	if _, err := os.Stat(text); err != nil && !remote.Is(text) {
		return nil, noModule(text, err)
	}
	p := &plan{f: &runFlags{}}
	if err := e.planModule(ctx, p, itemModule, text, func(grid.Link) {}); err != nil {
		return nil, err
	}
	if len(p.items) != 1 {
		return nil, grid.Errorf(grid.Invalid, "%s is not a file on this machine", text).Hint("`grid get` brings it here")
	}
	return readModuleFile(p.items[0].path)
}

// noModule says that there is no module of that name on this machine, and where modules come from.
func noModule(name string, err error) error {
	return grid.Errorf(codeOfOS(err), "%s: %w", name, reason(err)).
		Hint("`grid plugin build` makes one of a plugin's folder, `grid get CID` brings one here; `grid plugin show NAME` tells of one that is installed")
}

func readModuleFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, noModule(path, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, grid.Errorf(grid.Invalid, "%s is a folder, not a module", path).
			Hint("`grid plugin build %s` makes the module, which is then signed, verified and installed as a file", path)
	}
	binary, err := io.ReadAll(io.LimitReader(f, module.MaxSize+1))
	if err != nil {
		return nil, grid.Errorf(codeOfOS(err), "read %s: %w", path, reason(err))
	}
	return binary, nil
}

func readPlugin(name string, binary []byte) (*grid.Manifest, []peer.ID, error) {
	c, err := module.ReadCustom(binary)
	if err == nil && c.Manifest == nil {
		err = grid.Errorf(grid.Invalid, "it is no plugin: it has no manifest").Hint("build it with `grid plugin build`, from a folder with a plugin.yaml")
	}
	if err != nil {
		return nil, nil, grid.Errorf(grid.CodeOf(err), "%s: %w", name, err)
	}
	return c.Manifest, c.Signers, nil
}

func (e *env) pluginSignCommand() *cobra.Command {
	var keyFile, out string
	cmd := &cobra.Command{
		Use:   "sign FILE",
		Short: "Sign a plugin",
		Long: `Sign a plugin, with the key of this machine's node or of a file: an Ed25519 key as PKCS #8 in PEM, as openssl makes
them. The signature is put into the file, and gives it another CID: sign before you install. Others sign it, too, by
doing the same.`,
		Example: "  grid plugin sign wordcount.wasm\n  grid plugin sign wordcount.wasm --key release.pem -o signed.wasm",
		Args:    wantArgs(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			binary, err := readModuleFile(args[0])
			if err != nil {
				return err
			}
			key, err := e.signingKey(keyFile)
			if err != nil {
				return err
			}
			signed, err := module.Sign(binary, key)
			if err != nil {
				return grid.Errorf(grid.CodeOf(err), "sign %s: %w", args[0], err)
			}
			m, _, err := readPlugin(args[0], signed)
			if err != nil {
				return err
			}
			if out == "" {
				out = args[0]
			}
			if err := plugin.WriteFile(out, signed); err != nil {
				return grid.Errorf(codeOfOS(err), "write %s: %w", out, reason(err))
			}
			id, err := peer.IDFromPrivateKey(key)
			if err != nil {
				return grid.Errorf(grid.Internal, "the key's ID: %w", err)
			}
			e.note("%s is signed", m)
			_, err = fmt.Fprintln(e.out, id)
			return err
		},
	}
	cmd.Flags().StringVar(&keyFile, "key", "", "sign with the key in this `FILE` (default the node's)")
	cmd.Flags().StringVarP(&out, "output", "o", "", "write to this `FILE` (default in place)")
	return cmd
}

// signingKey reads the key of a file, or of this machine's node.
func (e *env) signingKey(file string) (crypto.PrivKey, error) {
	if file != "" {
		return daemon.Key(file)
	}
	home, err := e.homeDir()
	if err != nil {
		return nil, err
	}
	return daemon.Identity(home)
}

func (e *env) pluginVerifyCommand() *cobra.Command {
	var by []string
	var show output
	cmd := &cobra.Command{
		Use:   "verify FILE|NAME[@VERSION]",
		Short: "Check who signed a plugin",
		Long: `Check the signatures of a plugin, in a file or installed, and print who made them. The exit code is 77 when there are none,
or with --by, when it is not signed by one of those.`,
		Example:           "  grid plugin verify wordcount.wasm\n  grid plugin verify wordcount@1.2.0 --by 12D3KooW...",
		Args:              wantArgs(1, 1, "FILE or NAME"),
		ValidArgsFunction: e.completePlugins,
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := signersOf(by)
			if err != nil {
				return err
			}
			signers, err := e.signers(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if show.formatted() {
				if err := show.print(struct {
					Signers []peer.ID `json:"signers"`
				}{append([]peer.ID{}, signers...)}); err != nil {
					return err
				}
			} else {
				for _, id := range signers {
					fmt.Fprintln(e.out, id)
				}
			}
			switch {
			case len(signers) == 0:
				return grid.Errorf(grid.Denied, "%s is not signed", args[0]).Hint("`grid plugin sign FILE` signs a file, before it is installed")
			case len(wanted) > 0 && !slices.ContainsFunc(signers, func(id peer.ID) bool { return slices.Contains(wanted, id) }):
				return grid.Errorf(grid.Denied, "%s is signed, but not by %s", args[0], strings.Join(by, " or "))
			}
			return nil
		},
	}
	show.prints(e, cmd, "")
	cmd.Flags().StringArrayVar(&by, "by", nil, "want the signature of this `PEER`, or of the key in this file; may be repeated")
	return cmd
}

// signers finds who signed a file, or else an installed plugin.
func (e *env) signers(ctx context.Context, text string) (signers []peer.ID, err error) {
	if isModule(text) {
		_, signers, err = e.pluginOf(ctx, text)
		return signers, err
	}
	return signers, e.with(ctx, anyNode, func(s *session) error {
		p, err := s.Plugin(ctx, text, false)
		if err != nil {
			return err
		}
		m, err := s.Inspect(ctx, p.CID.Cid) // which checks them again
		signers = m.Signers
		return err
	})
}

// signersOf reads what people call signers: IDs of peers, and files with keys.
func signersOf(list []string) (out []peer.ID, err error) {
	for _, text := range list {
		id, err := peer.Decode(text)
		if err != nil {
			key, kerr := daemon.Key(text)
			if grid.CodeOf(kerr) == grid.NotFound {
				return nil, grid.Errorf(grid.Invalid, "%q is neither the ID of a peer nor a file with a key", text).
					Hint("`grid plugin sign` prints the ID of the signer, `grid status` that of a node")
			}
			if kerr != nil {
				return nil, kerr
			}
			if id, err = peer.IDFromPrivateKey(key); err != nil {
				return nil, grid.Errorf(grid.Internal, "the key's ID: %w", err)
			}
		}
		out = append(out, id)
	}
	return out, nil
}

func (e *env) pluginPolicyCommand() *cobra.Command {
	var rule string
	var trust, distrust []string
	var show output
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Say which modules must be signed, and by whom",
		Long: `Show, or change, what the realm demands of modules. With --require-signature plugins, what is installed and what runs as a
plugin must be signed by somebody who is trusted; with all, so must every module, whether it is run by its name, its file or
its CID; with off, nothing must. Trusted are those of --trust; if there are none, the nodes of the realm.

Every node refuses what is not allowed, when it is installed, when it is submitted, and before it runs a task of it; a change is
known everywhere within seconds. What was installed before stays, but does not run if it may not.`,
		Example: "  grid plugin policy\n  grid plugin policy --require-signature plugins --trust 12D3KooW...",
		Args:    wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			add, err := signersOf(trust)
			if err != nil {
				return err
			}
			drop, err := signersOf(distrust)
			if err != nil {
				return err
			}
			return e.with(ctx, anyNode, func(s *session) error {
				p, err := s.PluginPolicy(ctx)
				if err != nil {
					return err
				}
				if rule != "" || len(add)+len(drop) > 0 {
					if rule != "" {
						p.Require = grid.SignatureRule(rule)
					}
					p.Trust = slices.DeleteFunc(append(p.Trust, add...), func(id peer.ID) bool { return slices.Contains(drop, id) })
					if p, err = s.SetPluginPolicy(ctx, p); err != nil {
						return err
					}
				}
				if show.formatted() {
					return show.print(p)
				}
				what := map[grid.SignatureRule]string{
					grid.SignNothing: "off: nothing must be signed",
					grid.SignPlugins: "plugins: what is installed, or runs as a plugin, must be signed",
					grid.SignAll:     "all: every module must be signed",
				}[p.Require]
				rows := [][]string{{"require-signature", what}}
				if len(p.Trust) == 0 {
					rows = append(rows, []string{"trust", "the nodes of the realm"})
				}
				for _, id := range p.Trust {
					rows = append(rows, []string{"trust", id.String()})
				}
				return e.table(rows)
			})
		},
	}
	cmd.Flags().StringVar(&rule, "require-signature", "", "`WHICH` modules must be signed: off, plugins or all")
	completeFlag(cmd, "require-signature", "off", string(grid.SignPlugins), string(grid.SignAll))
	cmd.Flags().StringArrayVar(&trust, "trust", nil, "trust the signatures of this `PEER`, or of the key in this file; may be repeated")
	cmd.Flags().StringArrayVar(&distrust, "distrust", nil, "trust those of this `PEER` no more; may be repeated")
	show.prints(e, cmd, "")
	return cmd
}
