// Package ruletest tests rules as promtool tests Prometheus' rules: without a cluster and without a
// Prometheus. A file has cases: rules, the series that there are, requests, what Prometheus
// answers, and what is expected. It is pure.
package ruletest

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v2"

	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
)

// MaxBytes bounds a file, in bytes.
const MaxBytes = 32 << 20

// File is a file of cases.
type File struct {
	Cases []Case `yaml:"cases"`
	// Other are keys that are not known; they are said and not read.
	Other map[string]any `yaml:",inline"`
}

// Case is a file of rules with requests.
type Case struct {
	ID string `yaml:"id"`
	// Config is the text of the rules.
	Config string `yaml:"config"`
	// Series are the series that Prometheus has.
	Series []string `yaml:"series"`
	// SeriesAnswerIsNull says that the listing of series answers null.
	SeriesAnswerIsNull bool `yaml:"seriesAnswerIsNull"`
	// ExtraResources are custom resources that the cluster has: words of package mapping, or
	// resources.
	ExtraResources []any `yaml:"extraResources"`
	// Kind is set in cases of other metric sources, which are not rules.
	Kind string `yaml:"kind"`

	Expectations `yaml:",inline"`
	Requests     []Request `yaml:"requests"`

	// From, Wrong, Note, Trap and MustProduce are for people.
	From        string         `yaml:"from"`
	Wrong       string         `yaml:"wrong"`
	Note        string         `yaml:"note"`
	Trap        string         `yaml:"trap"`
	MustProduce any            `yaml:"mustProduce"`
	Other       map[string]any `yaml:",inline"`
}

// Expectations are what the rules are expected to make.
type Expectations struct {
	// Startup is ok, or "fails: " with the message.
	Startup *string `yaml:"startup"`
	// RelistError is why a listing of series failed.
	RelistError *string `yaml:"relistError"`
	// CustomMetrics and ExternalMetrics are those of discovery.
	CustomMetrics   *[]string `yaml:"customMetrics"`
	ExternalMetrics *[]string `yaml:"externalMetrics"`
}

// Request is a request for a metric, and Prometheus' answer to it.
type Request struct {
	// API is custom, external or resource.
	API string `yaml:"api"`
	// Resource is the kind of object, such as deployments.apps.
	Resource  string `yaml:"resource"`
	Namespace string `yaml:"namespace"`
	// Name is the object's, * for the list of Objects.
	Name           string   `yaml:"name"`
	Objects        []string `yaml:"objects"`
	Metric         string   `yaml:"metric"`
	MetricSelector string   `yaml:"metricSelector"`
	// Answer is a vector, ScalarAnswer a number; without either the answer is empty.
	Answer       []Sample `yaml:"answer"`
	ScalarAnswer *string  `yaml:"scalarAnswer"`
	AnswerIsNull bool     `yaml:"answerIsNull"`
	// At is when it is made, after the beginning of the case; for rules that hold values.
	At     model.Duration `yaml:"at"`
	Expect Expect         `yaml:"expect"`
	Other  map[string]any `yaml:",inline"`
}

// Sample is a sample of an answer.
type Sample struct {
	Labels map[string]string `yaml:"labels"`
	Value  string            `yaml:"value"`
	// Age is how old it is.
	Age   model.Duration `yaml:"age"`
	Other map[string]any `yaml:",inline"`
}

// Expect is what a request is expected to give. What is absent is expected to be empty.
type Expect struct {
	// PromQL are the queries, in order.
	PromQL *[]string `yaml:"promql"`
	// PromQLInvalid is what a parser says of the query. It is reported and not compared, since its
	// words change with Prometheus' version.
	PromQLInvalid string  `yaml:"promqlInvalid"`
	Status        *int    `yaml:"status"`
	Error         *string `yaml:"error"`
	// Values are as "Pod shop/web-1 = 250m", or as `{topic="a"} = 3` of external metrics.
	Values *[]string      `yaml:"values"`
	Other  map[string]any `yaml:",inline"`
}

// Read reads a file of cases. unknown are keys that are not known, such as a misspelt one.
func Read(text []byte) (f *File, unknown []string, err error) {
	if len(text) > MaxBytes {
		return nil, nil, fmt.Errorf("the file has %d bytes: want at most %d", len(text), MaxBytes)
	}
	f = &File{}
	if err := yaml.Unmarshal(text, f); err != nil {
		return nil, nil, fmt.Errorf("read the cases: %w", err)
	}
	if len(f.Cases) == 0 {
		return nil, nil, fmt.Errorf("the file has no cases: want a list under the key cases")
	}
	note := func(place string, other map[string]any) {
		for _, k := range slices.Sorted(maps.Keys(other)) {
			unknown = append(unknown, place+k)
		}
	}
	note("", f.Other)
	for i := range f.Cases {
		c := &f.Cases[i]
		if c.ID == "" {
			c.ID = fmt.Sprintf("cases[%d]", i)
		}
		note(c.ID+": ", c.Other)
		for j := range c.Requests {
			place := fmt.Sprintf("%s: requests[%d].", c.ID, j)
			note(place, c.Requests[j].Other)
			note(place+"expect.", c.Requests[j].Expect.Other)
			for _, s := range c.Requests[j].Answer {
				note(place+"answer.", s.Other)
			}
		}
	}
	return f, unknown, nil
}

// resources are those of Kubernetes and those of a case.
func (c *Case) resources() ([]mapping.Resource, error) {
	all := mapping.Kubernetes()
	for i, e := range c.ExtraResources {
		if word, ok := e.(string); ok {
			more, err := mapping.Custom(word)
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
			continue
		}
		text, err := yaml.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("extraResources[%d]: %w", i, err)
		}
		var r struct {
			Group, Version, Resource, Singular, Kind string
			Namespaced                               *bool
		}
		if err := yaml.UnmarshalStrict(text, &r); err != nil {
			return nil, fmt.Errorf("extraResources[%d]: %w", i, err)
		}
		resource := mapping.Resource{
			Group: r.Group, Version: r.Version, Name: r.Resource, Singular: r.Singular, Kind: r.Kind, Root: r.Namespaced != nil && !*r.Namespaced,
		}
		if err := resource.Validate(); err != nil {
			return nil, fmt.Errorf("extraResources[%d]: %w", i, err)
		}
		all = append(all, resource)
	}
	return all, nil
}

// epoch is when requests are made, in the time of a test.
var epoch = time.Unix(1_800_000_000, 0).UTC() //nolint:gochecknoglobals // a constant
