package ruletest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/answer"
	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

// maxSeries bounds the series of a case.
const maxSeries = 200_000

// Outcome is what came out of a case.
type Outcome struct {
	ID string `json:"id"`
	// Unsupported says why the case was not run.
	Unsupported string `json:"unsupported,omitempty"`
	Startup     string `json:"startup,omitempty"`
	// StartupHelp says where the fault is and what to do.
	StartupHelp []string `json:"startupHelp,omitempty"`
	RelistError string   `json:"relistError,omitempty"`
	// RuleErrors are rules that make no metrics, while the others do.
	RuleErrors      []string         `json:"ruleErrors,omitempty"`
	CustomMetrics   []string         `json:"customMetrics"`
	ExternalMetrics []string         `json:"externalMetrics"`
	Requests        []RequestOutcome `json:"requests"`
	// Differences are fields that are not as expected.
	Differences []Difference `json:"differences,omitempty"`
}

// RequestOutcome is what came out of a request.
type RequestOutcome struct {
	PromQL        []string `json:"promql"`
	PromQLInvalid string   `json:"promqlInvalid,omitempty"`
	Status        int      `json:"status,omitempty"`
	// Error is what the caller is told. Cause is what Sluice adds to it where it is v0.12.0's.
	Error  string   `json:"error,omitempty"`
	Cause  string   `json:"cause,omitempty"`
	Values []string `json:"values"`
}

// Run runs a case.
func Run(c *Case) (*Outcome, error) {
	out := &Outcome{ID: c.ID, CustomMetrics: []string{}, ExternalMetrics: []string{}, Requests: []RequestOutcome{}}
	if c.Kind != "" || c.MustProduce != nil {
		out.Unsupported = fmt.Sprintf("cases of kind %q are no rules of prometheus-adapter; sluice rules test does not answer them yet", c.Kind)
		return out, nil
	}
	resources, err := c.resources()
	if err != nil {
		return nil, err
	}
	mapper := mapping.New(resources)
	cfg, err := config.Parse([]byte(c.Config))
	var set *rules.Set
	if err == nil {
		set, err = rules.Compile(cfg, rules.Options{Mapper: mapper})
	}
	if err != nil {
		out.Startup = "fails: " + rules.First(err).Error()
		out.StartupHelp = config.Explain(err)
		for range c.Requests {
			out.Requests = append(out.Requests, RequestOutcome{PromQL: []string{}, Values: []string{}, Error: "the adapter did not start"})
		}
		return out, nil
	}
	out.Startup = "ok"
	r := runner{set: set, mapper: mapper, out: out}
	if r.registry, err = r.list(c); err != nil {
		return nil, err
	}
	for i := range c.Requests {
		one, err := r.request(&c.Requests[i])
		if err != nil {
			return nil, fmt.Errorf("requests[%d]: %w", i, err)
		}
		out.Requests = append(out.Requests, one)
	}
	return out, nil
}

// runner runs one case.
type runner struct {
	set      *rules.Set
	mapper   meta.RESTMapper
	registry *rules.Registry
	memory   answer.Memory
	out      *Outcome
}

// list gives each rule the series that its selector matches.
func (r *runner) list(c *Case) (*rules.Registry, error) {
	if len(c.Series) > maxSeries {
		return nil, fmt.Errorf("there are %d series: want at most %d", len(c.Series), maxSeries)
	}
	all := make([]map[string]string, len(c.Series))
	for i, text := range c.Series {
		var err error
		if all[i], err = promql.ParseSeries(text); err != nil {
			return nil, fmt.Errorf("series[%d] %s: %w", i, text, err)
		}
	}
	listings := map[*rules.Rule]rules.Listing{}
	for _, rule := range r.set.Rules() {
		selector, err := promql.ParseSelector(rule.Config.SeriesQuery)
		if err != nil {
			r.relist(fmt.Sprintf("series query %q: bad_data: %v", rule.Config.SeriesQuery, err))
			continue
		}
		if c.SeriesAnswerIsNull {
			err := fmt.Errorf("no metrics retrieved for query %q", rule.Config.SeriesQuery)
			r.relist("unable to update list of all metrics: " + err.Error())
			listings[rule] = rules.Listing{Err: err}
			continue
		}
		var l rules.Listing
		for _, s := range all {
			if selector.Matches(s) {
				names := slices.Sorted(maps.Keys(s))
				l.Series = append(l.Series, rules.Series{
					Name:   s["__name__"],
					Labels: slices.DeleteFunc(names, func(n string) bool { return n == "__name__" }),
				})
			}
		}
		listings[rule] = l
	}
	registry := r.set.Registry(listings)
	for _, m := range registry.Custom() {
		r.out.CustomMetrics = append(r.out.CustomMetrics, m.String())
	}
	r.out.ExternalMetrics = append(r.out.ExternalMetrics, registry.External()...)
	errs := registry.Errors()
	for _, rule := range r.set.Rules() {
		if err := errs[rule]; err != nil {
			r.out.RuleErrors = append(r.out.RuleErrors, fmt.Sprintf("%s: %v", rule.Field, err))
		}
	}
	if r.set.Resource != nil && r.set.Resource.Err != nil {
		r.out.RuleErrors = append(r.out.RuleErrors, fmt.Sprintf("resourceRules: %v", r.set.Resource.Err))
	}
	return registry, nil
}

