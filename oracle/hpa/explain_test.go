package hpa_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/hpa"
	"github.com/sluice-autoscaler/sluice/scaler/explain/horizontal"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	defaults "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
)

// history is one HPA with what happens to it.
type history struct {
	rng  *rand.Rand
	c    *cluster
	all  []metric
	last time.Time // of the controller's last look
	max  int
}

// begin makes an HPA.
func (s *history) begin(episode int) {
	rng := s.rng
	s.all = nil
	var specs []any
	for i := range 1 + rng.IntN(3)*rng.IntN(2) {
		m := draw(rng, i)
		spec := m.spec()
		if m.kind == hpa.Resource && rng.IntN(3) == 0 {
			r := spec["resource"].(map[string]any)
			spec = map[string]any{"type": "ContainerResource", "containerResource": map[string]any{"name": m.name, "container": "it", "target": r["target"]}}
		}
		s.all, specs = append(s.all, m), append(specs, spec)
	}
	lo := pick(rng, 0, 1, 1, 1+rng.IntN(5))
	s.max = lo + 1 + rng.IntN(60)
	spec := map[string]any{"metrics": specs, "minReplicas": lo, "maxReplicas": s.max}
	if rng.IntN(3) > 0 {
		spec["behavior"] = rules(rng, rng.IntN(8) == 0, false)
	}
	h := &autoscalingv2.HorizontalPodAutoscaler{}
	if err := transcode(spec, &h.Spec); err != nil {
		panic(err)
	}
	h.Name, h.Namespace = "x"+strconv.Itoa(episode), "ns"
	h.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "it"}
	if b := h.Spec.Behavior; b != nil { // as the API server does
		b.ScaleUp, b.ScaleDown = defaults.GenerateHPAScaleUpRules(b.ScaleUp), defaults.GenerateHPAScaleDownRules(b.ScaleDown)
	}
	s.c.begin(h)
	s.c.spec, s.last = int32(rng.IntN(s.max+3)), time.Now()
}

// world draws the pods and the metrics of one look.
func (s *history) world(load float64) {
	rng, c := s.rng, s.c
	c.pods, c.perPod, c.totals = nil, map[string]metrics.PodMetricsInfo{}, map[string]int64{}
	for _, m := range s.all {
		c.perPod[m.name] = metrics.PodMetricsInfo{}
	}
	cur, now := int(c.spec), time.Now()
	n := cur
	if rng.IntN(6) == 0 {
		n = rng.IntN(cur + 3)
	}
	n = min(n, 20)
	for i := range n {
		_, k := pod(rng, i, now, s.all, c, load)
		c.pods = append(c.pods, k)
	}
	c.status = int32(n)
	if rng.IntN(20) == 0 { // values of a pod that has gone
		for _, m := range s.all {
			if m.kind == hpa.Pods || m.kind == hpa.Resource {
				c.perPod[m.name]["gone"] = metrics.PodMetric{Timestamp: now, Value: m.goal}
			}
		}
	}
	if rng.IntN(30) == 0 {
		for name := range c.perPod {
			c.perPod[name] = metrics.PodMetricsInfo{}
		}
	}
	for _, m := range s.all {
		if m.kind != hpa.External && m.kind != hpa.Object || rng.IntN(20) == 0 {
			continue
		}
		pods := int64(1)
		if m.aim == hpa.AverageValue {
			pods = int64(max(1, cur))
		}
		c.totals[m.name] = int64(float64(m.goal*pods)*load) + pick(rng, 0, 0, 1, -1, rng.Int64N(m.goal+1))
		if rng.IntN(60) == 0 {
			c.totals[m.name] = -1 - rng.Int64N(m.goal+1)
		}
	}
}

// input is what can be read from outside.
func (s *history) input(set horizontal.Settings) *horizontal.Input {
	c := s.c
	in := &horizontal.Input{Now: time.Now(), Settings: set, HPA: c.hpa.DeepCopy(), Pods: c.pods, Scale: &autoscalingv1.Scale{
		Spec: autoscalingv1.ScaleSpec{Replicas: c.spec}, Status: autoscalingv1.ScaleStatus{Replicas: c.status, Selector: "app=it"},
	}}
	for _, m := range s.all {
		a := horizontal.Answer{PerPod: map[string]horizontal.Reading{}, At: in.Now}
		v, ok := c.totals[m.name]
		switch {
		case m.kind == hpa.Pods || m.kind == hpa.Resource:
			for name, p := range c.perPod[m.name] {
				a.PerPod[name] = horizontal.Reading{Value: p.Value, At: p.Timestamp, Over: p.Window}
			}
		case !ok:
			a.Trouble = &horizontal.Trouble{Cause: errNoMetric.Error()}
		default:
			a.Totals = halves(v)
		}
		in.Answers = append(in.Answers, a)
	}
	return in
}

