// Command sluice-controller runs the adapter, which serves the metrics APIs, and the scaler, which
// drives Autoscalers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/sluice-autoscaler/sluice/adapter/scrape/preset"
	"github.com/sluice-autoscaler/sluice/internal/cli"
	"github.com/sluice-autoscaler/sluice/scaler/plugin"
)

const name = "sluice-controller"

const usage = "sluice-controller serves request metrics to HPAs and scales Autoscalers.\n\nFlags:\n"

func main() { cli.Main(name, run) }

// options are the command line.
type options struct {
	kubeconfig string
	namespace  string
	// gatewayServiceAccount is whose pods in namespace are gateways.
	gatewayServiceAccount string
	issueCertificates     bool
	apiListen             string
	metricsListen         string
	openMetrics           bool
	collectInterval       time.Duration
	idleInterval          time.Duration
	metricsWindow         time.Duration
	apiCustom             bool
	apiExternal           bool
	scaler                bool
	leaderElect           bool
	// namespaces are those whose Autoscalers are driven, all when empty; maxPerNamespace bounds how
	// many of one are, 0 does not.
	namespaces      []string
	maxPerNamespace int
	tick            time.Duration
	grace           time.Duration
	logging         cli.Logging
	qps             float32
	burst           int
	// grpcPolicies is the flag; grpcHosts is what it means.
	grpcPolicies string
	grpcHosts    plugin.Hosts
	history      historyFlags
	prometheus   prometheusFlags
	delegates    delegateFlags
	specs        specsFlags
	// presetsFile is the flag; presets is what it adds to the built-in ones.
	presetsFile string
	presets     *preset.Set
}

func flags(o *options) *pflag.FlagSet {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.StringVar(&o.kubeconfig, "kubeconfig", "", "path of the kubeconfig (default: the pod's service account)")
	fs.StringVar(&o.namespace, "namespace", "", "the controller's own namespace, for its lease, its certificates and its gateways (default: the service account's)")
	fs.StringVar(&o.gatewayServiceAccount, "gateway-service-account", "sluice-gateway", "the ServiceAccount of the gateways' pods; any other pod is none")
	fs.BoolVar(&o.issueCertificates, "issue-certificates", true, "issue and renew the certificates of controller, gateways and adapter; false reads Secrets that cert-manager keeps (SECURITY.md)")
	fs.StringVar(&o.apiListen, "api-listen", ":6443", "address of the metrics APIs (TLS)")
	fs.StringVar(&o.metricsListen, "metrics-listen", ":9090", "address of /healthz and /readyz")
	fs.BoolVar(&o.openMetrics, "open-metrics", false, "serve /metrics at --metrics-listen, too: without TLS, to everybody; the metrics name all tenants' workloads (default: at --api-listen alone, to who may get the nonResourceURL /metrics)")
	fs.DurationVar(&o.collectInterval, "collect-interval", time.Second, "how often each pod is read, 1s–60s")
	fs.DurationVar(&o.idleInterval, "collect-idle-interval", 0, "how often a pod is read of which nothing has changed for ten reads: --collect-interval to 60s, 0s for --collect-interval; longer costs fewer reads, and sees later what changes")
	fs.DurationVar(&o.metricsWindow, "metrics-window", 15*time.Second, "averaging time of served metrics when a request names none, 1s–1h")
	fs.StringVar(&o.presetsFile, "presets", "", "`FILE` with presets, which say how pods without a sidecar are read, besides the built-in ones (docs/presets.md)")
	fs.BoolVar(&o.apiCustom, "api-custom", true, "serve custom.metrics.k8s.io")
	fs.BoolVar(&o.apiExternal, "api-external", true, "serve external.metrics.k8s.io")
	fs.BoolVar(&o.scaler, "scaler", true, "drive Autoscalers; false leaves the metrics APIs alone")
	fs.BoolVar(&o.leaderElect, "leader-elect", true, "scale only while holding the lease, so that several replicas can run")
	fs.StringSliceVar(&o.namespaces, "namespaces", nil, "drive the Autoscalers of these namespaces alone, so that no rights are needed elsewhere but to read pods (default: of all)")
	fs.IntVar(&o.maxPerNamespace, "max-autoscalers-per-namespace", 0, "how many Autoscalers of one namespace are driven, the oldest; the others get a condition; 0 drives all")
	fs.DurationVar(&o.tick, "tick", 2*time.Second, "time between rounds of a workload in which nothing happens, 100ms–1m")
	fs.DurationVar(&o.grace, "sleep-grace", 2*time.Second, "how long the gateway must be on a Service before its last pod goes, 0s–1m")
	fs.StringVar(&o.grpcPolicies, "grpc-policies", "services", "which servers the policy grpc may ask: off, or a list of host or host:port with commas, in which services stands for the Services of the Autoscaler's own namespace")
	o.specs.add(fs)
	o.history.add(fs)
	o.prometheus.add(fs)
	o.delegates.add(fs)
	o.logging.Bind(fs)
	fs.Float32Var(&o.qps, "kube-api-qps", 200, "requests per second to the API server, > 0")
	fs.IntVar(&o.burst, "kube-api-burst", 400, "requests at once to the API server, ≥ 1")
	return fs
}

