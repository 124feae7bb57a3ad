// Package cel lets users write a policy as one expression in the Common Expression Language
// (cel.dev), which always terminates:
//
//	math.ceil(signal("concurrency", "60s") / target)
//	ready == 0 ? replicas.current : int(math.ceil(...))
//
// The value is the pod count: an int, or a double that is rounded up. The expression sees
//
//	signal(name, window)   double: a signal's value; both arguments are literals; an error when it is
//	                       unknown
//	known(name, window)    bool: whether it is known
//	target                 double: the parameter
//	replicas.current, replicas.ready, replicas.starting, replicas.terminating     int: pods
//	limits.min, limits.max int: pods
//	previous               int: this policy's last valid answer, −1 before the first
//	activeFor              duration: since the workload is wanted after zero, 0s when unknown
//	startUp.p50, startUp.p90, startUp.p99    double: seconds that pods took to start, 0 when unknown
//	now                    timestamp; now.getHours("Europe/Berlin"), now.getDayOfWeek() and so on
//
// with CEL's standard library, its math and string extensions, and without optional values. An
// unknown signal makes the decision invalid unless the expression does not depend on it: CEL's ?:,
// && and || skip what they need not know. Each evaluation may cost at most costLimit units, and
// make or read through at most 1 MiB of strings and lists. Over it, or at a fault such as a
// division by zero, the decision is invalid and says why. New finds faults of syntax and type and
// names line and column. Time zones and regular expressions are literals; New loads the zones.
package cel

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	_ "time/tzdata" // time zones in expressions must not depend on what the machine has installed

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/ext"
	"github.com/google/cel-go/interpreter"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
)

// Config holds the parameters.
type Config struct {
	// Expression is the policy.
	Expression string `json:"expression"`
	// Target is the expression's variable target, what a pod should carry.
	Target float64 `json:"target"`
	// CostLimit bounds one evaluation, in units: about one for each operation, more for work on
	// long lists and strings.
	CostLimit uint64 `json:"costLimit"`
}

// Default returns the mean concurrency of a minute over the target; Target is the caller's.
func Default() Config {
	return Config{Expression: `math.ceil(signal("concurrency", "60s") / target)`, Target: 70, CostLimit: 10_000}
}

const (
	// longest bounds the expression, in bytes.
	longest = 8192
	// maxCost is the largest costLimit: some 20 ms of a processor.
	maxCost = 100_000
)

// Params describes the parameters.
func Params() params.List[Config] {
	return params.List[Config]{
		params.Other[Config]("expression", fmt.Sprintf("up to %d bytes", longest), Default().Expression, "the policy"),
		params.Of("target", params.Finite(), "requests per pod", "what one pod should carry",
			func(c *Config) *float64 { return &c.Target }).After(params.SignalTarget),
		params.Of("costLimit", params.Between(1, maxCost), "units", "bound of one evaluation",
			func(c *Config) *uint64 { return &c.CostLimit }),
	}
}

// Validate reports every fault, those of the expression with line and column.
func (c Config) Validate() error {
	_, err := New(c)
	return err
}

// Policy evaluates the expression. Its memory is the last answer. It is not safe for concurrent
// use.
type Policy struct {
	cfg     Config
	program cel.Program
	needs   []algorithms.Need
	state   state
	meter   meter
	// zones are the time zones that the expression names.
	zones map[string]*time.Location
	// observation is what the functions read while the expression is evaluated.
	observation *algorithms.Observation
	// missing is the last unknown signal that the expression read.
	missing string
	// late says that the evaluation was given up because of Observation.Done.
	late bool
}

type state struct {
	Previous int `json:"previous"`
}

const version = 1

