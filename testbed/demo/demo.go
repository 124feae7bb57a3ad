// Package demo shows Sluice's main job on a testbed, in two acts: an Autoscaler that takes a
// workload from zero to several pods and back, and a stock HPA that does so from one on Sluice's
// metrics. It applies what a user would apply, sends real requests, shows what happens, and checks
// that no request was lost and every replica count was reached.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sluice-autoscaler/sluice/bench/load"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

const (
	namespace = "demo"
	name      = "web"
	// podTarget is the concurrency per pod that deploy/examples ask for.
	podTarget = 10
	// freshShare is the share of requests on connections of their own. The others stay, as long as
	// their connection does, with the pods that were there when it was opened: kube-proxy spreads
	// connections, not requests.
	freshShare = 0.75
	// maxInFlight is below the 220 that one pod of deploy/examples/web.yaml takes (20 running, 200
	// queued), and above what bursts need. A machine that stood still for seconds then makes
	// requests late, which the summary tells, and no pod overflow.
	maxInFlight = 200
)

// Options says how to run the demo.
type Options struct {
	// Place is the build of Sluice that is shown.
	Place kit.Place
	// Out is the folder for the chart and the raw data; it is made.
	Out string
	// Hold leaves everything up after the summary, until ctx ends.
	Hold bool
	// Stdout takes what is shown. Color tells that it is a terminal.
	Stdout io.Writer
	Color  bool
}

// ErrFailed is returned when the demo ran and a request was lost or a replica count was not
// reached. What it was has been printed.
var ErrFailed = errors.New("the demo did not show what it has to")

// ErrInterrupted is returned when ctx ended before the demo did.
var ErrInterrupted = errors.New("interrupted")

// Run runs the demo. When ctx ends, it stops everything and sums up what there is. The program must
// call testbed.MaybeChild first thing.
func Run(ctx context.Context, o Options) (err error) {
	o.Stdout = &locked{w: o.Stdout}
	out := printer{w: o.Stdout, color: o.Color}
	cache, err := testbed.DefaultCache()
	if err != nil {
		return err
	}
	begun := time.Now()
	out.title("Starting a Kubernetes control plane on this machine")
	c, err := kit.Start(ctx, o.Place, testbed.Options{Dir: filepath.Join(cache, "testbed"), Progress: indent{o.Stdout}})
	if err != nil {
		return interrupted(ctx, err)
	}
	defer func() {
		out.line("\nStopping.")
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 40*time.Second)
		defer cancel()
		err = errors.Join(err, c.Stop(stopping))
	}()
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-c.Done():
			cancel(c.Err())
		case <-running.Done():
		}
	}()
	s := &show{Options: o, out: out, c: c}
	if err := s.play(running, begun); err != nil {
		if ctx.Err() != nil {
			return interrupted(ctx, err)
		}
		s.diagnose(context.WithoutCancel(ctx))
		if o.Hold && errors.Is(err, ErrFailed) {
			s.hold(running)
		}
		return errors.Join(err, context.Cause(running))
	}
	if o.Hold {
		s.hold(running)
	}
	return nil
}

// interrupted is err, or ErrInterrupted if that is why.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ErrInterrupted
	}
	return err
}

// show is one run of the demo.
type show struct {
	Options
	out    printer
	c      *kit.Cluster
	report Report
	loads  []load.Result
}

// play does everything between the start of the control plane and its end.
func (s *show) play(ctx context.Context, begun time.Time) error {
	if err := s.install(ctx); err != nil {
		return err
	}
	s.report.Start = time.Now()
	err := s.acts(ctx)
	if ctx.Err() != nil {
		s.report.Interrupted = true
	}
	if len(s.report.Acts) == 0 || len(s.report.Samples) == 0 {
		return err
	}
	if err != nil && !s.report.Interrupted {
		s.report.Faults = append(s.report.Faults, err.Error())
	}
	s.out.summary(s.report)
	if err := s.save(); err != nil {
		return err
	}
	if s.report.Interrupted {
		return ErrInterrupted
	}
	s.out.line("  took %s in all", clock(time.Since(begun)))
	if failures := s.report.Failures(); len(failures) > 0 {
		for _, f := range failures {
			s.out.line("%s", s.out.paint("31", "✗ "+f))
		}
		s.showLost()
		return ErrFailed
	}
	s.out.line("%s", s.out.paint("32", "✓ No request was lost, and every replica count was reached."))
	return nil
}

