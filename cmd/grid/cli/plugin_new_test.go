package cli

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTopmost(t *testing.T) {
	got := topmost([]string{".gitignore", "cases/count/stdin", "cases/count/stdout", "main.go"})
	if want := []string{".gitignore", "cases/", "main.go"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Flags that take one of a few words offer them; what is no file of a module is refused with where such files come from.
func TestPluginFlags(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	if r := f.grid("plugin", "new", "some", dir); r.exit != 0 {
		t.Fatal(r.err)
	}
	for want, args := range map[string][]string{
		"count.empty\n":                     {"plugin", "test", dir, "--case", ""},
		"off\nplugins\nall\n":               {"plugin", "policy", "--require-signature", ""},
		"none\nquorum=2\n":                  {"run", "--verify", ""},
		"go\nrust\nc\nassemblyscript\n:4\n": {"plugin", "new", "x", "--lang", ""},
	} {
		wantIn(t, "completion", f.grid(append([]string{"__complete"}, args...)...).out, want)
	}
	missing := filepath.Join(dir, "some.wasm")
	for _, test := range []struct {
		want string
		exit int
		args []string
	}{
		{"`grid plugin build`", 66, []string{"inspect", missing}},
		{"`grid plugin build`", 66, []string{"sign", missing}},
		{"`grid plugin build " + dir + "`", 67, []string{"sign", dir}},
		{"did you mean `grid plugin ls`?", 2, []string{"lst"}},
		{"`grid plugin --help` lists", 2, []string{"transmogrify"}},
	} {
		r := f.grid(append([]string{"plugin"}, test.args...)...)
		if r.exit != test.exit || !strings.Contains(r.err, test.want) {
			t.Errorf("%q: exit %d: %s", test.args, r.exit, r.err)
		}
	}
}
