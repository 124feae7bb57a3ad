// Package collect reads the sidecars of all pods and follows the reports of all gateways, and puts what they say into a store.
// Pods that have a container port named wire.MetricsPortName are read by HTTP at an interval; gateways send their reports on a
// stream that is held open.
package collect

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/internal/serve"
	"github.com/sluice-autoscaler/sluice/wire"
)

// Options configure a Collector. Pods, Store, Log and Registerer are needed.
type Options struct {
	// Pods is the informer of all pods; Strip may be its transform. Whoever made it runs it.
	Pods  cache.SharedIndexInformer
	Store *store.Store
	Log   *slog.Logger
	// Registerer takes the collector's own metrics, sluice_adapter_….
	Registerer prometheus.Registerer
	// Interval is how often each pod is read, 1 s–60 s. Lower follows demand sooner, at one request per pod and interval.
	Interval time.Duration
	// TokenFile, when not empty, holds the bearer token for gateways. It is read at each connection.
	TokenFile string
	// Heartbeat, when given, takes a beat each HeartbeatPeriod, from the loop that sweeps the store.
	Heartbeat *serve.Heartbeat
	// OnReport is told of each report of a gateway, at once, and of a stream that ended (not Connected then). It must return within
	// milliseconds, and is called by one goroutine per gateway. Urgent names the Services of which the report says something new.
	OnReport func(g store.Gateway, urgent []types.NamespacedName)
}

const (
	// firstRetry is the wait after the first failed read of a pod that was never read; it doubles up to the interval.
	firstRetry = 100 * time.Millisecond
	// maxReads bounds the reads at once.
	maxReads = 128
	// maxTimeout bounds a read's duration where the interval is long.
	maxTimeout = 5 * time.Second
)

// HeartbeatPeriod is how often the store drops what no window reaches. A sweep takes the store's lock, so whoever holds that
// for good stops the heartbeat as well.
const HeartbeatPeriod = 10 * time.Second

// Collector reads everything. It runs once.
type Collector struct {
	Options
	http    *http.Client
	streams *http.Client
	slots   chan struct{}
	metrics instruments
	tasks   sync.WaitGroup

	mu       sync.Mutex
	targets  map[types.UID]*target
	gateways map[types.UID]*target
}

// target is a pod that is read, or a gateway that is followed.
type target struct {
	address string
	cancel  context.CancelFunc
	// poke asks for a read at once.
	poke chan struct{}
	// ready, terminating and running are the pod's states that were last acted on.
	ready, terminating, running bool
}

type instruments struct {
	reads    *prometheus.CounterVec
	duration prometheus.Histogram
	reports  *prometheus.CounterVec
}

