package scrape_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sluice-autoscaler/sluice/adapter/discover"
	"github.com/sluice-autoscaler/sluice/adapter/scrape"
	"github.com/sluice-autoscaler/sluice/adapter/store"
	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait; nothing here takes near as long.
const patience = 20 * time.Second

// sidecar answers like one, with n requests in flight since its start.
type sidecar struct {
	*httptest.Server
	start time.Time
	reads atomic.Int64
	// fail, when not nil, answers instead.
	fail atomic.Pointer[http.HandlerFunc]
}

func newSidecar(t *testing.T, n float64) *sidecar {
	t.Helper()
	s := &sidecar{start: time.Now()}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.reads.Add(1)
		if f := s.fail.Load(); f != nil {
			(*f)(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprint(w, exposition(float64(s.start.UnixMilli())/1000, time.Since(s.start).Seconds(), n))
	}))
	t.Cleanup(s.Close)
	return s
}

func exposition(start, mono, n float64) string {
	return fmt.Sprintf("# TYPE %s counter\n%s %v\n# TYPE %s counter\n%s{code=\"2xx\"} %v\n%s{code=\"5xx\"} 1\n# TYPE %s gauge\n%s %v\n%s %v\n%s %v\n",
		wire.ConcurrencySeconds, wire.ConcurrencySeconds, n*mono, wire.Requests, wire.Requests, 4*mono, wire.Requests,
		wire.InFlight, wire.InFlight, n, wire.MonotonicSeconds, mono, wire.StartTime, start)
}

// cluster is a fake one with a discoverer and a scraper at work.
type cluster struct {
	*fake.Clientset
	store *store.Store
	reg   *prometheus.Registry
}

func newCluster(t *testing.T, onReport func(wire.Gateway, []types.NamespacedName), pods ...*corev1.Pod) *cluster {
	t.Helper()
	return newClusterWith(t, scrape.Options{OnReport: onReport}, nil, pods...)
}

func newClusterWith(t *testing.T, o scrape.Options, onImpostor func(*corev1.Pod), pods ...*corev1.Pod) *cluster {
	t.Helper()
	c := &cluster{Clientset: fake.NewClientset(), reg: prometheus.NewRegistry()}
	so := store.Options{Interval: time.Second}
	if o.Presets != nil {
		so.Signals = o.Presets.Signals()
	}
	c.store = store.New(so)
	for _, p := range pods {
		c.put(t, p)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(c, 0, informers.WithTransform(discover.Strip))
	o.Store, o.Log, o.Registerer, o.Interval = c.store, slog.New(slog.DiscardHandler), c.reg, time.Second
	s, err := scrape.New(o)
	if err != nil {
		t.Fatal(err)
	}
	d, err := discover.New(discover.Options{
		Pods: factory.Core().V1().Pods().Informer(), Sink: s, Log: o.Log, GatewayNamespace: "ns", GatewayServiceAccount: "sluice-gateway",
		OnImpostor: onImpostor, Presets: o.Presets,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.StartWithContext(ctx)
	done := make(chan error, 2)
	go func() { done <- s.Run(ctx) }()
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
		factory.Shutdown()
	})
	return c
}

func (c *cluster) put(t *testing.T, p *corev1.Pod) {
	t.Helper()
	api := c.CoreV1().Pods(p.Namespace)
	if _, err := api.Update(context.Background(), p, metav1.UpdateOptions{}); err == nil {
		return
	}
	if _, err := api.Create(context.Background(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) value() (float64, bool, string) {
	v := c.store.Workload(time.Now(), "ns", labels.SelectorFromSet(labels.Set{"app": "web"}), nil, algorithms.Concurrency, 2*time.Second)
	return v.Value, v.Known, v.Missing
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			t.Fatalf("%s: not within %v", what, patience)
		case <-tick.C:
		}
	}
}

// newPod is ready and has a port on which the server listens; in a native sidecar, as our manifests
// have it.
func newPod(t *testing.T, name, server, portName string) *corev1.Pod {
	t.Helper()
	host, port, err := net.SplitHostPort(strings.TrimPrefix(server, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	always := corev1.ContainerRestartPolicyAlways
	now := metav1.Now()
	up := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), Labels: map[string]string{"app": "web"}, CreationTimestamp: now, Annotations: map[string]string{"big": "x"}},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "sidecar", RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: portName, ContainerPort: int32(number)}}}},
			Containers:     []corev1.Container{{Name: "app", Image: "app"}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: host,
			Conditions:            []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}, {Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now}},
			ContainerStatuses:     []corev1.ContainerStatus{{Name: "app", State: up}},
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "sidecar", State: up}},
		},
	}
}

