// Package fixed always answers the same count. It is the baseline of comparisons, and a way to pin
// a workload while its signals are still recorded.
package fixed

import (
	"encoding/json"
	"fmt"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/memory"
	"github.com/sluice-autoscaler/sluice/algorithms/params"
)

// Config holds the parameter.
type Config struct {
	// Replicas is the answer in pods.
	Replicas int `json:"replicas"`
}

// Default returns one pod.
func Default() Config { return Config{Replicas: 1} }

// Params describes the parameter.
func Params() params.List[Config] {
	return params.List[Config]{
		params.Of("replicas", params.Between(0, 1_000_000), "pods", "the answer",
			func(c *Config) *int { return &c.Replicas }).Search("1..100:log"),
	}
}

// Validate reports a count out of range.
func (c Config) Validate() error { return Params().Check(&c) }

// Policy answers Config.Replicas. It has no memory.
type Policy struct{ cfg Config }

// New returns a policy with a validated Config.
func New(c Config) (*Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Policy{cfg: c}, nil
}

// Needs is empty: the answer depends on nothing.
func (p *Policy) Needs() []algorithms.Need { return nil }

// Decide answers the count, within the upper limit where there is one.
func (p *Policy) Decide(o algorithms.Observation) algorithms.Decision {
	d := algorithms.Decision{Replicas: p.cfg.Replicas, Valid: true, Reason: "Fixed"}
	if o.Limits.Max > 0 {
		d.Replicas = min(d.Replicas, o.Limits.Max)
	}
	if !o.Quiet {
		d.Message = fmt.Sprintf("%d pods, whatever the load", d.Replicas)
		d.Terms = append(o.Scratch[:0], algorithms.Term{Name: "replicas", Value: float64(p.cfg.Replicas)})
	}
	return d
}

// Snapshot returns an empty memory.
func (p *Policy) Snapshot() json.RawMessage { return memory.Save("fixed", 1, struct{}{}) }

// Restore checks that it is one of Snapshot's.
func (p *Policy) Restore(raw json.RawMessage) error {
	_, err := memory.Load[struct{}]("fixed", 1, raw)
	return err
}
