// Command sluice-gateway holds requests for workloads that have no pod and forwards them as soon as
// one answers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/sluice-autoscaler/sluice/gateway"
	"github.com/sluice-autoscaler/sluice/gateway/endpoints"
	"github.com/sluice-autoscaler/sluice/gateway/memory"
	"github.com/sluice-autoscaler/sluice/internal/cli"
	"github.com/sluice-autoscaler/sluice/internal/patience"
	"github.com/sluice-autoscaler/sluice/internal/pki"
	"github.com/sluice-autoscaler/sluice/internal/review"
	"github.com/sluice-autoscaler/sluice/internal/serve"
)

const name = "sluice-gateway"

const usage = `sluice-gateway holds requests for workloads that have no pod, tells the controller, and forwards as soon as a pod answers.

Usage:
  sluice-gateway [flags]

Flags:
`

func main() { cli.Main(name, run) }

type options struct {
	gateway.Config
	control, metrics string
	kubeconfig       string
	files            pki.Files
	clientName       string
	insecure         bool
	openMetrics      bool
	// maxMemory is the flag's value, memoryLimit the process's; 0 is none.
	maxMemory, memoryLimit int64
	logging                cli.Logging
}

// parse returns the validated options, or true when help or the version was asked for and printed.
func parse(args []string, stdout io.Writer) (o options, answered bool, err error) {
	o = options{Config: gateway.Default(), logging: cli.DefaultLogging()}
	host, _ := os.Hostname()
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.StringVar(&o.Name, "name", "", "this gateway's name in its reports; its pod's name (default the host name)")
	f.StringVar(&o.control, "control-listen", ":9096", "`address` of the control port, on which the controller assigns ports and reads reports")
	f.StringVar(&o.metrics, "metrics-listen", ":9097", "`address` of /metrics, /healthz and /readyz; TLS with the control port's certificate")
	f.BoolVar(&o.openMetrics, "open-metrics", false, "serve /metrics to everybody; they name all tenants' Services (default: to tokens that may get the nonResourceURL /metrics)")
	f.StringVar(&o.ListenHost, "listen-host", "", "`IP` on which assigned ports are opened (default every one)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "`file` that names the cluster (default the one this pod runs in)")
	f.StringVar(&o.files.Cert, "tls-cert-file", "", "`file` with the control port's certificate; like the next two read again when it changes")
	f.StringVar(&o.files.Key, "tls-key-file", "", "`file` with its key")
	f.StringVar(&o.files.CA, "client-ca-file", "", "`file` with the authorities that callers' certificates must be of")
	f.StringVar(&o.clientName, "client-name", "sluice-controller.sluice.svc", "DNS `name` that callers' certificates must carry")
	f.BoolVar(&o.insecure, "insecure-control", false, "serve both ports without TLS, and the control port to whoever comes; for tests only")
	f.IntVar(&o.MaxHeld, "max-held", o.MaxHeld, "most requests held at once for one Service port")
	f.IntVar(&o.MaxHeldTotal, "max-held-total", o.MaxHeldTotal, "most requests held at once over all")
	f.Var((*bytesValue)(&o.MaxHeldBytes), "max-held-bytes", "most bytes that held requests of one Service port keep buffered")
	f.Var((*bytesValue)(&o.maxMemory), "max-memory", "most bytes that clients take: connections, heads, and what is read ahead of bodies (default half of the memory limit, 1Gi without one)")
	f.DurationVar(&o.HoldTimeout, "hold-timeout", o.HoldTimeout, "how long a request is held before it is answered 504")
	f.DurationVar(&o.ProbeInterval, "probe-interval", o.ProbeInterval, "time between two probes of a pod that does not answer yet (50ms after two seconds)")
	f.IntVar(&o.PodConcurrency, "pod-concurrency", o.PodConcurrency, "most requests in flight to one pod, where the assignment does not say")
	f.DurationVar(&o.DialTimeout, "dial-timeout", o.DialTimeout, "how long a connection to a pod may take before another pod is tried")
	f.DurationVar(&o.TerminatingGrace, "terminating-grace", o.TerminatingGrace, "how long a terminating pod may get new requests while there is no other; shorter than the pods' lame duck")
	f.StringSliceVar(&o.ProbeAgents, "probe-agent", o.ProbeAgents, "`prefix` of the User-Agent of a health checker or scraper: not held, not counted; repeatable")
	f.StringSliceVar(&o.ProbePaths, "probe-path", o.ProbePaths, "request `path` treated as a health check from any agent; one that ends in * stands for all that begin so; repeatable")
	f.IntVar(&o.MaxReaders, "max-readers", o.MaxReaders, "most readers of the report stream at once; a newer one takes the place of an older")
	f.DurationVar(&o.PathLinger, "path-linger", o.PathLinger, "how long a port goes on to take connections after the gateway left the path, until every proxy knows")
	f.DurationVar(&o.LameDuck, "lame-duck", o.LameDuck, "how long to serve on, not ready, after SIGTERM")
	f.DurationVar(&o.Drain, "drain", o.Drain, "how long held and running requests may take after that")
	o.logging.Bind(f)
	if answered, err := cli.Parse(name, usage, f, args, stdout); answered || err != nil {
		return o, answered, err
	}
	if !f.Changed("name") {
		o.Name = host
	}
	limit := memory.Limit(os.DirFS("/"))
	if o.MaxMemory = o.maxMemory; !f.Changed("max-memory") {
		o.MaxMemory = memory.ForClients(limit)
	}
	o.memoryLimit = limit
	errs := []error{o.Validate()}
	switch missing := o.files.Cert == "" || o.files.Key == "" || o.files.CA == ""; {
	case o.insecure && o.files != (pki.Files{}):
		errs = append(errs, errors.New("insecure-control together with certificates: want one or the other"))
	case missing && !o.insecure:
		errs = append(errs, errors.New("tls-cert-file, tls-key-file and client-ca-file are needed: whoever reaches the control port without them redirects held requests"))
	case o.clientName == "":
		errs = append(errs, errors.New("client-name is empty: want the DNS name in the controller's certificate"))
	}
	for _, a := range []struct{ name, address string }{{"control-listen", o.control}, {"metrics-listen", o.metrics}} {
		if _, err := net.ResolveTCPAddr("tcp", a.address); err != nil {
			errs = append(errs, fmt.Errorf("%s = %q: want host:port or :port", a.name, a.address))
		}
	}
	errs = append(errs, o.logging.Validate())
	return o, false, cli.Usage(errors.Join(errs...))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, answered, err := parse(args, stdout)
	if answered || err != nil {
		return err
	}
	log := o.logging.New(stderr)
	slog.SetDefault(log) // what the standard log prints, such as net/http's complaints
	klog.SetSlogLogger(log.With(slog.String("component", "kubernetes")))
	limitMemory(o.memoryLimit, log)
	client, err := connect(o.kubeconfig, log)
	if err != nil {
		return err
	}
	source, err := endpoints.New(client, log)
	if err != nil {
		return err
	}
	gw := gateway.New(o.Config, source, log)

	registry := prometheus.NewRegistry()
	registry.MustRegister(gw.Collector(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	side := http.NewServeMux()
	exposition := promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError)})
	if !o.openMetrics {
		exposition = review.New(client, log).Guard(exposition)
	}
	side.Handle("GET /metrics", exposition)
	side.Handle("GET /healthz", serve.Health(serve.Check{Name: "gateway", Probe: func(context.Context) error { return gw.Alive() }}))
	side.Handle("GET /readyz", serve.Health(serve.Check{Name: "gateway", Probe: func(context.Context) error { return gw.Ready() }}))

	metrics := &serve.HTTP{Name: "metrics", Address: o.metrics, Server: server(side, log), Drain: time.Second}
	control := &serve.HTTP{
		Name: "control", Address: o.control, Server: server(gw.Control(), log), Drain: time.Second, ConnsPerAddress: controlConns,
	}
	control.Server.ReadHeaderTimeout = controlHeader
	if !o.insecure {
		load := o.files.Loader()
		if _, err := load(); err != nil {
			return fmt.Errorf("read the control port's certificate: %w", err)
		}
		control.Server.TLSConfig, metrics.Server.TLSConfig = pki.ServerConfig(load, o.clientName), pki.AnyClientConfig(load)
	}
	var group serve.Group
	// Stopped in reverse: the gateway drains while endpoints still come in and reports still go
	// out.
	group.Add(
		metrics.Service(),
		serve.Service{Name: "endpoints", Run: source.Run},
		control.Service(),
		serve.Service{Name: "gateway", Run: gw.Run},
	)
	return group.Run(ctx)
}

