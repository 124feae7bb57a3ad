package promql

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// shape says how a part of a query depends on which objects were asked for.
type shape int

const (
	// shared parts are the same whichever objects are asked for.
	shared shape = iota
	// separable parts have, for each object, the samples that they would have if only that one were
	// asked for.
	separable
	// mixed parts are neither.
	mixed
)

// Groupable reports whether one query serves all objects: whether the query, rendered with the
// matcher label!="" in place of the objects' names, answers for each object what it answers when
// only that one is asked for. Where it does not, why says what stands against it.
//
// It does where every aggregation over the objects keeps the label, every match of two vectors
// includes it, and none of topk, bottomk, limitk, limit_ratio, quantile, count_values, absent and
// scalar stands over them. A query that does not depend on the objects is groupable, too.
//
// A grouped query can fail where a single one would not, when two series of another object clash.
// Ask for single objects then.
func (q *Query) Groupable(label string) (ok bool, why string) {
	g := grouping{label: label}
	s := g.shape(q.expr)
	switch {
	case s == mixed:
		return false, g.why
	case s == separable && !q.Keeps().Has(label):
		return false, fmt.Sprintf("the result has no label %s", label)
	}
	return true, ""
}

// grouping is one question about a label.
type grouping struct{ label, why string }

// mix notes the first reason.
func (g *grouping) mix(format string, args ...any) shape {
	if g.why == "" {
		g.why = fmt.Sprintf(format, args...)
	}
	return mixed
}

func (g *grouping) shape(e parser.Expr) shape {
	switch e := e.(type) {
	case *parser.NumberLiteral, *parser.StringLiteral, *parser.DurationExpr:
		return shared
	case *parser.VectorSelector:
		if slices.ContainsFunc(e.LabelMatchers, g.all) {
			return separable
		}
		return shared
	case *parser.MatrixSelector:
		return g.shape(e.VectorSelector)
	case *parser.SubqueryExpr:
		return g.shape(e.Expr)
	case *parser.ParenExpr:
		return g.shape(e.Expr)
	case *parser.UnaryExpr:
		return g.shape(e.Expr)
	case *parser.StepInvariantExpr:
		return g.shape(e.Expr)
	case *parser.AggregateExpr:
		return g.aggregate(e)
	case *parser.BinaryExpr:
		return g.binary(e)
	case *parser.Call:
		return g.call(e)
	}
	return g.mix("%s is not known", e)
}

// all reports whether a matcher is the one that stands for all objects.
func (g *grouping) all(m *labels.Matcher) bool {
	return m.Name == g.label && m.Type == labels.MatchNotEqual && m.Value == ""
}

func (g *grouping) aggregate(e *parser.AggregateExpr) shape {
	inner := g.shape(e.Expr)
	if e.Param != nil {
		if s := g.shape(e.Param); s != shared {
			return g.mix("the parameter of %s depends on the objects", e.Op)
		}
	}
	if inner != separable {
		return inner
	}
	switch e.Op {
	case parser.SUM, parser.AVG, parser.MIN, parser.MAX, parser.COUNT, parser.GROUP, parser.STDDEV, parser.STDVAR:
	default:
		return g.mix("%s stands over the objects", e.Op)
	}
	if slices.Contains(e.Grouping, g.label) == e.Without {
		return g.mix("%s does not keep the label %s", e.Op, g.label)
	}
	return separable
}

func (g *grouping) binary(e *parser.BinaryExpr) shape {
	l, r := g.shape(e.LHS), g.shape(e.RHS)
	s := max(l, r)
	if s != separable || e.VectorMatching == nil || e.LHS.Type() == parser.ValueTypeScalar || e.RHS.Type() == parser.ValueTypeScalar {
		return s
	}
	m := e.VectorMatching
	if slices.Contains(m.MatchingLabels, g.label) != m.On {
		return g.mix("the match of %s does not include the label %s", e.Op, g.label)
	}
	if m.FillValues.LHS != nil || m.FillValues.RHS != nil {
		return g.mix("%s fills in what is missing", e.Op)
	}
	return separable
}

func (g *grouping) call(e *parser.Call) shape {
	s := shared
	for _, a := range e.Args {
		s = max(s, g.shape(a))
	}
	if s != separable {
		return s
	}
	switch name := e.Func.Name; name {
	case "absent", "absent_over_time", "scalar", "info", "vector":
		return g.mix("%s stands over the objects", name)
	case "label_replace", "label_join", "histogram_quantiles":
		if t, ok := e.Args[1].(*parser.StringLiteral); !ok || t.Val == g.label {
			return g.mix("%s writes the label %s", name, g.label)
		}
	case "histogram_quantile", "histogram_fraction":
		if g.label == "le" {
			return g.mix("%s takes the label le away", name)
		}
	}
	return separable
}
