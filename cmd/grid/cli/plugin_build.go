package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wasmgrid/wasmgrid/cmd/grid/plugin"
	"github.com/wasmgrid/wasmgrid/grid"
)

func (e *env) pluginBuildCommand() *cobra.Command {
	var out string
	var show output
	cmd := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Build a plugin",
		Long: `Build the plugin in folder DIR, or in the current one, and print the name of the module.

What the folder is written in is found out by its files: Go, Rust, C or AssemblyScript, each built with its own tools, or
whatever build.command in plugin.yaml runs. All that runs as you, outside of the sandbox. The module carries its manifest: what plugin.yaml says, and what the functions
say themselves, for which the program is run once, in the sandbox. Equal sources give equal bytes.`,
		Example: `  grid plugin build
  grid plugin build ./word-count -o build/word-count.wasm`,
		Args: wantArgs(0, 1, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := folderArg(args)
			p, err := plugin.Open(dir)
			if err != nil {
				return err
			}
			w := e.workbench()
			defer w.close()
			built, err := w.build(cmd.Context(), dir)
			if err != nil {
				return err
			}
			if out == "" {
				out = filepath.Join(dir, p.Manifest.Name+".wasm")
			}
			binary, err := os.ReadFile(built.Path)
			if err != nil {
				return grid.Errorf(codeOfOS(err), "build %s: %w", dir, reason(err))
			}
			if old, err := os.ReadFile(out); err != nil || !bytes.Equal(old, binary) {
				if err := plugin.WriteFile(out, binary); err != nil {
					return grid.Errorf(grid.CodeOf(err), "write %s: %w", out, err)
				}
			}
			if show.formatted() {
				return show.print(struct {
					File string `json:"file"`
					Size int    `json:"size_bytes"`
					*grid.Manifest
				}{out, len(binary), built.Manifest})
			}
			var names []string
			for _, f := range built.Manifest.Functions {
				names = append(names, f.Name)
			}
			e.note("%s: %s (%s), %s", built.Manifest, plural(len(names), "function"), strings.Join(names, ", "), formatSize(int64(len(binary))))
			_, err = fmt.Fprintln(e.out, out)
			return err
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write the module to this `FILE` (default NAME.wasm in the plugin's folder)")
	show.prints(e, cmd, "{{.file}}")
	return cmd
}
