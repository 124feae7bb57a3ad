// Package keda_test is the oracle of algorithms/keda: it runs KEDA's own scale handler (pkg/scaling,
// with its executor, fallback and modifiers), whole and unaltered, on a fake cluster in simulated time,
// and Sluice's policy beside it, on the same random sequences, and demands the same replicas at every
// step. The HPA that KEDA makes is algorithms/hpa on both sides, which oracle/hpa holds against
// Kubernetes' own; here it gets the metrics that KEDA serves. The handler's scalers are made anew before
// each look, as after a restart of KEDA: it would otherwise keep a copy of the failure counts.
//
//	go test -v                          a million steps, the seed is drawn and printed
//	go test -v -args -seed 7 -steps 5e6 the same sequence again, or more of it
package keda_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/kedacore/keda/v2/pkg/scalers"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/behavior"
	"github.com/sluice-autoscaler/sluice/algorithms/cel"
	"github.com/sluice-autoscaler/sluice/algorithms/hpa"
	"github.com/sluice-autoscaler/sluice/algorithms/keda"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "seed of the random sequences, 0 draws one")
	stepsFlag = flag.Float64("steps", 1e6, "steps to compare")
)

// pick returns one of its arguments.
func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// draw makes the parameters of an episode.
func draw(rng *rand.Rand) keda.Config {
	c := keda.Default()
	c.PollingInterval = pick(rng, 1, 5, 15, 30, 30, 60)
	c.CooldownPeriod, c.InitialCooldownPeriod = pick(rng, 0, 1, 15, 60, 300), pick(rng, 0, 0, 30, 300)
	c.MinReplicaCount = pick(rng, 0, 0, 0, 1, 3)
	c.MaxReplicaCount = c.MinReplicaCount + pick(rng, 1, 5, 20, 100)
	if c.MinReplicaCount > 0 && rng.IntN(3) == 0 {
		c.IdleReplicaCount = new(0)
	}
	threshold := func() float64 {
		return pick(rng, 1, 5, 10, 0.5, 0.57, 0.3, 100, 7.125, float64(1+rng.IntN(100_000))/1000)
	}
	kind := func() string { return pick(rng, "", hpa.AverageValue, hpa.Value) }
	for i := range 1 + rng.IntN(3) {
		c.Triggers = append(c.Triggers, keda.Trigger{
			Name: "t" + strconv.Itoa(i), Signal: "s" + strconv.Itoa(i), Threshold: threshold(), MetricType: kind(),
			ActivationThreshold: pick(rng, 0, 0, 0, 1, 5.5),
		})
	}
	if rng.IntN(3) == 0 {
		formulas := []string{"t0 + 1.5", "t0 * 2.0"}
		if len(c.Triggers) > 1 {
			formulas = []string{"t0 + t1", "(t0 + t1) / 2.0", "t0 > t1 ? t0 : t1", "t0 - t1"}
		}
		c.Advanced.ScalingModifiers = keda.Modifiers{
			Formula: formulas[rng.IntN(len(formulas))], Target: pick(rng, 1, 5, 10, 100, 2.5), ActivationTarget: pick(rng, 0, 0, 3, 0.5), MetricType: kind(),
		}
	}
	if rng.IntN(2) == 0 {
		c.Fallback = &keda.Fallback{
			FailureThreshold: rng.IntN(5), Replicas: pick(rng, 0, 1, 3, 7, 20),
			Behavior: pick(rng, "", keda.Static, keda.CurrentReplicas, keda.CurrentReplicasIfHigher, keda.CurrentReplicasIfLower),
		}
	}
	if rng.IntN(2) == 0 {
		window := pick(rng, 0, 0, 30, 300)
		c.Advanced.HorizontalPodAutoscalerConfig.Behavior = &behavior.Rules{ScaleDown: &behavior.Direction{StabilizationWindowSeconds: &window}}
	}
	return c
}

