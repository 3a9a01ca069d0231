package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/wasmgrid/wasmgrid/grid"
)

// output is how a command prints what it has found: as text for people, or in the format that the user asked for. It is the one place
// where formats are known. A command defines its flags with lists, prints or streams, and hands its value to print, or to line, where
// formatted says that it is not text that is wanted.
//
// All formats are made of the value's JSON, so its names are the same in each.
type output struct {
	e      *env
	name   string // a template of what names the value, or each of a list; "": nothing does
	lister bool   // what it prints is a list, of which --quiet leaves the names
	broad  bool   // its text has columns that only -o wide shows

	watch  bool
	format string
	tmpl   *template.Template
}

// The formats, beside that of templates.
const (
	formatText = ""
	formatWide = "wide"
	formatJSON = "json"
	formatYAML = "yaml"
	formatName = "name"
	formatTmpl = "template="
)

// maxTemplate bounds the template of a format.
const maxTemplate = 64 << 10

// lists defines the flags of a command that prints a list. name is a template of what names one of it.
func (o *output) lists(e *env, cmd *cobra.Command, name string) {
	o.lister = true
	o.prints(e, cmd, name)
}

// prints defines the flags of a command that prints one document. name is a template of what names it, and empty if nothing does.
// --format has a short form, unless the command has used it up to say where it writes.
func (o *output) prints(e *env, cmd *cobra.Command, name string) {
	o.e, o.name = e, name
	short := "o"
	if cmd.Flags().ShorthandLookup(short) != nil {
		short = ""
	}
	cmd.Flags().VarP((*formatFlag)(o), "format", short, "print in a `FORMAT`: "+strings.Join(o.formats(), ", ")+"TEMPLATE; see grid help formats")
	cmd.Flags().BoolFunc("json", "short for --format json", func(string) error { return (*formatFlag)(o).Set(formatJSON) })
	completeFlag(cmd, "format", o.formats()...)
}

// watches defines --watch, for a command that asks by with.
func (o *output) watches(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "print it again whenever it has changed, until interrupted")
}

// wide defines a text with more columns, which the command adds where isWide says so.
func (o *output) wide() *output {
	o.broad = true
	return o
}

func (o *output) isWide() bool { return o.format == formatWide }

// formats lists what --format takes.
func (o *output) formats() []string {
	list := []string{formatJSON, formatYAML}
	if o.name != "" {
		list = append(list, formatName)
	}
	if o.broad {
		list = append(list, formatWide)
	}
	return append(list, formatTmpl)
}

// formatFlag is the value of --format.
type formatFlag output

// Set checks a format, and compiles it if it is a template.
func (f *formatFlag) Set(s string) error {
	o := (*output)(f)
	text, ok := strings.CutPrefix(s, formatTmpl)
	if !ok {
		for _, known := range o.formats() {
			if s == known && s != formatTmpl {
				o.format = s
				return nil
			}
		}
		return fmt.Errorf("want %sTEMPLATE", strings.Join(o.formats(), ", "))
	}
	if len(text) > maxTemplate {
		return fmt.Errorf("a template of %d bytes is too long", len(text))
	}
	t, err := parseTemplate(text)
	if err != nil {
		return err
	}
	o.format, o.tmpl = formatTmpl, t
	return nil
}

// String is the format that was given.
func (f *formatFlag) String() string { return f.format }

// Type is what help calls the value.
func (f *formatFlag) Type() string { return "FORMAT" }

func parseTemplate(text string) (*template.Template, error) {
	return template.New("format").Funcs(template.FuncMap{"json": templateJSON, "line": templateLine}).Parse(text)
}

// templateJSON is a part of a value as JSON.
func templateJSON(v any) (string, error) {
	data, err := json.Marshal(v)
	return string(data), err
}

// templateLine is a value in a line of its own: it cannot end that itself.
func templateLine(v any) string {
	text := fmt.Sprint(v)
	if strings.ContainsAny(text, "\r\n") {
		text = printable(text)
	}
	return text + "\n"
}

// formatted reports whether something else than text is wanted.
func (o *output) formatted() bool {
	switch o.chosen() {
	case formatText, formatWide:
		return false
	}
	return true
}

func (o *output) chosen() string {
	if o.format == formatText && o.lister && o.e.quiet {
		return formatName
	}
	return o.format
}

// print writes a value in the format that is wanted; a list of none is an empty one.
func (o *output) print(v any) error { return o.write(v, o.watch) }

// line writes one of many values that come one after the other, in one line if it is JSON.
func (o *output) line(v any) error { return o.write(v, true) }

func (o *output) write(v any, line bool) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	switch o.chosen() {
	case formatJSON:
		if o.lister && string(data) == "null" {
			v = []any{}
		}
		if line {
			return o.e.writeJSON(v, "")
		}
		return o.e.printJSON(v)
	case formatYAML:
		if data, err = toYAML(data); err == nil && line {
			data = append([]byte("---\n"), data...)
		}
		if err == nil && o.e.terminal {
			data = []byte(printableLines(string(data)))
		}
		if err == nil {
			_, err = o.e.out.Write(data)
		}
		return err
	case formatName:
		t, err := parseTemplate(o.name)
		if err != nil {
			return err
		}
		return o.fill(t, data)
	}
	return o.fill(o.tmpl, data)
}

