package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/plugin"
)

func (e *env) pluginNewCommand() *cobra.Command {
	var lang string
	var update bool
	cmd := &cobra.Command{
		Use:   "new NAME [DIR]",
		Short: "Make a folder for a new plugin",
		Long: `Make a folder for a new plugin, with a program to begin with, its tests, golden cases, and a copy of the SDK. It builds,
tests and runs without a network, with no more than the tools of its language.

The folder is DIR, or else one of the plugin's name. It must be empty, or not be there.

With --update-sdk, nothing is made: the folder DIR, or the current one, of an earlier plugin gets the SDK of this grid.`,
		Example: `  grid plugin new word-count
  grid plugin new word-count --lang rust ~/src/word-count
  grid plugin new --update-sdk`,
		Args: func(cmd *cobra.Command, args []string) error {
			if update {
				return wantArgs(0, 1, "DIR")(cmd, args)
			}
			return wantArgs(1, 2, "NAME")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if update {
				dir := folderArg(args)
				if err := plugin.UpdateSDK(dir); err != nil {
					return err
				}
				e.note("%s has the SDK of this grid", dir)
				return nil
			}
			name, dir := args[0], args[0]
			if len(args) > 1 {
				dir = args[1]
			}
			files, err := plugin.New(name, lang, dir)
			if err != nil {
				return err
			}
			e.note("made %s in %s: %s, and the SDK", name, dir, strings.Join(topmost(files), ", "))
			first := "`cd " + dir + "`, then "
			if setup := plugin.Setup(lang); setup != "" {
				first += "`" + setup + "`, once, and "
			}
			e.hint("%s`grid plugin test`; README.md there tells more", first)
			return nil
		},
	}
	cmd.Flags().StringVar(&lang, "lang", "go", "the `LANGUAGE` to write it in: "+strings.Join(plugin.Languages(), ", "))
	completeFlag(cmd, "lang", plugin.Languages()...)
	cmd.Flags().BoolVar(&update, "update-sdk", false, "renew the copy of the SDK in a plugin's folder")
	return cmd
}

// topmost gives the files and folders that are directly in a folder, of those that are anywhere in it, in order.
func topmost(files []string) (out []string) {
	for _, f := range files {
		top, _, below := strings.Cut(f, "/")
		if below {
			top += "/"
		}
		if !slices.Contains(out, top) {
			out = append(out, top)
		}
	}
	return out
}

// folderArg is the folder that is meant: the first argument, or the current one.
func folderArg(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return "."
}