// New returns a Collector that has not started.
func New(o Options) (*Collector, error) {
	var errs []error
	if o.Interval < time.Second || o.Interval > time.Minute {
		errs = append(errs, fmt.Errorf("interval = %v: want 1s–1m", o.Interval))
	}
	if o.Pods == nil || o.Store == nil || o.Log == nil || o.Registerer == nil {
		errs = append(errs, errors.New("pods, store, log and registerer are needed"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("collector: %w", err)
	}
	if o.OnReport == nil {
		o.OnReport = func(store.Gateway, []types.NamespacedName) {}
	}
	c := &Collector{
		Options: o, slots: make(chan struct{}, maxReads),
		targets: map[types.UID]*target{}, gateways: map[types.UID]*target{},
		metrics: instruments{
			reads: prometheus.NewCounterVec(prometheus.CounterOpts{
				Name: "sluice_adapter_reads_total", Help: "Reads of pods' sidecars by result: ok, or what went wrong.",
			}, []string{"result"}),
			duration: prometheus.NewHistogram(prometheus.HistogramOpts{
				Name: "sluice_adapter_read_duration_seconds", Help: "Duration of reads of pods' sidecars, failed ones included.",
				Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
			}),
			reports: prometheus.NewCounterVec(prometheus.CounterOpts{
				Name: "sluice_adapter_gateway_reports_total", Help: "Reports received from gateways by result: ok, or what went wrong with a stream.",
			}, []string{"result"}),
		},
	}
	dial := &net.Dialer{Timeout: min(c.timeout(), 2*time.Second)}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext: dial.DialContext, DisableCompression: true, MaxIdleConnsPerHost: 1, IdleConnTimeout: 3 * o.Interval,
			MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c.streams = &http.Client{
		Transport: &http.Transport{
			DialContext: dial.DialContext, DisableCompression: true, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	gauge := func(name, help string, v func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, v)
	}
	for _, m := range []prometheus.Collector{
		c.metrics.reads, c.metrics.duration, c.metrics.reports,
		gauge("sluice_adapter_pods", "Pods known.", func() float64 { n, _ := o.Store.Size(); return float64(n) }),
		gauge("sluice_adapter_sources", "Pods and gateways of which readings are kept, recently deleted ones included.", func() float64 { _, n := o.Store.Size(); return float64(n) }),
		gauge("sluice_adapter_targets", "Pods that are being read.", func() float64 { c.mu.Lock(); defer c.mu.Unlock(); return float64(len(c.targets)) }),
	} {
		if err := o.Registerer.Register(m); err != nil {
			return nil, fmt.Errorf("collector: register metrics: %w", err)
		}
	}
	return c, nil
}

func (c *Collector) timeout() time.Duration { return min(c.Interval*9/10, maxTimeout) }

// Run collects until ctx ends, and returns when everything that it started has ended.
func (c *Collector) Run(ctx context.Context) error {
	defer c.http.CloseIdleConnections()
	defer c.tasks.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reg, err := c.Pods.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc:    func(obj any, initial bool) { c.see(ctx, podOf(obj), initial) },
		UpdateFunc: func(_, obj any) { c.see(ctx, podOf(obj), false) },
		DeleteFunc: func(obj any) { c.gone(podOf(obj)) },
	})
	if err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	defer c.Pods.RemoveEventHandler(reg) //nolint:errcheck // a handler that is not there any more is what is wanted
	// The loop below turns while the first list is awaited: an API server that is away is no fault of this process.
	c.tasks.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), reg.HasSynced) {
			c.Store.Synced()
		}
	})
	step := time.NewTicker(HeartbeatPeriod)
	defer step.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-step.C:
			if c.Heartbeat != nil {
				c.Heartbeat.Beat(now)
			}
			c.Store.Sweep(now)
		}
	}
}

