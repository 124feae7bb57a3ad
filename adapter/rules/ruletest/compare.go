package ruletest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v2"
)

// Difference is a field that is not as expected.
type Difference struct {
	// Field is its path within the case, such as requests[1].values.
	Field string `json:"field"`
	Want  string `json:"want"`
	Got   string `json:"got"`
}

// Differences are documented answers that take the place of a file's expectations: where v0.12.0,
// which the file was made with, is wrong.
type Differences struct {
	Differences []Documented `yaml:"differences"`
}

// Documented is one case's, or one request's.
type Documented struct {
	Case string `yaml:"case"`
	// Request is its index, from 0; nil for the case itself.
	Request *int `yaml:"request"`
	// Reason says why the answer is right.
	Reason       string `yaml:"reason"`
	Expectations `yaml:",inline"`
	Expect       Expect `yaml:"expect"`
}

// ReadDifferences reads a file of documented differences.
func ReadDifferences(text []byte) (*Differences, error) {
	d := &Differences{}
	if err := yaml.UnmarshalStrict(text, d); err != nil {
		return nil, fmt.Errorf("read the differences: %w", err)
	}
	var errs []error
	for i, e := range d.Differences {
		if e.Case == "" || e.Reason == "" {
			errs = append(errs, fmt.Errorf("differences[%d]: case or reason is missing", i))
		}
	}
	return d, errors.Join(errs...)
}

// Apply puts documented differences in the place of expectations. The error names those that have
// no case or request, and those that are none.
func (d *Differences) Apply(cases []Case) error {
	var errs []error
	for i := range d.Differences {
		e := &d.Differences[i]
		at := slices.IndexFunc(cases, func(c Case) bool { return c.ID == e.Case })
		if at < 0 {
			errs = append(errs, fmt.Errorf("differences[%d]: there is no case %s", i, e.Case))
			continue
		}
		c := &cases[at]
		same := replace(&c.Startup, e.Startup)
		same = append(same, replace(&c.RelistError, e.RelistError)...)
		same = append(same, replaceList(&c.CustomMetrics, e.CustomMetrics)...)
		same = append(same, replaceList(&c.ExternalMetrics, e.ExternalMetrics)...)
		if e.Request != nil {
			if *e.Request < 0 || *e.Request >= len(c.Requests) {
				errs = append(errs, fmt.Errorf("differences[%d]: case %s has no requests[%d]", i, e.Case, *e.Request))
				continue
			}
			to := &c.Requests[*e.Request].Expect
			same = append(same, replaceList(&to.PromQL, e.Expect.PromQL)...)
			same = append(same, replace(&to.Status, e.Expect.Status)...)
			same = append(same, replace(&to.Error, e.Expect.Error)...)
			same = append(same, replaceList(&to.Values, e.Expect.Values)...)
		}
		for _, v := range same {
			errs = append(errs, fmt.Errorf("differences[%d]: case %s expects %q already", i, e.Case, v))
		}
	}
	return errors.Join(errs...)
}

// replace replaces an expectation, and gives it back where it was there already.
func replace[T comparable](to **T, by *T) (same []string) {
	if by == nil {
		return nil
	}
	if value(*to) == *by {
		same = []string{fmt.Sprint(*by)}
	}
	*to = by
	return same
}

func replaceList(to **[]string, by *[]string) (same []string) {
	if by == nil {
		return nil
	}
	if slices.Equal(value(*to), *by) {
		same = []string{lines(*by)}
	}
	*to = by
	return same
}

// Compare notes in an outcome what is not as a case expects.
func Compare(c *Case, out *Outcome) {
	if out.Unsupported != "" {
		return
	}
	add := func(field string, want, got string) {
		if want != got {
			out.Differences = append(out.Differences, Difference{Field: field, Want: want, Got: got})
		}
	}
	startup := "ok"
	if c.Startup != nil {
		startup = *c.Startup
	}
	add("startup", startup, out.Startup)
	add("relistError", value(c.RelistError), out.RelistError)
	add("customMetrics", lines(value(c.CustomMetrics)), lines(out.CustomMetrics))
	add("externalMetrics", lines(value(c.ExternalMetrics)), lines(out.ExternalMetrics))
	for i := range c.Requests {
		want, got := &c.Requests[i].Expect, &out.Requests[i]
		field := fmt.Sprintf("requests[%d].", i)
		add(field+"promql", lines(value(want.PromQL)), lines(got.PromQL))
		add(field+"status", fmt.Sprint(value(want.Status)), fmt.Sprint(got.Status))
		add(field+"error", value(want.Error), got.Error)
		add(field+"values", lines(value(want.Values)), lines(got.Values))
	}
}

// value is what a pointer points to, or nothing.
func value[T any](p *T) T {
	if p == nil {
		var none T
		return none
	}
	return *p
}

func lines(all []string) string { return strings.Join(all, "\n") }

// Diff writes what is different, for people.
func Diff(out *Outcome, c *Case) string {
	var b strings.Builder
	for _, d := range out.Differences {
		fmt.Fprintf(&b, "  %s\n", d.Field)
		for l := range strings.SplitSeq(d.Want, "\n") {
			if !strings.Contains("\n"+d.Got+"\n", "\n"+l+"\n") || d.Want == "" {
				fmt.Fprintf(&b, "    - %s\n", l)
			}
		}
		for l := range strings.SplitSeq(d.Got, "\n") {
			if !strings.Contains("\n"+d.Want+"\n", "\n"+l+"\n") || d.Got == "" {
				fmt.Fprintf(&b, "    + %s\n", l)
			}
		}
	}
	for i := range out.Requests {
		if cause := out.Requests[i].Cause; cause != "" && slices.ContainsFunc(out.Differences, func(d Difference) bool {
			return strings.HasPrefix(d.Field, fmt.Sprintf("requests[%d].", i))
		}) {
			fmt.Fprintf(&b, "  requests[%d] because: %s\n", i, cause)
		}
	}
	if len(out.Differences) > 0 && c.Wrong != "" {
		fmt.Fprintf(&b, "  the file says of v0.12.0: %s\n", c.Wrong)
	}
	return b.String()
}
