package horizontal

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/behavior"
	"github.com/sluice-autoscaler/sluice/algorithms/hpa"
)

// source is one of spec.metrics as the arithmetic wants it.
type source struct {
	// kind is hpa.Pods, Resource, Object or External, key the signal's name in the arithmetic.
	kind, key string
	// reason is the controller's word for a failure of it.
	reason    string
	aim       string
	target    autoscalingv2.MetricTarget
	resource  corev1.ResourceName
	container string
	shown     Metric
}

// spell writes a selector as kubectl does.
func spell(s *metav1.LabelSelector) string {
	if s == nil || len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0 {
		return ""
	}
	return metav1.FormatLabelSelector(s)
}

// read resolves a metric's spec; ok is false where it has no source.
func resolve(spec *autoscalingv2.MetricSpec) (s source, ok bool) {
	s = source{key: "metric", shown: Metric{Type: string(spec.Type)}}
	s.reason = "FailedGet" + string(spec.Type) + "Metric"
	m := &s.shown
	identify := func(id autoscalingv2.MetricIdentifier) { m.Name, m.Selector = id.Name, spell(id.Selector) }
	switch {
	case spec.Type == autoscalingv2.PodsMetricSourceType && spec.Pods != nil:
		s.kind, s.target = hpa.Pods, spec.Pods.Target
		identify(spec.Pods.Metric)
	case spec.Type == autoscalingv2.ObjectMetricSourceType && spec.Object != nil:
		s.kind, s.target = hpa.Object, spec.Object.Target
		m.Object = spec.Object.DescribedObject.Kind + "/" + spec.Object.DescribedObject.Name
		identify(spec.Object.Metric)
	case spec.Type == autoscalingv2.ExternalMetricSourceType && spec.External != nil:
		s.kind, s.target = hpa.External, spec.External.Target
		identify(spec.External.Metric)
	case spec.Type == autoscalingv2.ResourceMetricSourceType && spec.Resource != nil:
		s.kind, s.target, s.resource = hpa.Resource, spec.Resource.Target, spec.Resource.Name
		m.Name = string(s.resource)
	case spec.Type == autoscalingv2.ContainerResourceMetricSourceType && spec.ContainerResource != nil:
		c := spec.ContainerResource
		s.kind, s.target, s.resource, s.container = hpa.Resource, c.Target, c.Name, c.Container
		m.Name, m.Container = string(s.resource), c.Container
	default:
		return s, false
	}
	if s.kind == hpa.Resource {
		s.key, m.memory = resourceName(s.resource), s.resource == corev1.ResourceMemory
	}
	t := &s.target
	perPod := s.kind == hpa.External && t.AverageValue != nil || s.kind == hpa.Object && t.Type == autoscalingv2.AverageValueMetricType ||
		s.kind == hpa.Resource && t.AverageValue != nil || s.kind == hpa.Pods
	switch {
	case perPod && t.AverageValue != nil:
		s.aim, m.Target = hpa.AverageValue, t.AverageValue.String()
	case s.kind == hpa.Resource && t.AverageUtilization != nil:
		s.aim, m.Target = hpa.Utilization, strconv.Itoa(int(*t.AverageUtilization))+"%"
	case (s.kind == hpa.External || s.kind == hpa.Object) && !perPod && t.Value != nil:
		s.aim, m.Target = hpa.Value, t.Value.String()
	default:
		return s, false
	}
	m.TargetType = s.aim
	return s, true
}

// rules are spec.behavior, with the controller's window where it names none; nil without one.
func rules(in *Input) (*behavior.Rules, error) {
	b := in.HPA.Spec.Behavior
	if b == nil {
		return nil, nil //nolint:nilnil // no behavior is a behavior of its own
	}
	raw, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("read spec.behavior: %w", err)
	}
	r := &behavior.Rules{}
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("read spec.behavior: %w", err)
	}
	if r.ScaleDown == nil {
		r.ScaleDown = &behavior.Direction{}
	}
	if r.ScaleDown.StabilizationWindowSeconds == nil {
		seconds := int(in.Settings.DownscaleStabilization.Seconds())
		r.ScaleDown.StabilizationWindowSeconds = &seconds
	}
	return r, r.Validate()
}

// quantity is so many thousandths.
func quantity(milli int64) (*algorithms.Quantity, error) {
	q, err := algorithms.ParseQuantity(strconv.FormatInt(milli, 10) + "m")
	return &q, err
}

// calculator is the HPA's arithmetic for one metric.
func (s *source) calculator(set Settings, r *behavior.Rules) (*hpa.Policy, error) {
	c := hpa.Default()
	c.Tolerance, c.Behavior, c.Release = set.Tolerance, r, set.Release
	c.CPUInitializationPeriod, c.InitialReadinessDelay = algorithms.Duration(set.CPUInitializationPeriod), algorithms.Duration(set.InitialReadinessDelay)
	t := hpa.Target{Type: s.aim}
	var err error
	switch s.aim {
	case hpa.Utilization:
		v := int(*s.target.AverageUtilization)
		t.AverageUtilization = &v
	case hpa.Value:
		t.Value, err = quantity(s.target.Value.MilliValue())
	default:
		t.AverageValue, err = quantity(s.target.AverageValue.MilliValue())
	}
	if err != nil {
		return nil, err
	}
	m := hpa.Metric{Type: s.kind}
	switch s.kind {
	case hpa.Pods:
		m.Pods = &hpa.PodsMetric{Metric: hpa.Identifier{Name: s.key}, Target: t}
	case hpa.Object:
		m.Object = &hpa.ObjectMetric{Metric: hpa.Identifier{Name: s.key}, Target: t}
	case hpa.External:
		m.External = &hpa.ExternalMetric{Metric: hpa.Identifier{Name: s.key}, Target: t}
	default:
		m.Resource = &hpa.ResourceMetric{Name: s.key, Target: t}
	}
	c.Metrics = []hpa.Metric{m}
	return hpa.New(c)
}

