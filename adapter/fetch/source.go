package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/prom"
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
func (s *source) query(ctx context.Context, promQL string, lookback time.Duration) (answer.Result, error) {
	text, err := s.Query(ctx, promQL, lookback)
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
