// Package total adds up what several sources tell of one signal, and says what is missing.
package total

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

// Value is one signal of a workload or a pod over a window.
type Value struct {
	// Value is the total, in the signal's unit; meaningless unless Known.
	Value float64
	// Known is false when the value must not be acted on; Missing then says in a few words what is
	// missing, for people.
	Known   bool
	Missing string
	// At is the instant of the newest reading behind it; Age how old the stalest source's newest
	// reading is.
	At  time.Time
	Age time.Duration
	// Coverage is the share of expected sources × window time that reported, 0–1.
	Coverage float64
	// Window is the time over which Value is the mean.
	Window time.Duration
	// Source names where it came from.
	Source string
	// Sources is how many sources (pods, gateways) it was expected from.
	Sources int
}

// named is how many missing sources are named in words.
const named = 3

// missing is a source that is needed and does not report.
type missing struct {
	what, cause string
	since       time.Time
}

// Sum adds the sources of one answer up.
type Sum struct {
	window.Total
	// Need is what is asked for, Pods and Gateways how many sources it is expected from.
	Need           algorithms.Need
	Pods, Gateways int
	// sources are where pods' values come from, joined by +; "" is sidecars.
	sources string
	// ratio says that the signal is the quotient of Total and per.
	ratio bool
	per   window.Total
	// named says that presets give a signal of the name.
	named bool
	// Bad says that the signal does not exist, Explain that Answer is to say what is missing.
	Bad, Explain bool
	missing      []missing
}

// Begin sets what is asked for; named says that presets give a signal of the name.
func (t *Sum) Begin(now time.Time, need algorithms.Need, named bool) {
	t.Now, t.Width, t.Need, t.named = now, need.Window, need, named
	t.Bad = !t.valid()
}

// From notes where a pod's value comes from.
func (t *Sum) From(source string) {
	switch {
	case source == "" || t.sources == source:
	case t.sources == "":
		t.sources = source
	case !slices.Contains(strings.Split(t.sources, "+"), source):
		t.sources += "+" + source
	}
}

// SetRatio says whether the next source's values are quotients of two counters. A mean of quotients
// and of others is none.
func (t *Sum) SetRatio(ratio bool) {
	if ratio != t.ratio {
		t.Bad = t.Bad || t.sources != ""
		t.ratio = ratio
	}
}

// AddSeries takes a source's series: its first counter, and for a quotient the second too.
func (t *Sum) AddSeries(series *window.Series, live bool, instant float64) {
	t.Add(series, 0, live, instant)
	if t.ratio {
		t.per.Now, t.per.Width = t.Now, t.Width
		t.per.Add(series, 1, live, 0)
	}
}

// value is the sum of the sources' means, or their quotient.
func (t *Sum) value() float64 {
	if !t.ratio {
		return t.Value()
	}
	if t.per.Value() > 0 {
		return t.Value() / t.per.Value()
	}
	return 0 // unknown
}

// Signal is the sum as the scaler takes it.
func (t *Sum) Signal() algorithms.Signal {
	return algorithms.Signal{
		Name: t.Need.Name, Window: t.Need.Window, Value: t.value(), Known: t.known(), Age: t.Age(),
		Coverage: t.coverage(), Source: t.source(),
	}
}

func (t *Sum) valid() bool {
	switch t.Need.Name {
	case algorithms.Concurrency, algorithms.Waiting:
		return t.Need.Window >= 0 && t.Need.Window <= window.Longest
	case algorithms.Rate: // has no instant
		return t.Need.Window > 0 && t.Need.Window <= window.Longest
	}
	return t.named && t.Need.Window >= 0 && t.Need.Window <= window.Longest
}

// ReadsPods says that pods are sources of the signal.
func (t *Sum) ReadsPods() bool { return !t.Bad && t.Need.Name != algorithms.Waiting }

// ReadsGateways says that gateways are.
func (t *Sum) ReadsGateways() bool {
	return !t.Bad && (t.Need.Name == algorithms.Concurrency || t.Need.Name == algorithms.Waiting)
}

func (t *Sum) known() bool {
	return !t.Bad && t.Known() && (!t.ratio || t.per.Value() > 0)
}

func (t *Sum) coverage() float64 {
	if t.Bad {
		return 0
	}
	return t.Coverage()
}

func (t *Sum) source() string {
	pods := cmp.Or(t.sources, "sidecar")
	switch {
	case t.Pods > 0 && t.Gateways > 0 && pods == "sidecar":
		return "sidecar+gateway" // costs no allocation
	case t.Pods > 0 && t.Gateways > 0:
		return pods + "+gateway"
	case t.Gateways > 0:
		return "gateway"
	}
	return pods
}

// Answer is the sum as the metrics APIs take it.
func (t *Sum) Answer() Value {
	v := Value{
		Value: t.value(), Known: t.known(), At: t.Newest(), Age: t.Age(), Coverage: t.coverage(), Window: t.Need.Window,
		Source: t.source(), Sources: t.Pods + t.Gateways,
	}
	if v.At.IsZero() && v.Known {
		v.At = t.Now // that there is nothing to read is what is known now
	}
	if !v.Known {
		v.Missing = t.words()
	}
	return v
}

// words says what is missing, in words that stay the same while it does, so that a cluster's events
// of them are one.
func (t *Sum) words() string {
	if len(t.missing) == 0 {
		switch {
		case t.Bad:
			return "no readings"
		case t.ratio && t.Known():
			return fmt.Sprintf("nothing was counted in the last %v", t.Need.Window)
		}
		return fmt.Sprintf("less than half of the last %v is known", t.Need.Window)
	}
	slices.SortFunc(t.missing, func(a, b missing) int {
		return cmp.Or(a.since.Compare(b.since), strings.Compare(a.what, b.what))
	})
	var parts []string
	for _, m := range t.missing[:min(named, len(t.missing))] {
		parts = append(parts, fmt.Sprintf("%s not read since %s (%s)", m.what, m.since.UTC().Format(time.RFC3339), m.cause))
	}
	if more := len(t.missing) - named; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, ", ")
}

// MissSource takes a source that is needed and was not heard of since an instant; counted says that
// Add took it too.
func (t *Sum) MissSource(kind, name, cause string, since time.Time, counted bool) {
	t.Miss(since, counted)
	if t.Explain {
		t.missing = append(t.missing, missing{what: kind + " " + name, cause: cause, since: since})
	}
}