// showLost tells of the first requests that were lost; all are in requests-*.csv.
func (s *show) showLost() {
	shown := 0
	for _, r := range s.loads {
		for _, q := range r.Records {
			if q.Lost() && shown < 5 {
				shown++
				at := r.Start.Add(q.Intended)
				s.out.line("  lost at %s (%s UTC) after %s: %s %s", clock(at.Sub(s.report.Start)), at.UTC().Format("15:04:05.000"), short(q.Latency()), q.Cause, q.Error)
			}
		}
	}
}

// install puts Sluice on the cluster.
func (s *show) install(ctx context.Context) error {
	s.out.title("Installing Sluice and a sample app, as a user would")
	s.out.command("", "helm template sluice deploy/chart --namespace sluice --include-crds | kubectl apply -f -")
	if err := s.c.Install(ctx, 2*time.Minute); err != nil {
		return err
	}
	if err := s.showAPIServices(ctx); err != nil {
		return err
	}
	s.out.command("", "kubectl apply --namespace demo -f deploy/examples/web.yaml -f deploy/examples/autoscaler.yaml")
	if err := s.c.ApplyExample(ctx, namespace, "web.yaml"); err != nil {
		return err
	}
	if err := s.c.WaitReplicas(ctx, time.Minute, namespace, name, "its pod to be ready", func(spec, ready int32) bool { return spec == ready }); err != nil {
		return err
	}
	return s.c.ApplyExample(ctx, namespace, "autoscaler.yaml")
}

// showAPIServices prints Sluice's lines of kubectl get apiservice.
func (s *show) showAPIServices(ctx context.Context) error {
	services, err := s.c.APIServices(ctx)
	if err != nil {
		return err
	}
	args := []string{"get", "apiservice"}
	for _, a := range services {
		args = append(args, a.Name)
		if !a.Available {
			s.report.Faults = append(s.report.Faults, fmt.Sprintf("APIService %s is not Available: %s", a.Name, a.Message))
		}
	}
	text, err := s.c.Kubectl(ctx, args...)
	if err != nil {
		return err
	}
	s.out.command(text, "kubectl get apiservice | grep -e NAME -e sluice")
	return nil
}

// acts plays both.
func (s *show) acts(ctx context.Context) error {
	s.out.title("Act 1: an Autoscaler takes the app from 0 to many pods and back, twice")
	if err := s.act(ctx, autoscalerAct(), nil); err != nil {
		return err
	}
	if err := s.explain(ctx); err != nil {
		return err
	}
	s.out.title("Act 2: a stock HorizontalPodAutoscaler does it from 1, on Sluice's metric")
	if err := s.swap(ctx); err != nil {
		return err
	}
	return s.act(ctx, hpaAct(), s.showHPA)
}

// explain prints the Autoscaler's decisions.
func (s *show) explain(ctx context.Context) error {
	text, err := s.c.Sluice(ctx, "explain", name, "--namespace", namespace, "--last", "6")
	if err != nil {
		return err
	}
	s.out.line("")
	s.out.command(text, "sluice explain web --namespace demo --last 6")
	return nil
}

// swap takes the Autoscaler away and puts an HPA in its place.
func (s *show) swap(ctx context.Context) error {
	s.out.command("", "kubectl delete autoscaler web; kubectl scale deployment web --replicas=1; kubectl apply -f deploy/examples/hpa.yaml")
	if _, err := s.c.Kubectl(ctx, "delete", "autoscaler", name, "--namespace", namespace, "--timeout=30s"); err != nil {
		return err
	}
	if err := s.c.Scale(ctx, namespace, name, 1); err != nil {
		return err
	}
	if err := s.c.WaitReplicas(ctx, time.Minute, namespace, name, "1 ready", func(spec, ready int32) bool { return spec == 1 && ready == 1 }); err != nil {
		return err
	}
	err := testbed.WaitFor(ctx, 30*time.Second, "the gateways to leave the Service", func(ctx context.Context) (string, bool) {
		n, err := s.c.GatewaySlices(ctx, namespace, name)
		return fmt.Sprintf("%d slices, error %v", n, err), err == nil && n == 0
	})
	if err != nil {
		return err
	}
	if err := s.c.ApplyExample(ctx, namespace, "hpa.yaml"); err != nil {
		return err
	}
	stock := cluster{Cluster: s.c, namespace: namespace, name: name, hpa: true}
	return testbed.WaitFor(ctx, time.Minute, "the HPA to have a current value", func(ctx context.Context) (string, bool) {
		return stock.lookHPA(ctx)
	})
}