// validate reports every fault.
func (o *options) validate() error {
	var errs []error
	within := func(name string, d, lo, hi time.Duration) {
		if d < lo || d > hi {
			errs = append(errs, fmt.Errorf("--%s = %v: want %v–%v", name, d, lo, hi))
		}
	}
	within("collect-interval", o.collectInterval, time.Second, time.Minute)
	if o.idleInterval != 0 && (o.idleInterval < o.collectInterval || o.idleInterval > time.Minute) {
		errs = append(errs, fmt.Errorf("--collect-idle-interval = %v: want 0s, or %v (--collect-interval) to 1m", o.idleInterval, o.collectInterval))
	}
	within("metrics-window", o.metricsWindow, time.Second, time.Hour)
	within("tick", o.tick, 100*time.Millisecond, time.Minute)
	within("sleep-grace", o.grace, 0, time.Minute)
	for name, addr := range map[string]string{"api-listen": o.apiListen, "metrics-listen": o.metricsListen} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			errs = append(errs, fmt.Errorf("--%s = %q: want host:port, such as :6443", name, addr))
		}
	}
	if o.gatewayServiceAccount == "" {
		errs = append(errs, errors.New(`--gateway-service-account = "": want the name of a ServiceAccount`))
	}
	if o.metricsWindow%time.Second != 0 {
		errs = append(errs, fmt.Errorf("--metrics-window = %v: want whole seconds, the only ones that the metrics APIs can tell", o.metricsWindow))
	}
	if o.maxPerNamespace < 0 {
		errs = append(errs, fmt.Errorf("--max-autoscalers-per-namespace = %d: want ≥ 0, 0 for no limit", o.maxPerNamespace))
	}
	if o.qps <= 0 || o.burst < 1 {
		errs = append(errs, fmt.Errorf("--kube-api-qps = %v, --kube-api-burst = %d: want > 0 and ≥ 1", o.qps, o.burst))
	}
	var err error
	if o.grpcHosts, err = plugin.ParseHosts(o.grpcPolicies); err != nil {
		errs = append(errs, fmt.Errorf("--grpc-policies: %w", err))
	}
	errs = append(errs, o.logging.Validate())
	errs = append(errs, o.history.validate())
	errs = append(errs, o.prometheus.validate(), o.delegates.validate(o.apiCustom || o.apiExternal))
	if o.presets, err = loadPresets(o.presetsFile); err != nil {
		errs = append(errs, fmt.Errorf("--presets = %q: %w", o.presetsFile, err))
	}
	return errors.Join(errs...)
}

// loadPresets returns the built-in presets, and those of a file if it is given.
func loadPresets(file string) (*preset.Set, error) {
	if file == "" {
		return preset.Builtin()
	}
	return preset.Load(file)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := options{logging: cli.DefaultLogging()}
	fs := flags(&o)
	if answered, err := cli.Parse(name, usage, fs, args, stdout); answered || err != nil {
		return err
	}
	if err := errors.Join(o.validate(), o.specs.validate(fs)); err != nil {
		return cli.Usage(err)
	}
	log := o.logging.New(stderr)
	routeLogs(log)

	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if o.specs.file != "" {
		s, err := assembleSpecs(o, reg, log)
		if err != nil {
			return err
		}
		return s.run(ctx, promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg, EnableOpenMetrics: true}))
	}
	cfg, err := config(&o)
	if err != nil {
		return err
	}
	return runPatiently(ctx, cfg, o, reg, log)
}

// routeLogs makes log the one log of the process: of the standard library, such as net/http's
// complaints, of the Kubernetes client and of controller-runtime.
func routeLogs(log *slog.Logger) {
	slog.SetDefault(log)
	klog.SetSlogLogger(log.With(slog.String("component", "kubernetes")))
	ctrl.SetLogger(logr.FromSlogHandler(log.With(slog.String("component", "runtime")).Handler()))
}