func TestPodsAreReadExactly(t *testing.T) {
	t.Parallel()
	a, b := newSidecar(t, 3), newSidecar(t, 4)
	c := newCluster(t, nil, newPod(t, "a", a.URL, wire.MetricsPortName))
	eventually(t, "ready", func() bool { return c.store.Ready() == nil })
	c.put(t, newPod(t, "b", b.URL, wire.MetricsPortName))
	eventually(t, "both read for the whole window", func() bool {
		v, known, _ := c.value()
		return known && a.reads.Load() > 3 && b.reads.Load() > 3 && v > 6.99 && v < 7.01
	})
	if n, err := testutil.GatherAndCount(c.reg, "sluice_adapter_reads_total", "sluice_adapter_read_duration_seconds", "sluice_adapter_sources"); err != nil || n != 3 {
		t.Errorf("the collector's own metrics: %d series, %v: want one of each", n, err)
	}
	if problems, err := testutil.GatherAndLint(c.reg); err != nil || len(problems) > 0 {
		t.Errorf("the collector's own metrics: %v, %v", problems, err)
	}
}

// A pod that does not answer yet is tried much faster than the interval.
func TestFirstAnswerIsNotWaitedForByInterval(t *testing.T) {
	t.Parallel()
	s := newSidecar(t, 1)
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	s.fail.Store(&refuse)
	c := newCluster(t, nil, newPod(t, "a", s.URL, wire.MetricsPortName))
	began := time.Now()
	eventually(t, "three tries", func() bool { return s.reads.Load() >= 3 })
	if took := time.Since(began); took > 900*time.Millisecond {
		t.Errorf("three tries took %v, want well under the interval", took)
	}
	s.fail.Store(nil)
	eventually(t, "an answer", func() bool {
		return len(c.store.Pods(time.Now(), "ns", labels.Everything(), algorithms.Concurrency, 0)) == 1
	})
}

func TestUnreadablePodsMakeItUnknownAndSayWhy(t *testing.T) {
	t.Parallel()
	answer := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
	}
	tests := map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"status":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, "status 404"},
		"garbage":   {answer("}{"), "cannot be read"},
		"empty":     {answer(""), "no source of concurrency"},
		"not ours":  {answer("go_goroutines 5\n"), "no source of concurrency"},
		"NaN":       {answer(exposition(1, 1, 1) + wire.Queued + " NaN\n"), "no source of concurrency"},
		"too large": {answer(strings.Repeat("# a comment\n", 1<<17)), "larger than"},
		"silence":   {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "no answer in time"},
		"redirect":  {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) }, "status 302"},
	}
	var wg sync.WaitGroup
	for name, tt := range tests {
		s := newSidecar(t, 1)
		s.fail.Store(&tt.answer)
		c := newCluster(t, nil, newPod(t, "a", s.URL, wire.MetricsPortName))
		wg.Go(func() {
			eventually(t, name, func() bool {
				_, known, missing := c.value()
				return !known && strings.Contains(missing, tt.want)
			})
		})
	}
	wg.Wait()
}