// see takes a pod's new state. The informer calls it from one goroutine.
func (c *Collector) see(ctx context.Context, pod *corev1.Pod, initial bool) {
	if pod == nil || ctx.Err() != nil {
		return
	}
	if finished(pod) {
		c.gone(pod)
		return
	}
	now := time.Now()
	p := describe(pod, now, initial)
	c.Store.SetPod(now, p)
	if pod.Labels[wire.GatewayLabel] == wire.GatewayValue {
		c.seeGateway(ctx, now, pod)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.targets[p.UID]
	if p.MetricsPort == 0 || p.IP == "" {
		c.end(c.targets, p.UID)
		return
	}
	addr := address(p.IP, p.MetricsPort)
	if t == nil || t.address != addr {
		c.end(c.targets, p.UID)
		t = &target{address: addr, poke: make(chan struct{}, 1)}
		c.targets[p.UID] = t
		c.start(ctx, t, func(ctx context.Context) { c.readAll(ctx, t, p.Namespace, p.UID) })
	}
	ready, terminating := p.State == store.Ready, p.State == store.Terminating
	if ready && !t.ready || terminating && !t.terminating || p.Running && !t.running {
		select {
		case t.poke <- struct{}{}:
		default:
		}
	}
	t.ready, t.terminating, t.running = ready, terminating, p.Running
}

func (c *Collector) gone(pod *corev1.Pod) {
	if pod == nil {
		return
	}
	now := time.Now()
	c.mu.Lock()
	c.end(c.targets, pod.UID)
	c.end(c.gateways, pod.UID)
	c.mu.Unlock()
	c.Store.DeletePod(now, pod.Namespace, pod.UID)
	c.Store.DeleteGateway(now, pod.UID)
}

func (c *Collector) start(ctx context.Context, t *target, work func(context.Context)) {
	ctx, t.cancel = context.WithCancel(ctx)
	c.tasks.Go(func() { work(ctx) })
}

func (c *Collector) end(from map[types.UID]*target, uid types.UID) {
	if t := from[uid]; t != nil {
		t.cancel()
		delete(from, uid)
	}
}

// readAll reads one pod until ctx ends: at once, then quickly until it answers, then at the interval, at an offset of its own so that
// reads spread.
func (c *Collector) readAll(ctx context.Context, t *target, namespace string, uid types.UID) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(uid))
	phase := time.Duration(h.Sum64() % uint64(c.Interval))
	retry := firstRetry
	answered := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.poke:
			retry = firstRetry
		case <-timer.C:
		}
		select {
		case <-ctx.Done():
			return
		case c.slots <- struct{}{}:
		}
		began := time.Now()
		err := c.read(ctx, t.address, namespace, uid)
		<-c.slots
		if ctx.Err() != nil {
			return
		}
		c.metrics.duration.Observe(time.Since(began).Seconds())
		result, why := classify(err)
		c.metrics.reads.WithLabelValues(result).Inc()
		var wait time.Duration
		if err == nil {
			if !answered {
				c.Log.DebugContext(ctx, "pod answers", slog.String("namespace", namespace), slog.String("address", t.address))
			}
			answered = true
			if wait = (phase - time.Duration(began.UnixNano()%int64(c.Interval)) + c.Interval) % c.Interval; wait < c.Interval/4 {
				wait += c.Interval
			}
		} else {
			if answered {
				c.Log.WarnContext(ctx, "pod not read", slog.String("namespace", namespace), slog.String("address", t.address), slog.Any("error", err))
				answered, retry = false, firstRetry
			}
			c.Store.Failed(namespace, uid, why)
			wait, retry = min(retry, c.Interval), min(2*retry, c.Interval)
		}
		timer.Reset(wait)
	}
}

func (c *Collector) read(ctx context.Context, addr, namespace string, uid types.UID) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return fmt.Errorf("address %s: %w", addr, err)
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", "sluice-adapter")
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("read %s: %w", addr, err)
	}
	defer res.Body.Close() //nolint:errcheck // a read body: nothing is lost
	at := time.Now()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("read %s: %w", addr, statusError(res.StatusCode))
	}
	s, err := parse(res.Header, res.Body, at)
	if err != nil {
		return fmt.Errorf("read %s: %w", addr, err)
	}
	if !c.Store.AddSample(namespace, uid, s) {
		return fmt.Errorf("read %s: %w", addr, errOrder)
	}
	return nil
}

var errOrder = errors.New("the source's clock or start time went back")

// statusError is an HTTP status that is no answer.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("status %d", int(e)) }

// classify names an error for metrics, from a closed set, and for people.
func classify(err error) (result, why string) {
	var status statusError
	var timeout net.Error
	switch {
	case err == nil:
		return "ok", ""
	case errors.As(err, &status):
		return "status", "it answers " + status.Error()
	case errors.Is(err, errTooLarge):
		return "too_large", errTooLarge.Error()
	case errors.Is(err, errContent):
		return "content", "its port sluice-metrics is " + errContent.Error()
	case errors.Is(err, errOrder):
		return "order", errOrder.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused", "connection refused"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout", "no answer in time"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable", "no route to it"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset", "connection reset"
	}
	return "other", "its answer cannot be read"
}