// object is the parameters as KEDA has them.
func object(c *keda.Config, generation int64) *kedav1alpha1.ScaledObject {
	number := func(n int) *int32 { v := int32(n); return &v }
	so := &kedav1alpha1.ScaledObject{
		ObjectMeta: metav1.ObjectMeta{Name: target + strconv.FormatInt(generation, 10), Namespace: namespace, Generation: generation, CreationTimestamp: metav1.NewTime(time.Now().Truncate(time.Second))},
		Spec: kedav1alpha1.ScaledObjectSpec{
			ScaleTargetRef: &kedav1alpha1.ScaleTarget{Name: target}, PollingInterval: number(c.PollingInterval),
			CooldownPeriod: number(c.CooldownPeriod), InitialCooldownPeriod: number(c.InitialCooldownPeriod),
			MinReplicaCount: number(c.MinReplicaCount), MaxReplicaCount: number(c.MaxReplicaCount),
		},
		Status: kedav1alpha1.ScaledObjectStatus{
			ScaleTargetGVKR: &kedav1alpha1.GroupVersionKindResource{Group: "apps", Version: "v1", Kind: "Deployment", Resource: "deployments"},
			HpaName:         hpaName, Conditions: *kedav1alpha1.GetInitializedConditions(),
		},
	}
	if c.IdleReplicaCount != nil {
		so.Spec.IdleReplicaCount = number(*c.IdleReplicaCount)
	}
	for i, t := range c.Triggers {
		so.Spec.Triggers = append(so.Spec.Triggers, kedav1alpha1.ScaleTriggers{Type: "test", Name: t.Name, MetricType: aim(t.MetricType)})
		so.Status.ExternalMetricNames = append(so.Status.ExternalMetricNames, "s"+strconv.Itoa(i)+"-"+t.Name)
	}
	if f := c.Fallback; f != nil {
		so.Spec.Fallback = &kedav1alpha1.Fallback{FailureThreshold: int32(f.FailureThreshold), Replicas: int32(f.Replicas), Behavior: f.Behavior}
		if f.Behavior == "" {
			so.Spec.Fallback.Behavior = kedav1alpha1.FallbackBehaviorStatic // as the API server does
		}
	}
	if m := c.Advanced.ScalingModifiers; m.Formula != "" {
		so.Spec.Advanced = &kedav1alpha1.AdvancedConfig{ScalingModifiers: kedav1alpha1.ScalingModifiers{
			Formula: m.Formula, Target: strconv.FormatFloat(m.Target, 'f', -1, 64), ActivationTarget: strconv.FormatFloat(m.ActivationTarget, 'f', -1, 64), MetricType: aim(m.MetricType),
		}}
	}
	return so
}

func aim(kind string) autoscalingv2.MetricTargetType {
	if kind == hpa.Value {
		return autoscalingv2.ValueMetricType
	}
	return autoscalingv2.AverageValueMetricType
}

func compile(expression string, names []string) (keda.Formula, error) {
	f, err := cel.NewFormula(expression, names)
	if err != nil {
		return nil, err
	}
	return f.Value, nil
}

// theirHPA is the HPA that KEDA makes of the parameters.
func theirHPA(c *keda.Config, so *kedav1alpha1.ScaledObject) (*hpa.Policy, []string, error) {
	h := hpa.Default()
	lo, hi := int(*so.GetHPAMinReplicas()), int(so.GetHPAMaxReplicas())
	h.MinReplicas, h.MaxReplicas, h.Behavior = &lo, &hi, c.Advanced.HorizontalPodAutoscalerConfig.Behavior
	var names []string
	add := func(name, kind string, goal float64) error {
		q, err := algorithms.ParseQuantity(strconv.FormatFloat(goal, 'f', -1, 64))
		if err != nil {
			return err
		}
		t := hpa.Target{Type: hpa.AverageValue, AverageValue: &q}
		if kind == hpa.Value {
			t = hpa.Target{Type: hpa.Value, Value: &q}
		}
		names = append(names, name)
		h.Metrics = append(h.Metrics, hpa.Metric{Type: hpa.External, External: &hpa.ExternalMetric{Metric: hpa.Identifier{Name: name}, Target: t}})
		return nil
	}
	if m := c.Advanced.ScalingModifiers; m.Formula != "" {
		if err := add(kedav1alpha1.CompositeMetricName, m.MetricType, m.Target); err != nil {
			return nil, nil, err
		}
	} else {
		for i, t := range c.Triggers {
			if err := add(so.Status.ExternalMetricNames[i], t.MetricType, t.Threshold); err != nil {
				return nil, nil, err
			}
		}
	}
	p, err := hpa.New(h)
	return p, names, err
}

// episode is one ScaledObject and Sluice's policy beside it.
type episode struct {
	c      *cluster
	cfg    keda.Config
	ours   *keda.Policy
	hpa    *hpa.Policy
	names  []string
	polled time.Time
	// out are the triggers in an outage.
	out [3]bool
}

