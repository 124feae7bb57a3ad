package benchscaler

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/api/v1alpha1"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/kube"
	"github.com/sluice-autoscaler/sluice/scaler/kube/path"
	"github.com/sluice-autoscaler/sluice/scaler/kube/queue"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// The controller under measurement is a process of its own: this program, started with these words.
const (
	wordRounds = "controller-rounds"
	wordWatch  = "controller-watch"
)

// MaybeController becomes the controller under measurement when the program was started as one. It
// is to be called early in main.
func MaybeController() {
	if len(os.Args) < 4 || os.Args[1] != wordRounds && os.Args[1] != wordWatch {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := runController(ctx, os.Args[1], os.Args[2], os.Args[3], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "controller:", err)
		os.Exit(1) //nolint:gocritic // a child's end
	}
	os.Exit(0)
}

// process is the scaler's half of the controller, put together from the same parts, with a
// generator of signals in the place of the adapter.
type process struct {
	manager manager.Manager
	rounds  *kube.Reconciler
	path    *path.Driver
	writes  *atomic.Int64
}

// countWrites counts the requests that change something.
type countWrites struct {
	next   http.RoundTripper
	writes *atomic.Int64
}

// RoundTrip implements http.RoundTripper.
func (c countWrites) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet {
		c.writes.Add(1)
	}
	return c.next.RoundTrip(r)
}

func assemble(ctx context.Context, kubeconfig string) (*process, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg.QPS, cfg.Burst = 200, 400 // the controller's defaults
	p := &process{writes: &atomic.Int64{}}
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return countWrites{next, p.writes} })
	cfg.Wrap(queue.Transport)
	log := slog.New(slog.DiscardHandler)
	klog.SetSlogLogger(log)
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	if p.manager, err = kube.NewManager(ctx, cfg, kube.ManagerOptions{}); err != nil {
		return nil, err
	}
	scales, err := scales(cfg, p.manager)
	if err != nil {
		return nil, err
	}
	journal := scaler.NewJournal()
	targets := kube.NewTargets(p.manager.GetClient(), scales, p.manager.GetRESTMapper(), nil)
	p.path = path.New(path.Options{Client: p.manager.GetClient(), Owner: "bench", Epoch: time.Now().UnixNano(), Log: log, Clock: time.Now})
	s := scaler.New(scaler.Options{
		Target: targets, Source: generator{}, Path: p.path, Sink: journal, Catalog: catalog.Default(), Timing: loop.DefaultTiming(),
		Clock: time.Now, Log: log, Metrics: prometheus.NewRegistry(),
	})
	p.rounds = kube.New(kube.Options{
		Client: p.manager.GetClient(), Scaler: s, Targets: targets, Register: kube.RegisterPath(p.path), Forget: p.path.Forget, Settle: p.path.Settle,
		Journal: journal, Recorder: p.manager.GetEventRecorder("sluice"), Log: log, Clock: time.Now,
	})
	return p, nil
}

func scales(cfg *rest.Config, m manager.Manager) (scale.ScalesGetter, error) {
	disco, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return nil, err
	}
	return scale.NewForConfig(cfg, m.GetRESTMapper(), dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(disco))
}

// generator is a scaler.Source whose signals are waves: each workload's goes from 10 to 40 requests
// and back within half an hour, from its own beginning, so that at ten a pod each changes its count
// six times in that time.
type generator struct{}

const wavePeriod = 30 * time.Minute

// Signals implements scaler.Source.
func (generator) Signals(now time.Time, ref loop.Ref, needs []algorithms.Need, dst []algorithms.Signal) []algorithms.Signal {
	h := fnv.New32a()
	_, _ = h.Write([]byte(ref.Namespace))
	_, _ = h.Write([]byte(ref.Name))
	at := float64(now.UnixNano()%int64(wavePeriod))/float64(wavePeriod) + float64(h.Sum32())/(1<<32)
	demand := 25 + 15*math.Sin(2*math.Pi*at)
	for _, n := range needs {
		s := algorithms.Signal{Name: n.Name, Window: n.Window, Value: demand, Known: true, Coverage: 1, Source: "generator"}
		if n.Name == algorithms.Waiting {
			s.Value = 0
		}
		dst = append(dst, s)
	}
	return dst
}

// Instances implements scaler.Source: the targets have no pods.
func (generator) Instances(_ loop.Ref, dst []loop.Instance) []loop.Instance { return dst }

func runController(ctx context.Context, word, kubeconfig, arg string, out io.Writer) error {
	p, err := assemble(ctx, kubeconfig)
	if err != nil {
		return err
	}
	if word == wordRounds {
		return p.measureRounds(ctx, arg, out)
	}
	watch, err := time.ParseDuration(arg)
	if err != nil {
		return err
	}
	return p.watch(ctx, watch, out)
}

// roundCost is what a round of one Autoscaler costs.
type roundCost struct {
	BytesPerRound float64 `json:"bytesPerRound"`
	NSPerRound    float64 `json:"nsPerRound"`
}

