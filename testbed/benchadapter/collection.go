package benchadapter

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sluice-autoscaler/sluice/proxy/inflight"
	"github.com/sluice-autoscaler/sluice/sidecar/exposition"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-autoscaler/sluice/testbed"
	"github.com/sluice-autoscaler/sluice/testbed/kit"
)

const (
	// collectWindow is how long collection is measured for each number of sidecars, and
	// collectSettle how long it goes on before.
	collectWindow, collectSettle = 15 * time.Second, 5 * time.Second
	protobuf                     = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)

// sidecars answer for the sidecars of all pods, each on a loopback address of its own, with the
// exposition of a real one that has one request in flight.
type sidecars struct {
	server *http.Server
	began  time.Time
	body   []byte
	// offsets are where the exposition has the time.
	offsets []int
	reads   atomic.Int64
}

// mark is the time in the exposition that is made once; it is replaced by the true one.
const mark = 123456789 * time.Millisecond

// newSidecars makes the exposition and begins to answer.
func newSidecars(ctx context.Context) (*sidecars, error) {
	counter := &inflight.Counter{}
	counter.Begin(0)
	metrics := exposition.New(exposition.Options{
		Start: time.Now(), Now: func() time.Duration { return mark }, InFlight: counter,
		Queued: func() int { return 0 }, Limit: func() int { return 0 }, Draining: func() bool { return false }, Version: "bench",
	})
	for i := range 1000 { // so that its histograms are those of one that works
		metrics.Finished(http.StatusOK, time.Duration(i)*time.Millisecond, time.Duration(i)*time.Microsecond)
	}
	handler, err := metrics.Handler(slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	rec := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil)
	req.Header.Set("Accept", protobuf)
	handler.ServeHTTP(rec, req)
	s := &sidecars{began: time.Now(), body: rec.Body.Bytes()}
	pattern := binary.LittleEndian.AppendUint64(nil, math.Float64bits(mark.Seconds()))
	for at := 0; ; {
		i := bytes.Index(s.body[at:], pattern)
		if i < 0 {
			break
		}
		s.offsets, at = append(s.offsets, at+i), at+i+len(pattern)
	}
	if len(s.offsets) != 2 {
		return nil, fmt.Errorf("the exposition has the time in %d places, want 2: of the clock and of the integral", len(s.offsets))
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "0.0.0.0:"+strconv.Itoa(sidecarPort))
	if err != nil {
		return nil, fmt.Errorf("answer for sidecars: %w", err)
	}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.server.Serve(l) }() // it ends with close
	return s, nil
}

func (s *sidecars) close() { _ = s.server.Close() }

// ServeHTTP implements http.Handler.
func (s *sidecars) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	body := bytes.Clone(s.body)
	now := math.Float64bits(time.Since(s.began).Seconds())
	for _, at := range s.offsets {
		binary.LittleEndian.PutUint64(body[at:], now)
	}
	w.Header().Set("Content-Type", protobuf)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	s.reads.Add(1)
	_, _ = w.Write(body) // whoever is gone need not be told
}

// loopback is the address of a pod's sidecar.
func loopback(i int) string { return fmt.Sprintf("127.1.%d.%d", i/250, 1+i%250) }

// collect measures what reading sidecars costs, for each number of them.
func (b *bed) collect(ctx context.Context, sizes []int, done func(Collection)) error {
	fmt.Fprintln(b.Stdout, "collection from sidecars")
	if err := b.demand(ctx, &shape{pods: 10}); err != nil {
		return err
	}
	s, err := newSidecars(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	addresses := make([]string, 0, 2)
	for range 2 {
		a, err := freeAddress(ctx)
		if err != nil {
			return err
		}
		addresses = append(addresses, a)
	}
	p, err := start(filepath.Join(b.Out, "logs", "collection.log"), filepath.Join(b.Place.Bin, "sluice-controller"), "--kubeconfig="+b.cluster.Kubeconfig(),
		"--namespace="+kit.Namespace, "--scaler=false", "--api-listen="+addresses[0], "--metrics-listen="+addresses[1])
	if err != nil {
		return err
	}
	defer p.stop()
	pods, window := 100, collectWindow
	if b.Quick {
		pods, window = 10, 2*quickWindow
	}
	ran := 0
	for _, n := range sizes {
		g, up := errgroup.WithContext(ctx)
		g.SetLimit(atOnce)
		for ; ran < n; ran++ {
			i := ran
			g.Go(func() error { return b.run(up, namespaceOf(pods), podName(i/pods, i%pods), loopback(i)) })
		}
		if err := g.Wait(); err != nil {
			return fmt.Errorf("make pods run: %w", err)
		}
		c, err := s.measure(ctx, p, n, window)
		if err != nil {
			return err
		}
		fmt.Fprintf(b.Stdout, "  %d sidecars: %.0f reads/s, %.2f cores, %.0f MiB\n", n, c.ReadsPerSecond, c.Cores, c.RSSMiB)
		done(c)
	}
	return nil
}

// measure waits until n sidecars are read, for as long as it takes within reason, and measures.
func (s *sidecars) measure(ctx context.Context, p *process, n int, window time.Duration) (Collection, error) {
	before := s.reads.Load()
	err := testbed.WaitFor(ctx, 30*time.Second, "the first reads", func(context.Context) (string, bool) {
		if err := p.alive(); err != nil {
			return err.Error(), false
		}
		reads := s.reads.Load() - before
		return fmt.Sprintf("%d reads", reads), reads >= int64(n)
	})
	if err != nil {
		return Collection{}, err
	}
	if err := pause(ctx, collectSettle); err != nil {
		return Collection{}, err
	}
	cpu, err := p.cpu()
	if err != nil {
		return Collection{}, err
	}
	reads, began := s.reads.Load(), time.Now()
	if err := pause(ctx, window); err != nil {
		return Collection{}, err
	}
	after, err := p.cpu()
	if err != nil {
		return Collection{}, err
	}
	took := time.Since(began).Seconds()
	c := Collection{Sidecars: n, ReadsPerSecond: float64(s.reads.Load()-reads) / took, Cores: (after - cpu).Seconds() / took}
	c.RSSMiB, err = p.peak()
	return c, err
}
