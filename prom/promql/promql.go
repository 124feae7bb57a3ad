// Package promql reads PromQL with Prometheus' own parser, and says what can be known about a query
// before it is asked: which labels its result has, and whether one query can serve many objects. It
// is pure, and safe for concurrent use.
//
// It is the one package that imports the parser, which adds about 1.5 MB to a program.
package promql

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// maxText bounds a text that is parsed, in bytes; the parser's time and depth grow with it.
const maxText = 1 << 20

// maxDepth bounds how deep parentheses and braces may be nested.
const maxDepth = 200

// newParser is a parser that knows all functions: a Prometheus may have them enabled.
func newParser() parser.Parser {
	return parser.NewParser(parser.Options{EnableExperimentalFunctions: true})
}

// check refuses texts that the parser would take long over.
func check(text string) error {
	if len(text) > maxText {
		return fmt.Errorf("the text has %d bytes: want at most %d", len(text), maxText)
	}
	depth := 0
	for _, c := range text {
		switch c {
		case '(', '{', '[':
			depth++
		case ')', '}', ']':
			depth--
		}
		if depth > maxDepth {
			return fmt.Errorf("the text is nested deeper than %d", maxDepth)
		}
	}
	return nil
}

// Query is a parsed query.
type Query struct{ expr parser.Expr }

// Parse parses a query. The error has a place, such as 1:9.
func Parse(text string) (*Query, error) {
	if err := check(text); err != nil {
		return nil, err
	}
	expr, err := newParser().ParseExpr(text)
	if err != nil {
		return nil, short(err)
	}
	return &Query{expr: expr}, nil
}

// short is the first of a parser's errors.
func short(err error) error {
	if all, ok := errors.AsType[parser.ParseErrors](err); ok && len(all) > 0 {
		return &all[0]
	}
	return err
}

// Matcher is a condition on a label.
type Matcher struct{ Label, Operator, Value string }

// String writes it as PromQL.
func (m Matcher) String() string { return fmt.Sprintf("%s%s%q", m.Label, m.Operator, m.Value) }

// Selector selects series.
type Selector struct{ matchers []*labels.Matcher }

// ParseSelector parses a series selector. One that could select every series is an error, as
// Prometheus says it.
func ParseSelector(text string) (Selector, error) {
	if err := check(text); err != nil {
		return Selector{}, err
	}
	all, err := newParser().ParseMetricSelector(text)
	if err != nil {
		return Selector{}, fmt.Errorf("invalid parameter \"match[]\": %w", short(err))
	}
	if !slices.ContainsFunc(all, func(m *labels.Matcher) bool { return !m.Matches("") }) {
		return Selector{}, errors.New("match[] must contain at least one non-empty matcher")
	}
	return Selector{matchers: all}, nil
}

// Matches reports whether a series of these labels, __name__ among them, is selected.
func (s Selector) Matches(series map[string]string) bool {
	for _, m := range s.matchers {
		if !m.Matches(series[m.Name]) {
			return false
		}
	}
	return true
}

// Name is the one series name that is selected, "" if there may be others.
func (s Selector) Name() string {
	for _, m := range s.matchers {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
			return m.Value
		}
	}
	return ""
}

// Matchers lists the selector's conditions.
func (s Selector) Matchers() []Matcher {
	all := make([]Matcher, len(s.matchers))
	for i, m := range s.matchers {
		all[i] = Matcher{Label: m.Name, Operator: m.Type.String(), Value: m.Value}
	}
	return all
}

// ParseSeries parses a series as Prometheus writes it, such as up{job="a"}. The name is the label
// __name__.
func ParseSeries(text string) (map[string]string, error) {
	if err := check(text); err != nil {
		return nil, err
	}
	l, err := newParser().ParseMetric(text)
	if err != nil {
		return nil, short(err)
	}
	return l.Map(), nil
}

