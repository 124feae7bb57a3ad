// Package plugin is the policy "grpc": it asks a server of the service in wire/policy, which may be
// written in any language and run anywhere. Faults there are contained: after an error, a late or
// an invalid answer the decision is invalid, so that the caller holds, or a fallback policy
// answers, and the decision says so. After several failures in a row a circuit breaker stops
// requests; one request in each openFor tries the server again.
//
// Policies come in two kinds. Those of Entry ask within Decide and trust their parameters: they are
// for a user's own program, such as a simulation. Those of a Broker are for a process with other
// people's workloads: they ask outside of rounds, reach what the Broker allows only, and read no
// files.
//
// It does I/O, and so it lives outside algorithms/.
package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
	"github.com/sluice-autoscaler/sluice/wire/policy"
)

const (
	// Name is the policy's name in the catalog.
	Name = "grpc"
	// maxState bounds the state that a server may store, in bytes.
	maxState = 64 << 10
	// maxAnswer bounds an answer, in bytes: the state and as many terms as are allowed fit.
	maxAnswer = 128 << 10
	// maxTerms bounds the terms of an answer, maxTermName the name of one, in bytes.
	maxTerms, maxTermName = 100, 64
	// maxText bounds a message, in bytes.
	maxText = 1024
	// maxAddress bounds an address, maxParameters the parameters that are passed on, in bytes.
	maxAddress, maxParameters = 512, 64 << 10
	// minNext is the least time until the next decision that an answer can ask for.
	minNext = 100 * time.Millisecond
	// maxReplicas bounds an answer, in pods.
	maxReplicas = 1_000_000
	version     = 1
)

// Signal is a signal to send.
type Signal struct {
	Name   string              `json:"name"`
	Window algorithms.Duration `json:"window"`
}

// Fallback is the policy to ask when the server does not answer.
type Fallback struct {
	Name       string          `json:"name"`
	Parameters json.RawMessage `json:"parameters,omitempty"`
}

// Breaker says when to stop requests to a failing server.
type Breaker struct {
	// Failures is how many failures in a row open it.
	Failures int `json:"failures"`
	// OpenFor is how long no request is sent then.
	OpenFor algorithms.Duration `json:"openFor"`
}

// Config holds the parameters.
type Config struct {
	// Address is host:port; of a policy of Entry also unix:///path.
	Address string `json:"address"`
	// Timeout bounds one request.
	Timeout algorithms.Duration `json:"timeout"`
	// MaxAge is how old an answer may be that was asked for outside of a round. Longer survives
	// slow servers; shorter follows the load.
	MaxAge algorithms.Duration `json:"maxAge"`
	// Signals are sent with each request, 1–100 of them.
	Signals []Signal `json:"signals"`
	// Parameters are passed on as they are: a JSON object.
	Parameters json.RawMessage `json:"parameters,omitempty"`
	TLS        *TLS            `json:"tls,omitempty"`
	// Fallback is asked when the server fails; without it the decision is invalid and the caller
	// holds.
	Fallback *Fallback `json:"fallback,omitempty"`
	Breaker  Breaker   `json:"circuitBreaker"`
	// Workload is the name that the server is given.
	Workload string `json:"workload,omitempty"`
}

// Default returns a timeout of half a second, answers that hold for 15 s, the mean concurrency of a
// minute and of six seconds, and a breaker that opens for 30 s after 5 failures. Address is the
// caller's.
func Default() Config {
	return Config{
		Timeout: algorithms.Duration(500 * time.Millisecond), MaxAge: algorithms.Duration(15 * time.Second),
		Signals: []Signal{{algorithms.Concurrency, algorithms.Duration(time.Minute)}, {algorithms.Concurrency, algorithms.Duration(6 * time.Second)}},
		Breaker: Breaker{Failures: 5, OpenFor: algorithms.Duration(30 * time.Second)},
	}
}

// Params describes the parameters.
func Params() params.List[Config] {
	return params.List[Config]{
		params.Other[Config]("address", "host:port; outside of a cluster also unix:///path", "none: required", "where the server listens"),
		params.Of("timeout", params.Spans(time.Millisecond, 10*time.Second), "", "bound of one request",
			func(c *Config) *algorithms.Duration { return &c.Timeout }),
		params.Of("maxAge", params.Spans(time.Second, 10*time.Minute), "", "how old the last answer may be",
			func(c *Config) *algorithms.Duration { return &c.MaxAge }),
		params.Other[Config]("signals", "1–100 of {name, window}", "concurrency over 1m0s and 6s", "what to send"),
		params.Other[Config]("parameters", "a JSON object", "none", "passed on to the server as it is"),
		params.Other[Config]("workload", "text", "none", "the name that the server is given"),
		params.Other[Config]("tls", "{secretRef: {name}, serverName}; outside of a cluster {caFile, serverName, certFile, keyFile}", "none: in the clear", "how to secure the connection; the Secret has ca.crt, tls.crt and tls.key"),
		params.Other[Config]("fallback", "{name, parameters} of another policy", "none: hold", "what to ask when the server fails"),
		params.Of("circuitBreaker.failures", params.Between(1, 1000), "failures in a row", "when to leave a failing server alone",
			func(c *Config) *int { return &c.Breaker.Failures }),
		params.Of("circuitBreaker.openFor", params.Spans(time.Second, time.Hour), "", "how long to leave it alone",
			func(c *Config) *algorithms.Duration { return &c.Breaker.OpenFor }),
	}
}

