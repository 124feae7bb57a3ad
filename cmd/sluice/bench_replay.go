package main

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/spf13/cobra"

	"github.com/sluice-autoscaler/sluice/bench/live"
	"github.com/sluice-autoscaler/sluice/bench/load"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/score"
	"github.com/sluice-autoscaler/sluice/bench/trace"
)

const replayLong = `Send a load live, and lay what came of it beside what the simulator says.

The requests are those that "sluice bench run" simulates with the same load, scenario and --seed: the same instants, the same work.
They are sent in an open loop, each at its instant whether or not others were answered, and waiting counts from that instant: a slow
server cannot hide. The server learns from the URL or a header how long to work on each, by placeholders: {work_ms}, {work_us},
{work_s}, and {n} for the request's number. Waiting is the latency less the work.

With --deployment the pods of that workload are watched meanwhile, and pod-seconds, cold starts and changes are counted as the
simulator counts them. With --policy the same requests are simulated afterwards, beginning with as many pods as the cluster had.

DIR gets, besides what "bench run" writes, seen.json.gz (every request and every change of a pod) and latency.hgrm (the latencies as
an HdrHistogram percentile distribution, in milliseconds).

Only loopback addresses are sent to, unless --i-own-this-host says that the load may go elsewhere.`

// replayFlags are those that only replay has.
type replayFlags struct {
	benchFlags
	template    load.Template
	headers     []string
	policy      string
	mine        bool
	timeout     time.Duration
	fresh       float64
	inFlight    int
	maxRequests int
	maxDuration time.Duration
	host        string
	target      kubeTarget
}

func benchReplay() *cobra.Command {
	var f replayFlags
	c := &cobra.Command{
		Use: "replay --url URL (--trace FILE|--generate SPEC|--log FILE)", Short: "Send a load live, and compare what came of it with the simulator",
		Long: replayLong, Args: usage(cobra.NoArgs),
		Example: `  sluice bench replay --generate poisson:rate=20,duration=60s --url 'http://127.0.0.1:8080/?ms={work_ms}' --service exp:200ms
  sluice bench replay --trace requests.csv --to 5m --url 'http://10.0.0.7/?ms={work_ms}' --i-own-this-host \
    --namespace demo --deployment web --policy kpa --scenario small --out out/replay`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.replay(cmd) },
	}
	f.addLoads(c)
	fl := c.Flags()
	fl.StringVar(&f.template.URL, "url", "", "where to send, `URL`, with placeholders such as ?ms={work_ms}")
	fl.StringArrayVar(&f.headers, "header", nil, "a header to send, `NAME: VALUE`, which may have placeholders; repeatable")
	fl.StringVar(&f.host, "host", "", "send this as the Host header")
	fl.BoolVar(&f.mine, "i-own-this-host", false, "send the load although the URL's host is not this machine")
	fl.DurationVar(&f.timeout, "timeout", time.Minute, "how long a request may take; then it is lost")
	fl.Float64Var(&f.fresh, "fresh-share", 1, "share of requests (0–1) with a connection of their own; kube-proxy spreads connections, not requests")
	fl.IntVar(&f.inFlight, "max-in-flight", 1000, "most requests at once; those beyond are sent late, and counted")
	fl.IntVar(&f.maxRequests, "max-requests", 100_000, "most requests in all; the replay ends there")
	fl.DurationVar(&f.maxDuration, "max-duration", time.Hour, "longest load that is accepted")
	fl.StringVar(&f.target.kubeconfig, "kubeconfig", "", "path of the kubeconfig (default: as kubectl)")
	fl.StringVarP(&f.target.namespace, "namespace", "n", "", "namespace of --deployment (default: as kubectl)")
	fl.StringVar(&f.target.deployment, "deployment", "", "watch the pods of this Deployment during the replay")
	fl.StringVar(&f.policy, "policy", "", "simulate this policy, `NAME[:key=value,…]`, on the same requests")
	fl.Uint64Var(&f.firstSeed, "seed", 1, "seed of arrivals and work")
	f.addScenario(c, "")
	f.addOut(c)
	return c
}

// replayPlan is what the flags ask for.
type replayPlan struct {
	source   trace.Source
	scenario scenario.Scenario
	policy   *plan.Policy
}

