package cli

import (
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wasmgrid/wasmgrid/p2p/member"
)

// addPublic adds the flags about public swarms.
func (f *upFlags) addPublic(fl *pflag.FlagSet) {
	fl.BoolVar(&f.public, "public", false, "take part in a public swarm, whose nodes do not trust one another: strangers reach only what --share lends, and what jobs with --offload give them")
	fl.StringArrayVar(&f.bootstrap, "bootstrap", nil, "the `ADDRESS` of a node of the public swarm to begin with; may be repeated")
}

// checkPublic refuses flags that do not go together.
func (f *upFlags) checkPublic(cmd *cobra.Command) error {
	switch {
	case !f.public && len(f.bootstrap) > 0:
		return usageError(cmd, "--bootstrap is for public swarms: add --public, or use --join")
	case f.public && f.ipfs:
		return usageError(cmd, "--public and --ipfs exclude each other: the bridge gives any block to whoever knows its CID")
	case slices.ContainsFunc(f.bootstrap, member.IsToken):
		return usageError(cmd, "--bootstrap takes addresses; a token is for --join")
	}
	return nil
}

// joining is whom the node is to join.
func (f *upFlags) joining() []string {
	return slices.Concat(f.join, f.bootstrap)
}
