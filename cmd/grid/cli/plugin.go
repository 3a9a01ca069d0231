package cli

import "github.com/spf13/cobra"

func (e *env) pluginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "Make, publish and look up plugins",
		Long: `Make, publish and look up plugins: modules that say what functions they have and what these take and give. One that
is installed has a name and a version, NAME@VERSION, on all nodes of the realm, and these bytes for good.`,
		Args: noSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.pluginVerbs()...)
	return cmd
}

// pluginVerbs are its subcommands.
func (e *env) pluginVerbs() []*cobra.Command {
	return []*cobra.Command{}
}
