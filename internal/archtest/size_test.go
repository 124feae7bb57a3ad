package archtest_test

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// The limits of STYLE.md: lines of a package without its tests, lines of a function without its
// tables, columns of a line of comment (a tab counts four).
const (
	mostPackageLines   = 1500
	mostFunctionLines  = 80
	mostCommentColumns = 100
	tabColumns         = 4
)

// source is a Go file of the module that nobody generated.
type source struct {
	name string // within the module, with slashes
	text []byte
	file *ast.File
	set  *token.FileSet
}

func (s source) test() bool { return strings.HasSuffix(s.name, "_test.go") }

// position is where a node begins.
func (s source) position(p token.Pos) token.Position { return s.set.Position(p) }

// lines counts the lines that a node takes.
func (s source) lines(n ast.Node) int {
	return s.position(n.End()).Line - s.position(n.Pos()).Line + 1
}

// sources reads all Go files of the module, without those of nested modules and generated ones.
func sources(t *testing.T) []source {
	t.Helper()
	const root = "../.."
	var all []source
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch base := d.Name(); {
			case name == root:
				return nil
			case strings.HasPrefix(base, "."), base == "testdata", base == "node_modules", base == "out", base == "bin":
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if ast.IsGenerated(file) {
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		all = append(all, source{name: filepath.ToSlash(rel), text: text, file: file, set: set})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 100 {
		t.Fatalf("only %d files: the test does not see the module", len(all))
	}
	return all
}

// compare checks what is over the limit against testdata/name, a list of "key size" of what was
// over it when the limit came. That list only ever shrinks: with UPDATE_GOLDEN the test lowers its
// sizes and deletes what is within the limit, and never raises or adds anything.
func compare(t *testing.T, name string, limit int, unit string, found map[string]int) {
	t.Helper()
	file := filepath.Join("testdata", name)
	listed := map[string]int{}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, size, _ := strings.Cut(line, " ")
		n, err := strconv.Atoi(size)
		if err != nil {
			t.Fatalf("%s: %q: want a key and a size", file, line)
		}
		listed[key] = n
	}
	update := os.Getenv("UPDATE_GOLDEN") != ""
	for _, key := range slices.Sorted(maps.Keys(found)) {
		switch n, ok := listed[key]; {
		case found[key] <= limit:
		case !ok:
			t.Errorf("%s: %d %s, want at most %d", key, found[key], unit, limit)
		case found[key] > n:
			t.Errorf("%s: %d %s, more than the %d in %s: it may only shrink, to %d", key, found[key], unit, n, file, limit)
		case found[key] < n && update:
			listed[key] = found[key]
		case found[key] < n:
			t.Errorf("%s: %d %s, fewer than the %d in %s: run the tests here with UPDATE_GOLDEN=1", key, found[key], unit, n, file)
		}
	}
	for key := range listed {
		if found[key] > limit {
			continue
		}
		if !update {
			t.Errorf("%s is within the limit now, or gone: run the tests here with UPDATE_GOLDEN=1 to take it off %s", key, file)
		}
		delete(listed, key)
	}
	if !update {
		return
	}
	var text strings.Builder
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "#") {
			text.WriteString(line)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(listed)) {
		fmt.Fprintf(&text, "%s %d\n", key, listed[key])
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil { //nolint:gosec // a file of the tree
		t.Fatal(err)
	}
}

func TestPackageSize(t *testing.T) {
	t.Parallel()
	found := map[string]int{}
	for _, s := range sources(t) {
		if !s.test() {
			found[path.Dir(s.name)] += strings.Count(string(s.text), "\n")
		}
	}
	compare(t, "packages.txt", mostPackageLines, "lines", found)
}

func TestFunctionLength(t *testing.T) {
	t.Parallel()
	found := map[string]int{}
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				found[s.name+":"+functionName(f)] = functionLines(s, f)
			}
		}
	}
	compare(t, "functions.txt", mostFunctionLines, "lines", found)
}

