package horizontal

import (
	"fmt"
	"math"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"github.com/sluice-autoscaler/sluice/algorithms/behavior"
)

// memory is what is known of the recommendations that the controller remembers.
type memory struct {
	// some: a recommendation of at least so much is within the scaleDown window. few: one of at
	// most so much is within the scaleUp window. most: none of the scaleDown window is above it.
	some, few, most *int
	// held is what the controller stabilized to at its last look, for a guess.
	held *int
}

// recall works out what the status tells of the controller's last look, which was Settings.Look ago
// or less. A look that changes anything in the status writes it, so the status is that of the last
// look.
func recall(in *Input, l *behavior.Limiter, c *Controller) (m memory) {
	able, limited := c.condition(autoscalingv2.AbleToScale), c.condition(autoscalingv2.ScalingLimited)
	then, free := c.DesiredReplicas, limited.Status == "False"
	// the answer was raised
	below := limited.Reason == "TooFewReplicas" || limited.Reason == "ScaleDownLimit"
	at := func(n int) *int { return &n }
	up, down, _ := l.Windows()
	// at its first look the controller takes the count for a recommendation
	if len(c.Conditions) == 0 {
		cur := int(in.Scale.Spec.Replicas)
		if m.most = at(cur); down > 0 {
			m.some = at(cur)
		}
		if up > 0 {
			m.few = at(cur)
		}
		return m
	}
	switch able.Reason {
	case "ReadyForNewScale":
		// stabilized to what was recommended, which is then when nothing limited it
		switch {
		case free:
			m.some, m.few = at(then), at(then)
			if l.Older() { // else one on the far side of the current count does not show
				m.most = at(then)
			}
		case below:
			m.few, m.most = at(then-1), at(then-1)
		default:
			m.some = at(then + 1)
		}
	case "ScaleDownStabilized": // a higher one counted
		m.held = at(then)
		switch {
		case free && l.Older():
			m.most = at(then)
		case below:
			m.most = at(then - 1)
		}
		if !l.Older() {
			m.few = at(then - 1)
		}
	case "ScaleUpStabilized": // a lower one counted
		m.some, m.held = at(then+1), at(then)
	case "SucceededRescale":
		lo, hi := bounds(&in.HPA.Spec)
		was := c.CurrentReplicas
		if c.Stale || was == 0 || was > hi || was < lo { // no metric led to it, or not they alone
			break
		}
		m.held = at(then)
		switch up := then > was; {
		case l.Older() && free:
			m.most = at(then)
		case l.Older():
		case up:
			m.some = at(then)
		case free:
			m.few, m.most = at(then), at(then)
		default:
			m.few, m.most = at(then-1), at(then-1)
		}
	}
	if in.Settings.Look >= down { // it may have left the window by the next look
		m.some = nil
	}
	if in.Settings.Look >= up {
		m.few = nil
	}
	return m
}

// rescales are the sizes that the events tell of, which the controller wrote within the time,
// newest last. ok is false where the events do not tell them all.
func rescales(in *Input, within time.Duration) (at []time.Time, sizes []int, ok bool) {
	for i := range in.Events {
		e := &in.Events[i]
		var size int
		if e.Reason != "SuccessfulRescale" {
			continue
		}
		if _, err := fmt.Sscanf(e.Message, "New size: %d;", &size); err != nil || e.Count > 1 && in.Now.Sub(e.LastTimestamp.Time) <= within {
			return nil, nil, false
		}
		when := e.LastTimestamp.Time
		if when.IsZero() {
			when = e.EventTime.Time
		}
		place := 0
		for place < len(at) && !when.Before(at[place]) {
			place++
		}
		at = append(at[:place], append([]time.Time{when}, at[place:]...)...)
		sizes = append(sizes[:place], append([]int{size}, sizes[place:]...)...)
	}
	return at, sizes, true
}

// changes tells whether the rates are known: the controller has not scaled within their longest
// period. Else guess is what the events tell of added and removed pods.
func changes(in *Input, l *behavior.Limiter) (known bool, guess func(time.Duration) (added, removed int)) {
	none := func(time.Duration) (int, int) { return 0, 0 }
	_, _, longest := l.Windows()
	last := in.HPA.Status.LastScaleTime
	// times are cut to seconds
	if l.Older() || last == nil || in.Now.Sub(last.Time) >= longest+time.Second {
		return true, none
	}
	at, sizes, ok := rescales(in, longest)
	if !ok {
		return false, none
	}
	return false, func(period time.Duration) (added, removed int) {
		for i := 1; i < len(at); i++ {
			if in.Now.Sub(at[i]) >= period {
				continue
			}
			if d := sizes[i] - sizes[i-1]; d > 0 {
				added += d
			} else {
				removed -= d
			}
		}
		return added, removed
	}
}

// limiter has the HPA's rules.
func limiter(in *Input, r *behavior.Rules) (*behavior.Limiter, error) {
	if r == nil {
		return behavior.NewOlderOver(in.Settings.DownscaleStabilization), nil
	}
	return behavior.New(*r)
}

