package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sluice-autoscaler/sluice/algorithms"
	"github.com/sluice-autoscaler/sluice/bench/history"
	"github.com/sluice-autoscaler/sluice/scaler/actuate"
	"github.com/sluice-autoscaler/sluice/wire"
)

// maxHistoryPoints bounds what is read of one signal of a workload: 90 days in steps of a minute are 129,600 points, and about 6 MB.
const maxHistoryPoints = 130_000

// historyFlags say where policies that learn get the past of a workload.
type historyFlags struct {
	prometheus, query, rateQuery, tokenFile string
	span, step                              time.Duration
}

// defaultHistoryQuery is for a counter of the sidecars.
func defaultHistoryQuery(counter string) string {
	return `sum(rate(` + counter + `{namespace="{namespace}",pod=~"{pods}"}[{step}]))`
}

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
	sample := actuate.Target{Namespace: "shop"}
	sample.Ref.Kind, sample.Ref.Name = "Deployment", "web"
	for _, q := range []struct{ flag, template string }{{"history-query", f.query}, {"history-rate-query", f.rateQuery}} {
		_, err := expand(q.template, sample, time.Minute)
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
	_, err := history.NewPrometheus(f.prometheus, history.Auth{})
	bad(err == nil, "--history-prometheus = %w", err)
	if f.tokenFile != "" {
		_, err := os.ReadFile(f.tokenFile)
		bad(err == nil, "--history-bearer-token-file = %q: want a file that can be read: %w", f.tokenFile, err)
	}
	return errors.Join(errs...)
}

// prometheusHistory reads the past of workloads as the flags say. It is safe for concurrent use.
type prometheusHistory struct {
	historyFlags
	from *history.Prometheus
	log  *slog.Logger
}

// open relies on validate.
func (f *historyFlags) open(log *slog.Logger) (*prometheusHistory, error) {
	p, err := history.NewPrometheus(f.prometheus, history.Auth{BearerTokenFile: f.tokenFile})
	if err != nil {
		return nil, fmt.Errorf("--history-prometheus: %w", err)
	}
	return &prometheusHistory{historyFlags: *f, from: p, log: log}, nil
}

// Fetch implements scaler.History. Other signals than concurrency and rate are unknown.
func (h *prometheusHistory) Fetch(ctx context.Context, t actuate.Target, signals []string, until time.Time) ([]algorithms.Sample, error) {
	var all []algorithms.Sample
	for _, q := range []struct{ signal, flag, template string }{
		{algorithms.Concurrency, "history-query", h.query}, {algorithms.Rate, "history-rate-query", h.rateQuery},
	} {
		if !slices.Contains(signals, q.signal) {
			continue
		}
		promQL, err := expand(q.template, t, h.step)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w; see --%s", q.signal, t, err, q.flag)
		}
		series, warnings, err := h.from.Query(ctx, history.Range{PromQL: promQL, From: until.Add(-h.span), To: until, Step: h.step})
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w; see --history-prometheus and --%s", q.signal, t, err, q.flag)
		}
		if len(warnings) > 0 || series.Odd > 0 {
			h.log.WarnContext(ctx, "history read with doubts", slog.String("target", t.String()), slog.String("signal", q.signal),
				slog.Any("prometheus_warnings", warnings), slog.Int("values_negative_or_infinite", series.Odd))
		}
		all = append(all, series.Widen(h.step).Samples(q.signal)...) // the window of the rates is a step
	}
	slices.SortStableFunc(all, func(a, b algorithms.Sample) int { return a.At.Compare(b.At) })
	return all, nil
}

// Placeholders of a query.
const (
	holdNamespace, holdName, holdPods, holdStep = "{namespace}", "{name}", "{pods}", "{step}"
)

// generated is what Kubernetes makes up of characters in names.
const generated = "[bcdfghjklmnpqrstvwxz2456789]"

// podNames is a regular expression of the names that the pods of a workload have, anchored as Prometheus anchors. Kinds that Kubernetes does
// not have itself are taken to name their pods as a Deployment does. Names of more than 47 characters are cut in those of pods, and not found.
func podNames(t actuate.Target) string {
	name := regexp.QuoteMeta(t.Ref.Name)
	switch t.Ref.Kind {
	case "StatefulSet":
		return name + "-[0-9]+"
	case "ReplicaSet":
		return name + "-" + generated + "{5}"
	}
	return name + "-" + generated + "{6,10}-" + generated + "{5}"
}

// expand fills in the placeholders of a query. Names are escaped as the place takes it: in a string, in a string after =~ or !~, which is a
// regular expression, or in backquotes, where nothing can be escaped.
func expand(template string, t actuate.Target, step time.Duration) (string, error) {
	var out strings.Builder
	var quote byte // of the string that we are in, 0 outside
	var pattern bool
	for i := 0; i < len(template); {
		rest := template[i:]
		hold := ""
		for _, h := range []string{holdNamespace, holdName, holdPods, holdStep} {
			if strings.HasPrefix(rest, h) {
				hold = h
			}
		}
		if hold != "" {
			value, err := fill(hold, t, step, quote, pattern)
			if err != nil {
				return "", err
			}
			out.WriteString(value)
			i += len(hold)
			continue
		}
		n := 1
		switch c := rest[0]; {
		case quote == 0 && c == '#': // a comment up to the end of the line
			if n = strings.IndexByte(rest, '\n'); n < 0 {
				n = len(rest)
			}
		case quote == 0 && (c == '"' || c == '\'' || c == '`'):
			before := strings.TrimRight(template[:i], " \t\r\n")
			quote, pattern = c, strings.HasSuffix(before, "=~") || strings.HasSuffix(before, "!~")
		case quote == c:
			quote = 0
		case quote != 0 && quote != '`' && c == '\\':
			n = min(2, len(rest))
		}
		out.WriteString(rest[:n])
		i += n
	}
	switch {
	case quote != 0:
		return "", fmt.Errorf("a string is not closed: want another %c", quote)
	case strings.TrimSpace(template) == "":
		return "", errors.New("want a query, such as " + defaultHistoryQuery(wire.ConcurrencySeconds))
	}
	return out.String(), nil
}

// fill is what stands in the place of a placeholder.
func fill(hold string, t actuate.Target, step time.Duration, quote byte, pattern bool) (string, error) {
	if hold == holdStep {
		return fmt.Sprintf("%ds", int(step.Seconds())), nil
	}
	if quote == 0 {
		return "", fmt.Errorf("%s stands outside of a string: want it in quotes, such as namespace=\"{namespace}\"", hold)
	}
	if hold == holdPods && !pattern {
		return "", errors.New(`{pods} is a regular expression: want it after =~, such as pod=~"{pods}"`)
	}
	value := podNames(t)
	if hold != holdPods {
		value = t.Namespace
		if hold == holdName {
			value = t.Ref.Name
		}
		if pattern {
			value = regexp.QuoteMeta(value)
		}
	}
	if quote == '`' {
		if strings.Contains(value, "`") {
			return "", fmt.Errorf("%q cannot stand in backquotes: want %s in double quotes", value, hold)
		}
		return value, nil
	}
	return strings.NewReplacer(`\`, `\\`, string(quote), `\`+string(quote), "\n", `\n`).Replace(value), nil
}
