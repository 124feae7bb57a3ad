package fetch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/memory"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/source"
	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
)

// firstWait bounds how long a reader waits for the first answer to a query.
const firstWait = 15 * time.Second

// maxPlans bounds the plans that are kept.
const maxPlans = 50_000

// planKey tells one kind of question from another. Objects are not part of it: they are named when
// the query has to name them.
type planKey struct {
	external, namespaced        bool
	resource                    schema.GroupResource
	namespace, metric, selector string
}

// plan is how a question is answered.
type plan struct {
	metric *rules.Metric
	// group is the query that serves all objects, where grouped; why says what stands against it.
	group   rules.Query
	grouped bool
	why     string
}

// heldKey is a question to which known values are kept.
type heldKey struct {
	planKey
	names string
}

// heldValues are the last values that were known.
type heldValues struct {
	values []answer.Value
	at     time.Time
}

// maxHeld bounds the questions to which values are kept.
const maxHeld = 10_000

// plans are the plans of one registry.
type plans struct {
	mu sync.Mutex
	of map[planKey]*plan
}

func newPlans() *plans { return &plans{of: map[planKey]*plan{}} }

// question is what a reader asks.
type question struct {
	external bool
	// resource is as the reader named it, perhaps in the singular.
	resource   schema.GroupResource
	namespaced bool
	namespace  string
	names      []string
	list       bool
	metric     string
	selector   labels.Selector
}

func (q *question) asked(now time.Time) rules.Asked {
	return rules.Asked{Resource: q.resource, Namespace: q.namespace, Names: q.names, List: q.list, Selector: q.selector, Now: now}
}

// of names the objects for errors.
func (q *question) of() string {
	if q.external {
		return "namespace " + q.namespace
	}
	name := strings.Join(q.names, ", ")
	if q.list && len(q.names) > 3 {
		name = fmt.Sprintf("%s and %d more", strings.Join(q.names[:3], ", "), len(q.names)-3)
	}
	if q.namespace != "" {
		name = q.namespace + "/" + name
	}
	return fmt.Sprintf("%s %s", q.resource, name)
}

// key is the question without its objects.
func (q *question) key() planKey {
	key := planKey{external: q.external, namespaced: q.namespaced, resource: q.resource, namespace: q.namespace, metric: q.metric}
	if q.selector != nil {
		key.selector = q.selector.String()
	}
	return key
}

// plan finds the metric and its plan. The error is an *answer.Error.
func (st *state) plan(q *question, now time.Time) (*plan, error) {
	key := q.key()
	st.plans.mu.Lock()
	p := st.plans.of[key]
	st.plans.mu.Unlock()
	if p != nil {
		return p, nil
	}
	p = &plan{}
	var err error
	if q.external {
		p.metric, err = st.registry.ExternalMetric(q.namespace, q.metric)
	} else {
		p.metric, err = st.registry.Describes(q.resource, q.namespaced, q.metric)
	}
	if err != nil {
		return nil, err
	}
	if q.external {
		if p.group, err = p.metric.Query(q.asked(now)); err != nil {
			return nil, err
		}
		p.grouped = true
	} else if p.group, p.grouped, p.why, err = p.metric.Group(q.asked(now)); err != nil {
		// One query for all cannot be made; one for those that are asked for may be.
		p.grouped, p.why = false, err.Error()
	}
	st.plans.mu.Lock()
	defer st.plans.mu.Unlock()
	if len(st.plans.of) >= maxPlans {
		clear(st.plans.of)
	}
	st.plans.of[key] = p
	return p, nil
}

// key is a query as the memory knows it. An instant query gives the instant as the time of each
// sample, so that a rule with a maxAge has to ask for the times of what its query reads.
func (p *plan) key(q rules.Query) memory.Key {
	key := memory.Key{From: q.Source, Query: source.Query{PromQL: q.PromQL}}
	if p.metric.Rule.Answers.MaxAge <= 0 || q.Parsed == nil {
		return key
	}
	if !p.metric.Rule.External {
		label, err := p.metric.Rule.Label(p.metric.Resource.GroupResource)
		if err != nil {
			return key // the query names it, so that it is known
		}
		key.Label = label
	}
	key.Times = source.Times(q.Parsed, key.Label)
	return key
}

// answered is an answer with what it was made of.
type answered struct {
	plan   *plan
	query  rules.Query
	values []answer.Value
	// at is when Prometheus was asked.
	at time.Time
	// held says that the values are from before.
	held bool
}

// answer answers a question from memory. The error is an *answer.Error.
func (e *Engine) answer(ctx context.Context, q *question) (answered, error) {
	st := e.state.Load()
	if st == nil {
		return answered{}, answer.Unknown(q.metric, q.of(), "the metrics of rules are not listed yet")
	}
	now := e.opts.Clock()
	p, err := st.plan(q, now)
	if err != nil {
		return answered{}, err
	}
	a := answered{plan: p}
	if !q.external && len(q.names) == 0 {
		_, err := p.metric.Query(q.asked(now))
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	f := memory.Outcome{Err: errUngrouped}
	if p.grouped {
		a.query = p.group
		f = e.memory.Read(ctx, p.key(a.query))
	}
	if !p.grouped || !q.external && f.Err != nil && clashes(f.Err) {
		if a.query, err = p.metric.Query(q.asked(now)); err != nil {
			return a, err
		}
		f = e.memory.Read(ctx, p.key(a.query))
	}
	now = e.opts.Clock()
	a.at = f.At
	switch age := now.Sub(f.At); {
	case f.Err != nil:
		err = failed(p.metric, q.of(), a.query.Source, f.Err)
	case age > e.staleAfter(a.query.Source):
		err = answer.Unknown(q.metric, q.of(), fmt.Sprintf("the last answer is %s old", age.Round(time.Second)))
	default:
		asked := q.asked(now)
		if a.values, err = p.metric.Values(f.Result, asked); err == nil {
			a.values, err = known(p, q, a.values)
		}
	}
	return e.hold(q, a, now, err)
}

var errUngrouped = errors.New("no query serves all objects")

// staleAfter is the age at which an answer is no longer one: a fetch has been left out and has had
// the time to end.
func (e *Engine) staleAfter(name string) time.Duration {
	timeout := 10 * time.Second
	if s, err := e.find(name); err == nil {
		timeout = s.Timeout
	}
	return 2*time.Duration(e.opts.Config.Interval) + timeout
}

// hold keeps known values, and gives them for Rule.Hold when there are none.
func (e *Engine) hold(q *question, a answered, now time.Time, err error) (answered, error) {
	hold := a.plan.metric.Rule.Hold
	if hold <= 0 {
		return a, err
	}
	key := heldKey{q.key(), strings.Join(q.names, "\x00")}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil && len(a.values) > 0 {
		if len(e.held) >= maxHeld {
			maps.DeleteFunc(e.held, func(_ heldKey, h heldValues) bool { return now.Sub(h.at) > time.Hour })
		}
		if _, ok := e.held[key]; ok || len(e.held) < maxHeld {
			e.held[key] = heldValues{values: a.values, at: now}
		}
		return a, nil
	}
	if h, ok := e.held[key]; ok && now.Sub(h.at) <= hold {
		a.values, a.held = h.values, true
		return a, nil
	}
	return a, err
}
