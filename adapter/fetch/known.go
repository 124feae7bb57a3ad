package fetch

import (
	"slices"

	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
)

// known takes from the values of a rule those that a HorizontalPodAutoscaler cannot count with, and
// turns an answer without any value into an error with its cause. It changes no value.
//
// The HorizontalPodAutoscaler of Kubernetes before 1.38 computes replicas of pods' and objects'
// metrics in 32 bits: from the largest quantity it makes a negative number, and scales down.
func known(p *plan, q *question, values []answer.Value) ([]answer.Value, error) {
	var first error
	if p.metric.Rule.Answers.OnInf != answer.Max && slices.ContainsFunc(values, func(v answer.Value) bool { return v.Saturated }) {
		var kept []answer.Value
		for _, v := range values {
			if !v.Saturated {
				kept = append(kept, v)
				continue
			}
			of := *q
			if !q.external {
				of.names = []string{v.Name}
			}
			if first == nil {
				first = answer.Unknown(q.metric, of.of(), "Prometheus answered a value that is too large for a quantity, of which an HPA may make a negative number; onInf: max serves the largest quantity")
			}
		}
		if q.external { // a reader adds them up
			return nil, first
		}
		values = kept
	}
	switch {
	case len(values) > 0:
		return values, nil
	case first != nil:
		return nil, first
	case q.external, len(q.names) > 0:
		return nil, answer.Unknown(q.metric, q.of(), "Prometheus has no sample for it")
	}
	return values, nil
}
