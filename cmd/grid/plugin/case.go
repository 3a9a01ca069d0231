package plugin

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/wasmgrid/wasmgrid/cmd/grid/jobfile"
	"github.com/wasmgrid/wasmgrid/grid"
)

// What is where in the folder of a case.
const (
	CasesDir   = "cases"
	caseFile   = "case.yaml"
	stdinFile  = "stdin"
	inDir      = "in"
	stdoutFile = "stdout" // the rest is what must come out
	outDir     = "out"
	errorFile  = "error"
	kvFile     = "kv.json"
)

// Bounds on cases.
const (
	maxCases    = 10_000
	maxGolden   = 64 << 20 // bytes of one golden file
	maxOutFiles = 10_000
)

// Case is a golden case: one call of a function, and what must come of it, in a folder of its own.
type Case struct {
	Name       string // of its folder
	Dir        string // "": it is given nothing
	Func       string // "": the case's name up to its first dot, if there is such a function
	Args       []string
	Env        []string
	Impure     bool
	Grants     *grid.Grants // nil: what the plugin wants, without network
	Limits     grid.Limits
	Partitions uint32
	Task       *uint32           // its number; nil: none
	Mounts     map[string]string // folders below Dir, by the guest's paths
	KV         map[string]string // the map to begin with; nil: none
	Secrets    map[string]string
}

// ReadCases reads the cases of a plugin's folder, in order of their names: all of them, or those that are named.
func ReadCases(dir string, names ...string) ([]*Case, error) {
	all := filepath.Join(dir, CasesDir)
	entries, err := os.ReadDir(all)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, grid.Errorf(grid.NotFound, "%s has no folder %s", dir, CasesDir).
			Hint("make %s, with the input in a file stdin or a folder in, and have `grid plugin test --update` write what comes out", filepath.Join(CasesDir, "FUNCTION"))
	}
	if err != nil {
		return nil, osError(err)
	}
	var have []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			have = append(have, e.Name())
		}
	}
	if len(have) > maxCases {
		return nil, grid.Errorf(grid.Limit, "%s has %d cases, at most %d are allowed", all, len(have), maxCases)
	}
	for _, n := range names {
		if !slices.Contains(have, n) {
			err := grid.Errorf(grid.NotFound, "there is no case %q", n)
			if near := grid.Nearest(n, have); near != "" {
				return nil, err.Hint("did you mean %s?", near)
			}
			return nil, err.Hint("the cases are %s", strings.Join(have, ", "))
		}
	}
	if len(names) > 0 {
		have = slices.DeleteFunc(have, func(n string) bool { return !slices.Contains(names, n) })
	}
	if len(have) == 0 {
		return nil, grid.Errorf(grid.NotFound, "%s is empty", all).Hint("a case is a folder in it, such as %s", filepath.Join(CasesDir, "FUNCTION"))
	}
	var cases []*Case
	for _, n := range have {
		c, err := readCase(filepath.Join(all, n))
		if err != nil {
			return nil, err
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// within says where a file of the case is, as a folder and the way from there: the plugin's folder, out of which no link may
// lead. A case may have the network, and is not to see what else there is on the disk of whoever tests a stranger's plugin.
func (c *Case) within(name string) (folder, way string) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		dir = c.Dir
	}
	cases := filepath.Dir(dir)
	return filepath.Dir(cases), filepath.Join(filepath.Base(cases), filepath.Base(dir), name)
}

// readCase reads one case. Its case.yaml may be missing.
func readCase(dir string) (*Case, error) {
	c := &Case{Name: filepath.Base(dir), Dir: dir}
	name := filepath.Join(dir, caseFile)
	text, err := readFile(name, jobfile.MaxBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c, nil
	case err != nil:
		return nil, err
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return c, nil
	}
	if err := wrong(name, c.read(text)); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Case) read(text []byte) []jobfile.Problem {
	return jobfile.Read(text, "a case", func(r *jobfile.Reader) map[string]jobfile.Field {
		texts := func(kind string, to *map[string]string, check func(key, value string) error) jobfile.Field {
			return func(n *jobfile.Node) {
				*to = map[string]string{}
				r.Pairs(kind, func(key, value *jobfile.Node) {
					v := r.String(value)
					if err := check(key.Value, v); err != nil {
						r.Problem(key, err, grid.AdviceOf(err))
					}
					(*to)[key.Value] = v
				})(n)
			}
		}
		l := &c.Limits
		return map[string]jobfile.Field{
			"func": r.Text(&c.Func),
			"args": r.Texts(&c.Args),
			"env": func(n *jobfile.Node) {
				var env map[string]string
				texts("env", &env, func(key, _ string) error {
					if key == "" || strings.ContainsAny(key, "=\x00") {
						return fmt.Errorf("%q is not a name for a variable", key)
					}
					return nil
				})(n)
				for _, k := range slices.Sorted(maps.Keys(env)) {
					c.Env = append(c.Env, k+"="+env[k])
				}
			},
			"impure": r.Bool(&c.Impure),
			"grants": func(n *jobfile.Node) {
				c.Grants = new(grid.Grants)
				r.Object("grants", grantFields(r, c.Grants))(n)
				if err := c.Grants.Normalize(); err != nil {
					r.Problem(n, err, grid.AdviceOf(err))
				}
			},
			"limits": r.Object("limits", map[string]jobfile.Field{
				"time": r.Time(&l.Wall), "memory": r.Size(&l.Memory), "output": r.Size(&l.Output), "scratch": r.Size(&l.Scratch),
				"scratch-files": r.Uint32(&l.Files, 1), "open-files": r.Uint32(&l.Open, 1), "calls": r.Uint64(&l.Calls, 1), "fuel": r.Uint64(&l.Fuel, 1),
			}),
			"partitions": r.Uint32(&c.Partitions, 1),
			"task":       func(n *jobfile.Node) { c.Task = new(uint32); r.Uint32(c.Task, 0)(n) },
			"mounts": texts("mounts", &c.Mounts, func(guest, local string) error {
				if !path.IsAbs(guest) || path.Clean(guest) != guest || guest == "/" {
					return fmt.Errorf("%q is not a clean absolute path in the guest", guest)
				}
				return checkLocal(local)
			}),
			"kv": texts("kv", &c.KV, func(key, _ string) error {
				if key == "" || len(key) > grid.MaxLedgerKey/2 {
					return fmt.Errorf("%.60q is not a key of the map", key)
				}
				return nil
			}),
			"secrets": texts("secrets", &c.Secrets, func(name, _ string) error { return grid.CheckSecretName(name) }),
		}
	})
}