// limit applies the rules to what the metrics ask for.
func (x *Explanation) limit(in *Input, l *behavior.Limiter, n int) {
	cur, lo, hi := int(in.Scale.Spec.Replicas), x.MinReplicas, x.MaxReplicas
	m := recall(in, l, &x.Controller)
	up, down, _ := l.Windows()
	known, guess := changes(in, l)
	n = max(n, 0)
	nothing, everything := 0, math.MaxInt32
	least, most := behavior.Past{Largest: m.some, Changed: guess}, behavior.Past{Least: m.few, Changed: guess}
	if !known {
		least.Bound, most.Bound = behavior.Lowest, behavior.Highest
	}
	likely := behavior.Past{Largest: m.some, Least: m.few, Changed: guess}
	if up > 0 {
		least.Least = &nothing
	}
	if down > 0 {
		if most.Largest = m.most; most.Largest == nil {
			most.Largest = &everything
		}
		if m.some != nil && *m.some > *most.Largest {
			most.Largest = m.some
		}
		if likely.Largest == nil {
			likely.Largest = m.held
		}
		if likely.Largest != nil && *likely.Largest > *most.Largest {
			likely.Largest = most.Largest
		}
	}
	low, high, mid := l.Step(in.Now, least, cur, n, lo, hi), l.Step(in.Now, most, cur, n, lo, hi), l.Step(in.Now, likely, cur, n, lo, hi)
	for _, o := range []*behavior.Outcome{&low, &high, &mid} {
		if cur == 0 && o.Limited < lo {
			o.Limited, o.LimitedBy = lo, "TooFewReplicas"
		}
	}
	x.Lowest, x.Highest = &low.Limited, &high.Limited
	if low.Limited == high.Limited {
		x.Desired = &low.Limited
	} else {
		guessed := min(max(mid.Limited, low.Limited), high.Limited)
		x.Likely = &guessed
	}
	if low == high {
		mid = low
	}
	x.clamps(in, low, high, mid, n)
	x.remember(l, low, high, known)
}

// clamps lists the rules that changed the count.
func (x *Explanation) clamps(in *Input, low, high, mid behavior.Outcome, n int) {
	if mid.StabilizedBy != "" {
		x.Clamps = append(x.Clamps, Clamp{
			Rule: mid.StabilizedBy, From: n, To: mid.Stabilized, Certain: low.StabilizedBy == high.StabilizedBy && low.Stabilized == high.Stabilized && low.Stabilized == mid.Stabilized,
			Message: x.word(in, mid.StabilizedBy, mid.Stabilized),
		})
	}
	if mid.LimitedBy != "" {
		x.Clamps = append(x.Clamps, Clamp{
			Rule: mid.LimitedBy, From: mid.Stabilized, To: mid.Limited, Certain: low.LimitedBy == high.LimitedBy && low.Limited == high.Limited && low.Limited == mid.Limited,
			Message: x.word(in, mid.LimitedBy, mid.Limited),
		})
	}
}

// word says what a rule does.
func (x *Explanation) word(in *Input, rule string, to int) string {
	b := in.HPA.Spec.Behavior
	disabled := func(d *autoscalingv2.HPAScalingRules) bool {
		return d != nil && d.SelectPolicy != nil && *d.SelectPolicy == autoscalingv2.DisabledPolicySelect
	}
	switch rule {
	case "ScaleDownStabilized":
		window := in.Settings.DownscaleStabilization
		if b != nil && b.ScaleDown != nil && b.ScaleDown.StabilizationWindowSeconds != nil {
			window = time.Duration(*b.ScaleDown.StabilizationWindowSeconds) * time.Second
		}
		return fmt.Sprintf("the highest recommendation of the last %s counts, which gives %d", span(window), to)
	case "ScaleUpStabilized":
		window := time.Duration(0)
		if b != nil && b.ScaleUp != nil && b.ScaleUp.StabilizationWindowSeconds != nil {
			window = time.Duration(*b.ScaleUp.StabilizationWindowSeconds) * time.Second
		}
		return fmt.Sprintf("the lowest recommendation of the last %s counts, which gives %d", span(window), to)
	case "ScaleUpLimit":
		if b != nil && disabled(b.ScaleUp) {
			return "behavior.scaleUp.selectPolicy is Disabled"
		}
		return fmt.Sprintf("the rate of scaling up allows %d now", to)
	case "ScaleDownLimit":
		if b != nil && disabled(b.ScaleDown) {
			return "behavior.scaleDown.selectPolicy is Disabled"
		}
		return fmt.Sprintf("the rate of scaling down allows %d now", to)
	case "TooManyReplicas":
		return fmt.Sprintf("maxReplicas is %d", to)
	case "TooFewReplicas":
		return fmt.Sprintf("minReplicas is %d", to)
	}
	return rule
}

// span is a duration in seconds or, where it is whole, in minutes.
func span(d time.Duration) string {
	if d >= time.Minute && d%time.Minute == 0 {
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return strings.TrimSuffix(fmt.Sprintf("%g", d.Seconds()), ".0") + " s"
}

// remember says what of the controller's memory bears upon the count.
func (x *Explanation) remember(l *behavior.Limiter, low, high behavior.Outcome, known bool) {
	if low == high {
		return
	}
	if low.Stabilized != high.Stabilized || low.StabilizedBy != high.StabilizedBy {
		up, down, _ := l.Windows()
		window, which := down, "scaling down"
		if down == 0 {
			window, which = up, "scaling up"
		}
		x.Unknown = append(x.Unknown, fmt.Sprintf("the recommendations of the last %s, which stabilize %s: the controller keeps them in memory", span(window), which))
	}
	if !known {
		x.Unknown = append(x.Unknown, "how many pods were added and removed within the periods of spec.behavior: the controller keeps them in memory, and its events tell at most a part")
	}
}
