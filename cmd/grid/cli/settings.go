package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wasmgrid/wasmgrid/cmd/grid/config"
	"github.com/wasmgrid/wasmgrid/cmd/grid/jobfile"
	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/grid/api"
	"github.com/wasmgrid/wasmgrid/p2p/member"
)

// oneStart are the flags of grid up that are about one start of it, and not about the node: they are no settings.
var oneStart = []string{"detach", "format", "json", "quiet", "help", "end-with-stdin"}

// settingsOf are the settings that a command has, in the order of their names: its own flags, so that there is one list.
func settingsOf(cmd *cobra.Command) (all []config.Setting) {
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(oneStart, f.Name) {
			_, list := f.Value.(pflag.SliceValue)
			all = append(all, config.Setting{Command: cmd.Name(), Flag: f.Name, List: list})
		}
	})
	return all
}

// origin is what gave a setting its value.
type origin struct {
	flag     bool
	variable string
	file     string
	line     int
}

// String is the origin for people.
func (o origin) String() string {
	switch {
	case o.flag:
		return "flag"
	case o.variable != "":
		return "$" + o.variable
	case o.file != "":
		return fmt.Sprintf("%s:%d", o.file, o.line)
	}
	return "default"
}

// origins are those of settings by the names of their flags; what has its default is not in it.
type origins map[string]origin

// configFiles are the files of settings, that which goes first before the other: the home's, and the user's.
func (e *env) configFiles(home string) []string {
	files := []string{filepath.Join(home, config.FileName)}
	if user := e.userFile(config.FileName); user != "" && user != files[0] {
		files = append(files, user)
	}
	return files
}

// configure gives the flags of a command that were not given the values that the environment has for them, or else the files.
func (e *env) configure(cmd *cobra.Command, files []string) (origins, error) {
	all, fl, from := settingsOf(cmd), cmd.Flags(), origins{}
	if err := e.checkVariables(all); err != nil {
		return nil, err
	}
	for i := range all {
		s := &all[i]
		if fl.Changed(s.Flag) {
			from[s.Flag] = origin{flag: true}
		} else if text, _ := e.lookupEnv(s.Variable()); text != "" {
			from[s.Flag] = origin{variable: s.Variable()}
			if err := setFlag(fl, s, s.Split(text)); err != nil {
				return nil, badSetting(from[s.Flag], s, err)
			}
		}
	}
	for _, file := range files {
		values, err := loadSettings(file, all)
		if err != nil {
			return nil, err
		}
		if err := apply(fl, file, values, from); err != nil {
			return nil, err
		}
	}
	return from, nil
}

// apply gives flags the values of a file, unless they have some.
func apply(fl *pflag.FlagSet, file string, values []config.Value, from origins) error {
	for _, v := range values {
		if _, given := from[v.Flag]; given {
			continue
		}
		at := origin{file: file, line: v.Line}
		from[v.Flag] = at
		if isPath(fl.Lookup(v.Flag)) && len(v.Texts) == 1 && v.Texts[0] != "" && !filepath.IsAbs(v.Texts[0]) {
			v.Texts[0] = filepath.Join(filepath.Dir(file), v.Texts[0]) // wherever the command is run
		}
		if err := setFlag(fl, v.Setting, v.Texts); err != nil {
			return badSetting(at, v.Setting, err)
		}
	}
	return nil
}

// isPath reports whether a flag takes the name of a file.
func isPath(f *pflag.Flag) bool {
	what, _ := pflag.UnquoteUsage(f)
	return what == "FILE" || what == "FOLDER"
}

func setFlag(fl *pflag.FlagSet, s *config.Setting, values []string) error {
	f := fl.Lookup(s.Flag)
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.Replace(values)
	}
	return fl.Set(s.Flag, values[0])
}