// begin makes both sides, and lets KEDA poll for the first time.
func begin(ctx context.Context, c *cluster, rng *rand.Rand, generation int64, mutate func(*keda.Config)) (*episode, error) {
	e := &episode{c: c, cfg: draw(rng)}
	c.object, c.formula, c.scalers, c.active = object(&e.cfg, generation), nil, nil, false
	for i, t := range e.cfg.Triggers {
		c.scalers = append(c.scalers, &scaler{
			trigger: t.Name, metric: c.object.Status.ExternalMetricNames[i], aim: scalers.GetMetricTargetMili(aim(t.MetricType), t.Threshold), activation: t.ActivationThreshold,
		})
	}
	var err error
	if e.cfg.Advanced.ScalingModifiers.Formula != "" {
		if c.formula, err = kedav1alpha1.ValidateAndCompileScalingModifiers(c.object); err != nil {
			return nil, err
		}
	}
	if e.hpa, e.names, err = theirHPA(&e.cfg, c.object); err != nil {
		return nil, err
	}
	mine := e.cfg
	if mutate != nil {
		mutate(&mine)
	}
	if e.ours, err = keda.New(mine, compile); err != nil {
		return nil, err
	}
	e.out = [3]bool{}
	c.spec = int32(pick(rng, 0, e.cfg.MinReplicaCount, e.cfg.MinReplicaCount+rng.IntN(e.cfg.MaxReplicaCount)))
	c.ready = int(c.spec)
	e.measure(rng)
	c.prepare()
	if err := c.handler.HandleScalableObject(ctx, c.object.DeepCopy()); err != nil {
		return nil, err
	}
	e.polled = time.Now()
	return e, nil
}

// measure draws what the triggers see.
func (e *episode) measure(rng *rand.Rand) {
	load := pick(rng, 0, 0, 0, 0.5, 0.95, 1, 1.1, 1.3, rng.Float64()*3)
	for i, s := range e.c.scalers {
		t := e.cfg.Triggers[i]
		pods := 1.0
		if t.MetricType != hpa.Value {
			pods = float64(max(1, e.c.spec))
		}
		if s.known = rng.IntN(30) > 0; rng.IntN(8) == 0 { // an outage begins or ends
			e.out[i] = !e.out[i]
		}
		s.known = s.known && !e.out[i]
		s.value = t.Threshold*pods*load + pick(rng, 0, 0, 0.0004, 0.0005, 0.0006, -0.0004, rng.Float64())
		if rng.IntN(20) == 0 {
			s.value = -30
		}
	}
}

// theirs is the count that KEDA and its HPA ask for now, after the poll, if there was one.
func (e *episode) theirs(ctx context.Context, o algorithms.Observation, before int32) (int, string, error) {
	c := e.c
	if c.spec != before {
		return int(c.spec), "operator", nil
	}
	if c.spec == 0 {
		c.active = false
		return 0, "asleep", nil
	}
	ask := o
	ask.Signals = nil
	if lo, hi := int(*c.object.GetHPAMinReplicas()), int(c.object.GetHPAMaxReplicas()); int(c.spec) >= lo && int(c.spec) <= hi {
		c.prepare()
		for _, name := range e.names {
			got, err := c.handler.GetScaledObjectMetrics(ctx, c.object.Name, namespace, name)
			c.prepare()
			if err != nil {
				continue
			}
			if len(got.Items) != 1 {
				return 0, "", fmt.Errorf("%d values of %s", len(got.Items), name)
			}
			ask.Signals = append(ask.Signals, algorithms.Signal{Name: name, Known: true, Coverage: 1, Value: float64(got.Items[0].Value.MilliValue()) / 1000})
		}
	} else {
		return e.hpa.Decide(ask).Replicas, "bounds", nil
	}
	d := e.hpa.Decide(ask)
	if c.active = d.Valid; !d.Valid {
		return int(c.spec), d.Reason, nil
	}
	return d.Replicas, d.Reason, nil
}