// fill writes what a template makes of a document, or of each of a list, a line each.
func (o *output) fill(t *template.Template, data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return err
	}
	all, ok := v.([]any)
	if !ok && v != nil {
		all = []any{v}
	}
	for _, one := range all {
		var b strings.Builder
		if err := t.Execute(&b, one); err != nil {
			bad := grid.Errorf(grid.Invalid, "--format: %w", err).Hint("--json shows what there is to fill it with")
			if ok && strings.Contains(t.Root.String(), "{{range .}}") {
				bad.Hint("it is filled with each of the list, one after the other, so no {{range .}} is needed; --json shows what they have")
			}
			return &exitError{exitUsage, bad}
		}
		text := b.String()
		if text == "" {
			continue
		}
		switch {
		case o.chosen() == formatName && !strings.Contains(o.name, "{{line "):
			text = strings.TrimSuffix(templateLine(text), "\n") // whoever reads it takes a line for a name
		case o.e.terminal:
			text = printableLines(text)
		}
		if !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		if _, err := io.WriteString(o.e.out, text); err != nil {
			return err
		}
	}
	return nil
}

// toYAML turns JSON into YAML that reads well, its names in the same order.
func toYAML(data []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(escapeJSON(data, 0xffff), &doc); err != nil { // there are characters that JSON may have as they are and YAML not
		return nil, err
	}
	var plain func(n *yaml.Node)
	plain = func(n *yaml.Node) {
		if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
			n.Style = 0
		}
		for _, c := range n.Content {
			plain(c)
		}
	}
	plain(&doc)
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}

// watchEvery is how often --watch looks.
const watchEvery = 2 * time.Second

// again runs f, which prints; with --watch it runs it every now and then until the command is interrupted, and what it prints is shown when it
// has changed. A terminal shows the last of it only.
func (o *output) again(ctx context.Context, f func() error) error {
	if !o.watch {
		return f()
	}
	u := o.e.ui
	out, errs := u.out, u.err
	defer func() { u.out, u.err = out, errs }()
	var last string
	for {
		var printed, noted bytes.Buffer
		u.out, u.err = &printed, &noted
		err := f()
		u.out, u.err = out, errs
		if x := (*exitError)(nil); err != nil && !(errors.As(err, &x) && x.err == nil) { // that is a bad state, of which all was said
			return err
		}
		if now := printed.String() + "\x00" + noted.String(); now != last {
			last = now
			if err = nil; u.terminal {
				_, err = io.WriteString(out, onScreen(printed.String()+noted.String(), u.screen))
			} else if _, err = out.Write(printed.Bytes()); err == nil {
				_, err = errs.Write(noted.Bytes())
			}
			if err != nil {
				return err
			}
		}
		if err := o.e.pause(ctx, watchEvery); err != nil {
			return err
		}
	}
}

// with is env.with for a command that has --watch, for which a node has to stay.
func (o *output) with(ctx context.Context, n need, f func(*session) error) error {
	if o.watch {
		n = daemonOnly
	}
	return o.e.with(ctx, n, func(s *session) error { return o.again(ctx, func() error { return f(s) }) })
}

// pauseFor waits for a time, or until ctx ends.
func pauseFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return grid.Errorf(grid.Canceled, "interrupted: %w", context.Cause(ctx))
	case <-t.C:
		return nil
	}
}

// onScreen is text that replaces what a terminal shows, cut to its size.
func onScreen(text string, screen func() (width, height int)) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	width, height := screen()
	if height > 1 && len(lines) >= height {
		lines = append(lines[:height-2], fmt.Sprintf("and %d lines more", len(lines)-height+2))
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, l := range lines {
		if r := []rune(l); width > 0 && len(r) > width {
			l = string(r[:width])
		}
		erase := "\x1b[K\n" // what is left of the line
		if i == len(lines)-1 {
			erase = "\x1b[J\n" // and of the screen
		}
		b.WriteString(l + erase)
	}
	return b.String()
}

// formatsTopic explains formats.
func formatsTopic() *cobra.Command {
	return &cobra.Command{Use: "formats", Short: "How to print as JSON, YAML, names or by a template", Long: `Commands print text for people. With --format, or -o where that does not say where to write, they print it for programs:

  json          the whole of it, as the API has it; --json is short for this
  yaml          the same as YAML
  name          what names it, such as an ID or a CID, one a line; of a list --quiet (-q) prints the same
  wide          text with more columns
  template=...  a template of Go (package text/template), filled with the document, or with each of a list;
                its names are those of the JSON, and {{json .x}} is a part as JSON

What comes bit by bit is printed so, too: JSON in a line each, YAML as documents.

  grid ps -a -o name
  grid ps -o 'template={{.id}} {{.state}}'
  grid peers -o 'template={{.id}} {{range .addrs}}{{.}} {{end}}'
  grid status -o yaml

--watch (-w) prints a list or a status again whenever it has changed. Where --quiet (-q) prints no names it leaves notes and
progress away; results and errors are always printed. Colour is for terminals only, and never with NO_COLOR set.`}
}
