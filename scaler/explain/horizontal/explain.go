package horizontal

import (
	"fmt"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sluice-autoscaler/sluice/algorithms/behavior"
	"github.com/sluice-autoscaler/sluice/algorithms/hpa"
)

// Explain says how the HPA stands, from what was read of it.
func Explain(in *Input) *Explanation {
	h := in.HPA
	x := &Explanation{Namespace: h.Namespace, Name: h.Name, Metrics: []Metric{}, Controller: said(h)}
	x.MinReplicas, x.MaxReplicas = bounds(&h.Spec)
	ref := h.Spec.ScaleTargetRef
	x.Target = Target{APIVersion: ref.APIVersion, Kind: ref.Kind, Name: ref.Name}
	if in.ScaleTrouble == nil {
		asked, existing := int(in.Scale.Spec.Replicas), int(in.Scale.Status.Replicas)
		x.Target.Replicas, x.Target.Existing, x.Target.Selector = &asked, &existing, in.Scale.Status.Selector
	}
	if in.ScaleTrouble == nil && in.PodsTrouble == nil && in.Scale.Status.Selector != "" {
		x.Pods = count(in.Pods)
	}
	because := x.decide(in)
	x.Sentence = x.headline(because)
	return x
}

// decide fills in all but the sentence, and returns its second half.
func (x *Explanation) decide(in *Input) (because string) {
	if t := in.ScaleTrouble; t != nil {
		x.State = NoTarget
		if t.Hidden {
			x.State = Hidden
		}
		x.Troubles = append(x.Troubles, *t)
		return t.Cause
	}
	r, err := rules(in)
	if err != nil {
		x.State = Hidden
		x.Troubles = append(x.Troubles, Trouble{Cause: err.Error()})
		return err.Error()
	}
	cur := int(in.Scale.Spec.Replicas)
	// The metrics are shown in any case. Whether they count is said below.
	proposals, bare, reason := x.propose(in, r)
	switch {
	case cur == 0 && !wakes(in):
		x.State, x.Active = Disabled, "ScalingDisabled"
		x.fix(cur, Clamp{Rule: "ScalingDisabled", Certain: true, Message: "the HPA leaves alone what it did not put to sleep itself"})
		return "an HPA leaves a target at 0 that it did not scale to 0 itself, and reads no metric; scale it to 1 or more to start it"
	case cur > x.MaxReplicas, cur > 0 && cur < x.MinReplicas:
		x.State = OutOfBounds
		rule, to := "TooManyReplicas", x.MaxReplicas
		if cur < x.MinReplicas {
			rule, to = "TooFewReplicas", x.MinReplicas
		}
		c := Clamp{Rule: rule, From: cur, To: to, Certain: true, Message: x.word(in, rule, to)}
		x.fix(to, c)
		return c.Message + ", which counts before any metric is read"
	}
	if t := x.selector(in); t != nil {
		x.State = BadSelector
		x.fix(cur)
		x.Troubles = append(x.Troubles, *t)
		return t.Cause
	}
	return x.combine(in, r, proposals, bare, reason)
}

// fix sets a count that is certain.
func (x *Explanation) fix(n int, clamps ...Clamp) {
	x.Lowest, x.Highest, x.Desired = &n, &n, &n
	x.Clamps = append(x.Clamps, clamps...)
}

// wakes tells whether the HPA computes from 0 replicas. It does so where it scaled to zero itself,
// and either has a metric that tells of demand there, or is to have pods.
func wakes(in *Input) bool {
	lo, _ := bounds(&in.HPA.Spec)
	tells := false
	for i := range in.HPA.Spec.Metrics {
		t := in.HPA.Spec.Metrics[i].Type
		tells = tells || t == autoscalingv2.ObjectMetricSourceType || t == autoscalingv2.ExternalMetricSourceType
	}
	for _, c := range in.HPA.Status.Conditions {
		if c.Type == autoscalingv2.ScaledToZero {
			return c.Status == "True" && (lo != 0 || tells)
		}
	}
	return in.Settings.WakesAlways && lo == 0
}

// selector says what is wrong with the target's selector, nil when nothing is.
func (x *Explanation) selector(in *Input) *Trouble {
	s := in.Scale.Status.Selector
	target := x.Target.Kind + " " + x.Target.Name
	if _, err := labels.Parse(s); s == "" || err != nil {
		x.Active = "InvalidSelector"
		t := &Trouble{Cause: "the scale of " + target + " names no selector", Remedy: "the scale subresource of a custom resource needs labelSelectorPath"}
		if err != nil {
			t.Cause = fmt.Sprintf("the selector of %s is none: %v", target, err)
		}
		return t
	}
	if c := x.Controller.condition(autoscalingv2.ScalingActive); c.Reason == "AmbiguousSelector" {
		x.Active = c.Reason
		return &Trouble{Cause: c.Message, Remedy: "give each pod one HorizontalPodAutoscaler: remove one, or tell the selectors of the targets apart"}
	}
	return nil
}

