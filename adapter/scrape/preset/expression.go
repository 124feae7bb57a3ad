package preset

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/theory/jsonpath"
)

// evaluator finds a value in what a pod answered.
type evaluator interface {
	// value returns a number, which may be none (NaN, ±Inf), or a missingError where the answer
	// lacks it.
	value(a *answer) (float64, error)
	// names are the names of the samples that it looks at; none for a JSON path.
	names() []string
}

// missingError says what an answer lacks.
type missingError string

func (e missingError) Error() string { return string(e) }

// newEvaluator compiles a text: a JSON path, which begins with $, or an expression of samples. In
// the latter max and min are allowed for gauges alone: of counters they would jump.
func newEvaluator(text, over string, gauge bool) (evaluator, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("it has %d bytes: want at most %d", len(text), maxText)
	}
	if strings.HasPrefix(text, "$") {
		return newJSONPath(text, over)
	}
	if strings.Count(text, "(")+strings.Count(text, "{") > 64 {
		return nil, errors.New("want at most 64 parentheses and braces")
	}
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		return nil, fmt.Errorf("want names of samples, as in PromQL, or a JSON path that begins with $: %w", err)
	}
	return newNode(expr, gauge)
}

// errForm says what expressions may hold.
var errForm = errors.New("want selectors such as requests{code=\"200\"}, joined by +, -, * and /, with numbers, sum(), and for gauges max() and min()")

// node is a selector, a number, or an operation on two others.
type node struct {
	// +, -, *, /; s for a sum of samples, M for their greatest, m for their least, n for a number
	op          byte
	left, right *node
	number      float64
	selector    *parser.VectorSelector
}

func newNode(expr parser.Expr, gauge bool) (*node, error) {
	switch e := expr.(type) {
	case *parser.ParenExpr:
		return newNode(e.Expr, gauge)
	case *parser.StepInvariantExpr:
		return newNode(e.Expr, gauge)
	case *parser.NumberLiteral:
		if math.IsNaN(e.Val) || math.IsInf(e.Val, 0) {
			return nil, errForm
		}
		return &node{op: 'n', number: e.Val}, nil
	case *parser.VectorSelector:
		return newSelector(e)
	case *parser.AggregateExpr:
		return newAggregate(e, gauge)
	case *parser.BinaryExpr:
		op := map[parser.ItemType]byte{parser.ADD: '+', parser.SUB: '-', parser.MUL: '*', parser.DIV: '/'}[e.Op]
		if op == 0 || e.ReturnBool || e.VectorMatching != nil && (len(e.VectorMatching.MatchingLabels) > 0 || e.VectorMatching.On) {
			return nil, errForm
		}
		left, err := newNode(e.LHS, gauge)
		if err != nil {
			return nil, err
		}
		right, err := newNode(e.RHS, gauge)
		if err != nil {
			return nil, err
		}
		if !gauge && (op == '*' && left.op != 'n' && right.op != 'n' || op == '/' && right.op != 'n') {
			return nil, errors.New("a product or quotient of counters is no counter: want a factor that is a number, or per")
		}
		return &node{op: op, left: left, right: right}, nil
	}
	return nil, errForm
}

func newSelector(e *parser.VectorSelector) (*node, error) {
	if e.OriginalOffset != 0 || e.Timestamp != nil || e.StartOrEnd != 0 || e.Name == "" {
		return nil, errForm
	}
	return &node{op: 's', selector: e}, nil
}

func newAggregate(e *parser.AggregateExpr, gauge bool) (*node, error) {
	op := map[parser.ItemType]byte{parser.SUM: 's', parser.MAX: 'M', parser.MIN: 'm'}[e.Op]
	inner := e.Expr
	for {
		p, ok := inner.(*parser.ParenExpr)
		if !ok {
			break
		}
		inner = p.Expr
	}
	selector, ok := inner.(*parser.VectorSelector)
	if !ok || op == 0 || op != 's' && !gauge || len(e.Grouping) > 0 || e.Without {
		return nil, errForm
	}
	n, err := newSelector(selector)
	if err != nil {
		return nil, err
	}
	n.op = op
	return n, nil
}

// names implements evaluator.
func (n *node) names() []string {
	switch {
	case n.selector != nil:
		return []string{n.selector.Name}
	case n.left != nil:
		return append(n.left.names(), n.right.names()...)
	}
	return nil
}

// value implements evaluator.
func (n *node) value(a *answer) (float64, error) {
	switch {
	case n.op == 'n':
		return n.number, nil
	case n.selector != nil:
		return n.aggregate(a)
	}
	left, err := n.left.value(a)
	if err != nil {
		return 0, err
	}
	right, err := n.right.value(a)
	if err != nil {
		return 0, err
	}
	switch n.op {
	case '+':
		return left + right, nil
	case '-':
		return left - right, nil
	case '*':
		return left * right, nil
	}
	return left / right, nil
}

// aggregate joins the samples that the selector selects. One that is no number makes it none.
func (n *node) aggregate(a *answer) (float64, error) {
	v, found := 0.0, false
	for _, s := range a.samples[n.selector.Name] {
		if !matches(s.labels, n.selector.LabelMatchers) {
			continue
		}
		switch {
		case !found:
			v = s.value
		case n.op == 's':
			v += s.value
		case n.op == 'M':
			v = math.Max(v, s.value) // NaN if either is
		case n.op == 'm':
			v = math.Min(v, s.value)
		}
		found = true
	}
	if !found {
		return 0, missingError("no sample of " + n.selector.String())
	}
	return v, nil
}

func matches(of []*dto.LabelPair, all []*labels.Matcher) bool {
	for _, m := range all {
		if m.Name == model.MetricNameLabel {
			continue
		}
		value := ""
		for _, l := range of {
			if l.GetName() == m.Name {
				value = l.GetValue()
			}
		}
		if !m.Matches(value) {
			return false
		}
	}
	return true
}

// jsonPath is a path of RFC 9535.
type jsonPath struct {
	path *jsonpath.Path
	text string
	over string
}

func newJSONPath(text, over string) (evaluator, error) {
	if strings.Count(text, "..") > 1 {
		return nil, errors.New("want at most one \"..\", since two look at an answer's every part for each of its parts")
	}
	p, err := jsonpath.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("want a JSON path such as $.http_server.rps: %w", err)
	}
	return jsonPath{path: p, text: text, over: over}, nil
}

// names implements evaluator.
func (jsonPath) names() []string { return nil }

// value implements evaluator.
func (p jsonPath) value(a *answer) (float64, error) {
	nodes := []any(p.path.Select(a.json))
	if len(nodes) == 1 {
		if list, ok := nodes[0].([]any); ok {
			nodes = list
		}
	}
	if len(nodes) == 0 {
		return 0, missingError("nothing at " + p.text)
	}
	if len(nodes) > 1 && p.over == "" {
		return 0, missingError(fmt.Sprintf("%d values at %s: say over: sum, avg, max or min", len(nodes), p.text))
	}
	var v float64
	for i, n := range nodes {
		number, ok := n.(json.Number)
		if !ok {
			return 0, missingError("no number at " + p.text)
		}
		f, err := number.Float64() // ±Inf with an error, where it is too large
		if err != nil {
			return 0, missingError("no number at " + p.text)
		}
		switch {
		case i == 0:
			v = f
		case p.over == "max":
			v = math.Max(v, f)
		case p.over == "min":
			v = math.Min(v, f)
		default:
			v += f
		}
	}
	if p.over == "avg" {
		v /= float64(len(nodes))
	}
	return v, nil
}