// Golden is what must come out, or has.
type Golden struct {
	Stdout []byte
	Out    map[string]string // files below /out by path; symbolic links as "-> TARGET"
	KV     map[string]string // the map afterwards; nil: there was none, or what it is does not matter
	// End is "" after exit code 0, else "exit N" or the name of a fault's code, and on further lines what the log or
	// the fault's message contains.
	End string
}

// golden reads what must come out.
func (c *Case) golden() (*Golden, error) {
	g := &Golden{}
	read := func(name string) ([]byte, error) {
		data, err := readFile(filepath.Join(c.Dir, name), maxGolden)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return data, err
	}
	var err error
	if g.Stdout, err = read(stdoutFile); err != nil {
		return nil, err
	}
	end, err := read(errorFile)
	if err != nil {
		return nil, err
	}
	g.End = strings.TrimSpace(string(end))
	kv, err := read(kvFile)
	if err != nil {
		return nil, err
	}
	if kv != nil {
		if g.KV, err = decodeKV(kv); err != nil {
			return nil, grid.Errorf(grid.Invalid, "%s: %w", filepath.Join(c.Dir, kvFile), err)
		}
	}
	root, err := os.OpenRoot(filepath.Join(c.Dir, outDir))
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err != nil {
		return nil, osError(err)
	}
	defer root.Close()
	g.Out, err = readTree(root.FS())
	return g, err
}

// readTree reads files by path.
func readTree(tree fs.FS) (map[string]string, error) {
	files := map[string]string{}
	total := 0
	err := fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text := ""
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := fs.ReadLink(tree, p)
			if err != nil {
				return err
			}
			text = "-> " + target
		} else {
			data, err := fs.ReadFile(tree, p)
			if err != nil {
				return err
			}
			text = string(data)
		}
		files[p] = text
		if total += len(text); len(files) > maxOutFiles || total > maxGolden*4 {
			return grid.Errorf(grid.Limit, "the files of %s are too many or too large for a case", outDir).Hint("make the case smaller")
		}
		return nil
	})
	if err != nil {
		return nil, osError(err)
	}
	if len(files) == 0 {
		return nil, nil
	}
	return files, nil
}

// binaryValue marks a value of kv.json that is no text.
const binaryValue = "data:;base64,"

func encodeKV(m map[string]string) ([]byte, error) {
	out := make(map[string]string, len(m))
	for k, v := range m {
		if !utf8.ValidString(v) || strings.HasPrefix(v, binaryValue) {
			v = binaryValue + base64.StdEncoding.EncodeToString([]byte(v))
		}
		out[k] = v
	}
	data, err := json.MarshalIndent(out, "", "  ") // keys are sorted
	return append(data, '\n'), err
}

func decodeKV(data []byte) (map[string]string, error) {
	m := map[string]string{}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	for k, v := range m {
		coded, ok := strings.CutPrefix(v, binaryValue)
		if !ok {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(coded)
		if err != nil {
			return nil, fmt.Errorf("the value of %q: %w", k, err)
		}
		m[k] = string(raw)
	}
	return m, nil
}

// Update writes what has come out as what must come out from now on.
func (c *Case) Update(g *Golden) error {
	put := func(name string, data []byte) error {
		name = filepath.Join(c.Dir, name)
		if data == nil {
			err := os.Remove(name)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return osError(err)
		}
		return WriteFile(name, data)
	}
	var end, kv, stdout []byte
	if len(g.Stdout) > 0 {
		stdout = g.Stdout
	}
	if g.End != "" {
		end = []byte(g.End + "\n")
	}
	var err error
	if g.KV != nil {
		if kv, err = encodeKV(g.KV); err != nil {
			return grid.Errorf(grid.Internal, "%s: %w", kvFile, err)
		}
	}
	err = errors.Join(put(stdoutFile, stdout), put(errorFile, end), put(kvFile, kv), osError(os.RemoveAll(filepath.Join(c.Dir, outDir))))
	if err != nil || len(g.Out) == 0 {
		return err
	}
	if err := os.Mkdir(filepath.Join(c.Dir, outDir), 0o755); err != nil {
		return osError(err)
	}
	root, err := os.OpenRoot(filepath.Join(c.Dir, outDir))
	if err != nil {
		return osError(err)
	}
	defer root.Close()
	for _, p := range slices.Sorted(maps.Keys(g.Out)) {
		local := filepath.FromSlash(p)
		err := root.MkdirAll(filepath.Dir(local), 0o755)
		if target, link := strings.CutPrefix(g.Out[p], "-> "); err == nil && link {
			err = root.Symlink(target, local)
		} else if err == nil {
			err = root.WriteFile(local, []byte(g.Out[p]), 0o644)
		}
		if err != nil {
			return osError(err)
		}
	}
	return nil
}