// propose computes each metric.
func (x *Explanation) propose(in *Input, r *behavior.Rules) (proposals, bare []hpa.Proposal, reason string) {
	for i := range in.HPA.Spec.Metrics {
		s, ok := resolve(&in.HPA.Spec.Metrics[i])
		var p, b hpa.Proposal
		switch {
		case !ok:
			s.shown.Trouble = &Trouble{Cause: "the metric has no target that an HPA can compute with"}
			p.Fault = s.shown.Trouble.Cause
		case i >= len(in.Answers):
			s.shown.Trouble = &Trouble{Cause: "it was not asked for", Hidden: true}
			p.Fault = s.shown.Trouble.Cause
		default:
			p, b = s.propose(in, &in.Answers[i], r)
		}
		if p.Fault != "" && reason == "" {
			reason = s.reason
		}
		x.Metrics = append(x.Metrics, s.shown)
		proposals, bare = append(proposals, p), append(bare, b)
	}
	return proposals, bare, reason
}

// combine is what all metrics lead to.
func (x *Explanation) combine(in *Input, r *behavior.Rules, proposals, bare []hpa.Proposal, reason string) (because string) {
	cur := int(in.Scale.Spec.Replicas)
	n, winner, how := hpa.Combine(proposals, cur)
	failed, hidden := 0, false
	var first *Trouble
	for i := range x.Metrics {
		if t := x.Metrics[i].Trouble; t != nil {
			failed++
			hidden = hidden || t.Hidden
			if first == nil {
				first = t
			}
		}
	}
	if hidden {
		x.State = Hidden
		return "what the controller reads cannot be told: " + first.Cause
	}
	switch how {
	case hpa.NoData:
		x.State, x.Active = NoMetrics, reason
		x.fix(cur)
		if first == nil {
			return "it names no metric"
		}
		return fmt.Sprintf("%s, and without a metric an HPA changes nothing", fault(x, failed))
	case hpa.SomeMetricsFailed:
		x.State, x.Active, x.Recommended = SomeMetricsFailed, reason, &n
		x.Metrics[winner].Wins = true
		x.fix(cur, Clamp{Rule: hpa.SomeMetricsFailed, From: n, To: cur, Certain: true, Message: "an HPA does not scale down while a metric has no value"})
		return fmt.Sprintf("%s; it asks for %d, but %s, and an HPA does not scale down while a metric has no value", x.Metrics[winner].words(true), n, fault(x, failed))
	}
	x.Active, x.Recommended = "ValidMetricFound", &n
	if winner >= 0 {
		m := &x.Metrics[winner]
		m.Wins = true
		if free := bare[winner]; m.Tolerated && free.Fault == "" && free.Replicas != n {
			x.Clamps = append(x.Clamps, Clamp{Rule: "Tolerance", From: max(free.Replicas, 0), To: n, Certain: true, Message: m.band()})
		}
	}
	l, err := limiter(in, r)
	if err != nil {
		x.State = Hidden
		return err.Error()
	}
	x.limit(in, l, n)
	return x.outcome(cur, n, winner, failed)
}

// fault names the first metric that has no value, and how many there are.
func fault(x *Explanation, failed int) string {
	for i := range x.Metrics {
		if m := &x.Metrics[i]; m.Trouble != nil {
			some := m.subject() + " has no value"
			if failed > 1 {
				some = fmt.Sprintf("%d metrics have no value, the first of them %s", failed, m.subject())
			}
			return some + " (" + m.Trouble.Cause + ")"
		}
	}
	return ""
}

