// Package hpa_test is the oracle of algorithms/hpa and algorithms/behavior: it runs Kubernetes' own
// HorizontalPodAutoscaler controller (k8s.io/kubernetes, pkg/controller/podautoscaler), whole and
// unaltered, on a cluster of fakes in simulated time, and Sluice's policy beside it, on the same
// random sequences, and demands the same replicas at every step.
//
//	go test -v                          a million steps each of the calculator and of behavior, the seed is drawn and printed
//	go test -v -args -seed 7 -steps 5e6 the same sequence again, or more of it
package hpa_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/behavior"
	"github.com/sluice-autoscaler/sluice/algorithms/guard"
	"github.com/sluice-autoscaler/sluice/algorithms/hpa"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	defaults "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "seed of the random sequences, 0 draws one")
	stepsFlag = flag.Float64("steps", 1e6, "steps to compare, each of the calculator and of behavior")
)

// pick returns one of its arguments.
func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// milli writes thousandths as a quantity.
func milli(v int64) string { return strconv.FormatInt(v, 10) + "m" }

// metric is one metric of an episode.
type metric struct {
	kind, name, aim string
	goal            int64 // thousandths or percent
}

func draw(rng *rand.Rand, i int) metric {
	m := metric{kind: pick(rng, hpa.Pods, hpa.Pods, hpa.Resource, hpa.Resource, hpa.External, hpa.Object), name: "m" + strconv.Itoa(i)}
	m.goal = pick(rng, 1, 2, 10, 100, 999, 1000, 10_000, 1+rng.Int64N(50_000))
	switch m.kind {
	case hpa.Pods:
		m.aim = hpa.AverageValue
	case hpa.Resource:
		m.name = pick(rng, "cpu", "cpu", "memory")
		if m.aim = pick(rng, hpa.Utilization, hpa.AverageValue); m.aim == hpa.Utilization {
			m.goal = pick(rng, 1, 50, 80, 100, 150, 1+rng.Int64N(300))
		}
	default:
		m.aim = pick(rng, hpa.Value, hpa.AverageValue)
	}
	return m
}

// spec is the metric as JSON of the HPA's API, which both sides read.
func (m metric) spec() map[string]any {
	target := map[string]any{"type": m.aim}
	switch m.aim {
	case hpa.Utilization:
		target["averageUtilization"] = m.goal
	case hpa.Value:
		target["value"] = milli(m.goal)
	default:
		target["averageValue"] = milli(m.goal)
	}
	id := map[string]any{"name": m.name}
	switch m.kind {
	case hpa.Pods:
		return map[string]any{"type": m.kind, "pods": map[string]any{"metric": id, "target": target}}
	case hpa.Resource:
		return map[string]any{"type": m.kind, "resource": map[string]any{"name": m.name, "target": target}}
	case hpa.External:
		return map[string]any{"type": m.kind, "external": map[string]any{"metric": id, "target": target}}
	}
	return map[string]any{"type": m.kind, "object": map[string]any{"metric": id, "target": target, "describedObject": map[string]any{"kind": "Service", "name": "it"}}}
}

// rules draws a behavior as JSON.
func rules(rng *rand.Rand, calculator, guarded bool) map[string]any {
	direction := func() map[string]any {
		d := map[string]any{}
		if !guarded && rng.IntN(3) == 0 { // guard's means something else
			d["tolerance"] = pick(rng, "0", "0.1", "50m", "0.05", "0.5", "1")
		}
		if calculator { // nothing held back: the scale shows what the calculator says
			d["stabilizationWindowSeconds"] = 0
			d["policies"] = []any{map[string]any{"type": "Pods", "value": 2_000_000, "periodSeconds": 1}}
			return d
		}
		if rng.IntN(3) > 0 {
			d["stabilizationWindowSeconds"] = pick(rng, 0, 1, 15, 30, 60, 300, rng.IntN(600))
		}
		if rng.IntN(3) > 0 {
			d["selectPolicy"] = pick(rng, "Max", "Max", "Min", "Min", "Disabled")
		}
		var policies []any
		for range rng.IntN(4) {
			policies = append(policies, map[string]any{
				"type": pick(rng, "Pods", "Percent"), "value": pick(rng, 1, 4, 10, 50, 100, 1+rng.IntN(300)),
				"periodSeconds": pick(rng, 1, 15, 15, 60, 1+rng.IntN(300)),
			})
		}
		if policies != nil {
			d["policies"] = policies
		}
		return d
	}
	r := map[string]any{}
	if calculator || rng.IntN(6) > 0 {
		r["scaleUp"] = direction()
	}
	if calculator || rng.IntN(6) > 0 {
		r["scaleDown"] = direction()
	}
	return r
}