// plan checks the flags and reports every fault.
func (f *replayFlags) plan(cmd *cobra.Command) (replayPlan, error) {
	var p replayPlan
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(f.template.URL != "", "--url is missing: want an address such as http://127.0.0.1:8080/?ms={work_ms}")
	bad(f.maxRequests >= 1 && f.maxRequests <= 10_000_000, "--max-requests = %d: want 1–10000000", f.maxRequests)
	bad(f.maxDuration > 0, "--max-duration = %v: want a time above 0", f.maxDuration)
	f.template.Header = http.Header{}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		bad(ok && strings.TrimSpace(name) != "", "--header %q: want NAME: VALUE", h)
		f.template.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	if f.template.URL != "" {
		if err := f.template.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("--url, --header: %w", err))
		} else if err := f.loadConfig().Validate(); err != nil {
			errs = append(errs, err)
		} else if err := f.local(cmd.Context()); err != nil {
			errs = append(errs, err)
		}
	}
	scenes, err := f.scenes(cmd)
	errs = append(errs, err)
	bad(err != nil || len(scenes) == 1, "--scenario: %d are given: want one", len(scenes))
	loads, err := f.loads()
	errs = append(errs, err)
	bad(err != nil || len(loads) == 1, "%d loads are given: want one --trace, --generate or --log", len(loads))
	if f.policy != "" {
		got, err := plan.ParsePolicy(known(), f.policy)
		if err != nil {
			errs = append(errs, fmt.Errorf("--policy: %w", err))
		}
		p.policy = &got
	}
	if err := errors.Join(errs...); err != nil {
		return p, err
	}
	p.scenario = scenes[0]
	if p.source, err = loads[0](&p.scenario); err != nil {
		return p, err
	}
	if p.source.Length() > f.maxDuration {
		return p, fmt.Errorf("the load lasts %v: want at most --max-duration = %v, so cut it with --from and --to, or raise that", p.source.Length(), f.maxDuration)
	}
	return p, nil
}

func (f *replayFlags) loadConfig() load.Config {
	c := load.Default()
	c.URL = f.template.Call(0, trace.Request{}).URL
	c.Host, c.Timeout, c.FreshShare, c.MaxInFlight, c.Seed = f.host, f.timeout, f.fresh, f.inFlight, f.firstSeed
	return c
}

// local refuses addresses that are not this machine's, unless the user answers for them.
func (f *replayFlags) local(ctx context.Context) error {
	if f.mine {
		return nil
	}
	u, err := url.Parse(f.loadConfig().URL)
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return fmt.Errorf("--url: find %s: %w", u.Hostname(), err)
	}
	for _, a := range addresses {
		if !a.Unmap().IsLoopback() {
			return fmt.Errorf("--url: %s is %v, not this machine: load goes to others only with --i-own-this-host", u.Hostname(), a.Unmap())
		}
	}
	return nil
}

func (f *replayFlags) replay(cmd *cobra.Command) error {
	p, err := f.plan(cmd)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	head, err := f.head([]scenario.Scenario{p.scenario})
	if err != nil {
		return err
	}
	label := "live"
	if p.policy != nil {
		label = p.policy.Label + " live"
	}
	head.Baseline = label
	var folder *report.Writer
	if f.out != "" {
		if folder, err = report.Create(f.out, head, f.overwrite); err != nil {
			return err
		}
	}
	seen, late, notes, err := f.send(cmd, p)
	if err != nil {
		return err
	}
	length := p.source.Length()
	var early error
	if cmd.Context().Err() != nil { // what was sent until then is still worth a record
		early = fmt.Errorf("replay: stopped after %v of %v: %w", late.Round(time.Millisecond), length, context.Cause(cmd.Context()))
		length = min(length, late)
		notes = append(notes, "It ended early: "+early.Error())
	}
	cfg := live.Config{Policy: label, Trace: p.source.Name(), Scenario: &p.scenario, Seed: f.firstSeed, Length: max(length, 1), Points: f.points}
	runs := report.Runs{live.Run(cfg, seen)}
	if p.policy != nil && early == nil {
		run, err := f.simulateSame(cmd.Context(), p, seen)
		if err != nil {
			return err
		}
		runs = append(runs, run)
	}
	for _, run := range runs {
		head.Results = append(head.Results, run.Result)
	}
	return errors.Join(early, f.keep(cmd, head, folder, runs, seen, notes))
}

// simulateSame runs the simulator on the same requests.
func (f *replayFlags) simulateSame(ctx context.Context, p replayPlan, seen live.Seen) (score.Run, error) {
	s := p.scenario
	if seen.Cluster != nil {
		s.InitialReplicas = seen.Cluster.ReadyAtStart()
		s.MaxReplicas = max(s.MaxReplicas, s.InitialReplicas)
	}
	job := plan.Job{Source: p.source, Scenario: s, Policy: *p.policy, Seed: f.firstSeed}
	return job.Run(ctx, plan.Options{Points: f.points, Explain: f.explain}, nil)
}

