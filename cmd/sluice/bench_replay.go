package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-autoscaler/sluice/bench/flags"
	"github.com/sluice-autoscaler/sluice/bench/folder"
	"github.com/sluice-autoscaler/sluice/bench/load"
	"github.com/sluice-autoscaler/sluice/bench/plan"
	"github.com/sluice-autoscaler/sluice/bench/replay"
	"github.com/sluice-autoscaler/sluice/bench/report"
	"github.com/sluice-autoscaler/sluice/bench/scenario"
	"github.com/sluice-autoscaler/sluice/bench/summary"
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
	flags.Bench
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
	f.AddLoads(c.Flags())
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
	fl.Uint64Var(&f.FirstSeed, "seed", 1, "seed of arrivals and work")
	f.AddScenario(c.Flags(), "")
	f.AddOutput(c.Flags())
	return c
}

// plan checks the flags and reports every fault.
func (f *replayFlags) plan(cmd *cobra.Command) (*replay.Replay, error) {
	p := &replay.Replay{Seed: f.FirstSeed, MaxRequests: f.maxRequests, Points: f.Points, Explain: f.Explain, Stderr: cmd.ErrOrStderr()}
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
		} else if !f.mine {
			if err := replay.CheckLoopback(cmd.Context(), f.loadConfig().URL); err != nil {
				errs = append(errs, fmt.Errorf("--url: %w", err))
			}
		}
	}
	scenes, err := f.ReadScenarios()
	errs = append(errs, err)
	bad(err != nil || len(scenes) == 1, "--scenario: %d are given: want one", len(scenes))
	f.Stdin, f.Stderr = cmd.InOrStdin(), cmd.ErrOrStderr()
	errs = append(errs, f.CheckWorkers())
	loads, err := f.ReadLoads()
	errs = append(errs, err)
	bad(err != nil || len(loads) == 1, "%d loads are given: want one --trace, --generate or --log", len(loads))
	if f.policy != "" {
		got, err := plan.ParsePolicy(known(), f.policy)
		if err != nil {
			errs = append(errs, fmt.Errorf("--policy: %w", err))
		}
		p.Policy = &got
	}
	if err := errors.Join(errs...); err != nil {
		return p, err
	}
	p.Template, p.Load = f.template, f.loadConfig()
	if f.target.deployment != "" {
		p.Watch = f.target.watch
	}
	p.Scenario = scenes[0]
	if p.Source, err = loads[0](&p.Scenario); err != nil {
		return p, err
	}
	if p.Source.Length() > f.maxDuration {
		return p, fmt.Errorf("the load lasts %v: want at most --max-duration = %v, so cut it with --from and --to, or raise that", p.Source.Length(), f.maxDuration)
	}
	return p, nil
}

func (f *replayFlags) loadConfig() load.Config {
	c := load.Default()
	c.URL = f.template.Call(0, trace.Request{}).URL
	c.Host, c.Timeout, c.FreshShare, c.MaxInFlight, c.Seed = f.host, f.timeout, f.fresh, f.inFlight, f.FirstSeed
	return c
}

func (f *replayFlags) replay(cmd *cobra.Command) error {
	p, err := f.plan(cmd)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	head, err := f.Head([]scenario.Scenario{p.Scenario})
	if err != nil {
		return err
	}
	head.Baseline = p.Label()
	var writer *folder.Writer
	if f.Out != "" {
		if writer, err = folder.Create(f.Out, head, f.Overwrite); err != nil {
			return err
		}
	}
	o, early, err := p.Run(cmd.Context())
	if err != nil {
		return err
	}
	for _, run := range o.Runs {
		head.Results = append(head.Results, run.Result)
	}
	if err := f.present(cmd, head, writer, o); err != nil {
		return errors.Join(early, err)
	}
	return errors.Join(early, p.Compare(cmd.OutOrStdout(), o))
}

// present writes the folder, if there is one, and prints.
func (f *replayFlags) present(cmd *cobra.Command, head summary.Summary, writer *folder.Writer, o *replay.Outcome) error {
	r := f.Runner(cmd.OutOrStdout(), cmd.ErrOrStderr())
	if writer == nil {
		head.Notes = o.Notes
		return r.Present(summary.Summarize(head), o.Runs, report.Options{})
	}
	for i, run := range o.Runs {
		if err := writer.Put(i, run); err != nil {
			return err
		}
	}
	sum, err := writer.Finish(o.Notes...)
	if err != nil {
		return err
	}
	if err := replay.WriteRecords(f.Out, o.Seen); err != nil {
		return err
	}
	written, err := folder.Open(f.Out)
	if err != nil {
		return err
	}
	return r.Present(sum, written, report.Options{})
}
