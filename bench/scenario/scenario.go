package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
)

// How requests find a pod.
const (
	// RoutingShared keeps one queue before all pods, as a gateway in the path does: a request goes
	// to the least loaded pod, and waits while none has a free slot.
	RoutingShared = "shared"
	// RoutingRandom sends each request to a ready pod at random, as kube-proxy does, where it waits
	// in the sidecar's queue. While no pod is ready the gateway holds it.
	RoutingRandom = "random"
	// RoutingTwo takes the less loaded of two pods at random.
	RoutingTwo = "leastOfTwo"
)

// Scenario is everything about a run but its arrivals and its policy. Start from Default.
type Scenario struct {
	// Name is for tables and files.
	Name string `json:"name"`

	// Service is the time that a pod works on a request when it has nothing else to do; a trace
	// with times of its own overrides it.
	Service Dist `json:"service"`
	// PodConcurrency is how many requests a pod works on at a time, 0–100000; 0 is without limit.
	PodConcurrency int `json:"podConcurrency"`
	// Knee is the number of requests at a pod above which each takes longer: a request that begins
	// as the nth takes 1 + KneeSlope × (n − Knee)/Knee times as long. 0 is without knee.
	Knee      int     `json:"knee,omitempty"`
	KneeSlope float64 `json:"kneeSlope,omitempty"`
	// Overhead is what a request takes beyond its work, for proxies and the network: it occupies
	// its place at the pod for so much longer, and counts as waiting.
	Overhead algorithms.Duration `json:"overhead,omitempty"`
	// Routing is how requests find a pod.
	Routing string `json:"routing"`
	// PodQueue bounds the requests that wait at one pod, for RoutingRandom and RoutingTwo; a full
	// one loses the request (503).
	PodQueue int `json:"podQueue"`
	// HoldRequests and HoldTimeout bound what the gateway holds, in requests and by time.
	HoldRequests int                 `json:"holdRequests"`
	HoldTimeout  algorithms.Duration `json:"holdTimeout"`

	// Startup is the time from a pod's creation until it answers, phase by phase.
	Startup Startup `json:"startup"`
	// StartFailure is the share (0–1) of starts that fail when they would be ready; the pod is
	// started again after a pause of 10 s that doubles each time, up to 5 min, as the kubelet does.
	StartFailure float64 `json:"startFailure,omitempty"`
	// LameDuck is for how long a pod that is to go serves on in any case, while the cluster learns
	// of it (the sidecar's --lame-duck). Termination is the time from then, or from its end of work
	// if that is later, to its end; both are paid for. Drain bounds how long its last requests may
	// take after the lame duck.
	LameDuck    algorithms.Duration `json:"lameDuck"`
	Termination Dist                `json:"termination"`
	Drain       algorithms.Duration `json:"drain"`
	// Nodes bound where pods find a place; nil is without bound.
	Nodes *Nodes `json:"nodes,omitempty"`

	// PeakReplicas scales a trace so that its busiest bin keeps that many pods wholly busy; 0 takes
	// it as it is.
	PeakReplicas float64 `json:"peakReplicas,omitempty"`
	// MinReplicas, MaxReplicas and InitialReplicas are the Autoscaler's bounds and the count at the
	// beginning.
	MinReplicas     int `json:"minReplicas"`
	MaxReplicas     int `json:"maxReplicas"`
	InitialReplicas int `json:"initialReplicas"`
	// Target is the requests in flight per pod that policies aim at; 0 is 0.7 × PodConcurrency, or
	// 10 without a limit.
	Target float64 `json:"target,omitempty"`
	// ScaleToZeroAfter is how long demand must have been zero before the last pod goes.
	ScaleToZeroAfter algorithms.Duration `json:"scaleToZeroAfter"`

	// Tick is the time between two decisions. WakeDelay is from the first held byte to the decision
	// that it causes.
	Tick      algorithms.Duration `json:"tick"`
	WakeDelay algorithms.Duration `json:"wakeDelay"`
	// Settle is for how long after a change nothing goes down, and SettleWake after a wake-up: the
	// scaler's own rules.
	Settle     algorithms.Duration `json:"settle"`
	SettleWake algorithms.Duration `json:"settleWake"`
	// ZeroGrace is how long the last pod stays while the gateway is put into the path.
	ZeroGrace algorithms.Duration `json:"zeroGrace"`
	// Recheck is the time between rounds while a wake-up goes on. After it the gateway stays in the
	// path for Linger at most, as long as not all wanted pods are ready or requests wait. SliceLag
	// is from the round that takes it out until the proxies have followed.
	Recheck  algorithms.Duration `json:"recheck"`
	Linger   algorithms.Duration `json:"linger"`
	SliceLag algorithms.Duration `json:"sliceLag"`
	// Gateways is how many there are: while they are in the path beside ready pods, each takes the
	// share of one endpoint.
	Gateways int `json:"gateways"`
	// Scrape is how pods are read.
	Scrape Scrape `json:"scrape"`

	// SLO is the promise.
	SLO SLO `json:"slo"`
	// Cost holds the prices.
	Cost algorithms.Cost `json:"cost"`
	// ElasticityStep is Δt of the elasticity metrics.
	ElasticityStep algorithms.Duration `json:"elasticityStep"`
}

