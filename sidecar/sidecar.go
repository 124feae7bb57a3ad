package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/serve"
	"github.com/sluice-autoscaler/sluice/proxy"
	"github.com/sluice-autoscaler/sluice/proxy/drain"
	"github.com/sluice-autoscaler/sluice/proxy/inflight"
	"github.com/sluice-autoscaler/sluice/proxy/limit"
	"github.com/sluice-autoscaler/sluice/proxy/request"
	"github.com/sluice-autoscaler/sluice/proxy/socket"
	"github.com/sluice-autoscaler/sluice/sidecar/appcheck"
	"github.com/sluice-autoscaler/sluice/sidecar/exposition"
)

// metricsDrain bounds how long a scrape under way may hold up the end of the process.
const metricsDrain = time.Second

// livenessPeriod is the heartbeat's: /healthz fails when the loop that looks after connections,
// twenty times a second, has not turned for two of them.
const livenessPeriod = 10 * time.Second

// Sidecar is the proxy mode. New makes it, Run runs it once.
type Sidecar struct {
	log     *slog.Logger
	server  *proxy.Server
	metrics *serve.HTTP
	up      chan struct{}
}

// New assembles a sidecar of a valid configuration; version is shown in its metrics. Its life, by
// which its counters and its monotonic time are told from another's, begins here.
func New(cfg Config, version string, log *slog.Logger) (*Sidecar, error) {
	start := time.Now()
	now := func() time.Duration { return time.Since(start) }
	secure, err := secured(cfg.TLSCert, cfg.TLSKey, log)
	if err != nil {
		return nil, err
	}
	if cfg.DrainTokenFile != "" {
		if _, err := readToken(cfg.DrainTokenFile); err != nil {
			return nil, err
		}
	}
	var (
		counter inflight.Counter
		limiter = limit.New(cfg.ConcurrencyLimit, cfg.QueueLimit, cfg.QueueTimeout)
		d       = drain.New(cfg.LameDuck, cfg.Drain, cfg.DrainUndo)
		check   = cfg.appCheck()
		up      = make(chan struct{})
		alive   = serve.NewHeartbeat("connections", livenessPeriod, start)
	)
	metrics := exposition.New(exposition.Options{
		Start: start, Now: now, InFlight: &counter, Queued: limiter.Queued, Limit: limiter.Limit, Draining: d.Draining, Version: version,
	})
	scrape, err := metrics.Handler(log)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return &Sidecar{
		log: log,
		up:  up,
		server: &proxy.Server{
			Address: cfg.Listen,
			Rules: &request.Rules{
				Now: now, InFlight: &counter, Limiter: limiter, Drain: d, Metrics: metrics, Check: check.Check,
				Ignore:          request.Ignore{Paths: cfg.IgnorePaths, Agents: cfg.IgnoreAgents},
				ResponseTimeout: cfg.ResponseTimeout, RequestTimeout: cfg.RequestTimeout, Log: log,
			},
			App: cfg.App, DialTimeout: cfg.AppDialTimeout, AppIdleTimeout: cfg.AppIdleTimeout,
			TLS:           secure,
			HeaderTimeout: cfg.HeaderTimeout, IdleTimeout: cfg.IdleTimeout, MaxHeaderBytes: cfg.MaxHeaderBytes,
			LateDrain: cfg.Drain, Heartbeat: alive, Log: log,
		},
		metrics: &serve.HTTP{
			Name: "metrics", Address: cfg.MetricsListen, Drain: metricsDrain,
			Server: &http.Server{
				Handler: cfg.metricsHandler(scrape, alive, check, d, up), ReadHeaderTimeout: cfg.HeaderTimeout, IdleTimeout: cfg.IdleTimeout,
				ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
			},
		},
	}, nil
}

// appCheck returns what asks the app whether it is ready.
func (c *Config) appCheck() *appcheck.Checker {
	network, address := socket.Address(c.App)
	switch {
	case c.AppReadyPath != "":
		return appcheck.HTTP(network, address, c.AppReadyPath, c.AppDialTimeout)
	case c.AppReadyGRPC:
		return appcheck.GRPC(network, address, c.AppReadyGRPCService, c.AppDialTimeout)
	}
	return appcheck.Dial(network, address, c.AppDialTimeout)
}

// metricsHandler serves the metrics port; up is closed when the proxied port is open.
func (c *Config) metricsHandler(scrape http.Handler, alive *serve.Heartbeat, check *appcheck.Checker, d *drain.Drain, up <-chan struct{}) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", scrape)
	mux.Handle("GET /healthz", serve.Health(alive.Check(time.Now),
		serve.Check{Name: "drain", Probe: func(context.Context) error { return d.Overdue(time.Now()) }}))
	mux.Handle("GET /readyz", serve.Health(
		serve.Check{Name: "listening", Probe: func(context.Context) error {
			select {
			case <-up:
				return nil
			default:
				return errors.New("the proxied port is not open yet")
			}
		}},
		serve.Check{Name: "not draining", Probe: func(context.Context) error {
			if d.Draining() {
				return errors.New("draining")
			}
			return nil
		}},
		serve.Check{Name: "app", Probe: check.Check},
	))
	if c.DrainPath != "" {
		mux.Handle("GET "+c.DrainPath, &drainHandler{drain: d, tokenFile: c.DrainTokenFile})
	}
	return mux
}

// Run serves until ctx ends, drains, and returns nil, or returns what failed. The metrics port is
// up first and closes last.
func (s *Sidecar) Run(ctx context.Context) error {
	var g serve.Group
	g.Add(s.metrics.Service(), s.server.Service(), serve.Service{
		Name: "announcement",
		Start: func(ctx context.Context) error {
			s.log.InfoContext(ctx, "serving", slog.String("listen", s.server.Addr().String()), slog.String("metrics_listen", s.metrics.Addr().String()))
			close(s.up)
			return nil
		},
		Run: func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		},
	})
	return g.Run(ctx)
}
