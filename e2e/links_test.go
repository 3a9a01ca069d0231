package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	docLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	docHeading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	docAnchor  = regexp.MustCompile(`<a name="([^"]+)">`)
	docFence   = regexp.MustCompile("(?ms)^\\s*```.*?^\\s*```")
	notInURL   = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// TestLinks: what pages refer to is there, down to the heading, and docs/README.md leads to every page.
func TestLinks(t *testing.T) {
	pages := make(map[string]string) // without blocks of code
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || name != ".." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case filepath.Ext(name) != ".md" || strings.Contains(filepath.ToSlash(name), "/templates/"): // whose links are those of the folder that is made of them
			return nil
		}
		text, err := os.ReadFile(name)
		pages[filepath.ToSlash(name)] = docFence.ReplaceAllString(string(text), "")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	anchors := func(page string) map[string]bool {
		found := make(map[string]bool)
		for _, m := range docHeading.FindAllStringSubmatch(pages[page], -1) {
			found[strings.ReplaceAll(notInURL.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
		}
		for _, m := range docAnchor.FindAllStringSubmatch(pages[page], -1) {
			found[m[1]] = true
		}
		return found
	}
	listed := make(map[string]bool)
	for page, text := range pages {
		for _, m := range docLink.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], ":") {
				continue // elsewhere
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			to := filepath.ToSlash(filepath.Join(filepath.Dir(page), file))
			if file == "" {
				to = page
			}
			if page == "../docs/README.md" {
				listed[to] = true
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: (%s) is not there", page, m[1])
			} else if anchor != "" && filepath.Ext(to) == ".md" && !anchors(to)[anchor] {
				t.Errorf("%s: (%s): there is no such heading", page, m[1])
			}
		}
	}
	for page := range pages {
		if filepath.Dir(page) == "../docs" && page != "../docs/README.md" && !listed[page] {
			t.Errorf("%s is not in docs/README.md", page)
		}
	}
	if len(pages) < 50 {
		t.Errorf("%d pages: where are the others?", len(pages))
	}
}
