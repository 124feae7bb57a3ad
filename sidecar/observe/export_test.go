package observe

import (
	"context"
	"net"
	"net/http"
)

// Loop samples until ctx ends, as Run does.
func (o *Observer) Loop(ctx context.Context) error { return o.loop(ctx) }

// MetricsHandler lets a test ask the metrics port without one.
func (o *Observer) MetricsHandler() http.Handler { return o.server.Server.Handler }

// Up is closed when the first sample was taken and the metrics port accepts connections.
func (o *Observer) Up() <-chan struct{} { return o.up }

// MetricsAddr is the address of the metrics port, once Up.
func (o *Observer) MetricsAddr() net.Addr { return o.server.Addr() }