// transcode reads the JSON form of v into w.
func transcode(v, w any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, w)
}

// pod draws a pod in both forms, with readings of the metrics near the target.
func pod(rng *rand.Rand, i int, now time.Time, all []metric, c *cluster, load float64) (algorithms.Pod, *corev1.Pod) {
	p := algorithms.Pod{Name: "p" + strconv.Itoa(i), Values: map[string]float64{}, Requests: map[string]float64{}}
	p.State = algorithms.PodReady
	if rng.IntN(4) == 0 {
		p.State = pick(rng, algorithms.PodStarting, algorithms.PodUnknown, algorithms.PodPending, algorithms.PodTerminating, algorithms.PodFailed)
	}
	p.StillReady = p.State == algorithms.PodTerminating && rng.IntN(2) == 0
	window := pick(rng, 0, 15*time.Second, time.Minute)
	second := func(d time.Duration) time.Time { return now.Add(-d).Truncate(time.Second) }
	p.Started = now.Add(-pick(rng, 0, readinessDelay, cpuInitialization, cpuInitialization+1, cpuInitialization-1, time.Duration(rng.Int64N(int64(10*time.Minute)))))
	p.Changed = pick(rng, p.Started, p.Started.Add(readinessDelay), p.Started.Add(readinessDelay-1), second(time.Duration(rng.Int64N(int64(time.Minute)))))
	p.ReadAt = pick(rng, now, p.Changed.Add(window), p.Changed.Add(window-1), second(time.Duration(rng.Int64N(int64(time.Minute)))))
	p.ReadOver = window
	if p.State == algorithms.PodStarting && rng.IntN(4) == 0 {
		p.Changed = time.Time{}
	}
	if p.State == algorithms.PodStarting && rng.IntN(4) == 0 {
		p.Started = time.Time{}
	}
	k := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: "ns"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	ready := corev1.ConditionTrue
	switch p.State {
	case algorithms.PodReady, algorithms.PodGone:
	case algorithms.PodStarting:
		ready = corev1.ConditionFalse
	case algorithms.PodUnknown:
		ready = corev1.ConditionUnknown
	case algorithms.PodPending:
		k.Status.Phase, ready = corev1.PodPending, corev1.ConditionFalse
	case algorithms.PodFailed:
		k.Status.Phase, ready = corev1.PodFailed, corev1.ConditionFalse
	case algorithms.PodSucceeded:
		k.Status.Phase, ready = corev1.PodSucceeded, corev1.ConditionFalse
	case algorithms.PodTerminating:
		k.DeletionTimestamp = &metav1.Time{Time: now}
		if !p.StillReady {
			ready = corev1.ConditionFalse
		}
	}
	if !p.Started.IsZero() {
		k.Status.StartTime = &metav1.Time{Time: p.Started}
	}
	if !p.Changed.IsZero() {
		k.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Time{Time: p.Changed}}}
	}
	requests := corev1.ResourceList{}
	for _, m := range all {
		if m.kind != hpa.Pods && m.kind != hpa.Resource {
			continue
		}
		goal := m.goal
		if m.kind == hpa.Resource {
			asked, seen := p.Requests[m.name]
			if !seen {
				asked = float64(pick(rng, 0, 1, 100, 250, 1000, rng.Int64N(4000))) / 1000
				if rng.IntN(500) > 0 {
					p.Requests[m.name] = asked
					requests[corev1.ResourceName(m.name)] = *resource.NewMilliQuantity(int64(asked*1000+0.5), resource.DecimalSI)
				}
			}
			if m.aim == hpa.Utilization {
				goal = int64(asked*1000+0.5) * m.goal / 100
			}
		}
		if _, seen := p.Values[m.name]; seen || rng.IntN(12) == 0 {
			continue
		}
		v := max(0, int64(float64(goal)*load)+pick(rng, 0, 0, 0, 1, -1, rng.Int64N(goal+1)-goal/2))
		p.Values[m.name] = float64(v) / 1000
		c.perPod[m.name][p.Name] = metrics.PodMetric{Timestamp: p.ReadAt, Window: window, Value: v}
	}
	k.Spec.Containers = []corev1.Container{{Name: "it", Resources: corev1.ResourceRequirements{Requests: requests}}}
	return p, k
}