const (
	// controlConns bounds the connections of one address to the control port: a controller needs
	// two. controlHeader is the time for a handshake, and for a head.
	controlConns  = 64
	controlHeader = 5 * time.Second
	// heapShare is the percentage of the memory limit from which on the collector runs as often as
	// it must. Without it the heap would grow to twice what is held before it is collected.
	heapShare = 90
)

// limitMemory makes the collector keep to the process's memory limit, unless GOMEMLIMIT does.
func limitMemory(limit int64, log *slog.Logger) {
	if limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit / 100 * heapShare)
		log.Info("memory limit found", slog.Int64("limit_bytes", limit))
	}
}

func server(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func connect(kubeconfig string, log *slog.Logger) (kubernetes.Interface, error) {
	var config *rest.Config
	var err error
	if kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	} else {
		config, err = rest.InClusterConfig()
	}
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	config.UserAgent = name + "/" + cli.Version()
	config.Wrap(patience.New(log).Wrap)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	return client, nil
}

// bytesValue is a flag in bytes, with Ki, Mi or Gi.
type bytesValue int64

func (b *bytesValue) units() []struct {
	name string
	size int64
} {
	return []struct {
		name string
		size int64
	}{{"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}}
}

// String implements pflag.Value.
func (b *bytesValue) String() string {
	for _, u := range b.units() {
		if n := int64(*b); n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(*b), 10)
}

// Set implements pflag.Value.
func (b *bytesValue) Set(s string) error {
	size := int64(1)
	for _, u := range b.units() {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			s, size = rest, u.size
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/size {
		return errors.New("want a number of bytes such as 65536, 64Ki, 64Mi or 1Gi")
	}
	*b = bytesValue(n * size)
	return nil
}

// Type implements pflag.Value.
func (*bytesValue) Type() string { return "bytes" }