// badSetting says that a value is wrong, and where it stands.
func badSetting(at origin, s *config.Setting, err error) error {
	if v := (*pflag.InvalidValueError)(nil); errors.As(err, &v) {
		return &exitError{exitUsage, grid.Errorf(grid.Invalid, "%s: %s %.80q: %s", at, s.Key(), shown(v.GetValue()), wantedValue(v)).Hint("`grid up --help` tells what it takes")}
	}
	return &exitError{exitUsage, grid.Errorf(grid.Invalid, "%s: %s: %w", at, s.Key(), err)}
}

// explain adds to an error about flags where those that it names were set, if that is not the command line.
func (from origins) explain(err error) error {
	if err == nil {
		return nil
	}
	var places []string
	for _, word := range strings.FieldsFunc(err.Error(), func(r rune) bool { return strings.ContainsRune(" ,:;()`'\"", r) }) {
		name, ok := strings.CutPrefix(word, "--")
		if o := from[name]; ok && o != (origin{}) && !o.flag {
			if at := fmt.Sprintf("--%s is of %s", name, o); !slices.Contains(places, at) {
				places = append(places, at)
			}
		}
	}
	if len(places) == 0 {
		return err
	}
	out := grid.Errorf(grid.CodeOf(err), "%w (%s)", err, strings.Join(places, ", ")).Hint("%s", grid.AdviceOf(err))
	if x := (*exitError)(nil); errors.As(err, &x) {
		return &exitError{x.exit, out}
	}
	return out
}

// checkVariables refuses variables that look like those of settings and are none.
func (e *env) checkVariables(all []config.Setting) error {
	if e.environ == nil {
		return nil
	}
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Variable()
	}
	for _, v := range e.environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "GRID_UP_") || slices.Contains(names, name) {
			continue
		}
		err := grid.Errorf(grid.Invalid, "$%.80s is set, and there is no such setting", name)
		if near := grid.Nearest(name, names); near != "" {
			err.Hint("did you mean %s?", near)
		} else {
			err.Hint("each flag of `grid up` has a variable: that of --workers is GRID_UP_WORKERS")
		}
		return &exitError{exitUsage, err}
	}
	return nil
}

// loadSettings reads a file of settings. There are none in one that is not there.
func loadSettings(file string, all []config.Setting) ([]config.Value, error) {
	text, closed, err := config.Read(file)
	if err != nil {
		return nil, err
	}
	values, problems := config.Parse(text, all)
	if len(problems) > 0 {
		return nil, badFile(file, problems)
	}
	for _, v := range values {
		if !closed && slices.ContainsFunc(v.Texts, isSecret) {
			return nil, grid.Errorf(grid.Denied, "%s:%d: %s is a token, and others can read the file: it is not used", file, v.Line, v.Key()).
				Hint("chmod 600 %s, and make a new token if somebody may have read it", file)
		}
	}
	return values, nil
}

// badFile tells all that is wrong with a file.
func badFile(file string, problems []jobfile.Problem) error {
	lines := make([]string, len(problems))
	for i := range problems {
		p := &problems[i]
		if lines[i] = p.Where(file) + ": " + p.Message; p.Hint != "" {
			lines[i] += " (" + p.Hint + ")"
		}
	}
	return &exitError{exitUsage, grid.Errorf(grid.Invalid, "%s", strings.Join(lines, "\n")).Hint("docs/configuration.md lists all settings, `grid up --help` explains them")}
}

// isSecret reports whether a value is to be shown to nobody.
func isSecret(text string) bool { return member.IsToken(text) || api.IsKey(text) }

// shown is a value as it may be shown.
func shown(text string) string {
	if isSecret(text) {
		parts := strings.SplitN(strings.TrimSpace(text), "-", 4)
		return strings.Join(parts[:min(3, len(parts))], "-") + "-..."
	}
	return text
}

// valuesOf are the values that a flag has.
func valuesOf(f *pflag.Flag) []string {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.GetSlice()
	}
	if text := f.Value.String(); text != "" {
		return []string{text}
	}
	return nil
}