// put makes Sluice's policy: hpa with its own behavior, or the calculator alone and guard around it
// with the behavior.
func put(c hpa.Config, guarded bool) (algorithms.Policy, error) {
	if !guarded {
		return hpa.New(c)
	}
	g := guard.Default()
	g.Min, g.Max, g.Behavior = c.MinReplicas, c.MaxReplicas, c.Behavior
	c.MinReplicas, c.MaxReplicas, c.Behavior = nil, nil, nil
	inner, err := hpa.New(c)
	if err != nil {
		return nil, err
	}
	return guard.New(g, inner)
}

// run compares for so many steps and returns the first difference, and how often each kind of step
// was seen. mutate and mutateTheirs, if any, alter the parameters of Sluice's and of Kubernetes'
// side only.
func run(t *testing.T, seed uint64, steps int, calculator, guarded bool, mutate func(*hpa.Config), mutateTheirs func(*autoscalingv2.HorizontalPodAutoscalerSpec)) (diff string, seen map[string]int) {
	rng := rand.New(rand.NewPCG(seed, 0x52))
	seen = map[string]int{}
	c := &cluster{}
	start(t, c)
	var scratch []algorithms.Term
	for done, episode := 0, 0; done < steps; episode++ {
		var all []metric
		var specs []any
		scalable := false // has a metric that tells demand at zero replicas
		for i := range 1 + rng.IntN(2)*rng.IntN(3) {
			m := draw(rng, i)
			all, specs = append(all, m), append(specs, m.spec())
			scalable = scalable || m.kind == hpa.External || m.kind == hpa.Object
		}
		lo, hi := 1, 1_000_000
		// guard does not let go of the last pod so easily
		if scalable && !guarded && rng.IntN(2) == 0 {
			lo = 0
		} else if !calculator {
			lo = 1 + rng.IntN(5)
		}
		if !calculator && rng.IntN(4) > 0 {
			hi = lo + 1 + rng.IntN(100)
		}
		spec := map[string]any{"metrics": specs, "minReplicas": lo, "maxReplicas": hi}
		if calculator || guarded || rng.IntN(4) > 0 {
			spec["behavior"] = rules(rng, calculator, guarded)
		}
		config := hpa.Default()
		h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "h" + strconv.Itoa(episode), Namespace: "ns"}}
		if err := transcode(spec, &config); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := transcode(spec, &h.Spec); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		h.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "it"}
		if mutate != nil {
			mutate(&config)
		}
		if mutateTheirs != nil {
			mutateTheirs(&h.Spec)
		}
		if b := h.Spec.Behavior; b != nil { // as the API server does
			b.ScaleUp, b.ScaleDown = defaults.GenerateHPAScaleUpRules(b.ScaleUp), defaults.GenerateHPAScaleDownRules(b.ScaleDown)
		} else {
			seen["no behavior"]++
		}
		ours, err := put(config, guarded)
		if err != nil {
			t.Fatalf("seed %d: %v: %+v", seed, err, spec)
		}
		c.begin(h)
		// awake, so that both sides see the first step
		c.spec = int32(max(1, lo+rng.IntN(min(hi-lo, 20)+1)))
		changed := false
		for range min(100, steps-done) {
			done++
			now, cur := time.Now(), int(c.spec)
			o := algorithms.Observation{Now: now, Scratch: scratch, Replicas: algorithms.Replicas{Current: cur}, Pods: []algorithms.Pod{}}
			c.pods, c.perPod, c.totals = nil, map[string]metrics.PodMetricsInfo{}, map[string]int64{}
			for _, m := range all {
				c.perPod[m.name] = metrics.PodMetricsInfo{}
			}
			load := pick(rng, 0, 0.5, 0.9, 0.999, 1, 1.1, 1.2, 2, rng.Float64()*3)
			n := cur
			if rng.IntN(5) == 0 {
				n = rng.IntN(cur + 3)
			}
			n = min(n, pick(rng, 1, 4, 12, 12, 40))
			blind := rng.IntN(50) == 0
			for i := range n {
				mine, theirs := pod(rng, i, now, all, c, load)
				if blind {
					mine.Values = nil
				}
				switch mine.State {
				case algorithms.PodReady, algorithms.PodGone:
					o.Replicas.Ready++
				case algorithms.PodTerminating, algorithms.PodFailed:
				default:
					o.Replicas.Starting++
				}
				o.Pods, c.pods = append(o.Pods, mine), append(c.pods, theirs)
			}
			if blind {
				seen["all pods missing"]++
				for name := range c.perPod {
					c.perPod[name] = metrics.PodMetricsInfo{}
				}
			}
			c.status = int32(o.Replicas.Existing())
			for _, m := range all {
				// guard holds more on what is missing
				if m.kind != hpa.External && m.kind != hpa.Object || !guarded && rng.IntN(30) == 0 {
					continue
				}
				pods := int64(1)
				if m.aim == hpa.AverageValue {
					pods = int64(max(1, cur))
				}
				v := max(0, int64(float64(m.goal*pods)*load)+pick(rng, 0, 0, 1, -1, rng.Int64N(m.goal+1)))
				c.totals[m.name] = v
				o.Signals = append(o.Signals, algorithms.Signal{Name: m.name, Value: float64(v) / 1000, Known: true, Coverage: 1})
			}
			if o.Replicas.Ready == 0 {
				seen["zero ready"]++
			}
			asleep := cur == 0 && c.condition(autoscalingv2.ScaledToZero).Status != corev1.ConditionTrue
			got := c.reconcile()
			// Kubernetes leaves alone what it did not put to sleep; that is the scaler's matter in
			// Sluice
			if asleep {
				if got != 0 {
					return fmt.Sprintf("seed %d, step %d: Kubernetes woke what it had not put to sleep", seed, done), seen
				}
				seen["disabled"]++
				time.Sleep(time.Second)
				c.spec = int32(1 + rng.IntN(5))
				continue
			}
			d := ours.Decide(o)
			scratch = d.Terms
			want := cur
			if d.Valid {
				want = d.Replicas
			}
			seen[d.Reason]++
			if cur == 0 {
				seen["from zero"]++
			}
			valid := c.condition(autoscalingv2.ScalingActive).Status == corev1.ConditionTrue
			if computed := cur <= hi && (cur == 0 || cur >= lo); got != want || computed && valid != d.Valid {
				in, _ := json.Marshal(o)
				sp, _ := json.Marshal(spec)
				return fmt.Sprintf("seed %d, step %d: %d replicas become %d (valid %v) in Kubernetes and %d (valid %v) in Sluice: %s\nspec %s\nobservation %s\nbehavior %s",
					seed, done, cur, got, valid, want, d.Valid, d.Message, sp, in, ours.Snapshot()), seen
			}
			changed = got != cur
			pause := pick(rng, 15*time.Second, 15*time.Second, 15*time.Second-1, 15*time.Second+1, time.Second, 0, time.Minute, time.Duration(rng.Int64N(int64(40*time.Second))))
			if _, ok := spec["behavior"]; !ok {
				pause = max(pause, 15*time.Second) // decided more often, the older rules are no faster in Sluice
			}
			time.Sleep(pause)
			if !changed && rng.IntN(20) == 0 { // somebody else scales
				c.spec = int32(rng.IntN(min(hi, 100) + 2))
				seen["scaled by another"]++
			}
			if c.spec > 2000 { // keeps counts under 1,000,000, where Sluice's end
				break
			}
		}
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
		n = min(n, 20_000)
	}
	return seed, n
}

