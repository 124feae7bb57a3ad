package source

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/prom"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

// Query is what a Source is asked.
type Query struct {
	PromQL string
	// Times is the query for the times of the samples by Label, "" where they do not matter.
	Times, Label string
}

// Source asks one Prometheus. Fetch is safe for concurrent use; List and Forget are called by one
// goroutine.
type Source struct {
	*prom.Endpoint
	// Name is how rules name it. Timeout bounds a request.
	Name    string
	Timeout time.Duration

	clock         func() time.Time
	allowWarnings bool
	// labels are what was listed of series by the text that selects them.
	labels map[string]labelsOf
	// sets are the labels of samples.
	sets answer.LabelSets
}

// New makes a Source. observe is told of each request.
func New(p *Prometheus, clock func() time.Time, observe func(kind, result string, d time.Duration)) (*Source, error) {
	return newSource(p, p.endpoint(), clock, observe)
}

func newSource(p *Prometheus, c prom.EndpointConfig, clock func() time.Time, observe func(kind, result string, d time.Duration)) (*Source, error) {
	c.Clock, c.Observe = clock, observe
	endpoint, err := prom.NewEndpoint(c)
	if err != nil {
		return nil, err
	}
	return &Source{Endpoint: endpoint, Name: p.Name, Timeout: c.Timeout, clock: clock, allowWarnings: p.AllowWarnings, labels: map[string]labelsOf{}}, nil
}

// Bounds of the queries of one tenant.
const (
	tenantTimeout    = 5 * time.Second
	tenantConcurrent = 2
	tenantBytes      = 64 << 10
)

// NewTenant makes a Source for the queries of one tenant. It is another than that for the
// operator's: it has less time, fewer requests at once, smaller answers, and pauses for itself when
// that tenant's queries fail.
func NewTenant(p *Prometheus, clock func() time.Time, observe func(kind, result string, d time.Duration)) (*Source, error) {
	c := p.endpoint()
	c.Timeout, c.MaxConcurrent, c.MaxBytes = min(c.Timeout, tenantTimeout), min(c.MaxConcurrent, tenantConcurrent), tenantBytes
	return newSource(p, c, clock, observe)
}

// labelsOf is what the series of one name have.
type labelsOf struct {
	names []string
	at    time.Time
	// used is when a listing last had the name.
	used time.Time
}

// partialError means that an answer may lack a part.
type partialError struct{ warning string }

// Error implements error.
func (e *partialError) Error() string {
	return fmt.Sprintf("the answer came with a warning and may be partial: %s; allowWarnings takes it", e.warning)
}

// query asks for an instant value. What may be partial is an error.
func (s *Source) query(ctx context.Context, promQL string) (answer.Result, error) {
	asked := s.clock()
	text, err := s.Query(ctx, promQL)
	if err != nil {
		return answer.Result{}, err
	}
	r, warnings, err := s.sets.Decode(text)
	if err != nil {
		return answer.Result{}, err
	}
	if err := s.whole(warnings); err != nil {
		return answer.Result{}, err
	}
	// The time of a sample is the instant for which the server computed it.
	for i := range r.Samples {
		if age := asked.Sub(r.Samples[i].Time); age > maxLag {
			return answer.Result{}, fmt.Errorf("it answers for %s ago: want at most %s; a cache may be between, or its clock stands", age.Round(time.Second), maxLag)
		}
	}
	return r, nil
}

// maxLag is how far behind the own clock the instant of an answer may be. Clocks differ by less.
const maxLag = 2 * time.Minute

// Fetch asks for a value, and for the times of the samples that it is made of where those matter.
func (s *Source) Fetch(ctx context.Context, q Query) (answer.Result, error) {
	r, err := s.query(ctx, q.PromQL)
	if err != nil || q.Times == "" || len(r.Samples) == 0 {
		return r, err
	}
	times, err := s.query(ctx, q.Times)
	if err != nil {
		return r, fmt.Errorf("ask for the times of the samples: %w", err)
	}
	by := map[string]time.Time{}
	for _, t := range times.Samples {
		by[t.Labels[q.Label]] = time.UnixMilli(int64(t.Value * 1000))
	}
	for i := range r.Samples {
		sample := &r.Samples[i]
		if t, ok := by[sample.Labels[q.Label]]; ok {
			sample.Time = t
		} else { // Prometheus finds none that is younger
			sample.Time = sample.Time.Add(-defaultLookback)
		}
	}
	return r, nil
}

// defaultLookback is how old a sample may be that Prometheus finds, unless it is told otherwise.
const defaultLookback = 5 * time.Minute

// Times makes the query for the time of the newest sample of each object, or of all if label is
// empty. Of several selectors the one whose samples are oldest counts. It is empty where the query
// reads no series.
func Times(q *promql.Query, label string) string {
	by := ""
	if label != "" {
		by = " by (" + labelName(label) + ")"
	}
	seen := map[string]bool{}
	var parts []string
	for _, s := range q.Selectors() {
		var matchers []string
		for _, m := range s.Matchers() {
			matchers = append(matchers, labelName(m.Label)+m.Operator+strconv.Quote(m.Value))
		}
		text := "{" + strings.Join(matchers, ",") + "}"
		if seen[text] {
			continue
		}
		seen[text] = true
		parts = append(parts, fmt.Sprintf(`label_replace(max%s (timestamp(%s)), "selector", "%d", "", "")`, by, text, len(parts)))
	}
	if len(parts) == 0 {
		return ""
	}
	return fmt.Sprintf("min%s (%s)", by, strings.Join(parts, " or "))
}

// labelName quotes names that PromQL takes in quotes only.
func labelName(label string) string {
	if model.LegacyValidation.IsValidLabelName(label) {
		return label
	}
	return strconv.Quote(label)
}

func (s *Source) whole(warnings []string) error {
	if len(warnings) > 0 && !s.allowWarnings {
		return &partialError{warnings[0]}
	}
	return nil
}