// New compiles the expression.
func New(c Config) (*Policy, error) {
	errs := []error{Params().Check(&c)}
	p := &Policy{cfg: c, state: state{Previous: -1}, zones: map[string]*time.Location{}}
	switch {
	case strings.TrimSpace(c.Expression) == "":
		errs = append(errs, errors.New("expression is empty: want one that gives a pod count"))
	case len(c.Expression) > longest:
		errs = append(errs, fmt.Errorf("expression has %d bytes: want at most %d", len(c.Expression), longest))
	default:
		if err := p.compile(); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Policy) compile() error {
	env, err := cel.NewEnv(append(p.variables(),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserRecursionLimit(100),
		ext.Math(), ext.Strings(),
		cel.Function("signal", cel.Overload("signal_string_string", []*cel.Type{cel.StringType, cel.StringType}, cel.DoubleType, cel.BinaryBinding(p.signal))),
		cel.Function("known", cel.Overload("known_string_string", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType, cel.BinaryBinding(p.known))),
	)...)
	if err != nil {
		return fmt.Errorf("set up the expression's language: %w", err)
	}
	parsed, issues := env.Parse(p.cfg.Expression)
	if err := issues.Err(); err != nil {
		return fmt.Errorf("expression: %w", err)
	}
	if err := new(shape).check(parsed); err != nil {
		return err
	}
	checked, issues := env.Check(parsed)
	if err := issues.Err(); err != nil {
		return fmt.Errorf("expression: %w", err)
	}
	if t := checked.OutputType(); !t.IsExactType(cel.IntType) && !t.IsExactType(cel.DoubleType) {
		return fmt.Errorf("expression: ERROR: <input>:1:1: gives %s: want an int or a double, the pod count", t)
	}
	if err := p.collect(checked); err != nil {
		return err
	}
	meter, err := p.metered(checked, env)
	if err != nil {
		return fmt.Errorf("set up the expression's language: %w", err)
	}
	p.meter.reset() // constants are worked out now
	p.program, err = env.Program(checked, cel.CostLimit(p.cfg.CostLimit), cel.EvalOptions(cel.OptOptimize), cel.CustomDecoratorV2(meter), cel.CostTracking((*watch)(p)))
	if err != nil {
		return fmt.Errorf("expression: %w", err)
	}
	return nil
}

func (p *Policy) variables() []cel.EnvOption {
	var out []cel.EnvOption
	for _, v := range []struct {
		typ   *cel.Type
		names []string
	}{
		{cel.DoubleType, []string{"target", "startUp.p50", "startUp.p90", "startUp.p99"}},
		{cel.IntType, []string{"replicas.current", "replicas.ready", "replicas.starting", "replicas.terminating", "limits.min", "limits.max", "previous"}},
		{cel.DurationType, []string{"activeFor"}},
		{cel.TimestampType, []string{"now"}},
	} {
		for _, n := range v.names {
			out = append(out, cel.Variable(n, v.typ))
		}
	}
	return out
}

// collect finds the signals that the expression reads, which is why their names are literals, and
// the other literals that New judges.
func (p *Policy) collect(checked *cel.Ast) error {
	var errs []error
	have := map[algorithms.Need]bool{}
	native := checked.NativeRep()
	ast.PostOrderVisit(native.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		call := e.AsCall()
		at := native.SourceInfo().GetStartLocation(e.ID())
		fault := func(text string) {
			errs = append(errs, fmt.Errorf("expression: ERROR: <input>:%d:%d: %s", at.Line(), at.Column()+1, text))
		}
		if err := p.checkLiterals(call); err != nil {
			fault(err.Error())
		}
		if call.FunctionName() != "signal" && call.FunctionName() != "known" || len(call.Args()) != 2 {
			return
		}
		var text [2]string
		for i, a := range call.Args() {
			ok := false
			if text[i], ok = literal(a); !ok {
				fault(call.FunctionName() + ": want literals, such as (\"concurrency\", \"60s\")")
				return
			}
		}
		w, err := time.ParseDuration(text[1])
		if err != nil || w < 0 || w > time.Hour {
			fault(fmt.Sprintf("window %q: want a duration of 0s–1h with its unit, such as \"60s\"", text[1]))
			return
		}
		n := algorithms.Need{Name: text[0], Window: w}
		if !have[n] {
			have[n] = true
			p.needs = append(p.needs, n)
		}
	}))
	return errors.Join(errs...)
}

// find returns the place of the signal in the observation, −1 when it is unknown.
func (p *Policy) index(name, window ref.Val) int {
	n, ok1 := name.Value().(string)
	w, ok2 := window.Value().(string)
	d, err := time.ParseDuration(w)
	if !ok1 || !ok2 || err != nil || p.observation == nil {
		return -1
	}
	return p.observation.Index(n, d)
}

func (p *Policy) signal(name, window ref.Val) ref.Val {
	if i := p.index(name, window); i >= 0 {
		return types.Double(p.observation.Signals[i].Value)
	}
	p.missing = fmt.Sprintf("%v over %v", name.Value(), window.Value())
	return types.NewErr("%s is unknown", p.missing)
}

func (p *Policy) known(name, window ref.Val) ref.Val { return types.Bool(p.index(name, window) >= 0) }

// scope gives variables their values. It is the policy under another type, so that ResolveName is
// no method of Policy.
type scope Policy