func (r *runner) relist(message string) {
	if r.out.RelistError == "" {
		r.out.RelistError = message
	}
}

// result makes Prometheus' answer, and reads it as one that came over the network is read.
func (q *Request) result(now time.Time) (answer.Result, error) {
	type sample struct {
		Metric map[string]string `json:"metric"`
		Value  [2]any            `json:"value"`
	}
	point := func(field, value string, at time.Time) ([2]any, error) {
		if _, err := strconv.ParseFloat(value, 64); err != nil && !errors.Is(err, strconv.ErrRange) {
			return [2]any{}, fmt.Errorf("%s %q is no number", field, value)
		}
		return [2]any{float64(at.UnixMilli()) / 1000, value}, nil
	}
	var body struct {
		Status string `json:"status"`
		Data   struct {
			ResultType string `json:"resultType"`
			Result     any    `json:"result"`
		} `json:"data"`
	}
	body.Status, body.Data.ResultType = "success", "vector"
	var err error
	switch {
	case q.ScalarAnswer != nil:
		body.Data.ResultType = "scalar"
		if body.Data.Result, err = point("scalarAnswer", *q.ScalarAnswer, now); err != nil {
			return answer.Result{}, err
		}
	case !q.AnswerIsNull:
		vector := make([]sample, len(q.Answer))
		for i, s := range q.Answer {
			vector[i].Metric = s.Labels
			if vector[i].Value, err = point(fmt.Sprintf("answer[%d].value", i), s.Value, now.Add(-time.Duration(s.Age))); err != nil {
				return answer.Result{}, err
			}
		}
		body.Data.Result = vector
	}
	text, err := json.Marshal(body)
	if err != nil {
		return answer.Result{}, err
	}
	r, _, err := answer.Decode(text)
	return r, err
}

// request answers one request.
func (r *runner) request(q *Request) (RequestOutcome, error) {
	out := RequestOutcome{PromQL: []string{}, Values: []string{}}
	now := epoch.Add(time.Duration(q.At))
	result, err := q.result(now)
	if err != nil {
		return out, err
	}
	selector := labels.Everything()
	if q.MetricSelector != "" {
		var refused error
		if selector, refused = labels.Parse(q.MetricSelector); refused != nil {
			out.Error = refused.Error()
			return out, nil //nolint:nilerr // that the selector is none is what came out
		}
	}
	asked := rules.Asked{Namespace: q.Namespace, Selector: selector, Now: now}
	switch q.API {
	case "custom":
		asked.Resource, asked.Names = schema.ParseGroupResource(q.Resource), []string{q.Name}
		if q.Name == "*" {
			asked.Names, asked.List = q.Objects, true
		}
		err = r.custom(q, asked, result, &out)
	case "external":
		err = r.external(q, asked, result, &out)
	case "resource":
		err = r.resource(q, result, &out)
	default:
		return out, fmt.Errorf("api = %q: want custom, external or resource", q.API)
	}
	if err == nil {
		out.Status = 200
		return out, nil
	}
	e, ok := errors.AsType[*answer.Error](err)
	if !ok {
		return out, err
	}
	out.Status, out.Error, out.Cause = e.Status, e.Message, e.Cause
	if e.Status != 404 && e.Cause != "" {
		out.Error, out.Cause = e.Error(), ""
	}
	return out, nil
}

