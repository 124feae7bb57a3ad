package fetch

import (
	"errors"
	"fmt"
	"net/http"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/ask"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/memory"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
)

// Ask answers for a workload from memory, and has what it needs fetched from now on. It does not
// wait: what was not fetched yet is not known.
func (e *Engine) Ask(q ask.Question) ask.Answer {
	st := e.state.Load()
	if st == nil {
		return ask.Answer{Missing: "the metrics of rules are not listed yet"}
	}
	now := e.opts.Clock()
	for _, sort := range ask.Sorts() {
		if q.Sort != "" && q.Sort != sort {
			continue
		}
		asked, ok := e.questionOf(st, &q, sort)
		if !ok {
			continue
		}
		_, err := st.plan(asked, now)
		if refused, ok := errors.AsType[*answer.Error](err); ok && refused.Status == http.StatusNotFound {
			continue
		}
		return e.askAs(asked, &q, sort)
	}
	of := "the workload, its pods or the namespace"
	if q.Sort != "" {
		of = "the " + string(q.Sort) + ", as before"
	}
	return ask.Answer{Missing: fmt.Sprintf("no rule makes a metric %s of %s now", q.Metric, of)}
}

// questionOf is the question to a sort of metrics; ok is false where there can be none.
func (e *Engine) questionOf(st *state, q *ask.Question, sort ask.Sort) (*question, bool) {
	asked := &question{namespaced: true, namespace: q.Namespace, metric: q.Metric, selector: labels.Everything()}
	switch sort {
	case ask.OfObject:
		mapping, err := st.mapper.RESTMapping(q.Kind)
		if err != nil {
			return nil, false
		}
		asked.resource, asked.names = mapping.Resource.GroupResource(), []string{q.Name}
	case ask.OfPods:
		asked.resource, asked.list, asked.names = schema.GroupResource{Resource: "pods"}, true, q.Names()
	case ask.OfNamespace:
		asked.external, asked.namespaced = true, false
	}
	return asked, !e.isReserved(asked.resource, q.Metric)
}

// askAs answers a question of a sort.
func (e *Engine) askAs(asked *question, q *ask.Question, sort ask.Sort) ask.Answer {
	if sort == ask.OfPods && len(asked.names) == 0 {
		return ask.Answer{Sort: sort, Missing: "there are no pods to sum up"}
	}
	var pending bool
	a, err := e.resolve(asked, true, func(key memory.Key) memory.Outcome {
		f, ok := e.memory.Look(key)
		if pending = !ok; pending {
			f.Err = errors.New("there is no answer yet")
		}
		return f
	})
	switch {
	case pending && !a.held:
		return ask.Answer{Sort: sort, Missing: "Prometheus has not answered yet"}
	case err != nil:
		return ask.Answer{Sort: sort, Asked: a.at, Missing: err.Error()}
	}
	out := q.Sum(a.values, sort, a.at)
	out.Bounded = a.plan.metric.Rule.Hold > 0 || a.plan.metric.Rule.Answers.MaxAge > 0
	return out
}