// measureRounds does rounds of one Autoscaler (namespace/name) while the others are in the cache.
func (p *process) measureRounds(ctx context.Context, key string, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.manager.GetCache().Start(ctx) }()
	if !p.manager.GetCache().WaitForCacheSync(ctx) {
		return fmt.Errorf("the cache did not start: %w", context.Cause(ctx))
	}
	namespace, name, _ := strings.Cut(key, "/")
	req := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}
	round := func(n int) error {
		for range n {
			if _, err := p.rounds.Reconcile(ctx, req); err != nil {
				return err
			}
		}
		return nil
	}
	const (
		batches, perBatch = 41, 100
		// apart spreads the batches over what the API server does now and then.
		apart = 100 * time.Millisecond
	)
	if err := round(10 * perBatch); err != nil { // its slice, its status: what is written once
		return err
	}
	var took, bytes []float64
	for range batches {
		time.Sleep(apart)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		if err := round(perBatch); err != nil {
			return err
		}
		took = append(took, float64(time.Since(began))/perBatch)
		runtime.ReadMemStats(&after)
		bytes = append(bytes, float64(after.TotalAlloc-before.TotalAlloc)/perBatch)
	}
	// The API server works on what was written before, on the same processors: the time is that of
	// the quietest tenth of the batches.
	slices.Sort(took)
	slices.Sort(bytes)
	cancel()
	if err := <-ended; err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(roundCost{BytesPerRound: bytes[batches/2], NSPerRound: took[batches/10]})
}

// load is what a number of Autoscalers cost.
type load struct {
	Cores           float64 `json:"cores"`
	RSSMiB          float64 `json:"rssMiB"`
	LagP50Ms        float64 `json:"lagP50Ms"`
	LagP99Ms        float64 `json:"lagP99Ms"`
	RoundsPerSecond float64 `json:"roundsPerSecond"`
	WritesPerSecond float64 `json:"writesPerSecond"`
}

// lags wraps rounds and notes how late each is: after the instant for which the one before asked.
type lags struct {
	reconcile.Reconciler
	mu     sync.Mutex
	due    map[types.NamespacedName]time.Time
	late   []time.Duration
	rounds int
}

// Reconcile implements reconcile.Reconciler.
func (l *lags) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	now := time.Now()
	l.mu.Lock()
	l.rounds++
	if due, ok := l.due[req.NamespacedName]; ok && !now.Before(due) {
		l.late = append(l.late, now.Sub(due))
	}
	l.mu.Unlock()
	res, err := l.Reconciler.Reconcile(ctx, req)
	if err == nil && res.RequeueAfter > 0 {
		l.mu.Lock()
		l.due[req.NamespacedName] = time.Now().Add(res.RequeueAfter)
		l.mu.Unlock()
	}
	return res, err
}

func (l *lags) take() (late []time.Duration, rounds int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	late, rounds = l.late, l.rounds
	l.late, l.rounds = nil, 0
	return late, rounds
}

// watch drives all Autoscalers; after everybody has had some rounds it measures for as long as it
// is told.
func (p *process) watch(ctx context.Context, span time.Duration, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &lags{Reconciler: p.rounds, due: map[types.NamespacedName]time.Time{}}
	if err := p.rounds.Drive(p.manager, l, make(chan event.GenericEvent)); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- p.manager.Start(ctx) }()
	pause := func(d time.Duration) error {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case err := <-ended:
			return fmt.Errorf("the manager ended: %w", err)
		}
	}
	if err := p.settle(ctx, l, pause); err != nil {
		return err
	}
	l.take()
	cpu, writes, began := cpuSeconds(), p.writes.Load(), time.Now()
	if err := pause(span); err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	late, rounds := l.take()
	rss, err := rssMiB()
	if err != nil {
		return err
	}
	slices.Sort(late)
	at := func(q float64) float64 {
		if len(late) == 0 {
			return 0
		}
		return late[int(q*float64(len(late)-1))].Seconds() * 1000
	}
	res := load{
		Cores: (cpuSeconds() - cpu) / took, RSSMiB: rss, LagP50Ms: at(0.5), LagP99Ms: at(0.99),
		RoundsPerSecond: float64(rounds) / took, WritesPerSecond: float64(p.writes.Load()-writes) / took,
	}
	cancel()
	if err := <-ended; err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(res)
}

// settle waits until every Autoscaler has had a round and a status that tells of it.
func (p *process) settle(ctx context.Context, l *lags, pause func(time.Duration) error) error {
	const quiet = 5 * time.Second
	for began := time.Now(); time.Since(began) < 10*time.Minute; {
		if err := pause(quiet); err != nil {
			return err
		}
		var all v1alpha1.AutoscalerList
		if err := p.manager.GetClient().List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
			return err
		}
		told := 0
		for i := range all.Items {
			if all.Items[i].Status.ObservedGeneration == all.Items[i].Generation {
				told++
			}
		}
		l.mu.Lock()
		seen := len(l.due)
		l.mu.Unlock()
		if seen == len(all.Items) && told == seen && seen > 0 {
			return pause(quiet)
		}
	}
	return fmt.Errorf("not every Autoscaler had a round and a status within ten minutes")
}

func cpuSeconds() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}

// rssMiB is the process's resident memory.
func rssMiB() (float64, error) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in /proc/self/status")
}
