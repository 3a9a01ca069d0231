package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagGroup is flags of a command that its help shows together.
type flagGroup struct {
	title string
	flags []string
}

// upGroups are the flags of grid up, which has many.
var upGroups = []flagGroup{
	{"Swarm and realm", []string{"join", "swarm", "realm", "public", "bootstrap", "trust"}},
	{"Lending to other realms", []string{"share", "share-allow", "share-deny"}},
	{"Network", []string{"listen", "announce", "relay", "no-upnp", "no-mdns", "no-nearby"}},
	{"Tasks", []string{"workers", "grain", "label", "zone", "task-memory", "task-scratch", "task-net", "weight", "max-jobs-per-user", "max-queued-per-user", "keep-jobs", "keep-jobs-for"}},
	{"Data", []string{"store-quota", "block-cache", "replicas", "repair-grace", "repair-rate", "send-rate"}},
	{"The API over the network", []string{"api", "api-cert", "api-key", "api-host"}},
	{"IPFS", []string{"ipfs", "ipfs-listen", "ipfs-peer", "gateway", "gateway-host", "gateway-fetch"}},
	{"The process", []string{"detach", "json", "log-level", "otlp", "help"}},
}

// flagWidth is where the lines of grouped flags are broken.
const flagWidth = 120

// groupFlags has the help of a command show its flags in groups; those in none come last.
func groupFlags(cmd *cobra.Command, groups []flagGroup) {
	cmd.SetUsageFunc(func(c *cobra.Command) error {
		var b strings.Builder
		fmt.Fprintf(&b, "Usage:\n  %s\n\nExamples:\n%s\n", c.UseLine(), c.Example)
		rest := pflag.NewFlagSet("", pflag.ContinueOnError)
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !slices.ContainsFunc(groups, func(g flagGroup) bool { return slices.Contains(g.flags, f.Name) }) {
				rest.AddFlag(f)
			}
		})
		show := func(title string, set *pflag.FlagSet) {
			if set.HasAvailableFlags() {
				set.SortFlags = false
				fmt.Fprintf(&b, "\n%s:\n%s", title, set.FlagUsagesWrapped(flagWidth))
			}
		}
		for _, g := range groups {
			set := pflag.NewFlagSet("", pflag.ContinueOnError)
			for _, name := range g.flags {
				if f := c.LocalFlags().Lookup(name); f != nil {
					set.AddFlag(f)
				}
			}
			show(g.title, set)
		}
		show("Other flags", rest)
		show("Global flags", c.InheritedFlags())
		_, err := fmt.Fprint(c.OutOrStderr(), b.String())
		return err
	})
}