// send replays, and returns what was seen and when the last of it was.
func (f *replayFlags) send(cmd *cobra.Command, p replayPlan) (seen live.Seen, late time.Duration, notes []string, err error) {
	ctx := cmd.Context()
	g, err := load.New(f.loadConfig())
	if err != nil {
		return seen, 0, nil, err
	}
	defer g.Close()
	rec := &live.Recorder{}
	stop := func() {}
	if f.target.deployment != "" {
		if stop, err = f.target.watch(ctx, rec); err != nil {
			return seen, 0, nil, err
		}
	}
	if !f.template.TellsWork() {
		notes = append(notes, "The URL does not say how long to work, so work counts as 0 and waits are whole latencies.")
	}
	calls := f.template.Calls(scenario.Requests(p.source, &p.scenario, f.firstSeed), f.maxRequests, func() {
		notes = append(notes, fmt.Sprintf("There were more than --max-requests = %d requests; the rest was not sent.", f.maxRequests))
	})
	var telling sync.WaitGroup
	sending, done := context.WithCancel(ctx)
	telling.Go(func() { tellReplay(sending, cmd.ErrOrStderr(), g, rec, f.target.deployment != "", p.source.Length()) })
	result := g.Follow(ctx, p.source.Length(), calls)
	late = time.Since(result.Start)
	done()
	telling.Wait()
	stop()
	seen = live.Seen{Start: result.Start, Requests: result.Records}
	if f.target.deployment != "" {
		seen.Cluster = rec.Cluster(result.Start)
	}
	s := result.Summary()
	fmt.Fprintf(cmd.ErrOrStderr(), "%v in %v\n", s, late.Round(time.Millisecond))
	if s.Late > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d requests left more than %v after their instant: the sender was short of time or of places, and the waits include that.", s.Late, s.Sent, load.LateAfter))
	}
	return seen, late, notes, nil
}

// tellReplay says every five seconds how far it is.
func tellReplay(ctx context.Context, w io.Writer, g *load.Generator, rec *live.Recorder, watched bool, length time.Duration) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	begun := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		pods := ""
		if watched {
			pods = fmt.Sprintf(", %d pods ready", rec.Ready())
		}
		c, took := g.Counts(), time.Since(begun)
		fmt.Fprintf(w, "%3.0f %% of %v: %d sent, %d in flight, %d lost, %d late%s\n",
			min(100, 100*took.Seconds()/length.Seconds()), length, c.Sent, c.InFlight, c.Lost, c.Late, pods)
	}
}

// keep writes the folder, if there is one, and prints.
func (f *replayFlags) keep(cmd *cobra.Command, head report.Summary, folder *report.Writer, runs report.Runs, seen live.Seen, notes []string) error {
	if folder == nil {
		head.Notes = notes
		if err := present(cmd, report.Summarize(head), runs, report.RenderOptions{}); err != nil {
			return err
		}
		return f.lay(cmd, runs)
	}
	for i, run := range runs {
		if err := folder.Put(i, run); err != nil {
			return err
		}
	}
	summary, err := folder.Finish(notes...)
	if err != nil {
		return err
	}
	err = errors.Join(
		writeOut(filepath.Join(f.out, "seen.json.gz"), func(w io.Writer) error {
			z := gzip.NewWriter(w)
			return errors.Join(json.NewEncoder(z).Encode(seen), z.Close())
		}),
		writeOut(filepath.Join(f.out, "latency.hgrm"), func(w io.Writer) error { return latencies(w, seen.Requests) }))
	if err != nil {
		return err
	}
	written, err := report.Open(f.out)
	if err != nil {
		return err
	}
	if err := present(cmd, summary, written, report.RenderOptions{}); err != nil {
		return err
	}
	return f.lay(cmd, runs)
}

// lay prints simulated beside live.
func (f *replayFlags) lay(cmd *cobra.Command, runs report.Runs) error {
	if len(runs) < 2 {
		return nil
	}
	fmt.Fprintln(cmd.OutOrStdout())
	return live.Text(cmd.OutOrStdout(), live.Compare(runs[1].Result, runs[0].Result, f.target.deployment != ""))
}

// latencies writes the percentile distribution of the answered requests, from their intended instants, in milliseconds.
func latencies(w io.Writer, all []load.Record) error {
	const top, digits = 10 * 60 * 1000 * 1000, 3 // ten minutes in microseconds
	h := hdrhistogram.New(1, top, digits)
	for _, r := range all {
		if !r.OK() {
			continue
		}
		if err := h.RecordValue(min(max(r.Latency().Microseconds(), 1), top)); err != nil {
			return fmt.Errorf("count a latency of %v: %w", r.Latency(), err)
		}
	}
	_, err := h.PercentilesPrint(w, 5, 1000)
	return err
}

func writeOut(path string, write func(io.Writer) error) (err error) {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := write(out); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