// Selectors lists the selectors in the query, from left to right.
func (q *Query) Selectors() []Selector {
	var all []Selector
	walk(q.expr, func(n parser.Node) {
		if s, ok := n.(*parser.VectorSelector); ok {
			all = append(all, Selector{matchers: s.LabelMatchers})
		}
	})
	return all
}

// Window is the longest range of time that the query reads, 0 where it reads instants.
func (q *Query) Window() time.Duration {
	var longest time.Duration
	walk(q.expr, func(n parser.Node) {
		switch n := n.(type) {
		case *parser.MatrixSelector:
			longest = max(longest, n.Range)
		case *parser.SubqueryExpr:
			longest = max(longest, n.Range)
		}
	})
	return longest
}

// NaN lists the parts of the query that can make NaN or infinite of finite numbers: divisions by
// what is not a constant, and quantiles of histograms.
func (q *Query) NaN() []string {
	var all []string
	walk(q.expr, func(n parser.Node) {
		switch n := n.(type) {
		case *parser.BinaryExpr:
			if n.Op != parser.DIV && n.Op != parser.MOD {
				return
			}
			if c, ok := constant(n.RHS); !ok || c == 0 {
				all = append(all, "… "+n.Op.String()+" "+n.RHS.String())
			}
		case *parser.Call:
			if strings.HasPrefix(n.Func.Name, "histogram_quantile") || slices.Contains([]string{"ln", "log2", "log10", "sqrt"}, n.Func.Name) {
				all = append(all, n.Func.Name+"(…)")
			}
		}
	})
	return all
}

// constant is the value of a number.
func constant(e parser.Expr) (float64, bool) {
	switch e := e.(type) {
	case *parser.NumberLiteral:
		return e.Val, true
	case *parser.ParenExpr:
		return constant(e.Expr)
	case *parser.UnaryExpr:
		v, ok := constant(e.Expr)
		if e.Op == parser.SUB {
			v = -v
		}
		return v, ok
	}
	return 0, false
}

// walk visits a node and all below it.
func walk(n parser.Node, visit func(parser.Node)) {
	if n == nil {
		return
	}
	visit(n)
	for c := range parser.ChildrenIter(n) {
		walk(c, visit)
	}
}

// Labels are the labels that a result can have: those of Only, or, where Only is nil, all but those
// of Except.
type Labels struct {
	Only   map[string]bool
	Except map[string]bool
}

// Has reports whether a result can have a label.
func (l Labels) Has(label string) bool {
	if l.Only != nil {
		return l.Only[label]
	}
	return !l.Except[label]
}

// Names lists the labels of Only by name, nil where there may be any.
func (l Labels) Names() []string {
	if l.Only == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(l.Only))
}

// only is those of the given labels that l has.
func (l Labels) only(names []string) Labels {
	out := Labels{Only: map[string]bool{}}
	for _, n := range names {
		if l.Has(n) {
			out.Only[n] = true
		}
	}
	return out
}

// without is l without some labels.
func (l Labels) without(names ...string) Labels {
	out := Labels{}
	if l.Only != nil {
		out.Only = maps.Clone(l.Only)
		maps.DeleteFunc(out.Only, func(n string, _ bool) bool { return slices.Contains(names, n) })
		return out
	}
	out.Except = map[string]bool{}
	maps.Copy(out.Except, l.Except)
	for _, n := range names {
		out.Except[n] = true
	}
	return out
}

// with is l with a label.
func (l Labels) with(names ...string) Labels {
	out := Labels{Only: maps.Clone(l.Only), Except: maps.Clone(l.Except)}
	for _, n := range names {
		if out.Only != nil {
			out.Only[n] = true
		}
		delete(out.Except, n)
	}
	return out
}

// union is what l or m has.
func (l Labels) union(m Labels) Labels {
	switch {
	case l.Only != nil && m.Only != nil:
		return l.with(m.Names()...)
	case l.Only != nil:
		return m.with(l.Names()...)
	case m.Only != nil:
		return l.with(m.Names()...)
	}
	out := Labels{Except: map[string]bool{}}
	for n := range l.Except {
		if m.Except[n] {
			out.Except[n] = true
		}
	}
	return out
}

