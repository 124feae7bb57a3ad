package horizontal

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/scaler/explain"
)

// Write writes the explanation for people.
func (x *Explanation) Write(w io.Writer, now time.Time) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-11s %s\n", name, explain.Printable(fmt.Sprintf(format, args...)))
	}
	b.WriteString(explain.Printable(x.Sentence) + "\n\n")
	if x.Target.Replicas != nil {
		line("target", "%s %s: %d asked for, %d there, %d to %d allowed", x.Target.Kind, x.Target.Name, *x.Target.Replicas, *x.Target.Existing, x.MinReplicas, x.MaxReplicas)
	}
	if p := x.Pods; p != nil {
		line("pods", "%d match %s: %d ready, %d not ready, %d pending, %d terminating, %d ended", p.Matched, x.Target.Selector, p.Ready, p.Unready, p.Pending, p.Terminating, p.Ended)
	}
	for i := range x.Metrics {
		x.Metrics[i].write(line)
	}
	if x.Recommended != nil {
		line("asked for", "%d, before all limits", *x.Recommended)
	}
	for _, c := range x.Clamps {
		sure := ""
		if !c.Certain {
			sure = " (a guess)"
		}
		line("rule", "%s: %d → %d: %s%s", c.Rule, c.From, c.To, c.Message, sure)
	}
	x.Controller.write(line, now)
	for _, t := range x.Troubles {
		writeTrouble(line, &t)
	}
	for _, u := range x.Unknown {
		line("unknown", "%s", u)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeTrouble(line func(name, format string, args ...any), t *Trouble) {
	if line("cause", "%s", t.Cause); t.Remedy != "" {
		line("remedy", "%s", t.Remedy)
	}
}

// write writes a metric.
func (m *Metric) write(line func(name, format string, args ...any)) {
	kind := m.Type
	if m.Wins {
		kind += ", wins"
	}
	if m.Trouble != nil {
		line("metric", "%s (%s): no value, target %s %s", m.subject(), kind, m.TargetType, m.Target)
		writeTrouble(line, m.Trouble)
		return
	}
	age := "of unknown age"
	if m.AgeSeconds != nil {
		age = time.Duration(*m.AgeSeconds*float64(time.Second)).Round(time.Second).String() + " old"
	}
	if m.WindowSeconds > 0 {
		age += fmt.Sprintf(", over %g s", m.WindowSeconds)
	}
	line("metric", "%s (%s): %s, target %s %s, %s", m.subject(), kind, m.Value, m.TargetType, m.Target, age)
	var parts []string
	if m.Series > 1 {
		parts = append(parts, strconv.Itoa(m.Series)+" values added up")
	}
	if m.FirstRatio != nil {
		parts = append(parts, fmt.Sprintf("ratio %.4g", *m.FirstRatio))
	}
	if m.MissingPods > 0 {
		names := strings.Join(m.Missing, ", ")
		if m.MissingPods > len(m.Missing) {
			names += ", …"
		}
		parts = append(parts, fmt.Sprintf("%s without a value (%s)", counted(m.MissingPods, "pod", "pods"), names))
	}
	if m.UnreadyPods > 0 {
		parts = append(parts, counted(m.UnreadyPods, "pod", "pods")+" unready or too young to count")
	}
	if m.FirstRatio != nil && *m.Ratio != *m.FirstRatio {
		parts = append(parts, fmt.Sprintf("with them the ratio is %.4g", *m.Ratio))
	}
	switch {
	case m.Tolerated:
		parts = append(parts, fmt.Sprintf("within the tolerance of %.4g to %.4g", 1-m.ToleranceDown, 1+m.ToleranceUp))
	case m.Turned:
		parts = append(parts, "what was filled in would turn the direction")
	}
	if m.Replicas != nil {
		parts = append(parts, fmt.Sprintf("asks for %d", *m.Replicas))
	}
	line("", "%s", strings.Join(parts, "; "))
}

// write writes what the controller said last.
func (c *Controller) write(line func(name, format string, args ...any), now time.Time) {
	if len(c.Conditions) == 0 {
		line("controller", "has not looked at it yet")
		return
	}
	scaled := "never scaled it"
	if c.LastScaleTime != nil {
		scaled = "last scaled it " + now.Sub(*c.LastScaleTime).Round(time.Second).String() + " ago"
	}
	written := ""
	if c.Written != nil {
		written = ", wrote this " + now.Sub(*c.Written).Round(time.Second).String() + " ago"
	}
	line("controller", "had %d, wanted %d, %s%s", c.CurrentReplicas, c.DesiredReplicas, scaled, written)
	for _, k := range c.Conditions {
		line("", "%s is %s, %s: %s", k.Type, k.Status, k.Reason, k.Message)
	}
}