// Validate reports every fault. It does no I/O.
func (c Config) Validate() error {
	errs := []error{Params().Check(&c)}
	bad := func(ok bool, name string, value any, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s = %v: want %s", name, value, want))
		}
	}
	bad(c.Address != "" && len(c.Address) <= maxAddress && strings.IndexFunc(c.Address, unprintable) < 0,
		"address", fmt.Sprintf("%.*q", maxAddress, c.Address), "host:port or unix:///path")
	bad(len(c.Signals) >= 1 && len(c.Signals) <= 100, "signals", len(c.Signals), "1–100 signals")
	for i, s := range c.Signals {
		bad(s.Name != "", fmt.Sprintf("signals[%d].name", i), `""`, "the name of a signal")
		bad(s.Window >= 0 && time.Duration(s.Window) <= time.Hour, fmt.Sprintf("signals[%d].window", i), time.Duration(s.Window), "0s–1h")
	}
	bad(len(c.Parameters) <= maxParameters, "parameters", fmt.Sprintf("%d bytes", len(c.Parameters)), "at most 65536 bytes")
	if len(c.Parameters) > 0 && len(c.Parameters) <= maxParameters {
		var object map[string]any
		bad(json.Unmarshal(c.Parameters, &object) == nil, "parameters", string(c.Parameters), "a JSON object")
	}
	if c.TLS != nil {
		bad((c.TLS.CertFile == "") == (c.TLS.KeyFile == ""), "tls.certFile, tls.keyFile", "one of them", "both or neither")
		bad(c.TLS.SecretRef == nil || !c.TLS.files(), "tls.secretRef", "set beside files", "one of them")
		bad(c.TLS.SecretRef == nil || c.TLS.SecretRef.Name != "", "tls.secretRef.name", `""`, "the name of a Secret")
	}
	return errors.Join(errs...)
}

// unprintable says of a rune that it does not belong into a name.
func unprintable(r rune) bool { return r == ' ' || !unicode.IsGraphic(r) }

// Policy asks the server. It is not safe for concurrent use; Close ends its connection.
type Policy struct {
	cfg      Config
	link     *link
	fallback algorithms.Policy
	state    state
	// flight is nil of a policy that asks within Decide.
	flight *flight
}

type state struct {
	// Remembered is the state that the server answered.
	Remembered []byte `json:"remembered,omitempty"`
	// Failures counts those in a row; Until is the end of the breaker's being open, zero when it is
	// closed.
	Failures int       `json:"failures,omitempty"`
	Until    time.Time `json:"until,omitzero"`
	// Fallback is the fallback policy's memory.
	Fallback json.RawMessage `json:"fallback,omitempty"`
}

// New returns a policy with a validated Config that asks within Decide. It opens no connection yet:
// the first decision does. A fallback's target is targetPerPod unless its parameters say otherwise.
// What is wrong with the files of TLS is a catalog.ErrTemporary: they may be written later. All
// other errors are final.
func New(c Config, targetPerPod float64) (*Policy, error) {
	p, err := build(c, targetPerPod)
	if err != nil {
		return nil, err
	}
	if p.link, err = openFiles(c); err != nil {
		return nil, err
	}
	return p, nil
}

// build makes all of a policy but the way to its server.
func build(c Config, targetPerPod float64) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p := &Policy{cfg: c}
	if c.Fallback != nil {
		var err error
		if p.fallback, err = catalog.Default().New(c.Fallback.Name, targetPerPod, c.Fallback.Parameters); err != nil {
			return nil, fmt.Errorf("fallback: %w", err)
		}
	}
	return p, nil
}

// Close gives up what is asked, and ends the connection.
func (p *Policy) Close() error {
	if p.flight != nil {
		p.flight.close()
	}
	return p.link.close()
}

