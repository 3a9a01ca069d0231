package plugin

import (
	"embed"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wasmgrid/wasmgrid/grid"
	"github.com/wasmgrid/wasmgrid/sdk"
)

// What a new folder begins with, by language. {{name}} stands for the plugin's name, dot- in a file's name for a dot, and
// .tmpl behind one hides from our own tools what is theirs.
//
//go:embed all:_templates
var templates embed.FS

// sdkDir is where a plugin's folder has its copy of the SDK.
const sdkDir = "sdk"

// sdkNote tells a copy of the SDK from a folder that happens to have its name.
const sdkNote = "VERSION"

// New makes the folder of a new plugin. It must not exist, or be empty. Without dir it is named for the plugin. It gives
// the files that it made, without those of the SDK.
func New(name, lang, dir string) (files []string, err error) {
	if err := grid.CheckPluginName(name); err != nil {
		return nil, err
	}
	l, err := languageNamed(lang)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		dir = name
	}
	if err := free(dir); err != nil {
		return nil, err
	}
	tree, err := fs.Sub(templates, path.Join("_templates", l.name))
	if err != nil {
		return nil, grid.Errorf(grid.Internal, "templates: %w", err)
	}
	put := strings.NewReplacer("{{name}}", name)
	err = fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(tree, p)
		if err != nil {
			return err
		}
		to := path.Join(path.Dir(p), strings.TrimSuffix(path.Base(p), ".tmpl"))
		if rest, ok := strings.CutPrefix(path.Base(to), "dot-"); ok {
			to = path.Join(path.Dir(to), "."+rest)
		}
		files = append(files, to)
		return create(filepath.Join(dir, filepath.FromSlash(to)), []byte(put.Replace(string(text))))
	})
	if err != nil {
		return nil, grid.Errorf(grid.CodeOf(osError(err)), "new plugin %s: %w", name, err)
	}
	slices.Sort(files)
	return files, l.copySDK(filepath.Join(dir, sdkDir))
}

func languageNamed(lang string) (*language, error) {
	for _, l := range languages {
		if l.name == lang {
			return l, nil
		}
	}
	return nil, grid.Errorf(grid.Invalid, "there is no template for the language %q", lang).Hint("there are %s", strings.Join(Languages(), ", "))
}

// free checks that a folder is empty, or not there.
func free(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return osError(err)
	case len(entries) == 0:
		return nil
	}
	var names []string
	for _, e := range entries[:min(len(entries), 5)] {
		names = append(names, e.Name())
	}
	if len(entries) > len(names) {
		names = append(names, "...")
	}
	return grid.Errorf(grid.Conflict, "the folder %s is not empty: it has %s", dir, strings.Join(names, ", ")).Hint("name another: `grid plugin new NAME DIR`")
}

// create makes a file that must not exist, with the folders on the way.
func create(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// copySDK writes the SDK into a folder, which must not exist.
func (l *language) copySDK(dir string) error {
	err := l.writeSDK(dir)
	if err != nil {
		return grid.Errorf(grid.CodeOf(osError(err)), "the SDK's copy: %w", err)
	}
	return nil
}

func (l *language) writeSDK(dir string) error {
	from, skip := sdk.Source(), append([]string{"example"}, l.skip...)
	if l.sdk == "" {
		for _, other := range languages {
			if other.sdk != "" {
				skip = append(skip, other.sdk)
			}
		}
	} else {
		var err error
		if from, err = fs.Sub(from, l.sdk); err != nil {
			return err
		}
	}
	err := fs.WalkDir(from, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(skip, p):
			return fs.SkipDir
		case d.IsDir() || slices.Contains(skip, p):
			return nil
		}
		data, err := fs.ReadFile(from, p)
		if err != nil {
			return err
		}
		return create(filepath.Join(dir, filepath.FromSlash(p)), data)
	})
	if err != nil {
		return err
	}
	for name, text := range l.sdkFiles {
		if err := create(filepath.Join(dir, name), []byte(text)); err != nil {
			return err
		}
	}
	return create(filepath.Join(dir, sdkNote), []byte(sdkMark+grid.Version+". `grid plugin new --update-sdk` renews it.\n"))
}

const sdkMark = "This folder is a copy of the SDK of grid "

// UpdateSDK replaces a plugin's copy of the SDK by ours.
func UpdateSDK(dir string) error {
	p, err := Open(dir)
	if err != nil {
		return err
	}
	l, err := p.language()
	if err != nil {
		return err
	}
	if len(p.Command) > 0 {
		return grid.Errorf(grid.Unsupported, "%s builds its module itself, so it is not known which SDK it uses", dir)
	}
	old := filepath.Join(dir, sdkDir)
	note, err := os.ReadFile(filepath.Join(old, sdkNote))
	if err == nil && !strings.HasPrefix(string(note), sdkMark) || errors.Is(err, fs.ErrNotExist) && exists(old) {
		return grid.Errorf(grid.Conflict, "%s was not made by `grid plugin new`", old).Hint("move it away, and try again")
	}
	fresh, err := os.MkdirTemp(dir, ".sdk-*")
	if err != nil {
		return osError(err)
	}
	defer os.RemoveAll(fresh)
	if err := l.copySDK(filepath.Join(fresh, sdkDir)); err != nil {
		return err
	}
	if err := os.RemoveAll(old); err != nil {
		return osError(err)
	}
	return osError(os.Rename(filepath.Join(fresh, sdkDir), old))
}

// exists reports whether there is something of that name.
func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}
