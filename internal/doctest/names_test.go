package doctest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestNamesAreDocumented protects those who read a package by its documentation:
// every package says what it is, and every exported name says what it stands for.
func TestNamesAreDocumented(t *testing.T) {
	root := filepath.Join("..", "..")
	documented := map[string]bool{} // packages, by folder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		documented[filepath.Dir(path)] = documented[filepath.Dir(path)] || f.Doc != nil
		if ast.IsGenerated(f) {
			return nil
		}
		undocumented(f, func(at token.Pos, name string) {
			t.Errorf("%s: %s has no comment", files.Position(at), name)
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: the package has no comment", dir)
		}
	}
}

// TestUndocumented protects the check itself.
func TestUndocumented(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "x.go", `package x

// A is one.
type A struct{}

type B struct{}

func (A) M() {}

func (a *b) N() {}

// C is documented.
func C() {}

// All of these.
const (
	D = 1
	E = 2
)

var (
	F int // the number of something
	G int
)
`, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	undocumented(f, func(_ token.Pos, name string) { names = append(names, name) })
	if got := strings.Join(names, " "); got != "B A.M G" {
		t.Errorf("undocumented: %s", got)
	}
}

// undocumented reports the exported names of a file that have no comment. One on
// a group of constants or variables is enough for all of it.
func undocumented(f *ast.File, report func(at token.Pos, name string)) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			receiver, exported := receiverOf(d)
			if d.Name.IsExported() && exported && d.Doc == nil {
				report(d.Pos(), receiver+d.Name.Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						report(s.Pos(), s.Name.Name)
					}
				case *ast.ValueSpec:
					for _, n := range s.Names {
						if n.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
							report(n.Pos(), n.Name)
						}
					}
				}
			}
		}
	}
}

// receiverOf is the type that a method is of, with a dot, and whether others can
// name it; a function has none.
func receiverOf(d *ast.FuncDecl) (prefix string, exported bool) {
	if d.Recv == nil {
		return "", true
	}
	typ := d.Recv.List[0].Type
	if p, ok := typ.(*ast.StarExpr); ok {
		typ = p.X
	}
	if g, ok := typ.(*ast.IndexExpr); ok {
		typ = g.X
	}
	id, ok := typ.(*ast.Ident)
	if !ok {
		return "", false
	}
	return id.Name + ".", id.IsExported()
}