// functionName is a function's name after that of its receiver's type.
func functionName(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return f.Name.Name
	}
	receiver := f.Recv.List[0].Type
	for {
		switch r := receiver.(type) {
		case *ast.StarExpr:
			receiver = r.X
		case *ast.IndexExpr:
			receiver = r.X
		case *ast.Ident:
			return r.Name + "." + f.Name.Name
		default:
			return f.Name.Name
		}
	}
}

// functionLines counts a function's lines, but not the rows of tables: of literals of slices,
// arrays and maps.
func functionLines(s source, f *ast.FuncDecl) int {
	n := s.lines(f)
	ast.Inspect(f, func(node ast.Node) bool {
		l, ok := node.(*ast.CompositeLit)
		if !ok {
			return true
		}
		switch l.Type.(type) {
		case *ast.ArrayType, *ast.MapType:
			n -= s.lines(l) - 1
			return false
		}
		return true
	})
	return n
}

// exempt is a line of comment whose end is not its author's choice: a directive, a marker, a link,
// a generator's note.
var exempt = regexp.MustCompile(`^//(\S|\s*\+\w|.*https?://)|//\s*nolint|^//\s*Output:`)

func TestCommentWidth(t *testing.T) {
	t.Parallel()
	found := map[string]int{} // by file: lines that are too wide
	example := map[string]string{}
	for _, s := range sources(t) {
		lines := strings.Split(string(s.text), "\n")
		for _, g := range s.file.Comments {
			for _, c := range g.List {
				if exempt.MatchString(c.Text) {
					continue
				}
				first := s.position(c.Pos()).Line
				for n := first; n <= s.position(c.End()).Line; n++ {
					line := lines[n-1]
					if columns(line) > mostCommentColumns && !unbreakable(line) {
						found[s.name]++
						example[s.name] = fmt.Sprintf("%s:%d", s.name, n)
					}
				}
			}
		}
	}
	for _, at := range slices.Sorted(maps.Values(example)) {
		t.Log("for example", at)
	}
	compare(t, "comments.txt", 0, "lines of comment beyond column 100", found)
}

// columns is where a line ends.
func columns(line string) int {
	return utf8.RuneCountInString(line) + (tabColumns-1)*strings.Count(line, "\t")
}

// unbreakable reports whether a line of comment cannot be shorter: one word, or text that is set
// apart as it stands (a table, a formula, an example), which is indented.
func unbreakable(line string) bool {
	code, text, ok := strings.Cut(line, "//")
	if !ok || strings.TrimSpace(code) != "" {
		return false
	}
	return len(strings.Fields(text)) <= 1 || strings.HasPrefix(text, "\t") || strings.HasPrefix(text, "    ")
}

// TestMeasures proves the measures on a file of its own.
func TestMeasures(t *testing.T) {
	t.Parallel()
	const text = `package p

// T is a type.
type T[P any] struct{}

// M is a method with a table.
func (t *T[P]) M() int {
	table := []int{
		1,
		2,
		3,
	}
	return len(table)
}

func f() {}
`
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "p.go", text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	s := source{name: "p.go", text: []byte(text), file: file, set: set}
	got := map[string]int{}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			got[functionName(f)] = functionLines(s, f)
		}
	}
	if want := map[string]int{"T.M": 4, "f": 1}; !maps.Equal(got, want) {
		t.Errorf("lines = %v, want %v", got, want)
	}
	for line, want := range map[string]int{"\t// é": 8, "": 0} {
		if got := columns(line); got != want {
			t.Errorf("columns(%q) = %d, want %d", line, got, want)
		}
	}
	for line, want := range map[string]bool{
		"// two words": false, "// one-word": true, "\t//\tx := 1 + 2": true, "//     a b": true, "x := 1 // two words": false,
	} {
		if got := unbreakable(line); got != want {
			t.Errorf("unbreakable(%q) = %v, want %v", line, got, want)
		}
	}
	for scan := bufio.NewScanner(strings.NewReader("//go:build e2e\n//nolint:errcheck // why\n// +kubebuilder:x\n// see https://x.y\n")); scan.Scan(); {
		if !exempt.MatchString(scan.Text()) {
			t.Errorf("%q is not exempt", scan.Text())
		}
	}
	if exempt.MatchString("// prose that is wide") {
		t.Error("prose is exempt")
	}
}