// outcome sets the state of an HPA whose metrics have values, and says why.
func (x *Explanation) outcome(cur, n, winner, failed int) string {
	var why strings.Builder
	if winner >= 0 {
		m := &x.Metrics[winner]
		why.WriteString(m.words(len(x.Metrics)-failed > 1))
		switch {
		case m.Tolerated && !m.Existing:
			fmt.Fprintf(&why, ", %s", m.band())
		case m.Existing && n != cur:
			fmt.Fprintf(&why, ", %s, and then an HPA answers the %d pods that exist", m.band(), n)
		case m.Existing:
			fmt.Fprintf(&why, ", %s", m.band())
		case m.Turned:
			why.WriteString(", and with the pods that have no value that counts the direction would turn, so it asks for no change")
		default:
			fmt.Fprintf(&why, "; it asks for %d", n)
		}
	} else {
		fmt.Fprintf(&why, "the metrics ask for %d", n)
	}
	if failed > 0 {
		fmt.Fprintf(&why, " (%s)", fault(x, failed))
	}
	for _, c := range x.Clamps {
		if c.Rule != "Tolerance" && c.Certain {
			fmt.Fprintf(&why, "; %s", c.Message)
		}
	}
	switch {
	case x.Desired == nil:
		x.State = Open
		if lo, hi := *x.Lowest, *x.Highest; n < cur && hi == cur {
			fmt.Fprintf(&why, ", and whether it may go to %d already is for what the controller remembers", lo)
		} else {
			why.WriteString(", and how far it may go is for what the controller remembers")
		}
		if x.Likely != nil {
			fmt.Fprintf(&why, " (likely %d)", *x.Likely)
		}
	case *x.Desired > cur:
		x.State = Up
	case *x.Desired < cur:
		x.State = Down
	case n == cur:
		x.State = Steady
	default:
		x.State = Held
	}
	return why.String()
}

// headline is the sentence.
func (x *Explanation) headline(because string) string {
	what := fmt.Sprintf("%s %s/%s", x.Target.Kind, x.Namespace, x.Target.Name)
	n := func(v int) string { return counted(v, "replica", "replicas") }
	var b strings.Builder
	switch cur := x.Target.Replicas; {
	case cur == nil:
		fmt.Fprintf(&b, "%s is not scaled by its HPA", what)
		if x.State == Hidden {
			b.Reset()
			fmt.Fprintf(&b, "%s cannot be explained", what)
		}
	case x.State == Hidden:
		fmt.Fprintf(&b, "%s has %s", what, n(*cur))
	case x.Desired == nil:
		fmt.Fprintf(&b, "%s has %s, and its HPA's next count is from %d to %d", what, n(*cur), *x.Lowest, *x.Highest)
	case *x.Desired == *cur:
		fmt.Fprintf(&b, "%s stays at %s", what, n(*cur))
	default:
		fmt.Fprintf(&b, "%s goes from %d to %s", what, *cur, n(*x.Desired))
	}
	b.WriteString(": " + because)
	for _, k := range []autoscalingv2.HorizontalPodAutoscalerConditionType{autoscalingv2.AbleToScale, autoscalingv2.ScalingActive} {
		if c := x.Controller.condition(k); c.Status == "False" && c.Reason != x.Active && x.State != NoTarget {
			fmt.Fprintf(&b, "; at its last look the controller could not: %s: %s", c.Reason, strings.TrimSuffix(c.Message, "."))
		}
	}
	switch {
	case len(x.Controller.Conditions) == 0:
		b.WriteString("; the controller has not looked at this HPA yet")
	case x.Controller.Stale:
		b.WriteString("; the controller has not looked at the present spec yet")
	}
	b.WriteString(".")
	return b.String()
}

// subject names the metric.
func (m *Metric) subject() string {
	s := m.Name
	switch m.Type {
	case string(autoscalingv2.ContainerResourceMetricSourceType):
		s += " of container " + m.Container
	case string(autoscalingv2.ObjectMetricSourceType):
		s += " of " + m.Object
	case string(autoscalingv2.ExternalMetricSourceType):
		s = "external " + s
	}
	if m.Selector != "" {
		s += " (" + m.Selector + ")"
	}
	return s
}

// words says what the metric is, of several or alone.
func (m *Metric) words(several bool) string {
	s := m.subject()
	if several {
		s += ", the highest metric,"
	}
	per := ""
	if m.TargetType == hpa.AverageValue {
		per = " a pod"
	}
	value := m.Value
	if per != "" && m.Type != string(autoscalingv2.ObjectMetricSourceType) && m.Type != string(autoscalingv2.ExternalMetricSourceType) {
		value += per
	}
	s += fmt.Sprintf(" is %s where the target is %s%s", value, m.Target, per)
	var lack []string
	if m.MissingPods > 0 {
		lack = append(lack, counted(m.MissingPods, "pod has", "pods have")+" no value")
	}
	if m.UnreadyPods > 0 {
		lack = append(lack, counted(m.UnreadyPods, "pod is", "pods are")+" unready or too young")
	}
	if len(lack) > 0 {
		s += " (" + strings.Join(lack, ", ") + ")"
	}
	return s
}

// counted is a number with the word for one or for several.
func counted(n int, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, several)
}

// band says that the ratio is within the tolerance.
func (m *Metric) band() string {
	if m.Ratio == nil {
		return "within the tolerance"
	}
	return fmt.Sprintf("a ratio of %.4g, within the tolerance (%.4g to %.4g)", *m.Ratio, 1-m.ToleranceDown, 1+m.ToleranceUp)
}
