// Package observe estimates an app's requests in flight from outside their path. It samples the
// kernel's view of the app's connections: a request is in flight where data was received more
// recently than sent. It adds no latency and cannot break a request. docs/observe.md states its
// accuracy and its blind spots.
package observe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluice-autoscaler/sluice/internal/serve"
	"github.com/sluice-autoscaler/sluice/proxy/inflight"
	"github.com/sluice-autoscaler/sluice/sidecar/exposition"
	"github.com/sluice-autoscaler/sluice/sidecar/observe/sockdiag"
)

const (
	// staleAfter is for how long a sample makes the observer ready.
	staleAfter = 2 * time.Second
	// longestInterval bounds the time between two samples whatever they cost.
	longestInterval = time.Second
	// metricsDrain bounds how long a scrape under way may hold up the end of the process.
	metricsDrain = time.Second
	// livenessPeriod is the heartbeat's: /healthz fails when no sample has begun for two of them,
	// whether or not samples succeed.
	livenessPeriod = 10 * time.Second
	// httpTimeout bounds how long a scraper may take to send its request's headers.
	httpTimeout = 10 * time.Second
	// intervalGrowth is how fast the interval grows, by each sample in which nothing moves.
	intervalGrowth = 1.25
	// creditTime is for how long CPU time that was not used is kept, to be spent when connections
	// come up.
	creditTime = 4 * time.Second
	// knownShare is the least share of what is earned that samples between lists get.
	knownShare = 0.7
	// acceptedEvery is the least time between two looks at how many connections were accepted.
	acceptedEvery = 50 * time.Millisecond
	// listEvery is how often all connections are listed although the kernel has counted no new
	// ones.
	listEvery = 10 * time.Second
)

// Source shows connections. sockdiag.Socket is one.
type Source interface {
	// List shows the connections to a local port, Each those of the given that still exist.
	List(port uint16, each func(*sockdiag.Conn)) error
	Each(ids []sockdiag.ID, families []uint8, each func(*sockdiag.Conn)) error
	// Accepted counts the connections, to this port and others, that were accepted so far; it fails
	// where nobody counts them.
	Accepted() (uint64, error)
}

// Observer is the observe mode. New makes it, Run runs it once.
type Observer struct {
	cfg     Config
	log     *slog.Logger
	source  Source
	start   time.Time
	rng     *rand.Rand
	counter inflight.Counter
	metrics *exposition.Metrics
	server  *serve.HTTP
	alive   *serve.Heartbeat
	up      chan struct{}

	// Of the sampling goroutine alone.
	tracker  *Tracker
	ids      []sockdiag.ID
	families []uint8
	seen     []sockdiag.Conn
	last     Stats
	// when all connections were listed last, and the count of accepted ones read
	listed, acceptedRead time.Duration
	accepted             count         // when last listed
	wanted               time.Duration // the interval that the load asks for
	listCost, eachCost   time.Duration // smoothed
	credit               time.Duration // CPU time that may be spent
	creditedAt           time.Duration // until when credit was given
	processTime          time.Duration // CPU time that the process had taken at the sample before

	mu    sync.Mutex
	state state
}

// state is what the metrics show of the sampling.
type state struct {
	at                time.Duration // of the last good sample
	stats             Stats
	samples, failures uint64
	interval          time.Duration
	err               error
	draining          bool
}

