package cli

import (
	"github.com/spf13/cobra"
)

// shells are those that completions can be made for.
var shells = []string{"bash", "zsh", "fish", "powershell"}

func (e *env) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print a script that completes commands in a shell",
		Long: `Print a script for a shell, bash, zsh, fish or powershell, that completes commands, flags, and the names of jobs, data, plugins, members
and other things that the running node knows. Packages of grid bring it along.`,
		Example: `  source <(grid completion bash)
  grid completion zsh > ~/.zsh/completions/_grid
  grid completion fish > ~/.config/fish/completions/grid.fish`,
		Args:              wantArgs(1, 1, "SHELL"),
		ValidArgsFunction: first(cobra.FixedCompletions(shells, cobra.ShellCompDirectiveNoFileComp)),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(e.out, true)
			case "zsh":
				return root.GenZshCompletion(e.out)
			case "fish":
				return root.GenFishCompletion(e.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(e.out)
			}
			return usageError(cmd, "there are no completions for %q: want bash, zsh, fish or powershell", args[0])
		},
	}
}
