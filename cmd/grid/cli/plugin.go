package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/schema"
)

func (e *env) pluginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "Make, publish and look up plugins",
		Long: `Make, publish and look up plugins: modules that say what functions they have and what these take and give. One that
is installed has a name and a version, NAME@VERSION, on all nodes of the realm, and these bytes for good.

Where a plugin is named, VERSION may be a version (1.2.3), a range of them (1, ^1.2, ~1.2.3, ">=1 <2"), an alias, or latest,
which is meant without one: the highest that is no pre-release. docs/registry.md tells more.`,
		Example: `  grid plugin new word-count
  grid plugin test word-count
  grid plugin install word-count
  grid plugin show word-count
  grid call word-count.count '{"text": "one two"}'`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.pluginVerbs()...)
	return cmd
}

// pluginVerbs are its subcommands.
func (e *env) pluginVerbs() []*cobra.Command {
	return []*cobra.Command{
		e.pluginNewCommand(), e.pluginBuildCommand(), e.pluginTestCommand(), e.pluginBenchCommand(),
		e.pluginInstallCommand(), e.pluginListCommand(), e.pluginShowCommand(), e.pluginRemoveCommand(), e.pluginAliasCommand(),
		e.pluginInspectCommand(), e.pluginSignCommand(), e.pluginVerifyCommand(), e.pluginPolicyCommand(),
		e.pluginAttachCommand(), e.pluginDetachCommand(), e.pluginAttachedCommand(),
	}
}

func (e *env) pluginInstallCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "install FILE|FOLDER|URL|CID",
		Short: "Publish a plugin in the realm",
		Long: `Publish a plugin in the realm, under the name and version that its manifest has. A version never gets other bytes, even
when it was removed; to publish the same bytes again changes nothing, or brings it back. It is kept until it is removed.

It is a .wasm file that ` + "`grid plugin build`" + ` made, the URL or the CID of one, or a folder, which is built.`,
		Example: "  grid plugin install wordcount.wasm\n  grid plugin install ./wordcount\n  grid plugin install 'https://example.org/p.wasm#sha256=...'",
		Args:    wantArgs(1, 1, "FILE, FOLDER, URL or CID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return e.withModule(ctx, args[0], func(s *session, module grid.Link) error {
				got, err := s.InstallPlugin(ctx, module)
				if err != nil {
					return grid.Errorf(grid.CodeOf(err), "install %s: %w", args[0], err) // the node knows modules by their CIDs only
				}
				if show.formatted() {
					return show.print(got)
				}
				if _, err := fmt.Fprintf(e.out, "%s %s\n", printable(got.String()), got.CID); err != nil {
					return err
				}
				e.hintUse(&got)
				return nil
			})
		},
	}
	e.maxDownloadFlag(cmd)
	show.prints(e, cmd, "{{.name}}@{{.version}}")
	return cmd
}

// hintUse says how a plugin that was just installed is used, by the first of its functions that can be called.
func (e *env) hintUse(p *grid.Plugin) {
	for _, f := range p.Functions {
		if f.Kind == grid.TypedFunc || f.Kind == grid.StreamFunc {
			e.hint("call it on any node of the realm: `grid call %s.%s INPUT`; `grid plugin show %s` tells what its functions take", p.Name, f.Name, p.Name)
			return
		}
	}
	e.hint("use it on any node of the realm: `grid run --plugin %s --func FUNCTION`; `grid plugin show %s` tells of its functions", p.Name, p.Name)
}