func equal(t *testing.T, calculator, guarded bool, kinds ...string) {
	t.Helper()
	seed, n := steps(t)
	synctest.Test(t, func(t *testing.T) {
		diff, seen := run(t, seed, n, calculator, guarded, nil, nil)
		if diff != "" {
			t.Fatalf("%s", diff)
		}
		t.Logf("seed %d: %d steps equal; of them %v", seed, n, seen)
		for _, kind := range kinds {
			if seen[kind]*1000 < n {
				t.Errorf("only %d of %d steps were of kind %s: the generator has lost its way there", seen[kind], n, kind)
			}
		}
	})
}

// TestCalculator compares with behaviors that hold nothing back, so that the scale shows what the
// calculator says.
func TestCalculator(t *testing.T) {
	equal(t, true, false, "Metrics", "Unchanged", "NoData", "SomeMetricsFailed", "zero ready", "from zero", "all pods missing")
}

// TestBehavior compares with random behaviors.
func TestBehavior(t *testing.T) {
	equal(t, false, false, "ScaleUpStabilized", "ScaleDownStabilized", "ScaleUpLimit", "ScaleDownLimit", "TooManyReplicas", "TooFewReplicas", "scaled by another", "no behavior")
}

// TestGuard compares the calculator within guard, which then has the behavior and the bounds.
func TestGuard(t *testing.T) {
	equal(t, false, true, "ScaleUpStabilized", "ScaleDownStabilized", "ScaleUpLimit", "ScaleDownLimit", "scaled by another")
}