func TestLastReadWhenAPodBeginsToTerminate(t *testing.T) {
	t.Parallel()
	s := newSidecar(t, 1)
	p := newPod(t, "a", s.URL, wire.MetricsPortName)
	c := newCluster(t, nil, p)
	eventually(t, "read", func() bool { return s.reads.Load() >= 1 })
	p = p.DeepCopy()
	now := metav1.Now()
	p.DeletionTimestamp = &now
	n := s.reads.Load()
	c.put(t, p)
	eventually(t, "read again", func() bool { return s.reads.Load() > n })
	eventually(t, "terminating", func() bool {
		l := c.store.List("ns", labels.Everything())
		return len(l) == 1 && l[0].State == algorithms.PodTerminating
	})
	if err := c.CoreV1().Pods("ns").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "gone", func() bool { return len(c.store.List("ns", labels.Everything())) == 0 })
}

// gateway streams whatever is put into its channel, to one client at a time.
func newGateway(t *testing.T) (url string, reports chan wire.Report, cut chan struct{}) {
	t.Helper()
	reports, cut = make(chan wire.Report), make(chan struct{})
	srv := httptest.NewServer(stream(reports, cut))
	t.Cleanup(srv.Close)
	return srv.URL, reports, cut
}

// stream answers with the reports that come.
func stream(reports <-chan wire.Report, cut <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != wire.ReportsPath {
			http.NotFound(w, r)
			return
		}
		_ = http.NewResponseController(w).Flush()
		enc := json.NewEncoder(w)
		for {
			select {
			case rep := <-reports:
				_ = enc.Encode(rep)
				_ = http.NewResponseController(w).Flush()
			case <-cut:
				return
			case <-r.Context().Done():
				return
			}
		}
	})
}

// asGateway makes a pod one of the release's gateways.
func asGateway(p *corev1.Pod) {
	p.Labels[wire.GatewayLabel], p.Spec.ServiceAccountName = wire.GatewayValue, "sluice-gateway"
}

func TestGatewayStream(t *testing.T) {
	t.Parallel()
	url, reports, cut := newGateway(t)
	p := newPod(t, "gw", url, wire.ControlPortName)
	asGateway(p)
	type news struct {
		Connected bool
		Urgent    string
	}
	heard := make(chan news, 100)
	c := newCluster(t, func(g wire.Gateway, urgent []types.NamespacedName) {
		heard <- news{g.Connected, fmt.Sprint(urgent)}
	}, p)
	expect := func(what string, want news) {
		t.Helper()
		select {
		case got := <-heard:
			if got != want {
				t.Errorf("%s: heard %+v, want %+v", what, got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%s: nothing heard", what)
		}
	}
	rep := wire.Report{Gateway: "gw", StartTime: 1000, Monotonic: 1}
	say := func(ports ...wire.PortReport) {
		t.Helper()
		rep.Monotonic++
		rep.Ports = ports
		select {
		case reports <- rep:
		case <-time.After(patience):
			t.Fatal("the gateway is not connected")
		}
	}
	web := wire.PortReport{Namespace: "ns", Service: "web", PortName: "http", Listening: true}
	say()
	expect("nothing assigned", news{true, "[]"})
	say(web)
	expect("a port opened", news{true, "[ns/web]"})
	say(web)
	expect("nothing new", news{true, "[]"})
	held := web
	held.Waiting, held.WaitingSeconds = 2, 0.5
	say(held)
	expect("requests are held", news{true, "[ns/web]"})
	eventually(t, "held requests are demand", func() bool {
		v := c.store.Workload(time.Now(), "ns", labels.Everything(), []string{"web"}, algorithms.Waiting, algorithms.Instant)
		return v.Known && v.Value == 2
	})
	woken := web
	woken.WaitingSeconds, woken.ReadyPods = 1, 1
	say(woken)
	expect("a pod takes requests", news{true, "[ns/web]"})
	cut <- struct{}{}
	expect("the stream ended", news{false, "[ns/web]"})
	if gs := c.store.Gateways(); len(gs) != 1 || gs[0].Control != strings.TrimPrefix(url, "http://") || gs[0].Report == nil {
		t.Errorf("Gateways = %+v: want the one at %s with its last report", gs, url)
	}
	say(woken)
	expect("after the reconnect everything is news", news{true, "[ns/web]"})
	if !c.store.Gateways()[0].Connected {
		t.Error("the gateway does not count as connected")
	}
}

func TestNewReportsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := scrape.New(scrape.Options{Interval: time.Hour})
	if err == nil || !strings.Contains(err.Error(), "1s–1m") || !strings.Contains(err.Error(), "needed") {
		t.Errorf("New = %v: want both faults", err)
	}
}

// newTLS returns what a gateway shows and what a client takes for one: a certificate of its own.
func newTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	return &tls.Config{Certificates: srv.TLS.Certificates, MinVersion: tls.VersionTLS13}, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
}

