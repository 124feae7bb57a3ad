package observe

import (
	"context"
	"net/http"
)

// Loop samples until ctx ends, as Run does.
func (o *Observer) Loop(ctx context.Context) error { return o.loop(ctx) }

// MetricsHandler lets a test ask the metrics port without one.
func (o *Observer) MetricsHandler() http.Handler { return o.server.Server.Handler }
