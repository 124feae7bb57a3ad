// Package benchadapter measures two metrics adapters on one Prometheus: prometheus-adapter v0.12.0
// and Sluice's. Both get the same file of rules, the same series and the same GETs, in turns, on a
// real API server. It also measures what collecting from sidecars costs.
//
// An HPA metric is a metric that a HorizontalPodAutoscaler reads: of one of 100 workloads of a
// namespace, and one name. So 1,000 HPA metrics are 10 names of 100 workloads. The bench itself
// sends the GETs, each metric once in 15 s, as the controller of HorizontalPodAutoscalers does.
//
// summary.json has
//
//	runs        adapter, metrics (HPA metrics), pods (of a workload), series (in Prometheus),
//	            prometheusLatencyMs (added to each request), getP50Ms and getP99Ms (from a GET to the
//	            end of its answer; one that failed counts with the time to 3 s after the window),
//	            queries (requests to Prometheus in the window), rssMiB (the most since its start),
//	            cpuSecondsPer1000Gets (of the adapter's process). Besides: names (metric names that
//	            the HPA metrics share), gets, failed (no answer, or not 200), windowSeconds,
//	            discoveryBytes, firstAnswerSeconds (from the start of the process)
//	newSeries   adapter, what (a series of a known name, or of a new name), seconds from the write of
//	            the series to the first answer with it; null: none within boundSeconds
//	collection  sidecars, readsPerSecond (that the sidecars answered), cores, rssMiB
//	goals       goal, of (the run), got, met
//	skipped     what was left out, since the time was up
//
// The adapters are sluice, prometheus-adapter with its default flags, and
// prometheus-adapter-unthrottled, the same with --client-qps and --client-burst raised: by default
// it lists pods at the API server at most 5 times a second.
package benchadapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

// Options say what to run.
type Options struct {
	Place kit.Place
	// Upstream is the program of prometheus-adapter v0.12.0, Prometheus that of a Prometheus.
	Upstream, Prometheus string
	// Out is the folder for summary.json and the logs of the adapters.
	Out string
	// Quick takes one size of each kind.
	Quick bool
	// Limit bounds the whole. What has not begun by then is left out.
	Limit          time.Duration
	Stdout, Stderr io.Writer
}

// Run is one row of runs.
type Run struct {
	Adapter               string  `json:"adapter"`
	Metrics               int     `json:"metrics"`
	Pods                  int     `json:"pods"`
	Series                int     `json:"series"`
	PrometheusLatencyMs   int     `json:"prometheusLatencyMs"`
	GetP50Ms              float64 `json:"getP50Ms"`
	GetP99Ms              float64 `json:"getP99Ms"`
	Queries               int     `json:"queries"`
	RSSMiB                float64 `json:"rssMiB"`
	CPUSecondsPer1000Gets float64 `json:"cpuSecondsPer1000Gets"`
	Names                 int     `json:"names"`
	Gets                  int     `json:"gets"`
	Failed                int     `json:"failed"`
	WindowSeconds         float64 `json:"windowSeconds"`
	DiscoveryBytes        int     `json:"discoveryBytes"`
	FirstAnswerSeconds    float64 `json:"firstAnswerSeconds"`
}

// NewSeries is one row of newSeries.
type NewSeries struct {
	Adapter string `json:"adapter"`
	What    string `json:"what"`
	// Seconds is nil when there was no answer within BoundSeconds.
	Seconds      *float64 `json:"seconds"`
	BoundSeconds float64  `json:"boundSeconds"`
}

// Collection is one row of collection.
type Collection struct {
	Sidecars       int     `json:"sidecars"`
	ReadsPerSecond float64 `json:"readsPerSecond"`
	Cores          float64 `json:"cores"`
	RSSMiB         float64 `json:"rssMiB"`
}

// Summary is what is written.
type Summary struct {
	Quick      bool         `json:"quick"`
	Runs       []Run        `json:"runs"`
	NewSeries  []NewSeries  `json:"newSeries"`
	Collection []Collection `json:"collection"`
	Goals      []Goal       `json:"goals"`
	Skipped    []string     `json:"skipped"`
}

// The names of the adapters in the summary.
const (
	sluice      = "sluice"
	upstream    = "prometheus-adapter"
	unthrottled = "prometheus-adapter-unthrottled"
	minutely    = "prometheus-adapter-relist-1m"
)

// shape is what is measured side by side on one filled Prometheus.
type shape struct {
	metrics, pods, series int
	// own gives each HPA metric a name that no other one has.
	own       bool
	latencies []time.Duration
	adapters  []string
	// unthrottledAt is the latency at which the unthrottled one runs, too.
	unthrottledAt time.Duration
	// fresh measures new series as well.
	fresh bool
	// span is how long a window is, 0 for what fits the number of metrics.
	span time.Duration
}