// ask renders the query, and turns the answer into values.
func (r *runner) ask(m *rules.Metric, a rules.Asked, result answer.Result, out *RequestOutcome) ([]answer.Value, error) {
	query, err := m.Query(a)
	if query.PromQL != "" {
		out.PromQL = append(out.PromQL, query.PromQL)
	}
	if err != nil {
		if query.PromQL != "" {
			_, invalid := promql.Parse(query.PromQL)
			out.PromQLInvalid = fmt.Sprint(invalid)
		}
		return nil, err
	}
	values, err := m.Values(result, a)
	return m.Hold(&r.memory, a, values, err)
}

func (r *runner) custom(q *Request, a rules.Asked, result answer.Result, out *RequestOutcome) error {
	if _, err := r.mapper.ResourceFor(a.Resource.WithVersion("")); err != nil && a.List {
		return &answer.Error{Status: 500, Message: "Internal error occurred: unable to list matching resources", Cause: err.Error()}
	}
	m, err := r.registry.Describes(a.Resource, q.Namespace != "", q.Metric)
	if err != nil {
		return err
	}
	values, err := r.ask(m, a, result, out)
	if err != nil {
		return err
	}
	kind, err := r.mapper.KindFor(m.Resource.WithVersion(""))
	if err != nil {
		return err
	}
	for _, v := range values {
		out.Values = append(out.Values, fmt.Sprintf("%s %s/%s = %s", kind.Kind, q.Namespace, v.Name, v.String()))
	}
	if len(values) == 0 {
		out.Values = append(out.Values, emptyList)
	}
	return nil
}

// emptyList is how a list without values is written.
const emptyList = "(empty list)"

func (r *runner) external(q *Request, a rules.Asked, result answer.Result, out *RequestOutcome) error {
	m, err := r.registry.ExternalMetric(q.Namespace, q.Metric)
	if err != nil {
		return err
	}
	values, err := r.ask(m, a, result, out)
	if err != nil {
		return err
	}
	for _, v := range values {
		out.Values = append(out.Values, fmt.Sprintf("%s = %s", answer.Text(v.Labels), v.String()))
	}
	if len(values) == 0 {
		out.Values = append(out.Values, emptyList)
	}
	return nil
}

func (r *runner) resource(q *Request, result answer.Result, out *RequestOutcome) error {
	s := r.set.Resource
	if s == nil {
		return &answer.Error{Status: 404, Message: "the server could not find the requested resource", Cause: "there are no resourceRules"}
	}
	names := q.Objects
	if q.Name != "" && q.Name != "*" {
		names = []string{q.Name}
	}
	if len(names) == 0 {
		return nil
	}
	var queries rules.ResourceQueries
	var err error
	usage := s.NodeUsage
	if q.Resource == "pods" {
		queries, err = s.Pods(q.Namespace, names)
		usage = s.PodUsage
	} else {
		queries, err = s.Nodes(names)
	}
	// Both are asked at once; the order here is that of their texts.
	out.PromQL = append(out.PromQL, queries.Texts()...)
	slices.Sort(out.PromQL)
	if err != nil {
		return err
	}
	all, err := usage(result, result, names)
	if err != nil {
		return err
	}
	for _, u := range all {
		for _, c := range u.Containers {
			name := u.Name
			if q.Resource == "pods" {
				name += "/" + c.Name
			}
			out.Values = append(out.Values, fmt.Sprintf("%s cpu=%s memory=%s window=%s", name, c.CPU.String(), c.Memory.String(), s.Window))
		}
	}
	return nil
}

// Summary counts cases.
type Summary struct{ Cases, Requests, Different, Unsupported int }

// String writes it in words.
func (s Summary) String() string {
	text := fmt.Sprintf("%d cases with %d requests: ", s.Cases-s.Unsupported, s.Requests)
	switch {
	case s.Cases == s.Unsupported:
		text = "no case was run"
	case s.Different == 0:
		text += "all as expected"
	default:
		text += fmt.Sprintf("%d not as expected", s.Different)
	}
	if s.Unsupported > 0 {
		text += fmt.Sprintf("; %d of kinds that are not supported yet", s.Unsupported)
	}
	return text
}