// A gateway's stream is TLS, by what the client's configuration is when it connects.
func TestGatewayStreamByTLS(t *testing.T) {
	t.Parallel()
	reports := make(chan wire.Report)
	srv := httptest.NewUnstartedServer(stream(reports, nil))
	var client *tls.Config
	srv.TLS, client = newTLS(t)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	p := newPod(t, "gw", strings.Replace(srv.URL, "https", "http", 1), wire.ControlPortName)
	asGateway(p)
	var current atomic.Pointer[tls.Config]
	asked := make(chan struct{}, 1)
	c := newClusterWith(t, scrape.Options{TLS: func() *tls.Config {
		select {
		case asked <- struct{}{}:
		default:
		}
		return current.Load()
	}}, nil, p)
	<-asked // there is no certificate yet, and no connection
	if gs := c.store.Gateways(); len(gs) != 1 || gs[0].Connected {
		t.Errorf("Gateways = %+v, want one that is not connected", gs)
	}
	current.Store(client)
	select {
	case reports <- wire.Report{Gateway: "gw", StartTime: 1000, Monotonic: 1}:
	case <-time.After(patience):
		t.Fatal("no stream with the certificate")
	}
	eventually(t, "connected", func() bool { return c.store.Gateways()[0].Connected })
}

// A pod that looks like a gateway in another namespace, or of another ServiceAccount, gets no
// connection, and nothing that it would report counts.
func TestImpostorIsNeverConnectedTo(t *testing.T) {
	t.Parallel()
	var connections atomic.Int64
	attack := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		connections.Add(1)
		_ = json.NewEncoder(w).Encode(wire.Report{Gateway: "gw", StartTime: 1, Monotonic: 1, Ports: []wire.PortReport{{
			Namespace: "ns", Service: "web", PortName: "http", Listening: true, Waiting: 1000,
		}}})
	}))
	t.Cleanup(attack.Close)
	far := newPod(t, "far", attack.URL, wire.ControlPortName)
	asGateway(far)
	far.Namespace = "attacker"
	near := newPod(t, "near", attack.URL, wire.ControlPortName)
	asGateway(near)
	near.Spec.ServiceAccountName = "default"
	url, reports, _ := newGateway(t)
	real := newPod(t, "real", url, wire.ControlPortName)
	asGateway(real)
	told := make(chan string, 10)
	c := newClusterWith(t, scrape.Options{}, func(p *corev1.Pod) { told <- p.Namespace + "/" + p.Name }, far, near, real)
	eventually(t, "listed", func() bool { return c.store.Ready() == nil })
	for i := range 3 { // events about them change nothing
		for _, p := range []*corev1.Pod{far, near} {
			p = p.DeepCopy()
			p.Labels["turn"] = fmt.Sprint(i)
			c.put(t, p)
		}
	}
	eventually(t, "all events seen", func() bool { // by the pods' labels
		sel := labels.SelectorFromSet(labels.Set{"turn": "2"})
		return len(c.store.List("attacker", sel)) == 1 && len(c.store.List("ns", sel)) == 1
	})
	for i := range 3 { // the real one is followed meanwhile
		select {
		case reports <- wire.Report{Gateway: "real", StartTime: 1000, Monotonic: float64(i + 1)}:
		case <-time.After(patience):
			t.Fatal("the real gateway is not connected")
		}
	}
	if gs := c.store.Gateways(); len(gs) != 1 || gs[0].Name != "real" {
		t.Errorf("Gateways = %+v, want the real one alone", gs)
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections to pods that only look like gateways", n)
	}
	if v := c.store.Workload(time.Now(), "ns", labels.Nothing(), []string{"web"}, algorithms.Waiting, algorithms.Instant); v.Value != 0 || v.Sources != 0 {
		t.Errorf("waiting = %+v, want nothing from impostors", v)
	}
	got := []string{<-told, <-told}
	slices.Sort(got)
	if d := cmp.Diff([]string{"attacker/far", "ns/near"}, got); d != "" || len(told) != 0 {
		t.Errorf("told of (-want +got), and %d more:\n%s", len(told), d)
	}
}