// Needs lists the configured signals and those of the fallback.
func (p *Policy) Needs() []algorithms.Need {
	needs := make([]algorithms.Need, 0, len(p.cfg.Signals))
	for _, s := range p.cfg.Signals {
		needs = append(needs, algorithms.Need{Name: s.Name, Window: time.Duration(s.Window)})
	}
	if p.fallback != nil {
		needs = append(needs, p.fallback.Needs()...)
	}
	return needs
}

// errBreakerOpen says that the breaker kept a request back.
var errBreakerOpen = errors.New("the circuit breaker is open")

// Decide asks the server, for at most Config.Timeout. A policy of a Broker does not wait: it takes
// the last answer, and asks for the next one.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	answer, err := p.consult(o)
	if p.fallback == nil {
		if err == nil {
			return answer
		}
		return p.failed(algorithms.Decision{}, o, err, "holding")
	}
	// The fallback sees every observation, so that its memory is warm when it is needed.
	if err == nil {
		o.Quiet, o.Scratch = true, nil
		p.fallback.Decide(o)
		return answer
	}
	return p.failed(p.fallback.Decide(o), o, err, "falling back to "+p.cfg.Fallback.Name)
}

func (p *Policy) failed(d algorithms.Decision, o algorithms.Observation, err error, action string) algorithms.Decision {
	d.Reason = "PluginFailed"
	switch {
	case errors.Is(err, errBreakerOpen):
		d.Reason = "PluginOpen"
	case errors.Is(err, errPending):
		d.Reason = "PluginPending"
	case errors.Is(err, errStale):
		d.Reason = "PluginStale"
	}
	if o.Quiet {
		return d
	}
	text := fmt.Sprintf("policy server %s: %v; %s", p.cfg.Address, err, action)
	if d.Message != "" {
		text += ": " + d.Message
	}
	d.Message = text
	d.Terms = append(d.Terms, algorithms.Term{Name: "pluginFailures", Value: float64(p.state.Failures)})
	return d
}

// consult gets an answer for the observation, by the way that the policy has.
func (p *Policy) consult(o algorithms.Observation) (algorithms.Decision, error) {
	if p.flight != nil {
		return p.flight.consult(p, o)
	}
	if err := p.open(o.Now); err != nil {
		return algorithms.Decision{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(p.cfg.Timeout))
	defer cancel()
	answer, err := p.link.ask(ctx, p.request(o))
	if p.count(o.Now, answer, err); err != nil {
		return algorithms.Decision{}, err
	}
	return decision(answer, o), nil
}

// open says why nothing is asked now, nil when the server may be.
func (p *Policy) open(now time.Time) error {
	if s := &p.state; !s.Until.IsZero() && now.Before(s.Until) {
		return fmt.Errorf("%w after %d failures, until %s", errBreakerOpen, s.Failures, s.Until.UTC().Format(time.RFC3339))
	}
	return nil
}

// count remembers the state of an answer, and failures, which open the breaker.
func (p *Policy) count(now time.Time, answer *policy.DecideResponse, err error) {
	s := &p.state
	if err == nil {
		s.Failures, s.Until, s.Remembered = 0, time.Time{}, answer.GetState()
		return
	}
	s.Failures = min(s.Failures+1, 1_000_000)
	if s.Failures >= p.cfg.Breaker.Failures {
		s.Until = now.Add(time.Duration(p.cfg.Breaker.OpenFor))
	}
}

func (p *Policy) request(o algorithms.Observation) *policy.DecideRequest {
	return &policy.DecideRequest{
		Workload: p.cfg.Workload, Parameters: string(p.cfg.Parameters), Observation: p.observation(o), State: p.state.Remembered,
	}
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}

func count(n int) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) } //nolint:gosec // bounded on the line itself

func (p *Policy) observation(o algorithms.Observation) *policy.Observation {
	out := &policy.Observation{
		Now: unix(o.Now), ActiveSince: unix(o.ActiveSince),
		Replicas: &policy.Replicas{Current: count(o.Replicas.Current), Ready: count(o.Replicas.Ready), Starting: count(o.Replicas.Starting), Terminating: count(o.Replicas.Terminating)},
		Limits:   &policy.Limits{Min: count(o.Limits.Min), Max: count(o.Limits.Max), PodConcurrency: o.Limits.PodConcurrency},
		StartUp:  &policy.StartUp{P50: o.StartUp.P50.Seconds(), P90: o.StartUp.P90.Seconds(), P99: o.StartUp.P99.Seconds(), Samples: count(o.StartUp.Samples)},
		Cost:     &policy.Cost{PodSecond: o.Cost.PodSecond, ColdStart: o.Cost.ColdStart, WaitSecond: o.Cost.WaitSecond},
	}
	for _, want := range p.cfg.Signals {
		s, ok := o.Signal(want.Name, time.Duration(want.Window))
		sent := &policy.Signal{Name: s.Name, Window: s.Window.Seconds(), Age: s.Age.Seconds(), Coverage: s.Coverage}
		if ok && algorithms.Finite(s.Value) {
			sent.Known, sent.Value = true, s.Value
		}
		out.Signals = append(out.Signals, sent)
	}
	for i := range o.Pods {
		out.Pods = append(out.Pods, &policy.Pod{Name: o.Pods[i].Name, State: string(o.Pods[i].State), Values: o.Pods[i].Values})
	}
	return out
}