// Startup is the phases of a start; the time until the pod answers is the sum of all but the last.
type Startup struct {
	// Schedule is from creation to a node, Pull the image, Start from there to a running process,
	// Ready until it answers.
	Schedule Dist `json:"schedule,omitzero"`
	Pull     Dist `json:"pull,omitzero"`
	Start    Dist `json:"start,omitzero"`
	Ready    Dist `json:"ready,omitzero"`
	// Announce is from then until the cluster says so: the kubelet's next probe, and the way to
	// whoever watches. Meanwhile the gateway, which probes by itself, sends what it holds; policies
	// and proxies see a pod that starts.
	Announce Dist `json:"announce,omitzero"`
}

// Mean is the mean time until the pod answers.
func (s *Startup) Mean() time.Duration {
	return s.Schedule.Mean() + s.Pull.Mean() + s.Start.Mean() + s.Ready.Mean()
}

// Draw takes a time from creation to answering.
func (s *Startup) Draw(r *rand.Rand) time.Duration {
	return s.Schedule.Draw(r) + s.Pull.Draw(r) + s.Start.Draw(r) + s.Ready.Draw(r)
}

// UnmarshalJSON reads the object, or one distribution for all phases together.
func (s *Startup) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*s = Startup{}
		return s.Start.UnmarshalJSON(b)
	}
	type plain Startup
	return algorithms.Strict(b, (*plain)(s))
}

// Nodes are the places for pods, with a cluster autoscaler that adds nodes while pods wait.
type Nodes struct {
	// PodsPerNode, Initial and Max are counts, ≥ 1.
	PodsPerNode int `json:"podsPerNode"`
	Initial     int `json:"initial"`
	Max         int `json:"max"`
	// Provision is the time until a new node takes pods.
	Provision Dist `json:"provision"`
}

// Scrape is how the adapter reads pods.
type Scrape struct {
	// Interval is the time between readings of a pod, Lag from the reading to the policy's sight of
	// it, below Interval.
	Interval algorithms.Duration `json:"interval"`
	Lag      algorithms.Duration `json:"lag"`
	// Loss is the share (0–1) of readings that fail.
	Loss float64 `json:"loss,omitempty"`
	// Sample reads that many pods only, and multiplies; 0 reads all.
	Sample int `json:"sample,omitempty"`
}

// SLO is the promise that violations are counted by.
type SLO struct {
	// Wait is the longest wait for a pod that keeps the promise; Share (0–1) of the requests may
	// break it.
	Wait  algorithms.Duration `json:"wait"`
	Share float64             `json:"share"`
}

// Default is a small web service: 100 ms of work, 10 at a time, pods that take 2 s to start.
func Default() Scenario {
	must := func(spec string) Dist {
		d, err := ParseDist(spec)
		if err != nil {
			return Dist{} // the specifications are literals, a test parses them
		}
		return d
	}
	t := loop.DefaultTiming()
	return Scenario{
		Name: "default", Service: must("exp:100ms"), PodConcurrency: 10, Routing: RoutingShared, PodQueue: 1000,
		HoldRequests: 10000, HoldTimeout: algorithms.Duration(time.Minute),
		Startup: Startup{Start: must("const:2s")}, Termination: must("const:0s"), Drain: algorithms.Duration(30 * time.Second),
		MinReplicas: 0, MaxReplicas: 100, InitialReplicas: 1,
		ScaleToZeroAfter: algorithms.Duration(time.Minute),
		Tick:             algorithms.Duration(t.Tick), WakeDelay: algorithms.Duration(10 * time.Millisecond),
		Settle: algorithms.Duration(t.Settle), SettleWake: algorithms.Duration(t.SettleWake), ZeroGrace: algorithms.Duration(t.Grace),
		Recheck: algorithms.Duration(t.Recheck), Linger: algorithms.Duration(t.Linger), SliceLag: algorithms.Duration(100 * time.Millisecond), Gateways: 2,
		Scrape:         Scrape{Interval: algorithms.Duration(time.Second), Lag: algorithms.Duration(50 * time.Millisecond)},
		SLO:            SLO{Wait: algorithms.Duration(500 * time.Millisecond), Share: 0.01},
		Cost:           algorithms.Cost{PodSecond: 1},
		ElasticityStep: algorithms.Duration(30 * time.Second),
	}
}

// Parse reads JSON over a Scenario that holds the defaults. Unknown fields are errors.
func Parse(s Scenario, raw json.RawMessage) (Scenario, error) {
	if err := algorithms.Strict(raw, &s); err != nil {
		return s, fmt.Errorf("scenario: %w", err)
	}
	return s, s.Validate()
}

// Timing is the loop's waits, as the scenario has them.
func (s *Scenario) Timing() loop.Timing {
	return loop.Timing{
		Tick: time.Duration(s.Tick), Recheck: time.Duration(s.Recheck), Settle: time.Duration(s.Settle),
		SettleWake: time.Duration(s.SettleWake), Grace: time.Duration(s.ZeroGrace), Linger: time.Duration(s.Linger),
	}
}