func (e *env) pluginListCommand() *cobra.Command {
	var all, stale bool
	var show output
	cmd := &cobra.Command{
		Use:   "ls [NAME]",
		Short: "List plugins",
		Long: `List the plugins of the realm: of each the version that its name means, or the highest if there are only pre-releases.
With --all all versions, also those that were removed.`,
		Example:           "  grid plugin ls\n  grid plugin ls --all wordcount",
		Args:              wantArgs(0, 1, "NAME"),
		ValidArgsFunction: e.completePlugins,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				list, err := s.Plugins(cmd.Context(), strings.Join(args, ""), stale)
				if err != nil {
					return err
				}
				if !all {
					list = newest(list)
				}
				if show.formatted() {
					return show.print(list)
				}
				if len(list) == 0 && len(args) > 0 {
					return grid.Errorf(grid.NotFound, "there is no plugin %q", args[0]).Hint("`grid plugin ls` lists the plugins, with --all also removed versions")
				}
				if len(list) == 0 {
					e.note("there are no plugins")
					e.hint("`grid plugin new NAME` makes one, `grid plugin install FOLDER` installs it")
					return nil
				}
				rows := [][]string{{"PLUGIN", "FUNCTIONS", "SIZE", "PUBLISHED", "ALIASES", "DESCRIPTION"}}
				if show.isWide() {
					rows[0] = append(rows[0], "CID", "PUBLISHER")
				}
				for i := range list {
					p := &list[i]
					description := firstLine(p.Description)
					if !p.Removed.IsZero() {
						description = "(removed) " + description
					}
					row := []string{printable(p.String()), fmt.Sprint(len(p.Functions)), formatSize(p.Size),
						p.Published.Local().Format(time.DateOnly), printable(strings.Join(p.Aliases, " ")), description}
					if show.isWide() {
						row = append(row, linkText(p.CID), fmt.Sprint(p.Publisher))
					}
					rows = append(rows, row)
				}
				return e.table(rows)
			})
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "list all versions, also those that were removed")
	cmd.Flags().BoolVar(&stale, "stale", false, "list what the node knows, though it may be out of date")
	show.wide().lists(e, cmd, "{{.name}}@{{.version}}")
	return cmd
}

// newest keeps one version of each plugin, of a list in order: the highest that is no pre-release, or the highest of all.
func newest(list []grid.Plugin) []grid.Plugin {
	out := []grid.Plugin{}
	for _, p := range list {
		if !p.Removed.IsZero() {
			continue
		}
		k := len(out) - 1
		switch {
		case k < 0 || out[k].Name != p.Name:
			out = append(out, p)
		case !strings.Contains(p.Version, "-") || strings.Contains(out[k].Version, "-"):
			out[k] = p
		}
	}
	return out
}

func (e *env) pluginShowCommand() *cobra.Command {
	var show output
	cmd := &cobra.Command{
		Use:   "show NAME[.FUNCTION][@VERSION]",
		Short: "Tell what a plugin is and what its functions take",
		Long: `Tell what a plugin is: its functions with what they take and give, what it wants to be granted, who signed and published
it, and its documentation; with FUNCTION of that function alone.`,
		Example:           "  grid plugin show wordcount\n  grid plugin show wordcount.count\n  grid plugin show wordcount@1.2 --json",
		Args:              wantArgs(1, 1, "NAME"),
		ValidArgsFunction: e.completePlugins,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				p, err := s.Plugin(cmd.Context(), args[0], true)
				if err != nil {
					return err
				}
				if p.Function != "" && !slices.ContainsFunc(p.Functions, func(f grid.Function) bool { return f.Name == p.Function }) {
					return noFunction(p.Manifest, p.Function)
				}
				if show.formatted() {
					return show.print(p)
				}
				rows := [][]string{
					{"cid", p.CID.String()}, {"size", formatSize(p.Size)},
					{"publisher", p.Publisher.String()}, {"published", p.Published.Local().Format(time.DateTime)},
				}
				if len(p.Aliases) > 0 {
					rows = append(rows, []string{"aliases", printable(strings.Join(p.Aliases, " "))})
				}
				return e.showManifest(p.Manifest, p.Signers, rows, p.Function)
			})
		},
	}
	show.prints(e, cmd, "{{.name}}@{{.version}}")
	return cmd
}

// noFunction says that a plugin has no such function, and which it has.
func noFunction(m *grid.Manifest, function string) error {
	var names []string
	for _, f := range m.Functions {
		names = append(names, f.Name)
	}
	return grid.Errorf(grid.NotFound, "plugin %s has no function %q", m, function).Hint("it has %s", strings.Join(names, ", "))
}