// showHPA prints the HPA as kubectl does, and checks that it has a value.
func (s *show) showHPA(ctx context.Context) error {
	text, err := s.c.HPAs(ctx, namespace)
	if err != nil {
		return err
	}
	s.out.command(text, "kubectl get hpa --namespace demo")
	if strings.Contains(text, "<unknown>") {
		s.report.Faults = append(s.report.Faults, "kubectl get hpa shows no current value in the middle of act 2")
	}
	return s.showAPIServices(ctx)
}

// act plays one act and adds it to the report. middle, if not nil, is called once when milestone 2
// was seen.
func (s *show) act(ctx context.Context, a act, middle func(context.Context) error) error {
	url, err := s.c.ServiceURL(ctx, namespace, name)
	if err != nil {
		return err
	}
	cfg := load.Default()
	cfg.URL = fmt.Sprintf("%s/?ms=%d", url, requestMillis)
	cfg.Timeout = 60 * time.Second
	cfg.FreshShare, cfg.MaxInFlight = freshShare, maxInFlight
	cfg.Poisson = true
	cfg.Seed = uint64(len(s.report.Acts)) + 1
	g, err := load.New(cfg)
	if err != nil {
		return err
	}
	defer g.Close()
	_, _, lost := s.report.Requests()
	watched := cluster{Cluster: s.c, namespace: namespace, name: name, hpa: middle != nil}
	w := newWatcher(watched, g, s.out, s.report.Start, len(s.report.Acts), lost)
	from := time.Since(s.report.Start)

	watching, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { w.run(watching) })
	wg.Go(func() { s.c.FollowGateways(watching, w.report) })
	var middleErr error
	if middle != nil {
		wg.Go(func() {
			if w.wait(watching, a.milestones[1].seen) == nil {
				middleErr = middle(watching)
			}
		})
	}
	var results []load.Result
	for _, b := range a.blocks {
		results = append(results, s.block(ctx, w, g, b)...)
		if ctx.Err() != nil {
			break
		}
	}
	stop()
	wg.Wait()

	result := load.Join(results...)
	samples, starts := w.seen()
	s.loads = append(s.loads, result)
	s.report.Samples = append(s.report.Samples, samples...)
	s.report.Acts = append(s.report.Acts, ActReport{
		Name: a.name, From: from, To: time.Since(s.report.Start), Load: result.Summary(), Milestones: reach(a.milestones, samples), ColdStarts: starts,
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return middleErr
}

// block sends a block's load and waits for what it is to lead to.
func (s *show) block(ctx context.Context, w *watcher, g *load.Generator, b block) []load.Result {
	var results []load.Result
	if shape := b.shape(); len(shape) > 0 {
		w.enter("", b, shape)
		results = append(results, g.Open(ctx, shape))
	}
	if b.until == nil || ctx.Err() != nil {
		return results
	}
	w.enter(b.until.name, b, load.Constant(b.until.rate, b.until.timeout))
	waiting, cancel := context.WithTimeout(ctx, b.until.timeout)
	defer cancel()
	seen := make(chan error, 1)
	go func() { seen <- w.wait(waiting, b.until.done) }()
	for b.until.rate > 0 && len(seen) == 0 && ctx.Err() == nil {
		// In pieces of a second, so that the end cuts no request off.
		results = append(results, g.Open(ctx, load.Constant(b.until.rate, time.Second)))
	}
	if err := <-seen; err != nil && ctx.Err() == nil {
		s.out.line("%s", s.out.paint("31", fmt.Sprintf("given up after %v: %s", b.until.timeout, b.until.name)))
	}
	return results
}

// save writes chart and raw data.
func (s *show) save() error {
	if err := os.MkdirAll(s.Out, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", s.Out, err)
	}
	files := []struct {
		name  string
		write func(io.Writer) error
	}{
		{"report.json", func(w io.Writer) error {
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			return e.Encode(s.report)
		}},
		{"samples.csv", func(w io.Writer) error { return writeSamples(w, s.report.Samples) }},
	}
	for i, r := range s.loads {
		files = append(files, struct {
			name  string
			write func(io.Writer) error
		}{fmt.Sprintf("requests-%d.csv", i+1), func(w io.Writer) error { return writeRequests(w, s.report.Start, r) }})
	}
	if len(s.report.Samples) > 1 {
		files = append(files, struct {
			name  string
			write func(io.Writer) error
		}{"chart.png", func(w io.Writer) error { return writePNG(w, s.report) }}, struct {
			name  string
			write func(io.Writer) error
		}{"report.html", func(w io.Writer) error { return writeHTML(w, s.report) }})
	}
	for _, f := range files {
		if err := writeFile(filepath.Join(s.Out, f.name), f.write); err != nil {
			return err
		}
	}
	s.out.line("  chart       %s, %s", filepath.Join(s.Out, "report.html"), filepath.Join(s.Out, "chart.png"))
	s.out.line("  raw data    report.json, samples.csv and requests-*.csv beside it")
	return nil
}

func writeFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := write(f); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// diagnose prints what helps to find out why something failed.
func (s *show) diagnose(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s.out.title("What there is to see")
	for _, args := range [][]string{
		{"get", "pods", "--all-namespaces"},
		{"get", "autoscalers,hpa,endpointslices", "--namespace", namespace},
	} {
		text, err := s.c.Kubectl(ctx, args...)
		if err != nil {
			text += err.Error()
		}
		s.out.command(text, "kubectl %s", strings.Join(args, " "))
	}
	for _, selector := range []string{kit.ControllerSelector, kit.GatewaySelector} {
		s.out.line("%s", s.c.PodLogs(ctx, kit.Namespace, selector, 15))
	}
	if pods, err := s.c.Kube.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "type=Warning", Limit: 20}); err == nil {
		for _, e := range pods.Items {
			s.out.line("  warning: %s %s: %s: %s", e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
		}
	}
	s.out.line("  Logs of the control plane and the node: %s", filepath.Dir(s.c.LogFile("testbed")))
}