// PerPod is Target, or what it defaults to.
func (s *Scenario) PerPod() float64 {
	switch {
	case s.Target > 0:
		return s.Target
	case s.PodConcurrency > 0:
		return 0.7 * float64(s.PodConcurrency)
	}
	return 10
}

// Validate reports every fault.
func (s *Scenario) Validate() error {
	var errs []error
	bad := func(ok bool, name string, value any, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s = %v: want %s", name, value, want))
		}
	}
	span := func(d algorithms.Duration, name string, lo, hi time.Duration) {
		bad(time.Duration(d) >= lo && time.Duration(d) <= hi, name, time.Duration(d), fmt.Sprintf("%v–%v", lo, hi))
	}
	share := func(v float64, name string) { bad(v >= 0 && v <= 1, name, v, "a share, 0–1") }
	count := func(n int, name string, lo, hi int) {
		bad(n >= lo && n <= hi, name, n, fmt.Sprintf("%d–%d", lo, hi))
	}
	bad(s.Service.mean > 0, "service", s.Service, "a mean above 0s")
	count(s.PodConcurrency, "podConcurrency", 0, 100_000)
	count(s.Knee, "knee", 0, 100_000)
	bad(s.KneeSlope >= 0 && s.KneeSlope <= 1000, "kneeSlope", s.KneeSlope, "0–1000")
	bad(s.Routing == RoutingShared || s.Routing == RoutingRandom || s.Routing == RoutingTwo, "routing", s.Routing, "shared, random or leastOfTwo")
	span(s.Overhead, "overhead", 0, time.Minute)
	count(s.PodQueue, "podQueue", 0, 10_000_000)
	count(s.HoldRequests, "holdRequests", 0, 10_000_000)
	span(s.HoldTimeout, "holdTimeout", time.Millisecond, 24*time.Hour)
	share(s.StartFailure, "startFailure")
	bad(s.StartFailure < 1, "startFailure", s.StartFailure, "below 1: no pod would ever start")
	span(s.LameDuck, "lameDuck", 0, time.Hour)
	span(s.Drain, "drain", 0, 24*time.Hour)
	if n := s.Nodes; n != nil {
		count(n.PodsPerNode, "nodes.podsPerNode", 1, 10_000)
		count(n.Initial, "nodes.initial", 1, 10_000)
		count(n.Max, "nodes.max", n.Initial, 10_000)
	}
	bad(s.PeakReplicas >= 0 && s.PeakReplicas <= maxReplicas, "peakReplicas", s.PeakReplicas, fmt.Sprintf("0–%d pods", maxReplicas))
	bad(s.PeakReplicas == 0 || s.PodConcurrency > 0, "peakReplicas", s.PeakReplicas, "a podConcurrency, since a pod without limit is never wholly busy")
	count(s.MaxReplicas, "maxReplicas", 1, maxReplicas)
	count(s.MinReplicas, "minReplicas", 0, max(s.MaxReplicas, 0))
	count(s.InitialReplicas, "initialReplicas", 0, max(s.MaxReplicas, 0))
	bad(s.Target >= 0 && s.Target <= 1e6, "target", s.Target, "0–1000000 (requests per pod)")
	span(s.ScaleToZeroAfter, "scaleToZeroAfter", time.Second, time.Hour)
	span(s.Tick, "tick", 100*time.Millisecond, time.Hour)
	span(s.WakeDelay, "wakeDelay", 0, time.Minute)
	span(s.Settle, "settle", 0, time.Hour)
	span(s.SettleWake, "settleWake", 0, time.Hour)
	span(s.ZeroGrace, "zeroGrace", 0, time.Hour)
	span(s.Recheck, "recheck", time.Millisecond, time.Hour)
	span(s.Linger, "linger", 0, time.Hour)
	span(s.SliceLag, "sliceLag", 0, time.Minute)
	count(s.Gateways, "gateways", 1, 1000)
	span(s.Scrape.Interval, "scrape.interval", 100*time.Millisecond, time.Hour)
	bad(s.Scrape.Lag >= 0 && s.Scrape.Lag < s.Scrape.Interval, "scrape.lag", time.Duration(s.Scrape.Lag), "0s up to below scrape.interval")
	share(s.Scrape.Loss, "scrape.loss")
	count(s.Scrape.Sample, "scrape.sample", 0, 100_000)
	span(s.SLO.Wait, "slo.wait", 0, 24*time.Hour)
	share(s.SLO.Share, "slo.share")
	bad(s.Cost.PodSecond >= 0 && s.Cost.ColdStart >= 0 && s.Cost.WaitSecond >= 0, "cost", s.Cost, "prices ≥ 0")
	span(s.ElasticityStep, "elasticityStep", 100*time.Millisecond, 24*time.Hour)
	return errors.Join(errs...)
}

// maxReplicas bounds pods in a simulation.
const maxReplicas = 100_000
