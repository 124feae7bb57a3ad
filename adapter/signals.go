package adapter

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluice-autoscaler/sluice/adapter/fetch/preset"
	"github.com/sluice-autoscaler/sluice/adapter/fetch/signal"
	"github.com/sluice-autoscaler/sluice/adapter/provider"
	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/prom"
)

// Workload is what signals of Prometheus are made for.
type Workload = signal.Workload

// Query is a query that a workload brings.
type Query = signal.Query

// noRules is why a signal is unknown where no Prometheus is configured.
const noRules = "no Prometheus is configured (--prometheus-url, --rules-config)"

// Declare says what object a workload is, and which queries of its own it has. It does nothing when
// that has not changed, and costs little then.
func (a *Adapter) Declare(ref loop.Ref, w Workload) {
	if a.signals != nil {
		a.signals.Declare(ref, w)
	}
}

// Signals appends a signal for each need of a workload. Those of requests are its sidecars', or, of
// a workload without them, its preset's; others are Prometheus'. It reads memory alone.
func (a *Adapter) Signals(now time.Time, ref loop.Ref, needs []algorithms.Need, dst []algorithms.Signal) []algorithms.Signal {
	from := len(dst)
	dst = a.store.Signals(now, ref, needs, dst)
	for i := range needs {
		s := &dst[from+i]
		if a.signals == nil {
			if s.Name != algorithms.Concurrency && s.Name != algorithms.Rate && s.Name != algorithms.Waiting && !slices.Contains(a.named, s.Name) {
				s.Source, s.Missing = "", noRules
			}
			continue
		}
		v, ok := a.signals.Signal(now, ref, needs[i])
		if !ok {
			continue
		}
		*s = algorithms.Signal{
			Name: s.Name, Window: s.Window, Value: v.Value, Known: v.Known, Age: v.Age, Coverage: v.Coverage, Source: sourcePrometheus, Missing: v.Missing,
		}
		if s.Name == algorithms.Concurrency {
			a.addHeld(now, ref, s)
		}
	}
	return dst
}

// byPods says that presets of pods give a signal, and no rule a metric of that name.
func (a *Adapter) byPods(namespace, name string) bool {
	if !slices.Contains(a.named, name) {
		return false
	}
	kinds := [...]schema.GroupResource{
		{},
		{Resource: "pods"},
		{Group: appsv1.GroupName, Resource: "deployments"},
		{Group: appsv1.GroupName, Resource: "statefulsets"},
		{Group: appsv1.GroupName, Resource: "replicasets"},
	}
	for _, k := range kinds {
		// While rules are not listed yet nobody knows.
		if made, err := a.engine.Makes(k, namespace, name); made || err != nil {
			return false
		}
	}
	return true
}

// sourcePrometheus is the source of signals that Prometheus' series make.
const sourcePrometheus = "prometheus"

// addHeld adds what gateways hold: it is demand as well, and no pod's proxy has seen it.
func (a *Adapter) addHeld(now time.Time, ref loop.Ref, s *algorithms.Signal) {
	var few [1]algorithms.Signal
	held := a.store.Signals(now, ref, []algorithms.Need{{Name: algorithms.Waiting, Window: s.Window}}, few[:0])[0]
	s.Value += held.Value
	s.Coverage = min(s.Coverage, held.Coverage)
	if !held.Known && s.Known {
		s.Known, s.Missing = false, "what gateways hold is not known"
	}
}

// podNames are the names of a workload's pods, the ready ones first.
func (a *Adapter) podNames(ref loop.Ref) (ready, others []string) {
	for _, p := range a.store.Instances(ref, nil) {
		if p.State == algorithms.PodReady {
			ready = append(ready, p.ID)
		} else {
			others = append(others, p.ID)
		}
	}
	return ready, others
}

// choose finds the preset of a workload, nil where it has none or has sidecars.
func (a *Adapter) choose(w Workload) (*preset.Choice, error) {
	if w.Kind.Group != appsv1.GroupName {
		return nil, nil //nolint:nilnil // no preset is no fault
	}
	for _, r := range []struct{ kind, resource string }{{"Deployment", "deployments"}, {"StatefulSet", "statefulsets"}, {"ReplicaSet", "replicasets"}} {
		if r.kind != w.Kind.Kind {
			continue
		}
		t, ok, err := a.objects.Get(schema.GroupResource{Group: appsv1.GroupName, Resource: r.resource}, w.Namespace, w.Name)
		if err != nil || !ok || t.Workload.Sidecar {
			return nil, err
		}
		return a.choice(w.Namespace, t)
	}
	return nil, nil //nolint:nilnil // no preset is no fault
}

func (a *Adapter) choice(namespace string, t provider.Target) (*preset.Choice, error) {
	of := prom.Workload{Namespace: namespace, Kind: t.Workload.Kind, Name: t.Name, Services: t.Services}
	return a.presets.Choose(of, t.Workload.Annotations, t.Workload.NamespaceAnnotations)
}

// presetValues serves presets to the metrics APIs.
type presetValues struct{ a *Adapter }

// Workload implements provider.Presets.
func (p presetValues) Workload(now time.Time, namespace string, t provider.Target, name string, window time.Duration) (v store.Value, ok bool) {
	v = store.Value{Window: window, Source: sourcePrometheus, Sources: 1}
	c, err := p.a.choice(namespace, t)
	switch {
	case err != nil:
		v.Missing = err.Error()
		return v, true
	case c == nil:
		return v, false
	case name == algorithms.Waiting:
		return v, true // gateways tell
	}
	got := p.a.signals.Object(now, c, algorithms.Need{Name: name, Window: window})
	v.Value, v.Known, v.Missing, v.At, v.Age, v.Coverage = got.Value, got.Known, got.Missing, got.At, got.Age, got.Coverage
	return v, true
}