// showManifest tells people what a plugin says of itself, or of one of its functions.
func (e *env) showManifest(m *grid.Manifest, signers []peer.ID, more [][]string, function string) error {
	rows := [][]string{{"plugin", m.String()}, {"description", firstLine(m.Description)}}
	rows = append(rows, more...)
	rows = append(rows, []string{"license", m.License}, []string{"authors", strings.Join(m.Authors, ", ")}, []string{"homepage", m.Homepage},
		[]string{"abi", fmt.Sprint(m.ABI)}, []string{"wants", cmp.Or(m.Wants.Flags(), "nothing")}, []string{"signed by", cmp.Or(peerNames(signers), "nobody")})
	rows = slices.DeleteFunc(rows, func(r []string) bool { return r[1] == "" })
	for _, r := range rows {
		r[1] = printable(r[1])
	}
	if err := e.table(rows); err != nil {
		return err
	}
	for _, f := range m.Functions {
		if function != "" && f.Name != function {
			continue
		}
		fmt.Fprintf(e.out, "\n%s (%s)\n", printable(m.Name+"."+f.Name), printable(string(f.Kind)))
		for line := range strings.Lines(strings.TrimSpace(f.Doc)) {
			fmt.Fprintf(e.out, "    %s\n", printable(strings.TrimRight(line, "\r\n")))
		}
		takes, gives := "bytes", "bytes"
		if len(f.Input) > 0 {
			takes = schema.Text(f.Input)
		}
		if len(f.Output) > 0 {
			gives = schema.Text(f.Output)
		}
		if f.Kind == grid.TypedFunc || f.Kind == grid.StreamFunc || len(f.Input)+len(f.Output) > 0 {
			each := ""
			if f.Kind == grid.StreamFunc {
				each = ", a line each"
			}
			fmt.Fprintf(e.out, "    takes %s%s\n    gives %s%s\n", printable(takes), each, printable(gives), each)
		}
	}
	if docs := strings.TrimSpace(m.Docs); docs != "" && function == "" {
		fmt.Fprintln(e.out)
		for line := range strings.Lines(docs) {
			fmt.Fprintln(e.out, printable(strings.TrimRight(strings.ReplaceAll(line, "\t", "    "), "\r\n")))
		}
	}
	return nil
}

func peerNames(list []peer.ID) string {
	var out []string
	for _, id := range list {
		out = append(out, id.String())
	}
	return strings.Join(out, " ")
}

func (e *env) pluginRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME@VERSION...",
		Short: "Remove versions of plugins",
		Long: `Remove versions of plugins. Nothing resolves to them any more, and their aliases go with them. Jobs that were made before run
on: they have the CID of what they run. The same bytes can be installed again, others never under that version.`,
		Example:           "  grid plugin rm wordcount@1.0.0",
		Args:              wantArgs(1, -1, "NAME@VERSION"),
		ValidArgsFunction: e.completePlugins,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, ref := range args {
				if r, err := grid.ParsePluginRef(ref); err != nil || r.Version == "" {
					return usageError(cmd, "%s: say which version, as in NAME@1.2.3", ref)
				}
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				for _, ref := range args {
					p, err := s.RemovePlugin(cmd.Context(), ref)
					if err != nil {
						return err
					}
					e.note("removed %s, which was %s", &p, p.CID)
				}
				return nil
			})
		},
	}
}

func (e *env) pluginAliasCommand() *cobra.Command {
	var remove bool
	var show output
	cmd := &cobra.Command{
		Use:   "alias NAME@ALIAS [VERSION]",
		Short: "Give a version of a plugin another name",
		Long: `Have NAME@ALIAS mean a version of the plugin, such as the one that was tested. It can be moved to another one at any time;
jobs that were made before keep what they have. With --rm it means nothing any more.`,
		Example:           "  grid plugin alias wordcount@stable 1.2.0\n  grid plugin alias wordcount@stable --rm",
		Args:              wantArgs(1, 2, "NAME@ALIAS"),
		ValidArgsFunction: e.completeAlias,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, alias, ok := strings.Cut(args[0], "@")
			version := strings.Join(args[1:], "")
			if !ok || remove == (version != "") {
				return usageError(cmd, "say NAME@ALIAS and a VERSION, or NAME@ALIAS and --rm")
			}
			return e.with(cmd.Context(), anyNode, func(s *session) error {
				p, err := s.SetAlias(cmd.Context(), name, alias, version)
				if err == nil && show.formatted() {
					return show.print(p)
				}
				if err == nil && remove {
					e.note("%s means nothing any more; it meant %s", printable(args[0]), &p)
				}
				if err == nil && !remove {
					_, err = fmt.Fprintf(e.out, "%s %s\n", printable(p.String()), p.CID)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&remove, "rm", false, "take the alias away")
	show.prints(e, cmd, "{{.name}}@{{.version}}")
	return cmd
}

// pluginOf reads what a module on this machine says of itself; it must be a plugin.
func (e *env) pluginOf(ctx context.Context, text string) (*grid.Manifest, []peer.ID, error) {
	binary, err := e.readModule(ctx, text)
	if err != nil {
		return nil, nil, err
	}
	return readPlugin(text, binary)
}