// ResolveName answers the value of a variable.
func (s *scope) ResolveName(name string) (any, bool) {
	o := s.observation
	switch name {
	case "target":
		return s.cfg.Target, true
	case "replicas.current":
		return int64(o.Replicas.Current), true
	case "replicas.ready":
		return int64(o.Replicas.Ready), true
	case "replicas.starting":
		return int64(o.Replicas.Starting), true
	case "replicas.terminating":
		return int64(o.Replicas.Terminating), true
	case "limits.min":
		return int64(o.Limits.Min), true
	case "limits.max":
		return int64(o.Limits.Max), true
	case "previous":
		return int64(s.state.Previous), true
	case "startUp.p50":
		return o.StartUp.P50.Seconds(), true
	case "startUp.p90":
		return o.StartUp.P90.Seconds(), true
	case "startUp.p99":
		return o.StartUp.P99.Seconds(), true
	case "activeFor":
		if o.ActiveSince.IsZero() {
			return time.Duration(0), true
		}
		return o.Now.Sub(o.ActiveSince), true
	case "now":
		return o.Now, true
	}
	return nil, false
}

// Parent is none.
func (*scope) Parent() cel.Activation { return nil }

// Needs lists the signals that the expression names.
func (p *Policy) Needs() []algorithms.Need { return p.needs }

// Decide evaluates the expression on one observation.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	p.observation, p.missing, p.late = &o, "", false
	p.meter.reset()
	defer func() { p.observation = nil }()
	out, details, err := p.program.Eval((*scope)(p))
	cost := 0.0
	if details != nil && details.ActualCost() != nil {
		cost = float64(*details.ActualCost())
	}
	d := algorithms.Decision{Reason: "Expression"}
	count := math.NaN()
	why := ""
	switch {
	case p.meter.exhausted():
		d.Reason, why = "ExpressionFailed", errTooMuch.Error()
	case p.late:
		d.Reason, why = "ExpressionFailed", "the expression takes longer than a decision may"
	case errors.As(err, &interpreter.EvalCancelledError{}):
		d.Reason, why = "ExpressionFailed", fmt.Sprintf("the expression costs more than costLimit = %d units", p.cfg.CostLimit)
	case err != nil && p.missing != "" && strings.Contains(err.Error(), p.missing):
		d.Reason, why = "NoData", p.missing+" is unknown"
	case err != nil:
		d.Reason, why = "ExpressionFailed", err.Error()
	default:
		switch v := out.(type) {
		case types.Int:
			count = float64(v)
		case types.Double:
			count = math.Ceil(float64(v))
		}
		if !algorithms.Finite(count) || count < 0 {
			d.Reason, why = "Nonsense", fmt.Sprintf("the expression gives %v, which is no pod count", out.Value())
		}
	}
	if why == "" {
		d.Valid, d.Replicas = true, algorithms.Pods(count)
		if o.Limits.Max > 0 {
			d.Replicas = min(d.Replicas, o.Limits.Max)
		}
		p.state.Previous = d.Replicas
	}
	if o.Quiet {
		return d
	}
	d.Message = why
	d.Terms = o.Scratch[:0]
	if d.Valid {
		d.Message = fmt.Sprintf("the expression gives %v: %d pods", out.Value(), d.Replicas)
		d.Terms = append(d.Terms, algorithms.Term{Name: "value", Value: count})
	}
	for i := range p.needs {
		if k := o.Index(p.needs[i].Name, p.needs[i].Window); k >= 0 {
			d.Terms = append(d.Terms, algorithms.Term{Name: p.needs[i].Name + "." + p.needs[i].Window.String(), Value: o.Signals[k].Value})
		}
	}
	d.Terms = append(d.Terms, algorithms.Term{Name: "cost", Value: cost})
	return d
}

// watch makes what is left of an evaluation too costly once it has taken too long. It is the policy
// under another type, so that CallCost is no method of Policy.
type watch Policy

// CallCost implements interpreter.ActualCostEstimator; nil leaves a call its cost.
func (w *watch) CallCost(string, string, []ref.Val, ref.Val) *uint64 {
	if w.observation == nil {
		return nil
	}
	select {
	case <-w.observation.Done:
		w.late = true
		return new(uint64(2 * maxCost))
	default:
		return nil
	}
}

// Snapshot returns the last answer.
func (p *Policy) Snapshot() json.RawMessage { return memory.Save("cel", version, p.state) }

// Restore puts back a Snapshot.
func (p *Policy) Restore(raw json.RawMessage) error {
	s, err := memory.Load[state]("cel", version, raw)
	if err != nil {
		return err
	}
	p.state = s
	return nil
}
