package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// SyntaxError says that a text is no file of rules. Its message is v0.12.0's.
type SyntaxError struct {
	message string
	// Line and Column are where the cause is, from 1; 0 where it is not known.
	Line, Column int
	// Hint says what to change, "" where that is not known.
	Hint string
}

// Error implements error.
func (e *SyntaxError) Error() string { return e.message }

// Explain is the hint with its place, "" where there is none.
func (e *SyntaxError) Explain() string {
	switch {
	case e.Hint == "":
		return ""
	case e.Column > 0:
		return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Hint)
	case e.Line > 0:
		return fmt.Sprintf("line %d: %s", e.Line, e.Hint)
	}
	return e.Hint
}

var (
	lineOf       = regexp.MustCompile(`line (\d+)`)
	unknownField = regexp.MustCompile(`line (\d+): field (\S+) not found in type config\.([A-Za-z]+)`)
	keyValue     = regexp.MustCompile(`^\s*(?:-\s+)?(?:[A-Za-z_][A-Za-z0-9_.]*|"[^"]*"|'[^']*')\s*:\s+(["'{<\[])`)
)

// syntaxError finds the cause of what the YAML library said.
func syntaxError(text []byte, err error) error {
	e := &SyntaxError{message: fmt.Sprintf("unable to parse metrics discovery config: %v", err)}
	if m := unknownField.FindStringSubmatch(err.Error()); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		e.Hint = unknownHint(m[2], m[3])
		e.Column = column(text, e.Line, m[2])
		return e
	}
	if m := lineOf.FindStringSubmatch(err.Error()); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
	}
	near := []int{e.Line, e.Line + 1, e.Line - 1, e.Line + 2}
	if strings.HasPrefix(err.Error(), "yaml: unmarshal errors") {
		if !strings.Contains(err.Error(), "cannot unmarshal !!map into string") {
			return e
		}
		near = near[:1]
	}
	// The library counts some lines from 0 and names the line where it gave up.
	lines := strings.Split(string(text), "\n")
	for _, n := range near {
		if n < 1 || n > len(lines) {
			continue
		}
		if column, hint := quoting(lines[n-1]); hint != "" {
			e.Line, e.Column, e.Hint = n, column, hint
			return e
		}
	}
	return e
}

// column is where a word begins in a line, from 1; 0 if it does not.
func column(text []byte, line int, word string) int {
	lines := strings.Split(string(text), "\n")
	if line < 1 || line > len(lines) {
		return 0
	}
	return strings.Index(lines[line-1], word) + 1
}

// quoting says what is wrong with the quotes of a line, and in which column, from 1.
func quoting(line string) (column int, hint string) {
	if i := strings.IndexByte(line, '\t'); i >= 0 && strings.TrimLeft(line[:i], " ") == "" {
		return i + 1, "a tab cannot indent YAML; use spaces"
	}
	m := keyValue.FindStringSubmatchIndex(line)
	if m == nil {
		return 0, ""
	}
	start, quote := m[2], line[m[2]]
	if quote != '"' && quote != '\'' {
		if quote == '{' && strings.ContainsAny(line[start:], `=~<`) {
			return start + 1, "a text that begins with { is a mapping in YAML; put it in single quotes"
		}
		return 0, ""
	}
	for i := start + 1; i < len(line); i++ {
		switch {
		case quote == '"' && line[i] == '\\':
			i++
			if i < len(line) && !strings.ContainsRune("0abtnvfre \"/\\N_LPxuU", rune(line[i])) {
				return i, `a backslash in double quotes is an escape of YAML; put the text in single quotes, where \ stands for itself`
			}
		case line[i] == quote && quote == '\'' && i+1 < len(line) && line[i+1] == quote:
			i++
		case line[i] == quote:
			rest := strings.TrimSpace(line[i+1:])
			if rest == "" || strings.ContainsRune(",}]:#", rune(rest[0])) {
				return 0, ""
			}
			other := "single"
			if quote == '\'' {
				other = "double"
			}
			return i + 1, fmt.Sprintf("the text in %c quotes ends here; put the whole query in %s quotes, or on a line of its own after |", quote, other)
		}
	}
	return 0, ""
}

// unknownHint names the key that was probably meant.
func unknownHint(field, typeName string) string {
	keys := knownKeys(typeName)
	if len(keys) == 0 {
		return ""
	}
	best := ""
	for _, k := range keys {
		if strings.EqualFold(k, field) || distance(k, field) <= 2 && best == "" {
			best = k
		}
	}
	if best != "" {
		return fmt.Sprintf("there is no %s; %s is meant, perhaps", field, best)
	}
	return fmt.Sprintf("there is no %s; there are %s", field, strings.Join(keys, ", "))
}

// knownKeys lists the keys of a type of this package.
func knownKeys(typeName string) []string {
	for _, t := range []any{
		MetricsDiscoveryConfig{},
		DiscoveryRule{},
		RegexFilter{},
		ResourceMapping{},
		GroupResource{},
		NameMapping{},
		ResourceRules{},
		ResourceRule{},
	} {
		if t := reflect.TypeOf(t); t.Name() == typeName {
			var keys []string
			for f := range t.Fields() {
				key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
				keys = append(keys, key)
			}
			slices.Sort(keys)
			return keys
		}
	}
	return nil
}

// distance is how many letters must be changed, added or removed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// FieldError is what is wrong with one field of a rule, whatever the cluster and Prometheus have.
type FieldError struct {
	// Field is the path of the field, such as rules[2].name.as.
	Field string
	// Err is the fault, in v0.12.0's words where it has some.
	Err error
	// Remedy says what to change.
	Remedy string
}

// Error implements error.
func (f *FieldError) Error() string { return f.Err.Error() }

// Unwrap returns the fault itself.
func (f *FieldError) Unwrap() error { return f.Err }

// Explain is the fault with its field and its remedy.
func (f *FieldError) Explain() string {
	if f.Remedy == "" {
		return f.Field + ": " + f.Err.Error()
	}
	return f.Field + ": " + f.Err.Error() + "; " + f.Remedy
}

// Explain says in full what an error of this package or of a rule means: each fault in a line of
// its own, with its place and its remedy.
func Explain(err error) []string {
	if err == nil {
		return nil
	}
	if s, ok := errors.AsType[*SyntaxError](err); ok {
		if hint := s.Explain(); hint != "" {
			return []string{s.Error(), hint}
		}
		return []string{s.Error()}
	}
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		var lines []string
		for _, e := range all.Unwrap() {
			lines = append(lines, Explain(e)...)
		}
		return lines
	}
	if f, ok := errors.AsType[*FieldError](err); ok {
		return []string{f.Explain()}
	}
	return []string{err.Error()}
}
