// Package query makes PromQL of a rule's template and of what was asked for. It is pure: the same
// rule and request give the same text.
//
// The text is v0.12.0's, byte for byte, where that is valid PromQL and means what was asked for.
// Where it is not, the text is repaired: see Template.Render and Matchers.
package query

import (
	"errors"
	"fmt"
	"strings"
	"text/template"
	"text/template/parse"
)

const (
	// maxSteps bounds how many loop passes and calls of nested templates one rendering may take.
	maxSteps = 10_000
	// maxOutput bounds a query in bytes, besides what its matchers need.
	maxOutput = 256 << 10
	// maxText bounds what one print or printf gives, in bytes.
	maxText = 64 << 10
)

// args is what a template is given; the names are part of the rules' format.
type args struct {
	Series            string
	LabelMatchers     string
	LabelValuesByName map[string]string
	GroupBy           string
	GroupBySlice      []string
}

// Template is a compiled metricsQuery. It is safe for concurrent use.
type Template struct {
	tree *template.Template
	text string
	// uses are the fields of args that the text names; "" stands for all of them.
	uses map[string]bool
}

// errSteps ends a rendering that does not end by itself.
var errSteps = fmt.Errorf("the template takes more than %d steps", maxSteps)

// stepName is the function that each pass of a loop calls first.
const stepName = "sluiceStep"

// Compile compiles a template. The error is v0.12.0's.
func Compile(text string) (*Template, error) {
	t, err := template.New("metrics-query").Delims("<<", ">>").Funcs(functions(nil)).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("unable to parse metrics query template %q: %w", text, err)
	}
	out := &Template{tree: t, text: text, uses: map[string]bool{}}
	step, err := template.New("").Delims("<<", ">>").Funcs(functions(nil)).Parse("<<" + stepName + ">>")
	if err != nil {
		return nil, err
	}
	for _, sub := range t.Templates() {
		if sub.Tree == nil || sub.Root == nil {
			continue
		}
		w := walker{uses: out.uses, step: step.Root.Nodes[0]}
		w.list(sub.Root)
		sub.Root.Nodes = append([]parse.Node{w.step}, sub.Root.Nodes...)
	}
	return out, nil
}

// Uses reports whether the template reads a field, such as LabelMatchers.
func (t *Template) Uses(field string) bool { return t.uses[field] || t.uses[""] }

// Blank reports whether the template is empty.
func (t *Template) Blank() bool { return strings.TrimSpace(t.text) == "" }

// execute renders the template within bounds.
func (t *Template) execute(a args) (string, error) {
	tree, err := t.tree.Clone()
	if err != nil {
		return "", err
	}
	steps := 0
	tree.Funcs(functions(func() (string, error) {
		if steps++; steps > maxSteps {
			return "", errSteps
		}
		return "", nil
	}))
	b := bounded{left: maxOutput + 8*(len(a.LabelMatchers)+len(a.Series))}
	if err := tree.Execute(&b, a); err != nil {
		return "", err
	}
	if b.text.Len() == 0 {
		return "", errors.New("empty query produced by metrics query template")
	}
	return b.text.String(), nil
}

// bounded is a writer that ends with an error.
type bounded struct {
	text strings.Builder
	left int
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, fmt.Errorf("the query is longer than %d bytes", maxOutput)
	}
	return b.text.Write(p)
}

// functions are those of text/template whose result could be of any size, within bounds, and the
// one that counts steps.
func functions(step func() (string, error)) template.FuncMap {
	within := func(text string) (string, error) {
		if len(text) > maxText {
			return "", fmt.Errorf("a text is longer than %d bytes", maxText)
		}
		return text, nil
	}
	if step == nil {
		step = func() (string, error) { return "", nil }
	}
	return template.FuncMap{
		stepName:  step,
		"print":   func(a ...any) (string, error) { return within(fmt.Sprint(a...)) },
		"println": func(a ...any) (string, error) { return within(fmt.Sprintln(a...)) },
		"printf": func(format string, a ...any) (string, error) {
			if strings.Count(format, "%") > 64 {
				return "", errors.New("a format has more than 64 verbs")
			}
			return within(fmt.Sprintf(format, a...))
		},
		"html":     func(a ...any) (string, error) { return within(template.HTMLEscaper(a...)) },
		"js":       func(a ...any) (string, error) { return within(template.JSEscaper(a...)) },
		"urlquery": func(a ...any) (string, error) { return within(template.URLQueryEscaper(a...)) },
	}
}

// walker goes through a parsed template: it notes which fields are read, and puts a step before
// each pass of a loop.
type walker struct {
	uses map[string]bool
	step parse.Node
}

func (w *walker) list(l *parse.ListNode) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		w.node(n)
	}
}

func (w *walker) branch(b *parse.BranchNode, loop bool) {
	w.pipe(b.Pipe)
	w.list(b.List)
	w.list(b.ElseList)
	if loop && b.List != nil {
		b.List.Nodes = append([]parse.Node{w.step}, b.List.Nodes...)
	}
}

func (w *walker) pipe(p *parse.PipeNode) {
	if p == nil {
		return
	}
	for _, c := range p.Cmds {
		for _, n := range c.Args {
			w.node(n)
		}
	}
}

func (w *walker) node(n parse.Node) {
	switch n := n.(type) {
	case *parse.ListNode:
		w.list(n)
	case *parse.ActionNode:
		w.pipe(n.Pipe)
	case *parse.PipeNode:
		w.pipe(n)
	case *parse.IfNode:
		w.branch(&n.BranchNode, false)
	case *parse.RangeNode:
		w.branch(&n.BranchNode, true)
	case *parse.WithNode:
		w.branch(&n.BranchNode, false)
	case *parse.TemplateNode:
		w.pipe(n.Pipe)
	case *parse.FieldNode:
		w.uses[n.Ident[0]] = true
	case *parse.VariableNode:
		if n.Ident[0] == "$" && len(n.Ident) > 1 {
			w.uses[n.Ident[1]] = true
		} else if n.Ident[0] == "$" {
			w.uses[""] = true
		}
	case *parse.ChainNode:
		w.node(n.Node)
	case *parse.DotNode:
		// Within a loop the dot is an element. Taking it for everything only costs a query more.
		w.uses[""] = true
	}
}