// Scalar reports whether the result is a number without labels.
func (q *Query) Scalar() bool { return q.expr.Type() == parser.ValueTypeScalar }

// Keeps says which labels the result can have. The name of the series is not counted.
func (q *Query) Keeps() Labels { return keeps(q.expr).without(model.MetricNameLabel) }

func keeps(e parser.Expr) Labels {
	none := Labels{Only: map[string]bool{}}
	switch e := e.(type) {
	case *parser.AggregateExpr:
		inner := keeps(e.Expr)
		switch e.Op {
		case parser.TOPK, parser.BOTTOMK, parser.LIMITK, parser.LIMIT_RATIO:
			return inner
		}
		if e.Without {
			inner = inner.without(append([]string{model.MetricNameLabel}, e.Grouping...)...)
		} else {
			inner = inner.only(e.Grouping)
		}
		if e.Op == parser.COUNT_VALUES {
			if s, ok := e.Param.(*parser.StringLiteral); ok {
				inner = inner.with(s.Val)
			}
		}
		return inner
	case *parser.BinaryExpr:
		return keepsBinary(e)
	case *parser.Call:
		return keepsCall(e)
	case *parser.ParenExpr:
		return keeps(e.Expr)
	case *parser.UnaryExpr:
		return keeps(e.Expr)
	case *parser.StepInvariantExpr:
		return keeps(e.Expr)
	case *parser.SubqueryExpr:
		return keeps(e.Expr)
	case *parser.MatrixSelector:
		return keeps(e.VectorSelector)
	case *parser.VectorSelector:
		return Labels{}
	}
	return none
}

func keepsBinary(e *parser.BinaryExpr) Labels {
	if e.LHS.Type() == parser.ValueTypeScalar {
		return keeps(e.RHS)
	}
	if e.RHS.Type() == parser.ValueTypeScalar || e.VectorMatching == nil {
		return keeps(e.LHS)
	}
	l, r, m := keeps(e.LHS), keeps(e.RHS), e.VectorMatching
	switch {
	case e.Op == parser.LOR:
		return l.union(r)
	case e.Op.IsSetOperator():
		return l
	case m.Card == parser.CardManyToOne:
		return l.with(r.only(m.Include).Names()...)
	case m.Card == parser.CardOneToMany:
		return r.with(l.only(m.Include).Names()...)
	case m.On:
		return l.only(m.MatchingLabels)
	}
	return l.without(m.MatchingLabels...)
}

func keepsCall(e *parser.Call) Labels {
	var inner Labels
	found := false
	for _, a := range e.Args {
		if t := a.Type(); t == parser.ValueTypeVector || t == parser.ValueTypeMatrix {
			inner, found = keeps(a), true
			break
		}
	}
	text := func(i int) string {
		if i < len(e.Args) {
			if s, ok := e.Args[i].(*parser.StringLiteral); ok {
				return s.Val
			}
		}
		return ""
	}
	switch name := e.Func.Name; {
	case name == "scalar" || name == "vector" || !found:
		return Labels{Only: map[string]bool{}}
	case strings.HasPrefix(name, "absent"):
		return inner // those that the selector fixes
	case name == "label_replace" || name == "label_join":
		return inner.with(text(1))
	case name == "histogram_quantile" || name == "histogram_fraction":
		return inner.without("le")
	case name == "histogram_quantiles":
		return inner.without("le").with(text(1))
	case name == "info":
		return Labels{}
	}
	return inner
}

// Named is the selector's text with the series' name fixed.
func (s Selector) Named(name string) string {
	all := []string{Matcher{Label: model.MetricNameLabel, Operator: "=", Value: name}.String()}
	for _, m := range s.matchers {
		if m.Name != model.MetricNameLabel {
			all = append(all, m.String())
		}
	}
	return "{" + strings.Join(all, ",") + "}"
}
