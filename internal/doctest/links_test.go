// Package doctest holds the documents to the tree: what they point at is there.
package doctest

import (
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	link    = regexp.MustCompile(`!?\[[^\]]*\]\(([^)\s]+)[^)]*\)`)
	fence   = regexp.MustCompile("(?ms)^```.*?^```")
	code    = regexp.MustCompile("`[^`\n]*`")
	heading = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)
)

// TestLinks protects readers from links to files and headings that have moved.
// Addresses on the web are left alone: no network.
func TestLinks(t *testing.T) {
	root := filepath.Join("..", "..")
	documents := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && path != filepath.Join(root, ".github") &&
			(strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		documents++
		return broken(path, func(target, why string) { t.Errorf("%s: link to %s: %s", path, target, why) })
	})
	if err != nil {
		t.Fatal(err)
	}
	if documents < 5 {
		t.Fatalf("only %d documents found", documents)
	}
}

// TestBroken protects the check itself.
func TestBroken(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "other.md", "# A *heading*, of `two` words\n")
	write(t, dir, "a.md", "# 中文 标题\n[ok](other.md) [ok](#中文-标题) [ok](other.md#a-heading-of-two-words) [web](https://example.com/x)\n"+
		"`[code](gone1)`\n```\n[code](gone2)\n```\n![bad](gone.png) [bad](other.md#gone)\n")
	var got []string
	if err := broken(filepath.Join(dir, "a.md"), func(target, _ string) { got = append(got, target) }); err != nil {
		t.Fatal(err)
	}
	if s := strings.Join(got, " "); s != "gone.png other.md#gone" {
		t.Errorf("broken links: %q", s)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// broken reports the links of a document that lead nowhere.
func broken(path string, report func(target, why string)) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := code.ReplaceAllString(fence.ReplaceAllString(string(b), ""), "")
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		u, err := url.Parse(m[1])
		if err != nil {
			report(m[1], err.Error())
			continue
		}
		if u.Scheme != "" {
			continue
		}
		to := path
		if u.Path != "" {
			to = filepath.Join(filepath.Dir(path), filepath.FromSlash(u.Path))
		}
		if _, err := os.Stat(to); err != nil {
			report(m[1], "no such file")
			continue
		}
		if u.Fragment != "" && !hasHeading(to, u.Fragment) {
			report(m[1], "no such heading")
		}
	}
	return nil
}

// hasHeading tells whether a document has the heading that a fragment names,
// as GitHub derives the one from the other.
func hasHeading(path, fragment string) bool {
	b, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(string(b), ""), -1) {
		if anchor(m[1]) == fragment {
			return true
		}
	}
	return false
}

func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ' || r == '-':
			return '-'
		case r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}
