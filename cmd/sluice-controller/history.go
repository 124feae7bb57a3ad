package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/prom"
	"github.com/sluice-autoscaler/sluice/scaler/history"
	"github.com/sluice-autoscaler/sluice/wire"
)

// maxHistoryPoints bounds what is read of one signal of a workload: 90 days in steps of a minute
// are 129,600 points, and about 6 MB.
const maxHistoryPoints = 130_000

// historyFlags say where policies that learn get the past of a workload.
type historyFlags struct {
	prometheus, query, rateQuery, tokenFile string
	span, step                              time.Duration
}

// defaultHistoryQuery is for a counter of the sidecars.
func defaultHistoryQuery(counter string) string { return string(prom.Rate(counter)) }

func (f *historyFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.prometheus, "history-prometheus", "", "`URL` of a Prometheus with the past of workloads, for policies that learn from it (default: they begin without)")
	fs.DurationVar(&f.span, "history-range", 14*24*time.Hour, "how much of the past is learnt, 1h–2160h")
	fs.DurationVar(&f.step, "history-step", time.Minute, "time between its points, 15s–1h; at least twice Prometheus's scrape interval")
	fs.StringVar(&f.query, "history-query", defaultHistoryQuery(wire.ConcurrencySeconds),
		"requests in flight, as `PROMQL` with one series as its result; {namespace}, {name}, {pods} (a regular expression) and {step} are filled in")
	fs.StringVar(&f.rateQuery, "history-rate-query", defaultHistoryQuery(wire.Requests), "requests per second, as `PROMQL` of the same kind")
	fs.StringVar(&f.tokenFile, "history-bearer-token-file", "", "a `FILE` with a token for Prometheus, read again for each request")
}

// validate reports every fault.
func (f *historyFlags) validate() error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	spanOK, stepOK := f.span >= time.Hour && f.span <= 2160*time.Hour, f.step >= 15*time.Second && f.step <= time.Hour && f.step%time.Second == 0
	bad(spanOK, "--history-range = %v: want 1h–2160h", f.span)
	bad(stepOK, "--history-step = %v: want 15s–1h, in whole seconds", f.step)
	if spanOK && stepOK {
		bad(f.span >= f.step && f.span/f.step <= maxHistoryPoints, "--history-range = %v in steps of --history-step = %v are %d points: want at most %d, so a shorter range or longer steps",
			f.span, f.step, f.span/f.step, maxHistoryPoints)
	}
	for _, q := range []struct{ flag, template string }{{"history-query", f.query}, {"history-rate-query", f.rateQuery}} {
		err := checkTemplate(q.template)
		bad(err == nil, "--%s = %q: %w", q.flag, q.template, err)
	}
	if f.prometheus == "" {
		for _, o := range []struct{ flag, value, unset string }{
			{"history-query", f.query, defaultHistoryQuery(wire.ConcurrencySeconds)},
			{"history-rate-query", f.rateQuery, defaultHistoryQuery(wire.Requests)},
			{"history-bearer-token-file", f.tokenFile, ""},
		} {
			bad(o.value == o.unset, "--%s = %q without --history-prometheus: want both", o.flag, o.value)
		}
		return errors.Join(errs...)
	}
	_, err := prom.NewClient(f.prometheus, prom.Auth{})
	bad(err == nil, "--history-prometheus = %w", err)
	if f.tokenFile != "" {
		_, err := os.ReadFile(f.tokenFile)
		bad(err == nil, "--history-bearer-token-file = %q: want a file that can be read: %w", f.tokenFile, err)
	}
	return errors.Join(errs...)
}

// checkTemplate fills in a query as for a workload whose names need no escape.
func checkTemplate(query string) error {
	if strings.TrimSpace(query) == "" {
		return errors.New("want a query, such as " + defaultHistoryQuery(wire.ConcurrencySeconds))
	}
	_, err := prom.Template(query).Expand(prom.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}, time.Minute)
	return err
}

// reader relies on validate.
func (f *historyFlags) reader(log *slog.Logger) (*history.Reader, error) {
	p, err := prom.NewClient(f.prometheus, prom.Auth{BearerTokenFile: f.tokenFile})
	if err != nil {
		return nil, fmt.Errorf("--history-prometheus: %w", err)
	}
	return history.NewReader(history.Config{
		Client: p, Setting: "--history-prometheus", Range: f.span, Step: f.step, Log: log,
		Queries: []history.Query{
			{Signal: algorithms.Concurrency, Template: prom.Template(f.query), Setting: "--history-query"},
			{Signal: algorithms.Rate, Template: prom.Template(f.rateQuery), Setting: "--history-rate-query"},
		},
	}), nil
}