// hold leaves everything up until ctx ends.
func (s *show) hold(ctx context.Context) {
	i := s.c.Instance()
	s.out.title("It stays up until Ctrl-C. Try, in another terminal, as root:")
	s.out.line(`
  export KUBECONFIG=%s
  export PATH=$PATH:%s:%s
  kubectl get autoscalers,hpa,deploy,pods --namespace demo
  kubectl get apiservice | grep sluice
  kubectl get --raw '/apis/custom.metrics.k8s.io/v1beta2/namespaces/demo/deployments.apps/web/request_concurrency'
  kubectl get --raw '/apis/external.metrics.k8s.io/v1beta1/namespaces/demo/request_rate?labelSelector=deployment%%3Dweb'

  # back to the Autoscaler: watch it sleep, then wake it with a request from this machine
  kubectl delete hpa web --namespace demo
  kubectl apply --namespace demo -f %s
  kubectl get autoscaler web --namespace demo --watch
  curl "http://$(kubectl get service web --namespace demo -o jsonpath='{.spec.clusterIP}')/?ms=200"
  sluice explain web --namespace demo --terms`, i.Kubeconfig, i.Bin, s.Place.Bin, s.Place.Example("autoscaler.yaml"))
	<-ctx.Done()
}

// locked lets several goroutines write, a whole text at a time.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

// Write implements io.Writer.
func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// indent writes lines two columns to the right.
type indent struct{ w io.Writer }

// Write implements io.Writer.
func (i indent) Write(p []byte) (int, error) {
	for l := range strings.Lines(string(p)) {
		if _, err := io.WriteString(i.w, "  "+l); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