// names are the metric names that HPAs ask for.
func (s *shape) names() int {
	if s.own {
		return s.metrics
	}
	return s.metrics / workloads
}

// String names the shape for people.
func (s *shape) String() string {
	text := fmt.Sprintf("%d HPA metrics of %d names, %d pods each, %d series", s.metrics, s.names(), s.pods, s.series)
	if s.own {
		text += ", a name for each"
	}
	return text
}

// quickWindow is how long windows are in a quick run.
const quickWindow = 5 * time.Second

// plan is what is run: the shapes, and the numbers of sidecars.
func plan(quick bool) (shapes []shape, sidecars []int) {
	const ms = time.Millisecond
	both := []string{sluice, upstream}
	if quick {
		return []shape{
			{metrics: 1000, pods: 10, series: 10_000, latencies: []time.Duration{50 * ms}, adapters: both, unthrottledAt: 50 * ms, span: quickWindow},
			{metrics: 1000, pods: 10, series: 300_000, latencies: []time.Duration{ms}, adapters: both, span: quickWindow},
		}, []int{1000}
	}
	all := []time.Duration{ms, 50 * ms, 500 * ms}
	for _, pods := range []int{10, 100} {
		for _, metrics := range []int{100, 1000, 5000} {
			shapes = append(shapes, shape{
				metrics: metrics, pods: pods, series: metrics * pods, latencies: all, adapters: both, unthrottledAt: 50 * ms, fresh: pods == 10 && metrics == 100,
			})
		}
	}
	shapes = append(
		shapes,
		shape{metrics: 1000, pods: 100, series: 300_000, latencies: all[:1], adapters: both},
		shape{metrics: 1000, pods: 100, series: 1_000_000, latencies: all[:1], adapters: both},
		shape{metrics: 1000, pods: 100, series: 100_000, own: true, latencies: all[1:2], adapters: []string{sluice}, unthrottledAt: 50 * ms},
	)
	return shapes, []int{1000, 3000, 10_000}
}

// Measure measures all, prints it, and writes summary.json. Unless it is quick it fails when a goal
// is missed.
func Measure(ctx context.Context, o Options) error {
	log := slog.New(slog.DiscardHandler)
	// the client's library would write to stderr
	klog.SetLogger(logr.FromSlogHandler(log.Handler()))
	ctx, cancel := context.WithTimeout(ctx, o.Limit)
	defer cancel()
	if err := os.MkdirAll(filepath.Join(o.Out, "logs"), 0o755); err != nil { //nolint:gosec // results for everybody
		return fmt.Errorf("make the folder of results: %w", err)
	}
	s := Summary{Quick: o.Quick, Runs: []Run{}, NewSeries: []NewSeries{}, Collection: []Collection{}, Skipped: []string{}}
	failed := measure(ctx, o, &s)
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		failed = nil // what was measured by then counts
	}
	s.Goals = goals(&s)
	if err := write(o.Out, s); err != nil {
		return err
	}
	missed := report(o.Stdout, &s)
	fmt.Fprintf(o.Stdout, "wrote %s\n", filepath.Join(o.Out, "summary.json"))
	if o.Quick {
		return failed
	}
	return errors.Join(failed, missed)
}

// measure fills the summary, as far as the time allows.
func measure(ctx context.Context, o Options, s *Summary) error {
	shapes, sidecars := plan(o.Quick)
	todo := make([]string, 0, len(shapes)+len(sidecars))
	for i := range shapes {
		todo = append(todo, shapes[i].String())
	}
	for _, n := range sidecars {
		todo = append(todo, fmt.Sprintf("%d sidecars", n))
	}
	s.Skipped = todo
	done := func() { s.Skipped = s.Skipped[1:] }
	b, err := newBed(ctx, o)
	if err != nil {
		return err
	}
	defer b.close(ctx)
	for i := range shapes {
		if err := b.grow(ctx, shapes[i].pods); err != nil {
			return err
		}
		if err := b.measureShape(ctx, &shapes[i], s); err != nil {
			return fmt.Errorf("%s: %w", &shapes[i], err)
		}
		done()
	}
	return b.collect(ctx, sidecars, func(c Collection) {
		s.Collection = append(s.Collection, c)
		done()
	})
}

func write(dir string, s Summary) error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "summary.json"), append(raw, '\n'), 0o644) //nolint:gosec // for everybody
}

// quantile is the value that a share q of the values does not exceed. It sorts them.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(int(q*float64(len(values))), len(values)-1)]
}
