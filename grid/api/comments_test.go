package api

import (
	"go/ast"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// commentsIn adds the comments on types, and on the fields of structs, in a package: by "package.Type" and "package.Type.Field".
// A field without one of its own has that of a field above it, if that names it.
func commentsIn(t *testing.T, dir string, all map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string][]string) // of types that are texts, by type
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		in := file.Name.Name + "."
		ast.Inspect(file, func(n ast.Node) bool {
			g, ok := n.(*ast.GenDecl)
			if !ok {
				return true
			}
			for _, spec := range g.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					doc := spec.Doc
					if doc == nil && len(g.Specs) == 1 {
						doc = g.Doc
					}
					all[in+spec.Name.Name] = commentOf(doc, spec.Comment)
					if s, ok := spec.Type.(*ast.StructType); ok {
						fieldComments(s, in+spec.Name.Name+".", all)
					}
				case *ast.ValueSpec:
					if typ, ok := spec.Type.(*ast.Ident); ok && g.Tok == token.CONST && len(spec.Values) == 1 {
						if value, ok := spec.Values[0].(*ast.BasicLit); ok && value.Kind == token.STRING {
							values[in+typ.Name] = append(values[in+typ.Name], valueComment(value.Value, commentOf(spec.Comment)))
						}
					}
				}
			}
			return true
		})
	}
	for typ, list := range values {
		if all[typ] != "" {
			all[typ] += " Values: " + strings.Join(list, ", ") + "."
		}
	}
}

func valueComment(value, text string) string {
	value, _ = strconv.Unquote(value)
	if value = strconv.Quote(value); text == "" {
		return value
	}
	return value + " (" + text + ")"
}

func fieldComments(s *ast.StructType, in string, all map[string]string) {
	above := ""
	for _, f := range s.Fields.List {
		text := commentOf(f.Doc, f.Comment)
		if text != "" {
			above = text
		}
		names := f.Names
		if typ, ok := f.Type.(*ast.Ident); ok && names == nil { // it is embedded
			names = []*ast.Ident{typ}
		}
		for _, field := range names {
			all[in+field.Name] = text
			if text == "" && regexp.MustCompile(`\b`+field.Name+`\b`).MatchString(above) {
				all[in+field.Name] = above
			}
		}
	}
}

// commentOf is the text of the first of some comments that there is, without the brackets of links.
func commentOf(groups ...*ast.CommentGroup) string {
	for _, g := range groups {
		if text := g.Text(); text != "" {
			p := comment.Parser{LookupSym: func(string, string) bool { return true }}
			return strings.TrimSpace(string((&comment.Printer{TextWidth: -1}).Text(p.Parse(text))))
		}
	}
	return ""
}