// check refuses an answer that makes no sense: servers are not trusted.
func check(a *policy.DecideResponse) error {
	var errs []error
	if n := a.GetReplicas(); n < 0 || n > maxReplicas {
		errs = append(errs, fmt.Errorf("replicas = %d: want 0–%d", n, maxReplicas))
	}
	if n := len(a.GetState()); n > maxState {
		errs = append(errs, fmt.Errorf("state of %d bytes: want at most %d", n, maxState))
	}
	if v := a.GetNext(); !(v >= 0 && v <= 86400) {
		errs = append(errs, fmt.Errorf("next = %v: want 0–86400 (seconds)", v))
	}
	if n := len(a.GetTerms()); n > maxTerms {
		errs = append(errs, fmt.Errorf("%d terms: want at most %d", n, maxTerms))
	}
	for _, t := range a.GetTerms() {
		if !algorithms.Finite(t.GetValue()) {
			errs = append(errs, fmt.Errorf("term %s = %v: want a finite number", clip(t.GetName(), maxTermName), t.GetValue()))
			break
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("answered nonsense: %w", err)
	}
	return nil
}

// decision turns an answer that check lets pass into a decision.
func decision(a *policy.DecideResponse, o algorithms.Observation) algorithms.Decision {
	d := algorithms.Decision{
		// a server's own words would be metric labels without bound
		Replicas: int(a.GetReplicas()), Valid: a.GetValid(), Reason: "Plugin",
	}
	if a.GetNext() > 0 {
		d.Next = max(time.Duration(a.GetNext()*float64(time.Second)), minNext)
	}
	if o.Limits.Max > 0 {
		d.Replicas = min(d.Replicas, o.Limits.Max)
	}
	if o.Quiet {
		return d
	}
	d.Message = clip(a.GetMessage(), maxText)
	if d.Message == "" {
		d.Message = fmt.Sprintf("the policy server wants %d pods", d.Replicas)
	}
	if w := label(a.GetReason()); w != "" {
		d.Message = w + ": " + d.Message
	}
	d.Terms = o.Scratch[:0]
	for _, t := range a.GetTerms() {
		d.Terms = append(d.Terms, algorithms.Term{Name: clip(t.GetName(), maxTermName), Value: t.GetValue()})
	}
	return d
}

// label makes a label of a server's reason: letters and digits only, and short.
func label(s string) string {
	kept := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, s[:min(len(s), maxText)])
	return kept[:min(len(kept), 40)]
}

// clip shortens a server's text to n bytes. What is no text becomes a space.
func clip(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) && r != unicode.ReplacementChar {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s[:min(len(s), n)], ""))
	return strings.TrimSpace(s)
}

// Snapshot returns the server's state, the breaker's state and the fallback's memory.
func (p *Policy) Snapshot() json.RawMessage {
	s := p.state
	if p.fallback != nil {
		s.Fallback = p.fallback.Snapshot()
	}
	return memory.Save(Name, version, s)
}

// Restore puts back a Snapshot.
func (p *Policy) Restore(raw json.RawMessage) error {
	s, err := memory.Load[state](Name, version, raw)
	if err != nil {
		return err
	}
	if p.fallback != nil && s.Fallback != nil {
		if err := p.fallback.Restore(s.Fallback); err != nil {
			return fmt.Errorf("fallback: %w", err)
		}
	}
	s.Fallback = nil
	p.state = s
	return nil
}

// Entry is the policy's entry for the catalog of a user's own program: catalog.Default(Entry()). A
// policy that it makes asks within Decide, and holds a connection; call its Close after use.
func Entry() catalog.Entry { return entry(New) }

func entry(build func(Config, float64) (*Policy, error)) catalog.Entry {
	return catalog.Entry{
		Name: Name, Summary: "asks a policy server of yours, in any language", Source: "wire/policy/policy.proto",
		Parameters: Params().Describe(Default()),
		New: func(target float64, params json.RawMessage) (algorithms.Policy, error) {
			c := Default()
			if err := catalog.Read(params, &c); err != nil {
				return nil, err
			}
			p, err := build(c, target)
			if err != nil {
				return nil, err // not p: a nil *Policy would be a Policy that is not nil
			}
			return p, nil
		},
	}
}
