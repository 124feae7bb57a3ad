package config

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// Request is what is asked for.
type Request struct {
	// API is Custom or External.
	API    string
	Metric string
	// Namespace is empty for objects outside of namespaces.
	Namespace string
	// Selector is the metric's, nil for none.
	Selector labels.Selector
}

// NamespaceLabels are the labels of a namespace. An error means that they are not known.
type NamespaceLabels func(namespace string) (labels.Set, error)

// Route is whose a request is.
type Route struct {
	// Delegate is its place in the file, -1 for nobody's.
	Delegate int
	// Rest says that it was taken since nobody else takes it.
	Rest bool
	// Hidden are the other delegates that match as well, after the first.
	Hidden []int
	// Err says why it is not known whose it is.
	Err error
}

// Route finds whose a request is: the first delegate that names it, and of those that take the rest
// the first.
func (c *Config) Route(r Request, of NamespaceLabels) Route {
	out := Route{Delegate: -1}
	for _, rest := range []bool{false, true} {
		for i := range c.Delegates {
			d := &c.Delegates[i]
			if !slices.Contains(d.APIs, r.API) {
				continue
			}
			matches, err := d.matchesRequest(r, rest, of)
			switch {
			case err != nil && out.Delegate < 0:
				out.Err, out.Delegate, out.Rest = err, i, rest
				return out
			case !matches:
			case out.Delegate < 0:
				out.Delegate, out.Rest = i, rest
			default:
				out.Hidden = append(out.Hidden, i)
			}
		}
		if out.Delegate >= 0 {
			return out
		}
	}
	return out
}

// matchesRequest reports whether one of the alternatives holds. An error means that one may hold.
func (d *Delegate) matchesRequest(r Request, rest bool, of NamespaceLabels) (bool, error) {
	var unknown error
	for i := range d.Match {
		m := &d.Match[i]
		if m.Rest != rest || !m.TakesName(r.Metric) || !m.selects(r.Selector) || len(m.Namespaces) > 0 && !slices.Contains(m.Namespaces, r.Namespace) {
			continue
		}
		if m.namespace == nil {
			return true, nil
		}
		if r.Namespace == "" {
			continue
		}
		set, err := of(r.Namespace)
		if err != nil {
			unknown = err
		} else if m.namespace.Matches(set) {
			return true, nil
		}
	}
	return false, unknown
}

// TakesName reports whether a metric's name matches; a match that names no metric takes each.
func (m *Match) TakesName(metric string) bool {
	switch {
	case m.pattern != nil:
		return m.pattern.MatchString(metric)
	case m.Metric == "":
		return true
	case m.IgnoreCase:
		return strings.EqualFold(m.Metric, metric)
	}
	return m.Metric == metric
}

// selects reports whether a selector asks for the key.
func (m *Match) selects(s labels.Selector) bool {
	if m.SelectorKey == "" {
		return true
	}
	if s == nil {
		return false
	}
	requirements, _ := s.Requirements()
	return slices.ContainsFunc(requirements, func(r labels.Requirement) bool {
		if r.Key() != m.SelectorKey {
			return false
		}
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			return len(m.SelectorValues) == 0 || !slices.ContainsFunc(r.ValuesUnsorted(), func(v string) bool { return !slices.Contains(m.SelectorValues, v) })
		case selection.Exists:
			return len(m.SelectorValues) == 0
		default: // what asks for its absence is not for whoever has it
			return false
		}
	})
}

// Lists reports whether a metric that the provider lists may be asked of it.
func (d *Delegate) Lists(metric string) bool {
	return slices.ContainsFunc(d.Match, func(m Match) bool { return m.TakesName(metric) })
}

// Names reports whether a match names the metric, whatever namespace and selector.
func (d *Delegate) Names(metric string) bool {
	return slices.ContainsFunc(d.Match, func(m Match) bool { return (m.Metric != "" || m.pattern != nil) && m.TakesName(metric) })
}
