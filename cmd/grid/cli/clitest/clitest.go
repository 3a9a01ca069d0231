// Package clitest finds the grid commands in shell text, as help and documents show it, and checks them against the commands that there
// are, without running them. It knows as much of a shell as such examples use, and no more.
package clitest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Command is a grid command in a text.
type Command struct {
	Line int      // of the text, counted from 1
	Args []string // without the program's name
}

// Find returns the grid commands of a shell text: in pipes, lists, loops and $(...), behind variables that are set for them, with what is
// redirected left out.
func Find(text string) ([]Command, error) {
	p := &parser{text: text, line: 1}
	err := p.list(0)
	return p.found, err
}

// before may stand in front of a command without being one.
var before = []string{"if", "then", "else", "elif", "while", "until", "do", "!", "time", "exec", "sudo", "{", "command"}

type parser struct {
	text  string
	at    int
	line  int
	found []Command
	heres []string // the ends of the documents that follow the line
}

func (p *parser) next() byte {
	if p.at >= len(p.text) {
		return 0
	}
	c := p.text[p.at]
	p.at++
	if c == '\n' {
		p.line++
	}
	return c
}

func (p *parser) peek(ahead int) byte {
	if p.at+ahead >= len(p.text) {
		return 0
	}
	return p.text[p.at+ahead]
}

// list reads commands until a closing bracket, or the end if that is 0.
func (p *parser) list(closing byte) error {
	var words []string
	line := p.line
	end := func() {
		p.command(line, words)
		words, line = nil, p.line
	}
	for {
		switch c := p.peek(0); {
		case c == 0:
			end()
			if closing != 0 {
				return fmt.Errorf("line %d: %q is missing", p.line, closing)
			}
			return nil
		case c == closing:
			end()
			p.next()
			return nil
		case c == '\n':
			end()
			p.next()
			p.skipDocuments()
			line = p.line
		case c == ';' || c == '|' || c == '&' || c == '(' || c == ')':
			p.next()
			end()
		case c == ' ' || c == '\t':
			p.next()
		case c == '\\' && p.peek(1) == '\n':
			p.next()
			p.next()
		case c == '#':
			for p.peek(0) != '\n' && p.peek(0) != 0 {
				p.next()
			}
		case c == '<' || c == '>':
			if err := p.redirect(); err != nil {
				return err
			}
		default:
			w, err := p.word()
			if err != nil {
				return err
			}
			if len(words) == 0 {
				line = p.line
			}
			if d := p.peek(0); (d == '<' || d == '>') && strings.Trim(w, "0123456789") == "" {
				continue // the number of what is redirected
			}
			words = append(words, w)
		}
	}
}

// redirect passes over where something is redirected to, or comes from.
func (p *parser) redirect() error {
	if strings.HasPrefix(p.text[p.at:], "<(") || strings.HasPrefix(p.text[p.at:], ">(") {
		p.next()
		p.next()
		return p.list(')')
	}
	here := strings.HasPrefix(p.text[p.at:], "<<")
	for c := p.peek(0); c == '<' || c == '>' || c == '&' || c == '|' || c == '-' || c == ' '; c = p.peek(0) {
		if c == '-' && p.peek(1) == ' ' {
			break
		}
		p.next()
	}
	w, err := p.word()
	if here {
		p.heres = append(p.heres, w)
	}
	return err
}

func (p *parser) skipDocuments() {
	for _, end := range p.heres {
		for p.at < len(p.text) {
			l, _, _ := strings.Cut(p.text[p.at:], "\n")
			p.at += min(len(l)+1, len(p.text)-p.at)
			p.line++
			if strings.TrimSpace(l) == end {
				break
			}
		}
	}
	p.heres = nil
}

// word reads one word; what a variable or a command puts into it stays as it is written.
func (p *parser) word() (string, error) {
	var b strings.Builder
	for {
		switch c := p.peek(0); c {
		case 0, ' ', '\t', '\n', ';', '|', '&', '(', ')', '<', '>':
			return b.String(), nil
		case '\'':
			p.next()
			for c := p.next(); c != '\''; c = p.next() {
				if c == 0 {
					return "", fmt.Errorf("line %d: a ' is missing", p.line)
				}
				b.WriteByte(c)
			}
		case '"':
			p.next()
			for p.peek(0) != '"' {
				if p.peek(0) == 0 {
					return "", fmt.Errorf("line %d: a \" is missing", p.line)
				}
				if err := p.piece(&b, true); err != nil {
					return "", err
				}
			}
			p.next()
		default:
			if err := p.piece(&b, false); err != nil {
				return "", err
			}
		}
	}
}

// piece reads a character of a word, or what is in its place.
func (p *parser) piece(b *strings.Builder, quoted bool) error {
	switch {
	case p.peek(0) == '\\':
		p.next()
		if c := p.next(); quoted && !strings.ContainsRune("\"\\$`\n", rune(c)) {
			b.WriteByte('\\')
			b.WriteByte(c)
		} else if c != '\n' && c != 0 {
			b.WriteByte(c)
		}
	case p.peek(0) == '$' && p.peek(1) == '(':
		from := p.at
		p.at += 2
		if err := p.list(')'); err != nil {
			return err
		}
		b.WriteString(p.text[from:p.at])
	case p.peek(0) == '$' && p.peek(1) == '{':
		end := strings.IndexByte(p.text[p.at:], '}')
		if end < 0 {
			return fmt.Errorf("line %d: a } is missing", p.line)
		}
		b.WriteString(p.text[p.at : p.at+end+1])
		p.at += end + 1
	default:
		b.WriteByte(p.next())
	}
	return nil
}

func (p *parser) command(line int, words []string) {
	for len(words) > 0 {
		name, _, set := strings.Cut(words[0], "=")
		if slices.Contains(before, words[0]) || set && name != "" && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789") == "" {
			words = words[1:]
			continue
		}
		if words[0] == "grid" {
			p.found = append(p.found, Command{line, words[1:]})
		}
		return
	}
}

// Check reports what is wrong with a command line: a command or a flag that there is not, a value that a flag does not take, too few arguments
// or too many. root is a fresh tree of commands, since flags that were set stay so.
func Check(root *cobra.Command, args []string) error {
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if cmd == root && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return fmt.Errorf("there is no command %q", args[0])
	}
	cmd.InitDefaultHelpFlag()
	if root == cmd {
		cmd.InitDefaultVersionFlag()
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if help, err := cmd.Flags().GetBool("help"); err == nil && help {
		return nil
	}
	given := cmd.Flags().Args()
	if cmd.Name() == "help" && len(given) > 0 {
		if about, left, err := root.Find(given); err != nil || about == root || len(left) > 0 {
			return fmt.Errorf("there is no command %q to explain", strings.Join(given, " "))
		}
		return nil
	}
	return errors.Join(cmd.ValidateArgs(given), cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups())
}