// sum adds the values of an External metric as the controller does. Of a target per pod it takes a
// sum below zero for one that wrapped.
func (s *source) sum(values []int64) int64 {
	total := int64(0)
	for _, v := range values {
		if v > 0 && total > math.MaxInt64-v {
			return math.MaxInt64
		}
		if total += v; total < 0 && s.kind == hpa.External && s.aim == hpa.AverageValue {
			return math.MaxInt64
		}
	}
	return total
}

// propose is what one metric asks for, in words and numbers. Bare is the same without tolerance.
func (s *source) propose(in *Input, a *Answer, r *behavior.Rules) (p, bare hpa.Proposal) {
	m := &s.shown
	fail := func(t *Trouble) (hpa.Proposal, hpa.Proposal) {
		m.Trouble = t
		return hpa.Proposal{Fault: t.Cause}, hpa.Proposal{}
	}
	calculator, err := s.calculator(in.Settings, r)
	if err != nil {
		return fail(&Trouble{Cause: "the target cannot be computed with: " + err.Error()})
	}
	m.ToleranceDown, m.ToleranceUp = r.Tolerances(in.Settings.Tolerance)
	if a.Trouble != nil {
		return fail(a.Trouble)
	}
	m.date(in, a)
	o := algorithms.Observation{Now: in.Now, Replicas: algorithms.Replicas{Current: int(in.Scale.Spec.Replicas), Ready: int(in.Scale.Status.Replicas)}}
	perPod := s.kind == hpa.Pods || s.kind == hpa.Resource
	// Only these look at no pod.
	if in.PodsTrouble != nil && (perPod || s.aim == hpa.Value && o.Replicas.Current != 0) {
		return fail(in.PodsTrouble)
	}
	none := &Trouble{Cause: "no pods match the selector " + in.Scale.Status.Selector, Remedy: "compare the labels of the pod template with the target's selector, and see why no pods are made"}
	if perPod {
		if len(in.Pods) == 0 {
			return fail(none)
		}
		var lack *Trouble
		if o.Pods, m.Missing, lack = podObservation(in, s, a.PerPod); lack != nil {
			return fail(lack)
		}
	} else {
		o.Pods = make([]algorithms.Pod, 0, len(in.Pods))
		for _, pod := range in.Pods {
			o.Pods = append(o.Pods, observed(pod))
		}
		m.Series = len(a.Totals)
		o.Signals = []algorithms.Signal{{Name: s.key, Known: true, Coverage: 1, Value: float64(s.sum(a.Totals)) / 1000}}
	}
	p = calculator.Propose(o)[0]
	m.fill(s, &p)
	if p.Fault != "" {
		return fail(s.fault(&p, none))
	}
	still := in.Settings
	still.Tolerance = 0
	if exact, err := s.calculator(still, nil); err == nil {
		bare = exact.Propose(o)[0]
	}
	return p, bare
}

// fault says why there is no proposal although there is an answer.
func (s *source) fault(p *hpa.Proposal, none *Trouble) *Trouble {
	m := &s.shown
	switch {
	case s.kind != hpa.Pods && s.kind != hpa.Resource:
		return none
	case p.Counted == 0:
		return &Trouble{
			Cause:  fmt.Sprintf("no pod has a value that counts: %s none and %s not ready", counted(p.Missing, "has", "have"), counted(p.Unready, "is", "are")),
			Remedy: "wait until pods are ready and measured; see kubectl get pods, and sluice explain metric for a rule's metric",
		}
	}
	return &Trouble{Cause: "the pods request 0 of " + m.Name, Remedy: "set resources.requests." + m.Name + ", or give the metric a target of type AverageValue"}
}

// date sets the ages.
func (m *Metric) date(in *Input, a *Answer) {
	m.WindowSeconds = a.Over.Seconds()
	if a.At.IsZero() {
		return
	}
	at, age := a.At, in.Now.Sub(a.At).Seconds()
	m.At, m.AgeSeconds = &at, &age
}

// fill sets what the arithmetic says.
func (m *Metric) fill(s *source, p *hpa.Proposal) {
	m.CountedPods, m.MissingPods, m.UnreadyPods = p.Counted, p.Missing, p.Unready
	const names = 5
	m.Missing = m.Missing[:min(len(m.Missing), names)]
	if p.Fault != "" {
		return
	}
	m.Value = m.amount(p.Usage)
	if s.aim == hpa.Utilization {
		m.Value = strconv.FormatInt(p.Usage, 10) + "%"
	}
	if algorithms.Finite(p.Ratio) { // over no pods there is none
		first, ratio := p.First, p.Ratio
		m.FirstRatio, m.Ratio = &first, &ratio
	}
	m.Tolerated, m.Turned, m.Existing = p.Tolerated, p.Turned, p.Existing
	n := p.Replicas
	m.Replicas = &n
}

// amount writes thousandths.
func (m *Metric) amount(milli int64) string {
	format := resource.DecimalSI
	if m.memory {
		format = resource.BinarySI
	}
	return resource.NewMilliQuantity(milli, format).String()
}
