// Package plugin is the policy "grpc": it asks a server of the service in wire/policy, which may be
// written in any language and run anywhere. Faults there are contained: after an error, a late or
// an invalid answer the decision is invalid, so that the caller holds, or a fallback policy
// answers, and the decision says so. After several failures in a row a circuit breaker stops
// requests; one request in each openFor tries the server again.
//
// It does I/O, and so it lives outside algorithms/.
package plugin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

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
	// maxAnswer bounds an answer, in bytes.
	maxAnswer = 1 << 20
	// maxTerms bounds the terms of an answer.
	maxTerms = 100
	// maxText bounds a reason and a message, in bytes.
	maxText = 1024
	// maxReplicas bounds an answer, in pods.
	maxReplicas = 1_000_000
	version     = 1
)

// Signal is a signal to send.
type Signal struct {
	Name   string              `json:"name"`
	Window algorithms.Duration `json:"window"`
}

// TLS secures the connection; without it the connection is in the clear.
type TLS struct {
	// CAFile holds the certificates to trust, PEM; empty trusts the system's.
	CAFile string `json:"caFile,omitempty"`
	// ServerName is the name that the server's certificate must have; empty takes the address's
	// host.
	ServerName string `json:"serverName,omitempty"`
	// CertFile and KeyFile are this client's certificate, PEM, both or neither.
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`
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
	// Address is host:port, or unix:///path.
	Address string `json:"address"`
	// Timeout bounds one request. It must leave the caller's round enough time.
	Timeout algorithms.Duration `json:"timeout"`
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

// Default returns a timeout of half a second, the mean concurrency of a minute and of six seconds,
// and a breaker that opens for 30 s after 5 failures. Address is the caller's.
func Default() Config {
	return Config{
		Timeout: algorithms.Duration(500 * time.Millisecond),
		Signals: []Signal{{algorithms.Concurrency, algorithms.Duration(time.Minute)}, {algorithms.Concurrency, algorithms.Duration(6 * time.Second)}},
		Breaker: Breaker{Failures: 5, OpenFor: algorithms.Duration(30 * time.Second)},
	}
}

// Params describes the parameters.
func Params() params.List[Config] {
	return params.List[Config]{
		params.Other[Config]("address", "host:port or unix:///path", "none: required", "where the server listens"),
		params.Of("timeout", params.Spans(time.Millisecond, 10*time.Second), "", "bound of one request",
			func(c *Config) *algorithms.Duration { return &c.Timeout }),
		params.Other[Config]("signals", "1–100 of {name, window}", "concurrency over 1m0s and 6s", "what to send"),
		params.Other[Config]("parameters", "a JSON object", "none", "passed on to the server as it is"),
		params.Other[Config]("workload", "text", "none", "the name that the server is given"),
		params.Other[Config]("tls", "{caFile, serverName, certFile, keyFile}", "none: in the clear", "how to secure the connection"),
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
	bad(c.Address != "" && !strings.ContainsAny(c.Address, " \n"), "address", fmt.Sprintf("%q", c.Address), "host:port or unix:///path")
	bad(len(c.Signals) >= 1 && len(c.Signals) <= 100, "signals", len(c.Signals), "1–100 signals")
	for i, s := range c.Signals {
		bad(s.Name != "", fmt.Sprintf("signals[%d].name", i), `""`, "the name of a signal")
		bad(s.Window >= 0 && time.Duration(s.Window) <= time.Hour, fmt.Sprintf("signals[%d].window", i), time.Duration(s.Window), "0s–1h")
	}
	if len(c.Parameters) > 0 {
		var object map[string]any
		bad(json.Unmarshal(c.Parameters, &object) == nil, "parameters", string(c.Parameters), "a JSON object")
	}
	if c.TLS != nil {
		bad((c.TLS.CertFile == "") == (c.TLS.KeyFile == ""), "tls.certFile, tls.keyFile", "one of them", "both or neither")
	}
	return errors.Join(errs...)
}

// Policy asks the server. It is not safe for concurrent use; Close ends its connection.
type Policy struct {
	cfg      Config
	conn     *grpc.ClientConn
	client   policy.PolicyClient
	fallback algorithms.Policy
	state    state
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

// New returns a policy with a validated Config. It opens no connection yet: the first decision
// does. A fallback's target is targetPerPod unless its parameters say otherwise. What is wrong with
// the files of TLS is a catalog.ErrTemporary: a Secret may be mounted or renewed later. All other
// errors are final.
func New(c Config, targetPerPod float64) (*Policy, error) {
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
	secure, err := c.TLS.credentials()
	if err != nil {
		return nil, catalog.Temporary(err)
	}
	p.conn, err = grpc.NewClient(c.Address, grpc.WithTransportCredentials(secure),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		// A server that was restarted is found within seconds, not minutes.
		grpc.WithConnectParams(grpc.ConnectParams{
			MinConnectTimeout: time.Second,
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
		}))
	if err != nil {
		return nil, fmt.Errorf("address = %q: %w", c.Address, err)
	}
	p.client = policy.NewPolicyClient(p.conn)
	return p, nil
}

// credentials reads the files. All of its errors are faults of the files.
func (t *TLS) credentials() (credentials.TransportCredentials, error) {
	if t == nil {
		return insecure.NewCredentials(), nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls.caFile: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.caFile = %s: holds no certificate", t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls.certFile, tls.keyFile: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(cfg), nil
}

// Close ends the connection.
func (p *Policy) Close() error { return p.conn.Close() }

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

// Decide asks the server, for at most Config.Timeout.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	answer, err := p.ask(o)
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
	if errors.Is(err, errBreakerOpen) {
		d.Reason = "PluginOpen"
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

// ask sends the request unless the breaker is open, checks the answer, and counts failures.
func (p *Policy) ask(o algorithms.Observation) (algorithms.Decision, error) {
	s := &p.state
	if !s.Until.IsZero() && o.Now.Before(s.Until) {
		return algorithms.Decision{}, fmt.Errorf("%w after %d failures, until %s", errBreakerOpen, s.Failures, s.Until.UTC().Format(time.RFC3339))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(p.cfg.Timeout))
	defer cancel()
	answer, err := p.client.Decide(ctx, &policy.DecideRequest{
		Workload: p.cfg.Workload, Parameters: string(p.cfg.Parameters), Observation: p.observation(o), State: s.Remembered,
	})
	var d algorithms.Decision
	if err != nil {
		st := status.Convert(err)
		err = fmt.Errorf("%s: %s", st.Code(), clip(st.Message()))
	} else {
		d, err = decision(answer, o)
	}
	if err != nil {
		s.Failures = min(s.Failures+1, 1_000_000)
		if s.Failures >= p.cfg.Breaker.Failures {
			s.Until = o.Now.Add(time.Duration(p.cfg.Breaker.OpenFor))
		}
		return algorithms.Decision{}, err
	}
	s.Failures, s.Until, s.Remembered = 0, time.Time{}, answer.GetState()
	return d, nil
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

// decision checks an answer: servers are not trusted.
func decision(a *policy.DecideResponse, o algorithms.Observation) (algorithms.Decision, error) {
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
			errs = append(errs, fmt.Errorf("term %s = %v: want a finite number", clip(t.GetName()), t.GetValue()))
			break
		}
	}
	if err := errors.Join(errs...); err != nil {
		return algorithms.Decision{}, fmt.Errorf("answered nonsense: %w", err)
	}
	d := algorithms.Decision{
		// a server's own words would be metric labels without bound
		Replicas: int(a.GetReplicas()), Valid: a.GetValid(), Reason: "Plugin",
		Next: time.Duration(a.GetNext() * float64(time.Second)),
	}
	if o.Limits.Max > 0 {
		d.Replicas = min(d.Replicas, o.Limits.Max)
	}
	if o.Quiet {
		return d, nil
	}
	d.Message = clip(a.GetMessage())
	if d.Message == "" {
		d.Message = fmt.Sprintf("the policy server wants %d pods", d.Replicas)
	}
	if w := label(a.GetReason()); w != "" {
		d.Message = w + ": " + d.Message
	}
	d.Terms = o.Scratch[:0]
	for _, t := range a.GetTerms() {
		d.Terms = append(d.Terms, algorithms.Term{Name: clip(t.GetName()), Value: t.GetValue()})
	}
	return d, nil
}

// label makes a label of a server's reason: letters and digits only, and short.
func label(s string) string {
	kept := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, s)
	return kept[:min(len(kept), 40)]
}

func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxText)], "") }

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

// Entry is the policy's entry for a catalog: catalog.Default(plugin.Entry()). A policy that it
// makes holds a connection; call its Close after use.
func Entry() catalog.Entry {
	return catalog.Entry{
		Name: Name, Summary: "asks a policy server of yours, in any language", Source: "wire/policy/policy.proto",
		Parameters: Params().Describe(Default()),
		New: func(target float64, params json.RawMessage) (algorithms.Policy, error) {
			c := Default()
			if err := catalog.Read(params, &c); err != nil {
				return nil, err
			}
			return New(c, target)
		},
	}
}