// values compares the values of the metrics with those that the controller wrote.
func values(x *horizontal.Explanation, h *autoscalingv2.HorizontalPodAutoscaler, existing int32) string {
	for i, st := range h.Status.CurrentMetrics {
		m := &x.Metrics[i]
		if known := st.Type != ""; known != (m.Trouble == nil) {
			return fmt.Sprintf("metric %s has a value: %v in Kubernetes, %v explained (%+v)", m.Name, known, !known, m.Trouble)
		}
		var current autoscalingv2.MetricValueStatus
		perPod := false
		switch {
		case st.Pods != nil:
			current = st.Pods.Current
		case st.Resource != nil:
			current = st.Resource.Current
		case st.ContainerResource != nil:
			current = st.ContainerResource.Current
		case st.Object != nil:
			current, perPod = st.Object.Current, true
		case st.External != nil:
			current, perPod = st.External.Current, true
		default:
			continue
		}
		got := ""
		switch {
		case current.AverageUtilization != nil:
			got = strconv.Itoa(int(*current.AverageUtilization)) + "%"
		case current.AverageValue != nil && perPod:
			total := resource.MustParse(m.Value)
			if existing == 0 || total.MilliValue() > math.MaxInt64/2 {
				continue // over no pods, and of a sum that wrapped, the controller shows a limit
			}
			each := int64(math.Ceil(float64(total.MilliValue()) / float64(existing)))
			if d := each - current.AverageValue.MilliValue(); d != 0 && total.MilliValue() < 1e15 {
				return fmt.Sprintf("metric %s is %s a pod in Kubernetes, and %s over %d pods explained", m.Name, current.AverageValue, m.Value, existing)
			}
			continue
		case current.AverageValue != nil:
			got = current.AverageValue.String()
		case current.Value != nil:
			got = current.Value.String()
		}
		if m.Value != got {
			return fmt.Sprintf("metric %s is %s in Kubernetes and %s explained", m.Name, got, m.Value)
		}
	}
	return ""
}

// agree compares an explanation with what the controller then did.
func agree(x *horizontal.Explanation, c *cluster, cur, got int, existing int32) string {
	if c.refuses && x.Desired == nil || x.Lowest == nil {
		return ""
	}
	if lo, hi := *x.Lowest, *x.Highest; !c.refuses && (got < lo || got > hi) {
		return fmt.Sprintf("%d replicas become %d in Kubernetes, explained are %d to %d", cur, got, lo, hi)
	}
	if x.Desired != nil && !c.refuses {
		if verb := "stays at"; (got == cur) != strings.Contains(x.Sentence, verb) {
			return fmt.Sprintf("%d replicas become %d, and the sentence is %q", cur, got, x.Sentence)
		}
	}
	if x.Active != "" {
		if active := c.condition(autoscalingv2.ScalingActive); active.Reason != x.Active {
			return fmt.Sprintf("ScalingActive has the reason %s in Kubernetes and %s explained", active.Reason, x.Active)
		}
	}
	if x.Active == "ValidMetricFound" {
		for _, m := range x.Metrics {
			if said := c.condition(autoscalingv2.ScalingActive).Message; m.Wins && !strings.Contains(said, m.Name) {
				return fmt.Sprintf("%s wins as explained, and Kubernetes says %q", m.Name, said)
			}
		}
		if diff := reasons(x, c, cur, got); diff != "" {
			return diff
		}
	}
	if x.State == horizontal.OutOfBounds || x.State == horizontal.Disabled {
		return ""
	}
	return values(x, c.hpa, existing)
}

// reasons compares the rules that are certain with the controller's conditions.
func reasons(x *horizontal.Explanation, c *cluster, cur, got int) string {
	able, limited := c.condition(autoscalingv2.AbleToScale).Reason, c.condition(autoscalingv2.ScalingLimited).Reason
	stabilizedBy, limitedBy := "ReadyForNewScale", "DesiredWithinRange"
	sure := len(x.Unknown) == 0
	if !sure {
		stabilizedBy, limitedBy = "", ""
	}
	for _, k := range x.Clamps {
		if k.Rule == "Tolerance" || !k.Certain {
			continue
		}
		if strings.HasSuffix(k.Rule, "Stabilized") {
			stabilizedBy = k.Rule
		} else {
			limitedBy = k.Rule
		}
	}
	if cur == 0 { // the last correction, to minReplicas, has no condition
		limitedBy = ""
	}
	if got != cur || c.refuses {
		stabilizedBy = "" // another reason took its place
	}
	if stabilizedBy != "" && able != stabilizedBy || limitedBy != "" && limited != limitedBy {
		return fmt.Sprintf("Kubernetes says %s and %s, explained are %s and %s: %+v", able, limited, stabilizedBy, limitedBy, x.Clamps)
	}
	return ""
}

