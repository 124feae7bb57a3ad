package naming

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
)

// Names makes names of metrics of names of series, and says which series a rule takes.
type Names struct {
	filters []filter
	matches *regexp.Regexp
	as      string
}

type filter struct {
	pattern *regexp.Regexp
	not     bool
}

// field is a fault of a field below a rule.
func field(name, remedy string, err error) *config.FieldError {
	return &config.FieldError{Field: name, Err: err, Remedy: remedy}
}

// NewNames compiles the filters and the name of a rule. The error is a *config.FieldError with
// v0.12.0's words.
func NewNames(r *config.DiscoveryRule) (*Names, error) {
	n := &Names{as: r.Name.As}
	for i, f := range r.SeriesFilters {
		compiled, err := newFilter(f)
		if err != nil {
			return nil, field(fmt.Sprintf("seriesFilters[%d]", i), "give is or isNot, as a regular expression of RE2",
				fmt.Errorf("unable to generate series name filter associated with series query %q: %w", r.SeriesQuery, err))
		}
		n.filters = append(n.filters, compiled)
	}
	if r.Name.Matches == "" {
		n.matches = regexp.MustCompile(".*")
	} else {
		compiled, err := newFilter(config.RegexFilter{Is: r.Name.Matches})
		if err != nil {
			return nil, field("name.matches", "want a regular expression of RE2",
				fmt.Errorf("unable to generate series name filter from name rules associated with series query %q: %w", r.SeriesQuery, err))
		}
		n.filters = append(n.filters, compiled)
		n.matches = compiled.pattern
	}
	if n.as == "" {
		switch n.matches.NumSubexp() {
		case 0:
			n.as = "$0"
		case 1:
			n.as = "$1"
		default:
			return nil, field("name.as", "name the group that makes the name, such as ${1}",
				fmt.Errorf("must specify an 'as' value for name matcher %q associated with series query %q", r.Name.Matches, r.SeriesQuery))
		}
	}
	return n, nil
}

func newFilter(f config.RegexFilter) (filter, error) {
	switch {
	case f.Is != "" && f.IsNot != "":
		return filter{}, fmt.Errorf("cannot have both an `is` (%q) and `isNot` (%q) expression in a single filter", f.Is, f.IsNot)
	case f.Is == "" && f.IsNot == "":
		return filter{}, errors.New("must have either an `is` or `isNot` expression in a filter")
	}
	text := f.Is + f.IsNot
	pattern, err := regexp.Compile(text)
	if err != nil {
		return filter{}, fmt.Errorf("unable to compile series filter %q: %w", text, err)
	}
	return filter{pattern: pattern, not: f.IsNot != ""}, nil
}

// Takes reports whether the rule takes the series of a name.
func (n *Names) Takes(series string) bool {
	for _, f := range n.filters {
		if f.pattern.MatchString(series) == f.not {
			return false
		}
	}
	return true
}

// Metric is the name of the metric that a series makes.
func (n *Names) Metric(series string) (string, error) {
	at := n.matches.FindStringSubmatchIndex(series)
	if at == nil {
		return "", fmt.Errorf("series name %q did not match expected pattern %q", series, n.matches)
	}
	metric := string(n.matches.ExpandString(nil, n.as, series, at))
	if metric == "" {
		return "", fmt.Errorf("name.as %q makes an empty name of series %q%s", n.as, series, n.remedy())
	}
	return metric, nil
}

// remedy says which reference of as names no group.
func (n *Names) remedy() string {
	missing := n.Missing()
	if len(missing) == 0 {
		return ""
	}
	text := fmt.Sprintf("; $%s names no group of %q", missing[0], n.matches)
	digits := 0
	for digits < len(missing[0]) && '0' <= missing[0][digits] && missing[0][digits] <= '9' {
		digits++
	}
	if digits > 0 && digits < len(missing[0]) {
		text += fmt.Sprintf(": write ${%s}%s", missing[0][:digits], missing[0][digits:])
	}
	return text
}

var reference = regexp.MustCompile(`\$(?:\$|\{(\w+)\}|(\w+))`)

// Missing lists the references of as that name no group of matches; each stands for nothing.
func (n *Names) Missing() []string {
	var all []string
	for _, m := range reference.FindAllStringSubmatch(n.as, -1) {
		name := m[1] + m[2]
		if name == "" { // $$
			continue
		}
		if i, err := strconv.Atoi(name); err == nil && i <= n.matches.NumSubexp() {
			continue
		}
		if !slices.Contains(n.matches.SubexpNames(), name) {
			all = append(all, name)
		}
	}
	return all
}

// Unanchored lists the expressions of names, by field, that also match in the middle of a name: at
// its beginning, or at its end only.
func Unanchored(r *config.DiscoveryRule) (begins, ends []string) {
	open := func(name, text string) {
		switch {
		case text == "":
		case !strings.HasPrefix(text, "^") && !strings.HasPrefix(strings.TrimLeft(text, "("), ".*"):
			begins = append(begins, fmt.Sprintf("%s %q", name, text))
		case !strings.HasSuffix(text, "$") && !strings.HasSuffix(strings.TrimRight(text, ")"), ".*"):
			ends = append(ends, fmt.Sprintf("%s %q", name, text))
		}
	}
	for i, f := range r.SeriesFilters {
		open(fmt.Sprintf("seriesFilters[%d].is", i), f.Is)
	}
	open("name.matches", r.Name.Matches)
	return begins, ends
}