// Reports whose numbers cannot be true end the stream, count as such, and change nothing.
func TestHostileReports(t *testing.T) {
	t.Parallel()
	port := func(change func(*wire.PortReport)) wire.Report {
		p := wire.PortReport{Namespace: "ns", Service: "web", PortName: "http", Listening: true}
		change(&p)
		return wire.Report{StartTime: 1000, Monotonic: 3, Ports: []wire.PortReport{p}}
	}
	for name, hostile := range map[string]wire.Report{
		"negative waiting":   port(func(p *wire.PortReport) { p.Waiting = -1 }),
		"absurd waiting":     port(func(p *wire.PortReport) { p.Waiting = math.MaxInt64 }),
		"negative integral":  port(func(p *wire.PortReport) { p.WaitingSeconds = -0.5 }),
		"absurd integral":    port(func(p *wire.PortReport) { p.WaitingSeconds = 1e300 }),
		"impossible in life": port(func(p *wire.PortReport) { p.WaitingSeconds = 1e8 }),
		"negative pods":      port(func(p *wire.PortReport) { p.ReadyPods = -1 }),
		"no name":            port(func(p *wire.PortReport) { p.Service = "" }),
		"long name":          port(func(p *wire.PortReport) { p.PortName = strings.Repeat("x", 300) }),
		"twice": func() wire.Report {
			r := port(func(*wire.PortReport) {})
			r.Ports = append(r.Ports, r.Ports[0])
			return r
		}(),
		"cold start":     port(func(p *wire.PortReport) { p.ColdStart = &wire.ColdStart{Detected: -1} }),
		"negative clock": {StartTime: 1000, Monotonic: -1},
		"absurd start":   {StartTime: 1e200, Monotonic: 3},
		"too many ports": {StartTime: 1000, Monotonic: 3, Ports: make([]wire.PortReport, 32_769)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, reports, _ := newGateway(t)
			p := newPod(t, "gw", url, wire.ControlPortName)
			asGateway(p)
			c := newCluster(t, nil, p)
			good := port(func(p *wire.PortReport) { p.Waiting = 2 })
			good.Monotonic = 2
			for _, r := range []wire.Report{good, hostile} {
				select {
				case reports <- r:
				case <-time.After(patience):
					t.Fatal("the gateway is not connected")
				}
			}
			eventually(t, "told as invalid", func() bool { return c.reports("invalid") > 0 })
			if n := c.reports("ok"); n != 1 {
				t.Errorf("%v good reports, want 1", n)
			}
			if got := c.store.Gateways()[0].Report; got.Monotonic != 2 {
				t.Errorf("the last report is %+v, want the good one", got)
			}
			v := c.store.Workload(time.Now(), "ns", labels.Nothing(), []string{"web"}, algorithms.Waiting, algorithms.Instant)
			if v.Value != 2 {
				t.Errorf("waiting = %+v, want that of the good report", v)
			}
		})
	}
}