// New assembles an observer of a valid configuration that asks source; version is shown in its
// metrics. Its life, by which its counters and its monotonic time are told from another's, begins
// here.
func New(cfg Config, version string, source Source, log *slog.Logger) (*Observer, error) {
	o := &Observer{
		cfg: cfg, log: log, source: source, start: time.Now(), wanted: cfg.MinInterval, up: make(chan struct{}),
		credit: maxCredit(cfg) / 2, processTime: processTime(),
		rng: rand.New(rand.NewPCG(rand.Uint64(), 0)), // only spreads the samples
	}
	o.alive = serve.NewHeartbeat("sampling", livenessPeriod, o.start)
	none := func() int { return 0 }
	o.metrics = exposition.New(exposition.Options{
		// The integral is known up to the last sample, so that is its time: a source that cannot
		// sample stands still, and is not taken for one without demand.
		Start: o.start, Now: func() time.Duration { return o.read().at }, InFlight: &o.counter,
		Queued: none, Limit: none, Draining: func() bool { return o.read().draining }, Version: version,
	})
	o.tracker = NewTracker(&o.counter, func(took time.Duration) {
		// The kernel tells no status: every request counts as answered well. No overhead, as
		// nothing is added.
		o.metrics.Finished(http.StatusOK, max(took, 0), -1)
	})
	reg := prometheus.NewPedanticRegistry()
	for _, c := range []prometheus.Collector{o.metrics, newCollector(o.read)} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		EnableOpenMetrics: true, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}))
	mux.Handle("GET /healthz", serve.Health(o.alive.Check(time.Now)))
	mux.Handle("GET /readyz", serve.Health(serve.Check{Name: "samples", Probe: func(context.Context) error {
		s := o.read()
		if age := time.Since(o.start) - s.at; s.samples == 0 || age > staleAfter {
			return errors.Join(fmt.Errorf("no sample for %v", age.Round(time.Millisecond)), s.err)
		}
		return nil
	}}))
	o.server = &serve.HTTP{Name: "metrics", Address: cfg.MetricsListen, Drain: metricsDrain, Server: &http.Server{
		Handler: mux, ReadHeaderTimeout: httpTimeout, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	return o, nil
}

// Run observes until ctx ends, and on while requests are in flight, for Drain at most. It returns
// nil, or what failed.
func (o *Observer) Run(ctx context.Context) error {
	var g serve.Group
	g.Add(o.server.Service(), serve.Service{
		Name: "sampling",
		Start: func(ctx context.Context) error {
			if err := o.sample(); err != nil {
				return err
			}
			o.log.InfoContext(ctx, "observing", slog.Int("app_port", o.cfg.AppPort), slog.String("metrics_listen", o.server.Addr().String()))
			close(o.up)
			return nil
		},
		Run: o.loop,
	})
	return g.Run(ctx)
}

func (o *Observer) read() state {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state
}

// loop samples until ctx ends and then until nothing is in flight, for Drain at most.
func (o *Observer) loop(ctx context.Context) error {
	timer := time.NewTimer(o.interval())
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-timer.C:
			o.sampleAndNote(ctx)
			timer.Reset(o.interval())
		}
	}
	o.mu.Lock()
	o.state.draining = true
	o.mu.Unlock()
	bound := time.NewTimer(o.cfg.Drain)
	defer bound.Stop()
	for {
		select {
		case <-o.counter.Idle():
			return nil
		case <-bound.C:
			return nil
		case <-timer.C:
			o.sampleAndNote(ctx)
			timer.Reset(o.interval())
		}
	}
}

// sampleAndNote samples, and logs when sampling begins to fail or to work again.
func (o *Observer) sampleAndNote(ctx context.Context) {
	o.alive.Beat(time.Now())
	err := o.sample()
	o.mu.Lock()
	before := o.state.err
	o.state.err = err
	if err != nil {
		o.state.failures++
	}
	o.mu.Unlock()
	switch {
	case err != nil && before == nil:
		o.log.WarnContext(ctx, "cannot sample, will retry", slog.Any("error", err))
	case err == nil && before != nil:
		o.log.InfoContext(ctx, "sampling again")
	}
}

// sample takes one sample. When it fails the integral stands still; what it has missed the next one
// sees.
func (o *Observer) sample() error {
	began := time.Since(o.start)
	o.credit = min(o.credit+time.Duration(o.cfg.MaxCPU*float64(began-o.creditedAt)), maxCredit(o.cfg))
	o.creditedAt = began
	o.ids, o.families = o.tracker.Known(o.ids[:0], o.families[:0])
	o.seen = o.seen[:0]
	keep := func(c *sockdiag.Conn) { o.seen = append(o.seen, *c) }
	what, accepted := o.choose(began)
	var err error
	switch what {
	case sampleNothing:
		o.spend()
		return nil
	case sampleAll:
		err = o.source.List(uint16(o.cfg.AppPort), keep)
	case sampleKnown:
		err = o.source.Each(o.ids, o.families, keep)
	}
	if err != nil {
		o.spend()
		return err
	}
	complete := what == sampleAll
	o.tracker.Begin(began, complete, accepted.since(o.accepted))
	for i := range o.seen {
		o.tracker.See(&o.seen[i])
	}
	o.last = o.tracker.Commit()

	cost := o.spend()
	if complete {
		o.listed, o.accepted = began, accepted
		o.listCost = smooth(o.listCost, cost)
	} else {
		o.eachCost = smooth(o.eachCost, cost)
	}
	o.wanted = time.Duration(float64(o.wanted) * intervalGrowth)
	if o.last.Moved {
		o.wanted = 0
	}
	o.wanted = min(max(o.wanted, o.cfg.MinInterval), o.cfg.MaxInterval)

	o.mu.Lock()
	o.state.at, o.state.stats = began, o.last
	o.state.samples++
	o.mu.Unlock()
	return nil
}