// run compares for so many steps and returns the first difference, and how often each kind of step was
// seen.
func run(t *testing.T, seed uint64, steps int, mutate func(*keda.Config)) (diff string, seen map[string]int) {
	rng := rand.New(rand.NewPCG(seed, 0x4b))
	seen = map[string]int{}
	c := newCluster()
	for done, generation := 0, int64(1); done < steps; generation++ {
		time.Sleep(time.Duration(rng.Int64N(int64(3 * time.Second))))
		e, err := begin(t.Context(), c, rng, generation, mutate)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		before := c.spec
		for step := range 60 {
			synctest.Wait() // the poll, if one is due
			done++
			o := algorithms.Observation{Now: time.Now(), Limits: algorithms.Limits{Max: 1_000_000}, Replicas: algorithms.Replicas{Current: int(before), Ready: c.ready, Starting: max(0, int(before)-c.ready)}}
			for i, s := range c.scalers {
				o.Signals = append(o.Signals, algorithms.Signal{Name: e.cfg.Triggers[i].Signal, Value: s.value, Known: s.known, Coverage: 1})
			}
			d := e.ours.Decide(o)
			want, how, err := e.theirs(t.Context(), o, before)
			if err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, done, err)
			}
			got := int(before)
			if d.Valid {
				got = d.Replicas
			}
			seen[how]++
			seen[d.Reason]++
			if got != want {
				cfg, _ := json.Marshal(e.cfg)
				in, _ := json.Marshal(o)
				health, _ := json.Marshal(c.object.Status.Health)
				return fmt.Sprintf("seed %d, step %d (%d of its object): %d replicas become %d in KEDA (%s) and %d in Sluice (%s: %s)\nparameters %s\nobservation %s\nmemory %s\nKEDA's health %s, last active %v",
					seed, done, step, before, want, how, got, d.Reason, d.Message, cfg, in, e.ours.Snapshot(), health, c.object.Status.LastActiveTime), seen
			}
			c.spec = int32(want)
			if rng.IntN(30) == 0 { // somebody else scales
				c.spec = int32(pick(rng, 0, rng.IntN(e.cfg.MaxReplicaCount+2)))
				seen["scaled by another"]++
			}
			before = c.spec
			c.ready = int(c.spec)
			if rng.IntN(4) == 0 {
				c.ready = rng.IntN(int(c.spec) + 1)
			}
			e.measure(rng)
			c.prepare()
			next := e.polled.Add(time.Duration(e.cfg.PollingInterval) * time.Second)
			until := min(time.Until(next), pick(rng, 15*time.Second, 15*time.Second, time.Second, time.Minute, time.Duration(1+rng.Int64N(int64(20*time.Second)))))
			time.Sleep(until)
			if !time.Now().Before(next) {
				e.polled = next
			}
		}
		if err := c.handler.DeleteScalableObject(t.Context(), c.object.DeepCopy()); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		synctest.Wait()
	}
	return "", seen
}

func steps(t *testing.T) (uint64, int) {
	t.Helper()
	seed, n := *seedFlag, int(*stepsFlag)
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	if testing.Short() {
		n = min(n, 200_000)
	}
	return seed, n
}

// TestKEDA compares on random ScaledObjects.
func TestKEDA(t *testing.T) {
	seed, n := steps(t)
	synctest.Test(t, func(t *testing.T) {
		diff, seen := run(t, seed, n, nil)
		if diff != "" {
			t.Fatalf("%s", diff)
		}
		t.Logf("seed %d: %d steps equal; of them %v", seed, n, seen)
		for _, kind := range []string{"operator", "asleep", "NoData", "Activated", "Deactivated", "MinReplicaCount", "scaled by another", "Metrics", "ScaleDownStabilized"} {
			if seen[kind]*2000 < n {
				t.Errorf("only %d of %d steps were of kind %s: the generator has lost its way there", seen[kind], n, kind)
			}
		}
	})
}

// TestMutantsAreCaught alters one thing on Sluice's side and demands that the comparison notices.
func TestMutantsAreCaught(t *testing.T) {
	for name, mutate := range map[string]func(*keda.Config){
		"polling interval":     func(c *keda.Config) { c.PollingInterval++ },
		"cooldown":             func(c *keda.Config) { c.CooldownPeriod++ },
		"threshold":            func(c *keda.Config) { c.Triggers[0].Threshold *= 1.01 },
		"activation threshold": func(c *keda.Config) { c.Triggers[0].ActivationThreshold += 0.5 },
		"no fallback":          func(c *keda.Config) { c.Fallback = nil },
		"failure threshold": func(c *keda.Config) {
			if f := c.Fallback; f != nil {
				c.Fallback = &keda.Fallback{FailureThreshold: f.FailureThreshold + 1, Replicas: f.Replicas, Behavior: f.Behavior}
			}
		},
		"minimum": func(c *keda.Config) { c.MinReplicaCount, c.MaxReplicaCount = c.MinReplicaCount+1, c.MaxReplicaCount+1 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if diff, seen := run(t, 1, 20_000, mutate); diff == "" {
					t.Errorf("another %s passed 20000 steps (%v): the comparison does not see it", name, seen)
				}
			})
		})
	}
}
