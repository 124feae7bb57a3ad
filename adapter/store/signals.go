package store

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/sluice-autoscaler/sluice/adapter/reading"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/window"
)

// named is how many missing sources are named in words.
const named = 3

// missing is a source that is needed and does not report.
type missing struct {
	what, cause string
	since       time.Time
}

// Signals appends a signal for each need: what Workload answers. Needs that are no signal of ours are answered as unknown.
func (s *Store) Signals(now time.Time, namespace string, pods labels.Selector, services []string, needs []algorithms.Need, dst []algorithms.Signal) []algorithms.Signal {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, n := range needs {
		var t sum
		s.gather(&t, now, namespace, pods, services, n)
		dst = append(dst, algorithms.Signal{
			Name: n.Name, Window: n.Window, Value: t.Value(), Known: t.known(), Age: t.Age(), Coverage: t.coverage(), Source: t.source(),
		})
	}
	return dst
}

// Workload answers a signal: the concurrency of the selected pods and what gateways hold for the Services, the rate of the pods, or
// what gateways hold. The value is the sum of the sources' means. A source that is gone (its pod was deleted) contributes nothing
// from then on, one that was born within the window nothing before. A pod that was ready and whose container runs, or a gateway
// that holds for one of the Services, makes the value unknown when it was not heard of for longer than the stale bound; so
// does a window of which less than half is known. Value and Coverage are then those of the others.
func (s *Store) Workload(now time.Time, namespace string, pods labels.Selector, services []string, signal string, width time.Duration) reading.Value {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := sum{explain: true}
	s.gather(&t, now, namespace, pods, services, algorithms.Need{Name: signal, Window: width})
	return t.answer()
}

