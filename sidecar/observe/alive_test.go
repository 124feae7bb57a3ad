package observe_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-autoscaler/sluice/sidecar/observe"
	"github.com/sluice-autoscaler/sluice/sidecar/observe/sockdiag"
)

// hanging is a Source that hangs from an instant on until it is released.
type hanging struct {
	from     time.Time
	released chan struct{}
}

func (h *hanging) wait() {
	if time.Now().After(h.from) {
		<-h.released
	}
}

func (h *hanging) List(uint16, func(*sockdiag.Conn)) error { h.wait(); return nil }

func (h *hanging) Each([]sockdiag.ID, []uint8, func(*sockdiag.Conn)) error { h.wait(); return nil }

func (h *hanging) Accepted() (uint64, error) { return 0, nil }

func TestLiveness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &hanging{from: time.Now().Add(time.Minute), released: make(chan struct{})}
		cfg := observe.Default()
		cfg.Drain = 0
		o, err := observe.New(cfg, "v0", source, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		healthz := func() int {
			rec := httptest.NewRecorder()
			o.MetricsHandler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/healthz", nil))
			return rec.Code
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- o.Loop(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := healthz(); got != http.StatusOK {
			t.Errorf("/healthz while samples come = %d, want 200", got)
		}
		time.Sleep(25 * time.Second)
		if got := healthz(); got != http.StatusServiceUnavailable {
			t.Errorf("/healthz while a sample hangs = %d, want 503", got)
		}
		close(source.released)
		stop()
		if err := <-ended; err != nil {
			t.Errorf("loop = %v", err)
		}
	})
}
