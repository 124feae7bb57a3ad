// Package benchlive holds the simulator against a real control plane: it replays loads on a
// testbed, by `sluice bench replay`, simulates the same requests, and says how far the two are
// apart.
package benchlive

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/bench/live"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/recording"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/summary"
	"github.com/sluice-autoscaler/sluice/bench/trace"
	"sigs.k8s.io/yaml"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

// Options says how to run.
type Options struct {
	// Place is the build of Sluice that is measured.
	Place kit.Place
	// Out is the folder for all that was seen; it is made.
	Out string
	// Report, unless empty, is the folder that gets the report and its summary.
	Report string
	// Only names the trials to run; empty is all.
	Only []string
	// Again replays nothing: it simulates what an earlier run left in Out once more, and reports.
	Again bool
	// Note is a remark for the report.
	Note string
	// Stdout takes the table, Stderr what goes on.
	Stdout, Stderr io.Writer
}

// outcome is a trial's two runs.
type outcome struct {
	trial    trial
	runs     summary.Runs // simulated, live
	scenario scenario.Scenario
	load     string
	overhead time.Duration
	// others are simulations of the same requests with other draws of everything else.
	others []score.Result
}

// draws is how many of them.
const draws = 40

// fixed are a source's requests under one seed, whatever seed the simulation has.
type fixed struct {
	trace.Source
	scenario *scenario.Scenario
	seed     uint64
}

// Open implements trace.Source.
func (f fixed) Open(*rand.Rand) trace.Arrivals {
	return scenario.Requests(f.Source, f.scenario, f.seed)
}

// Run does it all.
func Run(ctx context.Context, o Options) error {
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", o.Out, err)
	}
	chosen, err := choose(o.Only)
	if err != nil {
		return err
	}
	if !o.Again {
		if err := replayAll(ctx, o, chosen); err != nil {
			return err
		}
	}
	var all []outcome
	for _, t := range chosen {
		x, err := o.lay(ctx, t)
		if err != nil {
			return fmt.Errorf("trial %s: %w", t.name, err)
		}
		all = append(all, x)
	}
	phases, err := o.phases()
	if err != nil {
		return err
	}
	return o.write(all, phases)
}

func choose(only []string) ([]trial, error) {
	all := trials()
	if len(only) == 0 {
		return all, nil
	}
	var chosen []trial
	var names []string
	for _, t := range all {
		names = append(names, t.name)
	}
	for _, name := range only {
		found := false
		for _, t := range all {
			if t.name == name {
				chosen, found = append(chosen, t), true
			}
		}
		if !found {
			return nil, fmt.Errorf("trial %q: unknown; there are %s", name, strings.Join(names, ", "))
		}
	}
	return chosen, nil
}

// replayAll brings a testbed up and replays the trials on it, after the calibration.
func replayAll(ctx context.Context, o Options, chosen []trial) (err error) {
	cache, err := testbed.DefaultCache()
	if err != nil {
		return err
	}
	c, err := kit.Start(ctx, o.Place, testbed.Options{Dir: filepath.Join(cache, "testbed"), Progress: o.Stderr})
	if err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 40*time.Second)
		defer cancel()
		err = errors.Join(err, c.Stop(stopping))
	}()
	if err := c.Install(ctx, 2*time.Minute); err != nil {
		return err
	}
	if err := o.replay(ctx, c, calibration()); err != nil {
		return fmt.Errorf("calibration: %w", err)
	}
	for _, t := range chosen {
		if err := o.replay(ctx, c, t); err != nil {
			return fmt.Errorf("trial %s: %w", t.name, err)
		}
	}
	return nil
}

// replay sets a workload up, replays a trial on it, and takes it away.
func (o Options) replay(ctx context.Context, c *kit.Cluster, t trial) (err error) {
	namespace := "live-" + t.name
	fmt.Fprintf(o.Stderr, "%s: %s; load average %s\n", t.name, t.about, loadAverage())
	if err := o.deploy(ctx, c, namespace, t); err != nil {
		return err
	}
	defer func() {
		_, gone := c.Kubectl(context.WithoutCancel(ctx), "delete", "namespace", namespace, "--wait=false")
		_, gone2 := c.Kubectl(context.WithoutCancel(ctx), "delete", "autoscaler,deployment,service", "--all", "--namespace", namespace, "--timeout=60s")
		err = errors.Join(err, gone, gone2)
	}()
	url, err := c.ServiceURL(ctx, namespace, "web")
	if err != nil {
		return err
	}
	args, err := o.loadFlags(t)
	if err != nil {
		return err
	}
	dir := filepath.Join(o.Out, t.name)
	args = append([]string{"bench", "replay"}, args...)
	args = append(args, "--url", url+"/?ms={work_ms}", "--i-own-this-host", "--kubeconfig", c.Kubeconfig(), "--namespace", namespace, "--deployment", "web",
		"--max-requests", "30000", "--seed", strconv.FormatUint(t.seed, 10), "--policy", t.policy, "--out", dir, "--overwrite")
	cmd := exec.CommandContext(ctx, filepath.Join(o.Place.Bin, "sluice"), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	cmd.Stdout, cmd.Stderr = o.Stderr, o.Stderr
	before := loadAverage()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("sluice %s: %w", strings.Join(args, " "), err)
	}
	text, err := c.Sluice(ctx, "explain", "web", "--namespace", namespace)
	if err != nil {
		return err
	}
	notes := fmt.Sprintf("before %s\nafter %s\n", before, loadAverage())
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "decisions.txt"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(dir, "loadavg.txt"), []byte(notes), 0o644))
}

