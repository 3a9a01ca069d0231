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
	{"Tasks", []string{"workers", "label", "zone", "task-memory", "task-scratch", "task-net", "weight", "max-jobs-per-user", "max-queued-per-user", "keep-jobs", "keep-jobs-for"}},
	{"Data", []string{"store-quota", "replicas", "repair-grace", "repair-rate", "send-rate"}},
	{"The API over the network", []string{"api", "api-cert", "api-key", "api-host"}},
	{"IPFS", []string{"ipfs", "ipfs-listen", "ipfs-peer", "gateway", "gateway-host", "gateway-fetch"}},
	{"Trying out a worse network", []string{"latency", "loss"}},
	{"The process", []string{"detach", "format", "json", "log-level", "log-format", "log-file", "otlp", "end-with-stdin", "help"}},
}

// runGroups are the flags of grid run and grid submit, which have many, too.
var runGroups = []flagGroup{
	{"What is run", []string{"plugin", "func", "env", "set", "set-file", "name", "user", "dry-run", "schema"}},
	{"Inputs", []string{"each", "group", "split", "decode", "count", "stdin", "pipe", "mount", "max-download"}},
	{"Results", []string{"output", "reduce", "encode", "publish", "replicas", "profile", "detach", "format", "json"}},
	{"Where and when", []string{"require", "prefer", "priority", "parallel", "deadline", "start-within", "queue-timeout", "cores", "reserve-memory", "reserve-scratch", "offload"}},
	{"Failures and trust", []string{"attempts", "allow-failures", "keep-going", "verify", "no-cache", "salt", "impure"}},
	{"Limits of a task", []string{"timeout", "total-timeout", "fuel", "memory", "scratch", "scratch-files", "open-files", "calls", "output-limit"}},
	{"Grants", []string{"allow-net", "allow-kv", "allow-secret", "allow-data", "allow-decrypt", "grant-all"}},
}

// flagWidth is where the lines of flags are broken.
const flagWidth = 120

// groupFlags has the help of a command show its flags in groups; those in none come last.
func groupFlags(cmd *cobra.Command, groups []flagGroup) {
	cmd.SetUsageFunc(func(c *cobra.Command) error { return usage(c, groups) })
}

// usage is the part of every command's help that follows its description: the one shape that all have.
func usage(c *cobra.Command, groups []flagGroup) error {
	var b strings.Builder
	b.WriteString("Usage:\n")
	if !c.HasAvailableSubCommands() || runsItself(c) {
		fmt.Fprintf(&b, "  %s\n", c.UseLine())
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s COMMAND\n", c.CommandPath())
	}
	if c.Example != "" {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", c.Example)
	}
	if c.HasAvailableSubCommands() {
		b.WriteString("\nCommands:\n")
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(&b, "  %-*s  %s\n", c.NamePadding(), sub.Name(), sub.Short)
			}
		}
	}
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
	if len(groups) > 0 {
		show("Other flags", rest)
	} else {
		show("Flags", rest)
	}
	show("Global flags", c.InheritedFlags())
	_, err := fmt.Fprint(c.OutOrStderr(), b.String())
	return err
}

// runsItself reports whether a command that has others below it does something by itself, too: it has flags or arguments.
func runsItself(c *cobra.Command) (runs bool) {
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { runs = runs || f.Name != "help" })
	return runs || strings.Contains(c.Use, " ")
}

// rootUsage is what follows the tour: all commands by name, which is as much as one screen takes.
func rootUsage(c *cobra.Command) error {
	var b strings.Builder
	b.WriteString("Commands:\n\n")
	for _, g := range c.Groups() {
		line := fmt.Sprintf("  %-16s", g.Title)
		for _, sub := range c.Commands() {
			if sub.GroupID == g.ID && sub.IsAvailableCommand() {
				if len(line)+1+len(sub.Name()) > 100 {
					fmt.Fprintln(&b, line)
					line = strings.Repeat(" ", 18)
				}
				line += " " + sub.Name()
			}
		}
		fmt.Fprintln(&b, line)
	}
	b.WriteString("\n`grid COMMAND --help` explains one, `grid help commands` has a line for each; see also")
	for _, sub := range c.Commands() {
		if sub.IsAdditionalHelpTopicCommand() && sub.Name() != "commands" {
			fmt.Fprintf(&b, " `grid help %s`", sub.Name())
		}
	}
	b.WriteString(".\n\nGlobal flags:\n" + c.LocalFlags().FlagUsagesWrapped(flagWidth))
	_, err := fmt.Fprint(c.OutOrStderr(), b.String())
	return err
}

// commandsTopic lists all commands. It is made when it is asked for, when they are all there.
func commandsTopic(root *cobra.Command) *cobra.Command {
	topic := &cobra.Command{Use: "commands", Short: "All commands, a line each"}
	topic.SetHelpFunc(func(c *cobra.Command, _ []string) {
		walkCommands(root, func(sub *cobra.Command) {
			fmt.Fprintf(c.OutOrStdout(), "  %-28s %s\n", sub.CommandPath(), sub.Short)
		})
	})
	return topic
}

// walkCommands calls f with each command that users see, in the order of their names, a command before those below it.
func walkCommands(root *cobra.Command, f func(*cobra.Command)) {
	for _, sub := range root.Commands() {
		if sub.IsAvailableCommand() {
			f(sub)
			walkCommands(sub, f)
		}
	}
}
