package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wasmgrid/wasmgrid/grid"
)

// manual makes a page for a command and for each below it, in the language of man(7).
func manual(cmd *cobra.Command, when time.Time) (pages []file) {
	if cmd.Hidden {
		return nil
	}
	pages = append(pages, file{name: pageName(cmd) + ".1", data: []byte(page(cmd, when))})
	for _, sub := range cmd.Commands() {
		pages = append(pages, manual(sub, when)...)
	}
	return pages
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

func page(cmd *cobra.Command, when time.Time) string {
	cmd.InitDefaultHelpFlag()
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %q 1 %q %q %q\n", strings.ToUpper(pageName(cmd)), when.Format(time.DateOnly), "grid "+grid.Version, "Grid")
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(pageName(cmd)), roff(cmd.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.nf\n%s\n.fi\n", roff(cmd.UseLine()))
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	b.WriteString(".SH DESCRIPTION\n")
	prose(&b, long)
	if flags := cmd.NonInheritedFlags(); flags.HasAvailableFlags() {
		b.WriteString(".SH OPTIONS\n")
		options(&b, flags)
	}
	if flags := cmd.InheritedFlags(); flags.HasAvailableFlags() {
		b.WriteString(".SH OPTIONS OF ALL COMMANDS\n")
		options(&b, flags)
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(cmd.Example))
	}
	if also := related(cmd); len(also) > 0 {
		fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", strings.Join(also, ",\n"))
	}
	return b.String()
}

// prose writes paragraphs; lines that are set off stay as they are.
func prose(b *strings.Builder, text string) {
	literal := false
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		if off := strings.HasPrefix(line, " "); off != literal && line != "" {
			if literal = off; off {
				b.WriteString(".nf\n")
			} else {
				b.WriteString(".fi\n")
			}
		}
		switch {
		case line != "":
			b.WriteString(roff(line) + "\n")
		case literal:
			b.WriteString(".sp\n")
		default:
			b.WriteString(".PP\n")
		}
	}
	if literal {
		b.WriteString(".fi\n")
	}
}

func options(b *strings.Builder, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := `\fB` + roff("--"+f.Name) + `\fR`
		if f.Shorthand != "" {
			name = `\fB` + roff("-"+f.Shorthand) + `\fR, ` + name
		}
		if value != "" {
			name += ` \fI` + roff(value) + `\fR`
		}
		fmt.Fprintf(b, ".TP\n%s\n%s\n", name, roff(usage))
	})
}

// related names the pages of the commands above and below.
func related(cmd *cobra.Command) (also []string) {
	if cmd.HasParent() {
		also = append(also, `\fB`+roff(pageName(cmd.Parent()))+`\fR(1)`)
	}
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			also = append(also, `\fB`+roff(pageName(sub))+`\fR(1)`)
		}
	}
	return also
}

// roff escapes text, so that nothing in it is taken for a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`, "'", `\(aq`, "^", `\(ha`, "~", `\(ti`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
