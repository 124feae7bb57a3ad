// Package benchscaler measures what the scaler's rounds cost, on a real API server: one round among
// many Autoscalers, and many Autoscalers at once. The targets are paused Deployments, which have no
// pods; signals come from a generator.
//
// summary.json has
//
//	rounds       what a round of one Autoscaler with a Service costs among as many others:
//	             workloads, namespaces, bytesPerRound (bytes allocated, the median of
//	             batches), nsPerRound (wall time, that of the quietest tenth)
//	signals      what the adapter's store takes to answer for a workload of ten pods among as many
//	             pods: pods, namespaces, nsPerOp, bytesPerOp
//	autoscalers  what n Autoscalers that are asked every two seconds cost the scaler's process: cores,
//	             rssMiB, lagP50Ms and lagP99Ms (a round after the instant it was due),
//	             roundsPerSecond, writesPerSecond (requests to the API server that change something)
package benchscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

// Options say what to run.
type Options struct {
	Place kit.Place
	// Out is the folder for summary.json.
	Out string
	// Quick takes a tenth of the Autoscalers, and no goals.
	Quick bool
	// Watch is how long each number of Autoscalers is watched.
	Watch          time.Duration
	Stdout, Stderr io.Writer
}

// Round is one row of rounds.
type Round struct {
	Workloads  int `json:"workloads"`
	Namespaces int `json:"namespaces"`
	roundCost
}

// Signal is one row of signals.
type Signal struct {
	Pods       int     `json:"pods"`
	Namespaces string  `json:"namespaces"`
	NSPerOp    float64 `json:"nsPerOp"`
	BytesPerOp float64 `json:"bytesPerOp"`
}

// Load is one row of autoscalers.
type Load struct {
	N int `json:"n"`
	load
}

// Summary is what is written.
type Summary struct {
	Rounds      []Round  `json:"rounds"`
	Signals     []Signal `json:"signals"`
	Autoscalers []Load   `json:"autoscalers"`
}

// The goals of the whole measurement.
const (
	mostSpread = 1.5
	mostCores  = 1.0
	mostRSS    = 600.0
	mostLag    = 250.0
)