// loadAverage is the machine's, over one, five and fifteen minutes; "unknown" where it cannot be
// read.
func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	fields := strings.Fields(string(raw))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

// deploy applies the example app with the trial's delay and Autoscaler, and waits until it is in
// the state that the trial begins in.
func (o Options) deploy(ctx context.Context, c *kit.Cluster, namespace string, t trial) error {
	if err := c.EnsureNamespace(ctx, namespace); err != nil {
		return err
	}
	raw, err := os.ReadFile(o.Place.Example("web.yaml"))
	if err != nil {
		return err
	}
	text, err := rewrite(string(raw),
		"  replicas: 1\n", fmt.Sprintf("  replicas: %d\n", max(t.least, 1)),
		"      labels: {app: web}\n", fmt.Sprintf("      labels: {app: web}\n      annotations: {testbed.sluice.dev/start-delay: %q}\n", t.delay.String()),
		"--concurrency-limit=20", fmt.Sprintf("--concurrency-limit=%d", podConcurrency),
		"metadata:\n  name: web\n", "metadata:\n  name: web\n  namespace: "+namespace+"\n")
	if err != nil {
		return fmt.Errorf("%s: %w", o.Place.Example("web.yaml"), err)
	}
	p, err := plan.ParsePolicy(catalog.Default(), t.policy)
	if err != nil {
		return err
	}
	parameters := "{}"
	if len(p.Params) > 0 {
		parameters = string(p.Params)
	}
	text += fmt.Sprintf(`---
apiVersion: sluice.dev/v1alpha1
kind: Autoscaler
metadata: {name: web, namespace: %s}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  serviceRef: {name: web}
  minReplicas: %d
  maxReplicas: %d
  signals: [{name: concurrency, target: {averageValue: "%d"}}]
  policy: {name: %s, parameters: %s}
  scaleToZero: {after: %s}
  hold: {podConcurrency: %d}
`, namespace, t.least, maxReplicas, target, p.Name, parameters, t.idle(), podConcurrency)
	if err := c.Apply(ctx, []byte(text)); err != nil {
		return err
	}
	want := int32(t.least)
	if err := c.WaitReplicas(ctx, 2*time.Minute, namespace, "web", fmt.Sprintf("%d replicas", want), func(spec, ready int32) bool { return spec == want && ready == want }); err != nil {
		return err
	}
	if err := testbed.WaitFor(ctx, time.Minute, "no other pod", func(ctx context.Context) (string, bool) {
		pods, err := c.Pods(ctx, namespace, "app=web")
		return fmt.Sprintf("%d pods, error %v", len(pods), err), err == nil && len(pods) == t.least
	}); err != nil {
		return err
	}
	// Windows that know of nothing but silence, and a gateway that is out of the path, or in it.
	select {
	case <-time.After(6 * time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rewrite replaces texts (old, new, …), each of which must be there.
func rewrite(text string, changes ...string) (string, error) {
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(text, changes[i]) {
			return "", fmt.Errorf("it has no %q to replace", changes[i])
		}
		text = strings.ReplaceAll(text, changes[i], changes[i+1])
	}
	return text, nil
}

// loadFlags are the flags that say what is sent, and by which scenario; it writes the files that
// they name.
func (o Options) loadFlags(t trial) ([]string, error) {
	s, err := o.scenario(t)
	if err != nil {
		return nil, err
	}
	raw, err := yaml.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write the scenario: %w", err)
	}
	file := filepath.Join(o.Out, t.name+".yaml")
	head := "# " + t.about + ". Times that are the testbed's own were measured in the calibration.\n"
	if err := os.WriteFile(file, append([]byte(head), raw...), 0o644); err != nil {
		return nil, err
	}
	if t.generate != "" {
		return []string{"--scenario", file, "--generate", t.generate}, nil
	}
	csv := filepath.Join(o.Out, "twitter_240s.csv")
	return []string{"--scenario", file, "--trace", csv}, os.WriteFile(csv, []byte(twitter), 0o644)
}

// scenario is the trial's, with what the calibration measured, if it has run.
func (o Options) scenario(t trial) (scenario.Scenario, error) {
	fields := map[string]any{
		"name": t.name, "service": service, "podConcurrency": podConcurrency, "routing": scenario.RoutingRandom, "podQueue": 1000, "target": target,
		"minReplicas": t.least, "maxReplicas": maxReplicas, "initialReplicas": t.least, "scaleToZeroAfter": t.idle().String(),
		"holdTimeout": "60s", "elasticityStep": "5s", "gateways": 2,
	}
	for k, v := range t.set {
		var value any
		if json.Unmarshal([]byte(v), &value) != nil {
			value = v
		}
		fields[k] = value
	}
	raw, err := json.Marshal(fields)
	if err != nil {
		return scenario.Scenario{}, fmt.Errorf("scenario: %w", err)
	}
	s, err := scenario.Parse(scenario.Default(), raw)
	if err != nil {
		return s, err
	}
	p, err := o.phases()
	if errors.Is(err, os.ErrNotExist) {
		err = nil // nothing was measured yet: this is for the calibration itself
	} else if err == nil {
		for i := range p.Ready { // the calibration's delay is not the testbed's own
			p.Ready[i] = max(0, p.Ready[i]-calibration().delay)
		}
		err = p.Apply(&s, lameDuck)
	}
	if err != nil {
		return s, err
	}
	s.Startup.Pull, err = scenario.ParseDist("const:" + t.delay.String())
	return s, err
}

// phases are what the calibration measured.
func (o Options) phases() (live.Phases, error) {
	s, err := readSeen(filepath.Join(o.Out, calibration().name))
	if err != nil {
		return live.Phases{}, err
	}
	return live.Measure(s), nil
}

func readSeen(dir string) (s live.Observations, err error) {
	f, err := os.Open(filepath.Join(dir, "seen.json.gz"))
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return s, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if err := json.NewDecoder(z).Decode(&s); err != nil {
		return s, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return s, nil
}

// lay makes both runs of a trial from what was seen and from the present simulator.
func (o Options) lay(ctx context.Context, t trial) (outcome, error) {
	x := outcome{trial: t, load: t.generate}
	seen, err := readSeen(filepath.Join(o.Out, t.name))
	if err != nil {
		return x, err
	}
	if x.scenario, err = o.scenario(t); err != nil {
		return x, err
	}
	source, err := t.source(&x.scenario)
	if err != nil {
		return x, err
	}
	if x.load == "" {
		x.load = source.Name()
	}
	p, err := plan.ParsePolicy(catalog.Default(), t.policy)
	if err != nil {
		return x, err
	}
	cfg := live.Config{Policy: p.Label + " live", Trace: source.Name(), Scenario: &x.scenario, Seed: t.seed, Length: source.Length(), Points: 200}
	was := live.Run(cfg, seen)
	s := x.scenario
	s.InitialReplicas = seen.Cluster.ReadyAtStart()
	job := plan.Job{Source: source, Scenario: s, Policy: p, Seed: t.seed}
	simulated, err := job.Run(ctx, plan.Options{Points: 200, Explain: true}, nil)
	if err != nil {
		return x, err
	}
	x.runs = summary.Runs{simulated, was}
	// The same requests under other routes and start-up times: what the simulator itself cannot
	// tell.
	for k := range draws {
		job.Source, job.Seed = fixed{source, &s, t.seed}, 1000+uint64(k)
		run, err := job.Run(ctx, plan.Options{}, nil)
		if err != nil {
			return x, err
		}
		x.others = append(x.others, run.Result)
	}
	if all := live.Measure(seen).Overhead; len(all) > 0 {
		x.overhead = all[len(all)/2]
	}
	return x, nil
}

// source makes the trial's arrivals, as the command does from the same flags.
func (t trial) source(s *scenario.Scenario) (trace.Source, error) {
	if t.generate != "" {
		l, err := plan.Generated(t.generate)
		if err != nil {
			return nil, err
		}
		return l(s)
	}
	return plan.Recorded(func(service time.Duration) (*trace.Trace, error) {
		return recording.Read(strings.NewReader(twitter), "twitter_240s.csv", recording.Options{Service: service})
	}, trace.Model{})(s)
}
