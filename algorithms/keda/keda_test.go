package keda_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/cel"
	"github.com/sluice-autoscaler/sluice/algorithms/keda"
	"github.com/sluice-autoscaler/sluice/algorithms/policytest"
)

func compile(expression string, names []string) (keda.Formula, error) {
	f, err := cel.NewFormula(expression, names)
	if err != nil {
		return nil, err
	}
	return f.Value, nil
}

// config is KEDA's defaults with a threshold of 10 on the signal queue.
func config(change func(*keda.Config)) keda.Config {
	c := keda.Default()
	c.Triggers = []keda.Trigger{{Signal: "queue", Threshold: 10}}
	if change != nil {
		change(&c)
	}
	return c
}

type event struct {
	sec, current int
	queue        float64
	want         int
	reason       string
}

const unknown = -1

func play(t *testing.T, c keda.Config, events ...event) {
	t.Helper()
	p, err := keda.New(c, compile)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		o := algorithms.Observation{
			Now: policytest.Epoch().Add(time.Duration(e.sec) * time.Second), Limits: algorithms.Limits{Max: 1000},
			Replicas: algorithms.Replicas{Current: e.current, Ready: e.current},
		}
		if e.queue != unknown {
			o.Signals = append(o.Signals, algorithms.Signal{Name: "queue", Value: e.queue, Known: true, Coverage: 1})
		}
		d := p.Decide(o)
		if (e.want == unknown) == d.Valid || d.Valid && d.Replicas != e.want || d.Reason != e.reason {
			t.Errorf("at %d s: %d valid %t %s, want %d %s (%s)", e.sec, d.Replicas, d.Valid, d.Reason, e.want, e.reason, d.Message)
		}
	}
}

func TestActivationAndCooldown(t *testing.T) {
	t.Parallel()
	play(t, config(func(c *keda.Config) { c.Triggers[0].ActivationThreshold = 5 }),
		event{0, 0, 0, 0, "Inactive"},
		// a queue that fills between two polls waits for the next
		event{10, 0, 50, 0, "WaitingForPoll"},
		event{30, 0, 5, 0, "Inactive"}, // not above the activation threshold
		event{60, 0, 50, 1, "Activated"},
		event{75, 1, 50, 4, "ScaleUpLimit"}, // the HPA takes over: from 1 to 4 at most
		event{80, 4, 50, 4, "ScaleUpLimit"}, // 1 pod 15 s ago
		event{90, 4, 50, 5, "Metrics"},
		event{95, 5, 50, 5, "Unchanged"},
		event{120, 5, 4, 5, "ScaleDownStabilized"}, // inactive from here on
		// at 90 + 300 s the cooldown is not over yet (strictly)
		event{390, 5, 4, 5, "ScaleDownStabilized"},
		event{405, 5, 4, 1, "Metrics"}, // and the HPA goes down
		event{420, 1, 4, 0, "Deactivated"},
	)
}

func TestCooldownFromAnyCount(t *testing.T) {
	t.Parallel()
	play(t, config(func(c *keda.Config) { c.CooldownPeriod = 60 }), event{0, 8, 80, 8, "Unchanged"}, event{30, 8, 0, 8, "ScaleDownStabilized"}, event{61, 8, 0, 0, "Deactivated"})
}

func TestInitialCooldown(t *testing.T) {
	t.Parallel()
	play(t, config(nil), event{0, 3, 0, 3, "ScaleDownStabilized"}, event{30, 3, 0, 0, "Deactivated"})
	play(t, config(func(c *keda.Config) { c.InitialCooldownPeriod = 60 }), event{0, 3, 30, 3, "Unchanged"})
	play(t, config(func(c *keda.Config) { c.InitialCooldownPeriod = 60 }), event{0, 3, 0, 3, "ScaleDownStabilized"}, event{60, 3, 0, 3, "ScaleDownStabilized"}, event{90, 3, 0, 0, "Deactivated"})
}

func TestIdleAndMinimum(t *testing.T) {
	t.Parallel()
	zero := 0
	play(t, config(func(c *keda.Config) { c.MinReplicaCount = 3 }), event{0, 0, 0, 3, "MinReplicaCount"}, event{15, 3, 0, 3, "ScaleDownStabilized"})
	play(t, config(func(c *keda.Config) { c.MinReplicaCount, c.IdleReplicaCount, c.CooldownPeriod = 3, &zero, 30 }),
		event{0, 0, 0, 0, "Inactive"}, event{30, 0, 7, 3, "Activated"}, event{60, 3, 0, 3, "ScaleDownStabilized"}, event{90, 3, 0, 0, "Deactivated"})
}

