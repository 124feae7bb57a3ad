package demo

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/load"
	"github.com/sluice-autoscaler/sluice/wire"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

// metricWindow is over how long the shown concurrency is a mean. Short, so that people see it move.
const metricWindow = 5 * time.Second

// cluster is what a sample reads.
type cluster struct {
	*kit.Cluster
	namespace, name string
	// hpa tells which of the two scales.
	hpa bool
}

// observed is what one look at the cluster found. What could not be read is nil or empty.
type observed struct {
	replicas, ready *int
	concurrency     *float64
	phase           string
	coldStart       *ColdStart
}

// look reads everything at once, within a time that leaves a sample its second.
func (c cluster) look(ctx context.Context) observed {
	ctx, cancel := context.WithTimeout(ctx, 900*time.Millisecond)
	defer cancel()
	var o observed
	var wg sync.WaitGroup
	wg.Go(func() {
		if m, err := c.DeploymentMetric(ctx, c.namespace, c.name, "request_concurrency", metricWindow); err == nil {
			o.concurrency = &m.Value
		}
	})
	wg.Go(func() {
		if spec, ready, err := c.Replicas(ctx, c.namespace, c.name); err == nil {
			o.replicas, o.ready = new(int(spec)), new(int(ready))
		}
	})
	wg.Go(func() {
		if c.hpa {
			o.phase, _ = c.lookHPA(ctx)
			return
		}
		a, err := c.Autoscaler(ctx, c.namespace, c.name)
		if err != nil {
			return
		}
		o.phase = a.Status.Phase
		if start, ok := coldStart(a.Status.LastColdStart); ok {
			o.coldStart = &start
		}
	})
	wg.Wait()
	return o
}

// lookHPA tells what the HPA wants and whether it has a current value.
func (c cluster) lookHPA(ctx context.Context) (phase string, current bool) {
	h, err := c.Kube.AutoscalingV2().HorizontalPodAutoscalers(c.namespace).Get(ctx, c.name, metav1.GetOptions{})
	if err != nil {
		return "", false
	}
	for _, m := range h.Status.CurrentMetrics {
		if m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil && m.Object.Current.AverageValue != nil {
			return "HPA wants " + fmt.Sprint(h.Status.DesiredReplicas), true
		}
	}
	return "HPA waits", false
}

// stage is what the plan is at.
type stage struct {
	name string
	// start and shape give the wanted rate.
	start time.Time
	block block
	shape load.Shape
}

// held is what one gateway held: now, and at most since the last sample.
type held struct{ now, most int }

// watcher samples once a second and keeps what it saw. Its methods may be called concurrently.
type watcher struct {
	cluster   cluster
	generator *load.Generator
	out       printer
	start     time.Time
	act       int
	// lostBefore counts the requests that earlier acts lost.
	lostBefore int

	mu      sync.Mutex
	stage   stage
	samples []Sample
	starts  []ColdStart
	held    map[string]*held
	changed chan struct{} // closed at each sample, and replaced
}

func newWatcher(c cluster, g *load.Generator, out printer, start time.Time, act, lostBefore int) *watcher {
	return &watcher{cluster: c, generator: g, out: out, start: start, act: act, lostBefore: lostBefore, held: map[string]*held{}, changed: make(chan struct{})}
}

// enter tells the watcher what the plan is at: a block, or, with a name, a wait.
func (w *watcher) enter(name string, b block, shape load.Shape) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stage = stage{name: name, start: time.Now(), block: b, shape: shape}
}

// report takes what a gateway says of itself.
func (w *watcher) report(r wire.Report) {
	n := 0
	for _, p := range r.Ports {
		if p.Namespace == w.cluster.namespace && p.Service == w.cluster.name {
			n += p.Waiting
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.held[r.Gateway]
	if h == nil {
		h = &held{}
		w.held[r.Gateway] = h
	}
	h.now, h.most = n, max(h.most, n)
}

// mostHeld adds up what gateways held at most, and begins anew; nil before any has said something.
func (w *watcher) mostHeld() *int {
	if len(w.held) == 0 {
		return nil
	}
	n := 0
	for _, h := range w.held {
		n += h.most
		h.most = h.now
	}
	return &n
}

// run samples until ctx ends.
func (w *watcher) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	before, last := w.generator.Counts(), time.Now()
	w.out.header()
	for lines := 1; ; lines++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// Counts and the clock are read together, before the slower look at the cluster.
		now, counts := time.Now(), w.generator.Counts()
		o := w.cluster.look(ctx)
		if ctx.Err() != nil {
			return
		}
		s := w.sample(now, last, counts, before, o)
		before, last = counts, now
		w.out.sample(s)
		if lines%30 == 0 {
			w.out.header()
		}
	}
}

// sample makes a sample of two readings and keeps it.
func (w *watcher) sample(now, last time.Time, counts, before load.Counts, o observed) Sample {
	w.mu.Lock()
	defer w.mu.Unlock()
	seconds := now.Sub(last).Seconds()
	since := now.Sub(w.stage.start)
	name := w.stage.name
	if name == "" {
		name = w.stage.block.at(since)
	}
	s := Sample{
		At: now.Sub(w.start), Act: w.act, Stage: name,
		Wanted:   (w.stage.shape.Requests(since) - w.stage.shape.Requests(since-now.Sub(last))) / seconds,
		Sent:     float64(counts.Sent-before.Sent) / seconds,
		Answered: float64(counts.OK-before.OK) / seconds,
		InFlight: int(counts.InFlight), Lost: w.lostBefore + int(counts.Lost),
		Waiting: w.mostHeld(), Concurrency: o.concurrency, Replicas: o.replicas, Ready: o.ready, Phase: o.phase,
	}
	w.samples = append(w.samples, s)
	if o.coldStart != nil && !o.coldStart.Detected.Before(w.start) {
		last := len(w.starts) - 1
		if last >= 0 && w.starts[last].Detected.Equal(o.coldStart.Detected) {
			w.starts[last] = *o.coldStart // phases become known one by one
		} else {
			w.starts = append(w.starts, *o.coldStart)
		}
	}
	close(w.changed)
	w.changed = make(chan struct{})
	return s
}

// wait returns when a sample from now on is done, or ctx ends.
func (w *watcher) wait(ctx context.Context, done func(Sample) bool) error {
	w.mu.Lock()
	seen := len(w.samples)
	w.mu.Unlock()
	for {
		w.mu.Lock()
		changed, fresh := w.changed, w.samples[seen:]
		if slices.ContainsFunc(fresh, done) {
			w.mu.Unlock()
			return nil
		}
		seen = len(w.samples)
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// seen returns what was kept.
func (w *watcher) seen() (samples []Sample, starts []ColdStart) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.samples, w.starts
}