// Run measures all, prints it, and writes summary.json. It fails when a goal is missed.
func Run(ctx context.Context, o Options) error {
	ctrl.SetLogger(logr.FromSlogHandler(slog.DiscardHandler)) // the client's library asks for one
	scale := 1
	if o.Quick {
		scale = 10
	}
	var s Summary
	var err error
	if s.Signals, err = signals(ctx, o); err != nil {
		return err
	}
	err = o.cluster(ctx, "one namespace", false, func(b *bed) error {
		for _, step := range []struct {
			n             int
			rounds, watch bool
		}{{100, true, false}, {1000 / scale, true, true}, {3000 / scale, false, true}, {10000 / scale, true, true}} {
			if err := b.grow(ctx, step.n); err != nil {
				return err
			}
			if step.rounds {
				cost, err := b.rounds(ctx)
				if err != nil {
					return err
				}
				s.Rounds = append(s.Rounds, Round{b.n, 1, cost})
			}
			if step.watch {
				l, err := b.watch(ctx)
				if err != nil {
					return err
				}
				s.Autoscalers = append(s.Autoscalers, Load{b.n, l})
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = o.cluster(ctx, "a namespace each", true, func(b *bed) error {
		for _, n := range []int{100, 1000 / scale, 10000 / scale} {
			if err := b.grow(ctx, n); err != nil {
				return err
			}
			cost, err := b.rounds(ctx)
			if err != nil {
				return err
			}
			s.Rounds = append(s.Rounds, Round{b.n, b.n, cost})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := write(o.Out, s); err != nil {
		return err
	}
	missed := report(o.Stdout, s)
	fmt.Fprintf(o.Stdout, "wrote %s\n", filepath.Join(o.Out, "summary.json"))
	if o.Quick {
		return nil
	}
	return missed
}

func write(dir string, s Summary) error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // results for everybody
		return err
	}
	return os.WriteFile(filepath.Join(dir, "summary.json"), append(raw, '\n'), 0o644) //nolint:gosec // the same
}

// report prints the tables and returns the goals that were missed.
func report(w io.Writer, s Summary) error {
	var errs []error
	spread := func(what string, values []float64) {
		least, most := values[0], values[0]
		for _, v := range values {
			least, most = min(least, v), max(most, v)
		}
		if most > mostSpread*least {
			errs = append(errs, fmt.Errorf("%s: %.4g to %.4g, a factor of %.2f; want at most %.1f", what, least, most, most/least, mostSpread))
		}
	}
	fmt.Fprintf(w, "\none round among others\n%12s %12s %14s %12s\n", "workloads", "namespaces", "bytes/round", "µs/round")
	var bytes, took []float64
	for _, r := range s.Rounds {
		fmt.Fprintf(w, "%12d %12d %14.0f %12.1f\n", r.Workloads, r.Namespaces, r.BytesPerRound, r.NSPerRound/1000)
		bytes, took = append(bytes, r.BytesPerRound), append(took, r.NSPerRound)
	}
	if len(s.Rounds) > 0 {
		spread("bytes of a round", bytes)
		spread("time of a round", took)
	}
	fmt.Fprintf(w, "\nsignals of a workload of ten pods\n%12s %12s %14s %12s\n", "pods", "namespaces", "bytes/answer", "µs/answer")
	took = nil
	for _, r := range s.Signals {
		fmt.Fprintf(w, "%12d %12s %14.0f %12.1f\n", r.Pods, r.Namespaces, r.BytesPerOp, r.NSPerOp/1000)
		took = append(took, r.NSPerOp)
	}
	if len(took) > 0 {
		spread("time of an answer", took)
	}
	fmt.Fprintf(w, "\nAutoscalers, each asked every 2 s\n%8s %8s %10s %12s %12s %10s %10s\n", "n", "cores", "RSS MiB", "lag p50 ms", "lag p99 ms", "rounds/s", "writes/s")
	for _, r := range s.Autoscalers {
		fmt.Fprintf(w, "%8d %8.2f %10.0f %12.1f %12.1f %10.0f %10.1f\n", r.N, r.Cores, r.RSSMiB, r.LagP50Ms, r.LagP99Ms, r.RoundsPerSecond, r.WritesPerSecond)
		if r.Cores > mostCores || r.RSSMiB > mostRSS || r.LagP99Ms > mostLag {
			errs = append(errs, fmt.Errorf("%d Autoscalers: %.2f cores, %.0f MiB, lag p99 %.0f ms; want at most %.0f, %.0f, %.0f",
				r.N, r.Cores, r.RSSMiB, r.LagP99Ms, mostCores, mostRSS, mostLag))
		}
	}
	return errors.Join(errs...)
}

// signals runs the benchmark of the adapter's store.
func signals(ctx context.Context, o Options) ([]Signal, error) {
	fmt.Fprintln(o.Stdout, "the adapter's store")
	cmd := exec.CommandContext(ctx, "go", "test", "-run=^$", "-bench=^BenchmarkSignals$", "-benchmem", "-benchtime=300ms", "./adapter/store")
	cmd.Dir, cmd.Stderr = o.Place.Root, o.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("benchmark the store: %w: %s", err, out)
	}
	line := regexp.MustCompile(`pods=(\d+)/namespaces=(\w+)\S*\s+\d+\s+(\S+) ns/op\s+(\d+) B/op`)
	var all []Signal
	for _, m := range line.FindAllStringSubmatch(string(out), -1) {
		pods, _ := strconv.Atoi(m[1])
		ns, _ := strconv.ParseFloat(m[3], 64)
		bytes, _ := strconv.ParseFloat(m[4], 64)
		all = append(all, Signal{Pods: pods, Namespaces: m[2], NSPerOp: ns, BytesPerOp: bytes})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the store's benchmark printed no rows:\n%s", out)
	}
	return all, nil
}

// bed is a running control plane with n Autoscalers.
type bed struct {
	Options
	cluster *kit.Cluster
	client  client.Client
	each    bool // a namespace each
	n       int
}

func (o Options) cluster(ctx context.Context, what string, each bool, do func(*bed) error) (err error) {
	fmt.Fprintf(o.Stdout, "a control plane for Autoscalers in %s\n", what)
	c, err := kit.Start(ctx, o.Place, testbed.Options{Progress: o.Stderr})
	if err != nil {
		return err
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, c.Stop(stop))
	}()
	if err := c.ApplyFiles(ctx, filepath.Join(o.Place.Root, "deploy", "chart", "crds", "sluice.dev_autoscalers.yaml")); err != nil {
		return err
	}
	cfg, err := c.REST()
	if err != nil {
		return err
	}
	cfg.QPS, cfg.Burst = 2000, 4000
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	b := &bed{Options: o, cluster: c, each: each}
	err = testbed.WaitFor(ctx, time.Minute, "the Autoscaler's API", func(ctx context.Context) (string, bool) {
		if b.client, err = client.New(cfg, client.Options{Scheme: scheme}); err != nil {
			return err.Error(), false
		}
		if err := b.client.List(ctx, &v1alpha1.AutoscalerList{}); err != nil {
			return err.Error(), false
		}
		return "", true
	})
	if err != nil {
		return err
	}
	return do(b)
}

// grow makes Autoscalers with their targets until there are n.
func (b *bed) grow(ctx context.Context, n int) error {
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := b.n; i < n; i++ {
		g.Go(func() error { return b.add(ctx, i) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	b.n = n
	fmt.Fprintf(b.Stdout, "  %d Autoscalers after %v\n", n, time.Since(began).Round(time.Second))
	return nil
}

func (b *bed) key(i int) (namespace, name string) {
	name = fmt.Sprintf("web-%05d", i)
	if b.each {
		return "ns-" + name, name
	}
	return "bench", name
}

func (b *bed) add(ctx context.Context, i int) error {
	namespace, name := b.key(i)
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name}
	labels := map[string]string{"app": name}
	objects := []client.Object{
		// A paused Deployment that never ran has no ReplicaSet, and so no pods.
		&appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(1)), Paused: true, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "none"}}},
			},
		}},
		&v1alpha1.Autoscaler{ObjectMeta: meta, Spec: v1alpha1.AutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: name},
			MinReplicas:    new(int32(1)), MaxReplicas: 10,
			Signals: []v1alpha1.SignalSpec{{Name: "concurrency", Target: v1alpha1.SignalTarget{AverageValue: resource.MustParse("10")}}},
			Policy:  v1alpha1.PolicySpec{Name: "target"},
		}},
	}
	// the one whose rounds are measured may sleep: its rounds see and put a path as well
	if i == 0 {
		objects = append(objects, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
			ClusterIP: corev1.ClusterIPNone, Selector: labels, Ports: []corev1.ServicePort{{Name: "http", Port: 80}},
		}})
		objects[1].(*v1alpha1.Autoscaler).Spec.ServiceRef = &v1alpha1.ServiceReference{Name: name} //nolint:forcetypeassert // made above
	}
	if b.each || i == 0 {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
		if err := b.client.Create(ctx, ns); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	for _, o := range objects {
		if err := b.create(ctx, o); err != nil {
			return fmt.Errorf("create %T %s/%s: %w", o, namespace, name, err)
		}
	}
	return nil
}

// create makes an object; its namespace may be made by another goroutine just now.
func (b *bed) create(ctx context.Context, o client.Object) error {
	for {
		err := b.client.Create(ctx, o)
		if !apierrors.IsNotFound(err) || ctx.Err() != nil {
			return err
		}
	}
}

func (b *bed) rounds(ctx context.Context) (roundCost, error) {
	namespace, name := b.key(0)
	var out roundCost
	err := b.child(ctx, wordRounds, namespace+"/"+name, &out)
	return out, err
}

func (b *bed) watch(ctx context.Context) (load, error) {
	var out load
	err := b.child(ctx, wordWatch, b.Watch.String(), &out)
	return out, err
}

// child runs the controller under measurement.
func (b *bed) child(ctx context.Context, word, arg string, into any) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, word, b.cluster.Kubeconfig(), arg)
	cmd.Stderr = b.Stderr
	raw, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", word, err)
	}
	fmt.Fprintf(b.Stdout, "    %s %s\n", strings.TrimPrefix(word, "controller-"), strings.TrimSpace(string(raw)))
	return json.Unmarshal(raw, into)
}