// Missing data never leads to zero, and leads to the fallback after more than failureThreshold
// failures in a row.
func TestMissingData(t *testing.T) {
	t.Parallel()
	play(t, config(nil), event{0, 4, 40, 4, "Unchanged"}, event{400, 4, unknown, unknown, "NoData"}, event{800, 4, unknown, unknown, "NoData"})
	play(t, config(nil), event{0, 0, unknown, unknown, "NoData"})
	for behavior, want := range map[string]int{"": 6, keda.Static: 6, keda.CurrentReplicas: 4, keda.CurrentReplicasIfHigher: 6, keda.CurrentReplicasIfLower: 4} {
		reason := "Metrics"
		if want == 4 {
			reason = "Unchanged"
		}
		play(t, config(func(c *keda.Config) {
			c.Fallback = &keda.Fallback{FailureThreshold: 2, Replicas: 6, Behavior: behavior}
		}), event{0, 4, 40, 4, "Unchanged"}, event{15, 4, unknown, unknown, "NoData"}, event{20, 4, unknown, unknown, "NoData"},
			event{30, 4, unknown, want, reason}, // the third look and the fourth
			event{60, want, 40, max(want, 4), map[bool]string{true: "Unchanged", false: "ScaleDownStabilized"}[want == 4]})
	}
}

// Failures count in a row, and while some trigger fails another one's activity does not renew the
// time of last activity.
func TestPartialFailure(t *testing.T) {
	t.Parallel()
	play(t, config(func(c *keda.Config) { c.Fallback = &keda.Fallback{FailureThreshold: 1, Replicas: 9} }),
		// 9 asked for, and the HPA lets 4 double
		event{0, 4, 40, 4, "Unchanged"}, event{15, 4, unknown, unknown, "NoData"}, event{30, 4, 40, 4, "Unchanged"}, event{45, 4, unknown, unknown, "NoData"}, event{60, 4, unknown, 8, "ScaleUpLimit"})

	c := keda.Default()
	c.CooldownPeriod = 60
	c.Triggers = []keda.Trigger{{Signal: "x", Threshold: 10}, {Signal: "y", Threshold: 10}}
	p, err := keda.New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []struct {
		sec  int
		x, y float64
		want int
	}{{0, 40, 40, 4}, {30, 40, unknown, 4}, {60, 40, unknown, 4}, {90, 0, 0, 0}} {
		d := p.Decide(algorithms.Observation{
			Now: policytest.Epoch().Add(time.Duration(e.sec) * time.Second), Limits: algorithms.Limits{Max: 100}, Replicas: algorithms.Replicas{Current: 4, Ready: 4},
			Signals: []algorithms.Signal{{Name: "x", Value: e.x, Known: true}, {Name: "y", Value: e.y, Known: e.y != unknown}},
		})
		if !d.Valid || d.Replicas != e.want {
			t.Errorf("at %d s: %+v, want %d", e.sec, d, e.want)
		}
	}
}

func TestFormula(t *testing.T) {
	t.Parallel()
	c := keda.Default()
	c.Triggers = []keda.Trigger{{Name: "a", Signal: "x"}, {Name: "b", Signal: "y"}}
	c.Advanced.ScalingModifiers = keda.Modifiers{Formula: "(a + b)/2", Target: 10, ActivationTarget: 5}
	p, err := keda.New(c, compile)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []struct {
		sec, cur int
		x, y     float64
		want     int
		reason   string
	}{{0, 0, 4, 6, 0, "Inactive"}, {30, 0, 8, 6, 1, "Activated"}, {45, 1, 40, 60, 4, "ScaleUpLimit"}, {60, 4, 40, 60, 5, "Metrics"}, {75, 5, 40, math.NaN(), 0, "NoData"}} {
		d := p.Decide(algorithms.Observation{
			Now: policytest.Epoch().Add(time.Duration(e.sec) * time.Second), Limits: algorithms.Limits{Max: 100}, Replicas: algorithms.Replicas{Current: e.cur, Ready: e.cur},
			Signals: []algorithms.Signal{{Name: "x", Value: e.x, Known: true}, {Name: "y", Value: e.y, Known: true}},
		})
		if d.Valid != (e.reason != "NoData") || d.Valid && d.Replicas != e.want || d.Reason != e.reason {
			t.Errorf("at %d s: %+v, want %d %s", e.sec, d, e.want, e.reason)
		}
	}
}

