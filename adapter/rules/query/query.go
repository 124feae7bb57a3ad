package query

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// SelectorError is a fault of the caller's metric selector.
type SelectorError struct {
	// Requirement is the part that cannot be asked of Prometheus.
	Requirement string
	reason      string
}

// Error implements error.
func (e *SelectorError) Error() string {
	return fmt.Sprintf("the metric selector's %q: %s", e.Requirement, e.reason)
}

// Request is what a query is made for.
type Request struct {
	// Series is the name of the series.
	Series string
	// Selector is the caller's metric selector; nil is everything.
	Selector labels.Selector
	// NamespaceLabel and Namespace make the namespace's matcher; "" makes none.
	NamespaceLabel, Namespace string
	// Label is the label that names objects, "" for external metrics. Names are the objects.
	Label string
	Names []string
	// All asks for every object that has the label, in place of Names.
	All bool
	// ExtraGroupBy are labels to group by besides Label.
	ExtraGroupBy []string
	// LegacyNames says that the Prometheus is older than 3, and takes no quoted names. What needs
	// one is then an error.
	LegacyNames bool
}

// matcher is a condition on a label.
type matcher struct {
	label, operator, value string
	// raw is the value as LabelValuesByName shows it.
	raw string
}

// Render makes the query's text.
//
// It differs from v0.12.0's text in four ways, each only where that text is wrong: the values after
// =~ and !~ are quoted, so that v1.2 does not match v1x2; names that PromQL takes in quotes only
// are quoted; a series' name that needs quotes goes into the braces; and a comma that an empty list
// of matchers or labels has left over goes.
func (t *Template) Render(r Request) (string, error) {
	matchers, err := r.matchers()
	if err != nil {
		return "", err
	}
	quoted := r.Series != "" && !model.LegacyValidation.IsValidMetricName(r.Series)
	if quoted && r.LegacyNames {
		return "", fmt.Errorf("the series' name %q needs quotes, which Prometheus takes from version 3 on", r.Series)
	}
	a := args{Series: r.Series, LabelValuesByName: map[string]string{}, GroupBySlice: []string{}}
	text := make([]string, len(matchers))
	for i, m := range matchers {
		if text[i], err = m.text(r.LegacyNames); err != nil {
			return "", err
		}
		a.LabelValuesByName[m.label] = m.raw
	}
	a.LabelMatchers = strings.Join(text, ",")
	if r.Label != "" {
		for _, label := range append([]string{r.Label}, r.ExtraGroupBy...) {
			if label, err = name(label, r.LegacyNames); err != nil {
				return "", err
			}
			a.GroupBySlice = append(a.GroupBySlice, label)
		}
	}
	if quoted {
		a.Series = placeholder
	}
	a.GroupBy = strings.Join(a.GroupBySlice, ",")
	out, err := t.execute(a)
	if err != nil {
		return "", err
	}
	if quoted {
		out = quoteSeries(out, r.Series)
	}
	return dropCommas(out), nil
}

// matchers are the conditions, in v0.12.0's order: the selector's, the namespace's, the objects'.
func (r Request) matchers() ([]matcher, error) {
	var all []matcher
	if r.Selector != nil {
		requirements, _ := r.Selector.Requirements()
		for i := range requirements {
			m, err := convert(&requirements[i])
			if err != nil {
				return nil, err
			}
			all = append(all, m)
		}
	}
	if r.Namespace != "" && r.NamespaceLabel != "" {
		all = append(all, matcher{r.NamespaceLabel, "=", r.Namespace, r.Namespace})
	}
	switch {
	case r.Label == "":
	case r.All:
		all = append(all, matcher{r.Label, "!=", "", ".+"})
	case len(r.Names) == 1:
		all = append(all, matcher{r.Label, "=", r.Names[0], r.Names[0]})
	default:
		all = append(all, oneOf(r.Label, "=~", r.Names))
	}
	return all, nil
}

// oneOf matches any of several values, each as it is.
func oneOf(label, operator string, values []string) matcher {
	quoted, raw := make([]string, len(values)), make([]string, len(values))
	for i, v := range values {
		quoted[i], raw[i] = regexp.QuoteMeta(v), v
		if len(values) > 1 {
			// A template may set LabelValuesByName in any kind of quotes, where only classes
			// escape alike.
			raw[i] = classes(v)
		}
	}
	return matcher{label, operator, strings.Join(quoted, "|"), strings.Join(raw, "|")}
}

// classes quotes a value for a regular expression without a backslash.
func classes(v string) string {
	if regexp.QuoteMeta(v) == v {
		return v
	}
	var b strings.Builder
	for _, c := range v {
		switch {
		case strings.ContainsRune(`.+*?()|[]{}$`, c):
			b.WriteString("[" + string(c) + "]")
		case c == '^' || c == '\\':
			b.WriteString(`\` + string(c))
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// convert makes a condition of a part of the caller's selector.
func convert(r *labels.Requirement) (matcher, error) {
	fault := func(reason string) (matcher, error) {
		return matcher{}, &SelectorError{Requirement: r.String(), reason: reason}
	}
	values := slices.Sorted(maps.Keys(r.Values()))
	key := r.Key()
	if key == "" {
		return fault("it has no key")
	}
	switch r.Operator() {
	case selection.Exists:
		return matcher{key, "!=", "", ""}, nil
	case selection.DoesNotExist:
		return matcher{key, "=", "", ""}, nil
	case selection.GreaterThan, selection.LessThan:
		return fault("Prometheus compares no labels by size; want =, !=, in, notin, a key alone or !key")
	default:
	}
	if len(values) == 0 {
		return fault("it has no value")
	}
	switch r.Operator() {
	case selection.Equals, selection.DoubleEquals:
		if len(values) == 1 {
			return matcher{key, "=", values[0], values[0]}, nil
		}
		return oneOf(key, "=~", values), nil
	case selection.NotEquals:
		if len(values) == 1 {
			return matcher{key, "!=", values[0], values[0]}, nil
		}
		return oneOf(key, "!~", values), nil
	case selection.In:
		return oneOf(key, "=~", values), nil
	case selection.NotIn:
		return oneOf(key, "!~", values), nil
	default:
		return fault("its operator is unknown")
	}
}

// text is the condition in PromQL.
func (m matcher) text(legacy bool) (string, error) {
	label, err := name(m.label, legacy)
	if err != nil {
		return "", &SelectorError{Requirement: m.label, reason: err.Error()}
	}
	return label + m.operator + strconv.Quote(m.value), nil
}

// errQuotes says that a name needs Prometheus 3.
var errQuotes = errors.New("the label's name needs quotes, which Prometheus takes from version 3 on; want letters, digits and underscores")

// name is a label's name in PromQL: bare where it can be, as v0.12.0 writes it, and else in quotes.
func name(label string, legacy bool) (string, error) {
	if label == "" || model.LegacyValidation.IsValidLabelName(label) {
		return label, nil
	}
	if legacy {
		return "", fmt.Errorf("%q: %w", label, errQuotes)
	}
	return strconv.Quote(label), nil
}
