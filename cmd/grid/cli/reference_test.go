package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// reference is docs/cli.md: what all commands say of themselves.
func reference(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(`# Commands

This page is made from the commands themselves (` + "`go test ./cmd/grid/cli -run TestReference -update`" + `); ` + "`grid COMMAND --help`" + ` says the same.
To begin with, read [getting-started.md](getting-started.md).

`)
	for _, g := range root.Groups() {
		fmt.Fprintf(&b, "**%s**:", g.Title)
		for _, c := range root.Commands() {
			if c.GroupID == g.ID && c.IsAvailableCommand() {
				fmt.Fprintf(&b, " [%s](#%s)", c.Name(), anchor(c))
			}
		}
		b.WriteString("\n\n")
	}
	b.WriteString("## Flags of all commands\n\n")
	b.WriteString(flagTable(root.PersistentFlags()))
	for _, topic := range root.Commands() {
		if topic.IsAdditionalHelpTopicCommand() && topic.Long != "" {
			fmt.Fprintf(&b, "## %s\n\n%s", topic.Short, asMarkdown(topic.Long))
		}
	}
	walkCommands(root, func(c *cobra.Command) {
		level := "##"
		if c.Parent() != root {
			level = "###"
		}
		fmt.Fprintf(&b, "%s %s\n\n%s.\n\n```text\n", level, c.CommandPath(), c.Short)
		if !c.HasAvailableSubCommands() || runsItself(c) {
			fmt.Fprintln(&b, c.UseLine())
		}
		if c.HasAvailableSubCommands() {
			fmt.Fprintf(&b, "%s COMMAND\n", c.CommandPath())
		}
		b.WriteString("```\n\n" + asMarkdown(c.Long))
		if c.HasAvailableSubCommands() {
			b.WriteString("Below it:")
			for _, sub := range c.Commands() {
				if sub.IsAvailableCommand() {
					fmt.Fprintf(&b, " [%s](#%s)", sub.Name(), anchor(sub))
				}
			}
			b.WriteString("\n\n")
		}
		if c.Example != "" {
			b.WriteString("```text\n")
			for line := range strings.Lines(c.Example) {
				b.WriteString(strings.TrimPrefix(line, "  "))
			}
			b.WriteString("\n```\n\n")
		}
		b.WriteString(flagTable(c.LocalNonPersistentFlags()))
	})
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// anchor is how a page names the heading of a command.
func anchor(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// flagTable is flags with what they take, their defaults and what they do.
func flagTable(flags *pflag.FlagSet) string {
	var b strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "`--" + f.Name
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		arg, about := pflag.UnquoteUsage(f)
		if arg != "" {
			name += " " + arg
		}
		if d := f.DefValue; d != "" && d != "false" && d != "0" && d != "[]" && d != "0s" && !strings.Contains(about, "(default ") {
			about += " (default " + d + ")"
		}
		fmt.Fprintf(&b, "| %s` | %s |\n", name, strings.NewReplacer("|", "\\|", "<", "&lt;", "*", "\\*", "\n", " ").Replace(about))
	})
	if b.Len() == 0 {
		return ""
	}
	return "| flag | what it does |\n|---|---|\n" + b.String() + "\n"
}

// asMarkdown keeps what is indented, or has columns, as it is.
func asMarkdown(text string) string {
	var b strings.Builder
	for block := range strings.SplitSeq(strings.Trim(text, "\n"), "\n\n") {
		if strings.HasPrefix(block, " ") || strings.Contains(block, "\n  ") {
			if lead, rest, ok := strings.Cut(block, "\n  "); ok && !strings.HasPrefix(block, " ") {
				b.WriteString(escapeMarkdown(lead) + "\n\n")
				block = "  " + rest
			}
			fmt.Fprintf(&b, "```text\n%s\n```\n\n", block)
			continue
		}
		b.WriteString(escapeMarkdown(block) + "\n\n")
	}
	return b.String()
}

// escapeMarkdown keeps what is not between backquotes from being taken for marks.
func escapeMarkdown(text string) string {
	parts := strings.Split(text, "`")
	for i := 0; i < len(parts); i += 2 {
		parts[i] = strings.NewReplacer("*", "\\*", "<", "&lt;", "_", "\\_").Replace(parts[i])
	}
	return strings.Join(parts, "`")
}
