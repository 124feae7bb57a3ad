package archtest_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreatModelNamesTests holds docs/threat-model.md and SECURITY.md to their word: each bullet
// ends with the name of a test, and there is such a test.
func TestThreatModelNamesTests(t *testing.T) {
	root := filepath.Join("..", "..")
	tests := testNames(t, root)
	name := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)[`/]")
	for page, after := range map[string]string{"docs/threat-model.md": "\n## What holds\n", "SECURITY.md": "\nWhat to know before you run it:\n"} {
		raw, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(page)))
		if err != nil {
			t.Fatal(err)
		}
		_, list, _ := strings.Cut(string(raw), after)
		bullets := splitBullets(list)
		if len(bullets) == 0 {
			t.Errorf("%s: no bullet was found behind %q", page, after)
		}
		for _, bullet := range bullets {
			names := name.FindAllStringSubmatch(bullet, -1)
			if len(names) == 0 {
				t.Errorf("%s: no test is named: %s", page, bullet)
			}
			for _, n := range names {
				if !tests[n[1]] {
					t.Errorf("%s: there is no %s: %s", page, n[1], bullet)
				}
			}
		}
	}
}

// splitBullets returns the items of a Markdown list, each in one line.
func splitBullets(text string) []string {
	var all []string
	inside := false
	for line := range strings.Lines(text) {
		item, begins := strings.CutPrefix(line, "- ")
		switch {
		case begins:
			all, inside = append(all, strings.TrimSpace(item)), true
		case inside && strings.HasPrefix(line, "  "):
			all[len(all)-1] += " " + strings.TrimSpace(line)
		default:
			inside = false
		}
	}
	return all
}

// testNames are the tests and fuzz targets of all modules.
func testNames(t *testing.T, root string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	declaration := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]+)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "out" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range declaration.FindAllStringSubmatch(string(raw), -1) {
			names[m[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
