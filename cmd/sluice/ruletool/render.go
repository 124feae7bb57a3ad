package ruletool

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sluice-autoscaler/sluice/adapter/rules"
	"github.com/sluice-autoscaler/sluice/adapter/rules/config"
	"github.com/sluice-autoscaler/sluice/adapter/rules/mapping"
	"github.com/sluice-autoscaler/sluice/internal/cli"
	"github.com/sluice-autoscaler/sluice/prom/promql"
)

const rulesRenderLong = `Print the metrics that rules make, with the queries that are sent for them.

The series come from a Prometheus, or from a file with one series a line, such as http_requests_total{namespace="shop",pod="web-1"}. Of each
name Prometheus is asked for one series, so that this costs little on a large one. A metric whose series have other labels, too, may be of
more kinds of objects than shown.`

// renderFlags are those of rules render.
type renderFlags struct {
	prometheus, series, namespace, selector, output string
	objects                                         []string
}

func rulesRender() *cobra.Command {
	var f renderFlags
	c := &cobra.Command{
		Use: "render FILE {--prometheus URL|--series FILE}", Short: "Print the names and queries of rules", Long: rulesRenderLong, Args: usage(cobra.ExactArgs(1)),
		Example: `  sluice rules render config.yaml --prometheus http://prometheus:9090
  sluice rules render config.yaml --series series.txt -n shop --object web-1 --object web-2`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	c.Flags().StringVar(&f.prometheus, "prometheus", "", "the `URL` of a Prometheus")
	c.Flags().StringVar(&f.series, "series", "", "a `FILE` of series, one a line")
	c.Flags().StringVarP(&f.namespace, "namespace", "n", "NAMESPACE", "the namespace to ask for")
	c.Flags().StringArrayVar(&f.objects, "object", []string{"NAME"}, "an object to ask for; repeatable")
	c.Flags().StringVar(&f.selector, "selector", "", "the metric selector to ask with")
	c.Flags().StringVarP(&f.output, "output", "o", "", "json prints the list as JSON")
	return c
}

// rendered is one metric with its query.
type rendered struct {
	Metric string `json:"metric"`
	Rule   string `json:"rule"`
	Series string `json:"series"`
	PromQL string `json:"promql,omitempty"`
	// Window is the longest range that the query reads.
	Window string `json:"window,omitempty"`
	// Group serves all objects of a namespace, where one query can.
	Group string `json:"group,omitempty"`
	// Single says why one query cannot.
	Single string `json:"single,omitempty"`
	Error  string `json:"error,omitempty"`
}

func (f *renderFlags) run(cmd *cobra.Command, name string) error {
	selector, err := labels.Parse(f.selector)
	switch {
	case (f.prometheus == "") == (f.series == ""):
		return fmt.Errorf("want --prometheus or --series: %w", cli.ErrUsage)
	case f.output != "" && f.output != "json":
		return fmt.Errorf("--output = %q: want json: %w", f.output, cli.ErrUsage)
	case err != nil:
		return fmt.Errorf("--selector: %w: %w", err, cli.ErrUsage)
	}
	c, err := readRules(cmd, name)
	if err != nil {
		return err
	}
	set, err := rules.Compile(c, rules.Options{Mapper: mapping.New(mapping.Kubernetes())})
	if err != nil {
		return fmt.Errorf("%s: %s", name, strings.Join(config.Explain(err), "\n"))
	}
	list := f.fromFile
	if f.prometheus != "" {
		list = f.fromPrometheus
	}
	listings, err := list(cmd, set)
	if err != nil {
		return err
	}
	registry := set.Registry(listings)
	all := f.render(registry, selector)
	errs := registry.Errors()
	if f.output == "json" {
		err = writeJSON(cmd.OutOrStdout(), all)
	} else {
		for _, r := range all {
			fmt.Fprintf(cmd.OutOrStdout(), "%s  from %s by %s\n", r.Metric, r.Series, r.Rule)
			for _, line := range []struct{ what, text string }{{"one", r.PromQL}, {"all", r.Group}, {"single", r.Single}, {"error", r.Error}} {
				if line.text != "" {
					fmt.Fprintf(cmd.OutOrStdout(), "  %-6s  %s\n", line.what, strings.ReplaceAll(strings.TrimSpace(line.text), "\n", "\n          "))
				}
			}
		}
	}
	for _, r := range set.Rules() {
		if errs[r] != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "sluice: %s: %v\n", r.Field, errs[r])
		}
	}
	if err == nil && len(errs) > 0 {
		err = fmt.Errorf("%d rules make no metrics, or fewer than they should", len(errs))
	}
	return err
}

