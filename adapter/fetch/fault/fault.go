// Package fault tells what failures of Prometheus mean for those who read metrics of rules.
package fault

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/prom"
)

// Answer is the answer to a reader where a query failed: the rule's fault where Prometheus refused
// the query, and unknown else.
func Answer(m *rules.Metric, of, source string, err error) *answer.Error {
	where := "Prometheus"
	if source != "" {
		where += " " + source
	}
	if status, ok := errors.AsType[*prom.StatusError](err); ok && status.OfQuery() {
		return answer.Broken(fmt.Sprintf("%s: %s: %v", m.Rule.Field, where, err))
	}
	return answer.Unknown(m.Name, of, fmt.Sprintf("%s: %v", where, err))
}

// Clash reports whether Prometheus refused to execute a query that it understood. A grouped one
// may fail so because of an object that nobody asked for.
func Clash(err error) bool {
	status, ok := errors.AsType[*prom.StatusError](err)
	return ok && (status.Status == http.StatusUnprocessableEntity || strings.Contains(status.Type, "execution"))
}
