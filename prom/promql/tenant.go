package promql

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// Bounds are what a query may cost. A field of 0 allows none.
type Bounds struct {
	// Selectors is how many selectors it may have.
	Selectors int
	// Range is the longest time that it may read back, by ranges, subqueries and offsets together.
	Range time.Duration
	// Steps is how many steps all subqueries around a selector may make together.
	Steps int
}

// Narrow returns the query with label="value" among the conditions of each selector, so that it
// reads no series of another value. Conditions that it has stay, and select nothing where they
// contradict. What reads series without a selector, and what costs more than the bounds, is an
// error.
func (q *Query) Narrow(label, value string, b Bounds) (*Query, error) {
	own, err := Parse(q.expr.String()) // q is not changed
	if err != nil {
		return nil, err
	}
	switch own.expr.Type() {
	case parser.ValueTypeScalar, parser.ValueTypeVector:
	default:
		return nil, fmt.Errorf("the query gives a %s: want a number or one series", parser.DocumentedType(own.expr.Type()))
	}
	n := narrower{bounds: b, matcher: func() (*labels.Matcher, error) { return labels.NewMatcher(labels.MatchEqual, label, value) }}
	n.visit(own.expr, 0, 1)
	if n.selectors > b.Selectors {
		n.errs = append(n.errs, fmt.Errorf("the query has %d selectors: want at most %d", n.selectors, b.Selectors))
	}
	if err := errors.Join(n.errs...); err != nil {
		return nil, err
	}
	return Parse(own.expr.String())
}

// String is the query's text.
func (q *Query) String() string { return q.expr.String() }

// narrower goes through a query.
type narrower struct {
	bounds    Bounds
	matcher   func() (*labels.Matcher, error)
	selectors int
	errs      []error
}

// visit goes down from a node. back is how far back of the query's instant it is read, steps how
// often.
func (n *narrower) visit(node parser.Node, back time.Duration, steps float64) {
	switch node := node.(type) {
	case *parser.Call:
		// info reads series that no selector of the query names.
		if strings.HasPrefix(node.Func.Name, "info") {
			n.errs = append(n.errs, fmt.Errorf("the query calls %s, which reads series that it does not name: want none of it", node.Func.Name))
		}
	case *parser.VectorSelector:
		n.selectors++
		m, err := n.matcher()
		if err != nil {
			n.errs = append(n.errs, err)
			return
		}
		node.LabelMatchers = append(slices.Clip(node.LabelMatchers), m)
		n.offset(node.OriginalOffset, node.Timestamp)
		n.cost(back+max(node.OriginalOffset, 0), steps)
	case *parser.MatrixSelector:
		back += node.Range
	case *parser.SubqueryExpr:
		n.offset(node.OriginalOffset, node.Timestamp)
		back += node.Range + max(node.OriginalOffset, 0)
		step := node.Step
		if step <= 0 {
			step = time.Second // Prometheus' own default is not known here
		}
		steps *= max(1, float64(node.Range)/float64(step))
	}
	for c := range parser.ChildrenIter(node) {
		n.visit(c, back, steps)
	}
}

// offset refuses instants of the query's own: what is read is to be of now.
func (n *narrower) offset(offset time.Duration, at *int64) {
	if at != nil {
		n.errs = append(n.errs, errors.New("the query reads at an instant of its own (@): want the present"))
	}
	if offset < 0 {
		n.errs = append(n.errs, fmt.Errorf("the query has the offset %v: want ≥ 0", offset))
	}
}

func (n *narrower) cost(back time.Duration, steps float64) {
	if back > n.bounds.Range {
		n.errs = append(n.errs, fmt.Errorf("the query reads %v back: want at most %v", back, n.bounds.Range))
	}
	if steps > float64(n.bounds.Steps) {
		n.errs = append(n.errs, fmt.Errorf("the subqueries make %.0f steps: want at most %d", steps, n.bounds.Steps))
	}
}