// TestFallbackWakes takes a trigger in fallback for an active one since 2.19 (KEDA's #7239, #7244).
func TestFallbackWakes(t *testing.T) {
	t.Parallel()
	fallback := func(replicas int) keda.Config {
		return config(func(c *keda.Config) {
			c.CooldownPeriod, c.Fallback = 60, &keda.Fallback{FailureThreshold: 2, Replicas: replicas}
		})
	}
	play(t, fallback(6),
		event{0, 0, unknown, unknown, "NoData"}, event{15, 0, unknown, 0, "WaitingForPoll"}, event{30, 0, unknown, unknown, "NoData"},
		event{60, 0, unknown, 1, "Activated"}, event{61, 1, unknown, 4, "ScaleUpLimit"}, event{76, 4, unknown, 6, "Metrics"},
		event{90, 6, unknown, 6, "Unchanged"},
		// an outage that ends in a zero reading: active until then
		event{120, 6, unknown, 6, "Unchanged"}, event{150, 6, 0, 6, "ScaleDownStabilized"}, event{180, 6, 0, 6, "ScaleDownStabilized"}, event{210, 6, 0, 0, "Deactivated"})
	// a fallback of 0 pods does not keep an inactive workload that is in error
	play(t, fallback(0), event{0, 3, 30, 3, "Unchanged"}, event{30, 3, unknown, unknown, "NoData"}, event{61, 3, unknown, 3, "ScaleDownStabilized"})
	play(t, config(func(c *keda.Config) { c.CooldownPeriod, c.Fallback = 30, &keda.Fallback{FailureThreshold: 9} }),
		event{0, 3, 30, 3, "Unchanged"}, event{31, 3, unknown, 0, "Deactivated"})
}

// TestFallbackOfValue cuts to thousandths, so that the HPA does not add a pod: every pair of
// counts.
func TestFallbackOfValue(t *testing.T) {
	t.Parallel()
	for _, threshold := range []float64{100, 0.57, 3} {
		for replicas := 1; replicas <= 20; replicas++ {
			for ready := 1; ready <= 20; ready++ {
				p, err := keda.New(config(func(c *keda.Config) {
					c.Triggers[0].Threshold, c.Triggers[0].MetricType = threshold, "Value"
					c.Fallback = &keda.Fallback{Replicas: replicas}
					limits := `{"scaleDown":{"stabilizationWindowSeconds":0},"scaleUp":{"policies":[{"type":"Pods","value":100,"periodSeconds":1}]}}`
					if err := algorithms.Strict([]byte(limits), &c.Advanced.HorizontalPodAutoscalerConfig.Behavior); err != nil {
						t.Fatal(err)
					}
				}), nil)
				if err != nil {
					t.Fatal(err)
				}
				d := p.Decide(algorithms.Observation{Now: policytest.Epoch(), Limits: algorithms.Limits{Max: 1000}, Replicas: algorithms.Replicas{Current: ready, Ready: ready}})
				ratio := math.Trunc(threshold*1000*(float64(replicas)/float64(ready))) / math.Round(threshold*1000)
				want := int(math.Ceil(ratio * float64(ready)))
				if ratio >= 0.9 && ratio <= 1.1 {
					want = ready
				}
				if !d.Valid || d.Replicas != want || threshold == 100 && math.Abs(ratio-1) > 0.1001 && d.Replicas != replicas {
					t.Errorf("fallback %d with %d ready at %v: %d, want %d (%s)", replicas, ready, threshold, d.Replicas, want, d.Message)
				}
			}
		}
	}
}

// TestValuesAsWritten compares values of three decimals, and takes those below zero for zero
// (KEDA's #7880).
func TestValuesAsWritten(t *testing.T) {
	t.Parallel()
	for value, want := range map[float64]int{7.0004: 7, 7.0006: 8, 7: 7, -30: 1} {
		p, err := keda.New(config(func(c *keda.Config) { c.Triggers[0].Threshold = 1 }), nil)
		if err != nil {
			t.Fatal(err)
		}
		current := 4
		if value < 0 {
			current = 1
		}
		d := p.Decide(algorithms.Observation{
			Now: policytest.Epoch(), Limits: algorithms.Limits{Max: 100}, Replicas: algorithms.Replicas{Current: current, Ready: current},
			Signals: []algorithms.Signal{{Name: "queue", Value: value, Known: true, Coverage: 1}},
		})
		if !d.Valid || d.Replicas != want {
			t.Errorf("%v: %+v, want %d", value, d, want)
		}
	}
}