// reports counts the reports of one result.
func (c *cluster) reports(result string) float64 {
	families, err := c.reg.Gather()
	if err != nil {
		return -1
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "sluice_adapter_gateway_reports_total" && m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// What a gateway says of ports that nobody gave it is left out, of what is kept and of what is
// told.
func TestUnassignedPortsAreLeftOut(t *testing.T) {
	t.Parallel()
	url, reports, _ := newGateway(t)
	p := newPod(t, "gw", url, wire.ControlPortName)
	asGateway(p)
	urgent := make(chan string, 1)
	c := newClusterWith(t, scrape.Options{
		Assigned: func(gateway string, p *wire.PortReport) bool {
			return gateway == "gw" && p.Namespace == "ns" && p.Service == "web" && p.PortName == "http"
		},
		OnReport: func(_ wire.Gateway, of []types.NamespacedName) { urgent <- fmt.Sprint(of) },
	}, nil, p)
	select {
	case reports <- wire.Report{StartTime: 1000, Monotonic: 1, Ports: []wire.PortReport{
		{Namespace: "ns", Service: "web", PortName: "http", Waiting: 1},
		{Namespace: "ns", Service: "web", PortName: "other", Waiting: 4},
		{Namespace: "victim", Service: "web", PortName: "http", Waiting: 8},
	}}:
	case <-time.After(patience):
		t.Fatal("the gateway is not connected")
	}
	if got := <-urgent; got != "[ns/web]" {
		t.Errorf("urgent = %s, want the assigned one alone", got)
	}
	if n := len(c.store.Gateways()[0].Report.Ports); n != 1 {
		t.Errorf("%d ports are kept, want 1", n)
	}
	for namespace, want := range map[string]float64{"ns": 1, "victim": 0} {
		v := c.store.Workload(time.Now(), namespace, labels.Nothing(), []string{"web"}, algorithms.Waiting, algorithms.Instant)
		if v.Value != want {
			t.Errorf("waiting in %s = %v, want %v", namespace, v.Value, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(exposition(1000, 5, 3), true)
	f.Add("", false)
	f.Add(wire.ConcurrencySeconds+" NaN\n", true)
	f.Fuzz(func(t *testing.T, body string, text bool) {
		h := http.Header{"Content-Type": {"application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"}}
		if text {
			h.Set("Content-Type", "text/plain; version=0.0.4")
		}
		s, err := scrape.Parse(t.Context(), h, strings.NewReader(body), time.Unix(1e9, 0))
		if err == nil && !(s.Reading.Mono >= 0 && s.Reading.Life >= 0 && s.Reading.Sums[0] >= 0 && s.Reading.Sums[1] >= 0) {
			t.Errorf("Parse(%q) = %+v without an error: want finite numbers ≥ 0", body, s)
		}
	})
}

// Whatever a gateway says: what passes the check gives finite answers ≥ 0.
func FuzzReport(f *testing.F) {
	f.Add(`{"startTime":1000,"monotonic":2,"ports":[{"namespace":"ns","service":"web","portName":"http","waiting":2,"waitingSeconds":3.5}]}`)
	f.Add(`{"startTime":-1,"monotonic":1e300,"ports":[{"namespace":"ns","service":"web","waiting":-2,"waitingSeconds":-1e308}]}`)
	f.Add(`{"startTime":1e11,"monotonic":1e11,"owners":[{}],"refused":[{}],"ports":[{},{}]}`)
	f.Fuzz(func(t *testing.T, line string) {
		var r wire.Report
		if json.Unmarshal([]byte(line), &r) != nil {
			return
		}
		scrape.SortPorts(&r)
		if scrape.CheckReport(&r) != nil {
			return
		}
		now := time.Unix(1_800_000_000, 0)
		s := store.New(store.Options{Interval: time.Second})
		s.SetGateway(now, store.GatewayPod{UID: "g", Name: "g", Running: true})
		if _, _, ok := s.AddReport(now, "g", &r); !ok {
			t.Fatal("the gateway is not there")
		}
		for i := range r.Ports {
			for _, width := range []time.Duration{algorithms.Instant, time.Second, time.Hour} {
				p := &r.Ports[i]
				v := s.Workload(now, p.Namespace, labels.Nothing(), []string{p.Service}, algorithms.Waiting, width)
				if v.Value < 0 || math.IsNaN(v.Value) || math.IsInf(v.Value, 0) || v.Coverage < 0 || v.Coverage > 1 {
					t.Errorf("%s of %s/%s over %v = %+v", line, p.Namespace, p.Service, width, v)
				}
			}
		}
	})
}
