package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/prom"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

// source asks one Prometheus.
type source struct {
	*prom.Endpoint
	name          string
	timeout       time.Duration
	allowWarnings bool
	// labels are what was listed of series by the text that selects them. Only the relist reads
	// and writes them.
	labels map[string]labelsOf
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
func (s *source) query(ctx context.Context, promQL string) (answer.Result, error) {
	text, err := s.Query(ctx, promQL)
	if err != nil {
		return answer.Result{}, err
	}
	r, warnings, err := answer.Decode(text)
	if err != nil {
		return answer.Result{}, err
	}
	if err := s.whole(warnings); err != nil {
		return answer.Result{}, err
	}
	return r, nil
}

// dated asks for a value, and for the times of the samples that it is made of where those matter.
func (s *source) dated(ctx context.Context, key queryKey) (answer.Result, error) {
	r, err := s.query(ctx, key.promQL)
	if err != nil || key.times == "" || len(r.Samples) == 0 {
		return r, err
	}
	times, err := s.query(ctx, key.times)
	if err != nil {
		return r, fmt.Errorf("ask for the times of the samples: %w", err)
	}
	by := map[string]time.Time{}
	for _, t := range times.Samples {
		by[t.Labels[key.label]] = time.UnixMilli(int64(t.Value * 1000))
	}
	for i := range r.Samples {
		sample := &r.Samples[i]
		if t, ok := by[sample.Labels[key.label]]; ok {
			sample.Time = t
		} else { // Prometheus finds none that is younger
			sample.Time = sample.Time.Add(-defaultLookback)
		}
	}
	return r, nil
}

// defaultLookback is how old a sample may be that Prometheus finds, unless it is told otherwise.
const defaultLookback = 5 * time.Minute

// times makes the query for the time of the newest sample of each object, or of all if label is
// empty. Of several selectors the one whose samples are oldest counts. It is empty where the query
// reads no series.
func times(q *promql.Query, label string) string {
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

func (s *source) whole(warnings []string) error {
	if len(warnings) > 0 && !s.allowWarnings {
		return &partialError{warnings[0]}
	}
	return nil
}

// failed is the answer to a reader where a query failed: the rule's fault where Prometheus refused
// the query, and unknown else.
func failed(m *rules.Metric, of, source string, err error) *answer.Error {
	where := "Prometheus"
	if source != "" {
		where += " " + source
	}
	if status, ok := errors.AsType[*prom.StatusError](err); ok && status.OfQuery() {
		return answer.Broken(fmt.Sprintf("%s: %s: %v", m.Rule.Field, where, err))
	}
	return answer.Unknown(m.Name, of, fmt.Sprintf("%s: %v", where, err))
}

// clashes reports whether Prometheus refused to execute a query that it understood. A grouped one
// may fail so because of an object that nobody asked for.
func clashes(err error) bool {
	status, ok := errors.AsType[*prom.StatusError](err)
	return ok && (status.Status == http.StatusUnprocessableEntity || strings.Contains(status.Type, "execution"))
}
