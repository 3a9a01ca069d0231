package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

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

// helpWidth is where the lines of helps are broken, unless a terminal has less.
const helpWidth = 120

// widthFor is where lines of a help are broken that is written to w.
func widthFor(w io.Writer) int {
	if out, ok := w.(*lineWriter); ok {
		if width, _ := out.u.screen(); width > 0 {
			return min(max(width, 40), helpWidth)
		}
	}
	return helpWidth
}

// help prints the help of a command, as wide as the terminal.
func help(c *cobra.Command, _ []string) {
	w := c.OutOrStdout()
	fmt.Fprintln(w, fold(strings.TrimRight(cmp.Or(c.Long, c.Short), "\n"), widthFor(w))) // an error is in lost
	if c.Runnable() || c.HasSubCommands() {
		fmt.Fprintln(w)
		_ = c.Usage()
	}
}

// fold fills the paragraphs of a text anew where they are wider than width. Lines that are indented are no part of one.
func fold(text string, width int) string {
	if width >= helpWidth {
		return text
	}
	var b strings.Builder
	var words []string
	end := func() {
		if len(words) > 0 {
			b.WriteString(fill(words, width, 0) + "\n")
			words = nil
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || line[0] == ' ' {
			end()
			b.WriteString(line + "\n")
			continue
		}
		words = append(words, strings.Fields(line)...)
	}
	end()
	return strings.TrimRight(b.String(), "\n")
}

// fill sets words in lines no wider than width where that can be; all but the first are indented.
func fill(words []string, width, indent int) string {
	var b strings.Builder
	at := indent
	for i, w := range words {
		n := utf8.RuneCountInString(w)
		switch {
		case i == 0:
		case at+1+n > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(w)
		at += n
	}
	return b.String()
}

// groupFlags has the help of a command show its flags in groups; those in none come last.
func groupFlags(cmd *cobra.Command, groups []flagGroup) {
	cmd.SetUsageFunc(func(c *cobra.Command) error { return usage(c, groups) })
}

// usage is the part of every command's help that follows its description: the one shape that all have.
func usage(c *cobra.Command, groups []flagGroup) error {
	var b strings.Builder
	width := widthFor(c.OutOrStderr())
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
				fmt.Fprintf(&b, "  %-*s  %s\n", c.NamePadding(), sub.Name(), fill(strings.Fields(sub.Short), width, c.NamePadding()+4))
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
			fmt.Fprintf(&b, "\n%s:\n%s", title, set.FlagUsagesWrapped(width))
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
	width := widthFor(c.OutOrStderr())
	b.WriteString("Commands:\n\n")
	for _, g := range c.Groups() {
		var names []string
		for _, sub := range c.Commands() {
			if sub.GroupID == g.ID && sub.IsAvailableCommand() {
				names = append(names, sub.Name())
			}
		}
		fmt.Fprintf(&b, "  %-16s %s\n", g.Title, fill(names, min(width, 100), 19))
	}
	var topics []string
	for _, sub := range c.Commands() {
		if sub.IsAdditionalHelpTopicCommand() && sub.Name() != "commands" {
			topics = append(topics, "`grid help "+sub.Name()+"`")
		}
	}
	b.WriteString("\n" + fold("`grid COMMAND --help` explains one, `grid help commands` has a line for each; see also "+strings.Join(topics, ", ")+".", width))
	b.WriteString("\n\nGlobal flags:\n" + c.LocalFlags().FlagUsagesWrapped(width))
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