// explainHistories compares over so many histories, and returns the first difference, and how often
// each state was seen. Mutate, if any, makes the settings wrong.
func explainHistories(t *testing.T, seed uint64, histories int, mutate func(*horizontal.Settings)) (diff string, seen map[string]int) {
	rng := rand.New(rand.NewPCG(seed, 0xe8))
	seen = map[string]int{}
	c := &cluster{}
	start(t, c)
	s := &history{rng: rng, c: c}
	for episode := range histories {
		s.begin(episode)
		for step := range 12 {
			load := pick(rng, 0, 0.5, 0.9, 1, 1.1, 2, rng.Float64()*3)
			s.world(load)
			set := horizontal.Default()
			set.Look = time.Since(s.last)
			if mutate != nil {
				mutate(&set)
			}
			cur, existing := int(c.spec), c.status
			in := s.input(set)
			x := horizontal.Explain(in)
			c.refuses = rng.IntN(40) == 0
			got := c.reconcile()
			s.last = time.Now()
			if diff := agree(x, c, cur, got, existing); diff != "" {
				spec, _ := json.Marshal(in.HPA)
				said, _ := json.Marshal(x)
				return fmt.Sprintf("seed %d, history %d, step %d: %s\nHPA %s\nexplained %s", seed, episode, step, diff, spec, said), seen
			}
			seen["steps"]++
			seen[string(x.State)]++
			if x.Desired != nil {
				seen["desired known"]++
			}
			for _, m := range x.Metrics {
				if m.Trouble == nil {
					seen[m.Type]++
				}
			}
			for _, k := range x.Clamps {
				if k.Certain {
					seen[k.Rule]++
				}
			}
			time.Sleep(pick(rng, 15*time.Second, 15*time.Second, time.Second, time.Minute, 2*time.Minute, time.Duration(rng.Int64N(int64(40*time.Second)))))
			s.disturb()
		}
	}
	return "", seen
}

// disturb is what others do between two looks.
func (s *history) disturb() {
	rng, c := s.rng, s.c
	if rng.IntN(15) == 0 {
		c.spec = int32(rng.IntN(s.max + 3))
	}
	if rng.IntN(40) == 0 {
		c.hpa.Spec.MaxReplicas = max(2, *c.hpa.Spec.MinReplicas+1, c.hpa.Spec.MaxReplicas+int32(rng.IntN(9))-4)
		s.max = int(c.hpa.Spec.MaxReplicas)
		c.hpa.Generation++
	}
}

// TestExplain holds what sluice explain hpa says before each look against what the controller then
// does: the count, the reasons, the values and the metric that won.
func TestExplain(t *testing.T) {
	seed, n := steps(t)
	n = min(n/20, 10_000) // histories
	synctest.Test(t, func(t *testing.T) {
		diff, seen := explainHistories(t, seed, n, nil)
		if diff != "" {
			t.Fatal(diff)
		}
		t.Logf("seed %d: %d histories agree: %v", seed, n, seen)
		if known := float64(seen["desired known"]) / float64(seen["steps"]); known < 0.6 {
			t.Errorf("the count is known beforehand in %.0f %% of the looks: want 60", 100*known)
		}
		for _, kind := range []string{
			"Disabled", "OutOfBounds", "NoMetrics", "SomeMetricsFailed", "Steady", "Up", "Down", "Held", "Open",
			"Pods", "Object", "External", "Resource", "ContainerResource",
			"Tolerance", "ScaleDownStabilized", "ScaleUpStabilized", "ScaleUpLimit", "ScaleDownLimit", "TooManyReplicas", "TooFewReplicas",
		} {
			if seen[kind] < n/200 {
				t.Errorf("%s was seen %d times in %d histories: the generator has lost its way there", kind, seen[kind], n)
			}
		}
	})
}

// TestExplainMutants makes the settings wrong and demands that the comparison notices.
func TestExplainMutants(t *testing.T) {
	for name, mutate := range map[string]func(*horizontal.Settings){
		"tolerance":               func(s *horizontal.Settings) { s.Tolerance = 0.11 },
		"cpuInitializationPeriod": func(s *horizontal.Settings) { s.CPUInitializationPeriod++ },
		"initialReadinessDelay":   func(s *horizontal.Settings) { s.InitialReadinessDelay++ },
		"downscaleStabilization":  func(s *horizontal.Settings) { s.DownscaleStabilization = 0 },
		"look":                    func(s *horizontal.Settings) { s.Look = 0 },
		"wakesAlways":             func(s *horizontal.Settings) { s.WakesAlways = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if diff, seen := explainHistories(t, 1, 3000, mutate); diff == "" {
					t.Errorf("another %s passed (%v): the comparison does not see it", name, seen)
				}
			})
		})
	}
}
