package plugin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// made is what a module was made of, as its compiler has told: how it was called, and the files that it read. A compiler
// that does not know by itself whether there is anything to do is not run again while all of that is the same.
type made struct {
	Command  []string          `json:"command"`
	Compiler string            `json:"compiler"` // its file, size and time
	Files    map[string]string `json:"files"`    // hashes, by path from the source's folder
}

// maxDeps bounds the list of files that a compiler read.
const maxDeps = 8 << 20

// madeExt is the name of such a list in the cache, beside the module.
const madeExt = ".made"

func compilerID(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	id, _ := json.Marshal([]any{path, info.Size(), info.ModTime().UnixNano()})
	return string(id)
}

func (s *source) hash(name string) string {
	if !filepath.IsAbs(name) {
		name = filepath.Join(s.dir, name)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// upToDate reports whether the module that is in out was made of what is there now.
func (s *source) upToDate(out string, command []string) bool {
	if !isWasm(out) {
		return false
	}
	text, err := os.ReadFile(s.module + madeExt)
	var m made
	if err != nil || json.Unmarshal(text, &m) != nil || strings.Join(m.Command, "\x00") != strings.Join(command, "\x00") || m.Compiler == "" || m.Compiler != compilerID(command[0]) {
		return false
	}
	for name, hash := range m.Files {
		if hash == "" || s.hash(name) != hash {
			return false
		}
	}
	return len(m.Files) > 0
}

// noteMade remembers what the module that is about to be moved into place was made of. What cannot be remembered is made
// again next time.
func (s *source) noteMade(files, command []string) {
	m := made{Command: command, Compiler: compilerID(command[0]), Files: map[string]string{}}
	for _, name := range files {
		m.Files[name] = s.hash(name)
	}
	if data, err := json.Marshal(m); err == nil {
		WriteFile(s.module+madeExt, data)
	}
}

// parseDeps reads the first rule of a makefile, as compilers write them: the files behind the colon.
func parseDeps(text []byte) (files []string) {
	text = bytes.ReplaceAll(text, []byte("\\\r\n"), []byte(" "))
	text = bytes.ReplaceAll(text, []byte("\\\n"), []byte(" "))
	line, _, _ := bytes.Cut(text, []byte("\n"))
	_, line, ok := bytes.Cut(line, []byte(": "))
	if !ok {
		return nil
	}
	var name []byte
	end := func() {
		if len(name) > 0 {
			files = append(files, string(name))
			name = nil
		}
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && i+1 < len(line) && (line[i+1] == ' ' || line[i+1] == '#'), c == '$' && i+1 < len(line) && line[i+1] == '$':
			i++
			name = append(name, line[i])
		case c == ' ' || c == '\t' || c == '\r':
			end()
		default:
			name = append(name, c)
		}
	}
	end()
	return files
}