// render renders the query of each metric.
func (f *renderFlags) render(registry *rules.Registry, selector labels.Selector) []rendered {
	all := []rendered{}
	one := func(name string, m *rules.Metric, namespace string, err error) {
		r := rendered{Metric: name}
		asked := rules.Asked{Namespace: namespace, Names: f.objects, Selector: selector}
		var q rules.Query
		if m != nil {
			r.Rule, r.Series = m.Rule.Field, m.Series
		}
		if err == nil {
			q, err = m.Query(asked)
			r.PromQL = q.PromQL
			if q.Parsed != nil && q.Parsed.Window() > 0 {
				r.Window = q.Parsed.Window().String()
			}
		}
		if err != nil {
			r.Error = err.Error()
		} else if !m.Rule.External {
			if g, ok, why, err := m.Group(asked); err == nil && ok {
				r.Group = g.PromQL
			} else {
				r.Single = why
			}
		}
		all = append(all, r)
	}
	for _, info := range registry.Custom() {
		namespace := ""
		if info.Namespaced {
			namespace = f.namespace
		}
		m, err := registry.Describes(info.GroupResource, info.Namespaced, info.Metric)
		one(info.String(), m, namespace, err)
	}
	for _, name := range registry.External() {
		m, err := registry.ExternalMetric(f.namespace, name)
		one("external/"+name, m, f.namespace, err)
	}
	return all
}

// maxSeriesFile bounds a file of series, in bytes.
const maxSeriesFile = 256 << 20

// fromFile lists the series of a file.
func (f *renderFlags) fromFile(cmd *cobra.Command, set *rules.Set) (map[*rules.Rule]rules.Listing, error) {
	text, err := readFile(f.series, cmd.InOrStdin(), maxSeriesFile)
	if err != nil {
		return nil, err
	}
	out := map[*rules.Rule]rules.Listing{}
	n := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		n++
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		series, err := promql.ParseSeries(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", f.series, n, err)
		}
		for _, r := range set.Rules() {
			if r.Err == nil && r.Selector.Matches(series) {
				l := out[r]
				l.Series = append(l.Series, seriesOf(series))
				out[r] = l
			}
		}
	}
	return out, nil
}

// seriesOf takes the name out of a series' labels.
func seriesOf[S ~string](series map[S]string) rules.Series {
	s := rules.Series{}
	for name, value := range series {
		if name == "__name__" {
			s.Name = value
		} else {
			s.Labels = append(s.Labels, string(name))
		}
	}
	slices.Sort(s.Labels)
	return s
}

const (
	// renderTimeout bounds one request to a Prometheus.
	renderTimeout = 30 * time.Second
	// renderAge is how old a series may be.
	renderAge = 10 * time.Minute
)

// fromPrometheus asks for the names that each rule selects, and for one series of each name.
func (f *renderFlags) fromPrometheus(cmd *cobra.Command, set *rules.Set) (map[*rules.Rule]rules.Listing, error) {
	client, err := api.NewClient(api.Config{Address: f.prometheus, Client: &http.Client{Timeout: renderTimeout}})
	if err != nil {
		return nil, fmt.Errorf("--prometheus %q: %w: %w", f.prometheus, err, cli.ErrUsage)
	}
	prometheus, now := v1.NewAPI(client), time.Now()
	out := map[*rules.Rule]rules.Listing{}
	known := map[string]rules.Listing{}
	for _, r := range set.Rules() {
		if r.Err != nil {
			continue
		}
		l, ok := known[r.Config.SeriesQuery]
		if !ok {
			l.Series, l.Err = listSeries(cmd.Context(), prometheus, r.Config.SeriesQuery, now)
			known[r.Config.SeriesQuery] = l
		}
		if _, refused := errors.AsType[*v1.Error](l.Err); l.Err != nil && !refused {
			return nil, fmt.Errorf("ask %s: %w", f.prometheus, l.Err)
		}
		out[r] = l
	}
	return out, nil
}

// listSeries asks for a series of each name that a selector selects.
func listSeries(ctx context.Context, prometheus v1.API, selector string, now time.Time) ([]rules.Series, error) {
	names, _, _, err := prometheus.LabelValues(ctx, "__name__", []string{selector}, now.Add(-renderAge), now)
	if err != nil {
		return nil, err
	}
	parsed, err := promql.ParseSelector(selector)
	if err != nil {
		return nil, err
	}
	var all []rules.Series
	for _, name := range names {
		found, _, _, err := prometheus.Series(ctx, []string{parsed.Named(string(name))}, now.Add(-renderAge), now, v1.WithLimit(1))
		if err != nil {
			return nil, err
		}
		for _, s := range found[:min(1, len(found))] {
			labels := map[string]string{}
			for k, v := range s {
				labels[string(k)] = string(v)
			}
			all = append(all, seriesOf(labels))
		}
	}
	return all, nil
}