// Pods answers a signal pod by pod, by name, for every selected pod that is ready.
func (s *Store) Pods(now time.Time, namespace string, pods labels.Selector, signal string, width time.Duration) []reading.PodValue {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []reading.PodValue
	for _, src := range s.pods[namespace] {
		if !src.deleted.IsZero() || src.pod.State != Ready || !pods.Matches(src.pod.Labels) {
			continue
		}
		t := sum{explain: true, Total: window.Total{Now: now, Width: width}, need: algorithms.Need{Name: signal, Window: width}}
		if signal == algorithms.Waiting || !t.valid() {
			t.bad = true
		} else {
			s.addPod(&t, src)
			t.bad = src.read.IsZero()
		}
		out = append(out, reading.PodValue{Name: src.pod.Name, Labels: src.pod.Labels, Value: t.answer()})
	}
	slices.SortFunc(out, func(a, b reading.PodValue) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// sum gathers the sources of one answer.
type sum struct {
	window.Total
	need           algorithms.Need
	pods, gateways int
	// bad says that the signal does not exist.
	bad     bool
	explain bool
	missing []missing
}

func (t *sum) valid() bool {
	switch t.need.Name {
	case algorithms.Concurrency, algorithms.Waiting:
		return t.need.Window >= 0 && t.need.Window <= window.Longest
	case algorithms.Rate: // has no instant
		return t.need.Window > 0 && t.need.Window <= window.Longest
	}
	return false
}

func (t *sum) known() bool { return !t.bad && t.Known() }

func (t *sum) coverage() float64 {
	if t.bad {
		return 0
	}
	return t.Coverage()
}

func (t *sum) source() string {
	switch {
	case t.pods > 0 && t.gateways > 0:
		return "sidecar+gateway"
	case t.gateways > 0:
		return "gateway"
	}
	return "sidecar"
}

func (t *sum) answer() reading.Value {
	v := reading.Value{
		Value: t.Value(), Known: t.known(), At: t.Newest(), Age: t.Age(), Coverage: t.coverage(), Window: t.need.Window,
		Source: t.source(), Sources: t.pods + t.gateways,
	}
	if v.At.IsZero() && v.Known {
		v.At = t.Now // that there is nothing to read is what is known now
	}
	if !v.Known {
		v.Missing = t.words()
	}
	return v
}

// words says what is missing, in words that stay the same while it does, so that a cluster's events of them are one.
func (t *sum) words() string {
	if len(t.missing) == 0 {
		if t.bad {
			return "no readings"
		}
		return fmt.Sprintf("less than half of the last %v is known", t.need.Window)
	}
	slices.SortFunc(t.missing, func(a, b missing) int { return cmp.Or(a.since.Compare(b.since), strings.Compare(a.what, b.what)) })
	var parts []string
	for _, m := range t.missing[:min(named, len(t.missing))] {
		parts = append(parts, fmt.Sprintf("%s not read since %s (%s)", m.what, m.since.UTC().Format(time.RFC3339), m.cause))
	}
	if more := len(t.missing) - named; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, ", ")
}

// miss takes a source that is needed and was not heard of since an instant; counted says that Add took it too.
func (t *sum) miss(what, cause string, since time.Time, counted bool) {
	t.Miss(since, counted)
	if t.explain {
		t.missing = append(t.missing, missing{what: what, cause: cause, since: since})
	}
}

func (s *Store) gather(t *sum, now time.Time, namespace string, pods labels.Selector, services []string, need algorithms.Need) {
	t.Now, t.Width, t.need = now, need.Window, need
	if !t.valid() {
		t.bad = true
		return
	}
	if need.Name != algorithms.Rate && len(services) > 0 {
		s.addGateways(t, namespace, services)
	}
	if need.Name == algorithms.Waiting {
		return
	}
	for _, src := range s.pods[namespace] {
		if pods.Matches(src.pod.Labels) {
			s.addPod(t, src)
		}
	}
}

func (s *Store) addPod(t *sum, src *podSource) {
	k, instant := concurrencySum, src.last.InFlight
	if t.need.Name == algorithms.Rate {
		k = rateSum
	}
	if !src.deleted.IsZero() {
		t.Add(&src.series, k, false, 0)
		return
	}
	late := s.late(t.Now, src)
	live := late.IsZero() && !src.read.IsZero() && t.Now.Sub(src.read) <= s.opts.Stale
	if live || expected(&src.pod) {
		t.pods++
	}
	t.Add(&src.series, k, live, instant)
	if !late.IsZero() {
		t.miss("pod "+src.pod.Name, cause(src), late, !src.read.IsZero())
	}
}

func cause(src *podSource) string {
	switch {
	case src.pod.MetricsPort == 0:
		return "it has no port named sluice-metrics: add the sidecar"
	case src.cause != "":
		return src.cause
	}
	return "no answer"
}

// late returns since when a pod is missed, the zero time when it is not.
func (s *Store) late(now time.Time, src *podSource) time.Time {
	switch {
	case !expected(&src.pod):
	case src.read.Before(src.since): // not read since it became ready, or since its container came back
		if now.Sub(src.since) > s.opts.Interval+grace {
			return src.since
		}
	case now.Sub(src.read) > s.opts.Stale:
		return src.read
	}
	return time.Time{}
}

func (s *Store) addGateways(t *sum, namespace string, services []string) {
	held := 0
	for _, g := range s.gateways {
		fresh := g.deleted.IsZero() && t.Now.Sub(g.read) <= s.opts.GatewayStale
		holds := false
		for key, p := range g.ports {
			if key.namespace != namespace || !slices.Contains(services, key.service) {
				continue
			}
			holds = holds || p.held && g.deleted.IsZero()
			t.Add(&p.series, waitingSum, fresh && p.held, p.waiting)
		}
		if holds {
			held++
			if g.running && !fresh {
				t.miss("gateway "+g.gateway.Name, "no report", g.read, true)
			}
		}
	}
	if held == 0 {
		return
	}
	// Where others hold, one that never reported may as well.
	for _, g := range s.gateways {
		if g.running && g.gateway.Report == nil && t.Now.Sub(g.since) > s.opts.GatewayStale {
			held++
			t.miss("gateway "+g.gateway.Name, "it never reported", g.since, false)
		}
	}
	t.gateways += held
}