// TestMutantsAreCaught alters one thing on one side and demands that the comparison notices.
func TestMutantsAreCaught(t *testing.T) {
	seconds := func(d **behavior.Direction, by int) {
		if *d == nil {
			*d = &behavior.Direction{}
		}
		n := by
		if w := (*d).StabilizationWindowSeconds; w != nil {
			n = min(3600, *w+by)
		}
		(*d).StabilizationWindowSeconds = &n
	}
	mutants := map[string]struct {
		ours   func(*hpa.Config)
		theirs func(*autoscalingv2.HorizontalPodAutoscalerSpec)
	}{
		"tolerance":               {ours: func(c *hpa.Config) { c.Tolerance = 0.1001 }},
		"cpuInitializationPeriod": {ours: func(c *hpa.Config) { c.CPUInitializationPeriod++ }},
		"initialReadinessDelay":   {ours: func(c *hpa.Config) { c.InitialReadinessDelay++ }},
		"a metric less":           {ours: func(c *hpa.Config) { c.Metrics = c.Metrics[:1] }},
		"minReplicas":             {ours: func(c *hpa.Config) { *c.MinReplicas++ }},
		"maxReplicas":             {theirs: func(s *autoscalingv2.HorizontalPodAutoscalerSpec) { s.MaxReplicas++ }},
		"stabilization up": {ours: func(c *hpa.Config) {
			if c.Behavior != nil {
				seconds(&c.Behavior.ScaleUp, 1)
			}
		}},
		"stabilization down": {ours: func(c *hpa.Config) {
			if c.Behavior != nil {
				seconds(&c.Behavior.ScaleDown, 1)
			}
		}},
		"a rate up": {theirs: func(s *autoscalingv2.HorizontalPodAutoscalerSpec) {
			if b := s.Behavior; b != nil && b.ScaleUp != nil && len(b.ScaleUp.Policies) > 0 {
				b.ScaleUp.Policies[0].Value++
			}
		}},
		"a period down": {theirs: func(s *autoscalingv2.HorizontalPodAutoscalerSpec) {
			if b := s.Behavior; b != nil && b.ScaleDown != nil && len(b.ScaleDown.Policies) > 0 {
				b.ScaleDown.Policies[0].PeriodSeconds++
			}
		}},
		"no behavior": {ours: func(c *hpa.Config) {
			if c.Behavior == nil {
				c.Behavior = &behavior.Rules{}
			}
		}},
		"a target": {theirs: func(s *autoscalingv2.HorizontalPodAutoscalerSpec) {
			if m := s.Metrics[0].Pods; m != nil {
				m.Target.AverageValue = resource.NewMilliQuantity(m.Target.AverageValue.MilliValue()+1, resource.DecimalSI)
			}
		}},
	}
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if diff, seen := run(t, 1, 100_000, false, false, m.ours, m.theirs); diff == "" {
					t.Errorf("another %s passed 100000 steps (%v): the comparison does not see it", name, seen)
				}
			})
		})
	}
}
