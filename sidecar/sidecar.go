package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/sluice-autoscaler/sluice/internal/serve"
	"github.com/sluice-autoscaler/sluice/sidecar/appcheck"
	"github.com/sluice-autoscaler/sluice/sidecar/drain"
	"github.com/sluice-autoscaler/sluice/sidecar/exposition"
	"github.com/sluice-autoscaler/sluice/sidecar/inflight"
	"github.com/sluice-autoscaler/sluice/sidecar/limit"
	"github.com/sluice-autoscaler/sluice/sidecar/proxy"
)

// metricsDrain bounds how long a scrape under way may hold up the end of the process.
const metricsDrain = time.Second

// Sidecar is the proxy mode. New makes it, Run runs it once.
type Sidecar struct {
	log     *slog.Logger
	server  *proxy.Server
	metrics *serve.HTTP
	drain   *drain.Drain
	up      chan struct{}
}

// New assembles a sidecar of a valid configuration; version is shown in its metrics. Its life, by which its counters and
// its monotonic time are told from another's, begins here.
func New(cfg Config, version string, log *slog.Logger) (*Sidecar, error) {
	start := time.Now()
	now := func() time.Duration { return time.Since(start) }
	secure, err := secured(cfg.TLSCert, cfg.TLSKey, log)
	if err != nil {
		return nil, err
	}
	network, address := proxy.Network(cfg.App)
	var (
		counter inflight.Counter
		limiter = limit.New(cfg.ConcurrencyLimit, cfg.QueueLimit, cfg.QueueTimeout)
		d       = drain.New(cfg.LameDuck, cfg.Drain)
		check   = appcheck.Dial(network, address, cfg.AppDialTimeout)
	)
	switch {
	case cfg.AppReadyPath != "":
		check = appcheck.HTTP(network, address, cfg.AppReadyPath, cfg.AppDialTimeout)
	case cfg.AppReadyGRPC:
		check = appcheck.GRPC(network, address, cfg.AppReadyGRPCService, cfg.AppDialTimeout)
	}
	metrics := exposition.New(exposition.Options{
		Start: start, Now: now, InFlight: &counter, Queued: limiter.Queued, Limit: limiter.Limit, Draining: d.Draining, Version: version,
	})
	scrape, err := metrics.Handler(log)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", scrape)
	mux.Handle("GET /healthz", serve.Health())
	up := make(chan struct{})
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
	if cfg.DrainPath != "" {
		mux.HandleFunc("GET "+cfg.DrainPath, func(w http.ResponseWriter, r *http.Request) {
			d.Begin()
			select {
			case <-d.Done():
			case <-r.Context().Done(): // who asked has left; the drain goes on
				return
			}
			if err := d.Err(); err != nil {
				http.Error(w, err.Error(), http.StatusGatewayTimeout)
				return
			}
			_, _ = io.WriteString(w, "drained\n")
		})
	}

	return &Sidecar{
		log:   log,
		drain: d,
		up:    up,
		server: &proxy.Server{
			Address: cfg.Listen,
			Handler: proxy.New(proxy.Options{
				App: cfg.App, Now: now, InFlight: &counter, Limiter: limiter, Drain: d, Metrics: metrics, Check: check.Check,
				IgnorePaths: cfg.IgnorePaths, IgnoreAgents: cfg.IgnoreAgents,
				DialTimeout: cfg.AppDialTimeout, AppIdleTimeout: cfg.AppIdleTimeout,
				ResponseTimeout: cfg.ResponseTimeout, RequestTimeout: cfg.RequestTimeout, Log: log,
			}),
			TLS:           secure,
			HeaderTimeout: cfg.HeaderTimeout, IdleTimeout: cfg.IdleTimeout, MaxHeaderBytes: cfg.MaxHeaderBytes,
			LateDrain: cfg.Drain, Log: log,
		},
		metrics: &serve.HTTP{
			Name: "metrics", Address: cfg.MetricsListen, Drain: metricsDrain,
			Server: &http.Server{
				Handler: mux, ReadHeaderTimeout: cfg.HeaderTimeout, IdleTimeout: cfg.IdleTimeout,
				ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
			},
		},
	}, nil
}

// Run serves until ctx ends, drains, and returns nil, or returns what failed. The metrics port is up first and closes
// last.
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
			select {
			case <-ctx.Done():
			case <-s.drain.Begun():
				s.log.InfoContext(ctx, "draining on request")
				<-ctx.Done()
			}
			return nil
		},
	})
	return g.Run(ctx)
}

// Up is closed when both ports accept connections.
func (s *Sidecar) Up() <-chan struct{} { return s.up }

// Addr is the address of the proxied port, MetricsAddr that of the metrics port, once Up.
func (s *Sidecar) Addr() net.Addr { return s.server.Addr() }

// MetricsAddr is the address of the metrics port, once Up.
func (s *Sidecar) MetricsAddr() net.Addr { return s.metrics.Addr() }
