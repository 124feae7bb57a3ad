package fetch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/ask"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/fault"
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
	// index is the last answer to group, by object.
	index atomic.Pointer[indexed]
}

// indexed is an answer by object. It is that of the samples that it was made of.
type indexed struct {
	*answer.Index
	of []answer.Sample
}

// values takes what is asked for out of an answer. One that serves all objects is put to them once,
// and not for each reader.
func (p *plan) values(r answer.Result, grouped bool, asked rules.Asked) ([]answer.Value, error) {
	if !grouped || p.metric.Rule.External || len(r.Samples) == 0 {
		return p.metric.Values(r, asked)
	}
	x := p.index.Load()
	if x == nil || len(x.of) != len(r.Samples) || &x.of[0] != &r.Samples[0] {
		index, err := p.metric.Index(r, asked)
		if err != nil {
			return nil, err
		}
		x = &indexed{index, r.Samples}
		p.index.Store(x)
	}
	return p.metric.Select(x.Index, asked)
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
// sample, so that a rule with a maxAge, and whoever wants the times, has to ask for the times of
// what its query reads.
func (p *plan) key(q rules.Query, timed bool) memory.Key {
	key := memory.Key{From: q.Source, Query: source.Query{PromQL: q.PromQL}}
	if p.metric.Rule.Answers.MaxAge <= 0 && !timed || q.Parsed == nil {
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

// answer answers a question from memory; it waits for the first answer to a query. The error is an
// *answer.Error.
func (e *Engine) answer(ctx context.Context, q *question) (answered, error) {
	ctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	return e.resolve(q, false, func(key memory.Key) memory.Outcome { return e.memory.Read(ctx, key) })
}

// resolve answers a question by what read gives of the memory. Timed says that samples are to have
// their own times. The error is an *answer.Error.
func (e *Engine) resolve(q *question, timed bool, read func(memory.Key) memory.Outcome) (answered, error) {
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
	f := memory.Outcome{Err: errUngrouped}
	if p.grouped {
		a.query = p.group
		f = read(p.key(a.query, timed))
	}
	grouped := p.grouped
	if !p.grouped || !q.external && f.Err != nil && fault.Clash(f.Err) {
		grouped = false
		if a.query, err = p.metric.Query(q.asked(now)); err != nil {
			return a, err
		}
		f = read(p.key(a.query, timed))
	}
	now = e.opts.Clock()
	a.at = f.At
	switch age := now.Sub(f.At); {
	case f.Err != nil:
		err = fault.Answer(p.metric, q.of(), a.query.Source, f.Err)
	case age > e.staleAfter(a.query.Source):
		err = answer.Unknown(q.metric, q.of(), fmt.Sprintf("the last answer is %s old", age.Round(time.Second)))
	default:
		asked := q.asked(now)
		if a.values, err = p.values(f.Result, grouped, asked); err == nil {
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
	if s, err := e.Source(name); err == nil {
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
