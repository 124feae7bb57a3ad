package sidecar

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
)

// MetricsHandler lets a test ask the metrics port as a peer from anywhere.
func (s *Sidecar) MetricsHandler() http.Handler { return s.metrics.Server.Handler }

// Secured lets a test wait for a certificate's reload on a clock of its own.
func Secured(cert, key string, log *slog.Logger) (*tls.Config, error) { return secured(cert, key, log) }

// Up is closed when both ports accept connections.
func (s *Sidecar) Up() <-chan struct{} { return s.up }

// Addr is the address of the proxied port, MetricsAddr that of the metrics port, once Up.
func (s *Sidecar) Addr() net.Addr { return s.server.Addr() }

// MetricsAddr is the address of the metrics port, once Up.
func (s *Sidecar) MetricsAddr() net.Addr { return s.metrics.Addr() }