// TestWords says of a hold that nothing changes, not that it gives 0 pods.
func TestWords(t *testing.T) {
	t.Parallel()
	p, err := keda.New(config(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := p.Decide(algorithms.Observation{Now: policytest.Epoch(), Limits: algorithms.Limits{Max: 100}, Replicas: algorithms.Replicas{Current: 3, Ready: 3}})
	if d.Valid || !strings.Contains(d.Message, "nothing changes") || strings.Contains(d.Message, "gives") {
		t.Errorf("valid %t, %q; want a hold that says so", d.Valid, d.Message)
	}
}

// TestSyncPeriod lets the HPA look once in 15 s, and the operator when it polls.
func TestSyncPeriod(t *testing.T) {
	t.Parallel()
	play(t, config(func(c *keda.Config) { c.SyncPeriod, c.PollingInterval = algorithms.Duration(15*time.Second), 10 }),
		event{0, 1, 40, 4, "Metrics"}, event{5, 4, 80, unknown, "WaitingForSync"}, event{10, 4, 80, unknown, "WaitingForSync"},
		event{15, 4, 80, 8, "Metrics"}, event{16, 8, 160, unknown, "WaitingForSync"}, event{30, 8, 160, 16, "Metrics"},
		event{40, 0, 160, 1, "Activated"}, event{41, 1, 160, unknown, "WaitingForSync"})
}

func TestProperties(t *testing.T) {
	t.Parallel()
	policytest.Check(t, 81, 20, func() (algorithms.Policy, error) {
		return keda.New(config(func(c *keda.Config) { c.Fallback = &keda.Fallback{FailureThreshold: 1, Replicas: 6} }), nil)
	})
	policytest.Monotone(t, 82, 300, func() (algorithms.Policy, error) { return keda.New(config(nil), nil) })
}

func TestValidate(t *testing.T) {
	t.Parallel()
	one := 1
	for want, change := range map[string]func(*keda.Config){
		"pollingInterval = 0":       func(c *keda.Config) { c.PollingInterval = 0 },
		"minReplicaCount = 101":     func(c *keda.Config) { c.MinReplicaCount = 101 },
		"idleReplicaCount = 1":      func(c *keda.Config) { c.IdleReplicaCount = &one },
		"triggers[0].threshold":     func(c *keda.Config) { c.Triggers[0].Threshold = 0 },
		"triggers[1].name = queue":  func(c *keda.Config) { c.Triggers = append(c.Triggers, c.Triggers[0]) },
		"fallback.behavior":         func(c *keda.Config) { c.Fallback = &keda.Fallback{Behavior: "scalingModifiers"} },
		"scalingModifiers.target":   func(c *keda.Config) { c.Advanced.ScalingModifiers.Formula = "queue" },
		"scalingModifiers.formula:": func(c *keda.Config) { c.Advanced.ScalingModifiers = keda.Modifiers{Formula: "nope", Target: 1} },
	} {
		if _, err := keda.New(config(change), compile); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want an error with %q", err, want)
		}
	}
	if _, err := keda.New(config(func(c *keda.Config) { c.Advanced.ScalingModifiers = keda.Modifiers{Formula: "queue", Target: 1} }),
		func(string, []string) (keda.Formula, error) { return nil, errors.New("no") }); err == nil {
		t.Error("New ignores what compile says")
	}
}

func BenchmarkDecide(b *testing.B) {
	p, err := keda.New(keda.Default(), nil)
	if err != nil {
		b.Fatal(err)
	}
	o := algorithms.Observation{
		Now: policytest.Epoch(), Quiet: true, Limits: algorithms.Limits{Max: 100}, Replicas: algorithms.Replicas{Current: 2, Ready: 2},
		Signals: []algorithms.Signal{{Name: "concurrency", Window: time.Minute, Value: 100, Known: true}},
	}
	b.ReportAllocs()
	for b.Loop() {
		o.Now = o.Now.Add(time.Second)
		p.Decide(o)
	}
}