// spend returns the CPU time that the process has used since the last call, wake-ups and scrapes
// included, and subtracts it from the credit. On a busy machine a sample may wait for the processor
// for long: that costs nothing.
func (o *Observer) spend() time.Duration {
	now := processTime()
	cost := now - o.processTime
	o.processTime = now
	o.credit -= cost
	return cost
}

// smooth follows a cost, and a sudden one slowly: the first ones pay for page faults, others for an
// interrupt.
func smooth(mean, cost time.Duration) time.Duration {
	if mean == 0 {
		return cost
	}
	return mean + (min(cost, 3*mean)-mean)/8
}

// maxCredit is the most CPU time that can be saved.
func maxCredit(cfg Config) time.Duration {
	return time.Duration(cfg.MaxCPU * float64(creditTime))
}

// scope is which connections a sample reads.
type scope int

const (
	sampleKnown   scope = iota // the connections that the last list showed
	sampleAll                  // a list of all
	sampleNothing              // nothing: too many are new, and a list cannot be paid for yet
)

// count is how many connections were accepted, if that is known.
type count struct {
	n     uint64
	known bool
}

// since is how many more c is than before, modulo 2⁶⁴, or −1 where one of them is unknown.
func (c count) since(before count) int {
	if !c.known || !before.known {
		return -1
	}
	return int(c.n - before.n)
}

// choose says what to look at now, and how many connections were accepted up to now, if that was
// asked. Only a list shows new connections, but it reads through the machine's whole table: so one
// is made when there are new ones and the CPU time for it was saved up.
func (o *Observer) choose(now time.Duration) (what scope, accepted count) {
	if o.eachCost >= o.listCost {
		// it would never be looked at again, were it not forgotten now and then
		o.eachCost -= o.eachCost / 64
	}
	always := o.state.samples == 0 || o.listsOnly()
	if !always && now-o.acceptedRead < acceptedEvery {
		return sampleKnown, count{}
	}
	o.acceptedRead = now
	if n, err := o.source.Accepted(); err == nil {
		accepted = count{n, true}
	}
	fresh := accepted.since(o.accepted)
	affordable := o.credit >= min(o.listCost, maxCredit(o.cfg))
	switch {
	case always:
		what = sampleAll
	case fresh == 0 && now-o.listed < listEvery:
		what = sampleKnown
	case affordable:
		what = sampleAll
	case fresh <= len(o.ids):
		what = sampleKnown
	case now-o.listed < longestInterval:
		// What is known is the lesser part. To wait is to say that the rest is unknown, for so long
		// as a collector forgives.
		what = sampleNothing
	default:
		what = sampleAll
	}
	return what, accepted
}

// listsOnly says whether samples between lists are of no use, or cost more.
func (o *Observer) listsOnly() bool {
	return o.last.Churn || len(o.ids) > 0 && o.eachCost >= o.listCost
}

// interval is the time to the next sample: what the load asks for or what the costs allow, a
// quarter more or less by chance, so that samples keep no step with requests.
func (o *Observer) interval() time.Duration {
	cost := o.eachCost
	if o.listsOnly() {
		cost = o.listCost
	}
	// With half of the most saved up, what is earned is spent: with less, less, so that lists have
	// their share.
	share := o.cfg.MaxCPU * min(max(2*o.credit.Seconds()/maxCredit(o.cfg).Seconds(), knownShare), 2)
	d := min(max(o.wanted, time.Duration(float64(cost)/share)), longestInterval)
	o.mu.Lock()
	o.state.interval = d
	o.mu.Unlock()
	return time.Duration(float64(d) * (0.75 + o.rng.Float64()/2))
}
