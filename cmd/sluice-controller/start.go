package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"github.com/sluice-autoscaler/sluice/internal/patience"
	"github.com/sluice-autoscaler/sluice/internal/serve"
)

const (
	// startRetry is the time between two attempts to start while the API server does not answer.
	startRetry = time.Second
	// startTimeout bounds one attempt.
	startTimeout = 30 * time.Second
)

// starting is a process that waits for the API server, until it has been assembled. It is safe for
// concurrent use.
type starting struct {
	api *patience.Patience

	mu sync.Mutex
	// process is nil until then, and fault is why it could not be assembled.
	process *process
	metrics prometheus.Gatherer
	fault   error
}

// runPatiently serves health and metrics at once, assembles the process as soon as the API server
// answers, and runs it. It ends with the first part that fails, or with ctx.
func runPatiently(ctx context.Context, cfg *rest.Config, o options, reg *prometheus.Registry, log *slog.Logger) error {
	s := &starting{api: patience.New(log), fault: errors.New("the first attempt is under way"), metrics: reg}
	cfg.Wrap(s.api.Wrap)
	web := &http.Server{Addr: o.metricsListen, Handler: s.handler(o.openMetrics), ReadHeaderTimeout: 5 * time.Second}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := web.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve metrics: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		return web.Shutdown(stop)
	})
	g.Go(func() error {
		p, err := s.assemble(ctx, cfg, o, reg, log)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // an attempt that was cut short
		case err != nil:
			return err
		}
		return p.run(ctx)
	})
	return g.Wait()
}

// assemble tries until the process is assembled, ctx ends or something fails
// that patience does not mend. Each attempt has metrics of its own: those of one that failed are
// dropped with it.
func (s *starting) assemble(ctx context.Context, cfg *rest.Config, o options, base *prometheus.Registry, log *slog.Logger) (*process, error) {
	for {
		reg := prometheus.NewRegistry()
		attempt, cancel := context.WithTimeout(ctx, startTimeout)
		p, err := assemble(attempt, cfg, o, s.api, reg, s.exposition(), log)
		cancel()
		if err == nil {
			s.mu.Lock()
			s.process, s.metrics = p, prometheus.Gatherers{base, reg}
			s.mu.Unlock()
			return p, nil
		}
		if ctx.Err() != nil || !passes(err) {
			return nil, err
		}
		log.WarnContext(ctx, "not started, will retry", slog.Any("error", err))
		s.mu.Lock()
		s.fault = err
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(startRetry):
		}
	}
}

// passes tells whether a fault is the API server's, so that waiting may mend it: it cannot be
// reached, answers with an error, or does not know Autoscalers yet.
func passes(err error) bool {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Op != "parse"
	}
	var status apierrors.APIStatus
	answered := errors.As(err, &status)
	_, undiscovered := errors.AsType[*discovery.ErrGroupDiscoveryFailed](err)
	return answered || undiscovered || meta.IsNoMatchError(err) || errors.Is(err, context.DeadlineExceeded)
}

// handler serves /healthz, which holds while the process waits, /readyz, which says for what, and
// /metrics where everybody may read them.
func (s *starting) handler(openMetrics bool) http.Handler {
	mux := http.NewServeMux()
	checks := func(of func(*process) []serve.Check, waiting ...serve.Check) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			p := s.process
			s.mu.Unlock()
			if p == nil {
				serve.Health(waiting...).ServeHTTP(w, r)
				return
			}
			serve.Health(of(p)...).ServeHTTP(w, r)
		})
	}
	mux.Handle("/healthz", checks((*process).alive))
	mux.Handle("/readyz", checks((*process).ready, serve.Check{Name: "start", Probe: func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.fault
	}}))
	if openMetrics {
		mux.Handle("/metrics", s.exposition())
	}
	return mux
}

// exposition is /metrics: those of the process, and of its parts once it has been assembled.
func (s *starting) exposition() http.Handler {
	gather := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		s.mu.Lock()
		from := s.metrics
		s.mu.Unlock()
		return from.Gather()
	})
	return promhttp.HandlerFor(gather, promhttp.HandlerOpts{EnableOpenMetrics: true})
}
