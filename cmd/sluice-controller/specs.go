package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/algorithms/loop"
	"github.com/sluice-autoscaler/sluice/internal/serve"
	"github.com/sluice-autoscaler/sluice/scaler"
	"github.com/sluice-autoscaler/sluice/scaler/plugin"
	program "github.com/sluice-autoscaler/sluice/scaler/process"
)

const (
	// specsAtOnce is how many workloads of a file of specs have a round at once.
	specsAtOnce = 16
	// specsPoll is how often the file is read; mostSpecs bounds its size.
	specsPoll, mostSpecs = 2 * time.Second, 16 << 20
	// webDrain bounds how long the last scrape may take.
	webDrain = 2 * time.Second
)

// specsFlags are for workloads that a file names instead of Autoscaler objects.
type specsFlags struct {
	file, processURL, tokenFile string
}

func (f *specsFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.file, "specs", "", "drive the workloads of this `FILE` instead of Autoscalers, and serve no metrics APIs (docs/specs.md); needs no cluster")
	fs.StringVar(&f.processURL, "process-url", "", "`URL` of the program that runs the workloads of --specs")
	fs.StringVar(&f.tokenFile, "process-token-file", "", "a `FILE` with a token for that program, read again for each request")
}

func (f *specsFlags) driver() program.Options {
	o := program.DefaultOptions()
	o.URL, o.TokenFile = f.processURL, f.tokenFile
	return o
}

// clusterFlags are those that mean nothing without a cluster.
func clusterFlags() []string {
	return []string{
		"kubeconfig", "namespace", "gateway-service-account", "issue-certificates", "api-listen", "collect-interval", "metrics-window", "api-custom",
		"api-external", "scaler", "leader-elect", "namespaces", "max-autoscalers-per-namespace", "grpc-policies",
		"history-prometheus", "kube-api-qps", "kube-api-burst",
	}
}

// validate reports every fault.
func (f *specsFlags) validate(fs *pflag.FlagSet) error {
	var errs []error
	if f.file == "" {
		for name, value := range map[string]string{"process-url": f.processURL, "process-token-file": f.tokenFile} {
			if value != "" {
				errs = append(errs, fmt.Errorf("--%s = %q without --specs: want both", name, value))
			}
		}
		return errors.Join(errs...)
	}
	for _, name := range clusterFlags() {
		flag := fs.Lookup(name)
		off := flag.Value.Type() == "bool" && name != "scaler" && flag.Value.String() == "false"
		if flag.Changed && !off {
			errs = append(errs, fmt.Errorf("--%s = %s with --specs: want one of them, since --specs uses no cluster", name, flag.Value))
		}
	}
	if f.processURL == "" {
		return errors.Join(append(errs, errors.New("--process-url is missing with --specs: want the URL of the program that runs the workloads"))...)
	}
	o := f.driver()
	if err := o.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("--process-url: %w", err))
	}
	if f.tokenFile != "" {
		if _, err := os.ReadFile(f.tokenFile); err != nil {
			errs = append(errs, fmt.Errorf("--process-token-file: %w", err))
		}
	}
	return errors.Join(errs...)
}

// specsRun drives the workloads of a file.
type specsRun struct {
	options
	log    *slog.Logger
	specs  func(raw []byte) ([]scaler.WorkloadSpec, error)
	ticker *scaler.Ticker
	beat   *serve.Heartbeat
	driver *program.Driver
	// last is the text of the file as it was read last, and fault why it could not be.
	last  []byte
	fault string
}

// assembleSpecs makes all parts and starts none. The file must be valid.
func assembleSpecs(o options, reg prometheus.Registerer, log *slog.Logger) (*specsRun, error) {
	d, err := program.New(o.specs.driver())
	if err != nil {
		return nil, err
	}
	r := &specsRun{options: o, log: log, driver: d, beat: serve.NewHeartbeat("rounds", 2*scaler.BeatEvery, time.Now())}
	// The file is the operator's own, so its policies may ask any server.
	broker := plugin.NewBroker(plugin.BrokerOptions{Hosts: plugin.AnyHost(), Log: log, Clock: time.Now, Poke: func(ref loop.Ref) { r.ticker.Poke(ref) }})
	policies := func(ref loop.Ref) loop.Catalog { return catalog.Default(broker.Entry(ref)) }
	r.specs = func(raw []byte) ([]scaler.WorkloadSpec, error) {
		raw, err := yaml.YAMLToJSONStrict(raw)
		if err != nil {
			return nil, err
		}
		// Objects of a cluster are driven by Autoscalers only, so far.
		return scaler.ParseSpecs(raw, []string{program.Name}, policies(loop.Ref{}), o.timing())
	}
	r.ticker = scaler.NewTicker(scaler.TickerOptions{
		Scaler: scaler.New(scaler.Options{
			Target: d, Source: d, Path: d, CatalogOf: policies, Timing: o.timing(), Clock: time.Now, Log: log, Metrics: reg,
		}),
		AtOnce: specsAtOnce, Beat: r.beat.Beat, Forget: d.Forget,
	})
	if err := r.load(); err != nil {
		return nil, fmt.Errorf("--specs %s: %w", o.specs.file, err)
	}
	return r, nil
}

// load reads the file, and hands its list to the ticker if it is another and valid.
func (r *specsRun) load() error {
	f, err := os.Open(r.options.specs.file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, mostSpecs+1))
	switch {
	case err != nil:
		return err
	case len(raw) > mostSpecs:
		return fmt.Errorf("the file has more than %d bytes", mostSpecs)
	case r.last != nil && bytes.Equal(raw, r.last):
		return nil
	}
	list, err := r.specs(raw)
	if err != nil {
		return err
	}
	r.last = raw
	r.ticker.Set(list)
	r.log.Info("specs taken", slog.String("file", r.options.specs.file), slog.Int("workloads", len(list)))
	return nil
}

// poll loads the file whenever it has changed, until ctx ends. A faulty one changes nothing.
func (r *specsRun) poll(ctx context.Context) error {
	tick := time.NewTicker(specsPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := r.load()
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != r.fault && text != "" {
			r.log.Warn("specs refused, the last valid ones stay", slog.String("file", r.options.specs.file), slog.Any("error", err))
		}
		r.fault = text
	}
}

// run starts everything and ends with the first part that fails, or with ctx.
func (r *specsRun) run(ctx context.Context, metrics http.Handler) error {
	defer r.driver.Close()
	mux := http.NewServeMux()
	mux.Handle("/metrics", metrics)
	mux.Handle("/healthz", serve.Health(r.beat.Check(time.Now)))
	mux.Handle("/readyz", serve.Health())
	web := &serve.HTTP{
		Name: "metrics", Address: r.metricsListen, Server: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, Drain: webDrain,
	}
	g := serve.Group{}
	g.Add(web.Service(), serve.Service{Name: "rounds", Run: r.ticker.Run}, serve.Service{Name: "specs", Run: r.poll})
	return g.Run(ctx)
}
